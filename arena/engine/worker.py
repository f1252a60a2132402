"""Computes one stage into the store: hands its plugins copies of what they may know, in a process of their own, and
checks what they made against what they never held."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from arena.engine.apart import Apart, Bounds, StageFailed, ignore, number
from arena.engine.inside import THREADS, collect, read_ended, seed_globals
from arena.engine.job import Desk, Job, Progress
from arena.engine.stages import FineTune, Stage, Together
from arena.environment import quiet_libraries
from arena.errors import ArenaError, ChangedSource, describe_error
from arena.isolation.call import Cancel, Lost, run
from arena.isolation.leftovers import remove
from arena.isolation.server import Call
from arena.store.local import MissingArtifact, Store, StoreError

log = logging.getLogger("arena.run")


@dataclass(frozen=True)
class Task:
    """A stage that can be computed: `key` is that of its artifact, `inputs` are keys of artifacts by its fields. The
    `others` are computed with it, in one process."""

    stage: Stage
    key: str
    inputs: Mapping[str, str]
    others: tuple[Task, ...] = ()

    @property
    def all(self) -> tuple[Task, ...]:
        """Itself and the others, each alone."""
        return (replace(self, others=()), *self.others)


@dataclass(frozen=True)
class Result:
    """How a stage ended: done, failed by itself, an input gone, the store unusable, or nobody knows, since the process
    that watched over it was killed. Plain: it crosses processes."""

    status: Literal["done", "failed", "missing", "unusable", "lost"]
    computed: bool = False
    message: str = ""
    trace: str = ""
    key: str = ""
    others: tuple[tuple[str, Result], ...] = ()
    """How the stages ended that were computed with it, by the keys of their artifacts."""


def run_task(
    task: Task,
    url: str,
    bounds: Bounds = Bounds(),  # noqa: B008  # immutable
    progress: Progress = ignore,
    cancel: Cancel | None = None,
    isolated: bool = True,
) -> Result:
    """Compute a task's artifact into the store at `url` unless it is there, and with it those of its others.

    With `isolated` off the plugins run in this process, unwatched and without limits: for debugging and for tests. The
    records of such stages say so.
    """
    quiet_libraries()
    if task.others:
        return _run_pack(task, url, bounds, progress, cancel, isolated)
    try:
        store = Store(url)
        with store.claim(task.key):
            if store.get(task.key) is not None:
                return Result("done")
            with _private(store, task.key) as place, store.explaining():
                _Computation(task, store, Apart(place, store.folder, bounds, progress, cancel, isolated)).run()
            store.clear_workspace(task.key)
        return Result("done", computed=True)
    except MissingArtifact as error:
        return Result("missing", message=str(error), key=error.key)
    except (StoreError, ChangedSource) as error:
        return Result("unusable", message=str(error))
    except Lost as error:
        return Result("lost", message=str(error))
    except StageFailed as error:
        return Result("failed", message=str(error), trace=error.trace)
    except ArenaError as error:  # what it made cannot be kept
        return Result("failed", message=f"{task.stage.plugin}: {error}")
    except Exception as error:  # of the harness; what plugins do is no exception here
        if (unusable := _of_store(url, error)) is not None:
            return Result("unusable", message=unusable)
        return Result("failed", message=describe_error(error))


def _of_store(url: str, error: Exception) -> str | None:
    if not isinstance(error, OSError):
        return None
    found = Store(url).unusable(error)
    return None if found is None else str(found)


@contextmanager
def _private(store: Store, key: str) -> Iterator[Path]:
    """A folder for one computation, which nobody else reads."""
    root = store.folder / "stages"
    root.mkdir(parents=True, exist_ok=True)
    for leftover in root.glob(f"{key}-*"):  # of a run that was killed; the claim is ours
        remove(leftover)
    place = Path(tempfile.mkdtemp(prefix=f"{key}-", dir=root))
    try:
        yield place
    finally:
        remove(place)


@dataclass
class _Computation:
    task: Task
    store: Store
    apart: Apart

    def run(self) -> None:
        task, stage, apart = self.task, self.task.stage, self.apart
        given, made = apart.folder("given"), apart.folder("made")
        job = self.hand_over(given)
        try:
            ended = apart.compute(stage, given, made, self.store.workspace(task.key))
        except StageFailed as error:
            raise StageFailed(stage.named(str(error), job), error.trace) from error
        asking = stage.ask(job, made, question := apart.folder("question"))
        if asking is not None:
            apart.compute(asking, question, reply := apart.folder("reply"))
            for path in filter(Path.is_file, reply.iterdir()):
                remove(made / path.name)
                shutil.copyfile(path, made / path.name)
        self.keep(made, ended)

    def hand_over(self, given: Path) -> Job:
        """Fill the folder of what the plugins may know, once their sources are found unchanged."""
        task, stage = self.task, self.task.stage
        for spec in stage.plugins().values():
            spec.check_source(self.apart.registry)
        job = Job(task.inputs, self.store, self.apart.place / "none", task.key)
        stage.hand_over(job, given)
        return job

    def keep(self, made: Path, ended: Mapping[str, Any], share: float = 1) -> None:
        """Make the artifact of what the plugins left; `share` is the stage's own of the time that was measured."""
        task, stage = self.task, self.task.stage
        cost = number(ended.get("seconds")) * share, number(ended.get("peak_memory_mb"))
        document, environment = stage.describe(), self.apart.environment(ended)
        with self.store.put(task.key, stage.kind, document, environment, cost) as folder:
            self._collect(folder, made)

    def _collect(self, folder: Path, made: Path) -> None:
        """Have the harness check what was made and fill the artifact; where that takes long, in a process of its own,
        also without a plugin in it."""
        stage, inputs = self.task.stage, dict(self.task.inputs)
        for key in inputs.values():  # that process reads what is at hand: it has no secret of a store at a URL
            self.store.require(key)
        job = inputs, str(self.store.folder), folder, self.task.key
        home = self.apart.folder(f"home-collect-{self.task.key}")
        if not (self.apart.isolated and stage.judged_by):
            collect(stage, job, made, home, ignore)
            ended = read_ended(home) or {"status": "failed"}
        else:
            call = Call(
                "arena.engine.inside:collect",
                (stage, job, made, home),
                home,
                preload=stage.judged_by,
                limits=self.apart.limits,
                firewall=False,
            )
            ended = self.apart.judge(run(call, None, self.apart.cancel), home)
        if ended["status"] == "missing":
            raise MissingArtifact(str(ended["key"]))
        if ended["status"] == "unusable":
            raise StoreError(str(ended["message"]))
        if ended["status"] != "done":
            raise self.apart.failure(stage, ended)


