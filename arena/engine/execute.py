"""Executes a plan: computes what the store lacks, records each finished cell at once; a failure costs its own cells."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError
from rich.console import Console
from rich.text import Text

from arena.console import PlainConsole
from arena.engine.graph import Cell, Plan
from arena.engine.order import crafts_next, place, ranks
from arena.engine.plan import plan
from arena.engine.stages import Stage
from arena.engine.worker import Task
from arena.errors import UsageError
from arena.plugins.registry import Registry
from arena.records.accept import Standing, current_sources
from arena.records.files import append_record, default_results, end_of, read_all, record_files, try_appending
from arena.records.schema import Asked, Record, SuiteRef
from arena.records.select import by_cell
from arena.store.local import MissingArtifact, Store, StoreError
from arena.suites.schema import Suite, digest
from arena.suites.shipped import find_suite
from arena.suites.validation import validate

if TYPE_CHECKING:
    from arena.engine.pool import Pool
    from arena.engine.progress import Progress
    from arena.engine.worker import Result

log = logging.getLogger("arena.run")

_REOPENED = 3
"""Times an artifact may vanish under a run before the run gives up on it."""


@dataclass(frozen=True)
class RunReport:
    """What a run did: records in the plan's order, names of the stages it computed, and where the records are."""

    plan: Plan
    records: tuple[Record, ...]
    computed: tuple[str, ...]
    results: Path

    @property
    def failed(self) -> tuple[Record, ...]:
        """Records of cells that failed, in this run or before; those of plugins that cannot even be described have none
        (`Plan.broken`)."""
        return tuple(r for r in self.records if r.status == "failed")


def run(
    suite: Suite | Path | str,
    store: Store | Path | str | None = None,
    registry: Registry | None = None,
    scheduler: str = "processes",
    workers: int | None = None,
    results: Path | str | None = None,
    force_failed: bool = False,
    console: Console | None = None,
    only: Sequence[str] = (),
    isolated: bool = True,
    name: str = "",
) -> RunReport:
    """Run a suite, by its file or the id of a shipped one, and append a record a cell to the JSONL file `results`.

    Cells that have a record which still holds are left alone, whichever suite it was made for; a record holds while the
    source of its plugins and of the engine is what it was, or accepted as alike (`arena.records.accept`). Stages in
    `store` are not computed again. `scheduler` is ``processes`` (on this machine, `workers` stages at a time, one a
    core by default), ``sync`` (one at a time) or the address of a dask scheduler. Cells recorded as failed are tried
    again with `force_failed`. `only` has beginnings of the names of the cells to run, all where empty. Progress goes to
    `console`, by default standard error. With `isolated` off, plugins run in this process one after the other,
    unwatched, which is for debugging; records say so. `name` is what errors
    call the suite on the command line, by default its id.

    Raises `UsageError` for a suite that cannot run, `StoreError` when the store cannot be used; a plugin's failure is a
    record.
    """
    suite = suite if isinstance(suite, Suite) else find_suite(str(suite))
    registry = registry or Registry()
    store = store if isinstance(store, Store) else Store(store)
    console = console or PlainConsole(stderr=True)
    validate(suite, registry, isolated)
    results = Path(results) if results is not None else default_results(suite.id)
    whole = plan(suite, registry, store, apart=isolated)
    cells = chosen_cells(whole, only, name or suite.id)
    since = end_of(results)  # before it is read: what another run appends from now on counts as this run's own
    known = recorded(suite, whole.cells, results)
    reasons = why_cells(whole, known, results, force_failed)
    todo = [cell for cell in cells if cell.key in reasons]
    for problem, count in Counter(broken.problem for broken in whole.broken).items():
        console.print(
            Text.assemble(("failed", "red"), f" {count} cells, which have no record: {problem}"), soft_wrap=True
        )
    fresh = compute(whole, todo, results, console, scheduler, workers, isolated, since=since)
    done = {**known, **fresh.records}
    return RunReport(whole, tuple(done[c.key] for c in cells), tuple(fresh.computed), results)


def chosen_cells(whole: Plan, only: Sequence[str], name: str) -> list[Cell]:
    """The cells whose names begin with one of `only`, all where that is empty. Raises `UsageError` where one is empty
    or none does; it calls the suite `name` on the command line."""
    where = f"names are the field `cell` of records, and `arena plan {name} --why` shows those of cells to compute"
    for beginning in only:
        if not beginning:
            raise UsageError(f"the name of a cell of suite {whole.suite.id!r} is empty: {where}")
        if not any(cell.key.startswith(beginning) for cell in whole.cells):
            raise UsageError(f"suite {whole.suite.id!r} has no cell {beginning!r}: {where}")
    return [cell for cell in whole.cells if not only or any(cell.key.startswith(b) for b in only)]


