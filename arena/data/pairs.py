"""Originals and what was released of them, brought together: by id, else by the name of the picture's file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from arena.data.sample import Sample

_TRAINING = "train/"
"""How ids of training samples begin where a dataset has folders for training and test."""


def paired(originals: Sequence[Sample], released: Sequence[Sample]) -> list[Sample | None]:
    """Of each original the released sample of its id; where there is none, the one whose id is the same file name with
    another suffix, since releases hold PNG files. None where there is none, or several."""
    by_id = {sample.id: sample for sample in released}
    counts = Counter(_stem(sample.id) for sample in released)
    by_stem = {stem: sample for sample in released if counts[stem := _stem(sample.id)] == 1}
    names = [original.id.removeprefix(_TRAINING) for original in originals]
    ours = Counter(map(_stem, names))
    return [
        by_id.get(original.id) or by_id.get(name) or (by_stem.get(_stem(name)) if ours[_stem(name)] == 1 else None)
        for original, name in zip(originals, names, strict=True)
    ]


def _stem(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix() if PurePosixPath(name).name else name
