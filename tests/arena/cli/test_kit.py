"""`arena check` on the command line: what it prints, writes, and leaves with."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner, Result

from arena.cli.app import app
from arena.errors import ArenaError, UsageError


def check(*words: str) -> Result:
    return CliRunner().invoke(app, ["check", *words], env={"COLUMNS": "200"})


def test_what_passes_is_said_and_written_for_continuous_integration(tmp_path: Path) -> None:
    file = tmp_path / "check.xml"
    done = check("defense/none", "--only", "documented", "--only", "families", "--junit", str(file))
    assert done.exit_code == 0, done.output
    assert "No protection" in done.stdout and "defense/none: 1 passed, 0 failed, 1 skipped" in done.stdout
    (suite,) = ElementTree.parse(file).getroot()
    assert [case.get("name") for case in suite] == ["documented", "families"]
    assert (suite.get("failures"), suite.get("skipped")) == ("0", "1")


def test_what_fails_is_named_with_the_line_to_look_at(toys: Path, tmp_path: Path) -> None:
    file = tmp_path / "check.xml"
    done = check("toy-raising", "--only", "contract", "--only", "budget", "--junit", str(file))
    assert done.exit_code == 1
    assert "ValueError: the toy is broken" in done.stdout
    line = next(i for i, text in enumerate(_toys(), 1) if "the toy is broken" in text)
    assert f"toys.py:{line}" in done.stdout
    (suite,) = ElementTree.parse(file).getroot()
    assert [len(case) and case[0].tag for case in suite] == ["failure", "skipped"]


def _toys() -> list[str]:
    return (Path(__file__).parents[2] / "toys" / "toys.py").read_text(encoding="utf-8").splitlines()


def test_what_cannot_be_tried_is_not_passed() -> None:
    done = check("vae-trans", "--only", "contract")
    assert done.exit_code == 3 and "nothing stands for what it loads" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lps"], "or 'lsp'"),
        (["none"], "'none' is a defense and an attack: name one, as in `arena check defense/none`"),
        (["defence/lsp"], "did you mean 'defense'"),
        (["lsp", "--only", "bugdet"], "did you mean 'budget'"),
        (["attack/jpeg", "--only", "budget"], "the check 'budget' is not for attacks"),
        (["lsp", "--config", "pach=4"], "there is no setting 'pach'; did you mean 'patch'"),
        (["imagefolder"], "--config NAME=VALUE"),
    ],
)
def test_what_is_misspelt_or_missing_is_named(words: list[str], said: str) -> None:
    done = check(*words)
    assert isinstance(done.exception, UsageError) and said in str(done.exception), done.output


def test_somebody_elses_file_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "notes.xml"
    file.write_text("<notes/>", encoding="utf-8")
    done = check("defense/none", "--only", "documented", "--junit", str(file))
    assert isinstance(done.exception, ArenaError) and file.read_text(encoding="utf-8") == "<notes/>"
