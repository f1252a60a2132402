"""What runs in processes of their own: a stage's plugins, the harness's check of what they made, and the description of
a plugin. Called by name, see `arena.isolation.call`."""

from __future__ import annotations

import json
import random
import resource
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from arena.engine.job import Desk, Job, Progress, party_seed, write_json
from arena.engine.stages import Stage, Together
from arena.engine.stages.base import Asking
from arena.environment import device_environment, quiet_libraries
from arena.errors import ChangedSource, describe_error
from arena.isolation.server import MAXRSS
from arena.plugins.registry import installed
from arena.plugins.spec import PluginSpec
from arena.store.local import MissingArtifact, Store, StoreError

THREADS = 1
"""Torch threads of a stage: parallel work is stages side by side, and sums of floats depend on the thread count."""

ENDED = "ended.json"
"""How the function ended, in the process's own folder."""


def compute(
    stage: Stage | Together | Asking,
    desk: tuple[Path, Path, Path | None],
    home: Path,
    threads: int,
    tell: Progress,
    here: bool = False,
) -> None:
    """The plugins' part of a stage. What goes wrong is written to `ENDED`, whatever it is, but for an interruption of
    the harness's own process, if that is `here`."""
    quiet_libraries()
    started = time.perf_counter()
    try:
        if not isinstance(stage, Asking):
            for spec in stage.plugins().values():
                installed().get(spec.kind, spec.id).load()
            seed_globals(stage, threads)
        stage.run(Desk(*desk, tell))
        ended = {"status": "done"}
    except ChangedSource as error:
        ended = {"status": "changed", "message": str(error), "trace": trace_of(error)}
    except BaseException as error:
        if here and isinstance(error, KeyboardInterrupt):
            raise
        ended = {
            "status": "memory" if _without_memory(error) else "failed",
            "message": describe_error(error),
            "trace": trace_of(error),
        }
    measured = {
        "seconds": round(time.perf_counter() - started, 4),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MAXRSS, 1),
        "environment": device_environment(),
    }
    write_json(home / ENDED, {**ended, **measured})


def _without_memory(error: BaseException) -> bool:
    """Whether the system refused memory, in the words of Python or of torch."""
    return isinstance(error, MemoryError) or (type(error) is RuntimeError and "can't allocate memory" in str(error))


def collect(
    stage: Stage, job: tuple[Mapping[str, str], str, Path, str], made: Path, home: Path, tell: Progress
) -> None:
    """The harness's part of a stage: no plugin runs in this process."""
    inputs, url, folder, key = job
    try:
        stage.collect(Job(inputs, Store(url), folder, key), made)
        ended: dict[str, Any] = {"status": "done"}
    except MissingArtifact as error:
        ended = {"status": "missing", "message": str(error), "key": error.key}
    except StoreError as error:
        ended = {"status": "unusable", "message": str(error)}
    except Exception as error:
        status = "memory" if _without_memory(error) else "failed"
        ended = {"status": status, "message": describe_error(error), "trace": trace_of(error)}
    write_json(home / ENDED, ended)


def fetch(spec: PluginSpec, home: Path, tell: Progress) -> None:
    """Have a plugin fetch what its settings name, so that it is there where there is no network."""
    try:
        spec.create().fetch()
        ended = {"status": "done"}
    except BaseException as error:
        status = "memory" if _without_memory(error) else "failed"
        ended = {"status": status, "message": describe_error(error), "trace": trace_of(error)}
    write_json(home / ENDED, ended)


def seed_globals(stage: Stage | Together, threads: int) -> None:
    """Put the global generators, from which libraries that plugins use may draw, where the stage has them begin."""
    given = stage.global_seed()
    if given is None:
        return
    seed = party_seed("globals", given)
    random.seed(seed)
    np.random.seed(seed)
    if torch := sys.modules.get("torch"):  # stages load it beforehand
        torch.manual_seed(seed)
        torch.set_num_threads(threads)


def trace_of(error: BaseException) -> str:
    """The traceback, with files named below their package roots: records are published."""
    try:
        text = "".join(traceback.format_exception(error))
    except Exception:  # an error that cannot be printed
        text = f"{type(error).__name__}\n" + "".join(traceback.format_tb(error.__traceback__))
    roots = sorted(
        {str(Path(entry).absolute()) for entry in sys.path if entry} | {str(Path.cwd())}, key=len, reverse=True
    )
    for root in roots:
        text = text.replace(f"{root}/", "")
    return text.replace(f"{Path.home()}/", "~/")[-_LONGEST:]


_LONGEST = 20_000


def read_ended(home: Path) -> dict[str, Any] | None:
    """What a function wrote to `ENDED`, None where it is not there or no such thing: it may be a lie."""
    path = home / ENDED
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > 2**20:
            return None
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("status"), str) else None
