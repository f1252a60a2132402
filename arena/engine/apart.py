"""The plugins of a stage in a process of their own: what it may see, what is said of its end, and what it left."""

from __future__ import annotations

import dataclasses
import math
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from arena.engine.inside import THREADS, compute, read_ended
from arena.engine.job import Progress
from arena.engine.stages import Input, Stage, Together, TrainingPart
from arena.engine.stages.base import Asking
from arena.environment import stage_environment
from arena.errors import ArenaError, ChangedSource
from arena.isolation.call import Cancel, Ended, isolation, run
from arena.isolation.server import PROCESSES, Call, Limits
from arena.isolation.surroundings import downloads, for_network, hub_cache, hub_home
from arena.plugins.card import Card
from arena.plugins.registry import FIRST_PARTY, Registry
from arena.plugins.source import imported
from arena.plugins.spec import PluginSpec
from arena.text import printable, shortened


@dataclass(frozen=True)
class Bounds:
    """What a stage may take: seconds, bytes of memory, bytes of files; None without a limit."""

    seconds: float | None = None
    memory: int | None = None
    output: int | None = None


def ignore(done: float, note: str) -> None:
    """Progress that nobody asked for."""


class StageFailed(ArenaError):
    """A stage failed by its plugins' doing, with the traceback where there is one, also as a note: it may say more of
    the cause than the message, such as that a disk is full."""

    def __init__(self, message: str, trace: str = "") -> None:
        super().__init__(message)
        self.trace = trace
        if trace:
            self.add_note(trace)


