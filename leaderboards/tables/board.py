"""A board: from result records alone to tables, and from tables to files. Loads no torch."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from arena.records.bulk import bulk
from arena.records.files import read_records
from arena.records.schema import Record
from arena.records.select import latest
from arena.score.cells import CLEAN
from arena.score.contest import Contest, Robust
from arena.score.statistics import RESAMPLES, Bootstrap, minimum_detectable_difference
from leaderboards.tables.collect import Group, collect, suite_of
from leaderboards.tables.rows import (
    FAILURE_COLUMNS,
    Plugin,
    cell_row,
    environment,
    failure_rows,
    notes,
    plugins,
    ranking_rows,
)

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How text begins that spreadsheets take for a formula."""


@dataclass(frozen=True)
class Verification:
    """One fact about how the board's records were checked, such as `name` ``re-run`` and `text` ``12 of 120 cells``."""

    name: str
    text: str


@dataclass(frozen=True)
class Withdrawn:
    """A plugin's version that is kept off the board, by its `id`, and the `reason` for it."""

    id: str
    version: str
    reason: str


@dataclass(frozen=True)
class Board:
    """The tables of one suite.

    `cells` has one row a cell (over seeds) with every score as NAME, NAME_low, NAME_high, NAME_seeds and, where it is
    undefined, the reason in NAME_undefined; `ranking` one row per dataset, model, budget, share of clean data that the
    attacker has at most, and defense; `failures` one row a failed record; `power` the smallest difference in accuracy
    that each contest can detect. `verifications` are listed as they are, `withdrawn` by id and version; both only where
    there are any.
    """

    suite: str
    digest: str
    cells: pd.DataFrame
    ranking: pd.DataFrame
    failures: pd.DataFrame
    power: pd.DataFrame
    notes: tuple[str, ...]
    plugins: tuple[Plugin, ...]
    environment: dict[str, list[str]]
    created: str
    resamples: int
    verifications: tuple[Verification, ...] = ()
    withdrawn: tuple[Withdrawn, ...] = ()


def build(
    records: Sequence[Record], verifications: Iterable[Verification] = (), withdrawn: Iterable[Withdrawn] = ()
) -> Board:
    """The board of one suite's records; the same for the same records in any order.

    `verifications` says how the records were checked. `withdrawn` names what is not among `records`: leaving its
    records out is up to the caller, the board only says so.

    Raises:
        ArenaError: the records do not belong on one board, or two results of one cell differ.
    """
    with bulk():
        listed = sorted(set(withdrawn), key=lambda one: (one.id, one.version, one.reason))
        return _build(records, tuple(verifications), tuple(listed))


def _build(
    records: Sequence[Record], verifications: tuple[Verification, ...], withdrawn: tuple[Withdrawn, ...]
) -> Board:
    import pandas as pd

    groups = collect(records)
    cells: list[dict[str, Any]] = []
    ranking: list[dict[str, Any]] = []
    power: list[dict[str, Any]] = []
    bootstraps: dict[int, Bootstrap] = {}
    for group in groups:
        contest = _contest(group, bootstraps.setdefault(group.items, Bootstrap(group.items)))
        robust: list[Robust] = []
        errors: list[float] = []
        for scores, levels in contest.results():
            cells += [cell_row(group, place, score) for place, score in scores.items()]
            robust += levels
            errors += [s.drop_error for p, s in scores.items() if p.defense != CLEAN and s.drop_error is not None]
        ranking += ranking_rows(group, contest, robust)
        difference = minimum_detectable_difference(median(errors)) if errors else None
        names = {"dataset": group.dataset, "model": group.model, "items": group.items, "seeds": len(group.seeds)}
        power.append({**names, "minimum_detectable_difference": difference})
    kept = [record for group in groups for seeds in group.records.values() for record in seeds.values()]
    failures = [row for group in groups for row in failure_rows(group)]
    suite = suite_of(kept)
    return Board(
        suite=suite.id,
        digest=suite.digest,
        cells=pd.DataFrame(cells),
        ranking=pd.DataFrame(ranking),
        failures=pd.DataFrame(failures, columns=FAILURE_COLUMNS),
        power=pd.DataFrame(power),
        notes=tuple(note for group in groups for note in notes(group)),
        plugins=plugins(kept),
        environment=environment(kept),
        created=max(record.created for record in kept),
        resamples=RESAMPLES,
        verifications=verifications,
        withdrawn=withdrawn,
    )


def board(records: Iterable[Record] | Path | str) -> Board:
    """Every score of the records, given or in a JSONL file, as pandas tables.

    Raises `ArenaError` where they come from different suites or datasets.
    """
    return build(latest(read_records(Path(records)) if isinstance(records, Path | str) else records))


def write(board: Board, folder: Path, name: str) -> list[Path]:
    """NAME.md, NAME.csv and NAME.parquet (the cells) and NAME.html, each replaced in one step; returns their paths.

    Raises:
        ArenaError: a file could not be written; the one that was there is then untouched.
    """
    from leaderboards.site.files import write_file
    from leaderboards.site.render import html, markdown
    from leaderboards.site.views import compose

    parquet = io.BytesIO()
    board.cells.to_parquet(parquet, index=False)
    with bulk():
        page = compose(board)
        contents = {
            "md": markdown(page).encode(),
            "csv": _neutral(board.cells).to_csv(index=False, lineterminator="\n").encode(),
            "parquet": parquet.getvalue(),
            "html": html(page).encode(),
        }
    return [write_file(folder / f"{name}.{suffix}", content, "board") for suffix, content in contents.items()]


def summary(board: Board) -> Table:
    """The ranking as a table for the terminal."""
    from leaderboards.site.terminal import table

    return table(board)


def _contest(group: Group, bootstrap: Bootstrap) -> Contest:
    zero_shot = group.zero_shot
    return Contest(group.bits, None if zero_shot is None else zero_shot.unpack(), bootstrap)


def _neutral(cells: pd.DataFrame) -> pd.DataFrame:
    """The table with an apostrophe before text that a spreadsheet would take for a formula."""
    texts = cells.select_dtypes(exclude=["number", "bool"])
    return cells.assign(**{str(name): texts[name].map(_no_formula) for name in texts.columns})


def _no_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
