"""Disks that are full, read-only or out of files: the store's trouble and no cell's, tried for real where the kernel
lets a user mount a small disk of their own, and with errors that are made up everywhere."""

from __future__ import annotations

import errno
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from suites import toy_suite

import arena.store.local
from arena.engine.apart import StageFailed
from arena.engine.execute import run
from arena.errors import UsageError
from arena.records.files import read_records
from arena.store.local import Store, StoreError
from arena.store.locks import Locks
from arena.store.probe import speaks_of_disk, write_some

KEY = "a" * 64
FULL = OSError(errno.ENOSPC, "No space left on device")


def fill(store: Store, key: str = KEY) -> Path:
    with store.claim(key), store.put(key, "data", {"size": 1}) as folder:
        (folder / "a.txt").write_text("hello", encoding="utf-8")
    return store.require(key)


def go(tmp_path: Path, store: Path, name: str = "r", **changes: Any) -> tuple[int, int]:
    """Runs the toys; how many cells are done and how many failed."""
    report = run(
        toy_suite(**changes),
        store=store,
        results=tmp_path / f"{name}.jsonl",
        console=Console(file=io.StringIO()),
        scheduler="sync",
    )
    return len(report.records) - len(report.failed), len(report.failed)


# Made up


def test_a_stages_own_error_stays_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one of another disk that is full: this one has room."""
    monkeypatch.setattr(arena.store.local, "nearly_full", lambda folder: False)
    store = Store(tmp_path / "store")
    for error in (FULL, StoreError("the disk is full"), OSError(errno.EROFS, "Read-only file system"), ValueError("x")):
        with pytest.raises(type(error)) as caught, store.put(KEY, "data", {}) as folder:
            (folder / "a.txt").write_text("half", encoding="utf-8")
            raise error
        assert caught.value is error and store.unusable(error) is None and store.unusable(str(error)) is None
    assert store.unusable() is None
    assert KEY not in store and not list((store.folder / "partial").iterdir())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO])
def test_any_error_is_the_stores_while_it_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    store, probes = Store(tmp_path / "store"), list[list[Path]]()

    def refuse(folder: Path, size: int) -> None:
        probes.append(list(folder.glob("*/half")))
        raise OSError(number, os.strerror(number), str(folder / "try"))

    monkeypatch.setattr(arena.store.local, "write_some", refuse)
    with pytest.raises(StoreError) as caught, store.put(KEY, "data", {}) as folder:
        (folder / "half").touch()
        raise RuntimeError("what a library makes of it")
    assert len(probes[0]) == 1  # asked before what was written is removed
    said = str(caught.value)
    assert said.startswith(f"store {store.url}: ") and os.strerror(number) in said and "--store" in said
    assert "What is finished is kept" in said and "\n" not in said
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert ("disk is full" in said) == (number in (errno.ENOSPC, errno.EDQUOT))


def test_a_stage_that_found_no_space_is_believed_where_hardly_any_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some libraries remove the file that did not fit: what is free again says nothing."""
    store = Store(tmp_path / "store")
    usage = shutil.disk_usage(tmp_path)
    almost = usage._replace(total=10**12, free=10**10)
    monkeypatch.setattr("arena.store.probe.shutil.disk_usage", lambda folder: almost)
    text = "SafetensorError: Error while serializing: I/O error: No space left on device (os error 28)"
    assert "disk is full" in str(store.unusable(text)) and "disk is full" in str(store.unusable(FULL))
    assert store.unusable("ValueError: negative dimensions") is None


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (FULL, True),
        (OSError(errno.EDQUOT, "x"), True),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), False),
        (RuntimeError("I/O error: No space left on device (os error 28)"), True),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"), True),
        (ValueError("no attribute left"), False),
        (StageFailed("its process left with exit code 70", "OSError: [Errno 28] No space left on device"), True),
        ("sqlite3.OperationalError: database or disk is full", True),
        ("ValueError: the toy is broken", False),
    ],
)
def test_which_errors_speak_of_a_disk(error: Exception | str, expected: bool) -> None:
    assert speaks_of_disk(error) == expected
    if isinstance(error, Exception):
        outer = KeyError("while that was handled")
        outer.__context__ = error
        assert speaks_of_disk(outer) == expected


def test_an_error_without_a_text_is_survived() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    mute = Mute()
    mute.__cause__ = mute
    assert not speaks_of_disk(mute)


def test_a_probe_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_some(tmp_path, 3 * 2**20)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(FULL))
    with pytest.raises(OSError, match="No space left"):
        write_some(tmp_path, 2**16)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["manifest", "lock", "workspace", "mark"])
