"""What a model is asked, how far it may go on, and how its answers are scored, for the stages that ask it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from arena.data.sample import Sample
from arena.engine.job import Desk, Job, write_json
from arena.engine.stages.base import Fields, Stage, read_made
from arena.errors import ArenaError

ANSWERS = "answers.json"
"""What a model said to each of the test questions, and whether it was cut off, by the epoch of its training."""

LIMIT = "limit.json"
"""How many tokens an answer may have at most."""
FEWEST, SPARE, MOST = 16, 8, 2048
"""Tokens that an answer may always have, those beyond the longest reference, and those that none may have."""


class Said(NamedTuple):
    """Answers to the test questions, and how many of them the limit of tokens cut off."""

    texts: list[str]
    cut: int


def hand_over_test(stage: Stage, job: Job, given: Path) -> None:
    """Copy the test questions without their answers, and of these the length of the longest, as a limit."""
    stage.copy(job, "test", given, answers=False)
    source = job.path("test") / stage.inputs["test"].output / "metadata.jsonl"
    lines = source.read_text(encoding="utf-8").split("\n")
    write_json(given / LIMIT, most_tokens(json.loads(line) for line in lines if line))


def most_tokens(rows: Iterable[Mapping[str, Any]]) -> int:
    """The limit with which each reference of some samples, and each option, can be said up to its end.

    Whatever the tokenizer, a text has no more tokens than bytes of UTF-8, but for those at its ends. That is more than
    most need, which costs nothing where a model comes to an end; and tokens cannot be counted here, where no plugin
    runs, nor the references be shown to one.
    """
    texts = (text for row in rows for text in (row["answer"], *row["aliases"], *row["choices"]))
    longest = max((len(text.encode()) for text in texts), default=0)
    return min(max(FEWEST, longest + SPARE), MOST)


def limit(desk: Desk) -> int:
    """The limit that was handed over."""
    return int(json.loads(desk.path(LIMIT).read_text(encoding="utf-8")))


def read_answers(made: Path, count: int) -> dict[int, Said]:
    """What a stage wrote to `ANSWERS`. Raises `ArenaError` where that is not a text a question."""
    content: Any = read_made(made / ANSWERS, ANSWERS)
    try:
        found = {int(epoch): list(said) for epoch, said in content.items()}
    except (AttributeError, TypeError, ValueError):
        raise ArenaError(f"{ANSWERS} holds no lists of answers by epoch") from None
    for epoch, said in found.items():
        if len(said) != count or not all(map(_is_answer, said)):
            raise ArenaError(
                f"the model gave {len(said)} answers to {count} questions (epoch {epoch}), or some that are no texts: "
                "answers must give a text for each, and whether it was cut off"
            )
    return {epoch: Said([text for text, _ in said], sum(cut for _, cut in said)) for epoch, said in found.items()}


def _is_answer(said: Any) -> bool:
    return isinstance(said, list) and [type(part) for part in said] == [str, bool]


def with_ids(message: str, samples: Path) -> str:
    """A message of a model's process that names samples by their place, as it knows them, with the ids that they have
    in the folder `samples`."""
    with (samples / "metadata.jsonl").open(encoding="utf-8") as rows:
        ids = [json.loads(row)["id"] for row in rows]

    def named(found: re.Match[str]) -> str:
        place = int(found[1])
        return f"sample {ids[place]!r}" if place < len(ids) else found[0]

    return re.sub(r"\bsample '(\d{6})'", named, message)


def judge(said: Said, test: Sequence[Sample], convention: str, measures: Sequence[str]) -> Fields:
    """The answers, 1 where the dataset's convention accepts one, how many were cut off, and the means of the dataset's
    measures if it has some.

    Raises `ArenaError` for a convention that does not exist.
    """
    from arena.score.answers import CONVENTIONS

    if convention not in CONVENTIONS:
        raise ArenaError(f"no scoring convention is called {convention!r}; there are {', '.join(sorted(CONVENTIONS))}")
    accepts = CONVENTIONS[convention]
    pairs = list(zip(said.texts, test, strict=True))
    correct = [int(accepts(text, sample)) for text, sample in pairs]
    answered: Fields = {"answers": said.texts, "correct": correct, "cut": said.cut}
    if measures:
        from arena.score.measures import MEASURES

        answered["metrics"] = {
            name: sum(MEASURES[name](text, sample) for text, sample in pairs) / len(pairs) for name in measures
        }
    return answered
