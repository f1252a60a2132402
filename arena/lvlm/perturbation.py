"""Perturbations of raw pictures: one float tensor per sample at the picture's own size and channels, kept in the ball.

A grey picture has one channel and its perturbation too, so that what is optimised can be released in its mode.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from arena.budget import mode_problem
from arena.data.colours import colours, recoloured
from arena.data.sample import Sample
from arena.errors import ArenaError


def planes(image: Image.Image) -> Tensor:
    """A picture's own colour planes, float32 ``(C, H, W)`` in [0, 1]: one for grey, three for colour; without alpha.

    Raises `ArenaError` for a mode that a release cannot have.
    """
    if problem := mode_problem(image):
        raise ArenaError(problem)
    values = colours(image).copy()
    # A grey plane in rows, colours pixel by pixel: how values lie in memory decides what rounding a convolution does.
    array = values.transpose(2, 0, 1) if values.shape[2] == 3 else values[None, :, :, 0]
    return torch.from_numpy(array).float() / 255


def as_rgb(x: Tensor) -> Tensor:
    """Planes ``(1 or 3, H, W)`` as the three that models see, differentiably."""
    return x.expand(3, -1, -1)


def project(delta: Tensor, clean: Tensor, epsilon: float) -> Tensor:
    """Onto the L-infinity ball of radius `epsilon` and the pixel range [0, 1] (eq. 14)."""
    return (clean + delta.clamp(-epsilon, epsilon)).clamp(0, 1) - clean


def sign_descent(delta: Tensor, gradient: Tensor, clean: Tensor, step: float, epsilon: float) -> Tensor:
    """One projected step against the sign of the gradient (eqs. 13-15); a negative `step` ascends."""
    return project(delta - step * gradient.sign(), clean, epsilon)


def check_finite(what: str, values: Sequence[Tensor]) -> None:
    """Raises `ArenaError` where values that crafting goes by are no numbers: the sign of NaN moves a picture by nothing
    that means anything, and says nothing."""
    if not all(bool(x.isfinite().all()) for x in values):
        raise ArenaError(
            f"{what} is NaN or infinite: the surrogate diverged, or its numbers do not fit their type. Lower the "
            "learning rate, or load it in dtype bfloat16 or float32"
        )


def to_pixels(image: Image.Image, planes_: Tensor) -> np.ndarray:
    """Perturbed planes as a draft for a picture of the original's mode: float array in [0, 1], the original alpha put
    back."""
    return recoloured(image, planes_.detach().cpu().clamp(0, 1).permute(1, 2, 0).numpy())


def batches(size: int, batch_size: int) -> list[range]:
    """Consecutive index ranges that cover ``range(size)``."""
    return [range(at, min(at + batch_size, size)) for at in range(0, size, batch_size)]


PIXELS = 2**23
"""Pixels of pictures that are crafted on at a time, at most, unless it is one picture: a gigabyte or less, beside the
model."""


def pieces(part: Sequence[int], samples: Sequence[Sample]) -> list[list[int]]:
    """The samples of these numbers in lists whose pictures have at most `PIXELS` pixels together, or are one."""
    found: list[list[int]] = []
    room = 0
    for i in part:
        size = samples[i].image.width * samples[i].image.height
        if not found or size > room:
            found.append([])
            room = PIXELS
        found[-1].append(i)
        room -= size
    return found


def random_uniform(samples: Sequence[Sample], epsilon: float, generator: torch.Generator) -> Iterator[Tensor]:
    """Perturbations uniform in the ball, one per sample, projected onto the pixel range; one at a time is in memory."""
    for sample in samples:
        clean = planes(sample.image)
        yield project((2 * torch.rand(clean.shape, generator=generator) - 1) * epsilon, clean, epsilon)
