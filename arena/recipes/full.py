"""Full fine-tuning of every weight."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from arena.plugins.base import Recipe
from arena.recipes.config import TrainingConfig

if TYPE_CHECKING:
    from arena.lvlm.base import LVLM


class Full(Recipe):
    """Vision tower, projector and language model all learn."""

    class Config(TrainingConfig):
        learning_rate: float = Field(2.5e-4, gt=0, description="peak learning rate")

    def prepare(self, lvlm: LVLM) -> LVLM:
        lvlm.model.requires_grad_(True)
        return lvlm
