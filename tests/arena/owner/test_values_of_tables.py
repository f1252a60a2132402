"""Answers in tables of `datasets` that are no texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from arena.errors import ArenaError
from arena.owner.originals import read_originals
from arena.plugins.registry import Registry

TREES = datasets.ClassLabel(names=["oak", "lime"])


def saved(file: Path, answer: Any, values: list[Any], **more: Any) -> str:
    features = {"image": datasets.Image(), "question": datasets.Value("string"), "answer": answer}
    features |= {name: kind for name, (kind, _) in more.items()}
    pictures = [Image.new("L", (3, 3), n) for n in range(len(values))]
    content = {"image": pictures, "question": ["which?"] * len(values), "answer": values}
    content |= {name: column for name, (_, column) in more.items()}
    table = datasets.Dataset.from_dict(content, datasets.Features(features))
    table.to_parquet(str(file))
    return str(file)


def test_class_names_stand_for_their_numbers(tmp_path: Path) -> None:
    aliases = datasets.List(TREES), [[1], [0, 1]]
    choices = datasets.List(datasets.Value("int32")), [[3, 4], [5, 6]]
    source = saved(tmp_path / "a.parquet", TREES, [0, 1], aliases=aliases, choices=choices)
    samples = read_originals(source).samples
    assert [s.answer for s in samples] == ["oak", "lime"]
    assert [s.aliases for s in samples] == [("lime",), ("oak", "lime")]
    assert [s.choices for s in samples] == [("3", "4"), ("5", "6")]


def test_whole_numbers_are_their_text(tmp_path: Path) -> None:
    source = saved(tmp_path / "a.parquet", datasets.Value("int64"), [-3, 12], id=(datasets.Value("int8"), [7, 8]))
    assert [(s.id, s.answer) for s in read_originals(source).samples] == [("7", "-3"), ("8", "12")]


@pytest.mark.parametrize(
    ("kind", "values", "says"),
    [
        (
            "float64",
            [1.0, 2.5],
            r"row 0, .*1\.0 is a number that may have a fraction, not a text: cast the column to texts",
        ),
        ("bool", [True, False], r"row 0, .*True is a truth value, not a text: cast the column to texts"),
    ],
)
def test_what_can_be_written_in_several_ways_is_refused(
    tmp_path: Path, kind: str, values: list[Any], says: str
) -> None:
    with pytest.raises(ArenaError, match=says):
        read_originals(saved(tmp_path / "a.parquet", datasets.Value(kind), values))


def test_an_unknown_class_is_no_answer(tmp_path: Path) -> None:
    originals = read_originals(saved(tmp_path / "a.parquet", TREES, [0, -1]))
    (refusal,) = originals.refused
    assert [s.answer for s in originals.samples] == ["oak"] and "answer is missing or empty" in refusal.reason


def test_datasets_of_the_hub_read_them_too(tmp_path: Path) -> None:
    for name, kind, values, wanted in (
        ("classes", TREES, [0, 1], {"oak", "lime"}),
        ("numbers", datasets.Value("int8"), [3, 4], {"3", "4"}),
    ):
        (tmp_path / name).mkdir()
        saved(tmp_path / name / "train.parquet", kind, values)
        settings = {"source": str(tmp_path / name), "training_split": "train", "evaluation_split": "train"}
        drawn = Registry().create("dataset", "vqa-rad", settings).load(1, 0, 1, 0)  # type: ignore[attr-defined]
        assert {s.answer for s in (*drawn.train, *drawn.test)} == wanted
