"""LoRA on the language model with a projector that learns in full: LLaVA's own LoRA recipe (Liu 2023, arXiv
2310.03744)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arena.recipes.lora import Lora

if TYPE_CHECKING:
    from arena.lvlm.base import LVLM


class ProjectorLora(Lora):
    """Low-rank adapters on the language model and every weight of the projector; the vision tower stays frozen."""

    parts = frozenset({"adapters", "projector"})
    packs = False

    def prepare(self, lvlm: LVLM) -> LVLM:
        from arena.lvlm.adapters import attach_lora, linear_modules

        c = self.config
        tuned = attach_lora(lvlm, c.rank, c.alpha, c.dropout, linear_modules(lvlm, lvlm.language_model))
        tuned.module(tuned.projector).requires_grad_(True)
        return tuned
