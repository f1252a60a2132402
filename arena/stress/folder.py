"""A folder that somebody protected, held against its originals before anything is computed."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from arena.budget import Budget, check
from arena.data.embedded.draw import Drawing, divide
from arena.data.folder import parts_of, read_imagefolder
from arena.data.pairs import paired
from arena.data.pictures.encoding import PNG, in_mode
from arena.data.sample import Sample, digest
from arena.errors import ArenaError, BudgetError, UsageError
from arena.owner.originals import Place, imagefolder, read_originals
from arena.owner.released import DATA
from arena.owner.report import FILE as REPORT
from arena.owner.report import Report, read_report
from arena.paths import is_file
from arena.release import write_release
from arena.stress.settings import Settings
from arena.text import shortened

_NAMED = 5
"""Samples that a message names."""

_PART = 4
"""One of so many originals is held out where nobody says how many."""


@dataclass(frozen=True)
class Protected:
    """A folder with its originals: every released sample is one of an original's, and what of them is beyond the
    budget is in `breaches`. `settings` are those of the dataset `imagefolder` that the originals are."""

    folder: Path
    columns: dict[str, str]
    originals: list[Sample]
    budget: Budget
    breaches: tuple[str, ...]
    settings: dict[str, Any]
    exported: bool


def read_protected(settings: Settings) -> Protected:
    """A target that is a folder. Reads pictures, writes nothing.

    Raises `UsageError` where originals or budget are not known, or released samples do not match the originals; the
    first few are named. `ArenaError` for what is damaged.
    """
    target = Path(settings.target)
    report = read_report(target) if is_file(target / REPORT) else None
    source = settings.originals or (report.request.source if report else None)
    if source is None:
        raise UsageError(
            f"{target} does not say what it was made from: name the folder of the originals with --originals, or in "
            "the file as `originals:`"
        )
    budget = settings.budget or (report.request.budget if report else None)
    if budget is None:
        raise UsageError(
            f"{target} does not say what its protection may change: say so with --budget-image (in 1/255) and "
            "--budget-text (words), or in the file as `budget: {image: 8, text: 5}`"
        )
    released_place = Place(target / DATA) if report else imagefolder(str(target), "train")
    if released_place is None:
        raise UsageError(f"{target} has no metadata.jsonl or metadata.csv: name a folder of pictures that has one")
    folder, encoding = released_place.folder, report.request.encoding if report else PNG
    split, limit = (report.request.split, report.request.limit) if report else ("train", None)
    columns = settings.columns or (dict(report.request.columns) if report else {})
    try:
        taken = read_originals(source, columns, split, limit, encoding)
    except ArenaError as error:
        if report is None or settings.originals is not None:
            raise
        raise UsageError(
            f"{error}; the originals are no longer where {target} says: name them by --originals"
        ) from None
    refused = {refusal.file for refusal in report.refused} if report else set()
    for refusal in taken.refused:
        if refusal.file not in refused:
            raise UsageError(f"{source}: the original {refusal.file!r} {refusal.reason}: {refusal.remedy}")
    originals = [s for s, file in zip(taken.samples, taken.files, strict=True) if file not in refused]
    released_columns = {} if report else {k: v for k, v in columns.items() if k != "image"}
    released = read_imagefolder(folder, released_columns)
    found = paired(originals, released)
    pairs = [
        (original, other and other.with_content(in_mode(other.image, original.image.mode), other.question))
        for original, other in zip(originals, found, strict=True)
    ]
    _refuse_others(target, source, pairs, report)
    _refuse_more(target, source, found, released)
    breaches = tuple(_breaches(pairs, budget))
    place = imagefolder(source, split)
    exported = place is None or split != "train" or limit is not None or encoding.lossy or bool(refused)
    own = {} if exported else {"columns": columns}
    data = {"source": str(Path(source).absolute()), **own, "scoring": settings.scoring}
    return Protected(folder, released_columns, originals, budget, breaches, data, exported)


def dataset_settings(found: Protected, folder: Path) -> dict[str, Any]:
    """The settings of the dataset that the originals are; in `folder` lies what `export` has to write as one."""
    return {**found.settings, "source": str(_exported(found, folder))} if found.exported else found.settings


def export(found: Protected, folder: Path) -> None:
    """Write originals that are no folder of pictures, or of which a part was protected, as one into `folder`, where
    they are not there yet."""
    place = _exported(found, folder)
    if found.exported and not place.exists():
        partial = place.with_name(f".{place.name}")
        shutil.rmtree(partial, ignore_errors=True)
        write_release(found.originals, partial)
        partial.replace(place)


def _exported(found: Protected, folder: Path) -> Path:
    return (folder / digest(found.originals)[:16]).absolute()


def sizes(found: Protected, test: int | None, share: float) -> tuple[int, int, int]:
    """How many originals are released, are the attackers' own clean data (`share` of the released), and are held out to
    score on. Raises `UsageError` where there are too few."""
    source, total = Path(found.settings["source"]), len(found.originals)
    scored = None if found.exported else parts_of(source).get("test")
    if scored is not None:
        if test is not None and test > scored:
            raise UsageError(f"{source / 'test'} has {scored} samples: --test {test} are more; ask for fewer")
        return (*_shared(total, share), test or scored)
    held = max(1, total // _PART) if test is None else test
    if held >= total:
        raise UsageError(
            f"there are {total} originals, and {held} of them are to be held out to score on: name fewer with --test, "
            "or give them in a folder `test` beside `train`"
        )
    # Several questions may be about one picture, which is then in one part alone: as many as are left.
    low, high = 0, total - held
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _possible(found.originals, *_shared(middle, share), held) else (low, middle - 1)
    if low == 0:
        raise UsageError(
            f"of {total} originals nothing is left to release beside {held} held out: name fewer by --test"
        )
    return (*_shared(low, share), held)


def _shared(count: int, share: float) -> tuple[int, int]:
    """So many samples as released ones and the attackers' own."""
    released = max(1, int(count / (1 + share)))
    return released, min(round(share * released), count - released)


