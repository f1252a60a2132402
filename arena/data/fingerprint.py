"""What identifies data in a local folder, so that a changed folder is not taken for the one that was computed with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Self

from pydantic import Field, ModelWrapValidatorHandler, model_validator

from arena.plugins.base import PluginConfig


def folder_fingerprint(path: str) -> str:
    """SHA-256 (hex) over the names and contents of all files of a folder, or of one file; empty if nothing is there."""
    root = Path(path)
    files = [root] if root.is_file() else sorted(_files(root, frozenset()))
    stats = tuple((p.relative_to(root).as_posix(), p.stat().st_size, p.stat().st_mtime_ns) for p in files)
    return _digest(root.absolute(), stats) if stats else ""


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
        with (root / name if name != "." else root).open("rb") as file:
            total.update(name.encode() + b"\0" + hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


class LocalConfig(PluginConfig):
    """Settings of a dataset that may lie in a local folder: the digest of its files becomes one of them, and with it
    part of every key."""

    source: str
    fingerprint: str = Field("", description="digest of a local source; found by itself, and checked where it is given")

    @model_validator(mode="wrap")
    @classmethod
    def _identified(cls, value: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        config = handler(value)
        found = folder_fingerprint(config.source)
        if config.fingerprint not in ("", found):
            raise ValueError(
                f"the files of {config.source!r} are not those of fingerprint {config.fingerprint[:12]}: restore them, "
                "or leave out the fingerprint to take them as they are"
            )
        return config.model_copy(update={"fingerprint": found})
