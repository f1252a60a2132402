"""A board: from result records alone to tables, and from tables to files. Loads no torch."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from arena.files import refuse_foreign
from arena.records.bulk import bulk
from arena.records.files import read_records
from arena.records.schema import Asked, Record
from arena.records.select import latest
from arena.records.submissions import Shown
from arena.score.attacked import Robust
from arena.score.cells import CLEAN, Place
from arena.score.contest import Contest
from arena.score.statistics import Bits
from leaderboards.site.text import csv_text, steady
from leaderboards.tables.collect import Group, collect, suite_of
from leaderboards.tables.coverage import Coverage
from leaderboards.tables.credit import random_words
from leaderboards.tables.fitness import Fitness
from leaderboards.tables.rows import (
    FAILURE_COLUMNS,
    Plugin,
    cell_row,
    environment,
    failure_rows,
    notes,
    plugins,
    power_row,
    ranking_rows,
    shown_robust,
)
from leaderboards.tables.sweeps import choose

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table


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
class Tally:
    """Cells, each with one seed: all that the board is about, those of them that failed, and those without a record."""

    cells: int
    failed: int
    missing: int


@dataclass(frozen=True)
class Board:
    """The tables of one suite.

    `cells` has one row a combination (over seeds) with every score as NAME, NAME_low, NAME_high, NAME_seeds and, where
    it is undefined, the reason in NAME_undefined; `ranking` one row per dataset, model, budget, share of clean data
    that the attacker has at most, and defense; `failures` one row a failed record; `power` the smallest difference in
    accuracy that each contest can detect. What depends on all attacks is withheld (`leaderboards.tables.coverage`)
    where one failed or has no record: `robust_protection` in `ranking`, and in `cells`, where it is that of the row's
    defense against an attacker who has at most the row's share of clean data. `verifications` are listed as they are,
    `withdrawn` by id and version, `submissions` with those of their cells that are on the board; all only where there
    are any.
    """

    suite: str
    digest: str
    cells: pd.DataFrame
    ranking: pd.DataFrame
    failures: pd.DataFrame
    power: pd.DataFrame
    tally: Tally
    notes: tuple[str, ...]
    plugins: tuple[Plugin, ...]
    environment: dict[str, list[str]]
    created: str
    in_domain: dict[str, str]
    verifications: tuple[Verification, ...] = ()
    withdrawn: tuple[Withdrawn, ...] = ()
    submissions: tuple[Shown, ...] = ()


def build(
    records: Sequence[Record],
    verifications: Iterable[Verification] = (),
    withdrawn: Iterable[Withdrawn] = (),
    asked: Iterable[Asked] = (),
    submissions: Sequence[Shown] = (),
) -> Board:
    """The board of one suite's records; the same for the same records in any order.

    `verifications` says how the records were checked. `withdrawn` names what is not among `records`: leaving its
    records out is up to the caller, the board only says so. `asked` are all cells of the suite, where they are known:
    what has no record is then known even where no other defense has one, and what the suite leaves out is not missed.
    `submissions` bring cells of their own, whose attacks are asked for of nobody.

    Raises:
        ArenaError: the records do not belong on one board, or two results of one cell differ.
    """
    with bulk():
        listed = sorted(set(withdrawn), key=lambda one: (one.id, one.version, one.reason))
        return _build(records, tuple(verifications), tuple(listed), tuple(asked), tuple(submissions))


def _build(
    records: Sequence[Record],
    verifications: tuple[Verification, ...],
    withdrawn: tuple[Withdrawn, ...],
    asked: tuple[Asked, ...],
    submissions: tuple[Shown, ...],
) -> Board:
    import pandas as pd

    attacks = {r.cell for one in submissions if one.submission.entry.kind == "attack" for r in one.records}
    groups = collect([*records, *(r for one in submissions for r in one.records)], asked, attacks)
    for group in groups:
        choose(group)
    cells: list[dict[str, Any]] = []
    ranking: list[dict[str, Any]] = []
    power: list[dict[str, Any]] = []
    for group in groups:
        fitness = Fitness(group)
        contest = _contest(group, fitness, group.bits)
        coverage = Coverage(group, fitness.left_out)
        robust: list[Robust] = []
        detectable: list[float] = []
        for scores, levels in contest.results():
            by_level = {one.auxiliary: shown_robust(coverage, one) for one in levels}
            cells += [cell_row(group, p, score, by_level[p.auxiliary], fitness) for p, score in scores.items()]
            robust += levels
            detectable += [s.detectable for p, s in scores.items() if p.defense != CLEAN and s.detectable is not None]
        if any(one.seeds != tuple(coverage.seeds) for one in robust):
            robust = _bare_of_all_seeds(group, fitness, robust)
        ranking += ranking_rows(group, contest, coverage, fitness, robust)
        power.append(power_row(group, fitness, median(detectable) if detectable else None))
    kept = [record for group in groups for record in group]
    failures = [row for group in groups for row in failure_rows(group)]
    suite = suite_of(kept)
    missing = len({cell.identity for cell in asked} - {record.cell for record in kept})
    return Board(
        suite=suite.id,
        digest=suite.digest,
        cells=pd.DataFrame(rounded(cells)),
        ranking=pd.DataFrame(rounded(ranking)),
        failures=pd.DataFrame(failures, columns=FAILURE_COLUMNS),
        power=pd.DataFrame(rounded(power)),
        tally=Tally(len(kept) + missing, len(failures), missing),
        notes=tuple(note for group in groups for note in notes(group)),
        plugins=plugins(kept),
        environment=environment(kept),
        created=max(record.created for record in kept),
        in_domain={a: ref.in_domain for group in groups for a, ref in group.declared.items() if ref.in_domain},
        verifications=verifications,
        withdrawn=withdrawn,
        submissions=submissions,
    )


def rounded(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows whose numbers are `steady`, and p-values, which may be tiny, of six digits."""
    return [{name: _steady(name, v) if isinstance(v, float) else v for name, v in row.items()} for row in rows]


