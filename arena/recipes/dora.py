"""DoRA: adapters that learn magnitude and direction of a weight apart (Liu 2024, arXiv 2402.09353)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arena.recipes.lora import Lora

if TYPE_CHECKING:
    from arena.lvlm.base import LVLM


class Dora(Lora):
    """LoRA's adapters for the direction of each weight, and its magnitude learned beside them."""

    packs = False

    def prepare(self, lvlm: LVLM) -> LVLM:
        return self.adapt(lvlm, self.adapted(lvlm), use_dora=True)
