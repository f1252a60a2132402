"""The kernel keeps a process to what it was granted."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from arena.isolation import landlock
from arena.isolation.call import run
from arena.isolation.server import Call

pytestmark = pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")

Try = Callable[..., dict[str, bool]]


@pytest.fixture
def attempt(tmp_path: Path) -> Try:
    """What succeeds of attempts, written ``how what``, under grants."""
    number = iter(range(100))

    def tried(*tries: str, **granted: Any) -> dict[str, bool]:
        home = tmp_path / f"home-{next(number)}"
        home.mkdir()
        asked = [tuple(one.split(" ", 1)) for one in tries]
        ended = run(Call("errands:restricted", (home, granted, asked), home, firewall=False))
        assert ended.code == 0, ended.printed
        said = json.loads((home / "said.json").read_text(encoding="utf-8"))
        if not {"write", "remove", "make", "link"} & {how for how, _ in asked}:  # which a child could not do again
            assert said["here"] == said["child"]
        return dict(said["here"])

    return tried


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a file, and one in a folder below."""
    found = tmp_path / "folder"
    (found / "below").mkdir(parents=True)
    for path in (found / "file", found / "below" / "file"):
        path.write_text("content", encoding="utf-8")
    return found


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


def test_nothing_else_is_read_listed_or_written(attempt: Try, folder: Path) -> None:
    tries = [f"{how} {folder / 'file'}" for how in ("read", "append", "truncate", "remove", "write")]
    tries += [f"list {folder}", f"make {folder / 'new'}", f"link {folder / 'link'}", f"list {folder.parent}", "list /"]
    assert set(attempt(*tries).values()) == {False}
    assert (folder / "file").read_text(encoding="utf-8") == "content"


def test_a_folder_is_read_with_all_below_it_and_not_written(attempt: Try, folder: Path) -> None:
    reads = [f"read {folder / 'file'}", f"read {folder / 'below' / 'file'}", f"list {folder / 'below'}"]
    writes = [f"{how} {folder / 'file'}" for how in ("append", "truncate", "remove", "write")]
    found = attempt(*reads, *writes, f"make {folder / 'new'}", read=[str(folder)])
    assert [found[name] for name in reads] == [True] * 3 and sum(found.values()) == 3


def test_one_file_is_read_and_its_folder_is_not(attempt: Try, folder: Path) -> None:
    found = attempt(
        f"read {folder / 'file'}", f"read {folder / 'below' / 'file'}", f"list {folder}", read=[str(folder / "file")]
    )
    assert list(found.values()) == [True, False, False]


def test_a_link_leads_no_further(attempt: Try, folder: Path, tmp_path: Path) -> None:
    (folder / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "secret").write_text("secret", encoding="utf-8")
    assert attempt(f"read {folder / 'link'}", read=[str(folder)]) == {f"read {folder / 'link'}": False}


def test_a_folder_is_written(attempt: Try, folder: Path) -> None:
    tries = [
        f"write {folder / 'new'}",
        f"make {folder / 'newer'}",
        f"link {folder / 'link'}",
        f"remove {folder / 'file'}",
    ]
    assert set(attempt(*tries, f"list {folder}", write=[str(folder)]).values()) == {True}


def test_of_a_listed_folder_names_alone_are_seen(attempt: Try, folder: Path) -> None:
    found = attempt(f"list {folder}", f"read {folder / 'file'}", f"append {folder / 'file'}", listed=[str(folder)])
    assert list(found.values()) == [True, False, False]


def test_programs_of_what_is_read_run(attempt: Try, folder: Path) -> None:
    program = folder / "program"
    program.write_text("#!/bin/sh\nexit 0\n", encoding="utf-8")
    program.chmod(0o755)
    assert attempt("execute /bin/true", f"execute {program}") == {
        "execute /bin/true": True,
        f"execute {program}": False,
    }
    assert attempt(f"execute {program}", read=[str(folder)]) == {f"execute {program}": True}


def test_what_is_not_there_is_passed_over(attempt: Try, tmp_path: Path) -> None:
    assert attempt("read /etc/hostname", read=[str(tmp_path / "none")]) == {"read /etc/hostname": False}


@pytest.mark.skipif(landlock.version() < 4, reason="this kernel keeps no ports")
def test_no_port_is_reached_or_opened_without_a_network(attempt: Try, port: int) -> None:
    assert set(attempt(f"connect {port}", "listen 0").values()) == {False}
    assert set(attempt(f"connect {port}", "listen 0", network=True).values()) == {True}


@pytest.mark.skipif(landlock.version() < 6, reason="this kernel keeps no signals")
def test_no_other_process_is_signalled(attempt: Try) -> None:
    assert attempt(f"signal {os.getpid()}", f"signal {os.getppid()}") == {
        f"signal {os.getpid()}": False,
        f"signal {os.getppid()}": False,
    }
