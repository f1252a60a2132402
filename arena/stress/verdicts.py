"""Requirements held against a board: met, failed, or not to be decided."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from arena.plugins.identity import CONTROL
from arena.score.statistics import LEAST_SEEDS
from arena.stress.requirements import EVERY, SELECTORS, Requirement
from arena.text import bound_text

if TYPE_CHECKING:
    from leaderboards.tables.board import Board

Status = Literal["met", "failed", "undecided"]

EXIT: dict[Status, int] = {"met": 0, "failed": 1, "undecided": 3}


@dataclass(frozen=True)
class Measured:
    """What a board says of one row: where it stands, its number with the ends of its 95 % interval and the seeds that
    it is over, or why there is none to go by."""

    where: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    seeds: int | None = None
    undefined: str | None = None

    def at(self, bound: str) -> float | None:
        """The number that a requirement looks at; None where nothing can be decided."""
        return None if self.undefined is not None else {"low": self.low, "value": self.value, "high": self.high}[bound]

    @property
    def shown(self) -> str:
        """``0.412 [0.350, 0.470]``, or why there is no number."""
        if self.undefined is not None or self.value is None:
            return self.undefined or "not measured"
        interval = "" if self.low is None or self.high is None else f" [{number(self.low)}, {number(self.high)}]"
        return number(self.value) + interval


@dataclass(frozen=True)
class Verdict:
    """How a requirement ended. `measured` are all rows that it is about, `worst` the one that decides; `why` says in a
    line what was measured or what is missing."""

    name: str
    status: Status
    why: str
    measured: tuple[Measured, ...] = ()
    worst: Measured | None = None
    requirement: Requirement | None = None
    """None for what is always required, and for the comparison with a baseline."""
    line: int = 0
    """Of the file that has it, from 1; 0 where it is in none."""


def judge(requirement: Requirement, board: Board | None, entry: str, seeds: int, line: int = 0) -> Verdict:
    """Hold a requirement against every row of a board that it is about; `entry` is the defense's label, `seeds` how
    many the suite has. Without a board nothing has a record."""
    rows = [] if board is None else _rows(requirement, board, entry)
    measured = tuple(_measured(requirement, row, seeds) for row in rows)
    if not measured:
        nothing = Measured("every row", undefined="withheld: there is no record of it")
        measured = (nothing,)
    at = [(one, one.at(requirement.bound)) for one in measured]
    failing = [one for one, value in at if value is not None and not requirement.met_by(value)]
    open_ = [one for one, value in at if value is None]
    if failing:
        status: Status = "failed"
    else:
        status = "undecided" if open_ else "met"
    deciding = failing or open_ or list(measured)
    worst = min(deciding, key=lambda one: requirement.margin(one.at(requirement.bound) or 0.0))
    why = _why(requirement, worst, len(measured))
    return Verdict(requirement.name, status, why, measured, worst, requirement, line)


def overall(verdicts: Iterable[Verdict]) -> Status:
    """Of all together: failed where one failed, else undecided where one is, else met."""
    found = {verdict.status for verdict in verdicts}
    return "failed" if "failed" in found else "undecided" if "undecided" in found else "met"


def number(value: float) -> str:
    """A measured number as it is shown."""
    return "inf" if value == float("inf") else f"{value:.3f}" if abs(value) < 100 else f"{value:,.1f}"


def _why(requirement: Requirement, worst: Measured, rows: int) -> str:
    unit = f" {requirement.score.unit}" if requirement.score.unit in ("dB", "MB", "1/255") else ""
    end = {"low": "lower end of the interval", "value": "estimate", "high": "upper end of the interval"}
    value = worst.at(requirement.bound)
    of = f"{worst.where}" + (f", the worst of {rows}" if rows > 1 else "")
    if value is None:
        return f"{worst.shown} ({of})"
    looked = f"; the {end[requirement.bound]}, {number(value)}, counts" if requirement.score.interval else ""
    return f"{worst.shown}{unit}{looked} ({of})"


def _rows(requirement: Requirement, board: Board, entry: str) -> list[dict[str, Any]]:
    """The rows of the board that a requirement is about."""
    frame = board.ranking if requirement.score.robust else board.cells
    everything = ({str(name): value for name, value in row.items()} for row in frame.to_dict("records"))
    rows = [row for row in everything if row["defense"] == entry]
    if not requirement.score.robust:
        attack = requirement.attack or CONTROL
        rows = [row for row in rows if (row["attack"] != CONTROL if attack == EVERY else row["attack"] == attack)]
    return [row for row in rows if all(_selected(row[SELECTORS[k]], v) for k, v in requirement.where.items())]


def _selected(found: object, wanted: str) -> bool:
    """Whether a column has what a selector says; names on boards have settings behind them where there are several."""
    if isinstance(found, float | int):
        return f"{found:g}" == wanted
    return str(found) == wanted or str(found).startswith(f"{wanted}(")


def _measured(requirement: Requirement, row: dict[str, Any], seeds: int) -> Measured:
    score = requirement.score
    names = ("model", "dataset", *(() if score.robust else ("recipe", "attack")))
    parts = [str(row[name]) for name in names] + [bound_text(row["norm"], row["image_budget"])]
    if score.robust and row["auxiliary"]:
        parts.append(f"{row['auxiliary']:g} clean data")
    if score.robust and row["in_domain"]:
        parts.append("in-domain weights")
    where = " · ".join(parts)
    value = _number(row.get(score.column))
    if not score.interval:
        missing = "not measured on these data" if value is None else None
        if row["seeds"] < seeds:
            missing = f"withheld: {row['seeds']} of {seeds} seeds are done"
        return Measured(where, value, seeds=int(row["seeds"]), undefined=missing)
    reason = row.get(f"{score.column}_undefined")
    low, high = (_number(row.get(f"{score.column}_{end}")) for end in ("low", "high"))
    over = int(_number(row.get(f"{score.column}_seeds")) or 0)
    if isinstance(reason, str) and reason:
        undefined: str | None = reason
    elif value is None:
        undefined = "withheld: there is no record of it"
    elif over < seeds and score.name != "zero-shot":
        undefined = f"withheld: {over} of {seeds} seeds have all cells that it is made of"
    elif requirement.bound != "value" and (low is None or high is None or seeds < LEAST_SEEDS):
        undefined = f"too few seeds: {seeds}, and an interval needs {LEAST_SEEDS}: add seeds to the suite, or ask for "
        undefined += "the estimate with @value"
    else:
        undefined = None
    return Measured(where, value, low, high, over, undefined)


def _number(value: object) -> float | None:
    """A cell of a frame; None for what is not there, which pandas has as NaN."""
    return float(value) if isinstance(value, float | int) and value == value else None
