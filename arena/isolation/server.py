"""The server that processes of plugins are forked from: started once, with slow libraries loaded and no plugin in it.

No plugin's code runs in the server, and it never learns what a call is about: that goes to the call's process alone,
since every process has the server's memory. It watches each call's time, memory, writing and number of processes, and
ends all that the call started when the call ends, or when nobody waits for it any more. Should the server itself be
killed, a guardian, the process above it, ends what is left.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import importlib
import json
import os
import pickle
import resource
import select
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import psutil

from arena.isolation import landlock
from arena.isolation.surroundings import devices, has_accelerator, listed, private, readable

_DEATH_SIGNAL, _SUBREAPER, _NO_NEW_PRIVILEGES = 1, 36, 38
_NEW_IPC = 0x08000000
_GRACE = 5.0
"""Seconds beyond its time limit that a process has to say where it was."""
_LOOK = 0.2
PROCESSES = 256
"""How many a call may have at a time."""
_FILES = 4096


@dataclass(frozen=True)
class Limits:
    """What a call may take: seconds, bytes of memory, bytes that it writes; None without a limit."""

    seconds: float | None = None
    memory: int | None = None
    written: int | None = None


@dataclass(frozen=True)
class Call:
    """A function of ours, ``module:name``, with plain arguments, and what its process may see: a folder of its own,
    files to read, folders to write to, and the network if need be."""

    function: str
    arguments: tuple[Any, ...]
    home: Path
    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()
    network: bool = False
    preload: tuple[str, ...] = ()
    limits: Limits = Limits()
    filled: tuple[Path, ...] = ()
    """Folders of its own, whose content counts as written, whatever way it came there."""
    environment: dict[str, str] = field(default_factory=dict)
    path: tuple[str, ...] = field(default_factory=lambda: tuple(str(Path(e or ".").absolute()) for e in sys.path))
    """Where modules are looked for."""
    folder: Path = field(default_factory=Path.cwd)
    """What relative names are relative to."""
    firewall: bool = True

    @property
    def watch(self) -> Watch:
        """What the server is told."""
        modules = (self.function.partition(":")[0], *self.preload)
        return Watch(tuple(m for m in modules if m in _LEAVES_CUDA or not has_accelerator()), self.limits)


@dataclass(frozen=True)
class Watch:
    """What the server knows of a call: modules that its process is to find loaded, and its limits."""

    modules: tuple[str, ...]
    limits: Limits


_LEAVES_CUDA = frozenset({"torch"})
"""What may be loaded before processes are forked that use a GPU. CUDA works in none whose parent has begun it, and
importing peft begins it, by way of bitsandbytes."""

ABANDONED = "nobody waits for it"
"""Why a call was ended whose line was cut, or whose server had to stop."""

HANDLES = 4
"""What comes with a call: the socket of whoever waits for it, pipes for what it prints and reports, and one that the
pickled `Call` is read from."""


def main() -> None:
    """Serve the socket that is standard input until its other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: whoever waits for the calls decides
    guardian = os.getpid()
    _prctl(_SUBREAPER, 1)
    if server := os.fork():
        _guard(server)
    _prctl(_SUBREAPER, 1)  # which a fork does not pass on
    handles = _Server(socket.socket(fileno=0), guardian).serve()
    if handles is not None:  # in a call's process, where nothing of the server's is held any more
        _inside(*handles)
    os._exit(0)  # at once, whatever was loaded


@dataclass
class _Running:
    """A call that runs: its process, the socket of whoever waits for it, when it began, and why it is being ended."""

    limits: Limits
    child: int
    line: int
    pidfd: int | None
    started: float
    reason: str | None = None


