"""Boards and pages written in one step."""

from __future__ import annotations

from pathlib import Path

from arena.errors import ArenaError
from arena.files import write_atomically


def write_file(path: Path, content: bytes, what: str) -> Path:
    """Write `content` to `path` in one step, making its folder, and return the path.

    Raises:
        ArenaError: the file could not be written; the message begins with `what`, and the old file is untouched.
    """
    try:
        write_atomically(path, content)
    except OSError as error:
        raise ArenaError(
            f"{what}: could not write {path} ({error}): see that its folder can be written and has space, or choose "
            "another"
        ) from error
    return path