@dataclass
class Apart:
    """Runs the plugins of one stage after the other, each in a process of its own, with folders below `place`; `hidden`
    is what none of them may be given by its settings. With `isolated` off they run in this process."""

    place: Path
    hidden: Path
    bounds: Bounds
    progress: Progress = ignore
    cancel: Cancel | None = None
    isolated: bool = True
    threads: int = THREADS
    registry: Registry = field(default_factory=Registry)

    def folder(self, name: str) -> Path:
        """A new folder that nobody else reads."""
        path = self.place / name
        path.mkdir(mode=0o700)
        return path

    def compute(
        self, stage: Stage | Together | Asking, given: Path, made: Path, workspace: Path | None = None
    ) -> dict[str, Any]:
        """Have the plugins' part of a stage done: what its process said of itself at its end.

        Raises `StageFailed` where it failed or left what cannot be read, `ChangedSource` where what its plugins name is
        not what it was.
        """
        ended = self._run(stage, given, made, workspace)
        if ended["status"] != "done":
            raise self.failure(stage, ended)
        self._inspect(stage.plugin, made)
        return ended

    def judge(self, end: Ended, home: Path) -> dict[str, Any]:
        """What a process said at its end, or what is to be said of one that did not; and what it took."""
        took = {"seconds": round(end.seconds, 4), "peak_memory_mb": round(end.peak_memory_mb, 1)}
        said = read_ended(home)
        if end.reason is not None or end.code != 0 or said is None:
            return {"status": "failed", "message": self._why(end), "trace": end.printed[-8000:], **took}
        if said["status"] == "memory":
            limit = f"a stage has {_gb(self.bounds.memory)} GB of memory (limits.stage_memory_gb of the suite)"
            said |= {"message": f"{said.get('message')}: {limit}" if self.bounds.memory else said.get("message")}
        return {**said, **took}

    def _why(self, end: Ended) -> str:
        b = self.bounds
        if end.reason == "cancelled":
            return "it was ended with the run"
        if b.seconds is not None and end.lived >= b.seconds and (end.reason == "time" or _TIMEOUT in end.printed):
            return (
                f"it ran past its time limit of {b.seconds / 60:.3g} minutes (limits.stage_minutes of the suite) and "
                "was ended"
            )
        if end.reason == "memory":
            return (
                f"it took more than {_gb(b.memory)} GB of memory (limits.stage_memory_gb of the suite) and was ended: "
                "give it fewer samples or a smaller batch, or raise the limit"
            )
        if end.reason == "output":
            return f"it wrote more than {_gb(b.output)} GB (limits.stage_output_gb of the suite) and was ended"
        if end.reason == "processes":
            return f"it started more than {PROCESSES} processes and was ended"
        if end.code == -9:
            return "its process was ended by signal SIGKILL, as the kernel does to one that is out of memory"
        if end.code >= 0:
            return f"its process left with exit code {end.code} before it was done"
        return f"its process was ended by {end.how}"

    def failure(self, stage: Stage | Together | Asking, ended: Mapping[str, Any]) -> ArenaError:
        """The error of a stage that ended so."""
        message = printable(str(ended.get("message", ""))[:4000])  # whatever it is, it was a plugin's to write
        trace = printable(str(ended.get("trace", ""))[-20_000:])
        if ended["status"] == "changed" and self._changed(stage):
            return ChangedSource(message)
        own = str(self.place)
        return StageFailed(f"{stage.plugin}: {message}".replace(f"{own}/", ""), trace.replace(f"{own}/", ""))

    def _changed(self, stage: Stage | Together | Asking) -> bool:
        """Whether the files that plugins name are not what they were, as a process said."""
        registry, describe = Registry(), Card.apart if self.isolated else Card.here
        for spec in stage.plugins().values():
            if describe(registry, spec.kind, spec.id, {**spec.config, **spec.runtime}).fingerprint != spec.fingerprint:
                return True
        return False

    def _inspect(self, who: str, made: Path) -> None:
        """Refuse whatever is no plain file or folder, before anything reads it, and more of it than is allowed."""
        total, waiting = 0, [made]
        while waiting:
            folder = waiting.pop()
            try:
                found = [(path, path.lstat()) for path in folder.iterdir()]
            except OSError as error:  # too deep, or not to be read
                raise StageFailed(f"{who}: what it left cannot be read ({error.strerror})") from None
            for path, status in found:
                problem = _problem(path, status)
                if problem is not None:
                    where = shortened(str(path.relative_to(made)), 200)
                    raise StageFailed(f"{who}: it left {where}, {problem}")
                if stat.S_ISDIR(status.st_mode):
                    waiting.append(path)
                total += status.st_size
        if self.bounds.output is not None and total > self.bounds.output:
            raise StageFailed(
                f"{who}: it left {total / 1e9:.3g} GB of files, more than {_gb(self.bounds.output)} GB "
                "(limits.stage_output_gb of the suite)"
            )

    def _run(self, stage: Stage | Together | Asking, given: Path, made: Path, workspace: Path | None) -> dict[str, Any]:
        home = self.folder(f"home-{given.name}")
        desk = given, made, workspace
        if not self.isolated:
            compute(stage, desk, home, self.threads, self.progress, here=True)
            return read_ended(home) or {"status": "failed", "message": "it left no word"}
        specs, network = list(stage.plugins().values()), stage.network
        if not network:
            self._fetch(stage, specs)
        read = [given, *self._files(specs, network), *([hub_home()] if network else [])]
        own = [made, *([workspace] if workspace else [])]
        call = Call(
            "arena.engine.inside:compute",
            (bare(stage), desk, home, self.threads),
            home,
            tuple(read),
            (*own, *(downloads() if network else [])),
            network=network,
            preload=(*stage.preload, *self._modules(specs)),
            limits=self.limits,
            filled=(home, *own),
            environment=for_network() if network else {},
        )
        return self.judge(run(call, self.progress, self.cancel), home)

    @property
    def limits(self) -> Limits:
        """What each process may take."""
        return Limits(self.bounds.seconds, self.bounds.memory, self.bounds.output)

    def _modules(self, specs: Sequence[PluginSpec]) -> Iterator[str]:
        """Modules of our own plugins, which may be loaded before a process is forked; a stranger's are not."""
        for spec in specs:
            module = self.registry.get(spec.kind, spec.id).point.module
            if module.partition(".")[0] in FIRST_PARTY:
                yield module
                if spec.kind == "model":  # what it imports only when it loads takes longer than loading
                    yield from imported(module, FIRST_PARTY)

    def _files(self, specs: list[PluginSpec], network: bool) -> Iterator[Path]:
        """Files and folders that the plugins' settings name, and their checkpoints in the hub's cache."""
        for spec in specs:
            for path in map(Path, spec.named):
                real, hidden = path.resolve(), self.hidden.resolve()
                if not network and (hidden.is_relative_to(real) or real.is_relative_to(hidden)):
                    if not path.is_absolute():  # a word that happens to be a name
                        continue
                    raise StageFailed(
                        f"{spec.kind} {spec.id!r}: its settings name {path}, and results are kept in {self.hidden}: "
                        "keep them apart"
                    )
                yield path.absolute()
            cache = hub_cache().resolve()
            for value in {**spec.config, **spec.runtime}.values():
                if isinstance(value, str) and value.count("/") == 1:
                    kept = cache / f"models--{value.replace('/', '--')}"
                    if not kept.resolve().is_relative_to(cache):
                        raise StageFailed(
                            f"{spec.kind} {spec.id!r}: {kept.name} in the hub's cache is a link that leads out of "
                            "it: no stage may follow it; remove it, or name the folder itself as checkpoint"
                        )
                    yield kept.resolve()

    def _fetch(self, stage: Stage | Together | Asking, specs: list[PluginSpec]) -> None:
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
                (*self._files([spec], network=True), hub_home()),
                tuple(downloads()),
                network=True,
                preload=("torch", "transformers"),
                limits=self.limits,
                filled=(home,),
                environment=for_network(),
            )
            ended = self.judge(run(call, self.progress, self.cancel), home)
            if ended["status"] != "done":
                raise self.failure(stage, ended)

    def environment(self, ended: Mapping[str, Any]) -> dict[str, Any]:
        """What is known of the process: of the device alone it is asked itself."""
        own, said = stage_environment(self.threads), ended.get("environment")
        if isinstance(said, dict):
            device, doubts = said.get("device"), said.get("nondeterminism")
            if isinstance(device, str):
                own["device"] = shortened(device, 200)
            if isinstance(doubts, list):
                own["nondeterminism"] = [shortened(doubt, 200) for doubt in doubts[:20] if isinstance(doubt, str)]
        return {**own, "isolation": isolation() if self.isolated else "none"}


