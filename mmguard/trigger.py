"""The text step (eqs. 16-20): a trigger of real words, inserted into the question, improved by screening and
verification.

A trigger is a tuple of words; each surrogate tokenises the question with the words in it for itself. Screening ranks
words by the first surrogate's embedding gradient; verification, in `mmguard.candidates`, asks for the exact loss of
the re-tokenised text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from arena.budget import Budget
from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.leak import words as folded
from arena.lvlm.base import LVLM
from arena.lvlm.batch import Role
from arena.lvlm.continuation import Version
from arena.lvlm.tokens import plain_ids

Position = Literal["prefix", "suffix", "random"]
Trigger = tuple[str, ...]

TRIES = 64
"""Draws of a starting trigger before one word fewer is tried."""


@dataclass(frozen=True)
class Vocabulary:
    """V_adm of a tokenizer: `words` and their single tokens, long ``(V,)``."""

    words: tuple[str, ...]
    ids: Tensor

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def places(self) -> dict[str, list[int]]:
        """Where words stand, by how they are compared with answers: several are written otherwise."""
        found: dict[str, list[int]] = {}
        for place, word in enumerate(self.words):
            for part in folded(word):
                found.setdefault(part, []).append(place)
        return found

    def places_of(self, words: Collection[str]) -> list[int]:
        """Where words that are folded stand, in order."""
        return sorted(place for word in words for place in self.places.get(word, ()))


def admissible_vocabulary(lvlm: LVLM) -> Vocabulary:
    """V_adm: tokens that are ASCII alphabetic words with a leading space and survive decoding and encoding (eq. 17).

    Digits, punctuation, special and control tokens are out, and so are the role names of the chat template. Raises
    `ArenaError` where nothing is left.
    """
    tokenizer = lvlm.tokenizer
    roles = set(re.findall("[A-Za-z]+", " ".join(lvlm.template(""))))
    anchor = "a"
    start = tokenizer(anchor, add_special_tokens=False)["input_ids"]
    special = set(tokenizer.all_special_ids)
    candidates: dict[str, int] = {}
    for token in range(len(tokenizer)):
        word = str(tokenizer.decode([token])).strip()
        if token not in special and word.isascii() and word.isalpha() and word not in roles:
            candidates.setdefault(word, token)
    words = list(candidates)
    encoded = tokenizer([f"{anchor} {word}" for word in words], add_special_tokens=False)["input_ids"] if words else []
    kept = [(w, ids[-1]) for w, ids in zip(words, encoded, strict=True) if ids[:-1] == start]
    if not kept:
        raise ArenaError(
            "the first surrogate's tokenizer has no token that is a word with a leading space; use another"
        )
    return Vocabulary(tuple(word for word, _ in kept), torch.tensor([token for _, token in kept]))


def insertion_gap(question: str, position: Position, rng: np.random.Generator) -> int:
    """How many of the question's words stand before the trigger."""
    words = len(question.split())
    return {"prefix": 0, "suffix": words}[position] if position != "random" else int(rng.integers(words + 1))


def gaps_of(samples: Sequence[Sample], position: Position, seed: int, first: int) -> list[int]:
    """Where the triggers of consecutive samples stand; a function of seed and place in the data (`first` is the
    first one's)."""
    return [
        insertion_gap(s.question, position, np.random.default_rng([seed, first + i, 0])) for i, s in enumerate(samples)
    ]


def insert(question: str, trigger: Trigger, gap: int) -> Version:
    """Insert(t, gamma): the question with the trigger after its first `gap` words, nothing replaced; and its span
    (eq. 16)."""
    text = " ".join(trigger)
    words = list(re.finditer(r"\S+", question))
    if not trigger or not words:
        return question + text, (len(question), len(question) + len(text))
    if gap == 0:
        at = words[0].start()
        return f"{question[:at]}{text} {question[at:]}", (at, at + len(text))
    at = words[gap - 1].end()
    return f"{question[:at]} {text}{question[at:]}", (at + 1, at + 1 + len(text))


def trigger_in(original: str, released: str, gap: int) -> Trigger | None:
    """The words that were inserted after the first `gap` words of a question; None where anything else changed."""
    start = insert(original, ("x",), gap)[1][0]
    text = released[start : start + len(released) - len(original) - 1]
    trigger = tuple(text.split(" ")) if text else ()
    return trigger if insert(original, trigger, gap)[0] == released else None


