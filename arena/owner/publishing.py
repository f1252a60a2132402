"""Drafts to the files that an owner publishes.

PNG and WebP keep every pixel: what is released is the draft. JPEG moves pixels by itself, by more than most budgets
allow. So where JPEG is asked for, the originals are taken as a JPEG file of the same settings shows them: that is what
is protected, what surrogates see pictures through, and what the decoded files of the release are held against.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import floor
from pathlib import Path

import numpy as np

from arena.budget import Budget
from arena.data.colours import colours
from arena.data.pictures.encoding import Encoding
from arena.data.sample import Sample, digest
from arena.errors import ArenaError, UsageError
from arena.owner.fitting import fitted
from arena.owner.intake import Originals
from arena.release import read_release, write_release
from arena.text import bound_text

_ROOM = 0.65
"""The share of an L-infinity budget that is crafted within where JPEG is asked for. What it leaves, compression needs:
drafts of the whole budget have to be changed so much that less of the protection is left."""


@dataclass(frozen=True)
class Published:
    """The samples of a release read back from disk, and what there is to say about writing them."""

    samples: list[Sample]
    notes: list[str]


def publish(
    originals: Originals, drafts: Sequence[Sample], folder: Path, encoding: Encoding, budget: Budget
) -> Published:
    """Write drafts that keep the budget into `folder`, with what is kept beside their pixels, and read them back.

    Samples about one file have one file, so that their drafts must have one picture, as `Seen.one_each` gives them. For
    JPEG a draft is changed until its file keeps the budget too. Raises `ArenaError` where samples do not read back as
    they were written.
    """
    digests: list[str] = []
    moved, kept = 0, np.zeros(2)

    def final() -> Iterator[Sample]:
        nonlocal moved
        for before, original, draft in zip(originals.pictures, originals.samples, drafts, strict=True):
            if not encoding.lossy:
                digests.append(digest([draft]))
                yield draft
                continue
            image = fitted(before, original.image, draft.image, encoding, budget)
            read = draft.with_content(encoding.published(image), draft.question)
            digests.append(digest([read]))
            clean = colours(original.image).astype(np.int16)
            moved = max(moved, int(np.abs(colours(before) - clean).max()))
            kept[:] += [np.abs(colours(other.image) - clean).mean() for other in (draft, read)]
            yield draft.with_content(image, draft.question)

    write_release(final(), folder, originals.files, encoding, originals.extras.__getitem__)
    read = read_release(folder, [original.image.mode for original in originals.samples])
    if digests != [digest([sample]) for sample in read]:
        raise ArenaError(f"{folder} does not read back as it was written: check the disk, then use --resume")
    notes = [f"saving as {encoding.name} alone moves pixels by up to {moved}/255"] if encoding.lossy else []
    if kept[0]:
        notes.append(
            f"so that the budget holds after compression too, the perturbation is smaller than it was crafted: "
            f"{kept[1] / kept[0]:.0%} of its mean are left in the files ({encoding.name})"
        )
    return Published(read, notes)


def crafted_within(budget: Budget, encoding: Encoding) -> Budget:
    """The budget that a defense is given for a release in `encoding`. Raises `UsageError` for one that no file in it
    keeps."""
    if encoding.lossy and budget.norm == "l0":
        raise UsageError(
            f"{encoding.name} moves pixels by itself, so that no file keeps a budget of "
            f"{bound_text(budget.norm, budget.image)}: release PNG or WebP, which keep every pixel"
        )
    if not encoding.lossy or budget.norm != "linf" or budget.image < 1:
        return budget
    return budget.model_copy(update={"image": max(1, floor(budget.image * _ROOM))})
