"""The image step (eqs. 13-15): projected sign descent on raw pixels, in whole 8-bit levels, at each picture's own size.

A perturbation is int16 ``(C, H, W)`` in units of 1/255 (C = 1 for grey), so what is optimised is what is released.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from PIL import Image
from torch import Tensor

from arena.budget import Budget
from arena.data.colours import recoloured
from arena.errors import UsageError
from arena.lvlm.perturbation import as_rgb, check_finite, planes

Losses = Callable[[int, list[Tensor]], Iterable[Tensor]]
"""The parts of l_prot in a step, each ``(n,)``, from the step's number and float pictures ``(3, H, W)`` in [0, 1]."""


def radius(budget: Budget) -> int:
    """The image budget in whole 8-bit levels."""
    if budget.norm != "linf":
        raise UsageError(f"mmguard keeps an L-infinity budget, not {budget.norm!r}: set the budget's norm to linf")
    if budget.image > 127:
        raise UsageError(f"an image budget of {budget.image}/255 does not fit 8-bit differences: use at most 127/255")
    return int(budget.image)


def levels(image: Image.Image) -> Tensor:
    """A picture's colour planes as 8-bit levels, int16 ``(C, H, W)``; alpha left out."""
    return (planes(image) * 255).round().to(torch.int16)


def pixels(clean: Tensor, delta: Tensor) -> Tensor:
    """x + delta as float32 ``(C, H, W)``, exact multiples of 1/255 in [0, 1], in which it is cut off where `delta` is
    shared with other pictures."""
    return (clean + delta).clamp(0, 255).float() / 255


def project(delta: Tensor, clean: Tensor, radius: int) -> Tensor:
    """Onto the L-infinity ball of `radius` levels and the pixel range 0 to 255 (eq. 14)."""
    return (clean + delta.clamp(-radius, radius)).clamp(0, 255) - clean


def descend(delta: Tensor, gradient: Tensor, clean: Tensor, step: int, radius: int) -> Tensor:
    """Proj(delta - alpha * sign(gradient)) with alpha = `step` levels (eqs. 13-15)."""
    return project(delta - step * gradient.sign().to(delta.dtype), clean, radius)


def pgd(
    clean: Sequence[Tensor],
    delta: Sequence[Tensor],
    losses: Losses,
    steps: int,
    step: int,
    radius: int,
    of: Sequence[int] | None = None,
) -> list[Tensor]:
    """`steps` sign steps of all perturbations against the gradient of the losses.

    Picture i has the perturbation ``of[i]``, its own where `of` is None; one of several pictures takes their gradients'
    sum, and is held in the ball alone. Every part of the losses is differentiated before the next is computed, so that
    one at a time is in memory.
    """
    of = range(len(clean)) if of is None else of
    current = list(delta)
    for number in range(steps):
        leaves = [pixels(x, current[d]).requires_grad_() for x, d in zip(clean, of, strict=True)]
        gradients: dict[int, Tensor] = {}
        for part in losses(number, [as_rgb(x) for x in leaves]):
            check_finite("the surrogates' loss after their inner steps", [part])
            found = dict(enumerate(torch.autograd.grad(part.sum(), leaves, allow_unused=True)))
            parts = {i: gradient for i, gradient in found.items() if gradient is not None}
            check_finite("the gradient in the pixels", list(parts.values()))
            for i, gradient in parts.items():
                gradients[i] = gradients[i] + gradient if i in gradients else gradient
        for d in range(len(current)):
            mine = [i for i, other in enumerate(of) if other == d]
            if len(mine) == 1:
                current[d] = descend(current[d], gradients[mine[0]], clean[mine[0]], step, radius)
            else:
                total = torch.stack([gradients[i] for i in mine]).sum(0)
                current[d] = (current[d] - step * total.sign().to(current[d].dtype)).clamp(-radius, radius)
    return current


def released(image: Image.Image, delta: Tensor) -> Image.Image:
    """The perturbed 8-bit picture in the original's mode, its alpha channel unchanged."""
    values = (levels(image) + delta).clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    return Image.fromarray(recoloured(image, values))
