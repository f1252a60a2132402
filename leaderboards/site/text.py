"""Text of records made fit to be shown: no control characters, no letters that turn the reading direction."""

from __future__ import annotations

import textwrap

_CONTROL = [*range(0x20), *range(0x7F, 0xA0)]
_DIRECTION = [0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_SEPARATORS = [0x2028, 0x2029]
_SHOWN = dict.fromkeys(_CONTROL + _DIRECTION + _SEPARATORS, "\N{REPLACEMENT CHARACTER}")
_SHOWN = {code: mark for code, mark in _SHOWN.items() if chr(code) not in "\t\n\r"}


def printable(text: str) -> str:
    """The text with a mark for each character that would steer a terminal or reorder a line; white space stays."""
    return text if text.isprintable() else text.translate(_SHOWN)


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
