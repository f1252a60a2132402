"""Where a question's options begin and end."""

from __future__ import annotations

import pytest
from PIL import Image

from arena.data.sample import Sample
from attacks.text.multiple_choice import divide

COLOURS = ("red", "dark blue", "green")


def sample(question: str, choices: tuple[str, ...] = ()) -> Sample:
    return Sample("a", Image.new("L", (1, 1)), question, "A", choices=choices)


@pytest.mark.parametrize(
    ("before", "options", "after"),
    [
        ("What colour is it?", "\nOptions: A: red, B: dark blue, C: green.", ""),
        ("What colour is it?", "\nA. red\nB. dark blue\nC. green", "\nAnswer with the letter."),
        ("What colour is it?", "\n(A) red (B) dark blue (C) green", " zebra lamp"),
        ("What colour is it?", "\nChoices:\n(a) Red\n(b) Dark  Blue\n(c) Green", " zebra lamp"),
        ("Is a red car better than a green one?", " red, dark blue, green", ""),
        ("", "A. red B. dark blue C. green", "\nWhich one?"),
    ],
)
def test_known_choices_are_cut_out_exactly(before: str, options: str, after: str) -> None:
    assert divide(sample(before + options + after, COLOURS)) == (before, options, after)


@pytest.mark.parametrize(
    ("before", "options", "after"),
    [
        ("What colour is it?", "\nOptions: A: red, B: dark blue, C: green", ""),
        ("What colour is it?", "\nA. red\nB. dark blue", "\nAnswer with the letter."),
        ("Which?", " (a) 3 (b) 4 (c) 5 (d) 6", "\n\nThink first."),
        ("Which?", "\n[A] one\n[B] two", ""),
        # What is put into the last line cannot be told from the option: without known choices it stays.
        ("Which?", "\nA. red\nB. blue zebra", ""),
    ],
)
def test_lettered_options_are_found_without_choices(before: str, options: str, after: str) -> None:
    assert divide(sample(before + options + after)) == (before, options, after)


def test_words_among_known_choices_leave_the_letters_to_go_by() -> None:
    question = "Which?\nA. red zebra\nB. dark blue\nC. green\nSay it."
    assert divide(sample(question, COLOURS)) == ("Which?", "\nA. red zebra\nB. dark blue\nC. green", "\nSay it.")


@pytest.mark.parametrize(
    "question",
    [
        "which clan drew this picture?",
        "What is the difference between (a) and (b)?",
        "Is vitamin A. or vitamin C. shown?",
        "What does Mr. B. hold?",
        "",
    ],
)
def test_other_questions_have_no_options(question: str) -> None:
    assert divide(sample(question)) == (question, "", "")
    assert divide(sample(question, COLOURS)) == (question, "", "")
