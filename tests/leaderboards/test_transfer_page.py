"""The page about transfer: what it says of records whose truth is known."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytest
from synthetic import record

from arena.errors import ArenaError
from arena.records.schema import Record
from leaderboards.pages.transfer import TransferPage

A, B = "tiny-llava", "tiny-qwen3-vl"
CRAFTED = {
    ("em", (A,)): {A: 0.3, B: 0.8},
    ("em", (B,)): {A: 0.6, B: 0.2},
    ("mem", (A, B)): {A: 0.4, B: 0.5},
}


def records(*, without: Collection[tuple[str, str, int]] = ()) -> list[Record]:
    """All cells of `CRAFTED` and the clean controls, three seeds.

    `without` names models, first surrogates and seeds that are left out.
    """
    made = []
    for seed in range(3):
        for model in (A, B):
            made.append(record(0.9, seed=seed, model=model))
            made.append(record(0.89, "random", seed=seed, model=model))
            made.append(record(0.9, "none", "jpeg", seed, model=model))
            made.append(record(0.9, "em", "jpeg", seed, model=model))
        for (defense, surrogates), left in CRAFTED.items():
            for model, accuracy in left.items():
                if (model, surrogates[0], seed) not in without:
                    made.append(record(accuracy, defense, seed=seed, model=model, surrogates=surrogates))
    return made


def written(made: list[Record]) -> str:
    return TransferPage().make({"transfer": made}, None)


def cells(page: str, section: str, *first: str) -> list[str]:
    """The cells of the row of a section that begins so."""
    text = page[page.index(f"### {section}") :].split("\n### ")[0]
    line = next(line for line in text.splitlines() if line.startswith("| " + " | ".join(first)))
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_a_row_is_what_was_crafted_on_and_a_column_what_was_fine_tuned() -> None:
    made = records()
    page = written(made)
    for surrogate, drops in ((A, ("60.0", "10.0")), (B, ("30.0", "70.0"))):
        found = cells(page, "em:", surrogate)[1:]
        assert [cell.split()[0] for cell in found] == list(drops)
        assert [cell.split(", ")[-1] for cell in found] == [
            "white-box" if model == surrogate else "black-box" for model in (A, B)
        ]
    assert [cell.split()[0] for cell in cells(page, "mem:", f"{A}+{B}")[1:]] == ["50.0", "40.0"]
    assert cells(page, "Controls", A, "random")[-1].startswith("0.8")  # one item of 120


def test_means_are_over_the_cells_of_one_level_of_knowledge() -> None:
    made = records()
    page = written(made)
    white, black = (cells(page, "Mean drop", "em", "1 model", level) for level in ("white-box", "black-box"))
    assert white[3] == black[3] == "2"
    assert white[4].startswith("65.0 (") and black[4].startswith("20.0 (")
    assert cells(page, "Mean drop", "mem", "2 models", "white-box")[4].startswith("45.0 (")
    low, high = (float(part) for part in black[4].split("(")[1].rstrip(")").split(" to "))
    assert low < 20 < high < 65


def test_no_mean_over_cells_of_different_seeds() -> None:
    made = records(without=[(A, B, 1), (B, A, 2)])  # as many seeds, but not the same
    page = written(made)
    assert cells(page, "Mean drop", "em", "1 model", "black-box")[4] == "not the same seeds everywhere"
    assert cells(page, "Mean drop", "em", "1 model", "white-box")[4].startswith("65.0 (")


def test_a_cell_without_a_seed_of_the_control_is_in_no_mean() -> None:
    made = records(without=[(A, B, seed) for seed in range(3)])
    made.append(record(0.6, "em", seed=9, model=A, surrogates=[B]))
    page = written(made)
    black = cells(page, "Mean drop", "em", "1 model", "black-box")
    assert black[3] == "1" and black[4].startswith("10.0 (")


def test_findings_are_filled_in_from_the_records(tmp_path: Path) -> None:
    file = tmp_path / "2026-01-transfer.md"
    file.write_text(
        f'{{{{ drop("em", "{A}", "{B}") }}}}, {{{{ span(drops(protection="em")) }}}}, '
        '{{ most(drops(knowledge="black-box")) }}, {{ mean_drop("em", "white-box") }}, '
        '{{ mean_drop("em", "white-box") - mean_drop("mem", "white-box", surrogates=2) }}',
        encoding="utf-8",
    )
    assert "\n10, 10 to 70, 30, 65, 20\n" in TransferPage().make({"transfer": records()}, file)
    file.write_text('{{ mean_drop("em", "gray-box") }}', encoding="utf-8")
    with pytest.raises(ArenaError, match=r"2026-01-transfer.md, line 1: no cell has .*none has knowledge 'gray-box'"):
        TransferPage().make({"transfer": records()}, file)
