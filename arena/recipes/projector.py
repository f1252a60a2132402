"""Projector-only fine-tuning: the first stage of LLaVA's own training (Liu 2023, arXiv 2304.08485)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from arena.plugins.base import Recipe
from arena.recipes.config import TrainingConfig

if TYPE_CHECKING:
    from arena.lvlm.base import LVLM


class Projector(Recipe):
    """The projector learns; vision tower and language model stay frozen."""

    class Config(TrainingConfig):
        learning_rate: float = Field(5e-3, gt=0, description="peak learning rate")

    parts = frozenset({"projector"})

    def prepare(self, lvlm: LVLM) -> LVLM:
        lvlm.model.requires_grad_(False)
        lvlm.module(lvlm.projector).requires_grad_(True)
        return lvlm
