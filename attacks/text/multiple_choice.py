"""The options of a multiple-choice question, where its text has them: what attacks on words leave alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from arena.data.sample import Sample

_HEADER = r"(?:(?:answer\s+)?(?:options|choices)\s*:\s*)?"
_END_OF_LINE = re.compile(r"[^\n]*")


class Parts(NamedTuple):
    """A question cut in three, which together are the question; `options` is empty where it has none."""

    before: str
    options: str
    after: str


def divide(sample: Sample) -> Parts:
    """Cut out the options, with the words that announce them.

    A sample that knows its choices is searched for these, one after another, with or without letters. Otherwise, or
    where words have been put between them, options are at least two marks in a row from A, such as ``A.``, ``(A)`` or
    ``a:``, each followed by text; the last one ends with its line.
    """
    question = sample.question
    found = _listed(question, sample.choices) or _lettered(question, "A") or _lettered(question, "a")
    if found is None:
        return Parts(question, "", "")
    start, end = found
    return Parts(question[:start], question[start:end], question[end:])


def _listed(question: str, choices: Sequence[str]) -> tuple[int, int] | None:
    """The span of the last place where all the choices stand in order, or None."""
    if len(choices) < 2:
        return None
    options = [rf"(?:{_mark(chr(ord('A') + i))}\s*)?{_flexible(choice)}" for i, choice in enumerate(choices)]
    pattern = rf"\s*{_HEADER}(?<!\w)" + r"\s*[.,;|]?\s*".join(options) + r"(?!\w)[.,;]?"
    places = list(re.finditer(pattern, question, re.IGNORECASE))
    return places[-1].span() if places else None


def _flexible(choice: str) -> str:
    return r"\s+".join(map(re.escape, choice.split()))


def _mark(letter: str) -> str:
    return rf"(?:\({letter}\)|\[{letter}\]|{letter}[.):])"


def _lettered(question: str, first: str) -> tuple[int, int] | None:
    """The span from the mark `first` to the end of the line of the last mark that follows on it, or None."""
    start = re.search(rf"\s*(?i:{_HEADER})(?<!\S){_mark(first)}(?=\s+\S)", question)
    if start is None:
        return None
    last, letter = start, first
    while following := re.compile(rf"(?<!\S){_mark(chr(ord(letter) + 1))}(?=\s+\S)").search(question, last.end()):
        last, letter = following, chr(ord(letter) + 1)
    if last is start:
        return None
    line = _END_OF_LINE.match(question, last.end())
    return start.start(), line.end() if line else last.end()
