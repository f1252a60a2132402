"""Pages are found by their file's name, whoever declares them, and written in one step."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from synthetic import record
from typer.testing import CliRunner

import leaderboards.pages
from arena.cli.app import app
from arena.errors import ArenaError, UsageError
from leaderboards.pages import GROUP, EvidencePage, SuiteRecords, find_page, write_page

ROOT = Path(__file__).parents[2]


class Counts(EvidencePage):
    """A page of another package."""

    suites = ("quick",)

    def make(self, records: SuiteRecords, findings: Path | None) -> str:
        return f"{len(records['quick'])} records, {'no findings' if findings is None else findings.name}\n"


class Unfinished(EvidencePage):
    pass


def declare(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    points = [EntryPoint(name, value, GROUP) for name, value in values.items()]
    monkeypatch.setattr(leaderboards.pages, "entry_points", lambda group: points)


@pytest.mark.parametrize("name", ["attacks", "mmguard", "transfer"])
def test_pages_of_this_package_are_declared_and_their_findings_are_there(name: str) -> None:
    page = find_page(f"{name}.md")
    assert page.suites[0] == name
    assert page.findings is not None and page.findings.is_file()


def test_a_page_of_another_package_is_found_and_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    declare(monkeypatch, counts=f"{__name__}:Counts")
    path = write_page(find_page("counts.md"), {"quick": [record()]}, tmp_path / "new" / "counts.md")
    assert path.read_text(encoding="utf-8") == "1 records, no findings\n"


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("count.md", r"no page is called 'count.md'; did you mean 'counts.md'\? \(pages: broken.md, counts.md, "),
        ("other.md", r"no page is called 'other.md' \(pages: "),
        ("broken.md", r"page 'broken.md' of package unknown: 'nowhere:Page' cannot be imported: ModuleNotFoundError"),
        ("plain.md", r"'pathlib:Path' is not a subclass of leaderboards.pages.EvidencePage"),
        ("unfinished.md", r"does not define make, suites"),
    ],
)
def test_what_is_no_page_is_said(monkeypatch: pytest.MonkeyPatch, file: str, message: str) -> None:
    here = {"counts": f"{__name__}:Counts", "unfinished": f"{__name__}:Unfinished"}
    declare(monkeypatch, broken="nowhere:Page", plain="pathlib:Path", **here)
    with pytest.raises(UsageError, match=message):
        find_page(file)


def test_two_packages_cannot_declare_one_page(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint("counts", f"{__name__}:Counts", GROUP)] * 2
    monkeypatch.setattr(leaderboards.pages, "entry_points", lambda group: points)
    with pytest.raises(UsageError, match=r"'counts.md' is declared by unknown and unknown"):
        find_page("counts.md")


def test_a_page_that_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here", encoding="utf-8")
    with pytest.raises(ArenaError, match=r"page: could not write .*folder can be written and has space"):
        write_page(Counts(), {"quick": []}, tmp_path / "file" / "counts.md")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "here"


def test_the_command_names_missing_records_and_unknown_pages(tmp_path: Path) -> None:
    missing = CliRunner().invoke(app, ["evidence", str(tmp_path / "attacks.md")])
    assert isinstance(missing.exception, ArenaError)
    assert "attacks.jsonl is missing: `arena run attacks` makes it" in str(missing.exception)
    unknown = CliRunner().invoke(app, ["evidence", str(tmp_path / "atacks.md")])
    assert isinstance(unknown.exception, UsageError) and "did you mean 'attacks.md'" in str(unknown.exception)


def test_pages_load_no_torch() -> None:
    names = ", ".join(f"leaderboards.pages.{name}" for name in ("attacks", "mmguard", "protections", "transfer"))
    code = f"import sys, {names}; found = {{'torch', 'pandas'}} & set(sys.modules); assert not found, found"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
