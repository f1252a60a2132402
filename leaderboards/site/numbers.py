"""Numbers, intervals, budgets and names of a board as text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from arena.text import bound_text
from leaderboards.site.text import steady
from leaderboards.tables.collect import counted
from leaderboards.tables.coverage import WITHHELD

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]

DASH = "\N{EN DASH}"


@dataclass(frozen=True)
class Value:
    """A number with its interval as text, or why there is none; `shade`, 0 to 100, is its place on a colour scale.

    One that is `withheld` could be computed, but not from all the cells that it is about.
    """

    text: str
    interval: str = ""
    shade: int | None = None
    undefined: bool = False
    withheld: bool = False

    def __str__(self) -> str:
        return f"{self.text} ({self.interval})" if self.interval else self.text


def rows_of(frame: pd.DataFrame) -> list[Row]:
    """The rows of a table, missing values as None."""
    return [{str(k): None if v != v else v for k, v in row.items()} for row in frame.to_dict("records")]


def share(row: Row, name: str, shaded: bool = False) -> Value:
    """A protection or retention in percent."""
    value = row[name]
    if value is None:
        return _none(row, name)
    shade = round(100 * min(max(value, 0.0), 1.0)) if shaded else None
    return Value(f"{_number(value, 0)} %", _interval(row, name, 0), shade)


def points(row: Row, name: str, shaded: bool = False, signed: bool = False) -> Value:
    """An accuracy, or a difference of accuracies, in percentage points."""
    value = row[name]
    if value is None:
        return _none(row, name)
    shade = round(100 * value) if shaded else None
    plus = "+" if signed and round(100 * value, 1) > 0 else ""
    return Value(plus + _number(value, 1), _interval(row, name, 1), shade)


def budget_text(norm: str, image: float, text: int, forbid_answer_words: bool) -> str:
    """A budget in words."""
    if norm == "none":
        return "no budget"
    bound, names = bound_text(norm, image), {"linf": "L∞ ", "l2": "RMS ", "l0": "", "unbounded": "image "}
    words = counted(text, "word") + (", also of the answer" if text and not forbid_answer_words else "")
    return f"{names.get(norm, f'{norm} ')}{bound}, {words}"


def _none(row: Row, name: str) -> Value:
    reason = row[f"{name}_undefined"] or "not measured"
    withheld = reason.startswith(WITHHELD)
    return Value(reason, undefined=not withheld, withheld=withheld)


def _number(value: float, digits: int) -> str:
    text = f"{100 * steady(value):.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")


def _interval(row: Row, name: str, digits: int) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    if low is None or high is None:
        return "1 seed, no interval" if row[f"{name}_seeds"] == 1 else ""
    return f"{_number(low, digits)} to {_number(high, digits)}"


def significant(row: Row, name: str) -> bool:
    """Whether a score is significantly above zero."""
    return row[f"{name}_low"] is not None and row[f"{name}_low"] > 0


def budget_of(row: Row) -> tuple[str, float, int, bool]:
    """Norm, image and text budget of a row, and whether the words may not be of the answer."""
    return row["norm"], row["image_budget"], row["text_budget"], bool(row["forbid_answer_words"])


def knowledge(row: Row) -> str:
    """What a protection knew of the attacker's model, and from which surrogates."""
    if row["control"]:
        return "control"
    return f"{row['knowledge']} ({row['surrogates']})" if row["surrogates"] else "no surrogate"


def column(row: Row) -> str:
    """An attack with the clean data it was granted."""
    data = [f"+{100 * row['auxiliary']:g} % clean"] if row["auxiliary"] else []
    data += ["in-domain weights"] if row["in_domain"] else []
    return f"{row['attack']} ({', '.join(data)})" if data else str(row["attack"])


_MEANING = {
    "meaning_changed": "questions changed",
    "meaning_accuracy_before": "base model before",
    "meaning_accuracy": "base model after",
    "meaning_similarity": "similarity",
}


def meaning_heads(rows: Iterable[Row]) -> dict[str, str]:
    """The columns on the meaning of rewritten questions that any row has a value of, with their titles."""
    listed = list(rows)
    return {name: title for name, title in _MEANING.items() if any(row.get(name) is not None for row in listed)}


def meanings(row: Row, names: Iterable[str]) -> list[str]:
    """Those columns of a row as text: shares and accuracies in percent, the similarity as it is."""
    found = ((name, row.get(name)) for name in names)
    return [
        DASH if value is None else f"{value:.3f}" if name == "meaning_similarity" else f"{100 * value:.1f}"
        for name, value in found
    ]