_TIMEOUT = "Timeout ("
"""What Python's fault handler begins with, when it ends a process past its time."""


def _gb(size: int | None) -> str:
    return f"{(size or 0) / 1e9:.3g}"


def number(value: object) -> float:
    """A measured number, 0 for what is none."""
    try:
        found = float(value) if isinstance(value, int | float) else 0.0
    except OverflowError:
        return 0.0
    return found if math.isfinite(found) and found > 0 else 0.0


_TEXT = 2**28
"""Bytes of a JSON file that the harness reads."""


def _problem(path: Path, status: os.stat_result) -> str | None:
    """What is wrong with a file that a stage left."""
    if stat.S_ISDIR(status.st_mode):
        return None
    if not stat.S_ISREG(status.st_mode):
        return "which is no plain file: links and devices are not read"
    if status.st_nlink > 1:
        return "which is linked to another file"
    if path.suffix in (".json", ".jsonl") and status.st_size > _TEXT:
        return f"which has {status.st_size / 1e9:.3g} GB: texts of at most {_gb(_TEXT)} GB are read"
    return None


def bare(part: Any) -> Any:
    """A stage, or a part of one, as its plugins' process gets it: without its label, which may name another party's
    plugin, and the names of the stages that it reads, which are digests of what these ask."""
    values: dict[str, Any] = {}
    for name in (f.name for f in dataclasses.fields(part)):
        value = getattr(part, name)
        if name == "label":
            values[name] = ""
        elif isinstance(value, Input):
            values[name] = Input("", value.output)
        elif isinstance(value, tuple):
            values[name] = tuple(bare(v) if isinstance(v, TrainingPart | Stage) else v for v in value)
    return dataclasses.replace(part, **values)
