"""The MMGuard page: signs of the paper met by records whose truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from synthetic import record

from arena.errors import ArenaError
from arena.records.schema import Record
from leaderboards.pages.mmguard import MmguardPage


def records(accuracies: dict[str, float], **changes: Any) -> list[Record]:
    return [
        record(accuracy, defense, seed=seed, **changes)
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


def row(page: str, *cells: str) -> str:
    return next(line for line in page.splitlines() if all(cell in line for cell in cells))


def main() -> list[Record]:
    return records(MAIN) + records({**MAIN, "mmguard-bph": 0.6}, image=4.0)


def ablations() -> list[Record]:
    return records({"none": 0.9, "mmguard-bph": 0.4, "Q = 0": 0.7})


@pytest.fixture(scope="module")
def page() -> str:
    return MmguardPage().make({"mmguard": main(), "mmguard-ablations": ablations()}, None)


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


def test_ablations_may_be_missing() -> None:
    assert "Not run yet." in MmguardPage().make({"mmguard": main()}, None)


def test_findings_are_filled_in_from_both_suites(tmp_path: Path) -> None:
    file = tmp_path / "2026-01-mmguard.md"
    file.write_text(
        '{{ accuracy("mmguard-bph", image=4) }}, {{ drop("mmguard-bph", image=8) }}, {{ gap("Q = 0") }}, '
        '{{ span(psnr("mmguard-bph", image=[4, 8]), digits=1) }}, {{ decimals(below_clean("random", image=4), 1) }}'
        "{% if ablations %}, both{% endif %}",
        encoding="utf-8",
    )
    page = MmguardPage().make({"mmguard": main(), "mmguard-ablations": ablations()}, file)
    assert "\n60, 60, 30, 31.5, 1.0, both\n" in page
    with pytest.raises(ArenaError, match=r"2026-01-mmguard.md, line 1: no cell has arm 'Q = 0'"):
        MmguardPage().make({"mmguard": main()}, file)
    file.write_text('{{ accuracy("mmguard-bph") }}', encoding="utf-8")
    with pytest.raises(ArenaError, match=r"2 cells have arm 'mmguard-bph', suite 'main': say which is meant"):
        MmguardPage().make({"mmguard": main()}, file)
