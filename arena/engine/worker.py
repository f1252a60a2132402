"""Computes one stage into the store: hands its plugins copies of what they may know, in a process of their own, and
checks what they made against what they never held."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from arena.engine.apart import Apart, Bounds, StageFailed, ignore, number
from arena.engine.inside import THREADS, collect, read_ended, seed_globals
from arena.engine.job import Desk, Job, Progress
from arena.engine.stages import Stage
from arena.environment import quiet_libraries
from arena.errors import ArenaError, ChangedSource, describe_error
from arena.isolation.call import Cancel, Lost, run
from arena.isolation.leftovers import remove
from arena.isolation.server import Call
from arena.store.local import MissingArtifact, Store, StoreError


@dataclass(frozen=True)
class Task:
    """A stage that can be computed: `key` is that of its artifact, `inputs` are keys of artifacts by its fields."""

    stage: Stage
    key: str
    inputs: Mapping[str, str]


@dataclass(frozen=True)
class Result:
    """How a stage ended: done, failed by itself, an input gone, the store unusable, or nobody knows, since the process
    that watched over it was killed. Plain: it crosses processes."""

    status: Literal["done", "failed", "missing", "unusable", "lost"]
    computed: bool = False
    message: str = ""
    trace: str = ""
    key: str = ""


def run_task(
    task: Task,
    url: str,
    bounds: Bounds = Bounds(),  # noqa: B008  # immutable
    progress: Progress = ignore,
    cancel: Cancel | None = None,
    isolated: bool = True,
) -> Result:
    """Compute a task's artifact into the store at `url` unless it is there.

    With `isolated` off the plugins run in this process, unwatched and without limits: for debugging and for tests. The
    records of such stages say so.
    """
    quiet_libraries()
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
        for spec in stage.plugins().values():
            spec.check_source(apart.registry)
        given, made = apart.folder("given"), apart.folder("made")
        job = Job(task.inputs, self.store, apart.place / "none", task.key)
        stage.hand_over(job, given)
        ended = apart.compute(stage, given, made, self.store.workspace(task.key))
        asking = stage.ask(job, made, question := apart.folder("question"))
        if asking is not None:
            apart.compute(asking, question, reply := apart.folder("reply"))
            for path in filter(Path.is_file, reply.iterdir()):
                remove(made / path.name)
                shutil.copyfile(path, made / path.name)
        cost = number(ended.get("seconds")), number(ended.get("peak_memory_mb"))
        document, environment = stage.describe(), apart.environment(ended)
        with self.store.put(task.key, stage.kind, document, environment, cost) as folder:
            self._collect(folder, made)

    def _collect(self, folder: Path, made: Path) -> None:
        """Have the harness check what was made and fill the artifact; where that takes long, in a process of its own,
        also without a plugin in it."""
        stage, inputs = self.task.stage, dict(self.task.inputs)
        for key in inputs.values():  # that process reads what is at hand: it has no secret of a store at a URL
            self.store.require(key)
        job = inputs, str(self.store.folder), folder, self.task.key
        home = self.apart.folder("home-collect")
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
