"""What is committed is what its records make, byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from arena.cli.boards import show_board, suite_records
from arena.suites.shipped import find_suite
from leaderboards.pages import find_page, write_page

LEADERBOARDS = Path(__file__).parents[2] / "leaderboards"


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(LEADERBOARDS.parent)


@pytest.mark.parametrize("suite", ["quick", "baselines", "mmguard", "mmguard-ablations", "attacks", "transfer"])
def test_boards_are_what_their_records_make(suite: str, tmp_path: Path) -> None:
    records = suite_records(find_suite(suite), Path(f"leaderboards/records/{suite}.jsonl"))
    show_board(records, LEADERBOARDS / "records", tmp_path, suite)
    made = sorted(tmp_path.iterdir())
    assert [path.suffix for path in made] == [".csv", ".html", ".md", ".parquet"]
    for path in made:
        assert path.read_bytes() == (LEADERBOARDS / "records" / path.name).read_bytes(), path.name


@pytest.mark.parametrize("name", ["attacks", "mmguard", "transfer"])
def test_pages_are_what_their_records_make(name: str, tmp_path: Path) -> None:
    page = find_page(f"{name}.md")
    suites = (*page.suites, *page.optional)
    records = {suite: suite_records(find_suite(suite), Path(f"leaderboards/records/{suite}.jsonl")) for suite in suites}
    made = write_page(page, records, tmp_path / f"{name}.md")
    assert made.read_text(encoding="utf-8") == (LEADERBOARDS / f"{name}.md").read_text(encoding="utf-8")
