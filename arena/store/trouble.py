"""What is wrong with a store, as one paragraph: the place, the cause, the remedy."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from arena.errors import ArenaError, UsageError

FULL = (errno.ENOSPC, errno.EDQUOT)
"""How an operating system says that a disk is full, or that one's share of it is."""

OTHER = "name another store (--store, ARENA_STORE)"

_CAUSES = {
    **dict.fromkeys(FULL, f"the disk is full; free some space, of bytes and of files, or {OTHER}, then run again"),
    errno.EROFS: f"the disk cannot be written; make it writable or {OTHER}",
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM), f"it cannot be read or written by you; change its permissions or {OTHER}"
    ),
    **dict.fromkeys(
        (errno.ENOTDIR, errno.EEXIST), f"it cannot be written, a file is where a folder should be; {OTHER}"
    ),
    errno.ENAMETOOLONG: f"the name is too long; {OTHER}",
    errno.ELOOP: f"a link in its path leads back to itself; mend the link or {OTHER}",
}


class StoreError(ArenaError):
    """The store itself cannot be used (full, unwritable, out of reach, another schema version): it ends the run, not a
    cell."""


class WrongStore(StoreError, UsageError):
    """What was named cannot be a store."""


class MissingArtifact(ArenaError):
    """An artifact that was there when the plan was made is gone or corrupt; `key` names it."""

    def __init__(self, key: str) -> None:
        super().__init__(f"store: artifact {key[:12]} is missing or corrupt; run again to compute it anew")
        self.key = key

    def __reduce__(self) -> tuple[type[MissingArtifact], tuple[str]]:
        return type(self), (self.key,)


def trouble(url: str, error: OSError) -> StoreError:
    """The paragraph for an error of the operating system at the store `url`."""
    cause = _CAUSES.get(error.errno or 0, f"the disk does not do what is asked of it; check it or {OTHER}")
    said = os.strerror(error.errno) if error.errno else str(error)
    places = ", ".join(os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes))
    return StoreError(f"store {url}: {cause}. What is finished is kept. ({said}{f': {places}' if places else ''})")


@contextmanager
def guarded(url: str) -> Iterator[None]:
    """A block in which whatever the operating system refuses is the store's trouble."""
    try:
        yield
    except OSError as error:
        raise trouble(url, error) from error
