"""text-em: words at the beginning of questions, which all questions of a class share, and which lower the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_samples import mixed_samples
from tiny_models import tiny_random_llava
from torch import Tensor

from arena.budget import Budget
from arena.data.embedded.glyphs import Glyphs
from arena.data.sample import Sample
from arena.errors import ArenaError, UsageError
from arena.lvlm.base import LVLM
from arena.lvlm.batch import Role
from arena.lvlm.perturbation import PIXELS
from arena.plugins.base import DefenderWorld
from arena.plugins.registry import Registry
from arena.release import build_release
from defenses.text_em import Beginnings, Pattern, TextErrorMinimizing, _parts
from mmguard.trigger import Trigger, admissible_vocabulary, fits, insert, trigger_in

QUICK: dict[str, Any] = {"rounds": 2, "theta_steps": 2, "batch_size": 8, "rank": 2}
BUDGET = Budget()


def world(budget: Budget = BUDGET, seed: int = 0) -> DefenderWorld:
    return DefenderWorld(budget, seed, lambda: (tiny_random_llava(),))


def release(name: str, samples: Sequence[Sample], budget: Budget = BUDGET, **config: Any) -> list[Sample]:
    tokenizer = tiny_random_llava().tokenizer
    made = Registry().create("defense", name, config).protect(samples, world(budget))
    return build_release(samples, made, budget, lambda text: len(tokenizer(text)["input_ids"]))


def triggers(samples: Sequence[Sample], released: Sequence[Sample]) -> list[Trigger]:
    changed = [(a.question, b.question) for a, b in zip(samples, released, strict=True)]
    found = [() if a == b else trigger_in(a, b, 0) for a, b in changed]
    assert all(one is not None for one in found)
    return [one or () for one in found]


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return list(Glyphs().load(14, 0, 0, seed=1).train)


@pytest.fixture(scope="module")
def classwise(samples: list[Sample]) -> list[Sample]:
    return release("text-em", samples, **QUICK)


def test_all_questions_with_one_answer_begin_with_one_trigger(samples: list[Sample], classwise: list[Sample]) -> None:
    own: dict[str, set[Trigger]] = {}
    for sample, other, trigger in zip(samples, classwise, triggers(samples, classwise), strict=True):
        own.setdefault(sample.answer, set()).add(trigger)
        assert other.image.tobytes() == sample.image.tobytes()
        assert len(trigger) in (4, 5)  # the first word may be two tokens
    assert all(len(kinds) == 1 for kinds in own.values())
    assert len(set.union(*own.values())) == len(own) > 3
    apart = triggers(samples, release("text-em", samples, classwise=False, **QUICK))
    assert len(set(apart)) == len(samples)


def test_the_claim_holds_for_what_was_crafted_and_not_for_other_words(
    samples: list[Sample], classwise: list[Sample]
) -> None:
    """Not for random words at the beginning, triggers of other answers, or a trigger of each question's own."""
    plugin = TextErrorMinimizing(TextErrorMinimizing.Config(**QUICK))
    assert plugin.distinguished(samples, classwise, world()) is None
    of_answer = dict(zip([s.answer for s in samples], triggers(samples, classwise), strict=True))
    names = sorted(of_answer)
    turned = {name: of_answer[names[(place + 1) % len(names)]] for place, name in enumerate(names)}
    wrong = [s.with_content(s.image, insert(s.question, turned[s.answer], 0)[0]) for s in samples]
    assert "with random words instead" in str(plugin.distinguished(samples, wrong, world()))
    random = release("random-words", samples, position="prefix")
    assert "another trigger than others with its answer" in str(plugin.distinguished(samples, random, world()))
    apart = TextErrorMinimizing(TextErrorMinimizing.Config(classwise=False, **QUICK))
    assert "with random words instead" in str(apart.distinguished(samples, random, world()))
    assert plugin.distinguished(samples, samples, world()) == "no question changed"


