"""What goes with the words of an answer, and what stays."""

from __future__ import annotations

import pytest
from PIL import Image

from arena.data.sample import Sample
from arena.leak import given_away
from arena.plugins.base import AttackerWorld
from arena.plugins.registry import Registry
from attacks.text.words import pieces, without


def stripped(question: str, answer: str, *aliases: str, choices: tuple[str, ...] = (), **config: object) -> str:
    attack = Registry().create("attack", "answer-strip", config)
    before = Sample("a", Image.new("RGB", (4, 4)), question, answer, aliases, choices)
    (after,) = attack.purify([before], AttackerWorld())
    assert (after.id, after.answer, after.aliases, after.choices) == ("a", answer, aliases, choices)
    return after.question


@pytest.mark.parametrize(
    ("question", "answer", "left"),
    [
        ("which clan drew this? fox", "fox", "which clan drew this?"),
        ("FOX which clan drew this?", "fox", "which clan drew this?"),
        ("which ﬁre fox drew this?", "fire", "which fox drew this?"),  # a ligature
        ("which clan, Straße, drew this?", "STRASSE", "which clan,, drew this?"),
        ("which foxes and foxglove?", "fox", "which foxes and foxglove?"),
        ("how many? three 3 ③ 33", "3", "how many? 33"),
        ("how many? none", "0", "how many?"),
        ("who drew the wo lf wo-lf w\u200bolf here?", "wolf", "who drew the here?"),
        ("who drew the wolves, lf wo?", "wolf", "who drew the wolves, lf wo?"),
        ("which fox-like thing?", "fox", "which -like thing?"),
        ("whose dog is the big one here?", "the big dog", "whose is the one here?"),
        ("what is it? 🦊 🐺", "🦊", "what is it? 🐺"),
        ("fox", "fox", "fox"),  # never empty
        ("Fox fox", "fox", "Fox fox"),
        ("fox?", "fox", "?"),
        ("two  spaces stay", "fox", "two  spaces stay"),
        ("two  spaces fox stay", "fox", "two  spaces stay"),
    ],
)
def test_words_are_compared_as_leaks_are(question: str, answer: str, left: str) -> None:
    assert stripped(question, answer) == left


def test_aliases_go_too() -> None:
    assert stripped("which car or auto or bus is it?", "car", "auto") == "which or or bus is it?"


def test_parts_of_an_answer_stay_where_it_is_asked_for() -> None:
    asked = "is the dog a big one?"
    assert stripped(asked, "big dog", partial=False) == "is the a one?"
    assert stripped(asked, "big cat", partial=False) == asked
    assert stripped(asked, "big cat") == "is the dog a one?"


CHOICES = ("a red fox", "a grey owl")
STEM = "who is this? is it red or a grey animal?"
OPTIONS = "\n(A) a red fox\n(B) a grey owl"


@pytest.mark.parametrize("choices", [CHOICES, ()])
def test_options_stay_and_the_letter_goes(choices: tuple[str, ...]) -> None:
    """The options are found by what the sample says of them, or by their letters; an article is no letter."""
    assert stripped(f"{STEM} A{OPTIONS}", "A", choices=choices) == STEM + OPTIONS
    assert stripped(f"{STEM} B{OPTIONS}", "A", choices=choices) == f"{STEM} B{OPTIONS}"
    ending = "\nAnswer with a letter."
    assert stripped(f"{STEM}{OPTIONS}{ending} A", "A", choices=choices) == f"{STEM}{OPTIONS}{ending}"


def test_the_text_of_the_right_option_goes_where_all_of_it_is_there() -> None:
    assert stripped(STEM + OPTIONS, "A", choices=CHOICES) == STEM + OPTIONS  # "red" alone tells nothing
    assert stripped(f"{STEM} fox{OPTIONS}", "A", choices=CHOICES) == f"who is this? is it or a grey animal?{OPTIONS}"


@pytest.mark.parametrize("answer", ["fox", "the big dog", "three", "burkina faso"])
def test_an_answer_spelled_out_anywhere_is_given_away_no_more(answer: str) -> None:
    question = "which clan drew this picture?"
    words = question.split()
    original = Sample("a", Image.new("RGB", (4, 4)), question, answer)
    for planted in (
        answer,
        answer.upper(),
        " ".join(reversed(answer.split())),
        "".join(answer.removeprefix("the ").split()),
    ):
        for place in range(len(words) + 1):
            leaky = " ".join([*words[:place], planted, *words[place:]])
            assert given_away(original, leaky)
            assert not given_away(original, stripped(leaky, answer))


@pytest.mark.parametrize("text", ["  Which  ﬁx? (3) a\u200bb 🏳️‍🌈,\n\n(A) x ", "", "?!", "أي عشيرة"])
def test_pieces_are_the_text(text: str) -> None:
    assert "".join(piece.text for piece in pieces(text)) == text == without(pieces(text), ())
