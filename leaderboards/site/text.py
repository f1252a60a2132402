"""Text of records made fit for pages and spreadsheets."""

from __future__ import annotations

import textwrap

from arena.text import printable

__all__ = ["csv_text", "printable", "steady", "wrapped"]

_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
"""What spreadsheets begin to compute at, also in full width and behind white space."""


DECIMALS = 10


def steady(value: float) -> float:
    """A number without what differs from one processor to another: these add up in different orders, which shows in the
    sixteenth digit, and the same records are to make the same files everywhere."""
    return round(float(value), DECIMALS) + 0.0


def csv_text(value: str) -> str:
    """A text for a cell of a CSV file: printable, and with an apostrophe before what a spreadsheet would take for a
    formula. Numbers are not for this function: a negative one would become a text."""
    computed = value.lstrip().startswith(_FORMULA) or value.startswith(("\t", "\r", "\n"))
    return f"'{printable(value)}" if computed else printable(value)


def wrapped(markdown: str, width: int = 120) -> str:
    """Markdown whose prose has lines of at most `width`: paragraphs with a longer one are filled anew; tables, headings
    and paragraphs that fit stay as they are."""
    lines: list[str] = []
    paragraph: list[str] = []
    for line in [*markdown.split("\n"), ""]:
        if paragraph and not _goes_on(line):
            lines += _filled(paragraph, width)
            paragraph = []
        if not line or line.startswith(("|", "#")):
            lines.append(line)
        else:
            paragraph.append(line)
    return "\n".join(lines[:-1])


def _goes_on(line: str) -> bool:
    """Whether a line belongs to the paragraph before it."""
    return bool(line) and not line.startswith(("|", "#")) and not line.lstrip().startswith(("- ", "* ", "> "))


def _filled(paragraph: list[str], width: int) -> list[str]:
    if all(len(line) <= width for line in paragraph):
        return paragraph
    first = paragraph[0]
    indent = len(first) - len(first.lstrip(" ")) + (2 if first.lstrip().startswith(("- ", "* ")) else 0)
    text = " ".join([first, *(line.strip() for line in paragraph[1:])])
    return textwrap.wrap(text, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)
