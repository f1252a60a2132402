"""A package that `arena new` writes installs, keeps all rules and passes its own tests, as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from typer.testing import CliRunner

from arena.cli.app import app
from arena.errors import UsageError
from arena.kit.new import write_package
from arena.plugins.registry import Kind


@pytest.mark.parametrize("kind", get_args(Kind))
def test_a_new_package_installs_and_passes_its_own_tests_and_the_kit(kind: Kind, tmp_path: Path) -> None:
    """Its tests have it pass the kit."""
    name = f"fresh-{kind}"
    done = CliRunner().invoke(app, ["new", kind, name, str(tmp_path / name)])
    assert done.exit_code == 0, done.output
    project, site = tmp_path / name, tmp_path / "site"
    install = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(site), str(project)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True)
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(project / "tests")],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert tested.returncode == 0, tested.stdout


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("My_Defense", "lower case letters, digits and hyphens"),
        ("3-tiles", "begins with a letter"),
        ("../up", "lower case letters"),
        ("em", "defense 'em' is there already, of package mmguard-arena"),
        ("setup", "which Python or a package has already"),
        ("tests", "which Python or a package has already"),
        ("a" * 300, "an id of 300 characters names no file: choose one of at most 60"),
        ("numpy", "which Python or a package has already"),
        ("class", "which Python or a package has already"),
    ],
)
def test_names_that_cannot_be_are_refused_and_nothing_is_written(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        write_package("defense", name, tmp_path / "made")
    assert not list(tmp_path.iterdir())


def test_a_folder_in_use_is_left_alone_and_an_empty_one_is_filled(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine", encoding="utf-8")
    done = CliRunner().invoke(app, ["new", "attack", "smooth", str(mine)])
    assert isinstance(done.exception, UsageError) and "not an empty folder" in str(done.exception)
    assert [path.name for path in mine.iterdir()] == ["notes.txt"]
    (mine / "notes.txt").unlink()
    assert (write_package("attack", "smooth", mine).folder / "smooth.py").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
