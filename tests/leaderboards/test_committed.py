"""What is committed is what its records make, byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from arena.cli.boards import asked_and_recorded, page_records, show_board
from arena.records.files import NOT_RECORDS
from arena.suites.shipped import find_suite
from leaderboards.pages import find_page, write_page

LEADERBOARDS = Path(__file__).parents[2] / "leaderboards"
SUITES = sorted(p.stem for p in (LEADERBOARDS / "records").glob("*.jsonl") if p.name not in NOT_RECORDS)


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(LEADERBOARDS.parent)


@pytest.mark.parametrize("suite", SUITES)
def test_boards_are_what_their_records_make(suite: str, tmp_path: Path) -> None:
    asked, records = asked_and_recorded(find_suite(suite), Path(f"leaderboards/records/{suite}.jsonl"), suite)
    show_board(records, LEADERBOARDS / "records", tmp_path, suite, asked)
    made = sorted(tmp_path.iterdir())
    assert [path.suffix for path in made] == [".csv", ".html", ".md", ".parquet"]
    for path in made:
        assert path.read_bytes() == (LEADERBOARDS / "records" / path.name).read_bytes(), path.name


@pytest.mark.parametrize("name", ["attacks", "mmguard", "protections", "stage", "transfer"])
def test_pages_are_what_their_records_make(name: str, tmp_path: Path) -> None:
    page = find_page(f"{name}.md")
    made = write_page(page, page_records(page, LEADERBOARDS / "records"), tmp_path / f"{name}.md")
    assert made.read_text(encoding="utf-8") == (LEADERBOARDS / f"{name}.md").read_text(encoding="utf-8")
