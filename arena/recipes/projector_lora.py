"""LoRA on the language model with a projector that learns in full: LLaVA's own LoRA recipe (Liu 2023, arXiv
2310.03744)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arena.recipes.lora import Lora

if TYPE_CHECKING:
    from arena.lvlm.base import LVLM


class ProjectorLora(Lora):
    """Low-rank adapters on the language model, where asked on the vision tower too, and the projector in full."""

    parts = frozenset({"adapters", "projector"})
    packs = False

    def prepare(self, lvlm: LVLM) -> LVLM:
        projector = f"{lvlm.projector}."
        tuned = self.adapt(lvlm, [name for name in self.adapted(lvlm) if not name.startswith(projector)])
        tuned.module(tuned.projector).requires_grad_(True)
        return tuned