def _steady(name: str, value: float) -> float:
    return float(f"{value:.6g}") if name.endswith("_p") else steady(value)


def board(records: Iterable[Record] | Path | str) -> Board:
    """Every score of the records, given or in a JSONL file, as pandas tables.

    Raises `ArenaError` where they come from different suites or datasets.
    """
    return build(latest(read_records(Path(records)) if isinstance(records, Path | str) else records))


_TITLE = b": what protection is left"
_MARKS = {
    "md": (b"# ", _TITLE),
    "csv": (b"dataset,model,defense,control,",),
    "parquet": (b"PAR1",),
    "html": (b"<title>", _TITLE),
}
"""What stands at the beginning of each file of a board, by which it is told from somebody else's."""


def write(board: Board, folder: Path, name: str) -> list[Path]:
    """NAME.md, NAME.csv and NAME.parquet (the cells) and NAME.html, each replaced in one step; returns their paths.

    Raises:
        ArenaError: a file could not be written, or one of that name is there and is no board; what was there is then
            untouched.
    """
    from leaderboards.site.files import write_file
    from leaderboards.site.render import html, markdown
    from leaderboards.site.views import compose

    for suffix, marks in _MARKS.items():
        refuse_foreign(folder / f"{name}.{suffix}", "a board", *marks)
    parquet = io.BytesIO()
    _typed(board.cells).to_parquet(parquet, index=False)
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
    """The rankings as a table for the terminal; those in which no attack was tried come last."""
    from leaderboards.site import bare, terminal

    shown = terminal.table(board)
    for ranking in bare.tables(board):
        shown.add_row(ranking)
    return shown


def _contest(group: Group, fitness: Fitness, bits: Mapping[Place, Mapping[int, Bits]]) -> Contest:
    zero_shot = group.zero_shot
    return Contest(
        bits,
        None if zero_shot is None else zero_shot.unpack(),
        group.choosers,
        fitness.left_out,
        random_words(group),
        group.sweeps.keys(),
    )


def _bare_of_all_seeds(group: Group, fitness: Fitness, robust: Sequence[Robust]) -> list[Robust]:
    """The scores, with protection without attack over all seeds that it has: a seed that an attack lacks is no reason
    to leave it out there."""
    bare = {place: bits for place, bits in group.bits.items() if place.attack == CLEAN}
    alone = {one.defense: one for _, levels in _contest(group, fitness, bare).results() for one in levels}
    return [
        replace(one, protection=alone[one.defense].protection, seeds=alone[one.defense].seeds)
        if one.defense in alone
        else one
        for one in robust
    ]


def _typed(cells: pd.DataFrame) -> pd.DataFrame:
    """The table with types that do not depend on what is there: columns without any value are numbers, or reasons."""
    reasons = [
        str(name) for name in cells if str(name).endswith("_undefined") or name in ("left_out", "chosen_recipes")
    ]
    empty = [str(name) for name in cells if cells[name].isna().all() and name not in reasons]
    return cells.astype(dict.fromkeys(reasons, "string") | dict.fromkeys(empty, "float64"))


def _neutral(cells: pd.DataFrame) -> pd.DataFrame:
    """The table with its texts as a spreadsheet may read them."""
    texts = cells.select_dtypes(exclude=["number", "bool"])
    neutral = cells.assign(**{str(name): texts[name].map(_no_formula) for name in texts.columns})
    return neutral.rename(columns=_no_formula)


def _no_formula(value: Any) -> Any:
    return csv_text(value) if isinstance(value, str) else value
