"""How a model's answers are scored, for the stages that ask it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arena.data.sample import Sample
from arena.engine.stages.base import Fields, read_made
from arena.errors import ArenaError

ANSWERS = "answers.json"
"""What a model said to each of the test questions, by the epoch of its training."""


def read_answers(made: Path, count: int) -> dict[int, list[str]]:
    """What a stage wrote to `ANSWERS`. Raises `ArenaError` where that is not a text a question."""
    content: Any = read_made(made / ANSWERS, ANSWERS)
    try:
        found = {int(epoch): list(said) for epoch, said in content.items()}
    except (AttributeError, TypeError, ValueError):
        raise ArenaError(f"{ANSWERS} holds no lists of answers by epoch") from None
    for epoch, said in found.items():
        if len(said) != count or not all(isinstance(text, str) for text in said):
            raise ArenaError(
                f"the model gave {len(said)} answers to {count} questions (epoch {epoch}), or some that are no texts: "
                "generate must return a text for each"
            )
    return found


def with_ids(message: str, samples: Path) -> str:
    """A message of a model's process that names samples by their place, as it knows them, with the ids that they have
    in the folder `samples`."""
    with (samples / "metadata.jsonl").open(encoding="utf-8") as rows:
        ids = [json.loads(row)["id"] for row in rows]

    def named(found: re.Match[str]) -> str:
        place = int(found[1])
        return f"sample {ids[place]!r}" if place < len(ids) else found[0]

    return re.sub(r"\bsample '(\d{6})'", named, message)


def judge(answers: Sequence[str], test: Sequence[Sample], convention: str, measures: Sequence[str]) -> Fields:
    """The answers, 1 where the dataset's convention accepts one, and the means of its measures if it has some.

    Raises `ArenaError` for a convention that does not exist.
    """
    from arena.score.answers import CONVENTIONS

    if convention not in CONVENTIONS:
        raise ArenaError(f"no scoring convention is called {convention!r}; there are {', '.join(sorted(CONVENTIONS))}")
    accepts = CONVENTIONS[convention]
    pairs = list(zip(answers, test, strict=True))
    answered: Fields = {"answers": list(answers), "correct": [int(accepts(said, sample)) for said, sample in pairs]}
    if measures:
        from arena.score.measures import MEASURES

        answered["metrics"] = {
            name: sum(MEASURES[name](said, sample) for said, sample in pairs) / len(pairs) for name in measures
        }
    return answered
