"""LoRA on every attention and MLP projection of the language model (Hu 2022, arXiv 2106.09685)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from arena.plugins.base import Recipe, setting
from arena.recipes.config import TrainingConfig

if TYPE_CHECKING:
    from arena.lvlm.base import LVLM


class Lora(Recipe):
    """Low-rank adapters on the language model; vision tower and projector stay frozen."""

    class Config(TrainingConfig):
        rank: int = setting(16, dry_run=2, ge=1, description="rank of the adapters; the paper uses 8, 16 and 64")
        alpha: int = Field(32, gt=0, description="scale of the adapters is alpha / rank")
        dropout: float = Field(0.05, ge=0, lt=1, description="of the adapters while they are trained")

    config: Config
    parts = frozenset({"adapters"})
    packs = True

    @property
    def rank(self) -> int:
        return self.config.rank

    def prepare(self, lvlm: LVLM) -> LVLM:
        from arena.lvlm.adapters import attach_lora, linear_modules

        c = self.config
        return attach_lora(lvlm, c.rank, c.alpha, c.dropout, linear_modules(lvlm, lvlm.language_model))
