"""Executes a plan: computes what the store lacks, records each finished cell at once; a failure costs its own cells."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from rich.console import Console

from arena.engine.graph import Cell, Plan, Stage
from arena.engine.plan import plan
from arena.plugins.registry import Registry
from arena.records.files import append_record, read_records
from arena.records.schema import Record
from arena.store.local import MissingArtifact, Store, StoreError
from arena.suites.schema import Suite, load_suite
from arena.suites.validation import validate

if TYPE_CHECKING:
    from arena.engine.pools import Pool
    from arena.engine.progress import Progress
    from arena.engine.worker import Result

log = logging.getLogger("arena.engine.execute")

_REOPENED = 3
"""Times an artifact may vanish under a run before the run gives up on it."""


@dataclass(frozen=True)
class RunReport:
    """What a run did: records in the plan's order, keys of the stages it computed, and where the records are."""

    plan: Plan
    records: tuple[Record, ...]
    computed: tuple[str, ...]
    results: Path

    @property
    def failed(self) -> tuple[Record, ...]:
        """Records of cells that failed, in this run or before."""
        return tuple(r for r in self.records if r.status == "failed")


def default_results(suite_id: str) -> Path:
    """``leaderboards/records/ID.jsonl`` inside a checkout, else ``results/ID.jsonl``."""
    folder = Path("leaderboards/records") if Path("leaderboards").is_dir() else Path("results")
    return folder / f"{suite_id}.jsonl"


def run(
    suite: Suite | Path | str,
    store: Store | Path | str | None = None,
    registry: Registry | None = None,
    scheduler: str = "processes",
    workers: int | None = None,
    results: Path | str | None = None,
    force_failed: bool = False,
    console: Console | None = None,
) -> RunReport:
    """Run a suite and append a record a cell to the JSONL file `results`.

    Cells whose record is there are left alone, stages in `store` are not computed again. `scheduler` is ``processes``
    (local, a worker a core), ``threads``, ``sync`` (this process) or the address of a dask scheduler. Cells recorded as
    failed are tried again with `force_failed`. Progress goes to `console`, by default standard error.

    Raises `UsageError` for a suite that cannot run, `StoreError` when the store cannot be used; a plugin's failure is a
    record.
    """
    suite = suite if isinstance(suite, Suite) else load_suite(suite)
    registry = registry or Registry()
    store = store if isinstance(store, Store) else Store(store)
    console = console or Console(stderr=True)
    validate(suite, registry)
    results = Path(results) if results is not None else default_results(suite.id)
    recorded = recorded_cells(results)
    whole = plan(suite, registry, store)
    todo = [
        cell
        for cell in whole.cells
        if cell.key not in recorded or (force_failed and recorded[cell.key].status == "failed")
    ]
    execution = _Execution(whole, todo, results, console)
    try:
        execution.record_finished()
        if execution.open:
            from arena.engine.pools import open_pool

            with (
                execution.progress(),
                _closing(open_pool(store, scheduler, workers, suite.limits.stage_minutes * 60)) as pool,
            ):
                execution.drive(pool)
    except KeyboardInterrupt:
        done = len(whole.cells) - len(execution.open)
        console.print(
            f"interrupted: {done} of {len(whole.cells)} cells are recorded in {results}, finished stages are kept in "
            f"{store.url}; run again to go on",
            soft_wrap=True,
        )
        raise
    records = recorded | execution.records
    return RunReport(whole, tuple(records[c.key] for c in whole.cells), tuple(execution.computed), results)


def recorded_cells(results: Path) -> dict[str, Record]:
    """Records by cell key; the last one of a cell counts."""
    return {record.cell: record for record in read_records(results)} if results.exists() else {}


@contextmanager
def _closing(pool: Pool) -> Iterator[Pool]:
    try:
        yield pool
    finally:
        pool.close()


