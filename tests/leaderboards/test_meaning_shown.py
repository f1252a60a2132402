"""What boards and the page of attacks say of the meaning of rewritten questions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from synthetic import quick, record

from arena.records.schema import Record
from leaderboards.pages.attacks import AttacksPage
from leaderboards.site.numbers import rows_of
from leaderboards.tables.board import build, write


def meaning(accuracy: float, **more: Any) -> dict[str, Any]:
    return {"samples": 8, "changed": 0.75, "accuracy_before": 0.45, "accuracy": accuracy, **more}


def records(**more: Any) -> list[Record]:
    """Of three seeds, at which the attack rewrites differently; `em` has records without."""
    told = [record(0.8, "none", "onion", s, meaning=meaning(a, **more)) for s, a in enumerate((0.2, 0.3, 0.4))]
    return [*quick(), *told, *(record(0.3, "em", "onion", s) for s in range(3))]


def test_a_board_has_the_means_over_seeds_and_nothing_of_protections() -> None:
    board = build(records(similarity=0.875, embedding="org/encoder@abc"))
    by = {(row["defense"], row["attack"]): row for row in rows_of(board.cells)}
    found = {key: value for key, value in by["none", "onion"].items() if key.startswith("meaning_")}
    assert found == {
        "meaning_changed": 0.75,
        "meaning_accuracy_before": pytest.approx(0.45),
        "meaning_accuracy": pytest.approx(0.3),
        "meaning_similarity": 0.875,
    }
    assert by["em", "onion"]["meaning_accuracy"] is by["none", "jpeg"]["meaning_accuracy"] is None
    assert board.environment["sentence embedding"] == ["org/encoder@abc"]


def test_a_board_of_records_from_before_has_no_such_column() -> None:
    board = build(quick())
    assert not [name for name in board.cells if str(name).startswith("meaning_")]
    assert "sentence embedding" not in board.environment
    assert "meaning_similarity" not in build(records()).cells


def test_the_table_of_costs_and_the_page_of_attacks_show_it(tmp_path: Path) -> None:
    made = records(similarity=0.875, embedding="org/encoder@abc")
    write(build(made), tmp_path, "shown")
    text, html = ((tmp_path / f"shown.{suffix}").read_text(encoding="utf-8") for suffix in ("md", "html"))
    page = AttacksPage().make({"attacks": made}, None)
    for shown in (text, page):
        (head,) = {line for line in shown.splitlines() if "base model after" in line}
        assert head.endswith("| questions changed | base model before | base model after | similarity |")
        rows = [line for line in shown[shown.index(head) :].splitlines() if "|" in line]
        by = {attack: next(row for row in rows if f"| {attack} |" in row) for attack in ("onion", "jpeg")}
        assert by["onion"].endswith("| 75.0 | 45.0 | 30.0 | 0.875 |")
        assert by["jpeg"].endswith("|" + " \N{EN DASH} |" * 4)
        assert "before any fine-tuning" in shown
    assert "base model after" in html and "0.875" in html


def test_without_any_nothing_is_shown(tmp_path: Path) -> None:
    write(build(quick()), tmp_path, "shown")
    for shown in ((tmp_path / "shown.md").read_text(encoding="utf-8"), AttacksPage().make({"attacks": quick()}, None)):
        assert "base model after" not in shown and "fine-tuning, on these" not in shown
