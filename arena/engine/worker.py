"""Computes one stage from the store, in a worker."""

from __future__ import annotations

import faulthandler
import random
import sys
import tempfile
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from arena.engine.job import Job, Progress, party_seed
from arena.engine.stages import Stage
from arena.environment import quiet_libraries, stage_environment
from arena.errors import ArenaError, ChangedSource
from arena.store.local import MissingArtifact, Store, StoreError

THREADS = 1
"""Torch threads of a stage: parallel work is stages side by side, and sums of floats depend on the thread count."""


@dataclass(frozen=True)
class Task:
    """A stage that can be computed: `key` is that of its artifact, `inputs` are keys of artifacts by its fields."""

    stage: Stage
    key: str
    inputs: Mapping[str, str]


@dataclass(frozen=True)
class Result:
    """How a stage ended: done, failed by itself, an input gone, or the store unusable. Plain: it crosses processes."""

    status: Literal["done", "failed", "missing", "unusable"]
    computed: bool = False
    message: str = ""
    trace: str = ""
    key: str = ""


def ignore(done: float, note: str) -> None:
    """Progress that nobody asked for."""


def run_task(
    task: Task, url: str, limit: float | None = None, crowded: bool = False, progress: Progress = ignore
) -> Result:
    """Compute a task's artifact into the store at `url` unless it is there.

    With a `limit` in seconds this process is the stage's own: if it is still at it then, it is ended, whatever it is
    doing, and leaves its stack in `overrun_file`. `crowded`: other stages compute in this process at the same time.
    """
    quiet_libraries()
    try:
        store = Store(url)
        with store.claim(task.key):
            if store.get(task.key) is not None:
                return Result("done")
            _compute(task, store, limit, crowded, progress)
        return Result("done", computed=True)
    except MissingArtifact as error:
        return Result("missing", message=str(error), key=error.key)
    except (StoreError, ChangedSource) as error:
        return Result("unusable", message=str(error))
    except (Exception, SystemExit) as error:
        return Result("failed", message=describe_error(error), trace=_trace(error))


def follow_task(task: Task, url: str) -> None:
    """The part of another process in a stage that several compute together: the same work, and nothing of it kept."""
    quiet_libraries()
    _seed_globals(task.stage)
    with tempfile.TemporaryDirectory(prefix="arena-follow-") as folder:
        task.stage.compute(Job(task.inputs, Store(url), Path(folder), task.key, ignore))


def overrun_file(store: Store, key: str) -> Path:
    """Where a stage past its limit leaves its stack."""
    return store.folder / "overruns" / f"{key}.txt"


def _compute(task: Task, store: Store, limit: float | None, crowded: bool, progress: Progress) -> None:
    stage = task.stage
    _seed_globals(stage)
    stack = overrun_file(store, task.key)
    stack.parent.mkdir(parents=True, exist_ok=True)
    with stack.open("w", encoding="utf-8") as file:
        if limit is not None:  # C code: it fires even while a plugin holds the interpreter lock
            faulthandler.dump_traceback_later(limit, exit=True, file=file)
        try:
            environment = stage_environment(THREADS, crowded)
            with store.put(task.key, stage.kind, stage.describe(), environment) as folder:
                stage.compute(Job(task.inputs, store, folder, task.key, progress))
        finally:
            if limit is not None:
                faulthandler.cancel_dump_traceback_later()
    stack.unlink(missing_ok=True)
    store.clear_workspace(task.key)


def _seed_globals(stage: Stage) -> None:
    given = stage.global_seed()
    if given is None:
        return
    import torch

    seed = party_seed("globals", given)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(THREADS)


def describe_error(error: BaseException) -> str:
    """``ValueError: text``, without a type for the arena's own paragraphs."""
    return str(error) if isinstance(error, ArenaError) else f"{type(error).__name__}: {error}"


def _trace(error: BaseException) -> str:
    """The traceback, with files named below their package roots: records are published."""
    text = "".join(traceback.format_exception(error))
    roots = sorted(
        {str(Path(entry).absolute()) for entry in sys.path if entry} | {str(Path.cwd())}, key=len, reverse=True
    )
    for root in roots:
        text = text.replace(f"{root}/", "")
    return text.replace(f"{Path.home()}/", "~/")