def slot_span(trigger: Trigger, span: tuple[int, int], slot: int) -> tuple[int, int]:
    """The characters of the word in `slot`, given those of the whole trigger."""
    start = span[0] + sum(len(word) + 1 for word in trigger[:slot])
    return start, start + len(trigger[slot])


def token_growth(tokenizer: PreTrainedTokenizerBase, original: str, released: str) -> int:
    """By how many tokens a question grew."""
    before, after = plain_ids(tokenizer, (original, released), special=True)
    return len(after) - len(before)


def initial_trigger(
    sample: Sample,
    words: int,
    gap: int,
    vocabulary: Vocabulary,
    tokenizer: PreTrainedTokenizerBase,
    rng: np.random.Generator,
    budget: Budget,
) -> Trigger:
    """Random admissible words that lengthen the sample's question by at most `words` tokens, none that the budget
    forbids in it.

    At the very front of a question a word has no leading space and may take several tokens; where `TRIES` draws do
    not fit, the trigger is one word shorter.
    """
    places = np.delete(np.arange(len(vocabulary)), vocabulary.places_of(budget.forbidden(sample)))
    for length in range(words if len(places) else 0, 0, -1):
        for _ in range(TRIES):
            trigger = tuple(vocabulary.words[i] for i in places[rng.integers(len(places), size=length)])
            if fits(sample, insert(sample.question, trigger, gap)[0], words, tokenizer, budget):
                return trigger
    return ()


def fits(sample: Sample, question: str, most_tokens: int, tokenizer: PreTrainedTokenizerBase, budget: Budget) -> bool:
    """Whether a question with a trigger has at most so many tokens more than the sample's own, and nothing inserted
    that the budget forbids: words that are admissible each may make the answer together."""
    if budget.forbidden_word(sample, question) is not None:
        return False
    return token_growth(tokenizer, sample.question, question) <= most_tokens


def screening_scores(embeddings: Tensor, current: Tensor, gradients: Tensor) -> Tensor:
    """s(v) = (e_v - e_gamma)^T g for every v in V_adm and every sample, ``(B, V)``: one matrix product (eq. 18).

    `embeddings` ``(V, d)`` are those of V_adm; `current` and `gradients` ``(B, d)`` the slot's embedding and gradient.
    """
    return gradients @ embeddings.T - (current * gradients).sum(1, keepdim=True)


def screen(scores: Tensor, candidates: int, barred: Sequence[Sequence[int]] = ()) -> list[list[int]]:
    """Indices of each sample's words with the lowest first-order estimates, at most K, best first (eq. 19), without
    those that are `barred` for it."""
    scores = scores.clone()
    for row, places in enumerate(barred):
        scores[row, list(places)] = float("inf")
    kept = scores.topk(min(candidates, scores.shape[1]), largest=False)
    return [
        [place for place, value in zip(places, values, strict=True) if value != float("inf")]
        for places, values in zip(kept.indices.tolist(), kept.values.tolist(), strict=True)
    ]


def slot_gradient(loss: Tensor, embeddings: Tensor, positions: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Embedding and gradient of a slot, each ``(B, d)``, for per-sample token `positions` of its word.

    Means over the word's tokens where it has several. `embeddings` ``(B, L, d)`` are the inputs that `loss` came from.
    """
    (gradient,) = torch.autograd.grad(loss.sum(), embeddings)
    rows = [torch.stack([x[i, list(p)].mean(0) for i, p in enumerate(positions)]) for x in (embeddings, gradient)]
    return rows[0].detach(), rows[1]


def slot_positions(
    lvlm: LVLM, size: tuple[int, int], version: Version, trigger: Trigger, slot: int, answer: str
) -> list[int]:
    """Token positions of the word in `slot` within the whole sequence."""
    roles = lvlm.encode_text(size, version[0], answer, slot_span(trigger, version[1], slot)).roles
    return [i for i, role in enumerate(roles) if role == Role.TRIGGER]


def choose(losses: Tensor, feasible: Callable[[int], bool]) -> int:
    """The best feasible candidate; the first one, the current trigger, unless another is better (eq. 20)."""
    for i in losses.argsort(stable=True).tolist():
        if i == 0 or losses[i] >= losses[0]:
            return 0
        if feasible(i):
            return int(i)
    return 0