def gradients(lvlm: LVLM, samples: Sequence[Sample], trigger: Trigger, slot: int) -> tuple[Tensor, Tensor]:
    """Losses ``(n,)`` and the gradient of each by the embedding of the trigger's word ``(n, d)``, one by one."""
    values, found = [], []
    for sample in samples:
        text, span = insert(sample.question, trigger, 0)
        at = span[0] + sum(len(word) + 1 for word in trigger[:slot])
        batch = lvlm.encode([sample.with_content(sample.image, text)], None, [(at, at + len(trigger[slot]))])
        forward = lvlm.forward(batch, embeddings=True)
        assert forward.embeddings is not None
        (gradient,) = torch.autograd.grad(forward.losses.sum(), forward.embeddings)
        values.append(forward.losses.detach()[0])
        found.append(gradient[0, batch.roles[0] == Role.TRIGGER].mean(0))
    return torch.stack(values), torch.stack(found)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_word_becomes_the_one_of_the_lowest_first_order_loss_of_the_whole_class(seed: int) -> None:
    """Not of one of its samples; and only if the loss of all of them falls."""
    lvlm, given = tiny_random_llava(), mixed_samples(6)
    vocabulary = admissible_vocabulary(lvlm)
    rng = np.random.default_rng(seed)
    before = tuple(vocabulary.words[i] for i in rng.integers(len(vocabulary), size=3))
    pattern = Pattern(before, list(range(6)))
    roomy = Budget(text=8)
    plugin = TextErrorMinimizing(TextErrorMinimizing.Config())
    plugin._rewrite([(pattern, pattern.members)], given, [lvlm], vocabulary, roomy)
    wanted, table = before, lvlm.model.get_input_embeddings().weight.detach()[vocabulary.ids]
    barred = {word for sample in given for word in roomy.forbidden(sample)}
    for slot in range(3):
        losses, found = gradients(lvlm, given, wanted, slot)
        estimates = table @ found.sum(0)
        best = min(
            (place for place, word in enumerate(vocabulary.words) if word.casefold() not in barred),
            key=lambda place: float(estimates[place]),
        )
        tried = (*wanted[:slot], vocabulary.words[best], *wanted[slot + 1 :])
        if gradients(lvlm, given, tried, slot)[0].sum() < losses.sum():
            wanted = tried
    assert pattern.trigger == wanted
    assert wanted != before


def test_of_a_large_class_a_batch_is_drawn_and_small_ones_come_together() -> None:
    image, large = Image.new("RGB", (8, 8)), Image.new("L", (int(PIXELS**0.5), int(PIXELS**0.5) // 2 + 1))
    given = [Sample(str(i), large if i >= 20 else image, "?", "a") for i in range(22)]
    patterns = [
        Pattern((), list(range(12))),
        Pattern((), [12, 13]),
        Pattern((), [14]),
        Pattern((), list(range(15, 20))),
    ]
    parts = list(_parts(patterns, given, 4, np.random.default_rng(0)))
    assert [[len(drawn) for _, drawn in part] for part in parts] == [[4], [2, 1], [4]]
    assert all(set(drawn) <= set(pattern.members) for part in parts for pattern, drawn in part)
    again = list(_parts(patterns, given, 4, np.random.default_rng(1)))
    assert again[0][0][1] != parts[0][0][1]
    two = list(_parts([Pattern((), [20]), Pattern((), [21])], given, 4, np.random.default_rng(0)))
    assert [len(part) for part in two] == [1, 1]  # too many pixels for one batch
    (both,) = _parts([Pattern((), [20, 21])], given, 4, np.random.default_rng(0))
    assert len(both[0][1]) == 1


def test_questions_that_a_trigger_does_not_fit_share_another_one() -> None:
    lvlm = tiny_random_llava()
    vocabulary = admissible_vocabulary(lvlm)
    first, *others = mixed_samples(6)
    picky = replace(first, aliases=vocabulary.words[: len(vocabulary) * 19 // 20])
    given = [replace(s, answer="red") for s in (picky, *others)]
    made = list(Beginnings(given, 5, vocabulary, lvlm, BUDGET, np.random.default_rng(0)).of(range(6)))
    assert sorted(i for one in made for i in one.members) == list(range(6))
    assert [len(one.members) for one in made] == [5, 1] and made[0].trigger != made[1].trigger
    for one in made:
        for i in one.members:
            assert fits(given[i], insert(given[i].question, one.trigger, 0)[0], 5, lvlm.tokenizer, BUDGET)
    released = release("text-em", given, **QUICK)  # which refuses words of an answer
    assert len(set(triggers(given, released)[1:])) == 1 and released[1].question != given[1].question


def test_words_are_as_many_as_the_budget_allows() -> None:
    given = mixed_samples(4)
    assert [s.question for s in release("text-em", given, Budget(text=0), **QUICK)] == [s.question for s in given]
    assert all(len(one) <= 2 for one in triggers(given, release("text-em", given, Budget(text=2), **QUICK)))
    with pytest.raises(UsageError, match="text-em: a trigger of 4 words is beyond the budget of 3"):
        release("text-em", given, Budget(text=3), trigger_tokens=4)


def test_a_surrogate_that_diverges_protects_nothing() -> None:
    with pytest.raises(ArenaError, match="the surrogate's loss is NaN or infinite: the surrogate diverged"):
        release("text-em", mixed_samples(4), **{**QUICK, "theta_steps": 3, "learning_rate": 1e30})
