"""Whether it was the user who stopped a session, or a plugin that raised what Ctrl-C raises."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

Progress = Callable[[float, str], None]
"""Told the share done, 0 to 1, and a note."""


class Interrupts:
    """Whether the user stopped what runs in the block; else a `KeyboardInterrupt` there is somebody else's doing."""

    def __init__(self, tell: Progress) -> None:
        self.came = False
        self._tell = tell
        self._before: dict[signal.Signals, Callable[[int, FrameType | None], Any]] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if callable(handler := signal.getsignal(number)):
                    self._before[number] = handler
                    signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.came = True
        self._before[signal.Signals(number)](number, frame)

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def tell(self, done: float, note: str) -> None:
        """Report progress; who listens may stop the run too."""
        try:
            self._tell(done, note)
        except KeyboardInterrupt:
            self.came = True
            raise
