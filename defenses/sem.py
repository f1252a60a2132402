"""SEM: stable error-minimising noise (Liu 2024, arXiv 2311.13091): robust to random noise instead of the worst one."""

from __future__ import annotations

import torch
from torch import Tensor

from defenses.looks import Loss
from defenses.rem import RobustErrorMinimizing, uniform


class StableErrorMinimizing(RobustErrorMinimizing):
    """min_theta max_da min_du E_t E_u CE(f_theta(t(x + du) + u), y): REM whose du meets random noise u in place of da.

    u is uniform in the ball that da would have, drawn anew with each draw of augmentation; the surrogate is trained on
    the worst da as in REM, which is all that the authors' code changes of REM's. Crafting takes a tenth of REM's
    gradients. Adapted as `rem` is.

    Budget: L∞ on pictures.
    """

    config: RobustErrorMinimizing.Config

    def _gradients_a_draw(self) -> int:
        return 1

    def _disturbed(self, images: list[Tensor], loss: Loss, radius: float, generator: torch.Generator) -> list[Tensor]:
        """t(x + du) + u."""
        return [x + uniform(x.detach(), radius, generator) for x in images]
