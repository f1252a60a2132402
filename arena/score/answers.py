"""Scoring conventions: whether a model's answer counts as right.

A convention is a function of the model's text and the sample; a dataset names the one its field uses.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.leak import ARTICLES, NUMBERS
from arena.score.forms import bare, folded
from arena.score.options import named_option


def exact(prediction: str, sample: Sample) -> bool:
    """Equal to the answer or an alias, but for case, white space, closing punctuation and the form of characters."""
    return _any_equal(prediction, sample, bare)


def normalized(prediction: str, sample: Sample) -> bool:
    """Equal to the answer or an alias after normalisation in the manner of the VQA evaluation (Antol 2015, VQA).

    Case, articles and punctuation do not count, except within numbers and for signs such as ``%``; number words up to
    ten are digits.
    """
    return _any_equal(prediction, sample, normal_form)


def choice(prediction: str, sample: Sample) -> bool:
    """The text names the right option and no other, see `arena.score.options`.

    Raises `ArenaError` if the sample's own answer names no option.
    """
    right = {named_option(text, sample.choices) for text in (sample.answer, *sample.aliases)} - {None}
    if not right:
        raise ArenaError(
            f"sample {sample.id!r}: the answer {sample.answer!r} names no option: the choice convention needs the "
            "letter of the right option"
        )
    return named_option(prediction, sample.choices) in right


CONVENTIONS: dict[str, Callable[[str, Sample], bool]] = {"exact": exact, "normalized": normalized, "choice": choice}


def _any_equal(prediction: str, sample: Sample, form: Callable[[str], str]) -> bool:
    return form(prediction) in {form(text) for text in (sample.answer, *sample.aliases)}


def normal_form(text: str) -> str:
    """A text as `normalized` compares it; never empty unless the text is."""
    form = folded(text)
    kept = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", form)  # 1,000
    kept = re.sub(r"['`]|\.(?!\d)|(?<!\d)\.(?=\D|$)", "", kept)  # don't, u.s.; 3.5 and .5 stay
    kept = re.sub(r"(?<=\w)-|-(?!\d)|(?<!\d):|:(?!\d)|[;/\[\]\"{}()=+\\_><@,?!*]", " ", kept)  # -5, 12:30 stay
    words = [NUMBERS.get(word, word) for word in kept.split() if word not in ARTICLES]
    return " ".join(words) or kept.strip() or form  # a lone "A." is a letter, not an article
