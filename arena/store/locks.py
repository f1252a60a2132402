"""Named locks of a folder, whose files are there only while somebody holds them.

Removing the file of a lock is dangerous: whoever opened it before holds another file than whoever makes it anew, and
both believe to be alone. So files are opened, locked and removed behind a gate, one more lock that all take for that
moment: nobody has a file open outside of it but the holder. These are kernel locks: the death of a holder, however
sudden, releases them; its file stays until the name is taken again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

_SUFFIX = ".lock"
_GATE = "gate"


class Held:
    """A lock that is held, until `give`. `exclusive` is False where the file system has no locks."""

    def __init__(self, locks: Locks, lock: BaseFileLock | None) -> None:
        self._locks, self._lock = locks, lock
        self.exclusive = lock is not None

    def give(self) -> None:
        """Release it and remove its file."""
        lock, self._lock = self._lock, None
        if lock is None:
            return
        try:
            with suppress(OSError), self._locks.gate():  # without the gate the file stays, which is no harm
                Path(lock.lock_file).unlink(missing_ok=True)
                lock.release()
        finally:
            lock.release()


class Locks:
    """The locks in `folder`, which is made when the first is taken."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def take(self, name: str) -> Held | None:
        """The lock of that name, None where another holds it. Raises `OSError` where its file cannot be made."""
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            with self.gate():
                lock = FileLock(self._folder / f"{name}{_SUFFIX}")
                try:
                    lock.acquire(timeout=0)
                except Timeout:
                    return None
        except NotImplementedError:
            return Held(self, None)
        return Held(self, lock)

    def names(self) -> list[str]:
        """Names of locks that are held, or that were by a process that was killed."""
        return sorted(path.name.removesuffix(_SUFFIX) for path in self._folder.glob(f"*{_SUFFIX}"))

    @contextmanager
    def gate(self) -> Iterator[None]:
        """Alone with the files of the locks."""
        with FileLock(self._folder / _GATE).acquire(poll_interval=0.005):
            yield
