"""A run's progress on a terminal: stages done, what is being computed, time left."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich import progress
from rich.console import Console

if TYPE_CHECKING:
    from arena.engine.execute import Execution
    from arena.engine.worker import Task


class Progress:
    """A bar over the stages that remained when the run began."""

    def __init__(self, console: Console, total: int) -> None:
        columns = (progress.BarColumn(30), progress.MofNCompleteColumn(), progress.TextColumn("{task.description}"))
        self._bar = progress.Progress(*columns, console=console, transient=True)
        self._task = self._bar.add_task("starting workers", total=total)
        self._total = total
        self._planned: float | None = None
        self._start = time.monotonic()

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def update(self, execution: Execution, slots: int) -> None:
        """Show the state of `execution`, whose stages run `slots` at a time."""
        remaining = execution.remaining()
        expected = sum(execution.plan.seconds[s.name] for s in remaining) / slots
        if self._planned is None:
            self._planned, self._start = expected, time.monotonic()
        spent, progressed = time.monotonic() - self._start, self._planned - expected
        # Estimates of a new machine may be off by a factor, which the run itself measures.
        pace = spent / progressed if progressed > 0.05 * self._planned else 1.0
        now = ", ".join(_said(task, execution.notes.get(key)) for key, task in execution.running.items()) or "recording"
        left = f"{duration(expected * pace)} left · {now}"
        self._bar.update(self._task, completed=self._total - len(remaining), description=left)


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
