"""What identifies the data that a dataset's settings name: the files of a folder, or the commit of a hub id."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from arena.errors import UsageError
from arena.paths import unreadable
from arena.plugins.base import PluginConfig, setting

_LITTER = frozenset({"thumbs.db", "desktop.ini"})
"""What systems leave in a folder that somebody looked at, beside hidden files; in lower case."""


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


def is_data(path: Path) -> bool:
    """Whether `datasets` may read a file, by its path within a folder: not what is hidden, what a system put there for
    its own use, or what `datasets` keeps there of its own work."""
    hidden = any(part.startswith(".") for part in path.parts)
    return not (hidden or path.name.lower() in _LITTER or (path.name.startswith("cache-") and path.suffix == ".arrow"))


def folder_fingerprint(folder: Path, reads: Callable[[Path], bool] = is_data) -> str:
    """SHA-256 (hex) over names and contents of the files of a folder, also behind links; of those alone whose path
    within the folder `reads` is true of, so that data stay the same data when somebody looks at the folder. Raises
    `ArenaError` naming what cannot be read."""
    try:
        files = sorted(path for path in _files(folder, frozenset()) if reads(path.relative_to(folder)))
        stats = tuple((p.relative_to(folder).as_posix(), p.stat().st_size, p.stat().st_mtime_ns) for p in files)
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
