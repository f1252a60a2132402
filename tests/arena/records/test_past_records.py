"""Records of earlier protocol versions stay readable: by commands, boards and pages, never mixed with others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from synthetic import quick
from typer.testing import CliRunner

from arena.cli.app import app
from arena.cli.boards import make, page_records
from arena.errors import ArenaError
from arena.plugins.identity import PROTOCOL_VERSION
from arena.records.accept import Standing, withdrawn_file
from arena.records.files import NOT_RECORDS, past, read_all, read_records, record_files
from arena.records.verify import read as read_verifications
from leaderboards.pages import find_page
from leaderboards.site.origin import origin
from leaderboards.tables.board import build

RECORDS = Path(__file__).parents[3] / "leaderboards" / "records"
V1 = RECORDS / "v1"
COUNTS = {"attacks": 432, "baselines": 135, "mmguard": 132, "mmguard-ablations": 66, "quick": 27, "transfer": 204}


def test_there_are_as_many_as_ever() -> None:
    files = sorted(path for path in V1.glob("*.jsonl") if path.name not in NOT_RECORDS)
    assert {path.stem: len(read_records(path)) for path in files} == COUNTS
    assert {record.protocol_version for record in read_all(files)} == {1}


@pytest.mark.parametrize("suite", COUNTS)
def test_their_suites_and_boards_are_kept_as_they_were(suite: str) -> None:
    """The suite is read as data: the present arena may not have its plugins any more."""
    records = read_records(V1 / f"{suite}.jsonl")
    asked = yaml.safe_load((V1 / "suites" / f"{suite}.yaml").read_text(encoding="utf-8"))
    assert asked["id"] == suite and {r.suite.id for r in records} == {suite}
    assert {r.seed for r in records} == set(asked["seeds"])
    labels = {use if isinstance(use, str) else use.get("label", use["id"]) for use in asked["defenses"]}
    assert {r.defense.label for r in records} == labels
    (suite_digest,) = {r.suite.digest for r in records}
    assert suite_digest in (V1 / f"{suite}.md").read_text(encoding="utf-8")
    assert all((V1 / f"{suite}{suffix}").is_file() for suffix in (".csv", ".html", ".parquet"))


def test_what_was_accepted_and_verified_names_cells_that_are_there() -> None:
    cells = {record.cell for name in COUNTS for record in read_records(V1 / f"{name}.jsonl")}
    standing = Standing.read(V1)
    assert standing.accepted and {cell for line in standing.accepted for cell in line.proof.cells} <= cells
    verified = [check.cell for line in read_verifications(V1, 1) for check in line.checks]
    assert verified and set(verified) <= cells


def test_a_run_does_not_take_them_for_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(RECORDS.parents[1])
    counted = record_files(Path("leaderboards/records/quick.jsonl"))
    assert counted and {path.resolve().parent for path in counted} == {RECORDS.resolve()}
    assert past(RECORDS)[-1] == V1


def test_the_command_makes_their_board(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["board", str(V1 / "quick.jsonl"), "--out", str(tmp_path)])
    assert done.exit_code == 0 and "em" in done.stdout
    board = (tmp_path / "quick.md").read_text(encoding="utf-8")
    assert "| Cells | 27, of which 0 failed |" in board and "cells computed again" in board


def test_a_board_refuses_two_protocols() -> None:
    with pytest.raises(ArenaError, match=r"mixed protocol versions: 1 \(36 records\), 2 \(36 records\)"):
        build(quick(protocol_version=1) + quick(protocol_version=2))


def test_verifications_of_one_protocol_are_not_said_of_another(tmp_path: Path) -> None:
    shutil.copy(V1 / "verifications.jsonl", tmp_path)
    with pytest.raises(ArenaError, match=r"line 1: it verifies protocol version 1, and the records are of 2"):
        make(quick(), tmp_path, "quick")
    assert make(quick(protocol_version=1), tmp_path, "quick").verifications == ()


def test_withdrawals_hold_for_them(tmp_path: Path) -> None:
    here = tmp_path / "withdrawn.yaml"
    assert withdrawn_file(tmp_path / "records") == withdrawn_file(tmp_path / "records" / "v1") == here
    assert withdrawn_file(tmp_path / "v1") == tmp_path / "v1" / "withdrawn.yaml"


def test_a_page_is_made_of_the_latest_version_that_has_what_it_needs(tmp_path: Path) -> None:
    """That is its own first, and never two of them."""
    page = find_page("attacks.md")
    for version in (9, 10):
        folder = tmp_path / f"v{version}"
        folder.mkdir()
        lines = "\n".join(r.model_dump_json() for r in quick(protocol_version=version))
        (folder / "attacks.jsonl").write_text(lines + "\n", encoding="utf-8")
    (tmp_path / "v11").mkdir()
    (found,) = page_records(page, tmp_path).values()
    assert {record.protocol_version for record in found} == {10}
    with pytest.raises(ArenaError, match=r"mmguard\.jsonl is missing: `arena run mmguard` makes it"):
        page_records(find_page("mmguard.md"), tmp_path)
    (tmp_path / "attacks.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(ArenaError, match="has no record of suite 'attacks' as it is now"):
        page_records(page, tmp_path)


def test_a_page_waits_for_all_cells_unless_it_is_made_of_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(RECORDS.parents[1])  # where the surrogates that a suite names are known by their weights
    for suite in ("mmguard", "stage"):
        some = (RECORDS / f"{suite}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[:2]
        (tmp_path / f"{suite}.jsonl").write_text("".join(some), encoding="utf-8")
    with pytest.raises(ArenaError, match=r"mmguard\.jsonl has 2 of the 260 cells of suite 'mmguard', and all of "):
        page_records(find_page("mmguard.md"), tmp_path)
    (found,) = page_records(find_page("stage.md"), tmp_path).values()
    assert len(found) == 2
    (tmp_path / "v1").mkdir()
    (tmp_path / "v1" / "mmguard.jsonl").write_bytes((V1 / "mmguard.jsonl").read_bytes())
    (found,) = page_records(find_page("mmguard.md"), tmp_path).values()
    assert {record.protocol_version for record in found} == {1}


def test_a_page_that_compares_cells_is_made_of_the_seeds_that_have_them_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(RECORDS.parents[1])
    lines = (RECORDS / "mmguard.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    last = {json.loads(line)["seed"]: n for n, line in enumerate(lines)}
    for partial, left in ((), {0, 1, 2, 3, 4}), ((4,), {0, 1, 2, 3}), ((1, 3), {0, 2, 4}):
        gone = {last[seed] for seed in partial}
        (tmp_path / "mmguard.jsonl").write_text("".join(x for n, x in enumerate(lines) if n not in gone), "utf-8")
        (found,) = page_records(find_page("mmguard.md"), tmp_path).values()
        assert {record.seed for record in found} == left
        assert len(found) == 52 * len(left)
    gone = {last[seed] for seed in (0, 1, 3)}
    (tmp_path / "mmguard.jsonl").write_text("".join(x for n, x in enumerate(lines) if n not in gone), "utf-8")
    with pytest.raises(ArenaError, match=r"257 of the 260 cells .* and all of them for fewer than 3 of its seeds"):
        page_records(find_page("mmguard.md"), tmp_path)


def test_a_page_says_which_records_it_is_made_of() -> None:
    assert "records/attacks.jsonl" in origin(["attacks"], quick()) and "version" not in origin(["attacks"], quick())
    old = origin(["attacks", "more"], quick(protocol_version=1))
    assert "records/v1/attacks.jsonl` and `records/v1/more.jsonl" in old and "protocol version 1" in old
    assert f"version {PROTOCOL_VERSION}" in old
