"""How long an answer may be, and what a model's process may know of it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from arena.data.sample import Sample
from arena.engine.job import Desk
from arena.engine.stages import Input, ZeroShot
from arena.engine.stages.answering import ANSWERS, FEWEST, MOST, SPARE, Said, judge, limit, read_answers
from arena.errors import ArenaError
from arena.release import write_release

SECRET = "the seventh lighthouse on the left"


def handed(folder: Path, *samples: Sample) -> Desk:
    """What a zero-shot stage hands to the process of its model."""
    write_release(samples, folder / "data" / "samples")
    given = folder / "given"
    given.mkdir()
    stage: Any = ZeroShot(label="", size=1, model=None, convention="exact", measures=(), test=Input("x", "samples"))  # type: ignore[arg-type]
    stage.hand_over(SimpleNamespace(path=lambda name: folder / "data"), given)
    return Desk(given, folder, None, lambda share, note: None)


def sample(answer: str, aliases: tuple[str, ...] = (), choices: tuple[str, ...] = ()) -> Sample:
    return Sample(answer or "s", Image.new("L", (2, 2)), "q?", answer, aliases, choices)


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ((sample("red"), sample("blue")), FEWEST),
        ((sample(SECRET), sample("blue")), len(SECRET) + SPARE),
        ((sample("6" * 20),), 20 + SPARE),
        ((sample("no", ("nope", "n" * 30)),), 30 + SPARE),
        ((sample("A", (), ("an oak", "c" * 40)),), 40 + SPARE),
        ((sample("\u6f22" * 10),), 30 + SPARE),  # a byte may be a token
        ((sample("x" * 10 * MOST),), MOST),
    ],
)
def test_the_limit_follows_the_longest_reference(asked: tuple[Sample, ...], wanted: int, tmp_path: Path) -> None:
    desk = handed(tmp_path, *asked)
    assert limit(desk) == wanted
    assert len(desk.samples("test")) == len(asked)


def test_no_reference_is_handed_over(tmp_path: Path) -> None:
    desk = handed(tmp_path, sample(SECRET, (SECRET[::-1],)))
    content = b"".join(path.read_bytes() for path in desk.given.rglob("*") if path.is_file())
    assert SECRET.encode() not in content and SECRET[::-1].encode() not in content


def test_answers_are_texts_and_whether_they_were_cut(tmp_path: Path) -> None:
    (tmp_path / ANSWERS).write_text(json.dumps({"3": [["red", False], ["a red ", True]]}), encoding="utf-8")
    found = read_answers(tmp_path, 2)
    assert found == {3: Said(["red", "a red "], 1)}
    judged = judge(found[3], [sample("red"), sample("blue")], "exact", ())
    assert judged == {"answers": ["red", "a red "], "correct": [1, 0], "cut": 1}


@pytest.mark.parametrize(
    "content", [[["red", 0]], [["red"]], ["red"], [[False, "red"]], [["red", True, True]], [["red", True]] * 2]
)
def test_what_is_none_is_refused(content: list[Any], tmp_path: Path) -> None:
    (tmp_path / ANSWERS).write_text(json.dumps({"0": content}), encoding="utf-8")
    with pytest.raises(ArenaError, match="answers must give a text for each, and whether it was cut off"):
        read_answers(tmp_path, 1)
