"""Pictures of files in bounded memory: decoded when their pixels are asked for, given up again when others are."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from arena.errors import ArenaError

SMALL = 2**28
"""Bytes of decoded pictures that are kept where memory is to be spared: five photographs of 12 megapixels."""


class ShelvedImage(Image.Image):
    """A picture whose size and mode are known and whose pixels are read when somebody looks at them.

    What was read last is kept, see `limit`; the rest is read again. It is a picture like any other: whoever changes it
    in place has changed it for good, and keeps it in memory.
    """

    def __init__(self, read: Callable[[], Image.Image], size: tuple[int, int], mode: str) -> None:
        super().__init__()
        self._size, self._mode = size, mode  # as every plugin of Pillow sets them
        self._read = read
        self._kept: Any = None
        self.place: object = None
        """What must live as long as the picture: a temporary folder of files."""
        self.readonly = 1  # Pillow copies before it changes anything in place

    @property
    def im(self) -> Any:
        """Pillow's own core of the picture."""
        return _SHELF.core(self) if self._im is None else self._im

    @im.setter
    def im(self, core: Any) -> None:
        self._im = core

    def load(self) -> Any:
        return self.im.pixel_access(self.readonly)

    def __eq__(self, other: object) -> bool:
        """As pictures that were never on a shelf compare."""
        return (
            isinstance(other, Image.Image)
            and (self.mode, self.size) == (other.mode, other.size)
            and self.tobytes() == other.tobytes()
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return Image.frombytes, (self.mode, self.size, self.tobytes())


class _Shelf:
    """The cores of pictures in the order in which they were last looked at."""

    def __init__(self) -> None:
        self.limit: int | None = None
        self._order: OrderedDict[int, tuple[weakref.ref[ShelvedImage], int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.RLock()

    def core(self, image: ShelvedImage) -> Any:
        with self._lock:
            core = image._kept
            if core is not None:
                self._order.move_to_end(id(image))
                return core
        core = image._read().im  # other threads may look at other pictures meanwhile
        with self._lock:
            if image._kept is None:
                image._kept = core
                self._add(image)
            return core

    def _add(self, image: ShelvedImage) -> None:
        size = image.width * image.height * (1 if image.mode == "L" else 4)
        key = id(image)
        self._order[key] = weakref.ref(image, lambda _: self._forget(key)), size
        self._bytes += size
        while self._bytes > self._room() and len(self._order) > 1:
            oldest = next(iter(self._order))
            if (other := self._order[oldest][0]()) is not None:
                other._kept = None
            self._forget(oldest)

    def _forget(self, key: int) -> None:
        with self._lock:
            if (entry := self._order.pop(key, None)) is not None:
                self._bytes -= entry[1]

    def _room(self) -> int:
        if self.limit is None:
            import psutil

            self.limit = max(SMALL, psutil.virtual_memory().available // 4)
        return self.limit


_SHELF = _Shelf()


def limit(size: int) -> None:
    """How many bytes of decoded pictures this process keeps from now on. Before anybody says so it is a quarter of the
    memory that was available when the first picture was put away."""
    _SHELF.limit = size


def shelved(path: Path, where: str, read: Callable[[], Image.Image]) -> Image.Image:
    """The picture that `read` makes of the file `path`; it is read once now, so that what is wrong with it is found.

    What is read later must be the same file: `ArenaError`, which begins with `where`, if it was changed meanwhile.
    """
    image = read()
    before = _stat(path)

    def again() -> Image.Image:
        if _stat(path) != before:
            raise ArenaError(f"{where} was changed or removed while it was in use: leave files alone until the end")
        return read()

    kept = ShelvedImage(again, image.size, image.mode)
    kept._kept = image.im
    _SHELF._add(kept)
    return kept


def _stat(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
