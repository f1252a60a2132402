"""How a model's answers are scored, for the stages that ask it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from arena.data.sample import Sample
from arena.engine.stages.base import Fields
from arena.errors import ArenaError

if TYPE_CHECKING:
    from arena.lvlm.base import LVLM


def answer(lvlm: LVLM, test: Sequence[Sample], convention: str, measures: Sequence[str]) -> Fields:
    """Greedy answers to the test questions, 1 where the dataset's convention accepts one, and the means of its measures
    if it has some.

    Raises `ArenaError` for a convention that does not exist.
    """
    from arena.score.answers import CONVENTIONS

    if convention not in CONVENTIONS:
        raise ArenaError(f"no scoring convention is called {convention!r}; there are {', '.join(sorted(CONVENTIONS))}")
    accepts = CONVENTIONS[convention]
    answers = lvlm.generate(test)
    pairs = list(zip(answers, test, strict=True))
    answered: Fields = {"answers": answers, "correct": [int(accepts(said, sample)) for said, sample in pairs]}
    if measures:
        from arena.score.measures import MEASURES

        answered["metrics"] = {
            name: sum(MEASURES[name](said, sample) for said, sample in pairs) / len(pairs) for name in measures
        }
    return answered
