"""Questions with lettered options, in the form of LLaVA's evaluation prompts (Liu 2023, arXiv 2310.03744)."""

from __future__ import annotations

import re
from collections.abc import Sequence

SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."

_HEADER = re.compile(r"\s*\b(?i:options|choices)\s*:\s*(?=\(?A[:.)])")


def lettered(question: str, choices: Sequence[str]) -> str:
    """The question, then a line ``A. first choice`` for each."""
    return "\n".join([question, *(f"{chr(ord('A') + i)}. {choice}" for i, choice in enumerate(choices))])


def split_options(question: str) -> tuple[str, tuple[str, ...]]:
    """A question without its options, and these, where it ends with ``Options: A: one, B: two`` or like it.

    ``Choices:``, and letters as in ``(A)`` and ``A.``, are known too. Anything else comes back whole, without options.
    """
    headers = list(_HEADER.finditer(question))
    if not headers:
        return question, ()
    before, rest = question[: headers[-1].start()], question[headers[-1].end() :]
    marks: list[re.Match[str]] = []
    for i in range(26):
        letter = chr(ord("A") + i)
        mark = re.compile(rf"(?:^|,?\s+)(?:\({letter}\)|{letter}[:.)])\s*")
        found = mark.search(rest, marks[-1].end() if marks else 0)
        if found is None:
            break
        marks.append(found)
    ends = [m.start() for m in marks[1:]] + [len(rest)]
    choices = tuple(rest[m.end() : end].strip().removesuffix(",") for m, end in zip(marks, ends, strict=True))
    return (before, choices) if len(choices) > 1 and all(choices) else (question, ())
