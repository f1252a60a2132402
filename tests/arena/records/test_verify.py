"""What re-running cells showed, and what is said of it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from suites import toy_suite

from arena.engine.execute import run
from arena.errors import ArenaError
from arena.plugins.identity import PROTOCOL_VERSION
from arena.records.schema import Outcome, Record
from arena.records.verify import VERIFICATIONS, Check, Verification, append, compare, draw, facts, read, spread


@pytest.fixture
def record(tmp_path: Path, toys: Path) -> Record:
    """One of 200 test items."""
    suite = toy_suite(
        datasets=[{"id": "toy-data", "train": 8, "test": 200}], defenses=["none"], attacks=["none"], seeds=[0]
    )
    folder = tmp_path / "run"
    report = run(
        suite,
        folder / "store",
        results=folder / "r.jsonl",
        scheduler="sync",
        isolated=False,
        console=Console(file=io.StringIO()),
    )
    return report.records[0]


def again(record: Record, flipped: int = 0, machine: str | None = None, same_contents: bool = False) -> Record:
    """The record with the first items answered the other way, by other weights."""
    assert record.outcome is not None
    bits = record.outcome.unpack().copy()
    bits[:flipped] = True
    lineage = record.lineage if same_contents else record.lineage.model_copy(update={"checkpoint": "e" * 64})
    cost = record.cost.model_copy(update={"machine": machine or record.cost.machine})
    return record.model_copy(update={"outcome": Outcome.pack(bits), "lineage": lineage, "cost": cost})


def wrong_first(record: Record) -> Record:
    """The record with its wrong answers first, half of all."""
    return record.model_copy(update={"outcome": Outcome.pack(np.arange(200) >= 100)})


@pytest.mark.parametrize(
    ("flipped", "machine", "same", "verdict"),
    [
        (0, None, True, "contents equal"),
        (0, "Another CPU, 8 cores", True, "contents equal"),
        (0, None, False, "contents differ"),
        (3, None, False, "contents differ"),
        (0, "Another CPU, 8 cores", False, "items equal"),
        (3, "Another CPU, 8 cores", False, "within chance"),
        (60, "Another CPU, 8 cores", False, "beyond chance"),
    ],
)
def test_how_a_cell_came_out(record: Record, flipped: int, machine: str | None, same: bool, verdict: str) -> None:
    before = wrong_first(record)
    check = compare(before, again(before, flipped, machine, same))
    assert check.verdict == verdict and check.other_items == flipped and check.like_machine == (machine is None)
    assert check.again == pytest.approx(0.5 + flipped / 200)


def test_chance_has_the_spread_of_seeds(record: Record) -> None:
    before = wrong_first(record)
    other = again(before, 60, "Another CPU, 8 cores")
    siblings = [
        before.model_copy(update={"outcome": Outcome.pack(np.arange(200) >= cut), "seed": cut}) for cut in (40, 160)
    ]
    assert spread(before, [before, *siblings]) == pytest.approx(float(np.std([0.5, 0.8, 0.2], ddof=1)))
    attacked = before.attack.model_copy(update={"parts": [before.attack.parts[0].model_copy(update={"id": "other"})]})
    assert spread(before, [before, before.model_copy(update={"attack": attacked})]) == 0.0
    assert compare(before, other, spread(before, [before, *siblings])).verdict == "within chance"


def test_other_versions_of_packages_are_another_machine(record: Record) -> None:
    packages = {**record.environment.packages, "torch": "0.1"}
    other = again(record).model_copy(
        update={"environment": record.environment.model_copy(update={"packages": packages})}
    )
    assert not compare(record, other).like_machine and compare(record, again(record)).like_machine


def test_a_share_is_drawn_from_a_seed() -> None:
    cells = [f"{i:02}" for i in range(40)]
    assert len(draw(cells, 0.1, 0)) == 4 == len(draw(cells, 0.1, 1)) and draw(cells, 0.1, 0) == draw(cells, 0.1, 0)
    assert draw(cells, 0.1, 0) != draw(cells, 0.1, 1) and draw(cells, 0.1, 0) == sorted(draw(cells, 0.1, 0))
    assert len(draw(cells, 0.0001, 0)) == 1 and draw(cells, 1, 0) == cells


def line(**changes: Any) -> Verification:
    about = {"like_machine": True, "items": 10, "other_items": 0, "recorded": 0.5, "again": 0.5}
    checks = [
        Check.model_validate({"cell": "a" * 64, "verdict": "contents equal", **about}),
        Check.model_validate({"cell": "b" * 64, "verdict": "contents differ", **about}),
    ]
    fields = {
        "suite": "quick",
        "suite_digest": "0",
        "protocol_version": PROTOCOL_VERSION,
        "of": 27,
        "seed": 0,
        "checks": checks,
        "machine": "CPU",
        "packages": {},
        "engine_digest": "0",
        "created": "2026-11-26T00:00:00+00:00",
    }
    return Verification.model_validate(fields | changes)


def test_lines_are_kept_and_said_of_the_cells_that_are_there(tmp_path: Path) -> None:
    append(tmp_path, line())
    append(tmp_path, line(suite="other"))
    lines = read(tmp_path)
    assert [one.suite for one in lines] == ["quick", "other"]
    ((date, text),) = facts(lines, "quick", {"a" * 64, "b" * 64})
    assert date == "2026-11-26"
    assert text == "2 of 27 cells computed again on CPU: 1 agree (1 contents equal, 1 contents differ)"
    ((_, text),) = facts(lines, "quick", {"a" * 64})
    assert text.startswith("1 of 27 cells") and facts(lines, "quick", {"c" * 64}) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            lambda: line(protocol_version=PROTOCOL_VERSION + 1).model_dump_json(),
            "line 1: it verifies protocol version 3, and the records are of 2",
        ),
        (lambda: "{}", "line 1: suite: Field required"),
        (lambda: "nonsense", "line 1: .*Invalid JSON"),
    ],
)
def test_a_line_that_says_nothing_here_is_refused(tmp_path: Path, text: Any, said: str) -> None:
    (tmp_path / VERIFICATIONS).write_text(text() + "\n", encoding="utf-8")
    with pytest.raises(ArenaError, match=said):
        read(tmp_path)


def test_verifications_that_are_no_text_are_said(tmp_path: Path) -> None:
    (tmp_path / "verifications.jsonl").write_bytes(b"\xfb\n")
    with pytest.raises(ArenaError, match=r"verifications\.jsonl cannot be read as text .*restore the file from a copy"):
        read(tmp_path)
