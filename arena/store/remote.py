"""Files below an fsspec URL, of which a store has a mirror."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from arena.store.trouble import FULL, OTHER, StoreError, WrongStore

_HERE = (*FULL, errno.EROFS)
"""Errors of the disk that a file is fetched to, not of the network."""


class Remote:
    """The files of a store at a URL, by their place below it. Whatever a file system of fsspec raises becomes a
    `StoreError`, but for a file that is not there."""

    def __init__(self, url: str) -> None:
        import fsspec

        self._url = url
        self._files: Any
        try:
            self._files, self._root = fsspec.core.url_to_fs(url)
        except ImportError as error:
            raise WrongStore(f"store {url}: {_said(error)}. Install that package, or {OTHER}") from error
        except ValueError as error:
            raise WrongStore(f"store {url}: {_said(error)}. Give a folder or a URL that fsspec reads") from error
        except Exception as error:  # packages of file systems raise their own
            raise self._lost(error) from error

    def read(self, name: str) -> bytes | None:
        """A file's content; None where there is none."""
        with suppress(FileNotFoundError), self._asking():
            content: bytes = self._files.cat_file(f"{self._root}/{name}")
            return content
        return None

    def fetch(self, name: str, path: Path) -> None:
        """Copy a file here. Raises `FileNotFoundError`, and `OSError` where the disk here is full."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._asking():
            self._files.get_file(f"{self._root}/{name}", str(path))

    def send(self, path: Path, name: str) -> None:
        """Copy a file there."""
        with self._sending():
            self._files.makedirs(f"{self._root}/{name}".rpartition("/")[0], exist_ok=True)
            self._files.put_file(str(path), f"{self._root}/{name}")

    def write(self, name: str, content: bytes) -> None:
        """Write a file there."""
        with self._sending():
            self._files.makedirs(self._root, exist_ok=True)
            self._files.pipe_file(f"{self._root}/{name}", content)

    def remove(self, name: str) -> None:
        """Remove a file if it is there."""
        with suppress(FileNotFoundError), self._asking():
            self._files.rm(f"{self._root}/{name}")

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _HERE:
                raise
            raise self._lost(error) from error

    @contextmanager
    def _sending(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise self._lost(error) from error

    def _lost(self, error: Exception) -> StoreError:
        return StoreError(
            f"store {self._url}: it does not answer as it should ({type(error).__name__}: {_said(error)}). Check the "
            f"network, the address and your permission, or {OTHER}, then run again: what is finished is kept in its "
            "mirror here, and sent then"
        )


def _said(error: Exception) -> str:
    """The first line of what an error says, not too long."""
    line = (str(error).strip() or "it does not say why").splitlines()[0]
    return line if len(line) <= 300 else f"{line[:300]}…"
