"""The plugins of a stage in a process of their own: what it may see, what is said of its end, and what it left."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arena.engine.inside import THREADS, compute, read_ended
from arena.engine.job import Progress
from arena.engine.stages import Stage
from arena.engine.stages.base import Asking
from arena.environment import stage_environment
from arena.errors import ArenaError, ChangedSource
from arena.isolation.call import Cancel, Ended, isolation, run
from arena.isolation.server import Call, Limits
from arena.isolation.surroundings import for_network, hub_cache, hub_home, named
from arena.plugins.card import Card
from arena.plugins.registry import FIRST_PARTY, Registry
from arena.plugins.spec import PluginSpec


@dataclass(frozen=True)
class Bounds:
    """What a stage may take: seconds, bytes of memory, bytes of files; None without a limit."""

    seconds: float | None = None
    memory: int | None = None
    output: int | None = None


def ignore(done: float, note: str) -> None:
    """Progress that nobody asked for."""


class StageFailed(ArenaError):
    """A stage failed by its plugins' doing, with the traceback where there is one."""

    def __init__(self, message: str, trace: str = "") -> None:
        super().__init__(message)
        self.trace = trace


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

    def folder(self, name: str) -> Path:
        """A new folder that nobody else reads."""
        path = self.place / name
        path.mkdir(mode=0o700)
        return path

    def compute(self, stage: Stage | Asking, given: Path, made: Path, workspace: Path | None = None) -> dict[str, Any]:
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

    def failure(self, stage: Stage | Asking, ended: Mapping[str, Any]) -> ArenaError:
        """The error of a stage that ended so."""
        message, trace = str(ended.get("message", ""))[:4000], str(ended.get("trace", ""))[-20_000:]
        if ended["status"] == "changed" and self._changed(stage):
            return ChangedSource(message)
        own = str(self.place)
        return StageFailed(f"{stage.plugin}: {message}".replace(f"{own}/", ""), trace.replace(f"{own}/", ""))

    def _changed(self, stage: Stage | Asking) -> bool:
        """Whether the files that plugins name are not what they were, as a process said."""
        registry, describe = Registry(), Card.apart if self.isolated else Card.here
        for spec in stage.plugins().values():
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

    def _run(self, stage: Stage | Asking, given: Path, made: Path, workspace: Path | None) -> dict[str, Any]:
        home = self.folder(f"home-{given.name}")
        desk = given, made, workspace
        if not self.isolated:
            compute(stage, desk, home, self.threads, self.progress, here=True)
            return read_ended(home) or {"status": "failed", "message": "it left no word"}
        specs, network = list(stage.plugins().values()), stage.network
        if not network:
            self._fetch(stage, specs)
        read = [given, *self._files(specs, network)]
        write = [made, *([workspace] if workspace else []), *([hub_home(), hub_cache()] if network else [])]
        call = Call(
            "arena.engine.inside:compute",
            (stage, desk, home, self.threads),
            home,
            tuple(read),
            tuple(write),
            network=network,
            preload=(*stage.preload, *_modules(specs)),
            limits=Limits(self.bounds.seconds, self.bounds.memory, self.bounds.output),
            environment=for_network() if network else {},
        )
        return self.judge(run(call, self.progress, self.cancel), home)

    def _files(self, specs: list[PluginSpec], network: bool) -> Iterator[Path]:
        """Files and folders that the plugins' settings name, and their checkpoints in the hub's cache."""
        for spec in specs:
            settings = {**spec.config, **spec.runtime}
            for path in named(settings):
                if not network and self.hidden.is_relative_to(path.resolve()):
                    raise StageFailed(
                        f"{spec.kind} {spec.id!r}: its settings name {path}, which holds {self.hidden.name!r} with "
                        "results in it: keep them apart"
                    )
                yield path
            for value in settings.values():
                if isinstance(value, str) and value.count("/") == 1:
                    yield hub_cache() / f"models--{value.replace('/', '--')}"

    def _fetch(self, stage: Stage | Asking, specs: list[PluginSpec]) -> None:
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
            ended = self.judge(run(call, self.progress, self.cancel), home)
            if ended["status"] != "done":
                raise self.failure(stage, ended)

    def environment(self, ended: Mapping[str, Any]) -> dict[str, Any]:
        """What is known of the process: of the device alone it is asked itself."""
        own, said = stage_environment(self.threads), ended.get("environment")
        if isinstance(said, dict):
            for name, kind in (("device", str), ("nondeterminism", list)):
                if isinstance(said.get(name), kind):
                    own[name] = said[name]
        return {**own, "isolation": isolation() if self.isolated else "none"}


_TIMEOUT = "Timeout ("
"""What Python's fault handler begins with, when it ends a process past its time."""


def _gb(size: int | None) -> str:
    return f"{(size or 0) / 1e9:.3g}"


def number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _modules(specs: Sequence[PluginSpec]) -> Iterator[str]:
    """Modules of our own plugins, which may be loaded before a process is forked; a stranger's are not."""
    registry = Registry()
    for spec in specs:
        module = registry.get(spec.kind, spec.id).point.module
        if module.partition(".")[0] in FIRST_PARTY:
            yield module
