"""What fine-tuners do to pictures, as differentiable views of them: perturbations are crafted to survive it.

The expectation over such transformations (Athalye 2018, arXiv 1707.07397) makes a protection adaptive: its loss is also
taken through the attacks that it expects. What is drawn is drawn anew for every turn, by the turn's number and the size
of a picture alone, so that all samples of a picture, and all surrogates, see the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import ceil
from typing import get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from arena.lvlm.base import LVLM
from arena.lvlm.views import View, cuts, leaves_out
from mmguard.settings import Pictures, Purifier

QUALITIES = 10, 75
"""Between which the quality of JPEG is drawn: that of image shortcut squeezing, and libjpeg's own."""

SIGMAS = 0.5, 1.5
"""Between which the standard deviation of a blur is drawn, in pixels."""

SIDE = 0.9
"""Sides of a crop as a share of the picture's."""

_LUMA = 0.299, 0.587, 0.114
_BLOCK = 16
"""Pixels a side of JPEG's blocks where colours have half the resolution."""

Views = Callable[[Sequence[Tensor]], list[Tensor]]
"""Pictures ``(3, H, W)`` in [0, 1] seen otherwise, differentiably."""

Concerned = Callable[[LVLM, int, int], bool]
"""Whether something is for the pictures of a height and width, at a surrogate."""


def views(pictures: Pictures, turn: int) -> list[tuple[Views, Concerned]]:
    """What perturbations are crafted for in a turn beside what a surrogate sees: all pictures as each purifier leaves
    them, and other cuts of those of which it leaves out a part."""
    found: list[tuple[Views, Concerned]] = [
        (partial(purified, purifier=purifier, turn=turn), everywhere) for purifier in pictures.purifiers
    ]
    return found + [(partial(_one_by_one, cut), leaves_out) for cut in (cuts(turn) if pictures.views else ())]


def everywhere(lvlm: LVLM, height: int, width: int) -> bool:
    """All pictures are concerned."""
    return True


def purified(images: Sequence[Tensor], purifier: Purifier, turn: int) -> list[Tensor]:
    """Pictures ``(3, H, W)`` in [0, 1] as a purifier leaves them in a turn: in sizes and range as before."""
    of_size: dict[torch.Size, list[int]] = {}
    for i, image in enumerate(images):
        of_size.setdefault(image.shape, []).append(i)
    found: dict[int, Tensor] = {}
    for indices in of_size.values():
        rng = np.random.default_rng([turn, get_args(Purifier).index(purifier)])
        changed = _PURIFIERS[purifier](torch.stack([images[i] for i in indices]), rng)
        found |= dict(zip(indices, changed, strict=True))
    return [found[i] for i in range(len(images))]


def _one_by_one(view: View, images: Sequence[Tensor]) -> list[Tensor]:
    return [view(x) for x in images]


def _jpeg(x: Tensor, rng: np.random.Generator) -> Tensor:
    """JPEG with rounding that has a gradient (Shin and Song 2017), as kornia has it."""
    from kornia.enhance import jpeg_codec_differentiable

    height, width = x.shape[-2:]
    padded = F.pad(x, (0, -width % _BLOCK, 0, -height % _BLOCK), mode="replicate")
    quality = torch.tensor([float(rng.integers(QUALITIES[0], QUALITIES[1] + 1))], device=x.device)
    return jpeg_codec_differentiable(padded, quality)[..., :height, :width].clamp(0, 1)


def _blur(x: Tensor, rng: np.random.Generator) -> Tensor:
    from kornia.filters import gaussian_blur2d

    sigma = float(rng.uniform(*SIGMAS))
    rows, columns = (min(2 * ceil(3 * sigma) + 1, 2 * side - 1) for side in x.shape[-2:])
    return gaussian_blur2d(x, (rows, columns), (sigma, sigma)).clamp(0, 1)


def _crop_pad(x: Tensor, rng: np.random.Generator) -> Tensor:
    """A part at a random place, put at another one, its edge repeated around it."""
    sizes = [max(1, round(SIDE * side)) for side in x.shape[-2:]]
    room = [side - size + 1 for side, size in zip(x.shape[-2:], sizes, strict=True)]
    (top, left), (down, right) = rng.integers(room).tolist(), rng.integers(room).tolist()
    part = x[..., top : top + sizes[0], left : left + sizes[1]]
    around = (right, x.shape[-1] - right - sizes[1], down, x.shape[-2] - down - sizes[0])
    return F.pad(part, around, mode="replicate")


def _grayscale(x: Tensor, rng: np.random.Generator) -> Tensor:
    weights = torch.tensor(_LUMA, device=x.device, dtype=x.dtype)[:, None, None]
    return (x * weights).sum(1, keepdim=True).expand(-1, 3, -1, -1)


_PURIFIERS: Mapping[Purifier, Callable[[Tensor, np.random.Generator], Tensor]] = {
    "jpeg": _jpeg,
    "blur": _blur,
    "crop-pad": _crop_pad,
    "grayscale": _grayscale,
}