def recorded(suite: Suite, cells: Iterable[Cell], results: Path) -> dict[str, Record]:
    """The records that count of a suite's cells, by cell, under the suite's labels."""
    found = by_cell(read_all(record_files(results)))
    reference = SuiteRef(id=suite.id, digest=digest(suite))
    return {cell.key: labelled(found[cell.key], reference, cell.asked) for cell in cells if cell.key in found}


def labelled(record: Record, suite: SuiteRef, asked: Asked) -> Record:
    """A record as that of a suite's cell, whichever suite it was made for."""
    own = {"suite": suite, "budget": asked.budget}
    changes: dict[str, object] = {name: part for name, part in own.items() if getattr(record, name) != part}
    for name in ("defense", "attack", "recipe"):
        part, cell = getattr(record, name), getattr(asked, name)
        said = {field: getattr(cell, field) for field in ("label", "chooses", "in_domain") if hasattr(cell, field)}
        if any(getattr(part, field) != value for field, value in said.items()):
            changes[name] = part.model_copy(update=said)  # else it stays what it has in common with other records
    return record.model_copy(update=changes) if changes else record


def why_cells(whole: Plan, known: Mapping[str, Record], results: Path, force_failed: bool = False) -> dict[str, str]:
    """Why cells of a plan are computed, by their names; cells whose record, of those `known`, holds are left out.

    Raises `UsageError` where a plugin of the plan was withdrawn, `ArenaError` where what was accepted beside `results`
    cannot be read.
    """
    standing = Standing.read(results.parent)
    standing.refuse_withdrawn(cell.asked for cell in whole.cells)
    sources = current_sources(cell.asked for cell in whole.cells)
    found = {c.key: why_run(c, known.get(c.key), sources, standing, force_failed) for c in whole.cells}
    return {key: reason for key, reason in found.items() if reason is not None}


def why_run(
    cell: Cell, record: Record | None, sources: dict[str, str], standing: Standing, force_failed: bool = False
) -> str | None:
    """Why a cell is computed, None where its record holds."""
    if record is None:
        return "it has no record"
    if record.status == "failed":
        return "it failed before" if force_failed or standing.stale(record, sources) else None
    stale = standing.stale(record, sources)
    return f"its record is stale: {stale}" if stale else None


def compute(
    whole: Plan,
    todo: Sequence[Cell],
    results: Path,
    console: Console,
    scheduler: str = "processes",
    workers: int | None = None,
    isolated: bool = True,
    since: int | None = None,
) -> Execution:
    """Compute cells of a plan and append their records to `results`, which is tried before; all else is as in `run`.

    A cell is not appended that another run has appended since the file had `since` bytes, by default now.
    """
    if todo:
        try_appending(results)
    execution = Execution(whole, list(todo), results.absolute(), console, end_of(results) if since is None else since)
    try:
        execution.record_finished()
        if execution.open:
            from arena.engine.pools import open_pool

            limits = whole.suite.limits
            with (
                execution.progress(),
                _closing(open_pool(whole.store, scheduler, workers, limits, isolated)) as pool,
            ):
                execution.drive(pool)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"{len(execution.records)} of {len(todo)} cells are recorded in {results}, finished stages are kept in "
            f"{whole.store.url}; run again to go on"
        ) from None
    return execution


def _each(task: Task, result: Result) -> Iterator[tuple[Task, Result]]:
    """How each of the tasks ended that were computed together. Where nothing is said of them, nobody knows whose fault
    it was."""
    if task.others and not result.others and result.status == "failed":
        result = replace(result, status="lost")
    said = {task.key: result, **dict(result.others)}
    for each in task.all:
        yield each, said.get(each.key, result)


@contextmanager
def _closing(pool: Pool) -> Iterator[Pool]:
    try:
        yield pool
    finally:
        pool.close()


