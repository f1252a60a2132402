"""Kinds of trials, taken in turns until each was tried as often as asked or the time is up, and their counts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True)
class Failure:
    """What went wrong in a trial, with `count` inputs; no problems where it is what went wrong before."""

    seed: str
    problems: Sequence[str]
    kept: str = ""
    count: int = 1


@dataclass(frozen=True)
class Trial:
    """What came of a trial: how many kills, damages or inputs it was, none where it came too late to be one, and how
    many inputs were accepted, not refused."""

    tried: int
    failures: Sequence[Failure] = ()
    accepted: int = 0


class Try(Protocol):
    def __call__(self, seed: str) -> Trial:
        """A trial that a seed fixes."""


class Unable(Exception):
    """This machine cannot do a kind."""


@dataclass
class Kind:
    """One kind of trial, how often it is wanted, and what came of it so far."""

    name: str
    wanted: int
    attempt: Try
    trials: int = 0
    tried: int = 0
    accepted: int = 0
    failures: list[Failure] = field(default_factory=list)
    skipped: str = ""
    seconds: float = 0.0

    @property
    def failed(self) -> int:
        return sum(failure.count for failure in self.failures)

    @property
    def open(self) -> bool:
        """Whether another trial is wanted; a kind whose trials all come too late is given up."""
        return not self.skipped and self.tried < self.wanted and self.trials < 3 * self.wanted + 5


def campaign(kinds: Sequence[Kind], seed: int, minutes: float, console: Console, unchanged: Callable[[], bool]) -> None:
    """Try the kinds in turns, the one that is furthest behind next."""
    until = time.monotonic() + minutes * 60
    for kind in _turns(kinds):
        if time.monotonic() > until:
            console.print(f"{minutes:g} minutes are over")
            return
        started = time.monotonic()
        name = f"{seed}.{kind.trials}"
        kind.trials += 1
        try:
            trial = kind.attempt(name)
        except Unable as reason:
            kind.skipped = str(reason)
            continue
        kind.seconds += time.monotonic() - started
        kind.tried += trial.tried
        kind.accepted += trial.accepted
        kind.failures += trial.failures
        for failure in trial.failures:
            show(kind, failure, console)
        if trial.failures and not kind.name.startswith("fuzz-") and not unchanged():
            console.print("the source was changed while the campaign ran, which makes records others: begin anew")
            return


def show(kind: Kind, failure: Failure, console: Console) -> None:
    """Print a failure, with how it is repeated."""
    if not failure.problems:
        return
    times = f" ({failure.count} inputs)" if failure.count > 1 else ""
    console.print(
        Text.assemble(("failed", "red"), f" {kind.name}{times}, again by `--again {kind.name}:{failure.seed}`")
    )
    for problem in failure.problems:
        console.print(f"    {problem}", markup=False, highlight=False, soft_wrap=True)
    if failure.kept:
        console.print(f"    kept at {failure.kept}", markup=False, highlight=False, soft_wrap=True)


_COLUMNS = ("kind", "tried", "passed", "failed", "accepted", "seconds", "seeds of the failures")


def counts(kinds: Sequence[Kind], console: Console) -> bool:
    """Print the table; whether nothing failed."""
    table = Table(*_COLUMNS, box=None, pad_edge=False)
    for kind in kinds:
        again = dict.fromkeys(failure.seed for failure in kind.failures)
        seeds = kind.skipped or ", ".join([*list(again)[:8], *(["..."] if len(again) > 8 else [])])
        numbers = (
            kind.tried,
            kind.tried - min(kind.failed, kind.tried),
            kind.failed,
            kind.accepted or "",
            round(kind.seconds),
        )
        table.add_row(kind.name, *map(str, numbers), seeds)
    total = [sum(getattr(kind, name) for kind in kinds) for name in ("tried", "failed")]
    table.add_row("all", str(total[0]), str(total[0] - total[1]), str(total[1]), "", "", "")
    console.print(table)
    return not total[1]


def _turns(kinds: Sequence[Kind]) -> Iterator[Kind]:
    while behind := [kind for kind in kinds if kind.open]:
        yield min(behind, key=lambda kind: kind.tried / kind.wanted)
