"""How far work is: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING

from rich import progress
from rich.console import Console

from arena.text import printable

if TYPE_CHECKING:
    from arena.engine.execute import Execution
    from arena.engine.worker import Task

EVERY = 30.0
"""Seconds between two lines where there is no terminal."""

SHOWN = 4
"""Running stages that are named, at most."""


class Display:
    """A bar with a note while the block runs. Where the console is no terminal, a line at the start and then one every
    `EVERY` seconds, whether or not anything is reported, without control codes. Both say how long the rest takes."""

    def __init__(self, console: Console, total: float, unit: str = "", note: str = "") -> None:
        self._console, self._total, self._unit = console, total, unit
        self._done, self._note = 0.0, note
        self._since: tuple[float, float] | None = None
        """When something was first done, and how much it was: a run that goes on begins with a part of it."""
        self._bar = self._made_bar() if console.is_interactive and console.file.isatty() else None

    def _made_bar(self) -> progress.Progress:
        counted = progress.MofNCompleteColumn() if self._unit else progress.TaskProgressColumn()
        left = () if self._unit else (progress.TimeRemainingColumn(),)
        text = progress.TextColumn("{task.description}", markup=False)
        # Over ten minutes: a step of a large model may take one of them.
        bar = progress.Progress(
            progress.BarColumn(30),
            counted,
            *left,
            text,
            console=self._console,
            transient=True,
            speed_estimate_period=600,
        )
        self._task = bar.add_task(printable(self._note), total=self._total)
        return bar

    def __enter__(self) -> Display:
        if self._bar is not None:
            self._bar.start()
            return self
        self._start, self._ended = time.monotonic(), threading.Event()
        self._say()
        self._lines = threading.Thread(target=self._say_on, daemon=True)
        self._lines.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        else:
            self._ended.set()
            self._lines.join(timeout=1)

    def __call__(self, done: float, note: str) -> None:
        """Show what is done, of the total, and a note."""
        if self._since is None and done > 0:
            self._since = time.monotonic(), done
        self._done, self._note = done, " ".join(note.split())
        if self._bar is not None:
            self._bar.update(self._task, completed=done, description=printable(self._note))

    def _say_on(self) -> None:
        with suppress(OSError):  # nobody listens any more
            while not self._ended.wait(EVERY):
                self._say()

    def _say(self) -> None:
        share = f"{self._done:.0f} of {self._total:.0f} {self._unit}" if self._unit else f"{self._done:.0%}"
        parts = (duration(time.monotonic() - self._start), share, self._left(), printable(self._note))
        line = " · ".join(part for part in parts if part)
        self._console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def _left(self) -> str:
        """How long the rest takes at the pace so far; empty where that cannot be said yet."""
        if self._unit or self._since is None or self._done <= self._since[1]:
            return ""
        (start, first), left = self._since, 1 - self._done / self._total
        spent = time.monotonic() - start
        return f"{duration(spent * left / (self._done - first) * self._total)} left" if left > 0 and spent > 0 else ""


class Progress:
    """A run's stages done, what is being computed, time left, of the stages that remained when it began."""

    def __init__(self, console: Console, total: int) -> None:
        self._display = Display(console, total, "stages", "starting workers")
        self._total = total
        self._planned: float | None = None
        self._start = time.monotonic()

    def __enter__(self) -> Progress:
        self._display.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._display.__exit__(kind, error, trace)

    def update(self, execution: Execution, slots: int) -> None:
        """Show the state of `execution`, whose stages run `slots` at a time."""
        remaining = execution.remaining()
        expected = sum(execution.plan.seconds[s.name] for s in remaining) / slots
        if self._planned is None:
            self._planned, self._start = expected, time.monotonic()
        spent, progressed = time.monotonic() - self._start, self._planned - expected
        # Estimates of a new machine may be off by a factor, which the run itself measures.
        pace = spent / progressed if progressed > 0.05 * self._planned else 1.0
        running = [_said(task, execution.notes.get(key)) for key, task in execution.running.items()]
        more = f" and {len(running) - SHOWN} more" if len(running) > SHOWN else ""
        now = (", ".join(running[:SHOWN]) or "recording") + more
        self._display(self._total - len(remaining), f"{duration(expected * pace)} left · {now}")


def _said(task: Task, reported: tuple[float, str] | None) -> str:
    """A running stage, with what its plugin reported of itself."""
    about = f"{task.stage.kind} {task.stage.label}"
    if reported is None:
        return about
    done, note = reported
    return f"{about} {done:.0%}" + (f" ({note})" if note else "")


def duration(seconds: float) -> str:
    """``45 s``, ``12 min`` or ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
