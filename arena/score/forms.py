"""One form for texts that people take for the same: what keyboards, scripts and models write differently."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

_RAISED = re.compile(r"(?<=\d)([\u00b2\u00b3\u00b9\u2070\u2074-\u2079\u207b])")
_FRACTION = re.compile(r"(?<=\d)([\u00bc-\u00be\u2150-\u215e])")

_ASCII = {
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\u2043", "-"),
    **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u02bc\u00b4", "'"),
    **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb\u300c\u300d\u300e\u300f", '"'),
    **dict.fromkeys("\u3010\u3014\u3016\u3008\u300a", "("),
    **dict.fromkeys("\u3011\u3015\u3017\u3009\u300b", ")"),
    **dict.fromkeys("\u3001\u060c\u066c", ","),
    **dict.fromkeys("\u3002\u06d4\u066b\u0964", "."),
    "\u061b": ";",
    "\u061f": "?",
    "\u066a": "%",
    "\u2044": "/",
    "\u2215": "/",
    "\u00d7": "x",
}
"""What NFKC leaves of dashes, quotes, brackets, stops and signs of numbers."""


@cache
def _character(character: str) -> str:
    if (known := _ASCII.get(character)) is not None:
        return known
    if unicodedata.category(character) == "Cf" or "\ufe00" <= character <= "\ufe0f":
        return ""
    digit = unicodedata.decimal(character, None)
    return character if digit is None else str(digit)


def one_form(text: str) -> str:
    """The text in Unicode's form NFKC, with digits of all scripts as those of ASCII, one kind of dash, quote, bracket
    and stop, and without characters that do not show, such as zero-width spaces and selectors of emoji. Case and white
    space stay.

    A raised digit after a digit is a power and a fraction after one is added to it: ``10`` and a raised ``5`` are not
    ``105``.
    """
    if text.isascii():
        return text
    apart = _FRACTION.sub(r" \1", _RAISED.sub(r"^\1", text))
    return "".join(map(_character, unicodedata.normalize("NFKC", apart)))


def folded(text: str) -> str:
    """As `one_form`, in lower case, with single spaces."""
    return " ".join(unicodedata.normalize("NFKC", one_form(text).casefold()).split())


def bare(text: str) -> str:
    """As `folded`, without closing punctuation unless there is nothing else."""
    form = folded(text)
    return form.rstrip(".,;:!? ") or form
