"""Runs on a dask cluster whose scheduler and workers are processes of their own."""

from __future__ import annotations

import io
import logging
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from dask_cluster import Cluster, wait_for
from rich.console import Console
from suites import toy_suite

import arena.engine.cluster
from arena.engine.apart import Bounds
from arena.engine.cluster import DaskPool, _differing, _on_worker
from arena.engine.execute import RunReport, run
from arena.engine.plan import plan
from arena.engine.worker import Result, Task
from arena.errors import ArenaError, UsageError
from arena.plugins.registry import Registry
from arena.plugins.source import engine_digest
from arena.store.local import Store

CLUSTERS = Path(arena.engine.__path__[0]) / "clusters"
SMALL = {"attacks": ["none"], "seeds": [0]}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    clusters: list[Cluster] = []

    def started(scheme: str = "tcp", **environment: str) -> Cluster:
        clusters.append(Cluster(tmp_path, scheme, **environment))
        return clusters[-1]

    yield started
    for cluster in clusters:
        cluster.stop()


def go(tmp_path: Path, scheduler: str, name: str = "r", store: str = "store", **changes: Any) -> RunReport:
    return run(
        toy_suite(**{**SMALL, **changes}),
        store=tmp_path / store,
        results=tmp_path / f"{name}.jsonl",
        console=Console(file=io.StringIO()),
        scheduler=scheduler,
    )


def essence(report: RunReport) -> dict[str, Any]:
    return {r.cell: r.model_dump(exclude={"cost", "created"}) for r in report.records}


def beside(call: Callable[..., RunReport], *arguments: Any, **named: Any) -> Future[RunReport]:
    """The call in a thread."""
    threads = ThreadPoolExecutor(1)
    future = threads.submit(call, *arguments, **named)
    threads.shutdown(wait=False)
    return future


