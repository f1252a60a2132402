"""What identifies the data that a dataset's settings name: the files of a folder, or the commit of a hub id."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from arena.data.litter import is_data
from arena.errors import UsageError
from arena.paths import unreadable
from arena.plugins.base import PluginConfig, setting


class LocalConfig(PluginConfig):
    """Settings of a dataset that may lie in a local folder.

    What the data are is found out by `Dataset.fingerprint`, so that neither their place nor the setting `fingerprint`
    is part of what a cell is.
    """

    source: str
    fingerprint: str = setting(
        "", runtime=True, description="what `source` must be: digest of a folder, or id@commit; empty takes it as it is"
    )

    def identified(self, found: str) -> str:
        """`found`, what the data are. Raises `UsageError` if they were to be others."""
        if self.fingerprint not in ("", found):
            raise UsageError(
                f"the data of {self.source!r} are not those of fingerprint {self.fingerprint[:12]!r}, but of "
                f"{found!r}: restore them, or leave out the fingerprint to take them as they are"
            )
        return found


def folder_fingerprint(folder: Path) -> str:
    """SHA-256 (hex) over names and contents of the files of a folder that may be data, also behind links. Raises
    `ArenaError` naming what cannot be read."""
    try:
        files = [path for path in _files(folder, frozenset()) if is_data(path.relative_to(folder))]
    except OSError as error:
        raise unreadable(error.filename or folder, error) from error
    return files_fingerprint(folder, files)


def files_fingerprint(folder: Path, files: Iterable[Path]) -> str:
    """SHA-256 (hex) over names within `folder` and contents of `files` alone, so that data stay the same data whatever
    else lies there. Raises `ArenaError` naming what cannot be read."""
    try:
        names = sorted((path.relative_to(folder), path.stat()) for path in files)
        stats = tuple((name.as_posix(), status.st_size, status.st_mtime_ns) for name, status in names)
        return _digest(folder.absolute(), stats)
    except OSError as error:
        raise unreadable(error.filename or folder, error) from error


def _files(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    """All files below a folder, also by links to folders; none of those that it is reached through, for they are
    endless."""
    if not folder.is_dir() or (here := folder.resolve()) in above:
        return
    for path in folder.iterdir():
        if path.is_file():
            yield path
        else:
            yield from _files(path, above | {here})


@cache
def _digest(root: Path, files: tuple[tuple[str, int, int], ...]) -> str:
    total = hashlib.sha256()
    for name, _, _ in files:
        with (root / name).open("rb") as file:
            total.update(name.encode() + b"\0" + hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()
