"""A perturbation changed so that a picture's JPEG file keeps the budget, and not only the pixels that were saved.

Without chroma subsampling JPEG codes every block of 8 x 8 pixels by itself. So blocks whose decoded pixels are too far
from the original are changed alone: their perturbation is moved against the excess, and bounded more tightly, until
they are not. A block that is left as it was gives the original's own, so that there always is such a picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from arena.budget import Budget
from arena.data.colours import colours
from arena.data.pictures.encoding import Encoding

_SIDE = 8
_TRIES, _TIGHTER = 80, 0.97
"""How often a block is changed before its perturbation is left out, and what its bound is multiplied by each time."""

_SMALLER = 0.9
"""What the perturbation is multiplied by where the budget is about the whole picture."""

_ACROSS = 1024
"""Blocks side by side in a picture of blocks."""

_BAND = 64 * _SIDE
"""Rows of a picture that are looked at together."""


def fitted(
    before: Image.Image, original: Image.Image, draft: Image.Image, encoding: Encoding, budget: Budget
) -> Image.Image:
    """The draft of `original`, changed so that its file in `encoding` is within the budget of it; `original` is what a
    file of the picture `before` shows. All are of one size and of mode L or RGB."""
    clean, wanted = colours(original), colours(draft)
    if not (wanted != clean).any():
        return before
    if budget.norm == "unbounded":
        return draft
    if budget.norm == "l2":
        values = _smaller(clean, wanted, encoding, budget)
    else:  # in parts, as memory is bounded
        bands = [slice(top, top + _BAND) for top in range(0, len(clean), _BAND)]
        values = np.concatenate([_moved(clean[band], wanted[band], encoding, int(budget.image)) for band in bands])
    same = _Blocks.of(values != clean).values.any((1, 2, 3))
    chosen = _Blocks.of(values)
    chosen.values[~same] = _Blocks.of(colours(before)).values[~same]
    return _picture(chosen.whole())


def _smaller(clean: np.ndarray, wanted: np.ndarray, encoding: Encoding, budget: Budget) -> np.ndarray:
    delta, factor = wanted.astype(np.float32) - clean, 1.0
    while True:
        values: np.ndarray = np.rint(clean + factor * delta).astype(np.uint8)
        change = colours(encoding.published(_picture(values))).astype(np.float32) - clean
        if not (values != clean).any() or np.sqrt(np.mean(np.square(change, dtype=np.float64))) <= budget.image:
            return values
        factor *= _SMALLER


def _moved(clean: np.ndarray, wanted: np.ndarray, encoding: Encoding, most: int) -> np.ndarray:
    originals, drafts = _Blocks.of(clean), _Blocks.of(wanted)
    left = np.flatnonzero((drafts.values != originals.values).any((1, 2, 3)))
    bound = np.full(len(left), float(most))
    for turn in range(_TRIES):
        base = originals.values[left].astype(np.int16)
        change = _decoded(drafts.values[left], encoding).astype(np.int16) - base
        excess = change - np.clip(change, -most, most)
        over = (excess * drafts.real[left]).any((1, 2, 3))
        if not over.any():
            break
        left, base, excess, bound = left[over], base[over], excess[over], bound[over] * _TIGHTER
        limit = bound.astype(np.int16)[:, None, None, None] if turn < _TRIES - 2 else np.int16(0)
        delta = np.clip(drafts.values[left] - base - excess, -limit, limit)
        drafts.put(left, np.clip(base + delta, 0, 255).astype(np.uint8))
    return drafts.whole()


def _decoded(blocks: np.ndarray, encoding: Encoding) -> np.ndarray:
    """What is read back of blocks ``(N, 8, 8, C)`` that were written."""
    count, channels = len(blocks), blocks.shape[-1]
    across = min(count, _ACROSS)
    down = -(-count // across)
    sheet = np.zeros((down * across, _SIDE, _SIDE, channels), np.uint8)
    sheet[:count] = blocks
    rows = sheet.reshape(down, across, _SIDE, _SIDE, channels).swapaxes(1, 2)
    read = colours(encoding.published(_picture(rows.reshape(down * _SIDE, across * _SIDE, channels))))
    found: np.ndarray = read.reshape(down, _SIDE, across, _SIDE, channels).swapaxes(1, 2)
    return found.reshape(-1, _SIDE, _SIDE, channels)[:count]


def _picture(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values[..., 0] if values.shape[-1] == 1 else values)


@dataclass(frozen=True)
class _Blocks:
    """A picture ``(H, W, C)`` in blocks ``(N, 8, 8, C)``. Those at its right and lower edges are filled up with its
    last pixels, as libjpeg does: `real` ``(N, 8, 8, 1)`` says which pixels are its own, `rows` and `columns`
    ``(N, 8)`` from which place of the block each is."""

    values: np.ndarray
    height: int
    width: int
    real: np.ndarray
    rows: np.ndarray
    columns: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> _Blocks:
        height, width, channels = values.shape
        down, across = -(-height // _SIDE), -(-width // _SIDE)
        padded = np.pad(values, ((0, down * _SIDE - height), (0, across * _SIDE - width), (0, 0)), "edge")
        blocks = padded.reshape(down, _SIDE, across, _SIDE, channels).swapaxes(1, 2).reshape(-1, _SIDE, _SIDE, channels)
        places = np.arange(_SIDE)
        last_row = np.minimum(_SIDE, height - _SIDE * np.arange(down)).repeat(across)[:, None] - 1
        last_column = np.tile(np.minimum(_SIDE, width - _SIDE * np.arange(across)), down)[:, None] - 1
        real = ((places <= last_row)[:, :, None] & (places <= last_column)[:, None, :])[..., None]
        rows, columns = np.minimum(places, last_row), np.minimum(places, last_column)
        return cls(np.ascontiguousarray(blocks), height, width, real, rows, columns)

    def put(self, which: np.ndarray, values: np.ndarray) -> None:
        """Replace some blocks by others, filled up at the edges."""
        values = np.take_along_axis(values, self.rows[which][:, :, None, None], 1)
        self.values[which] = np.take_along_axis(values, self.columns[which][:, None, :, None], 2)

    def whole(self) -> np.ndarray:
        """The picture again."""
        down, across = -(-self.height // _SIDE), -(-self.width // _SIDE)
        blocks = self.values.reshape(down, across, _SIDE, _SIDE, -1).swapaxes(1, 2)
        picture: np.ndarray = blocks.reshape(down * _SIDE, across * _SIDE, -1)[: self.height, : self.width]
        return np.ascontiguousarray(picture)
