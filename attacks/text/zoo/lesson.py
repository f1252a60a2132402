"""Training pairs of the paraphraser: what a question may look like when it arrives, and what it is rewritten into.

What arrives may have up to five foreign words in it, at its start, its end or inside, since releases are protected
that way; its marks may be missing, doubled or in quotes. The rewriting has none of this. Foreign words are drawn from
the word list of the tiny models, or are pieces of words or made up: nothing here knows which words a protection
chooses, and one word in ten is never inserted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from arena.lvlm.zoo.tokenizer import words
from attacks.text.zoo.phrasebook import FAMILIES, Pair, draw, held_out

INSERTED = 0.6
"""Share of the questions that arrive with foreign words."""
MOST = 5
_CLOSING = "?.!"


class Arrival(NamedTuple):
    """A question as it arrives, with the words that do not belong to it."""

    text: str
    inserted: tuple[str, ...]
    pair: Pair


class Lesson:
    """Draws arrivals, with inserted words that training sees, or with the `unseen` ones."""

    def __init__(self, unseen: bool = False) -> None:
        self.unseen = unseen
        self.words = words()
        weights = np.cumsum([weight for _, weight in FAMILIES])
        self._shares = weights / weights[-1]

    def arrivals(
        self,
        rng: np.random.Generator,
        count: int,
        inserted: float = INSERTED,
        wanted: Callable[[Pair], bool] = lambda pair: not pair.held_out,
    ) -> Iterator[Arrival]:
        """`count` of them, a share `inserted` with foreign words, of `wanted` pairs: by default those of training."""
        for _ in range(count):
            pair = next(pair for pair in self._pairs(rng) if wanted(pair))
            foreign = self._foreign(pair, rng) if rng.random() < inserted else ()
            yield Arrival(_marked(_insert(pair, foreign, rng), rng), foreign, pair)

    def _pairs(self, rng: np.random.Generator) -> Iterator[Pair]:
        while True:
            family = FAMILIES[int(np.searchsorted(self._shares, rng.random()))][0]
            yield draw(family, rng, [self._word(rng) for _ in range(4)])

    def _word(self, rng: np.random.Generator) -> str:
        """A word of the list, a piece of one, or one made of two pieces."""
        one, two = (self.words[int(i)] for i in rng.integers(len(self.words), size=2))
        head, tail = (int(n) for n in rng.integers(2, 5, size=2))
        kind = rng.random()
        if kind < 0.7:
            return one
        return one[:head] if kind < 0.85 else one[:head] + two[-tail:]

    def _foreign(self, pair: Pair, rng: np.random.Generator) -> tuple[str, ...]:
        wanted, found = int(rng.integers(1, MOST + 1)), list[str]()
        while len(found) < wanted:
            word = self._word(rng)
            if held_out(word) == self.unseen and word not in f"{pair.question} {pair.rewriting}":
                found.append(word)
        return tuple(found)


def _insert(pair: Pair, foreign: tuple[str, ...], rng: np.random.Generator) -> str:
    """The question with the foreign words in one place, or each in its own.

    Where a slot of the question takes any word, a foreign one beside it could not be told from it: there they stand at
    the ends.
    """
    places = pair.question.split()
    free = any(not words for words in pair.family.slots.values())
    ends = (0, len(places))
    together, inside = rng.random() < 0.75, not free and rng.random() < 0.4
    drawn = [int(rng.integers(len(places) + 1)) if inside else ends[rng.integers(2)] for _ in foreign]
    at = drawn[:1] * len(foreign) if together else drawn
    if foreign and not free and set(at) == {len(places)} and rng.random() < 0.2:
        return f"{pair.question[:-1]} {' '.join(foreign)}{pair.question[-1]}"  # before the question's mark
    by_gap = {gap: [w for w, g in zip(foreign, at, strict=True) if g == gap] for gap in range(len(places) + 1)}
    out = [word for gap in range(len(places)) for word in (*by_gap[gap], places[gap])]
    return " ".join([*out, *by_gap[len(places)]])


def _marked(text: str, rng: np.random.Generator) -> str:
    kind = rng.random()
    if kind < 0.08:
        return re.sub(r"[^\w\s]", "", text)
    if kind < 0.12:
        return re.sub(rf"([{_CLOSING}])", r"\1\1", text)
    if kind < 0.16:
        return f'"{text}"'
    if kind < 0.18:
        return text.replace(".", "!")
    return text
