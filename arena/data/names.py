"""The files of a folder, found by names as other systems write them."""

from __future__ import annotations

import os
import unicodedata
from functools import cached_property
from pathlib import Path, PurePosixPath

from arena.data.litter import is_data


class Names:
    """Finds the files of a folder by names as they are written elsewhere: a name is the same in composed and decomposed
    Unicode (NFC, NFD), in upper and lower case, and with backslashes, where only one file is meant by it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, file: str) -> Path | None:
        """The file of that very name, else the only one of a name that is the same; None where there is none."""
        path = self.folder / file
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError, ValueError):
            like = self.like(file)
            return self.folder / like[0] if len(like) == 1 else None
        except OSError:  # said when it is read
            pass
        return path

    def like(self, file: str) -> list[str]:
        """All files of names that are the same."""
        return self._same.get(folded(file), [])

    @cached_property
    def listed(self) -> list[str]:
        """The files below the folder as relative paths, without what systems and tools keep there for themselves."""
        found: list[str] = []
        for place, folders, files in os.walk(self.folder):
            here = Path(place).relative_to(self.folder)
            folders[:] = sorted(name for name in folders if is_data(here / name / "_"))
            found += [(here / name).as_posix() for name in sorted(files) if is_data(here / name)]
        return found

    @cached_property
    def _same(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for file in self.listed:
            found.setdefault(folded(file), []).append(file)
        return found


def folded(file: str) -> str:
    """What all spellings of a name have in common."""
    path = PurePosixPath(file.replace("\\", "/")).as_posix()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
