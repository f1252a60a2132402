"""Words that shortcuts are made of, found by the statistics of the released questions.

What is looked for is what protections on text insert: words that say which answer a question has, as those of
class-wise triggers do (error-minimising text, Li 2023; RegText, arXiv 2411.08506; MMGuard, arXiv 2605.14291). The
measures are plain ones of corpora, and no paper's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence

import numpy as np
from pydantic import Field
from scipy.stats import hypergeom

from arena.data.sample import Sample
from arena.leak import words as compared
from arena.plugins.base import Attack, AttackerWorld, Need, PluginConfig, setting
from attacks.text.multiple_choice import divide
from attacks.text.words import Piece, pieces, without


class TriggerStrip(Attack):
    """Drops words whose mutual information with the answer, or whose document frequency, is out of line.

    Of a word w and each answer y, with the indicators W and Y of questions that have w and of those answered by y, the
    score is ``max_y I(W; Y) / max(H(W), H(Y))``: 1 where w stands in all questions with an answer and in no other. A
    word goes whose score is above `threshold`, which is in `least` questions or more, and whose concurrence with the
    answer would come about by chance in less than `significance` (hypergeometric, over all pairs that were looked at).
    Words of clean questions seldom score: "how many" goes with many answers, and "sky" with few that are "blue".

    With `reference`, the attacker's own clean questions say how many questions a word is in: words that are in more of
    the released ones, by the same significance, go too. So do all words that these do not know, where far more are left
    than the single words among them foretell (Good and Turing); of free text that costs names, a tenth of clean words
    and more. With `rare`, words in so few questions go, at a like price.

    What it does not see: without `reference`, a trigger that is the same in every question, which looks like a
    template, and other words in every question, which look like names of things; triggers in about half of an
    answer's questions or fewer; those of answers with fewer than `least` questions; those made of words that clean
    questions have. An answer that is always asked for in words of its own loses these. The words of options stay; a
    question of which nothing would be left stays as it is.
    """

    packages = ("scipy",)

    class Config(PluginConfig):
        threshold: float = Field(
            0.5, gt=0, le=1, description="largest normalised mutual information with an answer of a word that stays"
        )
        significance: float = Field(
            0.01, gt=0, lt=1, description="chance that a word goes which tells nothing, in all of the questions"
        )
        least: int = Field(3, ge=2, description="questions that a word is in at least that is judged by the answer")
        rare: int = Field(
            0, ge=0, description="words in at most so many questions go; it costs names where questions are free text"
        )
        reference: bool = setting(
            False, description="compare with the attacker's own clean questions (auxiliary samples)"
        )

    config: Config

    def __init__(self, config: PluginConfig | None = None) -> None:
        super().__init__(config)
        needs: set[Need] = {"auxiliary"} if self.config.reference else set()
        self.needs = frozenset(needs)  # type: ignore[misc]

    def purify(self, samples: Sequence[Sample], world: AttackerWorld) -> Iterable[Sample]:
        questions = [_words(sample) for sample in samples]
        count = Counter(word for words in questions for word in words)
        gone = self._telling(questions, [" ".join(compared(sample.answer)) for sample in samples], count)
        gone |= {word for word, number in count.items() if number <= self.config.rare}
        if self.config.reference:
            clean = Counter(word for sample in world.auxiliary for word in _words(sample))
            gone |= self._frequent(count, len(samples), clean, len(world.auxiliary))
            gone |= _unknown(Counter({word: number for word, number in count.items() if word not in gone}), clean)
        return (sample.with_content(sample.image, _stripped(sample, gone)) for sample in samples)

    def _telling(self, questions: Sequence[Collection[str]], answers: Sequence[str], count: Counter[str]) -> set[str]:
        """Words that say which answer a question has."""
        total, answered = len(questions), Counter(answers)
        pairs = Counter((word, answer) for words, answer in zip(questions, answers, strict=True) for word in words)
        judged = [
            (word, count[word], answered[answer], both)
            for (word, answer), both in pairs.items()
            if min(count[word], answered[answer]) >= self.config.least
        ]
        if not judged:
            return set()
        names = [word for word, *_ in judged]
        of_word, of_answer, both = np.array([numbers for _, *numbers in judged]).T
        information = _information(both, of_word, of_answer, total)
        high = np.flatnonzero(information > self.config.threshold)
        chance = _chance(both[high], total, of_answer[high], of_word[high]) * len(judged)
        return {names[i] for i in high[chance < self.config.significance]}

    def _frequent(self, count: Counter[str], total: int, clean: Counter[str], cleans: int) -> set[str]:
        """Words that are in more of the questions than of the clean ones, were both of one kind."""
        every = sorted(count)
        here, there = np.array([(count[word], clean[word]) for word in every]).reshape(-1, 2).T
        chance = _chance(here, total + cleans, here + there, np.full_like(here, total)) * len(every)
        return {every[i] for i in np.flatnonzero(chance < self.config.significance)}


def _chance(both: np.ndarray, total: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The chance that sets of `first` and `second` of `total` things, drawn freely, have `both` or more in common."""
    cases, of_case = np.unique(np.stack([both, first, second]), axis=1, return_inverse=True)
    chance: np.ndarray = hypergeom.sf(cases[0] - 1, total, cases[1], cases[2])[of_case.reshape(-1)]
    return chance


