"""Stages on a cluster of dask.distributed: who may reach it, what its workers have, and what a stage needs of them. How
to start one is in CLUSTER.md."""

from __future__ import annotations

import importlib
import ipaddress
import logging
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

from arena.engine.apart import Bounds, ignore
from arena.engine.job import Progress
from arena.engine.pool import Pool
from arena.engine.stages import Stage
from arena.engine.worker import Result, Task, run_task
from arena.errors import ArenaError, UsageError, describe_error
from arena.plugins.registry import Registry
from arena.plugins.source import engine_digest
from arena.store.local import Store

log = logging.getLogger("arena.run")

T = TypeVar("T")

_TOPIC = "arena-progress"
_EVERY = 0.5
"""Seconds between two reports of a stage."""
_PATIENCE = 10
"""Seconds that a dask scheduler has to answer, and to be there again when it is lost."""

_ENCRYPTED = ("tls", "wss", "inproc")
"""Protocols of dask that nobody without the key can take part in."""
_CA = "distributed.comm.tls.ca-file"
_REQUIRED = "distributed.comm.require-encryption"


def connect(scheduler: str) -> Any:
    """A client of the dask scheduler at that address, with the certificates that dask's own settings name
    (``distributed.comm.tls``).

    Raises `UsageError` where it does not answer, and where others on the network could reach it: on another machine it
    must be ``tls://``, unless ``distributed.comm.require-encryption`` is set to false.
    """
    distributed, config = _distributed(), importlib.import_module("dask.config")
    scheme, host = scheduler.partition("://")[0], _host(scheduler)
    if scheme not in _ENCRYPTED and not _is_loopback(host) and config.get(_REQUIRED, None) is not False:
        raise UsageError(
            f"scheduler {scheduler}: who can connect to it can run code on every worker, and {scheme}:// asks nobody "
            f"for a key: use tls://, with certificates as in arena/engine/CLUSTER.md; on a network that only you can "
            "reach, say so with DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=False"
        )
    if scheme in _ENCRYPTED[:2] and not config.get(_CA, None):
        raise UsageError(
            f"scheduler {scheduler}: dask knows no certificate to trust ({_CA}): name it, and those of the client, in "
            "dask's settings or in DASK_DISTRIBUTED__COMM__TLS__CA_FILE; arena/engine/CLUSTER.md says how"
        )
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # its connections come and go; what matters is raised
    try:
        return distributed.Client(scheduler, timeout=_PATIENCE)
    except (OSError, ValueError, TypeError) as error:
        remedy = "start it with `dask scheduler`"
        if scheme in _ENCRYPTED:
            remedy += ", with certificates of the authority that this run trusts"
        raise UsageError(f"scheduler {scheduler!r} does not answer ({error}); {remedy}") from None