def _run_pack(
    task: Task, url: str, bounds: Bounds, progress: Progress, cancel: Cancel | None, isolated: bool
) -> Result:
    """Compute tasks in one process; what does not come of that is computed by itself, which shows whose fault it is."""
    done: dict[str, Result] = {}
    try:
        store = Store(url)
        with ExitStack() as held:
            for each in sorted(task.all, key=lambda t: t.key):  # in one order, so that no two runs wait for each other
                held.enter_context(store.claim(each.key))
            left = [each for each in task.all if store.get(each.key) is None]
            if len(left) > 1:
                with _private(store, left[0].key) as place, store.explaining():
                    count = len(left)
                    wider = Bounds(
                        bounds.seconds and bounds.seconds * count,
                        bounds.memory,
                        bounds.output and bounds.output * count,
                    )
                    apart = Apart(place, store.folder, wider, progress, cancel, isolated)
                    done = _together([_Computation(each, store, apart) for each in left], apart)
    except Exception as error:
        log.debug("computed one by one: %s", describe_error(error))
    results = [
        (each.key, done.get(each.key) or run_task(each, url, bounds, progress, cancel, isolated)) for each in task.all
    ]
    return replace(results[0][1], others=tuple(results[1:]))


def _together(computations: list[_Computation], apart: Apart) -> dict[str, Result]:
    """Results by key of those whose training came to an end."""
    given, made = apart.folder("given"), apart.folder("made")
    for place, one in enumerate(computations):
        for folder in (given, made):
            (folder / str(place)).mkdir(mode=0o700)
        one.hand_over(given / str(place))
    stages = tuple(one.task.stage for one in computations)
    ended = apart.compute(Together(cast("tuple[FineTune, ...]", stages)), given, made)
    results = {}
    for place, one in enumerate(computations):
        try:
            one.keep(made / str(place), ended, 1 / len(computations))
            results[one.task.key] = Result("done", computed=True)
        except StageFailed as error:
            results[one.task.key] = Result("failed", message=str(error), trace=error.trace)
    return results


def follow_task(task: Task, url: str) -> None:
    """The part of another process in a stage that several compute together: the same work, and nothing of it kept."""
    quiet_libraries()
    seed_globals(task.stage, THREADS)
    with tempfile.TemporaryDirectory(prefix="arena-follow-") as folder:
        given, made = Path(folder) / "given", Path(folder) / "made"
        given.mkdir()
        made.mkdir()
        task.stage.hand_over(Job(task.inputs, Store(url), made, task.key), given)
        task.stage.run(Desk(given, made, None, ignore))
