"""Text from elsewhere made fit to be shown: nothing in it steers a terminal, turns the reading direction or hides. And
how a budget is said, everywhere alike."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

_KEPT = frozenset("\t\n\u200c\u200d")
"""White space, and the joiners that scripts and emoji are written with."""
_STEERS = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Categories of Unicode: control, format (also direction), surrogates, separators of lines and paragraphs."""


class _Shown(dict[int, str]):
    def __missing__(self, code: int) -> str:
        character = chr(code)
        if character not in _KEPT and unicodedata.category(character) in _STEERS:
            character = character.encode("unicode_escape").decode("ascii")
        self[code] = character
        return character


_SHOWN = _Shown()


def bound_text(norm: str, image: float) -> str:
    """The bound on the image of a budget, in words."""
    if norm == "unbounded":
        return "unbounded"
    return f"{image:g} pixel{'s' * (image != 1)}" if norm == "l0" else f"{image:g}/255"


def printable(text: str) -> str:
    """The text with a visible escape such as ``\\x1b`` or ``\\u202e`` for each character that would steer a terminal,
    reorder or hide what stands beside it, or that is no text (half of a surrogate pair); white space stays."""
    return text if text.isprintable() else text.replace("\r\n", "\n").translate(_SHOWN)


def shortened(text: str, limit: int = 2000) -> str:
    """The text, printable; of one that is then longer than `limit` its beginning and its end, where remedies stand, and
    between them how much was left out."""
    if len(text) <= limit and len(shown := printable(text)) <= limit:
        return shown
    head = _fitting(text[:limit], limit * 3 // 4)
    tail = _fitting(reversed(text[len(head) :][-limit:]), limit // 4)
    gone = len(text) - len(head) - len(tail)
    return f"{''.join(head)} … ({gone:,} of {len(text):,} characters left out) … {''.join(reversed(tail))}"


def _fitting(characters: Iterable[str], limit: int) -> list[str]:
    """As many characters, printable, as have room."""
    found, size = list[str](), 0
    for character in characters:
        shown = printable(character)
        if (size := size + len(shown)) > limit:
            break
        found.append(shown)
    return found
