"""Drafts to the files that an owner publishes.

PNG and WebP keep every pixel: what is released is the draft. JPEG moves pixels by itself, by more than most budgets
allow. So where JPEG is asked for, the originals are taken as a JPEG file of the same settings shows them: that is what
is protected, what surrogates see pictures through, and what the decoded files of the release are held against.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
from PIL import Image

from arena.budget import Budget
from arena.data.colours import colours, recoloured
from arena.data.pictures.encoding import Encoding
from arena.data.sample import Sample, digest
from arena.errors import ArenaError
from arena.owner.intake import Originals
from arena.release import read_release, write_release

_BLOCK = 8
"""Pixels a side of what JPEG codes by itself."""

_SHRINK, _TRIES = 0.9, 16
"""By what the bound on a block's perturbation is multiplied while it does not fit, and how often, before it is left
out there."""


@dataclass(frozen=True)
class Published:
    """The samples of a release read back from disk, and what there is to say about writing them."""

    samples: list[Sample]
    notes: list[str]


def publish(
    originals: Originals, drafts: Sequence[Sample], folder: Path, encoding: Encoding, budget: Budget
) -> Published:
    """Write drafts that keep the budget into `folder`, with what is kept beside their pixels, and read them back.

    For JPEG a draft is changed until its file keeps the budget too. Raises `ArenaError` where samples do not read back
    as they were written.
    """
    digests: list[str] = []
    kept = np.zeros(2)

    def final() -> Iterator[Sample]:
        for before, original, draft in zip(originals.pictures, originals.samples, drafts, strict=True):
            if not encoding.lossy:
                digests.append(digest([draft]))
                yield draft
                continue
            image = fitted(before, original.image, draft.image, encoding, budget)
            read = draft.with_content(encoding.published(image), draft.question)
            digests.append(digest([read]))
            kept[:] += [np.abs(_change(original.image, other.image)).mean() for other in (draft, read)]
            yield draft.with_content(image, draft.question)

    write_release(final(), folder, originals.files, encoding, originals.extras.__getitem__)
    read = read_release(folder, [original.image.mode for original in originals.samples])
    if digests != [digest([sample]) for sample in read]:
        raise ArenaError(f"{folder} does not read back as it was written: check the disk, then use --resume")
    notes = []
    if kept[0]:
        notes.append(
            f"so that the budget holds after compression too, the perturbation is smaller than it was crafted: "
            f"{kept[1] / kept[0]:.0%} of its mean are left in the files ({encoding.name})"
        )
    return Published(read, notes)


def fitted(
    before: Image.Image, original: Image.Image, draft: Image.Image, encoding: Encoding, budget: Budget
) -> Image.Image:
    """The draft of `original`, changed so that its file in `encoding` is within the budget of it.

    `original` is what a file of the picture `before` shows. Where a block is too far from it, the perturbation is moved
    against the excess, and its bound lowered. Blocks are coded one by one, and one of `before` gives that of
    `original`, so that there always is such a picture.
    """
    delta = _change(original, draft)
    if budget.norm == "unbounded" or not delta.any():
        return draft if delta.any() else before
    clean, unsaved = colours(original).astype(np.int16), colours(before)
    height, width, _ = clean.shape
    bound = np.full((ceil(height / _BLOCK), ceil(width / _BLOCK)), float(np.abs(delta).max()))
    for left in reversed(range(_TRIES + 1)):
        nothing = _spread(_largest(delta) == 0, height, width)
        values = np.where(nothing, unsaved, np.clip(clean + delta, 0, 255).astype(np.uint8))
        image = Image.fromarray(recoloured(original, values))
        change = _change(original, encoding.published(image))
        over = _over(change, budget)
        if not over.any():
            break
        bound[over] *= _SHRINK if left > 1 else 0
        limit = _spread(bound, height, width).astype(np.int16)
        excess = change - np.clip(change, -int(budget.image), int(budget.image))
        delta = np.where(_spread(over, height, width), np.clip(delta - excess, -limit, limit), delta)
    return image


def _change(before: Image.Image, after: Image.Image) -> np.ndarray:
    """The difference of the colours, int16 ``(H, W, C)``."""
    return np.asarray(colours(after).astype(np.int16) - colours(before))


def _spread(of_blocks: np.ndarray, height: int, width: int) -> np.ndarray:
    """The value of each pixel's block, ``(H, W, 1)``."""
    return of_blocks.repeat(_BLOCK, 0).repeat(_BLOCK, 1)[:height, :width, None]


def _largest(change: np.ndarray) -> np.ndarray:
    """The largest absolute value of each block of ``(H, W, C)``."""
    height, width, _ = change.shape
    rows, columns = ceil(height / _BLOCK), ceil(width / _BLOCK)
    padded = np.zeros((rows * _BLOCK, columns * _BLOCK), np.int16)
    padded[:height, :width] = np.abs(change).max(-1)
    largest: np.ndarray = padded.reshape(rows, _BLOCK, columns, _BLOCK).max((1, 3))
    return largest


def _over(change: np.ndarray, budget: Budget) -> np.ndarray:
    """Which blocks of a change are beyond a budget: all, where the budget is about the whole, and that is beyond."""
    largest = _largest(change)
    if budget.norm == "l2":
        return np.full(largest.shape, np.sqrt(np.mean(np.square(change, dtype=np.float64))) > budget.image)
    return largest > budget.image
