"""The page `leaderboards/COLUMNS.md`: `make docs` writes it, a test keeps it true."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from leaderboards.columns import DIAGNOSTIC
from leaderboards.columns.kind import FRAMES, Column
from leaderboards.columns.measures import COSTS, DIAGNOSTICS, MEANING, PEAK, STEALTH
from leaderboards.columns.places import COUNTS, FAILURES, PLACES, POWER
from leaderboards.columns.records import PARTS, PLUGIN
from leaderboards.columns.scores import BESIDE, REASONS, SCORES

NOTHING = "\N{EN DASH}"
PAGE = Path("leaderboards/COLUMNS.md")

_HEAD = """\
# Columns of boards, fields of records

Made by `make docs` from `leaderboards/columns/`. Names are stable: renaming or removing one is a breaking change.

## Boards

`arena.board(records)` has four tables, pandas frames. A column without any value in a board has the type `object`
there; in the Parquet file it is a number, or text if it is `left_out` or its name ends in `_undefined`. *Better* is
what the owner of the data wishes for; a dash says that the column is no measure of the protection."""

_SCORES = """\
Every score NAME has an interval, a number of seeds and a reason beside it."""

_STEALTH = """\
Means over samples, measured on the bytes of the release, and over records that are done: of the row's seeds in `cells`,
of all cells of the defense in `ranking`. A column is there where any record of the board has the measure."""

_MEANING = """\
What attacks that may rewrite questions cost in meaning, on clean data and so in the rows of the control `none`: what
takes a protection's words out again would else seem to lose meaning. Means over the seeds of the row. A base model that
answers hardly any of the questions as they were tells nothing by its accuracy, and the similarity has to. A column is
there where any record of the board has it."""

_DIAGNOSTICS = """\
A defense reports what it likes of its crafting. What those report that come with the arena:"""

_RECORDS = """\
## Records

A record is a line of JSON, a file of them JSON Lines, UTF-8. No field may be missing unless it has a default in
`arena/records/schema.py`, and unknown ones are refused. Numbers are finite."""


def page() -> str:
    """The page, in Markdown."""
    lines = [_HEAD, "", *_table(("table", "rows"), ((f"`{name}`", about) for name, about in FRAMES.items()))]
    lines += _columns("Where a row stands", "", PLACES)
    lines += _columns("How much there is of it", "", COUNTS)
    lines += _columns("Scores", _SCORES, (*SCORES, *BESIDE))
    lines += ["", "NAME_undefined says, or begins with:", ""]
    lines += _table(("reason", "when"), ((f"`{reason.strip()}`", when) for reason, when in REASONS.items()))
    lines += _columns("What the release shows", _STEALTH, STEALTH)
    lines += _columns("What rewriting leaves of the meaning", _MEANING, MEANING)
    lines += _columns("What it took", "Of the machines that made the records.", (*PEAK, *COSTS))
    lines += _columns("What crafting says of itself", _DIAGNOSTICS, (DIAGNOSTIC, *DIAGNOSTICS))
    lines += _columns("What failed", "", FAILURES)
    lines += _columns("Power", "", POWER)
    return "\n".join([*lines, "", _RECORDS, *_parts()]) + "\n"


def _columns(title: str, about: str, columns: Iterable[Column]) -> Iterator[str]:
    yield from ("", f"### {title}", "", *([about, ""] if about else []))
    yield from _table(
        ("column", "in", "type", "unit, range", "better", "meaning", "undefined"),
        (
            (
                f"`{column.name}`",
                ", ".join(f"`{frame}`" for frame in column.frames),
                column.type,
                column.unit or NOTHING,
                column.better or NOTHING,
                column.meaning,
                column.undefined or "never",
            )
            for column in columns
        ),
    )


def _parts() -> Iterator[str]:
    for name, fields in PARTS.items():
        derived = name != "plugin" and PLUGIN[0] in fields
        own = [field for field in fields if not (derived and field in PLUGIN)]
        yield from ("", f"### {'A' if name[0] not in 'aeiou' else 'An'} {name}", "")
        if derived:
            yield from ("All that a plugin has, and:", "")
        yield from _table(
            ("field", "type", "unit, range", "meaning", "undefined"),
            ((f"`{f.name}`", f.type, f.unit or NOTHING, f.meaning, f.undefined or "never") for f in own),
        )


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    heads = list(heads)
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    yield from (f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
