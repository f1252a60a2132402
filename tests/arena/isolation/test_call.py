"""Calling a function in a process of its own: what it finds around it, what is heard of it, and how it ends."""

from __future__ import annotations

import ctypes
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from arena.engine.stages import FineTune
from arena.isolation import call as calls
from arena.isolation import server as server_module
from arena.isolation.call import KEPT, Cancel, Ended, Lost, run
from arena.isolation.server import Call, Limits


def ask(home: Path, name: str, *arguments: Any, **fields: Any) -> Ended:
    return run(Call(f"errands:{name}", arguments, home, **fields))


def said(home: Path) -> Any:
    return json.loads((home / "said.json").read_text(encoding="utf-8"))


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def guardian() -> psutil.Process:
    process = calls._SERVER._process
    assert process is not None
    return psutil.Process(process.pid)


def server() -> psutil.Process:
    return guardian().children()[0]


def gone(pids: list[int]) -> bool:
    """Whether processes have ended, within a while."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        alive = [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]
        if not alive:
            return True
        time.sleep(0.02)
    return False


def test_temporary_files_are_its_own(tmp_path: Path) -> None:
    """Whatever the server has loaded has asked for the place of such files before: torch has."""
    assert ask(tmp_path, "make_temporary", tmp_path, preload=("torch",)).code == 0
    assert Path(said(tmp_path)["folder"]).parent == tmp_path


@pytest.mark.parametrize("accelerator", [False, True])
def test_cuda_is_begun_in_no_process_that_others_are_forked_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accelerator: bool
) -> None:
    """Importing bitsandbytes, as peft does, looks for GPUs; torch alone does not."""
    monkeypatch.setattr(server_module, "has_accelerator", lambda: accelerator)
    calls._SERVER.stop()  # what it has loaded for others stays loaded
    preload = (*FineTune.preload, "bitsandbytes")
    assert ask(tmp_path, "loaded_before", tmp_path, ["torch", "peft", "bitsandbytes"], preload=preload).code == 0
    assert said(tmp_path)["loaded"] == (["torch"] if accelerator else ["torch", "peft", "bitsandbytes"])


def test_what_it_finds_around_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARENA_STORE", "/secret/store")
    monkeypatch.setenv("OMP_API_KEY", "secret")
    monkeypatch.setenv("OMP_PROC_BIND", "true")
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    assert ask(home, "look_around", home, environment={"HF_ENDPOINT": "https://example.org"}).code == 0
    found = said(home)
    environment = found["environment"]
    assert not {"ARENA_STORE", "OMP_API_KEY", "PYTEST_CURRENT_TEST", "VIRTUAL_ENV", "PWD"} & set(environment)
    assert environment["OMP_PROC_BIND"] == "true" and environment["HF_ENDPOINT"] == "https://example.org"
    assert environment["HOME"] == environment["TMPDIR"] == str(home)
    assert environment["PYTHONHASHSEED"] == "0" and environment["XDG_CACHE_HOME"] == str(home / "cache")
    assert found["folder"] == str(tmp_path) and found["input"] == "" and found["arguments"] == [""]
    assert set(found["open"]) <= {0, 1, 2, 3} and found["group"] and found["modules"] == []
    assert all(Path(entry).is_absolute() for entry in found["path"])


def test_arguments_of_any_size_are_handed_over(tmp_path: Path) -> None:
    assert ask(tmp_path, "count", tmp_path, bytes(10**7)).code == 0
    assert said(tmp_path) == {"count": 10**7}


def test_what_it_prints_is_kept(tmp_path: Path) -> None:
    ended = ask(tmp_path, "print_lines", 100)
    lines = ended.printed.splitlines()
    assert ended.code == 0 and lines == [*(f"line {n}" for n in range(100)), "the end"]


def test_of_much_the_beginning_and_the_end_are_kept(tmp_path: Path) -> None:
    printed = ask(tmp_path, "print_lines", 300_000).printed
    size = len("".join(f"line {n}\n" for n in range(300_000)) + "the end\n")
    assert printed.startswith("line 0\nline 1\n") and printed.endswith("line 299999\nthe end\n")
    assert f"\n[{size - KEPT} bytes cut]\n" in printed and len(printed) < KEPT + 50


@pytest.mark.parametrize(
    ("name", "argument", "code", "how"),
    [
        ("leave", 0, 0, "exit code 0"),
        ("leave", 3, 3, "exit code 3"),
        ("end_by", "SIGTERM", -15, "signal SIGTERM"),
        ("end_by", "SIGKILL", -9, "signal SIGKILL"),
        ("end_by", "SIGSEGV", -11, "signal SIGSEGV"),
    ],
)
def test_how_it_ended(tmp_path: Path, name: str, argument: Any, code: int, how: str) -> None:
    ended = ask(tmp_path, name, argument)
    assert (ended.code, ended.reason, ended.how) == (code, None, how)
    assert 0 <= ended.seconds <= ended.lived < 60 and 1 < ended.peak_memory_mb < 10_000


def test_a_fault_of_ours_is_printed(tmp_path: Path) -> None:
    ended = ask(tmp_path, "fail")
    assert ended.code == 70 and "ValueError: a fault of ours" in ended.printed
    ended = run(Call("errands:no_such", (), tmp_path))
    assert ended.code == 70 and "no_such" in ended.printed and ended.seconds == 0.0


def test_what_it_reports_is_told_and_nonsense_is_not(tmp_path: Path) -> None:
    heard: list[tuple[float, str]] = []
    assert run(Call("errands:report", (), tmp_path), lambda done, note: heard.append((done, note))).code == 0
    assert heard and all(0 <= done <= 1 and len(note) <= 200 for done, note in heard)
    assert heard[0][0] == 0.25 and heard[-1][0] == 1.0


LIMITS = [
    ("sleep", (), Limits(seconds=1.0), {"time", None}),
    ("take", (3 * 10**8, 0), Limits(memory=10**8), {"memory", None}),
    ("write", (10**6,), Limits(written=10**7), {"output"}),
]


@pytest.mark.parametrize(("name", "arguments", "limits", "reasons"), LIMITS, ids=[name for name, *_ in LIMITS])
def test_limits(
    tmp_path: Path, name: str, arguments: tuple[Any, ...], limits: Limits, reasons: set[str | None]
) -> None:
    own = (tmp_path, *arguments) if name != "take" else arguments
    ended = ask(tmp_path, name, *own, limits=limits)
    assert ended.code != 0 and ended.reason in reasons
    if name == "sleep":
        assert "Timeout (0:00:01)!" in ended.printed and "in sleep" in ended.printed
        assert 1 <= ended.lived < 60 and gone(said(tmp_path))
    if name == "take":
        assert ended.reason == "memory" or "MemoryError" in ended.printed


def test_memory_that_processes_share_counts_once(tmp_path: Path) -> None:
    assert ask(tmp_path, "take", 2 * 10**8, 4, limits=Limits(memory=10**9)).reason is None


def test_cancel_ends_it_and_all_that_it_started(tmp_path: Path) -> None:
    cancel, ended = Cancel(), list[Ended]()
    call = Call("errands:sleep", (tmp_path,), tmp_path)
    thread = threading.Thread(target=lambda: ended.append(run(call, None, cancel)))
    thread.start()
    wait_for(tmp_path / "said.json")
    cancel()
    thread.join(30)
    assert [(e.code, e.reason) for e in ended] == [(-9, "cancelled")] and gone(said(tmp_path))


def test_cancelled_before_it_begins(tmp_path: Path) -> None:
    cancel = Cancel()
    cancel()
    ended = run(Call("errands:sleep", (tmp_path,), tmp_path), None, cancel)
    assert (ended.code, ended.reason) == (-9, "cancelled")


@pytest.mark.parametrize("victim", [server, guardian])
def test_a_killed_server_is_told_and_replaced(victim: Callable[[], psutil.Process], tmp_path: Path) -> None:
    lost = list[Exception]()

    def follow() -> None:
        try:
            run(Call("errands:sleep", (tmp_path,), tmp_path))
        except Lost as error:
            lost.append(error)

    thread = threading.Thread(target=follow)
    thread.start()
    wait_for(tmp_path / "said.json")
    before = guardian(), server()
    victim().kill()
    thread.join(30)
    assert [str(error) for error in lost] == ["the process that watches over stages was killed"]
    assert calls._SERVER._process is None  # what is left of it takes no other call
    assert gone(said(tmp_path))  # also what left its session
    assert ask(tmp_path, "leave", 0).code == 0
    assert not {process.pid for process in before} & {guardian().pid, server().pid}
    assert gone([process.pid for process in before])


def test_a_server_that_died_while_nobody_called_is_replaced(tmp_path: Path) -> None:
    assert ask(tmp_path, "leave", 0).code == 0
    dead = server()
    dead.kill()
    assert gone([dead.pid])
    assert ask(tmp_path, "leave", 4).code == 4


def test_a_server_that_is_told_to_end_ends_what_runs(tmp_path: Path) -> None:
    lost = list[Exception]()

    def follow() -> None:
        try:
            run(Call("errands:sleep", (tmp_path,), tmp_path))
        except Lost as error:
            lost.append(error)

    thread = threading.Thread(target=follow)
    thread.start()
    wait_for(tmp_path / "said.json")
    calls._SERVER.stop()
    thread.join(30)
    assert not thread.is_alive() and gone(said(tmp_path))


def test_calls_run_side_by_side_and_only_their_own_children_end_with_them(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    cancel = Cancel()
    with ThreadPoolExecutor(5) as pool:
        sleeper = pool.submit(run, Call("errands:sleep", (tmp_path / "one",), tmp_path / "one"), None, cancel)
        wait_for(tmp_path / "one" / "said.json")
        others = [pool.submit(ask, tmp_path, "leave", code) for code in range(8)]
        assert [other.result().code for other in others] == list(range(8))
        assert all(psutil.pid_exists(pid) for pid in said(tmp_path / "one"))
        cancel()
        assert sleeper.result().reason == "cancelled"
    assert gone(said(tmp_path / "one"))


@pytest.mark.skipif(sys.platform != "linux", reason="what Linux has")
def test_what_escapes_from_being_counted_is_ended(tmp_path: Path) -> None:
    assert ask(tmp_path, "orphan", tmp_path).code == 0
    assert said(tmp_path)["ended"]


def test_what_it_starts_finds_the_modules_that_it_finds(tmp_path: Path) -> None:
    assert ask(tmp_path, "child_imports", tmp_path).code == 0
    assert Path(said(tmp_path)["found"].strip()).name == "errands.py"


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="takes the right to a namespace of one's own")
def test_shared_memory_is_its_own_and_ends_with_it(tmp_path: Path) -> None:
    key = 0x41000000 + os.getpid()
    assert ask(tmp_path, "keep_segment", key).code == 0
    assert ctypes.CDLL(None).shmget(key, 4096, 0) == -1


@pytest.mark.skipif(sys.platform != "linux", reason="what Linux has")
@pytest.mark.parametrize("firewall", [True, False])
def test_it_can_become_no_other_user(tmp_path: Path, firewall: bool) -> None:
    assert ask(tmp_path, "own_status", tmp_path, firewall=firewall).code == 0
    assert "NoNewPrivs:\t1" in said(tmp_path)["status"]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc")
def test_no_handle_is_left_open(tmp_path: Path) -> None:
    ask(tmp_path, "leave", 0)  # the server is there now
    before = len(list(Path("/proc/self/fd").iterdir()))
    below = server().num_fds()
    for _ in range(3):
        ask(tmp_path, "leave", 0)
    assert len(list(Path("/proc/self/fd").iterdir())) == before and server().num_fds() == below
