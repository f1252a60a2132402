"""Where stages are computed: in this process, in local processes or threads, or on a dask cluster.

Processes and clusters give each stage a process that can be ended: one that hangs or eats all memory costs itself only.
"""

from __future__ import annotations

import importlib
import logging
import os
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from arena.engine.job import Progress
from arena.engine.worker import Result, Task, ignore, overrun_file, run_task
from arena.errors import UsageError
from arena.store.local import Store

_DASK = {
    "distributed.scheduler.allowed-failures": 0,
    # A worker that pauses or spills near its memory limit would stand still; one that is ended costs one stage.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.admin.low-level-log-length": 0,
    # dask has workers hand freed memory back at once; training frees and takes the same pages all the time.
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 2**30,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 2**25,
}


_TOPIC = "arena-progress"
_EVERY = 0.5
"""Seconds between two reports of a stage."""


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
    """One task at a time in this process; time limits cannot be enforced."""

    slots = 1

    def __init__(self, store: Store) -> None:
        self._url = store.url
        self._waiting: list[Task] = []

    def submit(self, task: Task) -> None:
        self._waiting.append(task)

    def finished(self) -> list[tuple[str, Result]]:
        tasks, self._waiting = self._waiting, []
        return [(task.key, run_task(task, self._url)) for task in tasks]

    def progress(self) -> dict[str, tuple[float, str]]:
        return {}  # nobody looks while a stage runs

    def close(self) -> None:
        self._waiting = []


@dataclass
class _Running:
    task: Task
    future: Any
    since: float
    attempt: int


class DaskPool(Pool):
    """Tasks on dask.distributed; `limit` in seconds, None where they share a process."""

    def __init__(self, store: Store, client: Any, cluster: Any, limit: float | None, crowded: bool = False) -> None:
        self._store = store
        self._client = client
        self._cluster = cluster
        self._limit = limit
        self._crowded = crowded
        self._running: dict[str, _Running] = {}
        self._reported: dict[str, tuple[float, str]] = {}
        client.subscribe_topic(_TOPIC, self._hear)

    def _hear(self, event: tuple[Any, Any]) -> None:
        key, done, note = event[1]
        self._reported[key] = done, note

    @property
    def slots(self) -> int:  # type: ignore[override]  # a cluster grows and shrinks
        """Worker threads there are now, at least one: submitted work waits for a cluster that has none yet."""
        threads: dict[str, int] = self._client.nthreads()
        return max(1, sum(threads.values()))

    def submit(self, task: Task) -> None:
        self._submit(task, 1)

    def _submit(self, task: Task, attempt: int) -> None:
        name = f"{task.stage.kind}-{task.key}-{attempt}-{time.monotonic_ns()}"
        future = self._client.submit(
            _on_worker, task, self._store.url, self._limit, self._crowded, key=name, pure=False
        )
        self._running[task.key] = _Running(task, future, time.monotonic(), attempt)

    def finished(self) -> list[tuple[str, Result]]:
        try:
            _distributed().wait([r.future for r in self._running.values()], timeout=0.5, return_when="FIRST_COMPLETED")
        except _distributed().TimeoutError:
            return []
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
        """What to say of a task whose process died; None where it was started again."""
        stack = overrun_file(self._store, running.task.key)
        here = stack.exists()  # else the worker has another file system, and the clock must do
        trace = stack.read_text(encoding="utf-8", errors="replace") if here else ""
        stack.unlink(missing_ok=True)
        late = bool(trace) if here else time.monotonic() - running.since >= (self._limit or float("inf"))
        if late and self._limit is not None:
            minutes = f"{self._limit / 60:.3g}"
            message = (
                f"it ran past its time limit of {minutes} minutes (limits.stage_minutes of the suite) and was ended"
            )
            return Result("failed", message=message, trace=trace)
        if running.attempt == 1:  # it may have been a bystander: a machine lost, or another stage's memory
            self._submit(running.task, 2)
            return None
        error = running.future.exception() if running.future.status == "error" else "cancelled by the cluster"
        message = "its process died twice, most likely out of memory; give it fewer samples or the workers more memory"
        return Result("failed", message=message, trace=f"{type(error).__name__}: {error}")

    def close(self) -> None:
        if self._running:
            self._client.cancel([r.future for r in self._running.values()], force=True)
            self._running = {}
        # A worker that is just being restarted answers late; it dies with this process, and all results are in.
        with suppress(TimeoutError, _distributed().TimeoutError):
            self._client.close(timeout=2)
        if self._cluster is not None:
            with suppress(TimeoutError, _distributed().TimeoutError):
                self._cluster.close(timeout=10)


def _on_worker(task: Task, url: str, limit: float | None, crowded: bool) -> Result:
    return run_task(task, url, limit, crowded, _reporting(task.key))


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


def open_pool(store: Store, scheduler: str, workers: int | None, limit: float) -> Pool:
    """The pool that `scheduler` names: ``processes``, ``threads``, ``sync``, or the address of a dask scheduler.

    `workers` is the number of local processes or threads: by default a process a core, or one thread, since threads
    share torch's global random state. `limit` in seconds is a stage's time; threads and ``sync`` cannot enforce it.
    """
    if scheduler == "sync":
        return HerePool(store)
    if scheduler not in ("processes", "threads") and "://" not in scheduler:
        raise UsageError(
            f"scheduler {scheduler!r}: name 'processes', 'threads', 'sync' or a dask scheduler such as tcp://host:8786"
        )
    import dask

    dask.config.set(_DASK)
    distributed = _distributed()
    logging.getLogger("distributed").setLevel(logging.ERROR)  # its connections come and go, which is no news
    if "://" in scheduler:
        try:
            client = distributed.Client(scheduler, timeout=10)
        except OSError as error:
            raise UsageError(
                f"scheduler {scheduler!r} does not answer ({error}); start it with `dask scheduler`"
            ) from None
        return DaskPool(store, client, None, limit)
    processes = scheduler == "processes"
    cluster = distributed.LocalCluster(
        n_workers=(workers or os.cpu_count() or 1) if processes else 1,
        threads_per_worker=1 if processes else workers or 1,
        processes=processes,
        dashboard_address="127.0.0.1:0",
        silence_logs=50,
    )
    client = distributed.Client(cluster)
    return DaskPool(store, client, cluster, limit if processes else None, not processes and (workers or 1) > 1)
