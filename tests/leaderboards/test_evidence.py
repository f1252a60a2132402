"""The MMGuard page: signs of the paper met by records whose truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from synthetic import record

from arena.errors import ArenaError
from arena.records.files import append_record
from arena.records.schema import Record
from arena.suites.schema import digest
from arena.suites.shipped import find_suite
from leaderboards.pages import write_evidence


def records(suite: str, accuracies: dict[str, float], **changes: Any) -> list[Record]:
    reference = {"id": suite, "digest": digest(find_suite(suite))}
    return [
        record(accuracy, defense, seed=seed, suite=reference, **changes)
        for defense, accuracy in accuracies.items()
        for seed in (0, 1, 2)
    ]


MAIN = {
    "none": 0.9,
    "random": 0.9,
    "mmguard-bph": 0.3,
    "mmguard-multimodal": 0.6,
    "mmguard-image": 0.3,
    "mmguard-bph-max": 0.8,
}


def save(folder: Path, suite: str, made: list[Record]) -> None:
    for one in made:
        append_record(folder / "results" / f"{suite}.jsonl", one)


def row(page: str, *cells: str) -> str:
    return next(line for line in page.splitlines() if all(cell in line for cell in cells))


@pytest.fixture
def page(tmp_path: Path) -> str:
    save(tmp_path, "mmguard", records("mmguard", MAIN))
    save(tmp_path, "mmguard", records("mmguard", {**MAIN, "mmguard-bph": 0.6}, image=4.0))
    save(tmp_path, "mmguard-ablations", records("mmguard-ablations", {"none": 0.9, "mmguard-bph": 0.4, "Q = 0": 0.7}))
    return write_evidence(tmp_path / "mmguard.md").read_text(encoding="utf-8")


def test_signs_are_those_of_the_data(page: str) -> None:
    strong = page[page.index("The paper's signs") :].split("### ")[2]
    assert "8/255" in strong
    assert "agrees" in row(strong, "mmguard-bph |", "mmguard-multimodal", "5.0")
    assert "disagrees" in row(strong, "mmguard-bph-max", "58")
    assert "cannot be told" in row(strong, "| mmguard-bph | mmguard-image")
    weak = page[page.index("The paper's signs") :].split("### ")[1]
    assert "cannot be told" in row(weak, "| mmguard-bph | mmguard-multimodal")
    assert "agrees" in row(page[page.index("## Ablations") :], "mmguard-bph", "Q = 0", "73")


def test_numbers_are_those_of_the_data(page: str) -> None:
    assert row(page, "| mmguard-bph |", "30.0", "60.0")  # what is left, and the drop from 90
    assert page.count("is missed more than one time in five") == 3
    assert "120 test items and 3 seeds" in page
    curves = page[page.index("training loss") :]
    assert "| none |" in curves


def test_tables_are_whole(page: str) -> None:
    lines = [*page.splitlines(), ""]
    separators = [i for i, line in enumerate(lines) if line.startswith("|---")]
    assert len(separators) == 10
    assert all(lines[i - 1].count("|") == lines[i].count("|") for i in separators)
    assert (
        sum(lines[i + 1].startswith("| ") for i in separators) == 8
    )  # all but Theorem 5.1, of which nothing is known here


def test_missing_records_are_named(tmp_path: Path) -> None:
    with pytest.raises(ArenaError, match=r"mmguard\.jsonl"):
        write_evidence(tmp_path / "mmguard.md")


def test_ablations_may_be_missing(tmp_path: Path) -> None:
    save(tmp_path, "mmguard", records("mmguard", MAIN))
    assert "Not run yet." in write_evidence(tmp_path / "mmguard.md").read_text(encoding="utf-8")
