"""Stores in a bucket of S3, by the protocol: a server of moto's that keeps objects in memory."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from dask_cluster import Cluster, wait_for
from moto.server import ThreadedMotoServer
from rich.console import Console
from suites import toy_suite

from arena.engine.execute import RunReport, run
from arena.store.local import MissingArtifact, Store, StoreError

KEY = "a" * 64
SECRETS = {"AWS_ACCESS_KEY_ID": "them", "AWS_SECRET_ACCESS_KEY": "of-the-bucket", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadedMotoServer]:
    started = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    started.start()
    host, port = started.get_host_and_port()
    for name, value in {**SECRETS, "AWS_ENDPOINT_URL_S3": f"http://{host}:{port}"}.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    yield started
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    started.stop()


@pytest.fixture
def url(server: ThreadedMotoServer, tmp_path: Path) -> str:
    """A place of its own: moto keeps its buckets as long as this process lives."""
    fsspec.filesystem("s3").makedirs("bucket", exist_ok=True)
    return f"s3://bucket/{tmp_path.name}"


def objects(url: str) -> list[str]:
    files = fsspec.filesystem("s3")
    files.invalidate_cache()
    return [str(path) for path in files.find(url)]


def elsewhere(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> Store:
    """The store as another machine has it, with a mirror of its own."""
    with monkeypatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        return Store(url)


def fill(store: Store) -> None:
    with store.claim(KEY), store.put(KEY, "data", {"size": 1}) as folder:
        (folder / "samples").mkdir()
        (folder / "samples" / "a.txt").write_text("hello", encoding="utf-8")


def test_an_artifact_of_one_machine_is_another_ones(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = elsewhere(url, tmp_path, monkeypatch, "there")  # before: what is not there yet is not remembered
    assert KEY not in there and there.get(KEY) is None
    fill(Store(url))
    assert KEY in there
    path = there.require(KEY)
    assert path.is_relative_to(tmp_path / "there")
    assert (path / "samples" / "a.txt").read_text(encoding="utf-8") == "hello"


def test_what_is_damaged_in_the_bucket_is_computed_anew(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(Store(url))
    (name,) = (name for name in objects(url) if name.endswith("a.txt"))
    fsspec.filesystem("s3").pipe_file(name, b"hellp")
    there = elsewhere(url, tmp_path, monkeypatch, "there")
    with pytest.raises(MissingArtifact):
        there.require(KEY)
    fill(there)
    assert elsewhere(url, tmp_path, monkeypatch, "third").require(KEY).is_dir()


def test_a_server_that_is_gone_is_one_paragraph(url: str, server: ThreadedMotoServer) -> None:
    store = Store(url)
    server.stop()
    with pytest.raises(StoreError, match=r"^store s3://bucket/.*: it does not answer as it should .* run again"):
        fill(store)


def go(tmp_path: Path, store: str, name: str, scheduler: str = "processes") -> RunReport:
    return run(
        toy_suite(),
        store=store,
        results=tmp_path / f"{name}.jsonl",
        console=Console(file=io.StringIO()),
        scheduler=scheduler,
        workers=2,
    )


def essence(report: RunReport) -> dict[str, Any]:
    return {r.cell: r.model_dump(exclude={"cost", "created", "environment"}) for r in report.records}


def test_workers_with_mirrors_of_their_own_share_a_bucket(
    url: str, toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster(tmp_path)
    try:
        logs = [tmp_path / f"{name}.log" for name in ("one", "two")]
        for log in logs:
            cluster.work(threads=1, XDG_CACHE_HOME=str(log.with_suffix("")), TOY_LOG=str(log))
        wait_for(lambda: (tmp_path / "worker.log").read_text().count("Registered to") == 2, lambda: False)
        there = go(tmp_path, url, "there", cluster.address)
    finally:
        cluster.stop()
    assert not there.failed and len(there.records) == 8
    computed = [log.read_text(encoding="utf-8").split("\n") for log in logs]
    assert all(computed) and len(set().union(*computed)) == sum(map(len, computed)) - 1  # none twice
    here = go(tmp_path, str(tmp_path / "store"), "here")
    assert essence(there) == essence(here) and sorted(there.computed) == sorted(here.computed)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a new machine"))
    assert go(tmp_path, url, "again").computed == ()


def test_a_stage_has_no_secret_of_the_store(url: str, toys: Path, tmp_path: Path) -> None:
    report = go(tmp_path, url, "here")
    assert not report.failed
    kept = json.dumps([r.model_dump(mode="json") for r in report.records])
    assert not any(secret in kept for secret in SECRETS.values() if secret != "us-east-1")
