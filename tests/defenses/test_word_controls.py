"""The controls of inserted words: what they insert, where, and that nothing else changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from small_samples import mixed_samples
from tiny_models import tiny_random_llava

from arena.budget import Budget, words
from arena.data.sample import Sample
from arena.errors import BudgetError
from arena.leak import given_away, inserted_words
from arena.plugins.base import DefenderWorld, Defense
from arena.plugins.registry import Registry
from arena.release import build_release
from mmguard.trigger import admissible_vocabulary

SAMPLES = mixed_samples(6)


def world(budget: Budget, seed: int = 0) -> DefenderWorld:
    return DefenderWorld(budget, seed, lambda: (tiny_random_llava(),))


def release(defense: Defense, budget: Budget, seed: int = 0, samples: Sequence[Sample] = SAMPLES) -> list[Sample]:
    tokenizer = tiny_random_llava().tokenizer
    drafts = defense.protect(samples, world(budget, seed))
    return build_release(samples, drafts, budget, lambda text: len(tokenizer(text)["input_ids"]))


def random_words(**config: object) -> Defense:
    return Registry().create("defense", "random-words", config)


def answer_word(budget: Budget, samples: Sequence[Sample]) -> list[str]:
    return [d.question for d in Registry().create("defense", "answer-word").protect(samples, DefenderWorld(budget))]


@pytest.mark.parametrize("text", [0, 1, 4])
@pytest.mark.parametrize("position", ["prefix", "suffix"])
def test_random_words_are_as_many_as_the_budget_allows(text: int, position: str) -> None:
    found = release(random_words(position=position), Budget(text=text))
    known = {word.casefold() for word in admissible_vocabulary(tiny_random_llava()).words}
    for before, after in zip(SAMPLES, found, strict=True):
        assert after.image.tobytes() == before.image.tobytes()
        rest = after.question.removesuffix if position == "prefix" else after.question.removeprefix
        drawn = rest(before.question).split()
        assert " ".join(sorted([*before.question.split(), *drawn])) == " ".join(sorted(after.question.split()))
        assert len(drawn) == text or (position == "prefix" and text and len(drawn) == text - 1)  # a word of two tokens
        assert {word.casefold() for word in drawn} <= known


def test_random_words_follow_the_seed_and_nothing_else() -> None:
    questions = [[s.question for s in release(random_words(), Budget(), seed)] for seed in (0, 0, 1)]
    assert questions[0] == questions[1] != questions[2]
    others = [replace(s, image=s.image.point(lambda v: 255 - v)) for s in SAMPLES]
    assert [s.question for s in release(random_words(), Budget(), 0, others)] == questions[0]


def test_random_words_are_none_of_the_answer() -> None:
    free = Budget(forbid_answer_words=False)
    told = release(random_words(), free)
    answered = [
        replace(s, aliases=tuple(inserted_words(s.question, t.question))) for s, t in zip(SAMPLES, told, strict=True)
    ]
    assert all(
        given_away(s, t.question) for s, t in zip(answered, release(random_words(), free, 0, answered), strict=True)
    )
    kept = release(random_words(), Budget(), 0, answered)
    assert not any(given_away(s, t.question) for s, t in zip(answered, kept, strict=True))


def test_the_answer_is_appended_and_nothing_else() -> None:
    told = release(Registry().create("defense", "answer-word"), Budget(forbid_answer_words=False))
    for before, after in zip(SAMPLES, told, strict=True):
        assert after.image.tobytes() == before.image.tobytes()
        assert after.question == f"{before.question} {before.answer}"
        assert given_away(before, after.question)


@pytest.mark.parametrize(
    ("answer", "text", "appended"),
    [
        ("red", 5, " red"),
        ("red", 0, ""),
        ("a big red fox", 2, " a big"),
        ("3.5 km", 3, " 3.5"),
        ("3.5", 2, ""),
        ("one\nline\u200b", 5, " one line"),
        ("x" * 40, 1, ""),
        ("B", 1, " B"),
    ],
)
def test_of_a_long_answer_as_much_as_the_budget_allows(answer: str, text: int, appended: str) -> None:
    sample = replace(SAMPLES[0], answer=answer)
    budget = Budget(text=text, forbid_answer_words=False)
    assert answer_word(budget, [sample]) == [f"{sample.question}{appended}"]
    assert len(words(appended)) <= text
    drafts = Registry().create("defense", "answer-word").protect([sample], DefenderWorld(budget))
    assert build_release([sample], drafts, budget)[0].answer == answer


def test_the_rule_would_refuse_the_appended_answer() -> None:
    with pytest.raises(BudgetError, match="'red' was inserted"):
        release(Registry().create("defense", "answer-word"), Budget())
