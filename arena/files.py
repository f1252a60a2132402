"""Writing files so that they are there whole or not at all, and never over somebody else's."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from arena.errors import ArenaError

_HEAD = 4096
"""Bytes of a file that say what it is."""


@contextmanager
def atomically(path: Path) -> Iterator[Path]:
    """A new file beside `path` to write to, which takes its place when the block ends without an error: whoever reads
    it meanwhile, and whoever is left after a power cut, has the old content or the new. Missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.")
    os.close(descriptor)
    partial = Path(name)
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file)
        partial.chmod(0o644)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file in one step, see `atomically`. Raises `OSError`; what was there is then untouched."""
    with atomically(path) as partial:
        partial.write_bytes(content)


def refuse_foreign(path: Path, what: str, *marks: bytes) -> None:
    """Raise `ArenaError` where `path` is there and is not `what`, which has all of `marks` among its first bytes, so
    that it must not be written over. An empty file may."""
    head, ours = b"", True
    try:
        if path.is_file():
            with path.open("rb") as file:
                head = file.read(_HEAD)
        else:  # a folder, a device, a link that leads nowhere
            ours = not os.path.lexists(path)
    except OSError as error:
        raise ArenaError(f"{path} is there and cannot be read ({error.strerror}): name another file") from error
    if not ours or (head and not all(mark in head for mark in marks)):
        raise ArenaError(f"{path} is there and is not {what}: it is left as it is. Move it away, or name another file")
