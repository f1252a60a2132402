"""Text of records made fit to be shown: no control characters, no letters that turn the reading direction."""

from __future__ import annotations

_CONTROL = [*range(0x20), *range(0x7F, 0xA0)]
_DIRECTION = [0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_SEPARATORS = [0x2028, 0x2029]
_SHOWN = dict.fromkeys(_CONTROL + _DIRECTION + _SEPARATORS, "\N{REPLACEMENT CHARACTER}")
_SHOWN = {code: mark for code, mark in _SHOWN.items() if chr(code) not in "\t\n\r"}


def printable(text: str) -> str:
    """The text with a mark for each character that would steer a terminal or reorder a line; white space stays."""
    return text if text.isprintable() else text.translate(_SHOWN)
