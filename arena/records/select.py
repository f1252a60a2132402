"""Which records count: the last of every combination, those of one suite."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from arena.errors import ArenaError
from arena.records.files import read_records
from arena.records.schema import Record
from arena.suites.schema import Suite, digest


def latest(records: Iterable[Record]) -> list[Record]:
    """The last record of every combination; records of cells as they were before a change stay in the file."""
    last: dict[tuple[object, ...], Record] = {}
    for r in records:
        combination = (
            *(r.suite.digest, r.dataset.id, str(sorted(r.dataset.config.items())), r.dataset.train, r.dataset.test),
            *(r.model.id, str(sorted(r.model.config.items())), r.recipe.label, r.attack.label, r.auxiliary, r.seed),
            *(r.defense.label, tuple(r.defense.surrogates)),
            *(() if r.defense.id == "none" else (r.budget.norm, r.budget.image, r.budget.text)),
        )
        last[combination] = r
    return list(last.values())


def records_of(suite: Suite, results: Path) -> list[Record]:
    """The suite's own records in a file that may hold older versions' too. Raises `ArenaError` if there are none."""
    own = [r for r in read_records(results) if r.suite.digest == digest(suite)]
    if not own:
        raise ArenaError(
            f"{results} has no record of suite {suite.id!r} as it is now: `arena run {suite.id}` makes them"
        )
    return latest(own)
