"""Files as a user sees them whom permissions concern, also where the tests run as root."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

NOBODY = 65534


@contextmanager
def without_rights() -> Iterator[None]:
    """For this thread alone: to change the user of a process waits for all threads, and that of a library which takes
    no signals, as pyarrow's allocator has one, never answers."""
    if os.geteuid() != 0:
        yield
        return
    become = ctypes.CDLL(None).setfsuid
    become(NOBODY)
    try:
        yield
    finally:
        become(0)
