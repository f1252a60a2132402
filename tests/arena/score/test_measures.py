"""Graded scores beside accuracy, against values computed by hand."""

import pytest
from PIL import Image

from arena.data.sample import Sample
from arena.score.measures import anls, vqa_accuracy


def sample(*answers):
    return Sample("s", Image.new("L", (1, 1)), "q?", answers[0], tuple(answers[1:]))


@pytest.mark.parametrize(
    ("agreeing", "expected"),
    # Leaving out one of the agreeing leaves one less; k of ten: (k min(k-1, 3) + (10-k) min(k, 3)) / 30.
    [(0, 0.0), (1, 9 / 30), (2, (2 * 1 + 8 * 2) / 30), (3, (3 * 2 + 7 * 3) / 30), (4, 1.0), (10, 1.0)],
)
def test_vqa_accuracy_leaves_every_annotator_out_once(agreeing, expected):
    answers = ["nokia"] * agreeing + [f"other {n}" for n in range(10 - agreeing)]
    assert vqa_accuracy("Nokia.", sample(*answers)) == pytest.approx(expected)


def test_vqa_accuracy_of_the_official_steps():
    assert [round(vqa_accuracy("x", sample(*["x"] * k, *["y"] * (10 - k))), 2) for k in range(5)] == [
        0,
        0.3,
        0.6,
        0.9,
        1,
    ]


@pytest.mark.parametrize(
    ("said", "answer"), [("the two dogs", "2 dogs"), ("1,000", "1000"), ("it's", "its"), ("A red car!", "red car")]
)
def test_vqa_accuracy_normalises(said, answer):
    assert vqa_accuracy(said, sample(*[answer] * 10)) == 1


@pytest.mark.parametrize(
    ("said", "answers", "expected"),
    [
        ("1970", ["1970"], 1.0),
        (" MAY  1 ", ["may 1"], 1.0),
        ("1971", ["1970"], 0.75),
        ("kitten", ["sitting"], 4 / 7),
        ("kitten", ["dog", "mitten"], 5 / 6),
        ("abcd", ["abxy"], 0.0),  # half the letters wrong: at the threshold
        ("abcde", ["abcxy"], 0.6),
        ("", ["x"], 0.0),
        ("yes", ["no"], 0.0),
    ],
)
def test_anls(said, answers, expected):
    assert anls(said, sample(*answers)) == pytest.approx(expected)
