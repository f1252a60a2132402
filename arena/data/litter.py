"""What systems and tools leave in a folder of data for their own use, which is none of the data."""

from __future__ import annotations

from pathlib import PurePath

_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini"})
_FOLDERS = frozenset({"@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found"})
"""In lower case, of Windows and of storage devices; that of others is hidden, or begins as Python's caches do."""


def is_data(path: PurePath) -> bool:
    """Whether a file may be data, by its path within a folder: as `datasets` has it, not what is hidden or in a folder
    whose name begins with ``__`` (such as ``__MACOSX``), nor what `datasets` keeps there of its own work; nor what
    other systems leave in folders that somebody looked at."""
    hidden = any(part.startswith(".") for part in path.parts)
    special = any(part.startswith("__") or part.lower() in _FOLDERS for part in path.parent.parts)
    own = path.name.startswith("cache-") and path.suffix == ".arrow"
    return not (hidden or special or own or path.name.lower() in _FILES)
