"""The words of a question as `arena.leak` compares them, with their places, so that some of them can be taken out."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from arena.leak import words as compared


@dataclass(frozen=True)
class Piece:
    """A run of letters and digits, a run of white space, or another sign, as it is written; `word` is how it is
    compared, empty for white space. What is written in several words of `arena.leak` has them with spaces."""

    text: str
    word: str


def pieces(text: str) -> list[Piece]:
    """A text in pieces, which joined are the text again."""
    return [Piece(part, " ".join(compared(part))) for part in _parts(text)]


def without(text: Sequence[Piece], places: Container[int]) -> str:
    """The text without the pieces at some places, and without the white space that is double then, or before a mark."""
    kept = ""
    for place, piece in enumerate(text):
        following = text[place + 1].text if place + 1 < len(text) else ""
        if place in places and (not following or following.isspace() or _closes(following)):
            kept = re.sub(r"[^\S\n]+\Z", "", kept)  # a line break stays, which sets options apart
        elif place not in places:
            begins = place - 1 in places and (not kept or kept.endswith("\n"))
            kept += piece.text.lstrip(" \t") if begins else piece.text
    return kept


def _parts(text: str) -> Iterator[str]:
    for kind, run in groupby(text, _kind):
        joined = "".join(run)
        yield from [joined] if kind != "sign" else joined


def _kind(character: str) -> str:
    if character.isspace():
        return "space"
    return "word" if unicodedata.category(character)[0] in "LMN" else "sign"


def _closes(sign: str) -> bool:
    return sign in ",;.:!?" or unicodedata.category(sign[0]) in ("Pe", "Pf")