class _Server:
    """Forks calls and watches over them. What a call's process starts becomes a child of the server when its parent
    ends, whatever session it is in."""

    def __init__(self, control: socket.socket, guardian: int) -> None:
        self._control = control
        self._guardian = guardian
        self._calls: dict[int, _Running] = {}
        """By process."""
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN | select.POLLHUP)
        self._looked = 0.0

    def serve(self) -> tuple[int, int, int] | None:
        """Until nobody is there to ask for calls; those that run are ended then. Returns once more in the process of
        every call, with the handles for what it prints and reports and of its content."""
        while True:
            timeout = _LOOK * 1000 if self._calls else None
            if self._calls and any(r.pidfd is None for r in self._calls.values()):
                timeout = 10
            ready = {handle for handle, _ in self._poll.poll(timeout)}
            self._reap()
            for running in list(self._calls.values()):
                if running.line in ready:
                    self._end(running, ABANDONED)
            now = time.monotonic()
            if now - self._looked >= _LOOK:
                self._looked = now
                self._look(now)
                if os.getppid() != self._guardian:  # who would end what is left, should this process be killed too
                    break
            if self._control.fileno() in ready:
                begun = self._begin()
                if begun is None:
                    break
                if isinstance(begun, tuple):
                    return begun
        for running in list(self._calls.values()):
            self._end(running, ABANDONED)
        deadline = time.monotonic() + _GRACE
        while self._calls and time.monotonic() < deadline:
            self._reap()
            time.sleep(0.01)
        return None

    def _begin(self) -> int | tuple[int, int, int] | None:
        """Take a call and fork its process, whose number is returned, None if there is no call; in that process what
        `serve` returns."""
        header, handles, _, _ = socket.recv_fds(self._control, 8, HANDLES)
        if len(header) < 8:
            return None
        watch: Watch = pickle.loads(_exactly(self._control, int.from_bytes(header)))  # noqa: S301  # from who started us
        before = len(sys.modules)
        for module in watch.modules:
            with contextlib.suppress(Exception):
                importlib.import_module(module)
        if len(sys.modules) != before:  # so that no process copies what its garbage collector looks through
            gc.collect()
            gc.freeze()
        line, output, progress, content = handles
        child = os.fork()
        if child == 0:
            self._control.detach()  # its handle is another's soon
            return output, progress, content
        for handle in (output, progress, content):
            os.close(handle)
        try:
            pidfd = os.pidfd_open(child)
            self._poll.register(pidfd, select.POLLIN)
        except (AttributeError, OSError):  # not every system has them
            pidfd = None
        self._poll.register(line, select.POLLIN | select.POLLHUP)
        self._calls[child] = _Running(watch.limits, child, line, pidfd, time.monotonic())
        return child

    def _reap(self) -> None:
        """See which processes ended; what a call left behind is killed before anybody hears of its end."""
        while True:
            try:
                child, status, used = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not child:
                return
            running = self._calls.pop(child, None)
            if running is None:
                continue
            self._clear(child)
            self._poll.unregister(running.line)
            if running.pidfd is not None:
                self._poll.unregister(running.pidfd)
                os.close(running.pidfd)
            report = {
                "status": status,
                "reason": running.reason,
                "lived": time.monotonic() - running.started,
                "ended": time.monotonic(),
                "peak_memory_mb": used.ru_maxrss / MAXRSS,
            }
            with contextlib.suppress(OSError):
                os.write(running.line, json.dumps(report).encode())
            os.close(running.line)

    def _clear(self, ended: int) -> None:
        """Kill the group of a call that ended, and what became a child of the server, which only descendants of calls
        do that have ended: until then they fall to their call's process."""
        _kill_group(ended)
        deadline = time.monotonic() + _GRACE
        while (orphans := _children(os.getpid()) - self._calls.keys()) and time.monotonic() < deadline:
            _kill(orphans)
            for process in orphans:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(process, os.WNOHANG)

    def _end(self, running: _Running, reason: str) -> None:
        if running.reason is None:
            running.reason = reason
            _kill_group(running.child)  # at one stroke; who left the group is cleared away with the end
            _signal(running.child, signal.SIGKILL)

    def _look(self, now: float) -> None:
        """End calls that are beyond a limit, and whatever has left the descendants of its call's process: it would not
        be counted."""
        _kill(_children(os.getpid()) - self._calls.keys())
        for running in list(self._calls.values()):
            limits = running.limits
            if limits.seconds is not None and now - running.started > limits.seconds + _GRACE:
                self._end(running, "time")
            elif reason := _excess(running.child, limits):
                self._end(running, reason)


def _guard(server: int) -> NoReturn:
    """Wait until the server has ended, and end what it left behind, which has fallen to this process."""
    os.close(0)  # the socket is the server's
    while os.wait()[0] != server:
        pass
    deadline = time.monotonic() + _GRACE
    while (left := _children(os.getpid())) and time.monotonic() < deadline:
        _kill(left)
        for process in left:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process, os.WNOHANG)
    os._exit(0)


MAXRSS = 2**20 if sys.platform == "darwin" else 2**10
"""Units of `ru_maxrss` in a megabyte."""


