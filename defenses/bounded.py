"""Changes of a whole picture held within a budget of any norm that bounds values."""

from __future__ import annotations

import torch
from torch import Tensor

from arena.budget import Budget
from arena.lvlm.perturbation import project

_HALVINGS = 12
"""Steps in which the scale of a change is found."""


def within(delta: Tensor, clean: Tensor, budget: Budget) -> Tensor:
    """A change of the planes `clean`, both float ``(C, H, W)``, as far as it keeps the budget when it is rounded to 8
    bits: clipped in an L-infinity ball, scaled down where its root mean square is too large, and nowhere beyond black
    and white. Raises `UsageError` where the budget counts pixels.
    """
    epsilon = budget.epsilon
    if budget.norm == "linf":
        return project(delta, clean, epsilon)
    delta = (clean + delta).clamp(0, 1) - clean
    levels = 255 * delta
    if budget.norm == "unbounded" or _keeps(levels, budget.image):
        return delta
    low, high = 0.0, 1.0  # what rounding leaves grows with the scale
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _keeps(middle * levels, budget.image) else (low, middle)
    return (low * levels).round() / 255


def _keeps(levels: Tensor, bound: float) -> bool:
    """Whether the root mean square of a change is within a bound, both in 1/255."""
    return float(levels.round().square().sum(dtype=torch.float64)) <= bound**2 * levels.numel()
