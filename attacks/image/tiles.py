"""A model of one picture size on pictures of any size: overlapping tiles, blended; smaller pictures are padded."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

import numpy as np
import torch
from torch import Tensor


class Tiling:
    """How pictures of one size, at least as large as a tile, are cut into tiles and put together again.

    `sides` and `tile` are (height, width) in pixels. Neighbours overlap by `overlap` of a tile at least. What tiles say
    about a pixel is averaged, with weights that fall off linearly over the overlap towards their borders.
    """

    def __init__(self, sides: tuple[int, int], tile: tuple[int, int], overlap: float) -> None:
        self.tile = tile
        starts = [_starts(side, part, overlap) for side, part in zip(sides, tile, strict=True)]
        self.places = [(y, x) for y in starts[0] for x in starts[1]]
        rows, columns = (_ramp(part, overlap) for part in tile)
        self.weight = rows[:, None] * columns
        self.total = torch.zeros(sides)
        for y, x in self.places:
            self.total[y : y + tile[0], x : x + tile[1]] += self.weight

    def map(self, x: Tensor, function: Callable[[Tensor], Tensor], batch: int) -> Tensor:
        """`function` of ``(N, C, h, w)`` tiles, at most `batch` at once, over pictures ``(B, C, H, W)``, blended."""
        if len(self.places) == 1:
            return torch.cat([function(part) for part in x.split(batch)])
        height, width = self.tile
        tiles = torch.cat([x[:, :, y : y + height, u : u + width] for y, u in self.places])
        outputs = torch.cat([function(part) for part in tiles.split(batch)]) * self.weight.to(x)
        blended = x.new_zeros(x.shape[0], outputs.shape[1], *x.shape[2:])
        for (y, u), output in zip(self.places, outputs.split(x.shape[0]), strict=True):
            blended[:, :, y : y + height, u : u + width] += output
        return blended / self.total.to(x)


def _starts(side: int, tile: int, overlap: float) -> list[int]:
    """First pixels of the fewest tiles, evenly spaced, that cover `side` and overlap by the share `overlap`."""
    common = round(overlap * tile)
    count = 1 + ceil((side - tile) / (tile - common))
    return [int(start) for start in np.linspace(0, side - tile, count).round()]


def _ramp(tile: int, overlap: float) -> Tensor:
    """Weights ``(tile,)``: rising over the overlap, then 1, then falling."""
    distance = torch.arange(tile) + 0.5
    return (torch.minimum(distance, tile - distance) / max(overlap * tile, 0.5)).clamp(max=1)


def padded(pixels: np.ndarray, least: tuple[int, int]) -> tuple[np.ndarray, tuple[slice, slice]]:
    """A picture ``(H, W, C)`` mirrored beyond its borders to sides of `least` where it is smaller, and where in the
    result it stands."""
    before = [max(0, need - side) // 2 for need, side in zip(least, pixels.shape[:2], strict=True)]
    after = [max(0, need - side) - b for need, side, b in zip(least, pixels.shape[:2], before, strict=True)]
    height, width = pixels.shape[:2]
    place = slice(before[0], before[0] + height), slice(before[1], before[1] + width)
    return np.pad(pixels, [(before[0], after[0]), (before[1], after[1]), (0, 0)], mode="reflect"), place
