"""The phases of a run as one progress, from 0 to 1, that moves as time passes: each has its expected share of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar, overload

Progress = Callable[[float, str], None]
"""Told the share done, 0 to 1, and a note."""

T = TypeVar("T")

READING, CRAFTING, WRITING, MEASURING = "reading", "crafting", "writing", "measuring"
USUAL: Mapping[str, float] = {READING: 0, CRAFTING: 80, WRITING: 8, MEASURING: 12}
"""Shares where nobody has estimated them. Reading comes before anybody could."""


class Phases:
    """Called with the share done of the present phase, tells the share done of all."""

    def __init__(self, tell: Progress | None = None) -> None:
        self._tell = tell
        self._seconds = dict(USUAL)
        self._phase = READING

    def expect(self, seconds: Mapping[str, float]) -> None:
        """How long the phases after reading take, in seconds."""
        self._seconds = {READING: 0.0, **{phase: seconds[phase] for phase in (CRAFTING, WRITING, MEASURING)}}

    def begin(self, phase: str, note: str) -> None:
        """The phase that what is told from now on is about."""
        self._phase = phase
        self(0.0, note)

    def __call__(self, done: float, note: str) -> None:
        if self._tell is not None:
            phases = list(self._seconds)
            before = sum(self._seconds[phase] for phase in phases[: phases.index(self._phase)])
            total = sum(self._seconds.values()) or 1.0
            self._tell((before + min(max(done, 0.0), 1.0) * self._seconds[self._phase]) / total, note)

    def each(self, things: Sequence[T], note: str, start: float = 0.0, stop: float = 1.0) -> Told[T]:
        """The things; whoever goes through them tells how many are done, from the share `start` of the phase to
        `stop`."""
        return Told(things, self, note, start, stop)


class Told(Sequence[T]):
    """A sequence that tells how far one is who goes through it."""

    def __init__(self, things: Sequence[T], tell: Progress, note: str, start: float, stop: float) -> None:
        self._things, self._tell, self._note = things, tell, note
        self._start, self._stop = start, stop

    def __len__(self) -> int:
        return len(self._things)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        return self._things[index]

    def __iter__(self) -> Iterator[T]:
        count = len(self)
        for number, thing in enumerate(self._things):
            share = self._start + (self._stop - self._start) * number / count
            self._tell(share, f"{self._note}: {number + 1} of {count}")
            yield thing