def _kill_group(group: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(group, signal.SIGKILL)


def _signal(process: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(process, number)


def _kill(processes: set[int]) -> None:
    """Kill processes and all below them; first all are stopped, so that they start no more."""
    stopped = set[int]()
    while fresh := _with_descendants(processes) - stopped:
        for process in fresh:
            _signal(process, signal.SIGSTOP)
        stopped |= fresh
    for process in stopped:
        _signal(process, signal.SIGKILL)


def _with_descendants(processes: set[int]) -> set[int]:
    found = set(processes)
    waiting = list(processes)
    while waiting:
        fresh = _children(waiting.pop()) - found
        found |= fresh
        waiting += fresh
    return found


_CHILDREN = Path(f"/proc/self/task/{os.getpid()}/children").exists()
"""Whether the kernel lists them, so that not all processes of the machine have to be looked at."""


def _children(process: int) -> set[int]:
    try:
        if not _CHILDREN:
            return {child.pid for child in psutil.Process(process).children()}
        threads = Path(f"/proc/{process}/task").iterdir()
        return {int(child) for thread in threads for child in (thread / "children").read_text("ascii").split()}
    except (OSError, psutil.Error):  # it ended
        return set()


def _excess(child: int, limits: Limits) -> str | None:
    """Which limit a process and its descendants together are beyond."""
    family = []
    for process in _with_descendants({child}):
        with contextlib.suppress(psutil.Error):
            family.append(psutil.Process(process))
    if len(family) > PROCESSES:
        return "processes"
    taken = written = 0
    for each in family:
        with contextlib.suppress(psutil.Error):
            if limits.memory is not None:
                taken += each.memory_info().rss
            if limits.written is not None and hasattr(each, "io_counters"):  # of its children that ended too
                counted = each.io_counters()
                written += max(counted.write_bytes, getattr(counted, "write_chars", 0))
    if limits.memory is not None and taken > limits.memory and _shared_out(family) > limits.memory:
        return "memory"
    if limits.written is not None and written > limits.written:
        return "output"
    return None


def _shared_out(family: list[psutil.Process]) -> int:
    """Memory of processes together, where pages that several have count once; which takes a while to find out."""
    total = 0
    for each in family:
        with contextlib.suppress(psutil.Error):
            found = each.memory_full_info()
            total += getattr(found, "pss", found.uss)
    return total


def _exactly(control: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = control.recv(size - len(parts))
        if not part:
            os._exit(1)
        parts += part
    return bytes(parts)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


# The call's process


def _inside(output: int, progress: int, content: int) -> NoReturn:
    """Run a call's function in this process, which is left afterwards; what it prints goes to `output`."""
    code = 70
    try:
        _prctl(_DEATH_SIGNAL, signal.SIGKILL)
        _prctl(_SUBREAPER, 1)  # what its children leave behind stays below it, and is counted
        _prctl(_NO_NEW_PRIVILEGES, 1)
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with open(content, "rb") as file:
            call: Call = pickle.load(file)  # noqa: S301  # from the process that started the server
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        kept = os.dup2(progress, 3, inheritable=False)
        os.closerange(4, 65536)
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stdout = open(1, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
        sys.argv = [""]
        sys.path[:] = call.path
        os.environ.update({**call.environment, **private(call.home)})  # whose PYTHONPATH is that path
        tempfile.tempdir = None  # what the server loaded has asked for it before
        importlib.invalidate_caches()
        with contextlib.suppress(OSError):
            os.chdir(call.folder)
        _limit(call.limits)
        faulthandler.enable(sys.stderr)
        if call.firewall:
            _wall(call)
        if call.limits.seconds is not None:  # C code: it fires even while a plugin holds the interpreter lock
            faulthandler.dump_traceback_later(call.limits.seconds, exit=True, file=sys.stderr)
        module, _, name = call.function.partition(":")
        function = getattr(importlib.import_module(module), name)
        os.write(kept, f"{time.monotonic()}\n".encode())
        function(*call.arguments, _Reporter(kept))
        code = 0
    except BaseException:  # the function says itself what went wrong in a plugin; this is a fault of ours
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _wall(call: Call) -> None:
    """Keep this process to what the call may see. Raises `RuntimeError` where another thread would be left outside."""
    _unshare(_NEW_IPC)  # where we may: shared memory, semaphores and queues that have no place in the file system
    if not landlock.version():
        return
    own = Path(f"/proc/{os.getpid()}")
    if sum(1 for _ in (own / "task").iterdir()) != 1:
        raise RuntimeError("a thread was started before the firewall, which holds for one thread and what it starts")
    landlock.restrict(
        [*readable(call.network), own, *call.read],
        [*devices(), call.home, *call.write],
        listed(),
        call.network,
    )


def _unshare(what: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).unshare(what)


def nothing(tell: Callable[[float, str], None]) -> None:
    """A call that does nothing, by which it can be measured what a call costs."""


def _limit(limits: Limits) -> None:
    def lower(kind: int, value: int) -> None:
        hard = resource.getrlimit(kind)[1]
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (bound, bound))

    lower(resource.RLIMIT_CORE, 0)
    lower(resource.RLIMIT_NOFILE, _FILES)
    if limits.written is not None:
        lower(resource.RLIMIT_FSIZE, limits.written)
    if limits.memory is not None and sys.platform == "linux" and not has_accelerator():
        lower(resource.RLIMIT_DATA, limits.memory)  # drivers of accelerators map more than they use: watched alone


class _Reporter:
    """Sends what a plugin reports, a line of JSON at a time; a reader that is gone is no news."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def __call__(self, done: float, note: str) -> None:
        text = json.dumps([float(done), str(note)[:200]]) + "\n"
        with contextlib.suppress(OSError):
            os.write(self._handle, text.encode())


if __name__ == "__main__":
    main()