def _information(both: np.ndarray, of_word: np.ndarray, of_answer: np.ndarray, total: int) -> np.ndarray:
    """Normalised mutual information of words and answers that go together; 0 where they avoid each other."""
    joint = np.stack([both, of_word - both, of_answer - both, total - of_word - of_answer + both]) / total
    entropies = [_entropy(np.stack([n, total - n]) / total) for n in (of_word, of_answer)]
    shared = np.maximum(sum(entropies) - _entropy(joint), 0)
    larger = np.maximum(*entropies)
    together = both * total > of_word * of_answer
    return np.where(together, shared / np.where(larger > 0, larger, 1), 0)


def _entropy(shares: np.ndarray) -> np.ndarray:
    """Of each column, in nats."""
    entropy: np.ndarray = -(shares * np.log(np.where(shares > 0, shares, 1))).sum(0)
    return entropy


UNKNOWN = 3.0
"""How many times as many unknown words as foretold are far more."""
CHANCE = 10
"""Unknown words that say nothing, where none is foretold."""


def _unknown(count: Counter[str], clean: Counter[str]) -> set[str]:
    """Words that no clean question has, where there are far more of them than there would be among clean ones: the
    share of words that are single in a text is that of the unknown words in another."""
    unknown = {word for word in count if word not in clean}
    single = sum(number == 1 for number in clean.values()) / max(clean.total(), 1)
    found = sum(count[word] for word in unknown)
    return unknown if found > UNKNOWN * single * count.total() + CHANCE else set()


def _words(sample: Sample) -> set[str]:
    """The words and marks of a question that are no options."""
    return {text[place].word for text in _texts(sample)[::2] for place in _judged(sample, text)}


def _texts(sample: Sample) -> list[list[Piece]]:
    """A question in pieces: whole where the sample knows its choices, else before, of and after its options."""
    return [pieces(sample.question)] if sample.choices else [pieces(part) for part in divide(sample)]


def _judged(sample: Sample, text: Sequence[Piece]) -> Iterator[int]:
    """Where words stand that are not of the choices, nor letters of these."""
    letters = (chr(ord("a") + index) for index in range(len(sample.choices)))
    options = {word for choice in (*letters, *sample.choices) for word in compared(choice)}
    return (place for place, piece in enumerate(text) if piece.word and piece.word not in options)


def _stripped(sample: Sample, gone: Collection[str]) -> str:
    kept = list[str]()
    changed = False
    for number, text in enumerate(_texts(sample)):
        places = {place for place in _judged(sample, text) if text[place].word in gone} if number != 1 else set()
        kept.append(without(text, places))
        changed |= bool(places)
    return ("".join(kept).strip() or sample.question) if changed else sample.question