@pytest.fixture
def crafting(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Is set once a run has heard from `toy-talking`, which takes two seconds, that it is at work."""
    heard, hear = threading.Event(), DaskPool._hear

    def told(self: DaskPool, event: tuple[Any, Any]) -> None:
        hear(self, event)
        if any(note.startswith("round") for _, note in self._reported.values()):
            heard.set()

    monkeypatch.setattr(DaskPool, "_hear", told)
    return heard


def test_a_cluster_computes_what_this_machine_does(tmp_path: Path, toys: Path, start: Callable[..., Cluster]) -> None:
    cluster = start()
    cluster.work()
    defenses = ["none", "toy-noise", "toy-raising"]
    there = go(tmp_path, cluster.address, "there", "store-there", defenses=defenses)
    here = go(tmp_path, "processes", "here", "store-here", defenses=defenses)
    (failed,) = there.failed
    assert failed.defense.id == "toy-raising" and failed.failure is not None
    assert failed.failure.error.endswith("ValueError: the toy is broken") and "in perturb" in failed.failure.traceback
    assert len(there.records) == 3 and essence(there) == essence(here)
    assert sorted(there.computed) == sorted(here.computed)
    assert go(tmp_path, cluster.address, "there", "store-there", defenses=defenses).computed == ()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["dies", "leaves"])
def test_a_worker_that_goes_in_the_middle_costs_no_cell_and_another_may_join(
    tmp_path: Path, toys: Path, start: Callable[..., Cluster], crafting: threading.Event, how: signal.Signals
) -> None:
    cluster = start()
    worker = cluster.work()
    report = beside(go, tmp_path, cluster.address, defenses=["none", "toy-talking"])
    wait_for(crafting.is_set, report.done)
    worker.send_signal(how)
    cluster.work()
    assert [r.status for r in report.result(120).records] == ["done", "done"]
    assert not list((tmp_path / "store" / "stages").iterdir())


def test_a_stage_waits_for_a_worker_that_has_what_it_needs(
    tmp_path: Path, toys: Path, start: Callable[..., Cluster], caplog: pytest.LogCaptureFixture
) -> None:
    cluster, logs = start(), {name: tmp_path / f"{name}.log" for name in ("CPU", "GPU")}
    placed = {"id": "toy-placed", "label": "placed", "config": {"device": "cuda:0"}}
    cluster.work(resources="CPU=2", TOY_LOG=str(logs["CPU"]))
    with caplog.at_level(logging.WARNING, "arena.run"):
        report = beside(go, tmp_path, cluster.address, defenses=["none", placed])
        waits = f"scheduler {cluster.address} has no worker with a GPU, which release placed 8/255, seed 0 needs"
        wait_for(lambda: waits in caplog.text, report.done)
        wait_for(lambda: "fine-tuned" in logs["CPU"].read_text(encoding="utf-8"), report.done)  # others go on
    assert f"`dask worker {cluster.address} --resources GPU=1`" in caplog.text
    cluster.work(resources="GPU=1", TOY_LOG=str(logs["GPU"]))
    assert [r.status for r in report.result(120).records] == ["done", "done"]
    cpu, gpu = ([line.split()[0] for line in log.read_text(encoding="utf-8").splitlines()] for log in logs.values())
    assert gpu == ["release"] and cpu.count("release") == 1 and cpu.count("scored") == 2
    assert caplog.text.count("no worker with a GPU") == 1


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """A folder of dask's settings, with the key that CLUSTER.md has one make."""
    document = (CLUSTERS.parent / "CLUSTER.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^ *(openssl req .*\\\n.*)$", document, re.MULTILINE)
    subprocess.run(["bash", "-ec", command], cwd=tmp_path, check=True, capture_output=True)
    settings = (CLUSTERS / "tls.yaml").read_text(encoding="utf-8").replace("arena.", f"{tmp_path}/arena.")
    folder = tmp_path / "dask"
    folder.mkdir()
    (folder / "tls.yaml").write_text(settings, encoding="utf-8")
    return folder


def test_a_cluster_with_a_key_keeps_others_out(
    tmp_path: Path, toys: Path, start: Callable[..., Cluster], certificates: Path
) -> None:
    import dask.config
    from distributed import Client
    from distributed.security import Security

    assert (tmp_path / "arena.key").stat().st_mode & 0o077 == 0
    cluster = start("tls", DASK_CONFIG=str(certificates))
    cluster.work()
    with pytest.raises(UsageError, match=r"knows no certificate to trust .*ca-file"):
        go(tmp_path, cluster.address)
    settings = yaml.safe_load((certificates / "tls.yaml").read_text(encoding="utf-8"))
    with dask.config.set(dask.config.merge(dask.config.config, settings)):
        assert [r.status for r in go(tmp_path, cluster.address).records] == ["done", "done"]
    stranger = Security.temporary()
    for security, address in ((stranger, cluster.address), (None, cluster.address.replace("tls", "tcp"))):
        with pytest.raises(OSError):
            Client(address, security=security, timeout=3)


@pytest.mark.parametrize("address", ["tcp://192.0.2.1:8786", "tcp://cluster:8786", "ws://192.0.2.1:8786", "ucx://h:1"])
def test_an_open_scheduler_elsewhere_is_refused_unless_it_is_said(
    tmp_path: Path, toys: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    import dask.config

    with pytest.raises(UsageError, match=r"who can connect to it can run code .* tls://.*REQUIRE_ENCRYPTION=False$"):
        go(tmp_path, address)
    monkeypatch.setattr(arena.engine.cluster, "_PATIENCE", 0.5)
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION", "False")
    said = dask.config.merge(dask.config.config, dask.config.collect_env())
    with dask.config.set(said), pytest.raises(UsageError, match="does not answer"):
        go(tmp_path, address)


def test_a_scheduler_that_dies_ends_the_run_and_a_second_one_completes(
    tmp_path: Path,
    toys: Path,
    start: Callable[..., Cluster],
    crafting: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(arena.engine.cluster, "_PATIENCE", 5)
    cluster = start()
    cluster.work()
    report = beside(go, tmp_path, cluster.address, defenses=["none", "toy-talking"])
    wait_for(crafting.is_set, report.done)
    cluster.scheduler.kill()
    with pytest.raises(ArenaError, match=r"scheduler tcp://.* lost, .* kept in .*store; start .* run again"):
        report.result(60)
    again = go(tmp_path, "processes", defenses=["none", "toy-talking"])
    assert [r.status for r in again.records] == ["done", "done"]
    assert not any(again.plan.stages[name].kind == "data" for name in again.computed)


def test_a_cluster_without_the_plugins_ends_the_run_and_blames_no_cell(
    tmp_path: Path, toys: Path, start: Callable[..., Cluster], caplog: pytest.LogCaptureFixture
) -> None:
    cluster = start()
    with caplog.at_level(logging.WARNING, "arena.run"):
        report = beside(go, tmp_path, cluster.address)
        waits = f"scheduler {cluster.address} has no worker, the run waits for one"
        wait_for(lambda: waits in caplog.text, report.done)
    cluster.work(toys=False)
    with pytest.raises(ArenaError, match=r"worker on .*: no dataset is called 'toy-data'.* install the same packages"):
        report.result(60)
    assert not (tmp_path / "r.jsonl").exists()


def test_no_scheduler_is_one_clear_paragraph(tmp_path: Path, toys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arena.engine.cluster, "_PATIENCE", 1)
    with pytest.raises(UsageError, match=r"^scheduler 'tcp://127.0.0.1:1' does not answer \(.*`dask scheduler`$"):
        go(tmp_path, "tcp://127.0.0.1:1")


@pytest.fixture
def task(tmp_path: Path, toys: Path) -> Task:
    whole = plan(toy_suite(**SMALL), Registry(), Store(tmp_path / "store"), apart=False)
    return whole.artifacts().task(next(iter(whole.stages.values())))


def test_another_version_on_a_worker_blames_no_cell(tmp_path: Path, task: Task) -> None:
    assert _differing(task, engine_digest()) is None
    result = _on_worker(task, str(tmp_path / "store"), Bounds(), "0" * 64)
    assert result.status == "unusable" and "its arena is another version than that of the run" in result.message


class Broken:
    """A client whose tasks all end that way, by default with the error; counts them."""

    scheduler = SimpleNamespace(address="tcp://there:8786")
    status = "running"

    def __init__(self, error: Exception, ended: str = "error") -> None:
        self.error, self.ended, self.submitted = error, ended, 0

    def subscribe_topic(self, *_: object) -> None: ...

    def submit(self, *_: object, **__: object) -> SimpleNamespace:
        self.submitted += 1
        return SimpleNamespace(status=self.ended, done=lambda: True, exception=lambda: self.error)


def test_a_task_that_kills_workers_fails_and_one_that_cannot_begin_ends_the_run(
    tmp_path: Path, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    import distributed
    from distributed.scheduler import KilledWorker

    monkeypatch.setattr(distributed, "wait", lambda *_, **__: None)
    store = Store(tmp_path / "store")
    client = Broken(KilledWorker("release", SimpleNamespace(address="tcp://w:1"), 3))
    pool = DaskPool(store, client, Bounds())
    pool.submit(task)
    assert pool.finished() == [] and client.submitted == 2  # it may have been a bystander
    ((key, result),) = pool.finished()
    assert (key, result.status, client.submitted) == (task.key, "failed", 2) and "lost the workers" in result.message
    assert "KilledWorker: Attempted to run" in result.trace

    pool = DaskPool(store, client := Broken(ModuleNotFoundError("No module named 'arena'")), Bounds())
    pool.submit(task)
    with pytest.raises(ArenaError, match=r"tcp://there:8786: the cluster cannot begin .*'arena'.* install the same"):
        pool.finished()
    assert client.submitted == 1


class Breaking:
    """A client whose connection breaks while the result of its first task is on the way; where `back`, it is there
    again, as if nothing were, and the second result comes."""

    scheduler = SimpleNamespace(address="tcp://there:8786")

    def __init__(self, back: bool) -> None:
        self.back, self.status, self.results = back, "running", 0

    def subscribe_topic(self, *_: object) -> None: ...

    def submit(self, *_: object, **__: object) -> SimpleNamespace:
        return SimpleNamespace(status="finished", done=lambda: True, result=self.result)

    def result(self) -> Result:
        self.results += 1
        if self.results > 1:
            return Result("failed", message="said by the plugin")
        self.status = "running" if self.back else "closed"
        raise OSError("Stream is closed")


def test_a_connection_that_breaks_under_a_result_loses_the_result_alone(
    tmp_path: Path, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    import distributed

    monkeypatch.setattr(distributed, "wait", lambda *_, **__: None)
    pool = DaskPool(Store(tmp_path / "store"), Breaking(back=True), Bounds())
    pool.submit(task)
    assert pool.finished() == []
    assert [(key, result.message) for key, result in pool.finished()] == [(task.key, "said by the plugin")]

    pool = DaskPool(Store(tmp_path / "store"), Breaking(back=False), Bounds())
    pool.submit(task)
    with pytest.raises(ArenaError, match=r"tcp://there:8786: the connection to it is lost, .* run again"):
        pool.finished()


def test_a_task_whose_connection_breaks_is_never_failed_for_it(
    tmp_path: Path, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    import distributed

    def lost(*_: object, **__: object) -> None:
        raise distributed.CancelledError("scheduler-connection-lost")

    monkeypatch.setattr(distributed, "wait", lost)
    client = Broken(Exception(), ended="cancelled")
    pool = DaskPool(Store(tmp_path / "store"), client, Bounds())
    pool.submit(task)
    assert [pool.finished() for _ in range(3)] == [[], [], []] and client.submitted == 4
