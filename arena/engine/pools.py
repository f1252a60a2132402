"""Where stages are computed: on this machine, so many at a time, or on a dask cluster."""

from __future__ import annotations

import os
import queue
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil

from arena.engine.apart import Bounds
from arena.engine.pool import Pool
from arena.engine.worker import Result, Task, run_task
from arena.errors import UsageError, describe_error
from arena.isolation.call import Cancel, isolation
from arena.isolation.surroundings import exposed
from arena.store.local import Store
from arena.suites.parts import Limits as SuiteLimits


class HerePool(Pool):
    """One task at a time, while whoever runs the suite waits."""

    slots = 1

    def __init__(self, store: Store, bounds: Bounds, isolated: bool) -> None:
        self._url = store.url
        self._bounds = bounds
        self._isolated = isolated
        self._waiting: list[Task] = []

    def submit(self, task: Task) -> None:
        self._waiting.append(task)

    def finished(self) -> list[tuple[str, Result]]:
        tasks, self._waiting = self._waiting, []
        return [(task.key, self._done(task)) for task in tasks]

    def _done(self, task: Task) -> Result:
        return run_task(task, self._url, self._bounds, isolated=self._isolated)

    def progress(self) -> dict[str, tuple[float, str]]:
        return {}  # nobody looks while a stage runs

    def close(self) -> None:
        self._waiting = []


class LocalPool(Pool):
    """Tasks side by side, each watched over by a thread of this process."""

    def __init__(self, store: Store, bounds: Bounds, slots: int) -> None:
        self.slots = slots
        self._url = store.url
        self._bounds = bounds
        self._threads = ThreadPoolExecutor(slots, thread_name_prefix="stage")
        self._ended: queue.SimpleQueue[tuple[str, Result]] = queue.SimpleQueue()
        self._cancels: dict[str, Cancel] = {}
        self._reported: dict[str, tuple[float, str]] = {}

    def submit(self, task: Task) -> None:
        self._cancels[task.key] = Cancel()
        self._threads.submit(self._follow, task, self._cancels[task.key])

    def _follow(self, task: Task, cancel: Cancel) -> None:
        try:
            result = run_task(task, self._url, self._bounds, partial(self._hear, task.key), cancel)
        except BaseException as error:
            result = Result("failed", message=describe_error(error))
        self._ended.put((task.key, result))

    def _hear(self, key: str, done: float, note: str) -> None:
        self._reported[key] = done, note

    def finished(self) -> list[tuple[str, Result]]:
        found = []
        try:
            found.append(self._ended.get(timeout=0.5))
            while True:
                found.append(self._ended.get_nowait())
        except queue.Empty:
            pass
        for key, _ in found:
            self._cancels.pop(key, None)
            self._reported.pop(key, None)
        return found

    def progress(self) -> dict[str, tuple[float, str]]:
        return dict(self._reported)

    def close(self) -> None:
        for cancel in list(self._cancels.values()):
            cancel()
        self._threads.shutdown(wait=True, cancel_futures=True)


def open_pool(store: Store, scheduler: str, workers: int | None, limits: SuiteLimits, isolated: bool = True) -> Pool:
    """The pool that `scheduler` names: ``processes`` (local), ``sync`` (one at a time), or the address of a dask
    scheduler. `workers` is how many local stages run at a time, by default one a core.

    Raises `UsageError` for a scheduler that does not exist, does not answer or is open to others (see
    `arena.engine.cluster.connect`), and for a store that plugins could read.
    """
    slots = workers or os.cpu_count() or 1
    if isolated and isolation() == "landlock" and (around := exposed(store.folder)) is not None:
        raise UsageError(
            f"store {store.folder}: it lies in {around}, which plugins may read; name another (--store, ARENA_STORE)"
        )
    if scheduler == "sync" or not isolated:
        return HerePool(store, bounds_of(limits, 1), isolated)
    if scheduler == "processes":
        return LocalPool(store, bounds_of(limits, slots), slots)
    if "://" not in scheduler:
        raise UsageError(
            f"scheduler {scheduler!r}: name 'processes', 'sync' or a dask scheduler such as tls://host:8786"
        )
    from arena.engine.cluster import DaskPool, connect

    return DaskPool(store, connect(scheduler), bounds_of(limits, None))


def bounds_of(limits: SuiteLimits, slots: int | None) -> Bounds:
    """What a suite lets a stage take where so many run at a time; where nobody knows how many, memory is as it is."""
    memory = None if limits.stage_memory_gb is None else round(limits.stage_memory_gb * 1e9)
    if memory is None and slots is not None:
        memory = round(0.9 * memory_here() / slots)
    return Bounds(limits.stage_minutes * 60, memory, round(limits.stage_output_gb * 1e9))


def memory_here() -> int:
    """Bytes of memory that this machine, or the container around, has."""
    own = int(psutil.virtual_memory().total)
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            return min(own, int(Path(path).read_text(encoding="ascii")))
    return own