@dataclass
class Execution:
    """The state of a run: cells still open, stages done, running and failed."""

    plan: Plan
    todo: list[Cell]
    results: Path
    console: Console
    since: int
    """How long the file of results was when the run began."""
    records: dict[str, Record] = field(default_factory=dict)
    computed: list[str] = field(default_factory=list)
    """Names of the stages that were computed."""

    def __post_init__(self) -> None:
        self.open = {cell.key: cell for cell in self.todo}
        self.artifacts = self.plan.artifacts()
        self._tasks: dict[str, Task] = {}
        """Stages that could start, by name."""
        self.running: dict[str, Task] = {}
        """Tasks by the key of their artifact."""
        self.notes: dict[str, tuple[float, str]] = {}
        """How far running stages are, by the key of their artifact."""
        self.reopened = Counter[str]()
        self.lost = Counter[str]()
        self._shared: dict[tuple[str, str], str | None] = {}
        self.closure = {cell.key: self.plan.closure(cell.stages.values()) for cell in self.todo}
        self.rank = ranks(self.todo, self.closure)
        self._tell: Progress | None = None

    def record_finished(self) -> None:
        """Record every open cell whose stages are done."""
        for cell in list(self.open.values()):
            keys = self.artifacts.keys
            if not all(name in keys for name in cell.stages.values()):
                continue
            try:
                problem = self._overlap(cell)
                record = self._record(cell, keys) if problem is None else self._failed(cell, "test", problem)
            except MissingArtifact as lost:
                self._reopen(lost.key)
                continue
            self._close(cell, record)

    def _record(self, cell: Cell, keys: Mapping[str, str]) -> Record:
        """The record of a cell whose stages are done; of one whose stages say what no record can hold, that it
        failed."""
        from arena.engine.harvest import done_record

        try:
            return done_record(self.plan, cell, keys)
        except ValidationError as error:
            found = error.errors(include_url=False)[0]
            where = ".".join(map(str, found["loc"]))
            return self._failed(cell, "scored", f"what its stages left makes no record ({where}: {found['msg']})")

    def _failed(self, cell: Cell, role: str, problem: str) -> Record:
        from arena.engine.harvest import failed_record

        return failed_record(self.plan, cell, self.artifacts.keys, self.plan.stages[cell.stages[role]], problem, "")

    def _overlap(self, cell: Cell) -> str | None:
        """What is wrong with a cell's data where training and test samples share one: each was drawn apart, so that
        only here both are seen."""
        from arena.engine.harvest import shared_samples

        train, test = (self.artifacts.keys[cell.stages[role]] for role in ("train", "test"))
        if (train, test) not in self._shared:
            self._shared[train, test] = shared_samples(self.plan.store, train, test)
        shared = self._shared[train, test]
        return shared and f"dataset {cell.asked.dataset.id!r}: {shared}: they must be disjoint"

    def drive(self, pool: Pool) -> None:
        """Compute until no cell is open."""
        while self.open:
            if len(self.running) < (slots := pool.slots):
                ready = self._ready()
                while len(self.running) < slots and (task := self._next(ready, pool, slots)) is not None:
                    self.running[task.key] = task
                    pool.submit(task)
            # What says that the store is unusable comes first: the others may have failed for the same reason.
            for key, result in sorted(pool.finished(), key=lambda ended: ended[1].status != "unusable"):
                for task, how in _each(self.running.pop(key), result):
                    self._ended(task, how)
            self.record_finished()
            if self._tell is not None:
                self.notes = pool.progress()
                self._tell.update(self, pool.slots)

    def remaining(self) -> list[Stage]:
        """Stages that open cells still wait for, running ones too, each after those it reads."""
        wanted = set[str]().union(*(self.closure[key] for key in self.open))
        return [s for s in self.plan.stages.values() if s.name in wanted and s.name not in self.artifacts.keys]

    def _ready(self) -> list[Task]:
        """The tasks that could start or have, in the order of `arena.engine.order`."""
        ready = [task for stage in self.remaining() if (task := self._task(stage)) is not None]
        return sorted(ready, key=self._place)

    def _next(self, ready: list[Task], pool: Pool, slots: int) -> Task | None:
        """The task of those to start now, None where all wait for running ones, or for what the pool has not."""

        busy = {each.key for task in self.running.values() for each in (task, *task.others)}
        waiting = [task for task in ready if task.key not in busy]
        releases = (task for task in waiting if task.stage.kind == "release" and pool.has_room(task.stage))
        others = [task for task in waiting if task.stage.kind != "release"]
        release, free = next(releases, None), slots - len(self.running)
        other = self._chosen(others, pool, free, full=True)
        if other is None and release is None:
            return self._chosen(others, pool, free, full=False)
        crafting = sum(t.stage.kind == "release" for t in self.running.values())
        return release if crafts_next(release is not None, other is not None, crafting, slots) else other

    def _chosen(self, waiting: list[Task], pool: Pool, free: int, full: bool) -> Task | None:
        """The first of the waiting tasks that the pool has room for, with those that are computed with it; packs are
        shared by free slots. With `full`, what could be packed is left until its pack is full."""
        packs: dict[str, dict[str, Task]] = {}
        for task in waiting:
            if task.stage.pack is not None and not self.lost[task.key]:
                packs.setdefault(task.stage.pack[0], {})[task.key] = task

        def mates(task: Task) -> dict[str, Task]:
            return packs.get(task.stage.pack[0], {}) if task.stage.pack is not None else {}

        def ripe(task: Task) -> bool:
            return (
                not full
                or task.stage.pack is None
                or task.key not in mates(task)
                or len(mates(task)) >= task.stage.pack[1]
            )

        chosen = next((task for task in waiting if ripe(task) and pool.has_room(task.stage)), None)
        if chosen is None or chosen.stage.pack is None or chosen.key not in mates(chosen):
            return chosen
        found = mates(chosen)
        most = min(chosen.stage.pack[1], math.ceil(len(found) / max(1, free)))
        seed = chosen.stage.global_seed()
        alike = sorted(found.values(), key=lambda task: task.stage.global_seed() != seed)  # batches of one length
        return replace(chosen, others=tuple(task for task in alike if task.key != chosen.key)[: most - 1])

    def _place(self, task: Task) -> tuple[float, int]:
        stage = task.stage
        return place(stage.kind, self.plan.seconds[stage.name], self.rank[stage.name])

    def _task(self, stage: Stage) -> Task | None:
        """A stage whose inputs are there and which is not; one whose inputs turned out to be another's may be done."""
        if stage.name not in self._tasks and self.artifacts.ready(stage):
            try:
                task = self.artifacts.task(stage)
            except MissingArtifact as lost:
                self._reopen(lost.key)
                return None
            if task.key in self.plan.store:
                self.artifacts.keys[stage.name] = task.key
                return None
            self._tasks[stage.name] = task
        return self._tasks.get(stage.name)

    def _ended(self, task: Task, result: Result) -> None:
        same = [name for name, other in self._tasks.items() if other.key == task.key]
        for name in same:
            del self._tasks[name]
        if result.status == "done":
            self.artifacts.keys |= dict.fromkeys(same, task.key)
            if result.computed:
                self.computed.append(task.stage.name)
        elif result.status == "unusable":
            raise StoreError(result.message)
        elif result.status == "missing" and self.reopened[result.key] < _REOPENED:
            self._reopen(result.key)
        elif result.status == "lost" and self.lost[task.key] < 1:
            self.lost[task.key] += 1  # it is ready still, and starts again
        else:
            for name in same:
                self._fail(self.plan.stages[name], result)

    def _reopen(self, key: str) -> None:
        """An artifact is gone or corrupt: it, and what it is made from where that is gone too, is computed anew."""
        self.reopened[key] += 1
        self._tasks.clear()
        names = self.artifacts.forget(key)
        label = ", ".join(self.plan.stages[name].label for name in names) or key[:12]
        if self.reopened[key] > _REOPENED:
            raise StoreError(
                f"store {self.plan.store.url}: {label} vanished {_REOPENED} times while it was needed; check the disk "
                "and what else writes there, then run again"
            )
        log.warning("%s is computed anew", label)
        while names:
            for link in self.plan.stages[names.pop()].inputs.values():
                own = self.artifacts.keys.get(link.stage)
                if own is not None and own not in self.plan.store:
                    names += self.artifacts.forget(own)

    def _fail(self, stage: Stage, result: Result) -> None:
        from arena.engine.harvest import failed_record

        for cell in list(self.open.values()):
            if stage.name in self.closure[cell.key]:
                keys = self.artifacts.keys
                self._close(cell, failed_record(self.plan, cell, keys, stage, result.message, result.trace))

    def _close(self, cell: Cell, record: Record) -> None:
        written = append_record(self.results, record, self.since)
        if written is not record:  # another run was faster
            record = labelled(written, record.suite, cell.asked)
        self.records[cell.key] = record
        del self.open[cell.key]
        if record.failure is not None:
            self._say("failed", "red", f"{cell.label}: {record.failure.error.splitlines()[0]}")
        elif record.outcome is not None:
            self._say("done", "green", f"{cell.label}: accuracy {record.outcome.accuracy:.3f}")

    def _say(self, how: str, colour: str, what: str) -> None:
        self.console.print(Text.assemble((how, colour), " ", what), soft_wrap=True)

    @contextmanager
    def progress(self) -> Iterator[None]:
        """A progress bar on the console while the block runs."""
        from arena.engine.progress import Progress

        with Progress(self.console, len(self.remaining())) as self._tell:
            yield
        self._tell = None
