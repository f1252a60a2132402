"""Every column of a board's tables and every field of a record: name, type, unit, and when it is undefined.

`leaderboards/COLUMNS.md` is made from these tables, and whoever reads a column's name from a user looks it up with
`find`. Tests hold them against boards and records. Loads neither torch nor pandas.
"""

from __future__ import annotations

from dataclasses import replace

from leaderboards.columns.kind import Column, Frame
from leaderboards.columns.measures import COSTS, DIAGNOSTICS, MEANING, PEAK, STEALTH
from leaderboards.columns.places import COUNTS, FAILURES, PLACES, POWER
from leaderboards.columns.scores import SCORES, beside

COLUMNS: tuple[Column, ...] = (
    *PLACES,
    *COUNTS,
    *SCORES,
    *PEAK,
    *STEALTH,
    *MEANING,
    *COSTS,
    *DIAGNOSTICS,
    *FAILURES,
    *POWER,
)
"""All columns but those that a score has beside it; a name is once in a frame."""

DIAGNOSTIC = Column(
    "diagnostic_NAME",
    ("cells",),
    "number",
    "as the defense says",
    "a number about its crafting that the defense reports under NAME, mean over seeds",
    "null where the defense did not report it, or no seed of the row is done",
)
"""Any defense may report numbers of its own; the column is there where a record of the board has it."""


def columns(frame: Frame) -> dict[str, Column]:
    """All columns of a frame that have a name of their own, with those beside its scores, by name."""
    own = [column for column in COLUMNS if frame in column.frames]
    return {each.name: each for column in own for each in (column, *(beside(column) if column.is_score else ()))}


def find(frame: Frame, name: str) -> Column | None:
    """The column called `name`, also where a defense of somebody else reports it; None where a frame has no such."""
    known = columns(frame).get(name)
    if known is None and frame in DIAGNOSTIC.frames and name.startswith("diagnostic_"):
        return replace(DIAGNOSTIC, name=name)
    return known
