"""Claims: one at a time, whoever dies, and no file of a lock stays behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import filelock
import pytest

from arena.store.local import Store

KEYS = ("a" * 64, "b" * 64)


def in_use(root: Path) -> list[str]:
    """Names of the files that say that a lock is held."""
    return [path.name for path in (root / "locks").glob("*.lock")]


def test_a_second_run_waits(tmp_path: Path) -> None:
    store, other = Store(tmp_path), Store(tmp_path)
    order: list[str] = []
    held = threading.Event()

    def first() -> None:
        with store.claim(KEYS[0]):
            held.set()
            time.sleep(0.5)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    held.wait()
    assert in_use(tmp_path) == [f"{KEYS[0]}.lock"]
    with other.claim(KEYS[1]):
        order.append("another key")
    with other.claim(KEYS[0]):
        order.append("second")
    thread.join()
    assert order == ["another key", "first", "second"]
    assert not in_use(tmp_path)


def test_the_lock_goes_with_an_error_too(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(ValueError, match="broken"), store.claim(KEYS[0]):
        raise ValueError("broken")
    assert not in_use(tmp_path)
    with store.claim(KEYS[0]):
        assert in_use(tmp_path)


def _compete(root: Path, until: float, name: str) -> None:
    """Takes and gives claims as fast as it can; says where another had the same one."""
    store, turns = Store(root), 0
    while time.monotonic() < until:
        key = KEYS[turns % 2]
        with store.claim(key):
            mine = root / f"{key[0]}.held"
            try:
                os.close(os.open(mine, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                (root / f"{name}.clash").touch()
                return
            time.sleep(0.001)
            mine.unlink()
        turns += 1
    (root / f"{name}.turns").write_text(str(turns), encoding="utf-8")


def test_many_processes_never_hold_one_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = multiprocessing.get_context("fork")
    monkeypatch.setattr("arena.store.local._POLL", 0.001)
    names = [f"process-{number}" for number in range(6)]
    until = time.monotonic() + 4
    processes = [context.Process(target=_compete, args=(tmp_path, until, name)) for name in names]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert not list(tmp_path.glob("*.clash"))
    turns = [int(path.read_text(encoding="utf-8")) for path in tmp_path.glob("*.turns")]
    assert len(turns) == len(names) and min(turns) > 0 and sum(turns) > 50
    assert not in_use(tmp_path)


def _claim_and_wait(root: Path, ready: multiprocessing.synchronize.Event) -> None:
    store = Store(root)
    with store.claim(KEYS[0]), store.put(KEYS[0], "data", {}) as folder:
        (folder / "a.txt").write_text("half", encoding="utf-8")
        (root / "stages" / f"{KEYS[0]}-x").mkdir(parents=True)
        ready.set()
        time.sleep(60)


@pytest.mark.parametrize("key", KEYS)
def test_what_a_killed_run_leaves_goes_with_the_next_claim(tmp_path: Path, key: str) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_claim_and_wait, args=(tmp_path, ready))
    process.start()
    assert ready.wait(60)
    with Store(tmp_path).claim(KEYS[1]):  # the holder lives: nothing of it is touched
        assert len(in_use(tmp_path)) == 2
    assert list((tmp_path / "partial").glob("*/a.txt")) and list((tmp_path / "stages").iterdir())
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    start = time.monotonic()
    with Store(tmp_path).claim(key):
        assert time.monotonic() - start < 5
        assert in_use(tmp_path) == [f"{key}.lock"]
        assert not list((tmp_path / "partial").iterdir()) and not list((tmp_path / "stages").iterdir())
    assert not in_use(tmp_path)


def test_without_locks_both_compute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = []

    def refuse(*arguments: object, **named: object) -> None:
        refused.append(arguments)
        raise NotImplementedError("this file system has no locks")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    with Store(tmp_path).claim(KEYS[0]), Store(tmp_path).claim(KEYS[0]):
        assert len(refused) >= 2  # each asked for a lock, and went on without
