"""Files below an fsspec URL, of which a store has a mirror."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any


class Remote:
    """The files of a store at a URL, by their place below it."""

    def __init__(self, url: str) -> None:
        import fsspec

        self._files: Any
        self._files, self._root = fsspec.core.url_to_fs(url)

    def read(self, name: str) -> bytes | None:
        """A file's content; None where there is none."""
        try:
            content: bytes = self._files.cat_file(f"{self._root}/{name}")
        except FileNotFoundError:
            return None
        return content

    def fetch(self, name: str, path: Path) -> None:
        """Copy a file here. Raises `FileNotFoundError`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._files.get_file(f"{self._root}/{name}", str(path))

    def send(self, path: Path, name: str) -> None:
        """Copy a file there."""
        self._files.makedirs(f"{self._root}/{name}".rpartition("/")[0], exist_ok=True)
        self._files.put_file(str(path), f"{self._root}/{name}")

    def write(self, name: str, content: bytes) -> None:
        """Write a file there."""
        self._files.makedirs(self._root, exist_ok=True)
        self._files.pipe_file(f"{self._root}/{name}", content)

    def remove(self, name: str) -> None:
        """Remove a file if it is there."""
        with suppress(FileNotFoundError):
            self._files.rm(f"{self._root}/{name}")
