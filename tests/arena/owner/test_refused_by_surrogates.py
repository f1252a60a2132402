"""Pictures that a surrogate cannot take: named before anything is crafted, in a suite too."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from arena.budget import Budget
from arena.engine.execute import run
from arena.engine.stages.answering import with_ids
from arena.engine.stages.release import REFUSED, read_refused
from arena.errors import ArenaError
from arena.owner.protect import protect_folder
from arena.suites.schema import Suite

SIZES = {"a.png": (48, 48), "strip.png": (500, 2), "b.png": (40, 56), "column.png": (1, 300)}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("strips")
    rows = []
    for name, size in SIZES.items():
        Image.new("RGB", size, (90, 120, 30)).save(folder / name)
        rows.append(json.dumps({"file_name": name, "question": "what is it?", "answer": "red"}))
    (folder / "metadata.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return folder


def test_the_others_are_protected(source: Path, tmp_path: Path) -> None:
    how = {"surrogates": ["tiny-llava", "tiny-qwen3-vl"], "config": {"rounds": 1, "theta_steps": 1, "pgd_steps": 1}}
    notes: list[str] = []
    report = protect_folder(
        *(source, tmp_path / "out", "em"), **how, budget=Budget(image=4), progress=lambda done, note: notes.append(note)
    )
    assert [s.file for s in report.samples] == ["a.png", "b.png"]
    assert [r.file for r in report.refused] == ["strip.png", "column.png"]
    assert all("cannot be crafted on: qwen3-vl cannot take a picture" in r.reason for r in report.refused)
    assert all(r.remedy == "crop it or leave it out" for r in report.refused)
    assert sum("surrogate error" in note for note in notes) == 1  # found out before the one round
    with pytest.raises(ArenaError, match=r"2 pictures cannot be released, and --strict asks for all: 'strip\.png'"):
        protect_folder(source, tmp_path / "strict", "em", **how, strict=True)


def test_what_a_process_says_of_samples_is_believed_of_those_that_are_there(tmp_path: Path) -> None:
    said = {"0": ["a", "b"], "9": ["a", "b"], "-1": ["a", "b"], "1": ["a", 3], "x": ["a", "b"], "2": "ab"}
    (tmp_path / REFUSED).write_text(json.dumps(said), encoding="utf-8")
    assert read_refused(tmp_path, 3) == {0: ("a", "b")}
    for text in ("[]", "{", "[" * 100_000):
        (tmp_path / REFUSED).write_text(text, encoding="utf-8")
        assert read_refused(tmp_path, 3) == {}
    (tmp_path / REFUSED).unlink()
    (tmp_path / REFUSED).symlink_to("/etc/hostname")
    assert read_refused(tmp_path, 3) == {} == read_refused(tmp_path / "nowhere", 3)


def test_samples_whose_ids_a_process_is_not_told_are_named(tmp_path: Path) -> None:
    rows = [{"id": id} for id in ("cat.png", "dog.png")]
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    message = "model 'm': sample '000001': too wide; see sample '000007' and 'sample' 000000"
    assert (
        with_ids(message, tmp_path) == "model 'm': sample 'dog.png': too wide; see sample '000007' and 'sample' 000000"
    )


def test_a_suite_names_the_sample_too(source: Path, tmp_path: Path) -> None:
    settings = {"source": str(source)}
    suite = Suite.model_validate(
        {
            **{"id": "strips", "models": ["tiny-qwen3-vl"], "defenses": ["none"], "attacks": ["none"], "seeds": [0]},
            "datasets": [{"id": "imagefolder", "config": settings, "train": 1, "test": 3}],
            "recipes": [{"id": "lora", "config": {"epochs": 1}}],
        }
    )
    how = {"results": tmp_path / "r.jsonl", "scheduler": "sync", "isolated": False, "console": Console(quiet=True)}
    report = run(suite, tmp_path / "store", **how)
    (record,) = report.records
    assert record.failure is not None and record.status == "failed"
    assert re.search(r"sample '(strip|column)\.png': qwen3-vl cannot take a picture", str(record.failure))
