"""Earlier runs of `arena protect`: what of an owner's pictures they have protected or released already."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from arena.errors import ArenaError
from arena.owner.report import FILE, Report, read_report
from arena.owner.seen import Seen
from arena.text import shortened

FOLDERS = 200
"""Neighbouring folders in which reports are looked for, at most."""


def earlier_runs(source: str, out: Path) -> Iterator[tuple[Path, Report]]:
    """Folders with the report of another run of `arena protect`, and the reports: the one that `source` lies in, and
    the neighbours of source and output."""
    places = [out.parent]
    if Path(source).exists():
        places += [Path(source).parent, Path(source).parent.parent]
    shown: set[Path] = set()
    for place in places:
        try:
            inside = sorted(path for path in place.iterdir() if path.is_dir())[:FOLDERS]
        except OSError:
            continue
        for folder in (place, *inside):
            if folder.resolve() in shown or folder.resolve() == out.resolve():
                continue
            shown.add(folder.resolve())
            try:
                if (folder / FILE).is_file():
                    yield folder, read_report(folder)
            except (ArenaError, OSError):  # another program's, or an older one's
                continue


def already_protected(seen: Seen, source: str, out: Path) -> list[str]:
    """What was protected by an earlier run, or is what one released, in words for the owner."""
    ours = {one.digest for one in seen.looks}
    found = []
    for folder, report in earlier_runs(source, out):
        again = len(ours & {sample.clean_picture for sample in report.samples})
        made = {one.released_picture for one in report.samples if one.released_picture != one.clean_picture}
        released = len(ours & made)
        where = f"{shortened(str(folder), 200)} (of {report.created[:10]})"
        if released:
            found.append(
                f"{released} of these pictures are already protected: they are what {where} released. A second "
                "perturbation adds to the first, so that together they are beyond the budget. Protect the originals"
            )
        if again:
            found.append(
                f"{again} of these pictures were protected before, in {where}. Publish one release of a picture alone: "
                "who has two averages them, and half of each perturbation is gone"
            )
    return found
