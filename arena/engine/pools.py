"""Where stages are computed: on this machine, so many at a time, or on a dask cluster."""

from __future__ import annotations

import importlib
import logging
import os
import queue
import socket
import threading
import time
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from arena.engine.apart import Bounds, ignore
from arena.engine.job import Progress
from arena.engine.worker import Result, Task, run_task
from arena.errors import ArenaError, UsageError, describe_error
from arena.isolation.call import Cancel, isolation
from arena.isolation.surroundings import exposed
from arena.plugins.registry import Registry
from arena.plugins.source import engine_digest
from arena.store.local import Store
from arena.suites.schema import Limits as SuiteLimits

log = logging.getLogger("arena.run")

_TOPIC = "arena-progress"
_EVERY = 0.5
"""Seconds between two reports of a stage."""
_PATIENCE = 10
"""Seconds that a dask scheduler has to answer, and to be there again when it is lost."""


class Pool(ABC):
    """Computes up to `slots` tasks at a time."""

    slots: int

    @abstractmethod
    def submit(self, task: Task) -> None:
        """Start a task."""

    @abstractmethod
    def finished(self) -> list[tuple[str, Result]]:
        """Keys and results of tasks that ended since the last call; waits up to half a second for one."""

    @abstractmethod
    def progress(self) -> dict[str, tuple[float, str]]:
        """What running plugins last reported, by the task's key: the share done and a note."""

    @abstractmethod
    def close(self) -> None:
        """Stop, ending what is running."""


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


@dataclass
class _Running:
    task: Task
    future: Any
    attempt: int


class DaskPool(Pool):
    """Tasks on a cluster of dask.distributed, whose workers hand them to processes of their own."""

    def __init__(self, store: Store, client: Any, bounds: Bounds) -> None:
        self._store = store
        self._client = client
        self._address: str = client.scheduler.address
        self._told = False
        self._bounds = bounds
        self._running: dict[str, _Running] = {}
        self._reported: dict[str, tuple[float, str]] = {}
        client.subscribe_topic(_TOPIC, self._hear)

    def _hear(self, event: tuple[Any, Any]) -> None:
        key, done, note = event[1]
        self._reported[key] = done, note

    @property
    def slots(self) -> int:  # type: ignore[override]  # a cluster grows and shrinks
        """Worker threads there are now, at least one: submitted work waits for a cluster that has none yet."""
        try:
            threads: dict[str, int] = self._client.nthreads()
        except Exception as error:
            self._await_scheduler()
            if not isinstance(error, OSError):
                raise
            return 1
        if not threads and not self._told:
            self._told = True
            log.warning(
                "scheduler %s has no worker, the run waits for one: start it with `dask worker %s`",
                *(self._address, self._address),
            )
        return max(1, sum(threads.values()))

    def submit(self, task: Task) -> None:
        self._submit(task, 1)

    def _submit(self, task: Task, attempt: int) -> None:
        name = f"{task.stage.kind}-{task.key}-{attempt}-{time.monotonic_ns()}"
        given = task, self._store.url, self._bounds, engine_digest()
        future = self._client.submit(_on_worker, *given, key=name, pure=False)
        self._running[task.key] = _Running(task, future, attempt)

    def finished(self) -> list[tuple[str, Result]]:
        try:
            _distributed().wait([r.future for r in self._running.values()], timeout=0.5, return_when="FIRST_COMPLETED")
        except _distributed().TimeoutError:
            return []
        except _distributed().CancelledError:  # of what was running when the scheduler was lost, all are
            self._await_scheduler()
        ended = [r for r in self._running.values() if r.future.done()]
        results = []
        for running in ended:
            key = running.task.key
            del self._running[key]
            result = running.future.result() if running.future.status == "finished" else self._lost(running)
            if result is not None:
                results.append((key, result))
        return results

    def progress(self) -> dict[str, tuple[float, str]]:
        self._reported = {key: said for key, said in list(self._reported.items()) if key in self._running}
        return self._reported

    def _lost(self, running: _Running) -> Result | None:
        """What to say of a task whose workers died; None where it was started again.

        Raises `ArenaError` where the cluster cannot even begin it: it could not begin any other.
        """
        error = running.future.exception() if running.future.status == "error" else None
        if error is not None and not isinstance(error, _distributed().scheduler.KilledWorker):
            stage, said = running.task.stage.label, describe_error(error)
            raise ArenaError(
                f"scheduler {self._address}: the cluster cannot begin {stage} ({said}): install the same packages on "
                "its scheduler and on every worker, and run again"
            )
        if running.attempt == 1:  # it may have been a bystander: a machine lost
            self._submit(running.task, 2)
            return None
        message = "the cluster lost the workers that it was on, twice"
        trace = "cancelled by the cluster" if error is None else describe_error(error)
        return Result("failed", message=message, trace=trace)

    def _await_scheduler(self) -> None:
        """Wait while the client looks for a scheduler that it lost. Raises `ArenaError` where it is gone."""
        while self._client.status == "connecting":
            time.sleep(0.1)
        if self._client.status != "running":
            raise ArenaError(
                f"scheduler {self._address}: the connection to it is lost, and with it what was running; finished "
                f"stages are kept in {self._store.url}; start scheduler and workers again, and run again"
            )

    def close(self) -> None:
        # A worker that is just being restarted answers late, a scheduler that is gone never; all results are in.
        with suppress(OSError, _distributed().TimeoutError):
            if self._running and self._client.status == "running":
                self._client.cancel([r.future for r in self._running.values()], force=True)
            self._running = {}
            self._client.close(timeout=2)


