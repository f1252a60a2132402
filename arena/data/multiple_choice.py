"""Questions with lettered options, in the form of LLaVA's evaluation prompts (Liu 2023, arXiv 2310.03744)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from string import ascii_uppercase

from arena.data.sample import Sample
from arena.errors import ArenaError

SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."

_HEADER = re.compile(r"\s*\b(?i:options|choices)\s*:\s*(?=\(?A[:.)])")


def lettered(question: str, choices: Sequence[str]) -> str:
    """The question, then a line ``A. first choice`` for each."""
    return "\n".join([question, *(f"{chr(ord('A') + i)}. {choice}" for i, choice in enumerate(choices))])


def asked(sample: Sample) -> Sample:
    """The sample with its `choices` in the question, as the data sets of the field ask: a line ``A. first choice`` for
    each, and where the answer is a letter, `LETTER` as the last line.

    A question that holds its options, by letter and in order, stays as it is, also with other words between them.
    Raises `ArenaError` for a choice without text, and for more choices than letters.
    """
    choices = sample.choices
    if not choices:
        return sample
    if not all(map(str.strip, choices)) or len(choices) > len(ascii_uppercase):
        raise ArenaError(
            f"sample {sample.id!r}: its {len(choices)} choices need a text each, and a letter each from A to Z: repair "
            "the row"
        )
    if _hold(_words(sample.question), _words(lettered("", choices))):
        return sample
    by_letter = sample.answer.strip().upper() in tuple(ascii_uppercase[: len(choices)])
    question = lettered(sample.question, choices)
    return replace(sample, question=f"{question}\n{LETTER}" if by_letter else question)


def _words(text: str) -> list[str]:
    return [word.casefold() for word in re.findall(r"\w+", text)]


def _hold(words: Iterable[str], wanted: Sequence[str]) -> bool:
    """Whether all the words that are wanted stand among others, in order."""
    left = iter(words)
    return all(word in left for word in wanted)


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
