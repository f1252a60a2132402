"""Functions for processes of their own; what they found they write into a file of their folder."""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from arena.isolation import landlock
from arena.isolation.surroundings import readable

Tell = Callable[[float, str], None]


def say(home: Path, **found: Any) -> None:
    (home / "said.json").write_text(json.dumps(found), encoding="utf-8")


def look_around(home: Path, tell: Tell) -> None:
    fds = [int(path.name) for path in Path("/proc/self/fd").iterdir()] if sys.platform == "linux" else []
    say(
        home,
        environment=dict(os.environ),
        folder=str(Path.cwd()),
        path=sys.path,
        open=[fd for fd in fds if Path(f"/proc/self/fd/{fd}").exists()],
        input=sys.stdin.read(),
        arguments=sys.argv,
        group=os.getpgid(0) == os.getpid(),
        modules=[name for name in ("toys", "pytest") if name in sys.modules],
    )


def make_temporary(home: Path, tell: Tell) -> None:
    say(home, folder=tempfile.mkdtemp())


def count(home: Path, content: bytes, tell: Tell) -> None:
    say(home, count=len(content))


def print_lines(number: int, tell: Tell) -> None:
    for line in range(number):
        sys.stdout.write(f"line {line}\n")
    sys.stderr.write("the end\n")


def child_imports(home: Path, tell: Tell) -> None:
    """What a process that it starts itself finds among its modules."""
    code = "import errands; print(errands.__file__)"
    say(home, found=subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def keep_segment(key: int, tell: Tell) -> None:
    """Shared memory of System V, which outlives who made it."""
    if ctypes.CDLL(None).shmget(key, 4096, 0o1600) < 0:
        raise OSError("no segment could be made")


def orphan(home: Path, tell: Tell) -> None:
    """With a descendant that falls to the server instead, and is not counted; whether it comes to an end."""
    ctypes.CDLL(None).prctl(36, 0, 0, 0, 0)
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.close(read)
            time.sleep(1000)
        os._exit(0)
    os.close(write)
    os.wait()
    ended, _, _ = select.select([read], [], [], 30)
    say(home, ended=bool(ended))


def leave(code: int, tell: Tell) -> None:
    os._exit(code)


def end_by(name: str, tell: Tell) -> None:
    os.kill(os.getpid(), getattr(signal, name))
    time.sleep(10)


def fail(tell: Tell) -> None:
    raise ValueError("a fault of ours")


def report(tell: Tell) -> None:
    for share in (0.25, float("nan"), 7.0):
        tell(share, "x" * 1000)
        time.sleep(0.05)
    os.write(3, b"no json\n[1]\n[]\n" + b"[" * 10_000 + b"\n")
    time.sleep(0.05)


def sleep(home: Path, tell: Tell) -> None:
    """With a child, and one that left the process's group and lost its parent."""
    known = [os.getpid(), subprocess.Popen(["sleep", "1000"]).pid]
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if (daemon := os.fork()) == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(1000)
        os.write(write, str(daemon).encode())
        os._exit(0)
    known.append(int(os.read(read, 20)))
    partial = home / "said.part"
    partial.write_text(json.dumps(known), encoding="utf-8")
    partial.rename(home / "said.json")
    time.sleep(1000)


def take(size: int, processes: int, tell: Tell) -> None:
    """Memory that is of one page for all processes, and some of their own."""
    shared = bytearray(os.urandom(size))
    for _ in range(processes):
        if os.fork() == 0:
            time.sleep(1000)
    time.sleep(1.5)
    assert shared


def write(folder: Path, size: int, tell: Tell) -> None:
    for _ in range(1000):
        (folder / "file").write_bytes(bytes(size))
        time.sleep(0.01)


def own_status(home: Path, tell: Tell) -> None:
    say(home, status=Path("/proc/self/status").read_text(encoding="utf-8"))


def restricted(home: Path, granted: dict[str, Any], tries: Sequence[tuple[str, str]], tell: Tell) -> None:
    """What of `tries` succeeds under `landlock.restrict`, here and in a child."""
    landlock.restrict(
        [*readable(network=False), *map(Path, granted.get("read", ()))],
        [home, Path("/dev/null"), *map(Path, granted.get("write", ()))],
        [Path(path) for path in granted.get("listed", ())],
        bool(granted.get("network")),
    )
    found = {f"{how} {what}": _tried(how, what) for how, what in tries}
    if os.fork() == 0:
        (home / "child.json").write_text(json.dumps({f"{h} {w}": _tried(h, w) for h, w in tries}), encoding="utf-8")
        os._exit(0)
    os.wait()
    say(home, here=found, child=json.loads((home / "child.json").read_text(encoding="utf-8")))


def _tried(how: str, what: str) -> bool:
    path = Path(what)
    deeds: dict[str, Callable[[], object]] = {
        "read": path.read_bytes,
        "list": lambda: list(path.iterdir()),
        "write": lambda: path.write_text("written", encoding="utf-8"),
        "append": lambda: path.open("ab").close(),
        "remove": path.unlink,
        "make": lambda: path.mkdir(),
        "link": lambda: path.symlink_to("/etc"),
        "truncate": lambda: os.truncate(path, 0),
        "execute": lambda: subprocess.run([what], check=True, stdout=subprocess.DEVNULL),
        "connect": lambda: socket.create_connection(("127.0.0.1", int(what)), 2).close(),
        "listen": lambda: socket.create_server(("127.0.0.1", int(what))).close(),
        "signal": lambda: os.kill(int(what), 0),
    }
    try:
        deeds[how]()
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def loaded_before(home: Path, names: Sequence[str], tell: Tell) -> None:
    """Which of the modules are there without being imported."""
    say(home, loaded=[name for name in names if name in sys.modules])
