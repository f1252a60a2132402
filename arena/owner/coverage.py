"""How much of the pictures a protection reached: what stayed as it was is clean for a model that looks there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from arena.data.colours import colours
from arena.data.sample import Sample
from arena.text import shortened

ENOUGH = 0.95
"""Below this share of a picture it is warned."""

CELL = 16
"""Pixels a side of the parts that a picture is divided into, to tell a region that was left out from single pixels."""

_NAMED = 3


class Reached(BaseModel):
    """A picture by its file, the share of its pixels that changed, and the share of its area in which something did."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    pixels: float
    area: float


class Coverage(BaseModel):
    """Of the pictures that changed at all, `pictures`: the mean share of pixels that changed, the mean share of the
    area, and those of which less than `ENOUGH` changed, the worst first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pictures: int
    pixels: float
    area: float
    low: list[Reached]

    def warnings(self) -> list[str]:
        """What the owner has to know, in words."""
        regions = [one for one in self.low if one.area < ENOUGH]
        scattered = [one for one in self.low if one.area >= ENOUGH]
        found = []
        if regions:
            named = ", ".join(f"{shortened(one.file, 100)!r} {one.area:.0%}" for one in regions[:_NAMED])
            found.append(
                f"{len(regions)} of {self.pictures} pictures have unprotected parts: of {named} of the area was "
                "reached. A model that looks at the rest sees it clean. Craft with the setting views=true, or on a "
                "surrogate that reads whole pictures"
            )
        if scattered:
            named = ", ".join(f"{shortened(one.file, 100)!r} {one.pixels:.0%}" for one in scattered[:_NAMED])
            found.append(
                f"of {len(scattered)} of {self.pictures} pictures less than {ENOUGH:.0%} of the pixels changed ({named}"
                "), although no part was left out: pixels that are black or white can move one way only, and a small "
                "budget or few steps leave some where they are"
            )
        return found


def coverage(originals: Iterable[Sample], released: Iterable[Sample], files: Sequence[str]) -> Coverage | None:
    """What of the pictures changed; None where none did."""
    found = []
    for original, sample, file in zip(originals, released, files, strict=True):
        changed = (colours(original.image) != colours(sample.image)).any(-1)
        if changed.any():
            found.append(Reached(file=file, pixels=float(changed.mean()), area=_area(changed)))
    if not found:
        return None
    return Coverage(
        pictures=len(found),
        pixels=float(np.mean([one.pixels for one in found])),
        area=float(np.mean([one.area for one in found])),
        low=sorted((one for one in found if one.pixels < ENOUGH), key=lambda one: (one.area, one.pixels)),
    )


def _area(changed: np.ndarray) -> float:
    """The share of the area that lies in cells with a change."""
    height, width = changed.shape
    rows = np.logical_or.reduceat(changed, np.arange(0, height, CELL), 0)
    cells = np.logical_or.reduceat(rows, np.arange(0, width, CELL), 1)
    inside = cells.repeat(CELL, 0)[:height].repeat(CELL, 1)[:, :width]
    return float(inside.mean())