def _possible(samples: Sequence[Sample], train: int, auxiliary: int, test: int) -> bool:
    drawing = Drawing("", len(samples), samples.__getitem__, np.random.SeedSequence(0).spawn(2)[0])
    try:
        divide(drawing, train, auxiliary, test)
    except UsageError:
        return False
    return True


Pair = tuple[Sample, Sample | None]


def _refuse_others(target: Path, source: str, pairs: Sequence[Pair], report: Report | None) -> None:
    """Raise where released samples are not those of the originals."""
    protected = {sample.id: sample.clean for sample in report.samples} if report else {}
    problems = [
        f"{original.id!r} {problem}"
        for original, released in pairs
        if (problem := _mismatch(original, released, protected.get(original.id)))
    ]
    if problems:
        listed = "; ".join(shortened(problem, 300) for problem in problems[:_NAMED])
        more = f"; and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
        raise UsageError(
            f"{target}: {len(problems)} of {len(pairs)} originals in {shortened(source, 400)} do not match what was "
            f"released: {listed}{more}. Name the originals that it was made from with --originals"
        )


def _refuse_more(target: Path, source: str, found: Sequence[Sample | None], released: Sequence[Sample]) -> None:
    """Raise where something is released that nothing can be held against, as it was not `found` for an original."""
    known = {id(other) for other in found}
    if more := [shortened(repr(sample.id), 100) for sample in released if id(sample) not in known]:
        listed = ", ".join(more[:_NAMED]) + (f" and {len(more) - _NAMED} more" if len(more) > _NAMED else "")
        raise UsageError(
            f"{target}: {len(more)} released samples have no original in {shortened(source, 400)}, so that nobody can "
            f"say what was changed: {listed}. Take them out, or name a folder with all originals by --originals"
        )


def _mismatch(original: Sample, released: Sample | None, clean: str | None) -> str:
    if released is None:
        return "has no released sample of its id or file name"
    if clean is not None and digest([original]) != clean:
        return "is not the sample that was protected"
    if released.image.size != original.image.size:
        was, now = (f"{image.width} x {image.height}" for image in (original.image, released.image))
        return f"has {was} pixels, and what was released {now}"
    if released.image.mode != original.image.mode:
        return f"has mode {original.image.mode}, and what was released {released.image.mode}"
    for name in ("answer", "aliases", "choices"):
        was, now = getattr(original, name), getattr(released, name)
        if was != now and (now or name == "answer"):
            return f"has the {name} {was!r}, and what was released {now!r}"
    return ""


def _breaches(pairs: Iterable[Pair], budget: Budget) -> Iterable[str]:
    for index, (original, released) in enumerate(pairs):
        if released is not None:
            try:
                check(original, original.with_content(released.image, released.question), budget, None, index)
            except BudgetError as error:
                yield str(error)
