"""Calling a function in a process of its own, and what comes of it."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import pickle
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from arena.errors import ArenaError
from arena.isolation import landlock
from arena.isolation.server import ABANDONED, Call
from arena.isolation.surroundings import environment

KEPT = 2**16
"""Bytes of what a call prints that are kept, half from the beginning and half from the end."""
_LINE = 2**12
_PATIENCE = 6.0
"""Seconds that the server has to end when it is told to."""


@dataclass(frozen=True)
class Ended:
    """How the process of a call ended: its exit code, or minus the signal; why it was ended, where it was (``time``,
    ``memory``, ``output``, ``processes``, ``cancelled``); what it printed, cut; how many seconds it lived, and how many
    of these were the function's; and the most memory that it, or a process that it waited for, had."""

    code: int
    reason: str | None
    printed: str
    lived: float
    seconds: float
    peak_memory_mb: float

    @property
    def how(self) -> str:
        """``exit code 3`` or ``signal SIGSEGV``."""
        if self.code >= 0:
            return f"exit code {self.code}"
        try:
            return f"signal {signal.Signals(-self.code).name}"
        except ValueError:
            return f"signal {-self.code}"


class Lost(ArenaError):
    """The server was killed, so that nobody knows how a call ended."""


def isolation() -> str:
    """What keeps plugins to their own here: ``landlock``, or only that they are a ``process``."""
    return "landlock" if landlock.version() else "process"


_PROGRAM = "from arena.isolation.server import main; main()"
_CODE = str(Path(__file__).parents[2])
"""Where this package is, whatever else the server's interpreter would find."""


class _Server:
    """The server of this process, started when it is first needed, and again if it dies."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._environment: dict[str, str] = {}

    def send(self, call: Call, handles: list[int]) -> subprocess.Popen[bytes] | None:
        """Have a call begun, by the process that is returned. Raises `ArenaError` where none can be started."""
        content = pickle.dumps(call.watch)
        with self._lock:
            for _ in range(2):
                control = self._started()
                try:
                    socket.send_fds(control, [len(content).to_bytes(8)], handles)
                    control.sendall(content)
                    return self._process
                except OSError:
                    self._stop()
        raise ArenaError(
            "the server of stage processes ends as soon as it is started: run `python -m arena.isolation.server`"
        )

    def stop(self) -> None:
        """End the server, and calls that run."""
        with self._lock:
            self._stop()

    def replace(self, lost: subprocess.Popen[bytes] | None) -> None:
        """Wait until a server that was killed has ended with all below it, so that none of that takes the next call."""
        with self._lock:
            if self._process is lost:
                self._stop()

    def _started(self) -> socket.socket:
        now = {**environment(), "PYTHONPATH": _CODE}
        if self._process is not None and (self._process.poll() is not None or now != self._environment):
            self._stop()
        if self._control is None:
            self._environment = now
            ours, theirs = socket.socketpair()
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _PROGRAM],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=self._environment,
                    cwd="/",
                    start_new_session=True,
                )
            self._control = ours
        return self._control

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            try:
                self._process.wait(_PATIENCE)  # it ends its calls with all that they started
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = self._control = None


_SERVER = _Server()
atexit.register(_SERVER.stop)


class Cancel:
    """Ends a call from another thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._line: socket.socket | None = None
        self.asked = False

    def attach(self, line: socket.socket | None) -> None:
        """The call's line, which is cut when it is to end."""
        with self._lock:
            self._line = line
            if self.asked:
                self._cut()

    def __call__(self) -> None:
        with self._lock:
            self.asked = True
            self._cut()

    def _cut(self) -> None:
        if self._line is not None:
            with contextlib.suppress(OSError):
                self._line.shutdown(socket.SHUT_WR)