@dataclass
class _Execution:
    """The state of a run: cells still open, stages done, running and failed."""

    plan: Plan
    todo: list[Cell]
    results: Path
    console: Console
    records: dict[str, Record] = field(default_factory=dict)
    computed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.open = {cell.key: cell for cell in self.todo}
        self.done = set(self.plan.cached)
        self.running: dict[str, Stage] = {}
        self.reopened = Counter[str]()
        self.closure = {cell.key: self._closure(cell) for cell in self.todo}
        self.rank: dict[str, int] = {}
        for number, cell in enumerate(self.todo):
            for key in self.closure[cell.key]:
                self.rank.setdefault(key, number)
        self._tell: Progress | None = None

    def _closure(self, cell: Cell) -> frozenset[str]:
        wanted = set(cell.stages.values())
        for stage in reversed(self.plan.stages.values()):
            if stage.key in wanted:
                wanted.update(stage.inputs)
        return frozenset(wanted)

    def record_finished(self) -> None:
        """Record every open cell whose stages are done."""
        from arena.engine.harvest import done_record

        for cell in list(self.open.values()):
            if not all(key in self.done for key in cell.stages.values()):
                continue
            try:
                record = done_record(self.plan, cell)
            except MissingArtifact as lost:
                self._reopen(lost.key)
                continue
            self._close(cell, record)

    def drive(self, pool: Pool) -> None:
        """Compute until no cell is open."""
        while self.open:
            while len(self.running) < pool.slots and (stage := self._next(pool.slots)) is not None:
                self.running[stage.key] = stage
                pool.submit(stage)
            for key, result in pool.finished():
                self._ended(self.running.pop(key), result)
            self.record_finished()
            if self._tell is not None:
                self._tell.update(self, pool.slots)

    def remaining(self) -> list[Stage]:
        """Stages that open cells still wait for, running ones too, each after those it reads."""
        wanted = set[str]().union(*(self.closure[key] for key in self.open))
        return [s for s in self.plan.stages.values() if s.key in wanted and s.key not in self.done]

    def _next(self, slots: int) -> Stage | None:
        """The stage to start now, None where all wait for running ones.

        Half of the slots craft releases, the longest first, since those are what chains wait for; the others finish
        cells in the suite's order, so that complete rows come early and no slot idles.
        """
        ready = [s for s in self.remaining() if s.key not in self.running and all(key in self.done for key in s.inputs)]
        releases = [s for s in ready if s.kind == "release"]
        others = [s for s in ready if s.kind != "release"]
        crafting = sum(s.kind == "release" for s in self.running.values())
        if releases and (not others or crafting < slots // 2):
            return max(releases, key=lambda s: (self.plan.seconds[s.key], -self.rank[s.key]))
        return min(others, key=lambda s: self.rank[s.key], default=None)

    def _ended(self, stage: Stage, result: Result) -> None:
        if result.status == "done":
            self.done.add(stage.key)
            if result.computed:
                self.computed.append(stage.key)
        elif result.status == "unusable":
            raise StoreError(result.message)
        elif result.status == "missing" and self.reopened[result.key] < _REOPENED:
            self._reopen(result.key)
        else:
            self._fail(stage, result)

    def _reopen(self, key: str) -> None:
        """An artifact is gone or corrupt: it, and what it is made from where that is gone too, is computed anew."""
        self.reopened[key] += 1
        if self.reopened[key] > _REOPENED:
            raise StoreError(
                f"store {self.plan.store.url}: {self.plan.stages[key].label} vanished {_REOPENED} times while it was "
                "needed; check the disk and what else writes there, then run again"
            )
        log.warning("%s is computed anew", self.plan.stages[key].label)
        gone = [key]
        while gone:
            stage = self.plan.stages[gone.pop()]
            self.done.discard(stage.key)
            gone += [k for k in stage.inputs if k in self.done and k not in self.plan.store]

    def _fail(self, stage: Stage, result: Result) -> None:
        from arena.engine.harvest import failed_record

        for cell in list(self.open.values()):
            if stage.key in self.closure[cell.key]:
                self._close(cell, failed_record(self.plan, cell, stage, result.message, result.trace))

    def _close(self, cell: Cell, record: Record) -> None:
        append_record(self.results, record)
        self.records[cell.key] = record
        del self.open[cell.key]
        if record.failure is not None:
            self.console.print(f"[red]failed[/] {cell.label}: {record.failure.error.splitlines()[0]}", soft_wrap=True)
        elif record.outcome is not None:
            self.console.print(f"[green]done[/] {cell.label}: accuracy {record.outcome.accuracy:.3f}", soft_wrap=True)

    @contextmanager
    def progress(self) -> Iterator[None]:
        """A progress bar on the console while the block runs."""
        from arena.engine.progress import Progress

        with Progress(self.console, len(self.remaining())) as self._tell:
            yield
        self._tell = None


class _CallableModule(ModuleType):
    """Makes ``arena.run(suite)`` work: the import system binds this module to the name of its function."""

    def __call__(self, *args: Any, **kwargs: Any) -> RunReport:
        return run(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule
