"""Computes one stage into the store: hands its plugins copies of what they may know, in a process of their own, and
checks what they made against what they never held."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from arena.engine.inside import ENDED, THREADS, collect, compute, read_ended, seed_globals
from arena.engine.job import Desk, Job, Progress
from arena.engine.stages import Stage
from arena.engine.stages.base import Asking
from arena.environment import quiet_libraries, stage_environment
from arena.errors import ArenaError, ChangedSource, describe_error
from arena.isolation.call import Cancel, Ended, Lost, isolation, run
from arena.isolation.server import Call, Limits
from arena.isolation.surroundings import for_network, hub_cache, hub_home, named
from arena.plugins.card import Card
from arena.plugins.registry import FIRST_PARTY, Registry
from arena.plugins.spec import PluginSpec
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


@dataclass(frozen=True)
class Bounds:
    """What a stage may take: seconds, bytes of memory, bytes of files; None without a limit."""

    seconds: float | None = None
    memory: int | None = None
    output: int | None = None


def ignore(done: float, note: str) -> None:
    """Progress that nobody asked for."""


def run_task(
    task: Task,
    url: str,
    bounds: Bounds = Bounds(),  # immutable
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
            with _private(store, task.key) as place:
                _Computation(task, store, place, bounds, progress, cancel, isolated).run()
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
    except Exception as error:  # of the harness; what plugins do is no exception here
        if (unusable := _of_store(url, error)) is not None:
            return Result("unusable", message=unusable)
        return Result("failed", message=describe_error(error))


class StageFailed(ArenaError):
    """A stage failed by its plugins' doing, with the traceback where there is one."""

    def __init__(self, message: str, trace: str = "") -> None:
        super().__init__(message)
        self.trace = trace


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
        shutil.rmtree(leftover, ignore_errors=True)
    place = Path(tempfile.mkdtemp(prefix=f"{key}-", dir=root))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


@dataclass
class _Computation:
    task: Task
    store: Store
    place: Path
    bounds: Bounds
    progress: Progress
    cancel: Cancel | None
    isolated: bool
    modules: list[str] = field(default_factory=list)

    def run(self) -> None:
        task, stage = self.task, self.task.stage
        registry = Registry()
        for spec in stage.plugins().values():
            spec.check_source(registry)
            module = registry.get(spec.kind, spec.id).point.module
            if module.partition(".")[0] in FIRST_PARTY:  # a stranger's is never loaded before the process is its own
                self.modules.append(module)
        given, made = self._folder("given"), self._folder("made")
        job = Job(task.inputs, self.store, self.place / "none", task.key)
        stage.hand_over(job, given)
        workspace = self.store.workspace(task.key)
        ended = self._apart(stage, given, made, workspace)
        if ended["status"] != "done":
            raise self._failure(stage.plugin, ended)
        self._inspect(stage.plugin, made)
        asking = stage.ask(job, made, question := self._folder("question"))
        if asking is not None:
            answer = self._apart(asking, question, reply := self._folder("reply"), None)
            name = f"model {asking.model.id!r}"
            if answer["status"] != "done":
                raise self._failure(name, answer)
            self._inspect(name, reply)
            for path in reply.iterdir():
                shutil.copyfile(path, made / path.name)
        environment = self._environment(ended)
        cost = _number(ended.get("seconds")), _number(ended.get("peak_memory_mb"))
        with self.store.put(task.key, stage.kind, stage.describe(), environment, cost) as folder:
            self._collect(folder, made)

    def _folder(self, name: str) -> Path:
        path = self.place / name
        path.mkdir(mode=0o700)
        return path

    def _apart(self, stage: Stage | Asking, given: Path, made: Path, workspace: Path | None) -> dict[str, Any]:
        """Run the plugins of a stage in a process of their own, and what it says of how that ended."""
        home = self.place / f"home-{given.name}"
        home.mkdir(mode=0o700)
        desk = given, made, workspace
        if not self.isolated:
            compute(stage, desk, home, self.progress, here=True)
            return read_ended(home) or {"status": "failed", "message": "it left no word"}
        specs = list(stage.plugins().values()) if isinstance(stage, Stage) else [stage.model]
        network = isinstance(stage, Stage) and stage.network
        if not network:
            self._fetch(specs)
        read = [given, *self._files(specs, network)]
        write = [made, *([workspace] if workspace else []), *([hub_home(), hub_cache()] if network else [])]
        call = Call(
            "arena.engine.inside:compute",
            (stage, desk, home),
            home,
            tuple(read),
            tuple(write),
            network=network,
            preload=(*stage.preload, *self.modules),
            limits=Limits(self.bounds.seconds, self.bounds.memory, self.bounds.output),
            environment=for_network() if network else {},
        )
        return self._judge(run(call, self.progress, self.cancel), home)

    def _judge(self, end: Ended, home: Path) -> dict[str, Any]:
        """What a process said at its end, or what is to be said of one that did not."""
        said = read_ended(home)
        if end.reason is None and end.code == 0 and said is not None:
            return said
        return {"status": "failed", "message": self._why(end), "trace": end.printed[-8000:]}

    def _why(self, end: Ended) -> str:
        b = self.bounds
        if end.reason == "cancelled":
            return "it was ended with the run"
        if end.reason == "time" or (b.seconds is not None and end.code == 1 and _TIMEOUT in end.printed):
            assert b.seconds is not None
            return (
                f"it ran past its time limit of {b.seconds / 60:.3g} minutes (limits.stage_minutes of the suite) and "
                "was ended"
            )
        if end.reason == "memory":
            return (
                f"it took more than {_gb(b.memory)} GB of memory (limits.stage_memory_gb of the suite) and was ended: "
                "give it fewer samples or a smaller batch, or raise the limit"
            )
        if end.reason == "processes":
            return "it started more than 256 processes and was ended"
        if end.code == -9:
            return "its process was ended by signal SIGKILL, as the kernel does to one that is out of memory"
        if end.code >= 0:
            return f"its process left with exit code {end.code} before it was done"
        return f"its process was ended by {end.how}"

    def _failure(self, who: str, ended: Mapping[str, Any]) -> ArenaError:
        message, trace = str(ended.get("message", ""))[:4000], str(ended.get("trace", ""))[-20_000:]
        if ended["status"] == "changed" and self._changed():
            return ChangedSource(message)
        own = str(self.place)
        return StageFailed(f"{who}: {message}".replace(f"{own}/", ""), trace.replace(f"{own}/", ""))

    def _changed(self) -> bool:
        """Whether the files that plugins name are not what they were, as a process said."""
        registry, describe = Registry(), Card.apart if self.isolated else Card.here
        for spec in self.task.stage.plugins().values():
            if describe(registry, spec.kind, spec.id, {**spec.config, **spec.runtime}).fingerprint != spec.fingerprint:
                return True
        return False

    def _inspect(self, who: str, made: Path) -> None:
        """Refuse whatever is no plain file or folder, before anything reads it, and more of it than is allowed."""
        total = 0
        for folder, names, files in os.walk(made):
            for name in (*names, *files):
                found = (Path(folder) / name).lstat()
                where = (Path(folder) / name).relative_to(made)
                if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
                    raise StageFailed(f"{who}: it left {where}, which is no plain file: links and devices are not read")
                if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
                    raise StageFailed(f"{who}: it left {where}, which is linked to another file")
                total += found.st_size
        if self.bounds.output is not None and total > self.bounds.output:
            raise StageFailed(
                f"{who}: it left {total / 1e9:.3g} GB of files, more than {_gb(self.bounds.output)} GB "
                "(limits.stage_output_gb of the suite)"
            )

    def _collect(self, folder: Path, made: Path) -> None:
        """Have the harness check what was made and fill the artifact; where that takes long, in a process of its own, also
        without a plugin in it."""
        stage, job = self.task.stage, (dict(self.task.inputs), self.store.url, folder, self.task.key)
        home = self.place / "home-collect"
        home.mkdir(mode=0o700)
        if not (self.isolated and stage.judged_by):
            collect(stage, job, made, home, ignore)
            ended = read_ended(home) or {"status": "failed"}
        else:
            call = Call(
                "arena.engine.inside:collect",
                (stage, job, made, home),
                home,
                preload=stage.judged_by,
                firewall=False,
            )
            ended = self._judge(run(call, None, self.cancel), home)
        if ended["status"] == "missing":
            raise MissingArtifact(str(ended["key"]))
        if ended["status"] == "unusable":
            raise StoreError(str(ended["message"]))
        if ended["status"] != "done":
            raise self._failure(stage.plugin, ended)

    def _files(self, specs: list[PluginSpec], network: bool) -> Iterator[Path]:
        """Files and folders that the plugins' settings name, and their checkpoints in the hub's cache."""
        for spec in specs:
            settings = {**spec.config, **spec.runtime}
            for path in named(settings):
                if not network and self.store.folder.is_relative_to(path.resolve()):
                    raise StageFailed(
                        f"{spec.kind} {spec.id!r}: its settings name {path}, which holds the store: keep them apart"
                    )
                yield path
            for value in settings.values():
                if isinstance(value, str) and value.count("/") == 1:
                    yield hub_cache() / f"models--{value.replace('/', '--')}"

    def _fetch(self, specs: list[PluginSpec]) -> None:
        """Have models fetched to the hub's cache by a process with a network, since the stage's has none."""
        for spec in specs:
            if not any(
                isinstance(v, str) and v.count("/") == 1 and not Path(v).exists() for v in spec.runtime.values()
            ):
                continue
            home = self.place / f"home-fetch-{spec.kind}-{spec.id}"
            if home.exists():
                continue
            home.mkdir(mode=0o700)
            call = Call(
                "arena.engine.inside:fetch",
                (spec, home),
                home,
                tuple(self._files([spec], network=True)),
                (hub_home(), hub_cache()),
                network=True,
                preload=("torch", "transformers"),
                environment=for_network(),
            )
            ended = self._judge(run(call, self.progress, self.cancel), home)
            if ended["status"] != "done":
                raise self._failure(f"{spec.kind} {spec.id!r}", ended)

    def _environment(self, ended: Mapping[str, Any]) -> dict[str, Any]:
        """What is known of the process: of the device alone it is asked itself."""
        own, said = stage_environment(THREADS), ended.get("environment")
        if isinstance(said, dict):
            for name, kind in (("device", str), ("nondeterminism", list)):
                if isinstance(said.get(name), kind):
                    own[name] = said[name]
        return {**own, "isolation": isolation() if self.isolated else "none"}


_TIMEOUT = "Timeout ("
"""What Python's fault handler begins with, when it ends a process past its time."""


def _gb(size: int | None) -> str:
    return f"{(size or 0) / 1e9:.3g}"


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def follow_task(task: Task, url: str) -> None:
    """The part of another process in a stage that several compute together: the same work, and nothing of it kept."""
    quiet_libraries()
    seed_globals(task.stage)
    with tempfile.TemporaryDirectory(prefix="arena-follow-") as folder:
        given, made = Path(folder) / "given", Path(folder) / "made"
        given.mkdir()
        made.mkdir()
        task.stage.hand_over(Job(task.inputs, Store(url), made, task.key), given)
        task.stage.run(Desk(given, made, None, ignore))


__all__ = ["ENDED", "Bounds", "Result", "Task", "follow_task", "ignore", "run_task"]