def test_whatever_the_store_writes_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    store = Store(tmp_path / "store")
    if place != "mark":
        fill(store, "f" * 64)

    def refuse(*arguments: object, **named: object) -> None:
        raise FULL

    target = {"manifest": "os.fsync", "mark": "arena.store.local.write_atomically", "workspace": "pathlib.Path.mkdir"}
    if place == "lock":
        monkeypatch.setattr(Locks, "gate", refuse)
    else:
        monkeypatch.setattr(target[place], refuse)
    with pytest.raises(StoreError, match=r"^store .*disk is full.*--store.*What is finished is kept"):
        _ = store.workspace(KEY) if place == "workspace" else fill(store)
    monkeypatch.undo()
    assert KEY not in store
    assert fill(store).is_dir()


def test_a_run_ends_and_goes_on_after_making_room(tmp_path: Path, toys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, done = Store.put, list[str]()

    @contextmanager
    def put(self: Store, *arguments: Any, **named: Any) -> Iterator[Path]:
        with real(self, *arguments, **named) as folder:
            yield folder
            done.append(folder.name)
            if len(done) > 9:
                raise RuntimeError("what a library makes of a full disk")

    def refuse(folder: Path, size: int) -> None:
        raise FULL

    monkeypatch.setattr(Store, "put", put)
    monkeypatch.setattr(arena.store.local, "write_some", refuse)
    with pytest.raises(StoreError, match=r"disk is full.*What is finished is kept"):
        go(tmp_path, tmp_path / "store")
    results = tmp_path / "r.jsonl"
    assert not results.exists() or all(r.status == "done" for r in read_records(results))
    monkeypatch.setattr(Store, "put", real)
    assert go(tmp_path, tmp_path / "store") == (8, 0)


@pytest.mark.parametrize("value", ["a file", "a folder below a file", "a long name"])
def test_a_cache_directory_that_cannot_be_is_not_needed(
    tmp_path: Path, toys: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    (tmp_path / "file").touch()
    places = {"a file": "file", "a folder below a file": "file/cache", "a long name": "x" * 300}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / places[value]))
    crafted: dict[str, Any] = {"defenses": ["none", "toy-crafted"], "surrogates": ["toy-model"], "attacks": ["none"]}
    assert go(tmp_path, tmp_path / "store", **crafted) == (4, 0)


# Places that are none


def test_places_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    places: dict[str | Path, str] = {
        tmp_path / "file": "it is a file; name a folder",
        tmp_path / "file" / "below": "a file is where a folder should be",
        tmp_path / "loop": "(leads back to itself|loop)",
        tmp_path / ("x" * 300): "the name is too long",
        "~nobody-of-that-name/x": r"name a folder by its whole path",
    }
    for wrong, said in places.items():
        with pytest.raises(StoreError, match=said) as caught:
            fill(Store(wrong))
        assert str(wrong) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UsageError):
        Store(tmp_path / "file")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff", b'{"name": "another program\'s"}', b"[" * 9999])
def test_a_mark_that_is_not_ours_is_left_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "store.json").write_bytes(content)
    with pytest.raises(StoreError, match=r"its store.json is damaged, or not an arena's; name another store"):
        Store(tmp_path)
    assert (tmp_path / "store.json").read_bytes() == content


@pytest.mark.parametrize("name", ["store.json", "manifest.json", "a.txt"])
def test_files_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    fill(Store(tmp_path / "store"))
    real = io.open

    def deny(file: Any, *arguments: Any, **named: Any) -> Any:
        if str(file).endswith(name):
            raise PermissionError(errno.EACCES, "Permission denied", str(file))
        return real(file, *arguments, **named)

    monkeypatch.setattr(io, "open", deny)
    with pytest.raises(StoreError, match=rf"^store .*change its permissions.*Permission denied: .*{name}") as caught:
        Store(tmp_path / "store").require(KEY)
    assert "\n" not in str(caught.value)


# For real, on a disk of one's own


@pytest.fixture(scope="module")
def namespaces() -> Iterator[None]:
    if shutil.which("unshare") is None or shutil.which("mount") is None:
        pytest.skip("no unshare here")
    tried = subprocess.run(
        ["unshare", "-rm", "sh", "-c", "mount -t tmpfs -o size=1m tmpfs /mnt"], capture_output=True, check=False
    )
    if tried.returncode:
        pytest.skip("this kernel lets no user mount")
    yield


REAL = """
import os, subprocess, sys, time
from pathlib import Path
sys.path[:0] = {paths!r}
import toys; toys.install()
import test_disk
from test_disk import KEY, Store, StoreError, fill, go

here = Path({here!r})
disk = here / "disk"

def mount(options, place=disk):
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True)

def remount(options):
    for _ in range(100):  # the kernel lets go of what ended processes had open a moment later
        if subprocess.run(["mount", "-o", "remount," + options, str(disk)], stderr=subprocess.DEVNULL).returncode == 0:
            return
        time.sleep(0.1)
    raise SystemExit("the disk stays busy")

def ends(do):
    try:
        print("went on:", do())
    except StoreError as error:
        print("StoreError:", error)

"""


