"""RegText: spurious words by the statistics of the corpus (Java 2024, arXiv 2411.08506)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from pydantic import Field
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from arena.data.sample import Sample
from arena.leak import inserted_words, words
from arena.plugins.base import DefenderWorld, Defense, Draft, PluginConfig
from defenses.classes import answer_classes
from mmguard.trigger import insert

LINKS = re.compile(r"(?:https?:|www)\S+")
LETTERS = re.compile(r"[^\W\d_]{2,32}")
"""Words that may be inserted: letters alone, and not one, which could be an option's."""

NEVER = 1e-6
"""What is added to the share of a word in a class, which may be none; the authors' number."""

TRIES = 8
"""Draws of words for a question, of which none may give the answer away, before it gets one word less."""


class RegText(Defense):
    """Words that are typical of a class, and not too frequent, are inserted into the questions of the class.

    Of the words w of all questions, without stop words, those of the largest

        score(w, c) = log2(p(w | c)^power / (p(w) p(c))) - weight * log2(1 + n(w))

    are class c's: with n the count of w, n_c that in questions of the class, N all words and V_c the different ones of
    the class, p(w) = n / N, p(w | c) = n_c / V_c + 1e-6 and p(c) = V_c / N. A question gets `share` times as many as it
    has words, but at least one, each drawn at random from those of its class and put before a word drawn at random.
    Rule and numbers are those of the authors' code. Pictures stay as they are. The class is the answer. No surrogate.

    Adapted: words are put between those of a question, as in the authors' code for instructions, and do not replace
    any, as in theirs for labelled texts, since a question has few; no more than the budget allows, and none that it
    forbids. A word is of the class in which its score is highest, unless a class has none then: in the few words of
    questions classes would have the same ones. Stop words are scikit-learn's, and words are not reduced to lemmas.

    Budget: words in questions.
    """

    needs = frozenset({"seed"})
    packages = ("scikit-learn",)

    class Config(PluginConfig):
        words: int = Field(10, ge=1, description="words that a class has; 10 is the authors'")
        share: float = Field(0.1, ge=0, le=1, description="inserted words per word of a question; 0.1 is the authors'")
        most: int = Field(10, ge=1, description="most words that are inserted into a question; 10 is the authors'")
        power: float = Field(
            3, gt=0, description="power of p(w | c), which favours words of one class; 3 is the authors'"
        )
        weight: float = Field(2, ge=0, description="how much frequent words are avoided; 2 is the authors'")

    config: Config

    def protect(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Draft]:
        classes = answer_classes(samples, world.seed)
        chosen = self.chosen(samples, classes)
        for number, (sample, kind) in enumerate(zip(samples, classes, strict=True)):
            rng = np.random.default_rng([world.seed, number])
            yield Draft(sample.image, self._written(sample, chosen[int(kind)], world, rng))

    def _written(self, sample: Sample, own: Sequence[str], world: DefenderWorld, rng: np.random.Generator) -> str:
        """The question with words of its class in it."""
        barred = world.budget.forbidden(sample)
        allowed = [word for word in own if barred.isdisjoint(words(word))]
        places = len(sample.question.split())
        count = min(max(int(places * self.config.share), 1), self.config.most, world.budget.text, places)
        for length in range(count if allowed else 0, 0, -1):
            for _ in range(TRIES):
                question = sample.question
                for place in sorted(rng.choice(places, length, replace=False).tolist(), reverse=True):
                    question, _ = insert(question, (allowed[int(rng.integers(len(allowed)))],), place)
                if world.budget.forbidden_word(sample, question) is None:
                    return question
        return sample.question

    def chosen(self, samples: Sequence[Sample], classes: np.ndarray) -> list[list[str]]:
        """The words of each class, best first."""
        counts = [Counter[str]() for _ in range(int(classes.max()) + 1)]
        for sample, kind in zip(samples, classes, strict=True):
            counts[kind].update(_corpus_words(sample.question))
        every = sorted(set().union(*counts))  # in an order, so that equals are always ranked alike
        if not every:
            return [[] for _ in counts]
        scores = self.scores(np.array([[own[word] for word in every] for own in counts], float))
        found, best_in = [], scores.argmax(0)
        for kind, score in enumerate(scores):
            ranked = np.argsort(-score, kind="stable")
            best = ranked[best_in[ranked] == kind]
            found.append([every[i] for i in (best if len(best) else ranked)[: self.config.words]])
        return found

    def scores(self, counts: np.ndarray) -> np.ndarray:
        """The score of each word in each class, of its count there, both ``(classes, words)``."""
        overall, different = counts.sum(0), np.maximum((counts > 0).sum(1, keepdims=True), 1)
        information = self.config.power * np.log2(counts / different + NEVER)
        information -= np.log2(overall / overall.sum()) + np.log2(different / overall.sum())
        return np.asarray(information - self.config.weight * np.log2(1 + overall))

    def distinguished(self, samples: Sequence[Sample], released: Sequence[Sample], world: DefenderWorld) -> str | None:
        """Only questions change, by words that are typical of their class."""
        classes = answer_classes(samples, world.seed)
        own = [{part for word in chosen for part in words(word)} for chosen in self.chosen(samples, classes)]
        for sample, other, kind in zip(samples, released, classes, strict=True):
            if sample.image.tobytes() != other.image.tobytes():
                return f"the picture of sample {sample.id!r} changed"
            if strange := set(inserted_words(sample.question, other.question)) - own[kind]:
                return f"the question of sample {sample.id!r} got {min(strange)!r}, which is no word of its class"
        changed = any(a.question != b.question for a, b in zip(samples, released, strict=True))
        return None if changed else "no question changed"


def _corpus_words(question: str) -> list[str]:
    """The words of a question that may be chosen."""
    found = LETTERS.findall(LINKS.sub(" ", question.casefold()))
    return [word for word in found if word not in ENGLISH_STOP_WORDS]