_CHECKING = threading.Lock()
"""CPython 3.11 fails when two threads build syntax trees at a time (python/cpython issue 106905); those that read the
source of plugins later find that of the engine read."""


def _on_worker(task: Task, url: str, bounds: Bounds, engine: str) -> Result:
    with _CHECKING:
        problem = _differing(task, engine)
    if problem is not None:
        message = f"worker on {socket.gethostname()}: {problem}; install the same packages on every worker"
        return Result("unusable", message=message)
    return run_task(task, url, bounds, _reporting(task.key))


def _differing(task: Task, engine: str) -> str | None:
    """What a worker lacks that whoever runs the suite has, None where it has all: no stage is to blame for it."""
    if engine_digest() != engine:
        return "its arena is another version than that of the run"
    registry = Registry()
    try:
        for spec in task.stage.plugins().values():
            registry.get(spec.kind, spec.id)
    except UsageError as error:
        return str(error)
    return None


def _reporting(key: str) -> Progress:
    """Sends what a plugin reports to whoever runs the suite, now and then; nothing outside a dask worker."""
    try:
        worker = _distributed().get_worker()
    except ValueError:
        return ignore
    last = 0.0

    def tell(done: float, note: str) -> None:
        nonlocal last
        if (now := time.monotonic()) - last >= _EVERY or done >= 1:
            last = now
            worker.log_event(_TOPIC, (key, float(done), str(note)[:200]))

    return tell


def _distributed() -> Any:
    """dask.distributed, which has no types and takes a second to import."""
    return importlib.import_module("distributed")


def open_pool(store: Store, scheduler: str, workers: int | None, limits: SuiteLimits, isolated: bool = True) -> Pool:
    """The pool that `scheduler` names: ``processes`` (local), ``sync`` (one at a time), or the address of a dask
    scheduler. `workers` is how many local stages run at a time, by default one a core.

    Raises `UsageError` for a scheduler that does not exist or does not answer, and for a store that plugins could read.
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
            f"scheduler {scheduler!r}: name 'processes', 'sync' or a dask scheduler such as tcp://host:8786"
        )
    distributed = _distributed()
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # its connections come and go; what matters is raised
    try:
        client = distributed.Client(scheduler, timeout=_PATIENCE)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"scheduler {scheduler!r} does not answer ({error}); start it with `dask scheduler`") from None
    return DaskPool(store, client, bounds_of(limits, None))


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
