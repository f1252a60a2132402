"""What counts as an answer given away by inserted words, and which words may not be inserted."""

from __future__ import annotations

import pytest
from PIL import Image

from arena.budget import Budget, check
from arena.data.sample import Sample
from arena.errors import BudgetError
from arena.leak import forbidden, forbidden_word, given_away, inserted_words

QUESTION = "which clan is this?"


def sample(
    answer: str, aliases: tuple[str, ...] = (), choices: tuple[str, ...] = (), question: str = QUESTION
) -> Sample:
    return Sample("s", Image.new("RGB", (4, 4)), question, answer, aliases, choices)


@pytest.mark.parametrize(
    ("asked", "question", "leaks"),
    [
        (sample("fox"), "which clan is this?", False),
        (sample("fox"), "which clan is this? fox", True),
        (sample("fox"), "which FOX clan is this?", True),
        (sample("fox"), "which clan is this? \uff26ox", True),  # a full-width letter
        (sample("fox"), "which clan is this? fox's", True),
        (sample("fox"), "which clan is this? foxes", False),
        (sample("Straße"), "which clan is this? STRASSE", True),
        (sample("a fox"), "which clan is this? fox", True),
        (sample("a fox"), "which clan is this? a", False),
        (sample("dog", aliases=("fox",)), "which clan is this? fox", True),
        (sample("red car"), "which clan is this? red", False),
        (sample("red car"), "which clan is this? car of red", True),
        (sample("red car"), "which clan is this? redcar", True),
        (sample("foxtail"), "which clan is this? fox tail", True),
        (sample("which fox"), "which fox clan is this?", True),  # completed with a word that was there
        (sample("three"), "which clan is this? 3", True),
        (sample("3"), "which clan is this? three", True),
        (sample("3.5"), "which clan is this? 3", False),
        (sample("+"), "which clan is this? +", True),
        (sample("+"), "which clan is this? fox", False),
        (sample("clan"), "which clan is this? fox", False),  # it stands there anyway
        (sample("clan"), "which clan is this? clan", True),
        (sample("B", choices=("owl", "red fox")), "which clan is this? b", True),
        (sample("B", choices=("owl", "red fox")), "which clan is this? a", False),
        (sample("B", choices=("owl", "red fox")), "which clan is this? fox red", True),
        (sample("B", choices=("owl", "red fox")), "which clan is this? owl", False),
        (sample("(b)", choices=("owl", "fox")), "which clan is this? fox", True),
        (sample("fox", choices=("owl", "fox")), "which clan is this? B", True),
    ],
)
def test_what_gives_an_answer_away(asked: Sample, question: str, leaks: bool) -> None:
    assert given_away(asked, question) == leaks
    if leaks:
        assert forbidden_word(asked, question) is not None


def test_words_of_an_answer_are_forbidden_one_by_one() -> None:
    asked = sample("a red fox", aliases=("Vulpes vulpes", "three"))
    assert forbidden(asked) == {"red", "fox", "redfox", "vulpes", "vulpesvulpes", "3"}
    assert forbidden_word(asked, "which red clan is this?") == "red"
    assert not given_away(asked, "which red clan is this?")


def test_letters_of_all_options_are_forbidden_and_texts_of_the_right_one() -> None:
    asked = sample("B", choices=("an owl", "a fox", "a bear"))
    assert forbidden(asked) == {"a", "b", "c", "fox"}
    assert forbidden_word(asked, "which clan is this? owl C") == "c"


def test_only_inserted_words_count() -> None:
    assert inserted_words("which fox is this?", "my which FOX is that, owl?") == ["my", "that", "owl"]
    asked = sample("fox", question="fox or owl?")
    assert forbidden_word(asked, "fox or owl? bear") is None
    assert forbidden_word(asked, "owl? fox") is not None, "moved to the end"


def test_an_empty_answer_forbids_nothing() -> None:
    assert forbidden(sample("")) == frozenset()
    assert not given_away(sample(""), "which clan is this? fox")


def test_the_budget_names_sample_and_word() -> None:
    asked = sample("fox")
    told = asked.with_content(asked.image, "which clan is this? Fox")
    with pytest.raises(BudgetError, match=r"budget: sample 3 \('s'\): the word 'fox' was inserted"):
        check(asked, told, Budget(), None, 3)
    check(asked, told, Budget(forbid_answer_words=False), None, 3)
    assert Budget().forbidden(asked) == {"fox"} and Budget().forbidden_word(asked, told.question) == "fox"
    free = Budget(forbid_answer_words=False)
    assert free.forbidden(asked) == frozenset() and free.forbidden_word(asked, told.question) is None


def test_the_length_of_a_trigger_is_said_before_its_words() -> None:
    asked = sample("fox")
    with pytest.raises(BudgetError, match="2 words inserted"):
        check(asked, asked.with_content(asked.image, "which clan is this? fox fox"), Budget(text=1), None, 0)
