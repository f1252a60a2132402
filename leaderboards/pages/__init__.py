"""Pages about what suites measured: what a page is, and how one is found.

A page is a subclass of `EvidencePage` under an entry point of the group `mmguard_arena.pages`; ``arena evidence
FOLDER/NAME.md`` writes the one whose entry point is called NAME. Pages of other packages work the same.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import ClassVar

from arena.errors import UsageError
from arena.records.schema import Record
from leaderboards.site.files import write_file
from leaderboards.site.text import wrapped

GROUP = "mmguard_arena.pages"

SuiteRecords = Mapping[str, Sequence[Record]]
"""Records by the id of their suite; an optional suite without records is left out."""


class EvidencePage(ABC):
    """A page in Markdown, made from records; what suites ask for may be said beside them.

    `suites` are the ids of the suites whose records it needs, `optional` those that it uses where they have been run,
    of either all cells of three seeds at least, and no other seeds, unless `of_parts` says that it is made of those
    cells that there are. `findings` is a file of dated prose that it shows (see `leaderboards.site.findings`), or None.
    """

    suites: ClassVar[tuple[str, ...]]
    optional: ClassVar[tuple[str, ...]] = ()
    of_parts: ClassVar[bool] = False
    findings: ClassVar[Path | None] = None

    @abstractmethod
    def make(self, records: SuiteRecords, findings: Path | None) -> str:
        """The page, with the prose of the file `findings`, or without any where that is None.

        Raises:
            ArenaError: the records do not belong together, or the findings name a cell that is not among them.
        """


def find_page(file: str) -> EvidencePage:
    """The page of a file's name, such as ``attacks.md``; imports that page alone.

    Raises:
        UsageError: no page is called so, or it cannot be used; the message says why, or what comes near it.
    """
    pages: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        pages.setdefault(f"{point.name}.md", []).append(point)
    claims = pages.get(file)
    if claims is None:
        near = difflib.get_close_matches(file.lower(), pages, n=3, cutoff=0.6)
        meant = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise UsageError(f"no page is called {file!r}{meant} (pages: {', '.join(sorted(pages)) or 'none'})")
    if len(claims) > 1:
        packages = " and ".join(sorted(_package(point) for point in claims))
        raise UsageError(f"page {file!r} is declared by {packages}: uninstall one of them, or rename its entry point")
    return _load(file, claims[0])


def write_page(page: EvidencePage, records: SuiteRecords, path: Path, findings: bool = True) -> Path:
    """Write the page to `path` in one step and return the path; without its prose about results unless `findings`.

    Raises:
        ArenaError: see `EvidencePage.make`; or the file could not be written, and the old one is untouched.
    """
    text = wrapped(page.make(records, page.findings if findings else None))
    return write_file(path, text.encode(), "page")


def _load(file: str, point: EntryPoint) -> EvidencePage:
    where = f"page {file!r} of package {_package(point)}"
    try:
        page = point.load()
    except Exception as error:
        raise UsageError(f"{where}: {point.value!r} cannot be imported: {type(error).__name__}: {error}") from error
    if not (isinstance(page, type) and issubclass(page, EvidencePage)):
        raise UsageError(f"{where}: {point.value!r} is not a subclass of leaderboards.pages.EvidencePage")
    missing = sorted(page.__abstractmethods__) + ([] if hasattr(page, "suites") else ["suites"])
    if missing:
        raise UsageError(f"{where}: {point.value!r} does not define {', '.join(missing)}")
    return page()


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "unknown"