def on_a_disk(tmp_path: Path, script: str) -> list[str]:
    """What a script prints, a line each, with a disk of its own that it mounts."""
    here = Path(__file__)
    paths = [str(here.parent), str(here.parents[2]), str(here.parents[2] / "toys"), str(here.parents[3])]
    code = REAL.format(paths=paths, here=str(tmp_path)) + script
    ran = subprocess.run(
        ["unshare", "-rm", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def kept(tmp_path: Path) -> set[str]:
    results = tmp_path / "r.jsonl"
    return {r.status for r in read_records(results)} if results.exists() else set()


SMALL_DISKS = """
for number, (options, more) in enumerate({disks!r}):
    place, name = here / f"disk-{{number}}", f"r-{{number}}"
    mount(options, place)
    ends(lambda: go(here, place / "store", name, seeds=[0]))
    print(len(list((place / "store").glob("??/*/manifest.json"))))
    subprocess.run(["mount", "-o", f"remount,{{more}}", str(place)], check=True)
    ends(lambda: go(here, place / "store", name, seeds=[0]))
"""


@pytest.mark.parametrize(
    ("options", "sizes", "more"),
    [
        ("size={}", ["48k", "160k", "250k"], "size=64m"),
        ("size=64m,nr_inodes={}", [8, 40, 60], "nr_inodes=10000"),
    ],
    ids=["bytes", "files"],
)
def test_a_full_disk(
    tmp_path: Path, toys: Path, namespaces: None, options: str, sizes: list[object], more: str
) -> None:
    disks = [(options.format(size), more) for size in sizes]
    lines = on_a_disk(tmp_path, SMALL_DISKS.format(disks=disks))
    for first, second in zip(lines[::3], lines[2::3], strict=True):
        assert first.startswith("StoreError: store ") and "the disk is full" in first and "--store" in first
        assert "of bytes and of files" in first and second == "went on: (4, 0)"
    finished = [int(line) for line in lines[1::3]]
    assert finished[0] < finished[-1]
    for number in range(len(sizes)):
        assert {r.status for r in read_records(tmp_path / f"r-{number}.jsonl")} == {"done"}


def test_a_store_that_turned_read_only(tmp_path: Path, toys: Path, namespaces: None) -> None:
    lines = on_a_disk(
        tmp_path,
        """
mount("size=64m")
ends(lambda: go(here, disk / "store", seeds=[0]))
remount("ro")
ends(lambda: go(here, disk / "store", "again", seeds=[0]))
ends(lambda: go(here, disk / "store"))
ends(lambda: go(here, disk / "new"))
remount("rw")
ends(lambda: go(here, disk / "store"))
""",
    )
    assert lines[0] == lines[1] == "went on: (4, 0)"  # what is there can be read
    assert all("the disk cannot be written; make it writable" in line for line in lines[2:4])
    assert lines[4] == "went on: (8, 0)" and kept(tmp_path) == {"done"}


def test_a_large_file_that_its_library_removes_again(tmp_path: Path, namespaces: None) -> None:
    lines = on_a_disk(
        tmp_path,
        """
import numpy as np
from safetensors.numpy import save_file

def save(folder):
    save_file({"a": np.zeros(2**19, dtype=np.float32)}, folder / "x.safetensors")

def put(root, where=None):
    store = Store(root)
    with store.put(KEY, "data", {}) as folder:
        save(where or folder)
    return "put"

mount("size=1m")
ends(lambda: put(disk / "store"))
remount("size=4m")
ends(lambda: put(disk / "store"))
""",
    )
    assert "the disk is full" in lines[0] and lines[1] == "went on: put"


def test_another_disk_that_is_full_is_the_plugins(tmp_path: Path, namespaces: None) -> None:
    lines = on_a_disk(
        tmp_path,
        """
mount("size=64m")
mount("size=16k", here / "other")

def put():
    try:
        with Store(disk / "store").put(KEY, "data", {}) as folder:
            (here / "other" / "x").write_bytes(bytes(2**20))
    except StoreError:
        raise
    except OSError as error:
        return f"its own {error}"

ends(put)
""",
    )
    assert lines == ["went on: its own [Errno 28] No space left on device"]


RESULTS = """
from arena.errors import ArenaError
mount("size=64k")
(disk / "filler").write_bytes(bytes(40_000))
places = [disk / "full.jsonl"]
def run(results):
    try:
        go(results.parent, here / "store", results.stem)
    except ArenaError as error:
        return f"{type(error).__name__} {error}"
ends(lambda: run(disk / "r.jsonl"))
remount("ro")
ends(lambda: run(disk / "r.jsonl"))
print("computed:", Path(os.environ["TOY_LOG"]).exists(), "left:", sorted(p.name for p in disk.iterdir()))
"""


def test_results_on_such_a_disk_are_tried_before(tmp_path: Path, toys: Path, namespaces: None) -> None:
    full, read_only, left = on_a_disk(tmp_path, RESULTS)
    for line, said in ((full, "No space left"), (read_only, "Read-only file system")):
        assert "ArenaError records: could not append records to" in line and said in line and "r.jsonl" in line
    assert left in ("computed: False left: ['.r.jsonl.lock', 'filler']", "computed: False left: ['filler']")