def _host(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:  # a bracket that is not closed
        return ""


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def needed(stage: Stage) -> str:
    """The dask worker resource of which a stage takes one: ``GPU`` where a plugin of it is to compute on another torch
    device than the processor (its runtime setting `device`), else ``CPU``."""
    devices = (str(spec.runtime.get("device", "cpu")) for spec in stage.plugins().values())
    return "CPU" if all(device.startswith("cpu") for device in devices) else "GPU"


class _LostError(Exception):
    """The connection to the scheduler broke while something was asked of it, and is there again."""


@dataclass
class _Running:
    task: Task
    future: Any
    attempt: int
    needs: str


class DaskPool(Pool):
    """Tasks on a cluster of dask.distributed, whose workers hand them to processes of their own.

    A worker says with dask's ``--resources`` what it has. A stage that needs a GPU goes to workers that have one, and
    waits while none has; others go to workers that say ``CPU``, where any does, else to all.
    """

    def __init__(self, store: Store, client: Any, bounds: Bounds) -> None:
        self._store = store
        self._client = client
        self._address: str = client.scheduler.address
        self._told: set[str] = set()
        """What the cluster was said to lack, since it last had it."""
        self._bounds = bounds
        self._running: dict[str, _Running] = {}
        self._reported: dict[str, tuple[float, str]] = {}
        self._needs: dict[str, str] = {}
        self._has = Counter[str]()
        """Stages that the workers can compute at a time, by resource; and those that they do."""
        self._taken = Counter[str]()
        client.subscribe_topic(_TOPIC, self._hear)

    def _hear(self, event: tuple[Any, Any]) -> None:
        key, done, note = event[1]
        self._reported[key] = done, note

    @property
    def slots(self) -> int:  # type: ignore[override]  # a cluster grows and shrinks
        """Worker threads there are now, at least one: submitted work waits for a cluster that has none yet."""
        try:
            known = self._answered(lambda: self._client.sync(self._client.scheduler.identity, n_workers=-1))
        except _LostError:
            return 1
        workers = known["workers"].values()
        threads: int = sum(worker["nthreads"] for worker in workers)
        self._has = Counter[str]()
        for worker in workers:
            self._has.update({name: int(amount) for name, amount in worker["resources"].items()})
        if not threads:
            self._lacks("", f"has no worker, the run waits for one: start it with `dask worker {self._address}`")
        else:
            self._told.discard("")
            self._told -= {name for name in self._told if self._has[name]}
            for running in self._running.values():
                self._offers(running.needs, running.task.stage)
        return max(1, threads)

    def has_room(self, stage: Stage) -> bool:
        needs = self._asked(stage)
        if not needs:
            return True
        return self._offers(needs, stage) and self._taken[needs] < self._has[needs]

    def _asked(self, stage: Stage) -> str:
        """The resource that a stage is to be given now, none where any worker will do."""
        if stage.name not in self._needs:
            self._needs[stage.name] = needed(stage)
        needs = self._needs[stage.name]
        return "" if needs == "CPU" and not self._has["CPU"] else needs

    def _offers(self, needs: str, stage: Stage) -> bool:
        """Whether a worker has that resource; says it where none has."""
        if needs and not self._has[needs] and self._told.isdisjoint(("", needs)):
            self._lacks(
                needs,
                f"has no worker with a {needs}, which {stage.kind} {stage.label} needs; such stages wait for one: "
                f"start it with `dask worker {self._address} --resources {needs}=1`",
            )
        return not needs or self._has[needs] > 0

    def _lacks(self, what: str, message: str) -> None:
        if what not in self._told:
            self._told.add(what)
            log.warning("scheduler %s %s", self._address, message)

    def submit(self, task: Task) -> None:
        self._submit(task, 1)

    def _submit(self, task: Task, attempt: int) -> None:
        name = f"{task.stage.kind}-{task.key}-{attempt}-{time.monotonic_ns()}"
        given = task, self._store.url, self._bounds, engine_digest()
        needs = self._asked(task.stage)
        resources = {needs: 1} if needs else None
        send = partial(self._client.submit, _on_worker, *given, key=name, pure=False, resources=resources)
        future = self._answered(send)
        self._running[task.key] = _Running(task, future, attempt, needs)
        self._taken[needs] += 1

    def finished(self) -> list[tuple[str, Result]]:
        if not self._running:  # all that could start waits for a worker that has what it needs
            time.sleep(0.5)
        futures = [running.future for running in self._running.values()]
        with suppress(_LostError):  # nothing ended in time, or all that was running is cancelled, and lost below
            self._answered(lambda: _distributed().wait(futures, timeout=0.5, return_when="FIRST_COMPLETED"))
        ended = [r for r in self._running.values() if r.future.done()]
        results = []
        for running in ended:
            key = running.task.key
            del self._running[key]
            self._taken[running.needs] -= 1
            if (result := self._ended(running)) is not None:
                results.append((key, result))
        return results

    def _ended(self, running: _Running) -> Result | None:
        """What to say of a task that ended; None where it was started again."""
        if running.future.status != "finished":
            return self._lost(running)
        try:
            return self._kept(running, self._answered(running.future.result))
        except _LostError:  # with what the worker had said; what it made is in the store
            return self._lost(running)

    def _kept(self, running: _Running, result: Result) -> Result:
        """What a worker said of a task; that the store is unusable where what it made cannot be seen from here."""
        if result.computed and running.task.key not in self._store:
            return Result(
                "unusable",
                message=f"store {self._store.url}: a worker has put {running.task.stage.label} into it, which is not "
                "there for this machine: name a store that all machines share (arena/engine/CLUSTER.md)",
            )
        return result

    def progress(self) -> dict[str, tuple[float, str]]:
        self._reported = {key: said for key, said in list(self._reported.items()) if key in self._running}
        return self._reported

    def _lost(self, running: _Running) -> Result | None:
        """What to say of a task whose workers died, or that was lost with the connection; None where it was started
        again.

        Raises `ArenaError` where the cluster cannot even begin it: it could not begin any other.
        """
        error = running.future.exception() if running.future.status == "error" else None
        if error is None:
            self._submit(running.task, running.attempt)
            return None
        if not isinstance(error, _distributed().scheduler.KilledWorker):
            stage, said = running.task.stage.label, describe_error(error)
            raise ArenaError(
                f"scheduler {self._address}: the cluster cannot begin {stage} ({said}): install the same packages on "
                "its scheduler and on every worker, and run again"
            )
        if running.attempt == 1:  # it may have been a bystander: a machine lost
            self._submit(running.task, 2)
            return None
        message = "the cluster lost the workers that it was on, twice"
        return Result("failed", message=message, trace=describe_error(error))

    def _answered(self, ask: Callable[[], T]) -> T:
        """What the client finds when it asks the scheduler. Waits for one that was lost meanwhile.

        Raises `_LostError` where it is there again, `ArenaError` where it is gone.
        """
        try:
            return ask()
        except Exception as error:
            self._await_scheduler()
            if isinstance(error, (OSError, _distributed().CancelledError)):
                raise _LostError from error
            raise

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
