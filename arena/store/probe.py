"""Whether a disk takes what a store writes: found out by writing, for an error may come from anywhere."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

SMALL, LARGE = 2**16, 2**25
"""Bytes that are written: without a disk that can write so few no stage goes on; so many where a stage spoke of the
disk, since some libraries remove the file that did not fit before anybody can look."""

NEARLY_FULL = 0.05
"""A share of the disk. With less of it free, a stage that found no space is believed."""

_FILES = 64
"""So few files that may still be made are none."""

_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)
_PHRASES = (
    *(os.strerror(number).lower() for number in _ERRNOS),
    *(f"os error {number})" for number in _ERRNOS),  # as libraries written in Rust have it
    *("disk is full", "disk full", "write failed", "pytorchstreamwriter", "inline_container"),
)


def write_some(folder: Path, size: int) -> None:
    """Write a file of `size` bytes into `folder` and remove it. Raises `OSError`."""
    block = os.urandom(min(size, 2**20))  # which no file system can compress away
    with tempfile.NamedTemporaryFile(dir=folder, prefix="try-", buffering=0) as file:
        for _ in range(size // len(block)):
            left = memoryview(block)
            while left:
                left = left[file.write(left) :]
        os.fsync(file.fileno())


def nearly_full(folder: Path) -> bool:
    """Whether hardly anything is free on the disk of `folder`: bytes, or files that may be made."""
    usage = shutil.disk_usage(folder)
    if usage.free < NEARLY_FULL * usage.total:
        return True
    if not hasattr(os, "statvfs"):
        return False
    files = os.statvfs(folder)
    return files.f_files > 0 and files.f_favail < _FILES


def speaks_of_disk(error: BaseException | str) -> bool:
    """Whether an error or a note of it, one that it came from, or a text says that a disk did not take what was
    written."""
    return any(
        (isinstance(one, OSError) and one.errno in _ERRNOS) or any(phrase in _text(one) for phrase in _PHRASES)
        for one in _chain(error)
    )


def _chain(error: BaseException | str) -> Iterator[BaseException | str]:
    seen = set[int]()
    current: BaseException | str | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = None if isinstance(current, str) else current.__cause__ or current.__context__


def _text(error: BaseException | str) -> str:
    try:
        return "\n".join([str(error), *getattr(error, "__notes__", ())]).lower()
    except Exception:  # a plugin's error may not even have a text
        return ""
