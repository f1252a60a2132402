"""The page about transfer: what it says of records whose truth is known."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytest
from synthetic import record

from arena.errors import ArenaError
from arena.records.files import append_record
from arena.suites.schema import digest
from arena.suites.shipped import find_suite
from leaderboards.pages import write_evidence

A, B = "tiny-llava", "tiny-qwen3-vl"
CRAFTED = {
    ("em", (A,)): {A: 0.3, B: 0.8},
    ("em", (B,)): {A: 0.6, B: 0.2},
    ("mem", (A, B)): {A: 0.4, B: 0.5},
}


def save(folder: Path, *, without: Collection[tuple[str, str, int]] = ()) -> None:
    """All cells of `CRAFTED` and the clean controls, three seeds; `without` names models, first surrogates and seeds
    that are left out."""
    suite = {"id": "transfer", "digest": digest(find_suite("transfer"))}
    file = folder / "results" / "transfer.jsonl"
    for seed in range(3):
        for model in (A, B):
            append_record(file, record(0.9, seed=seed, model=model, suite=suite))
            append_record(file, record(0.89, "random", seed=seed, model=model, suite=suite))
            append_record(file, record(0.9, "none", "jpeg", seed, model=model, suite=suite))
            append_record(file, record(0.9, "em", "jpeg", seed, model=model, suite=suite))
        for (defense, surrogates), left in CRAFTED.items():
            for model, accuracy in left.items():
                if (model, surrogates[0], seed) not in without:
                    one = record(accuracy, defense, seed=seed, model=model, surrogates=surrogates, suite=suite)
                    append_record(file, one)


def cells(page: str, section: str, *first: str) -> list[str]:
    """The cells of the row of a section that begins so."""
    text = page[page.index(f"### {section}") :].split("\n### ")[0]
    line = next(line for line in text.splitlines() if line.startswith("| " + " | ".join(first)))
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_a_row_is_what_was_crafted_on_and_a_column_what_was_fine_tuned(tmp_path: Path) -> None:
    save(tmp_path)
    page = write_evidence(tmp_path / "transfer.md").read_text(encoding="utf-8")
    for surrogate, drops in ((A, ("60.0", "10.0")), (B, ("30.0", "70.0"))):
        found = cells(page, "em:", surrogate)[1:]
        assert [cell.split()[0] for cell in found] == list(drops)
        assert [cell.split(", ")[-1] for cell in found] == [
            "white-box" if model == surrogate else "black-box" for model in (A, B)
        ]
    assert [cell.split()[0] for cell in cells(page, "mem:", f"{A}+{B}")[1:]] == ["50.0", "40.0"]
    assert cells(page, "Controls", A, "random")[-1].startswith("0.8")  # one item of 120


def test_means_are_over_the_cells_of_one_level_of_knowledge(tmp_path: Path) -> None:
    save(tmp_path)
    page = write_evidence(tmp_path / "transfer.md").read_text(encoding="utf-8")
    white, black = (cells(page, "Mean drop", "em", "1 model", level) for level in ("white-box", "black-box"))
    assert white[3] == black[3] == "2"
    assert white[4].startswith("65.0 (") and black[4].startswith("20.0 (")
    assert cells(page, "Mean drop", "mem", "2 models", "white-box")[4].startswith("45.0 (")
    low, high = (float(part) for part in black[4].split("(")[1].rstrip(")").split(" to "))
    assert low < 20 < high < 65


def test_no_mean_over_cells_of_different_seeds(tmp_path: Path) -> None:
    save(tmp_path, without=[(A, B, 1), (B, A, 2)])  # as many seeds, but not the same
    page = write_evidence(tmp_path / "transfer.md").read_text(encoding="utf-8")
    assert cells(page, "Mean drop", "em", "1 model", "black-box")[4] == "not the same seeds everywhere"
    assert cells(page, "Mean drop", "em", "1 model", "white-box")[4].startswith("65.0 (")


def test_a_cell_without_a_seed_of_the_control_is_in_no_mean(tmp_path: Path) -> None:
    save(tmp_path, without=[(A, B, seed) for seed in range(3)])
    suite = {"id": "transfer", "digest": digest(find_suite("transfer"))}
    append_record(
        tmp_path / "results" / "transfer.jsonl", record(0.6, "em", seed=9, model=A, surrogates=[B], suite=suite)
    )
    page = write_evidence(tmp_path / "transfer.md").read_text(encoding="utf-8")
    black = cells(page, "Mean drop", "em", "1 model", "black-box")
    assert black[3] == "1" and black[4].startswith("10.0 (")


def test_page_needs_its_records(tmp_path: Path) -> None:
    with pytest.raises(ArenaError, match=r"transfer.jsonl is missing: `arena run transfer` makes it"):
        write_evidence(tmp_path / "transfer.md")
