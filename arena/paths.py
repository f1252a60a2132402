"""Paths that users name: whether something is there, or why that cannot be seen; and where this user's caches are."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import platformdirs

from arena.errors import ArenaError, UsageError
from arena.text import shortened


def cache_directory() -> Path:
    """Where this user's caches are."""
    return platformdirs.user_cache_path("mmguard-arena", appauthor=False)


def exists(path: Path | str) -> bool:
    """Whether something is there. Raises `UsageError` where that cannot be seen: a name too long, links in a circle, a
    folder that may not be entered."""
    return _status(path) is not None


def is_file(path: Path | str) -> bool:
    """Whether a file is there; raises as `exists`."""
    found = _status(path)
    return found is not None and stat.S_ISREG(found.st_mode)


def is_folder(path: Path | str) -> bool:
    """Whether a folder is there; raises as `exists`."""
    found = _status(path)
    return found is not None and stat.S_ISDIR(found.st_mode)


def unreadable(path: Path | str, error: OSError) -> ArenaError:
    """What to say of a file or folder that is there and cannot be read."""
    return ArenaError(f"{shortened(str(path), 400)} cannot be read ({_reason(error)}): check its permissions and disk")


def _status(path: Path | str) -> os.stat_result | None:
    try:
        return os.stat(path)  # noqa: PTH116  # pathlib's own tests answer False to some of these errors
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise UsageError(f"{shortened(str(path), 400)} cannot be used ({_reason(error)}): name another path") from error


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)
