"""Other views of a picture than a surrogate's own: what other models read of it, that crop, cut or resize otherwise.

A processor that crops the centre leaves the rest of a picture without gradient, so a perturbation crafted through it
alone leaves the rest clean, which another model reads. A view is a picture made of the picture, differentiably: the
whole squeezed into a square, or a square part of it. Expectation over such transformations is how a perturbation is
made to survive them (Athalye 2018, arXiv 1707.07397).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from math import ceil
from weakref import WeakKeyDictionary

import torch
from PIL import Image
from torch import Tensor

from arena.lvlm import pixels
from arena.lvlm.base import LVLM

SEEN = 0.95
"""A surrogate's own view is enough where it sees this share of a picture."""

WHOLE = 512
"""Most pixels a side of the whole picture as a square: no surrogate is shown more of it."""

_MEASURED = 256
"""Pixels of the longer side at which it is found out what a surrogate sees: what is cropped depends on proportions."""

_NARROWEST = 8
"""Pixels that the shorter side keeps, so that proportions stay what they are."""

View = Callable[[Tensor], Tensor]
"""From a picture ``(3, H, W)`` in [0, 1] to another one, differentiably; its size follows from the first one's."""

_shares: WeakKeyDictionary[LVLM, dict[tuple[int, int], float]] = WeakKeyDictionary()


def leaves_out(lvlm: LVLM, height: int, width: int) -> bool:
    """Whether the model's own processor leaves more than 1 - `SEEN` of a picture of that size unseen."""
    return share_seen(lvlm, height, width) < SEEN


def share_seen(lvlm: LVLM, height: int, width: int) -> float:
    """The share of a picture's pixels that the model's own processor reads, 0 to 1: those with a gradient."""
    scale = min(1.0, max(_MEASURED / max(height, width), _NARROWEST / min(height, width)))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    known = _shares.setdefault(lvlm, {})
    if size not in known:
        with torch.enable_grad():
            grey = torch.full((3, *size), 0.5, device=lvlm.device, requires_grad=True)
            read = [v for v in lvlm.pixel_inputs([grey]).values() if v.is_floating_point() and v.requires_grad]
            total = torch.stack([v.nan_to_num().float().sum() for v in read]).sum()  # padding is NaN
            (gradient,) = torch.autograd.grad(total, grey)
        weight = gradient.abs().sum(0)
        # Filters reach a little beyond what is cropped, with next to no weight.
        known[size] = float((weight > 0.01 * weight.max()).float().mean())
    return known[size]


def cuts(turn: int) -> tuple[View, View]:
    """The views of a turn beside a surrogate's own: the whole picture, and a part of it."""
    return whole, partial(part, turn=turn)


def whole(x: Tensor) -> Tensor:
    """The whole picture ``(3, H, W)`` as a square: of its shorter side, at most `WHOLE`."""
    side = min(x.shape[-2], x.shape[-1], WHOLE)
    return pixels.resize(pixels.to_bytes(x), side, side, Image.Resampling.BICUBIC)


def part(x: Tensor, turn: int) -> Tensor:
    """A square part of the picture ``(3, H, W)``: another one each turn, in turn all that `squares` has."""
    found = squares(x.shape[-2], x.shape[-1])
    top, left, side = found[turn % len(found)]
    return x[..., top : top + side, left : left + side]


@lru_cache(maxsize=4096)
def squares(height: int, width: int) -> tuple[tuple[int, int, int], ...]:
    """Top, left and side of squares that cover a picture, with little overlap: first of the shorter side, as cropping
    gives them, then of half of it, as tiling does."""
    shorter = min(height, width)
    found = []
    for side in dict.fromkeys((shorter, max(1, shorter // 2))):
        rows, columns = (_starts(length, side) for length in (height, width))
        found += [(top, left, side) for top in rows for left in columns]
    return tuple(found)


def _starts(length: int, side: int) -> list[int]:
    """Where the fewest parts of a length begin that cover it, evenly spaced."""
    count = ceil(length / side)
    return [round(i * (length - side) / max(1, count - 1)) for i in range(count)]
