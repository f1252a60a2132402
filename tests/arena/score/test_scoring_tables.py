"""The tables of arena/score/README.md hold, and what they stand for beside their rows."""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from arena.data.sample import Sample
from arena.score.answers import CONVENTIONS
from arena.score.forms import folded
from arena.score.measures import MEASURES
from arena.score.options import named_option

README = Path(__file__).parents[3] / "arena" / "score" / "README.md"
OPTIONS = ("a dog", "a red car", "blue", "a boat")


def rows(header: str) -> Iterator[tuple[list[str], str]]:
    """The code of a table's first cells, and its second cells."""
    lines = README.read_text(encoding="utf-8").split("\n")
    at = next(number for number, line in enumerate(lines) if line.startswith(header)) + 2
    for line in lines[at:]:
        if not line.startswith("|"):
            return
        first, second = line.strip("|").split("|")
        yield [unescaped(a or b) for a, b in re.findall(r"`` (.+?) ``|`([^`]+)`", first)], second.strip()


def unescaped(text: str) -> str:
    return re.sub(r"\\u([0-9a-f]{4})", lambda code: chr(int(code[1], 16)), text.replace(r"\n", "\n"))


def sample(answer: str, choices: tuple[str, ...] = ()) -> Sample:
    return Sample("s", Image.new("L", (1, 1)), "q?", answer, (), choices)


@pytest.mark.parametrize(
    ("written", "same"), [(t, re.findall("`([^`]+)`", s)[0]) for ts, s in rows("| written |") for t in ts]
)
def test_one_form(written: str, same: str) -> None:
    assert written != same
    for one, other in ((written, same), (same, written)):
        assert all(CONVENTIONS[name](one, sample(other)) for name in ("exact", "normalized"))
        assert MEASURES["vqa-accuracy"](one, sample(other)) == MEASURES["vqa-accuracy"](same, sample(same))
    if written[-1].isalnum():  # ANLS counts punctuation
        assert MEASURES["anls"](written, sample(same)) == 1


@pytest.mark.parametrize(("answer", "names"), [(a, n) for answers, n in rows("| answer | names |") for a in answers])
def test_an_answer_that_names_an_option(answer: str, names: str) -> None:
    wanted = {"the blue": "C"}.get(answer, "B") if names == "by its text" else names[0]
    assert [letter for letter in "ABCD" if CONVENTIONS["choice"](answer, sample(letter, OPTIONS))] == [wanted]


@pytest.mark.parametrize("answer", [answer for answers, _ in rows("| answer | why |") for answer in answers])
def test_an_answer_that_names_none(answer: str) -> None:
    assert not any(CONVENTIONS["choice"](answer, sample(letter, OPTIONS)) for letter in "ABCD")


def test_every_table_is_read() -> None:
    assert [len(list(rows(header))) for header in ("| written |", "| answer | names |", "| answer | why |")] == [
        10,
        14,
        6,
    ]


def test_powers_and_fractions_stay_apart_from_longer_numbers() -> None:
    for one, other in (("10\u2075", "105"), ("5\u00bd", "51/2"), ("2\u00b3", "23")):
        for name in ("exact", "normalized"):
            assert not CONVENTIONS[name](one, sample(other))
    assert folded("12 m\u00b2") == "12 m2" and folded("\u00bd") == "1/2"


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
@pytest.mark.parametrize(
    "text", ["\u00c5ngstr\u00f6m", "\ud55c\uad6d\uc5b4", "\u0e01\u0e33", "\u30ac\u30e9\u30b9", "\u0958"]
)
def test_any_normal_form_of_unicode_is_the_same_answer(form: str, text: str) -> None:
    other = unicodedata.normalize(form, text)
    assert CONVENTIONS["exact"](other, sample(text)) and MEASURES["anls"](other, sample(text)) == 1


def test_options_in_other_scripts_and_with_markup() -> None:
    choices = ("$x^2$", "\u4e00\u6761\u72d7", "3\u20135 cm", "Both A and B", "caf\u00e9")
    assert [
        named_option(text, choices) for text in ("x^2", "\u4e00\u6761\u72d7\u3002", "3-5 cm", "Both A and B")
    ] == list("abcd")
    assert named_option("The answer is D. Both A and B", choices) == "d"
    assert named_option("The answer is cafe\u0301.", choices) == "e"
    assert named_option("D. Both A and B", choices) == "d"
    assert named_option("D. Both A and B", ("1", "2", "3", "4")) is None


def test_words_that_look_like_letters_are_none() -> None:
    for text in (
        "T-shirt",
        "D.C. is nice",
        "i.e. a cat",
        "B's",
        "C'est un chien",
        "a.m.",
        "Vitamin B is the correct answer",
    ):
        assert named_option(text, OPTIONS) is None


def test_long_answers_are_read_in_reasonable_time() -> None:
    """A model that repeats itself must not stop the scoring."""
    began = time.perf_counter()
    for text in ("a " * 20000, "answer is " * 5000, "{" * 10000, "A. " * 8000, "so, " * 9000):
        named_option(text, OPTIONS)
    assert time.perf_counter() - began < 10  # a second here; patterns that try everything would take hours
