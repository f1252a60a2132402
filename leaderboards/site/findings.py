"""Findings: dated prose about results, with numbers that are filled in from records.

A file of findings is Markdown with Jinja2 expressions, filled in by the environment of the templates. The page that
shows it says which names may stand in it; each is a function that looks up one number, as in
``{{ accuracy("em", "diffpure") }}``, or a list of them, as in ``{{ span(drops("em", knowledge="white-box")) }}``.
In every file there are also `span`, `most` and `decimals` of this module.
"""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jinja2

from arena.errors import ArenaError
from leaderboards.site.numbers import Row
from leaderboards.site.render import environment
from leaderboards.site.text import steady

_TEMPLATE = "<template>"
"""How Jinja2 calls a template without a file in a traceback."""


class Figure(float):
    """A number as it stands in prose: printed as a whole one. Sums and differences of figures are figures."""

    def __str__(self) -> str:
        return decimals(self, 0)

    def __add__(self, other: float) -> Figure:
        return Figure(float(self) + other)

    def __sub__(self, other: float) -> Figure:
        return Figure(float(self) - other)


def decimals(value: float, digits: int) -> str:
    """The number with so many decimals; with -1 it is rounded to tens."""
    rounded = round(steady(value), digits)
    return f"{rounded + 0.0:.{max(digits, 0)}f}".replace("-", "\N{MINUS SIGN}")


def span(*values: float | Sequence[float], digits: int = 0) -> str:
    """The least and the greatest of all numbers given, as in ``45 to 79``; one where both look the same."""
    known = list(_flat(values))
    low, high = decimals(min(known), digits), decimals(max(known), digits)
    return low if low == high else f"{low} to {high}"


def most(*values: float | Sequence[float]) -> Figure:
    """The greatest of all numbers given."""
    return Figure(max(_flat(values)))


class Figures:
    """The numbers of a table's rows, found by what stands in other columns.

    `scale` is what a number is multiplied by: 100 for shares that the prose gives in points.
    """

    def __init__(self, rows: Iterable[Row], scale: float = 1.0) -> None:
        self._rows = list(rows)
        self._scale = scale

    def one(self, name: str, **where: Any) -> Figure:
        """The number `name` of the only row that has these values.

        Raises:
            ArenaError: there is no such row, or more than one, or the number is undefined there.
        """
        found = self.every(name, **where)
        if len(found) > 1:
            raise ArenaError(f"{len(found)} cells have {_words(where)}: say which is meant")
        return found[0]

    def every(self, name: str, **where: Any) -> list[Figure]:
        """The number `name` of all rows that have these values; a list of values stands for any of them.

        Raises:
            ArenaError: there is no such row, or the number is undefined in one.
        """
        rows = [row for row in self._rows if all(row.get(key) in _either(value) for key, value in where.items())]
        if not rows:
            raise ArenaError(f"no cell has {_words(where)}{self._hint(where)}")
        figures = []
        for row in rows:
            if row.get(name) is None:
                reason = row.get(f"{name}_undefined") or "it was not measured"
                raise ArenaError(f"{name} of the cell with {_words(where)} is undefined ({reason})")
            figures.append(Figure(self._scale * row[name]))
        return figures

    def function(self, name: str, *columns: str, **fixed: Any) -> Callable[..., Figure | list[Figure]]:
        """What prose calls to quote the number `name`.

        Its arguments are the values of `columns`, and by keyword those of any other; `fixed` are those that hold unless
        given. It returns one figure, or a list where one of the values is a list.
        """

        def quoted(*values: Any, **more: Any) -> Figure | list[Figure]:
            if len(values) > len(columns):
                raise ArenaError(f"{name}: {len(values)} values for {', '.join(columns)}")
            given = {**dict(zip(columns, values, strict=False)), **more}
            where = {**given, **{key: value for key, value in fixed.items() if key not in given}}
            several = any(isinstance(value, list) for value in where.values())
            return self.every(name, **where) if several else self.one(name, **where)

        return quoted

    def _hint(self, where: dict[str, Any]) -> str:
        """What is unknown in `where`, and what comes near it."""
        for key, value in where.items():
            known = list(dict.fromkeys(str(row[key]) for row in self._rows if key in row))
            for one in _either(value):
                if str(one) not in known:
                    near = difflib.get_close_matches(str(one), known, n=3, cutoff=0.6)
                    meant = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
                    return f" (none has {key} {one!r}{meant})"
        return ""


def filled(file: Path, **names: object) -> str:
    """The text of a file of findings, with its numbers.

    Raises:
        ArenaError: the file cannot be read, or an expression in it is wrong or names a cell that is not there. The
            message names file and line.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ArenaError(f"findings: {file} cannot be read ({error.strerror})") from error
    try:
        template = environment().from_string(text)
        return template.render(span=span, most=most, decimals=decimals, **names).strip()
    except jinja2.TemplateSyntaxError as error:
        raise ArenaError(f"findings: {file}, line {error.lineno}: {error.message}") from error
    except (ArenaError, jinja2.TemplateError, TypeError, ValueError) as error:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == _TEMPLATE]
        place = f", line {lines[-1]}" if lines else ""
        raise ArenaError(
            f"findings: {file}{place}: {error}: correct the file, or leave it out with `arena evidence --no-findings`"
        ) from error


def _flat(values: Iterable[float | Sequence[float]]) -> Iterator[float]:
    for value in values:
        if isinstance(value, Sequence):
            yield from value
        else:
            yield float(value)


def _either(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _words(where: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value!r}" for key, value in where.items())
