"""An attack inside training whose loss is none. Apart from the toys, which train in their own way."""

from __future__ import annotations

from typing import Any

from arena.plugins.base import Attack, AttackerWorld, TrainingHooks


class Diverges(Attack):
    """Makes the loss NaN."""

    def training(self, world: AttackerWorld) -> TrainingHooks:
        return NoLoss()


class NoLoss(TrainingHooks):
    def loss(self, lvlm: Any, batch: Any, progress: float) -> Any:
        return lvlm.loss(batch) * float("nan")
