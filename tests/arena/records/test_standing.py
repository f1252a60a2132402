"""The committed records of the present protocol hold: they are of cells that their suite asks for, as it is now, and
made by source that stands. Of a suite that takes hours a part may be recorded; of `quick` all is."""

from __future__ import annotations

from pathlib import Path

import pytest

from arena.engine.execute import recorded, why_run
from arena.engine.plan import planned_cells
from arena.plugins.identity import PROTOCOL_VERSION
from arena.plugins.registry import Registry
from arena.records.accept import Standing, current_sources
from arena.records.files import NOT_RECORDS, read_records
from arena.records.schema import SuiteRef
from arena.records.verify import read as read_verifications
from arena.suites.schema import Suite, digest
from arena.suites.shipped import find_suite, shipped_suites

RECORDS = Path(__file__).parents[3] / "leaderboards" / "records"

SUITES = sorted(path.stem for path in RECORDS.glob("*.jsonl") if path.name not in NOT_RECORDS)
PARTS = frozenset({"attacks", "attacks-more", "autopurify", "protections", "protections-digits"})
"""Suites of which only a part is recorded."""


@pytest.fixture(autouse=True)
def from_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(RECORDS.parents[1])


@pytest.mark.parametrize("name", SUITES)
def test_a_run_computes_no_committed_cell_again(name: str) -> None:
    suite: Suite = find_suite(name)
    committed = read_records(RECORDS / f"{name}.jsonl")
    assert {record.suite for record in committed} == {SuiteRef(id=name, digest=digest(suite))}
    planned = {cell.key: cell for cell in planned_cells(suite, Registry())}
    assert [record.cell for record in committed if record.cell not in planned] == []
    known = recorded(suite, planned.values(), Path(f"leaderboards/records/{name}.jsonl"))
    cells = [cell for key, cell in planned.items() if key in known]
    sources, standing = current_sources(cell.asked for cell in cells), Standing.read(RECORDS)
    changed = {plugin for record in known.values() for plugin in standing.changed(record, sources)}
    assert not changed, (
        f"records of suite {name} are stale, since the source of {changed} has changed. Show with `arena accept` "
        "that it computes the same; for a change on purpose count up the plugin's version, or the protocol's, and run "
        "the suite"
    )
    reasons = {why_run(cell, known[cell.key], sources, standing, force_failed=True) for cell in cells}
    assert reasons == {None}
    assert name in PARTS or len(cells) == len(planned)


def test_records_are_of_shipped_suites_and_of_the_present_protocol() -> None:
    assert set(SUITES) <= set(shipped_suites())
    versions = {record.protocol_version for name in SUITES for record in read_records(RECORDS / f"{name}.jsonl")}
    assert versions <= {PROTOCOL_VERSION}, f"move records of earlier protocol versions to {RECORDS}/vN"


def test_what_was_accepted_and_verified_names_cells_that_are_there() -> None:
    cells = {record.cell for name in SUITES for record in read_records(RECORDS / f"{name}.jsonl")}
    standing = Standing.read(RECORDS)
    assert {cell for line in standing.accepted for cell in line.proof.cells} <= cells
    assert {check.cell for line in read_verifications(RECORDS) for check in line.checks} <= cells
