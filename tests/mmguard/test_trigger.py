"""The text step: admissible words, insertion, screening, choice."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import tiny_random_llava

from arena.budget import Budget
from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.lvlm.base import LVLM
from mmguard.trigger import (
    Vocabulary,
    admissible_vocabulary,
    choose,
    fits,
    initial_trigger,
    insert,
    insertion_gap,
    screen,
    screening_scores,
    slot_gradient,
    slot_positions,
    slot_span,
    token_growth,
    trigger_in,
)


def asked(answer: str, *aliases: str) -> Sample:
    return Sample("s", Image.new("RGB", (48, 48)), "which clan is this?", answer, aliases)


@pytest.fixture(scope="module")
def lvlm() -> LVLM:
    return tiny_random_llava()


def test_admissible_words_are_single_tokens_with_a_leading_space(lvlm: LVLM) -> None:
    vocabulary = admissible_vocabulary(lvlm)
    tokenizer = lvlm.tokenizer
    assert len(vocabulary) > 100
    assert len(set(vocabulary.words)) == len(vocabulary)
    for word, token in zip(vocabulary.words, vocabulary.ids.tolist(), strict=True):
        assert word.isascii() and word.isalpha()
        assert tokenizer.decode([token]) == f" {word}"
        assert tokenizer(f"x {word}", add_special_tokens=False)["input_ids"][-1] == token
        assert token not in tokenizer.all_special_ids
    assert not {"USER", "ASSISTANT"} & set(vocabulary.words)


def test_no_admissible_word_is_an_error(lvlm: LVLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(lvlm.tokenizer), "decode", lambda self, ids: "7")
    with pytest.raises(ArenaError, match="leading space"):
        admissible_vocabulary(lvlm)


@pytest.mark.parametrize(
    ("gap", "text"),
    [(0, "fox owl where  is it?"), (1, "where fox owl  is it?"), (3, "where  is it? fox owl")],
)
def test_insertion_replaces_nothing(gap: int, text: str) -> None:
    released, (start, stop) = insert("where  is it?", ("fox", "owl"), gap)
    assert released == text
    assert released[start:stop] == "fox owl"


def test_insertion_keeps_outer_whitespace_and_empty_triggers() -> None:
    assert insert(" where?\n", ("fox",), 0)[0] == " fox where?\n"
    assert insert(" where?\n", ("fox",), 1)[0] == " where? fox\n"
    assert insert("where?", (), 1) == ("where?", (6, 6))


def test_gaps() -> None:
    rng = np.random.default_rng(0)
    assert insertion_gap("a b c", "prefix", rng) == 0
    assert insertion_gap("a b c", "suffix", rng) == 3
    assert {insertion_gap("a b c", "random", rng) for _ in range(60)} == {0, 1, 2, 3}


def test_slots_are_found_in_the_sequence(lvlm: LVLM) -> None:
    vocabulary = admissible_vocabulary(lvlm)
    trigger = vocabulary.words[10:13]
    version = insert("which clan is this?", trigger, 4)
    ids = lvlm.encode_text((48, 48), version[0], "red", version[1]).ids
    for slot, word in enumerate(trigger):
        start, stop = slot_span(trigger, version[1], slot)
        assert version[0][start:stop] == word
        (position,) = slot_positions(lvlm, (48, 48), version, trigger, slot, "red")
        assert ids[position] == vocabulary.ids[10 + slot]


@pytest.mark.parametrize("gap", [0, 2, 4])
def test_a_starting_trigger_fits_its_tokens(lvlm: LVLM, gap: int) -> None:
    vocabulary, sample = admissible_vocabulary(lvlm), asked("fox")
    question = sample.question
    for seed in range(5):
        rng = np.random.default_rng(seed)
        trigger = initial_trigger(sample, 3, gap, vocabulary, lvlm.tokenizer, rng, Budget())
        growth = token_growth(lvlm.tokenizer, question, insert(question, trigger, gap)[0])
        assert 0 < len(trigger) <= 3 and growth <= 3
        assert set(trigger) <= set(vocabulary.words)
    assert len(initial_trigger(sample, 3, 4, vocabulary, lvlm.tokenizer, rng, Budget())) == 3


def few(*words: str) -> Vocabulary:
    return Vocabulary(words, torch.arange(len(words)))


class ByWords:
    """A slow tokenizer with a token a word."""

    is_fast = False

    def __call__(self, text: str, **_: bool) -> dict[str, list[str]]:
        return {"input_ids": text.split()}


by_words = ByWords()


def test_words_of_the_answer_are_no_beginning() -> None:
    """Not even where hardly any others are left."""
    vocabulary = few("fox", "Fox", "star", "FOX", "three", "tail")
    draw = partial(initial_trigger, words=2, gap=4, vocabulary=vocabulary, tokenizer=by_words)
    found = [draw(asked("fox", "3"), rng=np.random.default_rng(i), budget=Budget()) for i in range(20)]
    assert {word for trigger in found for word in trigger} == {"star", "tail"}
    free = Budget(forbid_answer_words=False)
    assert {w for i in range(20) for w in draw(asked("fox"), rng=np.random.default_rng(i), budget=free)} >= {"fox"}
    assert draw(asked("star", "tail", "fox", "three"), rng=np.random.default_rng(0), budget=Budget()) == ()


def test_admissible_words_that_make_the_answer_together_do_not_fit() -> None:
    sample = asked("foxtail")
    apart, together = "which clan is this? tail fox", "which clan is this? fox tail"
    assert fits(sample, apart, 2, by_words, Budget()) and not fits(sample, together, 2, by_words, Budget())
    assert fits(sample, together, 2, by_words, Budget(forbid_answer_words=False))
    assert not fits(sample, apart, 1, by_words, Budget())
    rngs = map(np.random.default_rng, range(20))
    drawn = [initial_trigger(sample, 2, 4, few("fox", "tail"), by_words, rng, Budget()) for rng in rngs]
    assert ("fox", "tail") not in drawn and ("tail", "fox") in drawn


def test_a_trigger_is_found_again() -> None:
    for gap in (0, 2, 4):
        told = insert("which clan is this?", ("fox", "owl"), gap)[0]
        assert trigger_in("which clan is this?", told, gap) == ("fox", "owl")
        assert trigger_in("which clan is that?", told, gap) is None
    assert trigger_in("which clan?", "which clan?", 1) == ()


def test_screening_is_the_inner_product_of_every_replacement() -> None:
    generator = torch.Generator().manual_seed(0)
    table, current, gradients = (torch.randn(n, 8, generator=generator) for n in (30, 4, 4))
    scores = screening_scores(table, current, gradients)
    for b in range(4):
        for v in range(30):
            assert torch.isclose(scores[b, v], torch.dot(table[v] - current[b], gradients[b]), atol=1e-5)
    best = screen(scores, 5)
    assert best == scores.argsort(1)[:, :5].tolist()
    assert [len(row) for row in screen(scores, 100)] == [30] * 4


def test_screening_leaves_out_what_is_barred_for_a_sample() -> None:
    scores = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0]])
    assert screen(scores, 2, [[1], []]) == [[2, 0], [1, 2]]
    assert screen(scores, 3, [[0, 1, 2], [1]]) == [[], [2, 0]]
    assert scores[0, 1] == 1.0


def test_slot_gradient_averages_a_words_tokens() -> None:
    inputs = torch.randn(2, 5, 3, requires_grad=True)
    weights = torch.randn(2, 5, 3)
    current, gradient = slot_gradient((inputs * weights).sum((1, 2)), inputs, [[1], [2, 4]])
    assert torch.allclose(gradient, torch.stack([weights[0, 1], (weights[1, 2] + weights[1, 4]) / 2]))
    assert torch.allclose(current, torch.stack([inputs[0, 1], (inputs[1, 2] + inputs[1, 4]) / 2]))
    assert not current.requires_grad


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("candidates", [1, 8])
def test_lemma_b1(seed: int, candidates: int) -> None:
    """Screen and verify come within L R^2 of the best word, for a loss whose gradient is L-Lipschitz."""
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(50, 6, generator=generator)
    goal, start = torch.randn(6, generator=generator), torch.randn(1, 6, generator=generator)

    def loss(e: torch.Tensor) -> torch.Tensor:
        return 1.5 * (e - goal).square().sum(-1) + (2 * e).sin().sum(-1)

    smoothness = 3.0 + 4.0
    point = start.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(point).sum(), point)
    kept = screen(screening_scores(table, start, gradient), candidates)[0]
    chosen = loss(table[kept]).min()
    reach = (table - start).norm(dim=1).max()
    assert loss(table).min() <= chosen <= loss(table).min() + smoothness * reach**2


def test_the_current_trigger_stays_unless_a_feasible_one_is_better() -> None:
    losses = torch.tensor([2.0, 1.0, 1.5, 3.0])
    assert choose(losses, lambda i: True) == 1
    assert choose(losses, lambda i: i != 1) == 2
    assert choose(losses, lambda i: False) == 0
    assert choose(torch.tensor([1.0, 1.0, 2.0]), lambda i: True) == 0
