"""Artifacts in a folder, each in its place, checked whenever somebody looks, and set aside where they are damaged."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from arena.store.manifest import MANIFEST, Manifest, digest_file, place, read_manifest
from arena.store.trouble import guarded, trouble

_UNFINISHED = ("partial", "stages")
"""Folders of what is being made, by the key that is claimed meanwhile."""

_WRITTEN_ELSEWHERE = (errno.EEXIST, errno.ENOTEMPTY)

log = logging.getLogger("arena.store.local")


class Folder:
    """The artifacts below `root`, which messages call `url`."""

    def __init__(self, root: Path, url: str) -> None:
        self.root, self._url = root, url
        self._checked: dict[str, object] = {}
        """By key the sizes and times of files whose digests were right."""

    def path(self, key: str) -> Path:
        """Where an artifact is, if it is there."""
        return self.root / place(key, "")

    def manifest(self, key: str) -> Manifest | None:
        """The manifest of an artifact whose files are there in full; a corrupt one is set aside."""
        folder = self.path(key)
        with guarded(self._url):
            try:
                manifest = read_manifest((folder / MANIFEST).read_bytes(), key)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                if os.path.lexists(folder):
                    self._set_aside(key, "it has no manifest")
                return None
            except ValueError as error:
                self._set_aside(key, f"its manifest is unreadable ({error})")
                return None
            for name, entry in manifest.files.items():
                path = folder / name
                if not path.is_file() or path.stat().st_size != entry.size:
                    self._set_aside(key, f"{name} is missing or truncated")
                    return None
        return manifest

    def verify(self, key: str) -> bool:
        """Whether an artifact is there and every file of it has the digest its manifest says; a corrupt one is set
        aside. Files that did not change since this object last looked are not read again."""
        manifest = self.manifest(key)
        if manifest is None:
            return False
        folder = self.path(key)
        with guarded(self._url):
            seen = [manifest.digest, *(_state(folder / name) for name in manifest.files)]
            if self._checked.get(key) == seen:
                return True
            for name, entry in manifest.files.items():
                if digest_file(folder / name) != entry.sha256:
                    self._set_aside(key, f"{name} has changed")
                    return False
        self._checked[key] = seen
        return True

    def manifests(self) -> Iterator[Manifest]:
        """Every readable manifest, in no order."""
        for path in self.root.glob(f"??/*/{MANIFEST}"):
            with suppress(OSError, ValueError):
                yield read_manifest(path.read_bytes(), path.parent.name)

    def new_partial(self, name: str) -> Path:
        """A folder to write an artifact into."""
        (self.root / "partial").mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.root / "partial"))

    def publish(self, partial: Path, key: str) -> None:
        """Move what was written to its place, unless a sound artifact is there. Raises `OSError`."""
        final = self.path(key)
        final.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(2):
            try:
                partial.rename(final)
                return
            except OSError as error:
                if error.errno not in _WRITTEN_ELSEWHERE:
                    raise
            if self.manifest(key) is not None:  # one that is corrupt is now out of the way
                return
        raise trouble(self._url, FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final)))

    def remove_leftovers(self, key: str) -> None:
        """Remove what was being made of an artifact, of which nobody else holds the claim."""
        for folder in _UNFINISHED:
            for leftover in (self.root / folder).glob(f"{key}-*"):
                shutil.rmtree(leftover, ignore_errors=True)

    def _set_aside(self, key: str, why: str) -> None:
        aside = self.root / "corrupt" / f"{key}-{time.time_ns()}"
        log.warning(
            "artifact %s is corrupt: %s. It is set aside at %s and will be computed anew.", key[:12], why, aside
        )
        aside.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            self.path(key).rename(aside)


def _state(path: Path) -> tuple[int, ...]:
    """What changes when a file is written."""
    about = path.stat()
    return about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns
