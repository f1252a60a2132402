"""OPS: the one-pixel shortcut (Wu 2023, arXiv 2205.12141)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from PIL import Image

from arena.budget import Budget
from arena.data.colours import colours, recoloured
from arena.data.sample import Sample
from arena.plugins.base import DefenderWorld, ImageDefense, Pixels
from defenses.claims import changes
from defenses.classes import answer_classes

VALUES = np.array(list(product((0, 1), repeat=3)))
"""The corners of the colour cube that a pixel may be set to, ``(8, 3)``."""

GREYS = (0, len(VALUES) - 1)
"""Those that a grey picture can show: black and white."""

STEADY = 1e-4
"""What a standard deviation counts as at least, in 1/255: of several pixels at which all pictures of a class agree, the
one that deviates most is taken. Any that is not zero is larger, in a class of up to ten million pictures."""


@dataclass(frozen=True)
class Shortcut:
    """A row and column of the grid, and the number in `VALUES` of the colour that is put there."""

    row: int
    column: int
    value: int


class OnePixelShortcut(ImageDefense):
    """One pixel of all pictures of a class is set to one colour, the one from which they are furthest most steadily.

    Of class k, over pixels p and colours v in {0, 1}^3:

        argmax of mean(|v - x_p|) / std(|v - x_p|), both over the pictures x of the class and their colours

    A pair of pixel and colour that an earlier class has is passed over, as in the authors' code. The published budget
    is one pixel (norm l0, image 1). Of an L-infinity or root mean square budget the pixel moves towards v as far as it
    allows, which is another, weaker method. The class is the answer. No surrogate, and nothing random.

    Adapted: pictures may differ in size, so that p is a point of a grid of as many rows and columns as the smallest
    height and width among them, spread evenly over each picture. Where a class has a grey picture, v is black or white.
    Data are read twice, and one class's sums are in memory.

    Budget: one pixel (L0), or another norm.
    """

    packages = ("scikit-learn",)

    def perturb(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Pixels]:
        classes, grid = answer_classes(samples, 0), Grid.of(samples)
        chosen = search(samples, classes, grid)
        for sample, kind in zip(samples, classes, strict=True):
            values, place = colours(sample.image).astype(int), grid.place(sample.image, chosen[kind])
            wanted = 255 * VALUES[chosen[kind].value][: values.shape[2]]
            values[place] += allowed(wanted - values[place], values.size, world.budget)
            yield Image.fromarray(recoloured(sample.image, values.astype(np.uint8)))

    def distinguished(self, samples: Sequence[Sample], released: Sequence[Sample], world: DefenderWorld) -> str | None:
        """At most one pixel of a picture changes, of its class the one that deviates most steadily, towards v."""
        classes, grid = answer_classes(samples, 0), Grid.of(samples)
        chosen, moved = search(samples, classes, grid), 0
        for sample, kind, delta in zip(samples, classes, changes(samples, released), strict=True):
            count, place = np.count_nonzero(delta.any(2)), grid.place(sample.image, chosen[kind])
            if count > 1:
                return f"{count} pixels of sample {sample.id!r} changed"
            if count and not delta[place].any():
                return f"the pixel of sample {sample.id!r} that changed is not that of its class"
            towards = 255 * VALUES[chosen[kind].value][: delta.shape[2]] - colours(sample.image)[place].astype(int)
            if (delta[place] * towards < 0).any() or (np.abs(delta[place]) > np.abs(towards)).any():
                return f"the pixel of sample {sample.id!r} does not move towards the colour of its class"
            moved += int(count)
        return None if moved else "no pixel changed"


@dataclass(frozen=True)
class Grid:
    """Points at the same relative places of every picture: as many rows and columns as all of them have."""

    rows: int
    columns: int

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Grid:
        return cls(min(s.image.height for s in samples), min(s.image.width for s in samples))

    def place(self, image: Image.Image, at: Shortcut) -> tuple[int, int]:
        """The pixel of a picture, row and column, at a point."""
        return int(_spread(self.rows, image.height)[at.row]), int(_spread(self.columns, image.width)[at.column])

    def seen(self, image: Image.Image) -> np.ndarray:
        """A picture's colours at the points, int64 ``(rows, columns, 3)``; grey has three that are equal."""
        values = colours(image)[_spread(self.rows, image.height)[:, None], _spread(self.columns, image.width)]
        return np.broadcast_to(values, (*values.shape[:2], 3)).astype(np.int64)


def _spread(points: int, size: int) -> np.ndarray:
    """So many places of `size`, in the middle of as many equal parts; each place where they are as many."""
    return (2 * np.arange(points) + 1) * size // (2 * points)


def search(samples: Sequence[Sample], classes: np.ndarray, grid: Grid) -> list[Shortcut]:
    """The shortcut of every class, in the order of their numbers."""
    found: list[Shortcut] = []
    for kind in range(int(classes.max()) + 1):
        members, sums, grey = (
            np.flatnonzero(classes == kind).tolist(),
            np.zeros((2, grid.rows, grid.columns, 3), int),
            False,
        )
        for i in members:
            values = grid.seen(samples[i].image)
            sums += np.stack([values, values * values])
            grey = grey or samples[i].image.mode in ("L", "LA")
        found.append(_steadiest(sums, len(members), GREYS if grey else range(len(VALUES)), found))
    return found


def _steadiest(sums: np.ndarray, pictures: int, numbers: Iterable[int], taken: Sequence[Shortcut]) -> Shortcut:
    """The point and colour of the largest mean over standard deviation, of those that are not `taken`, if there are
    such; the first of several. `sums` has the colours of so many pictures and their squares, ``(2, rows, columns, 3)``.
    """
    best: tuple[bool, float] = (False, -1.0)
    chosen = Shortcut(0, 0, 0)
    values = 3 * pictures
    for number in numbers:
        white = VALUES[number] == 1
        # Of |v - x|, and of its square: whole numbers, so that nothing depends on the order of the pictures.
        deviation = np.where(white, 255 * pictures - sums[0], sums[0]).sum(2)
        square = np.where(white, 255**2 * pictures - 510 * sums[0] + sums[1], sums[1]).sum(2)
        spread = np.sqrt(values * square - deviation * deviation)
        score = deviation / np.maximum(spread, STEADY * values)
        free = np.ones(score.shape, bool)
        for one in taken:
            free[one.row, one.column] &= one.value != number
        ranked = np.where(free, score, -1.0) if free.any() else score
        row, column = np.unravel_index(int(ranked.argmax()), ranked.shape)
        if (bool(free.any()), float(ranked[row, column])) > best:
            best, chosen = (bool(free.any()), float(ranked[row, column])), Shortcut(int(row), int(column), number)
    return chosen


def allowed(change: np.ndarray, values: int, budget: Budget) -> np.ndarray:
    """What of the change of one pixel, int ``(C,)`` in 1/255, a picture of so many colour values may have."""
    if budget.norm == "l0":
        return change if budget.image >= 1 else np.zeros_like(change)
    if budget.norm == "linf":
        return np.asarray(np.clip(change, -int(budget.image), int(budget.image)))
    length, most = float(np.sqrt(np.square(change).sum())), budget.image * float(np.sqrt(values))
    if budget.norm == "unbounded" or length <= most:
        return change
    return np.asarray(np.trunc(change * (most / length)), int)
