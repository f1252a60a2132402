"""The committed records of the present protocol hold: every cell of a suite that has records has one, made by source
that stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from arena.engine.execute import recorded, why_run
from arena.engine.plan import planned_cells
from arena.plugins.identity import PROTOCOL_VERSION
from arena.plugins.registry import Registry
from arena.records.accept import Standing, current_sources
from arena.records.files import NOT_RECORDS, read_records
from arena.records.verify import read as read_verifications
from arena.suites.schema import Suite
from arena.suites.shipped import find_suite, shipped_suites

RECORDS = Path(__file__).parents[3] / "leaderboards" / "records"
SUITES = sorted(path.stem for path in RECORDS.glob("*.jsonl") if path.name not in NOT_RECORDS)


@pytest.fixture(autouse=True)
def from_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(RECORDS.parents[1])


@pytest.mark.parametrize("name", SUITES)
def test_a_run_of_a_committed_suite_computes_nothing(name: str) -> None:
    suite: Suite = find_suite(name)
    cells = planned_cells(suite, Registry())
    known = recorded(suite, cells, Path(f"leaderboards/records/{name}.jsonl"))
    sources, standing = current_sources(cell.asked for cell in cells), Standing.read(RECORDS)
    assert [cell.label for cell in cells if cell.key not in known] == []
    changed = {plugin for record in known.values() for plugin in standing.changed(record, sources)}
    assert not changed, (
        f"records of suite {name} are stale, since the source of {changed} has changed. Show with `arena accept` "
        "that it computes the same; for a change on purpose count up the plugin's version, or the protocol's, and run "
        "the suite"
    )
    reasons = {why_run(cell, known[cell.key], sources, standing, force_failed=True) for cell in cells}
    assert reasons == {None}


def test_records_are_of_shipped_suites_and_of_the_present_protocol() -> None:
    assert set(SUITES) <= set(shipped_suites())
    versions = {record.protocol_version for name in SUITES for record in read_records(RECORDS / f"{name}.jsonl")}
    assert versions <= {PROTOCOL_VERSION}, f"move records of earlier protocol versions to {RECORDS}/vN"


def test_what_was_accepted_and_verified_names_cells_that_are_there() -> None:
    cells = {record.cell for name in SUITES for record in read_records(RECORDS / f"{name}.jsonl")}
    standing = Standing.read(RECORDS)
    assert {cell for line in standing.accepted for cell in line.proof.cells} <= cells
    assert {check.cell for line in read_verifications(RECORDS) for check in line.checks} <= cells
