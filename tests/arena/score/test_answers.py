"""Scoring conventions as tables."""

import pytest
from PIL import Image

from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.score.answers import CONVENTIONS

PICTURE = Image.new("L", (1, 1))


def right(convention, prediction, answer, aliases=(), choices=()):
    return CONVENTIONS[convention](prediction, Sample("s", PICTURE, "q?", answer, tuple(aliases), tuple(choices)))


@pytest.mark.parametrize(
    ("prediction", "answer", "expected"),
    [
        ("fox", "fox", True),
        ("  Fox. ", "fox", True),
        ("top \n left", "Top left", True),
        ("fox!?", "fox", True),
        ("STRASSE", "stra\u00dfe", True),
        ("a fox", "fox", False),
        ("foxes", "fox", False),
        ("fox owl", "fox", False),
        ("", "fox", False),
        ("", "?", False),
        ("?", "?", True),
        ("3.5", "35", False),
        ("two", "2", False),
        (".", "", False),
    ],
)
def test_exact(prediction, answer, expected):
    assert right("exact", prediction, answer) is expected


def test_any_alias_counts():
    assert right("exact", "Vixen.", "fox", ["vixen", "todd"])
    assert right("normalized", "the todd", "fox", ["vixen", "todd"])
    assert not right("exact", "wolf", "fox", ["vixen"])


@pytest.mark.parametrize(
    ("prediction", "answer", "expected"),
    [
        ("A fox.", "fox", True),
        ("the red, big fox", "Red big fox", True),
        ("two", "2", True),
        ("Ten dogs", "10 dogs", True),
        ("none", "0", True),
        ("don't", "dont", True),
        ("don\u2019t", "don't", True),
        ("U.S.A.", "USA", True),
        ("1,000", "1000", True),
        ("1,5", "15", False),
        ("3.5", "35", False),
        ("3.5", "3.5.", True),
        ("-5", "5", False),
        ("3-5", "3 5", True),
        ("t-shirt", "t shirt", True),
        ("12:30", "1230", False),
        ("answer: 5", "answer 5", True),
        ("red/blue", "red blue", True),
        ("5%", "5", False),
        ("a", "a", True),
        ("a", "the", False),
        ("", "a", False),
        ("", "...", False),
        ("fox", "wolf", False),
        ("foxes", "fox", False),
    ],
)
def test_normalized(prediction, answer, expected):
    assert right("normalized", prediction, answer) is expected
    assert right("normalized", answer, prediction) is expected


OPTIONS = ("a dog", "a red car", "blue", "I")


@pytest.mark.parametrize(
    ("prediction", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        (" (B) ", "B"),
        ("B.", "B"),
        ("(b).", "B"),
        ("[B]", "B"),
        ("**B**", "B"),
        ('"B"', "B"),
        ("B)", "B"),
        ("Answer: B", "B"),
        ("answer:B", "B"),
        ("The answer is B.", "B"),
        ("The correct answer is (B)", "B"),
        ("The answer is: B", "B"),
        ("Answer: option B", "B"),
        ("Option B", "B"),
        ("My final answer is\nB", "B"),
        ("B. a red car", "B"),
        ("(B) a red car", "B"),
        ("B: red", "B"),
        ("B - a red car", "B"),
        ("a red car", "B"),
        ("A red car.", "B"),
        ("Answer: a red car", "B"),
        ("BLUE", "C"),
        ("A", "A"),
        ("a dog", "A"),
        ("A. blue", "A"),
        ("i", "D"),
        ("D", "D"),
        ("E", None),
        ("a man", None),
        ("b red car", None),
        ("blueish", None),
        ("red car", None),
        ("", None),
        ("answer", None),
        ("A or B", None),
        ("AB", None),
        ("4", None),
    ],
)
def test_choice(prediction, letter):
    for answer in "ABCD":
        assert right("choice", prediction, answer, choices=OPTIONS) is (answer == letter)


def test_choice_without_listed_options():
    assert right("choice", "(c)", "C")
    assert not right("choice", "d", "C")


def test_an_answer_given_as_text_stands_for_its_letter():
    assert right("choice", "B", "a red car", choices=OPTIONS)
    assert right("choice", "a red car", "(b)", choices=OPTIONS)
    assert right("choice", "A", "B", aliases=("A",), choices=OPTIONS)


def test_a_sample_whose_answer_names_no_option_is_an_error():
    with pytest.raises(ArenaError, match="sample 's': the answer 'a cat' names no option"):
        right("choice", "A", "a cat", choices=OPTIONS)
    with pytest.raises(ArenaError, match="names no option"):
        right("choice", "A", "E", choices=OPTIONS)