def run(call: Call, progress: Callable[[float, str], None] | None = None, cancel: Cancel | None = None) -> Ended:
    """Run a call to its end, in a process of its own, and return how it ended.

    What a plugin reports goes to `progress`. Raises `Lost` where the server was killed.
    """
    content = pickle.dumps(call)
    ours, theirs = socket.socketpair()
    out_read, out_write = os.pipe()
    told_read, told_write = os.pipe()
    call_read, call_write = os.pipe()
    with ours, theirs, os.fdopen(out_read, "rb", 0), os.fdopen(told_read, "rb", 0):
        with contextlib.suppress(BrokenPipeError), os.fdopen(call_write, "wb") as asked:  # its end is heard of below
            try:
                server = _SERVER.send(call, [theirs.fileno(), out_write, told_write, call_read])
            finally:
                for handle in (out_write, told_write, call_read):
                    os.close(handle)
                theirs.close()
            asked.write(content)
        if cancel is not None:
            cancel.attach(ours)
        room = _Room(call.filled, call.limits.written)
        try:
            said, printed, begun = _follow(ours, out_read, told_read, progress, room)
        finally:
            if cancel is not None:
                cancel.attach(None)
    report = json.loads(said) if said else {}
    ended = cancel is not None and cancel.asked
    if not report or (report["reason"] == ABANDONED and not (ended or room.over)):
        _SERVER.replace(server)
        raise Lost("the process that watches over stages was killed")
    code = os.waitstatus_to_exitcode(report["status"])
    reason = "cancelled" if ended else "output" if room.over else report["reason"]
    lived = report["lived"]
    seconds = 0.0 if begun is None else min(lived, report["ended"] - begun)
    return Ended(code, reason, printed, lived, seconds, report["peak_memory_mb"])


def _follow(
    line: socket.socket, output: int, told: int, progress: Callable[[float, str], None] | None, room: _Room
) -> tuple[bytes, str, float | None]:
    """What the server says at the end, nothing if it was killed; what the call printed; and when its function began."""
    printed, said, reported, over = _Printed(), b"", b"", False
    begun: float | None = None
    with selectors.DefaultSelector() as selector:
        for source in (line, output, told):
            selector.register(source, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select(0 if over else room.pause)}
            if not over and not room.over and room.exceeded():
                with contextlib.suppress(OSError):
                    line.shutdown(socket.SHUT_WR)  # the server ends it
            if output in ready:
                part = os.read(output, 2**16)
                printed.add(part)
                if not part:
                    selector.unregister(output)
            if told in ready:
                part = os.read(told, 2**16)
                *lines, reported = (reported + part).split(b"\n")
                reported = reported[-_LINE:]
                if lines and begun is None:  # the first line is the server's
                    begun = float(lines.pop(0))
                if lines and progress is not None:
                    _tell(lines[-1], progress)
                if not part:
                    selector.unregister(told)
            if line in ready:
                part = line.recv(_LINE)
                said += part
                if not part:  # what was printed before the end is still to be read
                    over = True
                    selector.unregister(line)
            elif over and (output not in ready or not said):
                return said, str(printed), begun


class _Room:
    """Looks now and then how much of the disk folders take, which also files do that were never written to."""

    def __init__(self, folders: tuple[Path, ...], limit: int | None) -> None:
        self._folders, self._limit = folders, limit
        self.pause = None if limit is None or not folders else 1.0
        """Seconds from one look to the next."""
        self._next = time.monotonic() + (self.pause or 0)
        self.over = False

    def exceeded(self) -> bool:
        """Whether it is more than the limit, if it is time to look."""
        began = time.monotonic()
        if self.pause is None or self._limit is None or began < self._next:
            return False
        self.over = sum(map(_taken, self._folders)) > self._limit
        now = time.monotonic()
        self.pause = max(1.0, 20 * (now - began))
        self._next = now + self.pause
        return self.over


def _taken(folder: Path) -> int:
    """Bytes of the disk that a folder's files take."""
    total, waiting = 0, [str(folder)]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
    return total


class _Printed:
    """What a call prints: the beginning and the end of it."""

    def __init__(self) -> None:
        self._head, self._tail, self._count = bytearray(), bytearray(), 0

    def add(self, part: bytes) -> None:
        """More of it."""
        self._count += len(part)
        free = KEPT // 2 - len(self._head)
        self._head += part[:free]
        self._tail = (self._tail + part[free:])[-KEPT // 2 :]

    def __str__(self) -> str:
        cut = self._count - len(self._head) - len(self._tail)
        middle = f"\n[{cut} bytes cut]\n".encode() if cut > 0 else b""
        return bytes(self._head + middle + self._tail).decode(errors="replace")


def _tell(line: bytes, progress: Callable[[float, str], None]) -> None:
    with contextlib.suppress(ValueError, TypeError, RecursionError):
        done, note = json.loads(line)
        progress(min(1.0, max(0.0, float(done))), str(note)[:200])
