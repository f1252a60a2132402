"""Artifacts: atomic, checked, shared, and what happens when the disk or another version gets in the way."""

from __future__ import annotations

import errno
import json
import logging
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from arena.plugins.identity import digest_of
from arena.store.local import MissingArtifact, Store, StoreError, default_root

DOCUMENT = {"kind": "data", "size": 2, "inputs": {}}
KEY = digest_of(DOCUMENT)


def fill(store: Store, key: str = KEY, text: str = "hello") -> Path:
    with store.put(key, "data", DOCUMENT, {"threads": 1}) as folder:
        (folder / "sub").mkdir()
        (folder / "a.txt").write_text(text, encoding="utf-8")
        (folder / "sub" / "b.txt").write_text("b", encoding="utf-8")
    path = store.get(key)
    assert path is not None
    return path


@pytest.fixture(params=["folder", "remote"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "store") if request.param == "folder" else f"memory://{tmp_path.name}-{time.time_ns()}"


def test_put_then_get(root: str) -> None:
    store = Store(root)
    assert store.get(KEY) is None and KEY not in store
    path = fill(store)
    assert KEY in store
    assert (path / "sub" / "b.txt").read_text(encoding="utf-8") == "b"
    manifest = store.manifest(KEY)
    assert manifest is not None
    assert (manifest.kind, manifest.document, set(manifest.files)) == ("data", DOCUMENT, {"a.txt", "sub/b.txt"})
    assert manifest.seconds >= 0 and manifest.peak_memory_mb > 1
    assert store.require(KEY) == path


def test_digest_is_of_contents_alone(tmp_path: Path) -> None:
    stores = [Store(tmp_path / name) for name in "abc"]
    for store, text in zip(stores, ["same", "same", "other"], strict=True):
        fill(store, text=text)
    first, second, third = (store.manifest(KEY) for store in stores)
    assert first is not None and second is not None and third is not None
    assert first.digest == second.digest != third.digest


def test_failed_block_leaves_nothing(root: str) -> None:
    store = Store(root)
    with pytest.raises(ValueError, match="broken"), store.put(KEY, "data", DOCUMENT) as folder:
        (folder / "a.txt").write_text("half", encoding="utf-8")
        raise ValueError("broken")
    assert KEY not in store and store.get(KEY) is None
    assert not list((store.folder / "partial").iterdir())


def _truncate(path: Path) -> None:
    (path / "a.txt").write_text("h", encoding="utf-8")


def _remove(path: Path) -> None:
    (path / "sub" / "b.txt").unlink()


def _spoil_manifest(path: Path) -> None:
    (path / "manifest.json").write_text("{", encoding="utf-8")


def _remove_manifest(path: Path) -> None:
    (path / "manifest.json").unlink()


def _lead_out(path: Path) -> None:
    manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    manifest["files"]["../x"] = manifest["files"].pop("a.txt")
    (path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


@pytest.mark.parametrize("damage", [_truncate, _remove, _spoil_manifest, _remove_manifest, _lead_out])
def test_corrupt_artifact_is_set_aside_and_can_be_made_anew(
    tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path / "store")
    damage(fill(store))
    with caplog.at_level(logging.WARNING):
        assert store.get(KEY) is None
    assert "is corrupt" in caplog.text and KEY[:12] in caplog.text
    assert list((store.folder / "corrupt").iterdir())
    assert (fill(store) / "a.txt").read_text(encoding="utf-8") == "hello"


def test_changed_bytes_of_the_same_length_are_found_on_reading(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    (fill(store) / "a.txt").write_text("HELLO", encoding="utf-8")
    assert store.get(KEY) is not None
    with pytest.raises(MissingArtifact, match="missing or corrupt"):
        store.require(KEY)
    assert store.get(KEY) is None


def test_remote_artifact_is_fetched_once_by_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"memory://shared-{time.time_ns()}"
    fill(Store(url))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine"))
    there = Store(url)
    assert there.manifest(KEY) is None and KEY in there
    path = there.get(KEY)
    assert path is not None and path.is_relative_to(tmp_path / "another machine") and there.verify(KEY)
    there._remote = None  # the second look does not ask the network
    assert there.get(KEY) == path


def test_interrupted_upload_is_not_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"memory://torn-{time.time_ns()}"
    store = Store(url)
    assert store._remote is not None
    real = store._remote.send
    sent: list[str] = []

    def lose_connection(local: Path, name: str) -> None:
        if len(sent) == 2:
            raise ConnectionError("the network is gone")
        sent.append(name)
        real(local, name)

    monkeypatch.setattr(store._remote, "send", lose_connection)
    with pytest.raises(ConnectionError):
        fill(store)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine"))
    assert len(sent) == 2 and not any(name.endswith("manifest.json") for name in sent)
    assert KEY not in Store(url) and Store(url).get(KEY) is None


def test_other_schema_version_is_refused_with_a_remedy(tmp_path: Path) -> None:
    fill(Store(tmp_path))
    (tmp_path / "store.json").write_text('{"schema_version": 99}', encoding="utf-8")
    with pytest.raises(StoreError, match=r"schema version 99.*reads 1.*--store"):
        Store(tmp_path)


@pytest.mark.parametrize("place", ["block", "manifest"])
def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    store = Store(tmp_path / "store")
    full = OSError(errno.ENOSPC, "No space left on device")
    if place == "manifest":
        fill(store, "f" * 64)

        def fsync(descriptor: int) -> None:
            raise full

        monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StoreError, match=r"store .*disk is full.*--store"), store.put(KEY, "data", DOCUMENT) as folder:
        (folder / "a.txt").write_text("half", encoding="utf-8")
        if place == "block":
            raise full
    assert KEY not in store and not list((store.folder / "partial").iterdir())


def test_a_file_where_the_store_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(StoreError, match="cannot be written"):
        fill(Store(tmp_path / "file"))


def test_claim_keeps_a_second_run_waiting(tmp_path: Path) -> None:
    store, other = Store(tmp_path), Store(tmp_path)
    order: list[str] = []
    held = threading.Event()

    def first() -> None:
        with store.claim(KEY):
            held.set()
            time.sleep(0.5)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    held.wait()
    with other.claim(KEY):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]


def _claim_and_die(root: Path, ready: multiprocessing.synchronize.Event) -> None:
    store = Store(root)
    with store.claim(KEY), store.put(KEY, "data", DOCUMENT) as folder:
        (folder / "a.txt").write_text("half", encoding="utf-8")
        ready.set()
        time.sleep(60)


def test_killed_holder_releases_its_claim_and_its_leftovers_go(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_claim_and_die, args=(tmp_path, ready))
    process.start()
    assert ready.wait(30)
    process.kill()
    process.join()
    store = Store(tmp_path)
    assert list((tmp_path / "partial").iterdir())
    start = time.monotonic()
    with store.claim(KEY):
        assert time.monotonic() - start < 5
        assert not list((tmp_path / "partial").iterdir())


def test_two_writers_of_one_key(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.put(KEY, "data", DOCUMENT) as folder:
        (folder / "a.txt").write_text("slow", encoding="utf-8")
        fill(Store(tmp_path), text="quick")
    path = store.get(KEY)
    assert path is not None and (path / "a.txt").read_text(encoding="utf-8") == "quick"
    assert not list((tmp_path / "partial").iterdir())


def test_workspace_survives_and_tells_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    (store.workspace(KEY) / "state").write_text("1", encoding="utf-8")
    again = store.workspace(KEY)
    assert (again / "state").exists()
    assert KEY not in str(again) and not again.is_relative_to(store.folder)
    store.clear_workspace(KEY)
    assert not again.exists()


def test_default_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_root().endswith("mmguard-arena/store")
    monkeypatch.setenv("ARENA_STORE", str(tmp_path / "mine"))
    assert default_root() == str(tmp_path / "mine") == Store().url


def test_importing_the_store_loads_no_torch() -> None:
    code = "import sys, arena.store.local; assert 'torch' not in sys.modules and 'distributed' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
