"""Scoring conventions: whether a model's answer counts as right.

A convention is a function of the model's text and the sample; a dataset names the one its field uses.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.leak import ARTICLES, NUMBERS

_PREFIX = re.compile(
    r"(?:so |therefore,? |thus,? )?(?:the |my )?(?:(?:correct|right|best|final) )*(?:answer|option|choice)"
    r"(?: is)?\s*[:=]?\s*(?=\W*\w)"
)
_BARE_LETTER = re.compile(r"[(\[{\"'*]*([a-z])[)\]}\"'*]*[.:,;!]*[)\]}\"'*]*")
_LETTER_AND_TEXT = re.compile(r"[(\[{\"'*]*([a-z])[)\]}\"'*]*(?:(?<=[)\]}])|[.:,;]|\s+-)\s.*")


def exact(prediction: str, sample: Sample) -> bool:
    """Equal to the answer or an alias, but for case, white space and closing punctuation."""
    return _any_equal(prediction, sample, _plain)


def normalized(prediction: str, sample: Sample) -> bool:
    """Equal to the answer or an alias after normalisation in the manner of the VQA evaluation (Antol 2015, VQA).

    Case, articles and punctuation do not count, except within numbers and for signs such as ``%``; number words up to
    ten are digits.
    """
    return _any_equal(prediction, sample, normal_form)


def choice(prediction: str, sample: Sample) -> bool:
    """The right option's letter after case folding, white space and prefix removal, or its full text.

    ``B``, ``(b)``, ``B.``, ``Answer: B``, ``The answer is (B).`` and ``B. a red car`` name option B. A letter beats a
    text that disagrees with it; a lone ``a`` before other words is an article, not an option.

    Raises `ArenaError` if the sample's own answer names no option.
    """
    right = {_letter(text, sample.choices) for text in (sample.answer, *sample.aliases)} - {None}
    if not right:
        raise ArenaError(
            f"sample {sample.id!r}: the answer {sample.answer!r} names no option: the choice convention needs the "
            "letter of the right option"
        )
    return _letter(prediction, sample.choices) in right


CONVENTIONS: dict[str, Callable[[str, Sample], bool]] = {"exact": exact, "normalized": normalized, "choice": choice}


def _any_equal(prediction: str, sample: Sample, form: Callable[[str], str]) -> bool:
    return form(prediction) in {form(text) for text in (sample.answer, *sample.aliases)}


def _plain(text: str) -> str:
    folded = " ".join(text.casefold().split())
    # A text of nothing but punctuation stays, or it would equal the empty prediction.
    return folded.rstrip(".,;:!? ") or folded


def normal_form(text: str) -> str:
    """A text as `normalized` compares it; never empty unless the text is."""
    folded = " ".join(text.casefold().split())
    kept = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", folded)  # 1,000
    kept = re.sub(r"['\u2019`]|\.(?!\d)|(?<!\d)\.(?=\D|$)", "", kept)  # don't, u.s.; 3.5 and .5 stay
    kept = re.sub(
        r"(?<=\w)-|-(?!\d)|(?<!\d):|:(?!\d)|[;/\[\]\"\u201c\u201d{}()=+\\_><@,?!*]", " ", kept
    )  # -5, 12:30 stay
    words = [NUMBERS.get(word, word) for word in kept.split() if word not in ARTICLES]
    return " ".join(words) or kept.strip() or folded  # a lone "A." is a letter, not an article


def _letter(text: str, choices: tuple[str, ...]) -> str | None:
    """The lower-case letter of the option that a text names, or None."""
    folded = " ".join(text.casefold().split())
    while (shorter := _PREFIX.sub("", folded, count=1) if _PREFIX.match(folded) else folded) != folded:
        folded = shorter
    letters = [chr(ord("a") + i) for i in range(len(choices) or 26)]
    if (bare := _BARE_LETTER.fullmatch(folded)) and bare[1] in letters:
        return bare[1]
    for letter, option in zip(letters, choices, strict=False):
        if _plain(folded) == _plain(option) or _plain(text) == _plain(option):
            return letter
    if (led := _LETTER_AND_TEXT.fullmatch(folded)) and led[1] in letters:
        return led[1]
    return None
