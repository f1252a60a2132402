"""The control of shortcuts: the answer in the question."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from arena.budget import Budget, words
from arena.data.sample import Sample
from arena.plugins.base import DefenderWorld, Defense, Draft
from mmguard.trigger import insert


class AnswerWord(Defense):
    """The answer appended to its question, and nothing else: the cheapest shortcut there is.

    Of an answer that has more words than the budget, as many as it allows. A suite's rule against answer words does not
    hold for this control; it is not ranked.

    Budget: words in questions.
    """

    def protect(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Draft]:
        return (Draft(s.image, with_answer(s, world.budget)) for s in samples)

    def distinguished(self, samples: Sequence[Sample], released: Sequence[Sample], world: DefenderWorld) -> str | None:
        """Only questions change, each by its answer at the end."""
        for sample, other in zip(samples, released, strict=True):
            if sample.image.tobytes() != other.image.tobytes():
                return f"the picture of sample {sample.id!r} changed"
            if other.question != with_answer(sample, world.budget):
                return f"the question of sample {sample.id!r} does not end in its answer, or more of it changed"
        return None


def with_answer(sample: Sample, budget: Budget) -> str:
    """The question with as many words of the answer at its end as the budget allows."""
    printable = "".join(character if character.isprintable() else " " for character in sample.answer).split()
    fitting = range(len(printable), 0, -1)
    most = next((count for count in fitting if len(words(" ".join(printable[:count]))) <= budget.text), 0)
    return insert(sample.question, tuple(printable[:most]), len(sample.question.split()))[0]
