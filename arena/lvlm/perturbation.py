"""Perturbations of raw pictures: one float tensor per sample at the picture's own size and channels, kept in the ball.

A grey picture has one channel and its perturbation too, so that what is optimised can be released in its mode.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from arena.data.sample import Sample
from arena.errors import ArenaError


def planes(image: Image.Image) -> Tensor:
    """A picture's own colour planes, float32 ``(C, H, W)`` in [0, 1]: one for grey, three for colour; alpha left
    out."""
    if image.mode in ("L", "LA"):
        array = np.array(image.convert("L"))[None]
    elif image.mode in ("RGB", "RGBA"):
        array = np.array(image.convert("RGB")).transpose(2, 0, 1)
    else:
        raise ArenaError(f"a picture of mode {image.mode!r} cannot be perturbed; convert it to RGB or L first")
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


def to_pixels(image: Image.Image, planes_: Tensor) -> Image.Image | np.ndarray:
    """Perturbed planes as a draft for a picture of the original's mode: float array in [0, 1], the original alpha put
    back."""
    x = planes_.detach().cpu().clamp(0, 1).permute(1, 2, 0).numpy()
    if image.mode in ("RGBA", "LA"):
        alpha = np.array(image.getchannel("A"), np.float32)[..., None] / 255
        x = np.concatenate([x, alpha], -1)
    return x[..., 0] if image.mode == "L" else x


def batches(size: int, batch_size: int) -> list[range]:
    """Consecutive index ranges that cover ``range(size)``."""
    return [range(at, min(at + batch_size, size)) for at in range(0, size, batch_size)]


def random_uniform(samples: Sequence[Sample], epsilon: float, generator: torch.Generator) -> list[Tensor]:
    """Perturbations uniform in the ball, one per sample, projected onto the pixel range."""
    clean = [planes(s.image) for s in samples]
    return [project((2 * torch.rand(x.shape, generator=generator) - 1) * epsilon, x, epsilon) for x in clean]
