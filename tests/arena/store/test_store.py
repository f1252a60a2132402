"""Artifacts: atomic, checked, shared, and what happens when the disk or another version gets in the way."""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from arena.errors import ArenaError
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


def test_other_schema_version_is_refused_with_a_remedy(tmp_path: Path) -> None:
    fill(Store(tmp_path))
    (tmp_path / "store.json").write_text('{"schema_version": 99}', encoding="utf-8")
    with pytest.raises(StoreError, match=r"schema version 99.*reads 1.*--store"):
        Store(tmp_path)


def test_two_writers_of_one_key(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.put(KEY, "data", DOCUMENT) as folder:
        (folder / "a.txt").write_text("slow", encoding="utf-8")
        fill(Store(tmp_path), text="quick")
    path = store.get(KEY)
    assert path is not None and (path / "a.txt").read_text(encoding="utf-8") == "quick"
    assert not list((tmp_path / "partial").iterdir())


def test_workspace_survives_in_the_store_and_tells_nothing(root: str) -> None:
    store = Store(root)
    (store.workspace(KEY) / "state").write_text("1", encoding="utf-8")
    again = Store(root).workspace(KEY)
    assert (again / "state").exists()
    assert KEY not in str(again) and again.is_relative_to(store.folder)
    assert again != store.workspace("f" * 64)
    store.clear_workspace(KEY)
    assert not again.exists()
    store.clear_workspace(KEY)
    assert not again.exists()


def test_a_store_keeps_its_place_when_the_directory_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store("store")
    assert store.url == str(tmp_path / "store") == Store("file://store").url
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert fill(store).is_relative_to(tmp_path / "store") and KEY in Store(store.url)
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: (folder / "x").symlink_to("/etc/passwd"), "'x' is a link"),
        (lambda folder: (folder / "x").symlink_to("nowhere"), "'x' is a link"),
        (lambda folder: (folder / "sub" / "up").symlink_to(".."), "'sub/up' is a link"),
        (lambda folder: os.mkfifo(folder / "sub" / "pipe"), "'sub/pipe' is no plain file"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "'manifest.json' is the name"),
        (lambda folder: (folder / os.fsdecode(b"\xff")).mkdir(), "not UTF-8"),
    ],
)
def test_what_an_artifact_cannot_have(tmp_path: Path, make: Callable[[Path], object], said: str) -> None:
    store = Store(tmp_path / "store")
    with pytest.raises(ArenaError, match=said) as caught, store.put(KEY, "data", DOCUMENT) as folder:
        (folder / "sub").mkdir()
        make(folder)
    assert not isinstance(caught.value, StoreError)
    assert KEY not in store and not list((store.folder / "partial").iterdir())


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(path: Path) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("arena.store.manifest.digest_file", deny)
    with pytest.raises(ArenaError, match=r"'a\.txt' cannot be read: leave the files"):
        fill(Store(tmp_path / "store"))


def test_cost_can_be_told(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.put(KEY, "data", DOCUMENT, cost=(12.5, 99.0)):
        pass
    manifest = store.manifest(KEY)
    assert manifest is not None and (manifest.seconds, manifest.peak_memory_mb) == (12.5, 99.0)


def test_default_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_root().endswith("mmguard-arena/store")
    monkeypatch.setenv("ARENA_STORE", str(tmp_path / "mine"))
    assert default_root() == str(tmp_path / "mine") == Store().url


def test_importing_the_store_loads_no_torch() -> None:
    code = "import sys, arena.store.local; assert 'torch' not in sys.modules and 'distributed' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
