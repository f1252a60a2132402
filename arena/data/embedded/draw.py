"""Parts of a split drawn by a seed, one after the other, so that no picture is in two of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from arena.data.copies import picture_digest
from arena.data.sample import Sample, Splits
from arena.errors import ArenaError, UsageError


class Drawing:
    """One split in an order that the seed fixes; `take` hands out its rows from the front.

    Several rows may show one picture. They may all be in one part; in another they are passed over, or a fine-tuner's
    own clean samples would hold the originals of what was released.
    """

    def __init__(self, split: str, size: int, at: Callable[[int], Sample | None], seed: np.random.SeedSequence) -> None:
        """`split` names it in errors; `at` gives the sample of a row, from 0, or None for one that is not to be
        used."""
        self.split = split
        self.size = size
        self._at = at
        self._order = np.random.default_rng(seed).permutation(size).tolist()
        self._next = 0
        self._shown: set[str] = set()
        self._passed_over = 0
        self._drawn: list[str] = []

    def take(self, part: str, count: int) -> tuple[Sample, ...]:
        """The next `count` samples, for the part of that name. Raises `UsageError` if there are not so many."""
        found: list[Sample] = []
        mine: set[str] = set()
        while len(found) < count:
            if count - len(found) > self.size - self._next:
                self._refuse(part, count, len(found))
            sample = self._at(self._order[self._next])
            self._next += 1
            if sample is not None and (picture := picture_digest(sample.image)) not in self._shown:
                found.append(sample)
                mine.add(picture)
            else:
                self._passed_over += 1
        self._shown |= mine
        self._drawn.append(f"{count} {part}")
        return tuple(found)

    def _refuse(self, part: str, count: int, found: int) -> None:
        facts = [f"{self.size} rows"]
        if self._drawn:
            facts.append(f"of which {' and '.join(self._drawn)} samples are drawn")
        if self._passed_over:
            facts.append(f"{self._passed_over} are without picture or show one that is in another part")
        at_most = found + self.size - self._next
        raise UsageError(
            f"{self.split} has {', '.join(facts)}: {count} {part} samples are more than the {at_most} that can be "
            "left; ask for fewer"
        )


def divide(split: Drawing, train: int, auxiliary: int, test: int) -> Splits:
    """All three parts from one split. Test samples come first: they stay the same when other sizes change."""
    scored = split.take("test", test)
    released = split.take("training", train)
    return Splits(released, split.take("auxiliary", auxiliary), scored)


def drawn(dataset: str, seed: int, parts: Iterable[tuple[Sample, ...]]) -> Splits:
    """The parts that a dataset made by a seed. Raises `ArenaError` where a picture is there twice."""
    splits = Splits(*parts)
    pictures = [sample.image.tobytes() for part in (splits.train, splits.auxiliary, splits.test) for sample in part]
    if len({*pictures}) < len(pictures):
        raise ArenaError(f"{dataset}: seed {seed} draws a picture twice: choose another seed")
    return splits
