"""A package that `arena new` writes installs, keeps all rules and passes its own tests, as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import get_args
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from arena.cli.app import app
from arena.errors import UsageError
from arena.kit.new import write_package
from arena.plugins.registry import Kind

KINDS: tuple[Kind, ...] = get_args(Kind)


@pytest.fixture(scope="module")
def tested(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """How each test of new packages ended, one of every kind, by its name: they are installed side by side, and tested
    by one process, which loads models once."""
    place = tmp_path_factory.mktemp("new")
    projects = [place / f"fresh-{kind}" for kind in KINDS]
    for kind, project in zip(KINDS, projects, strict=True):
        done = CliRunner().invoke(app, ["new", kind, project.name, str(project)])
        assert done.exit_code == 0, done.output
    install = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(place / "site")]
    subprocess.run([sys.executable, "-m", "pip", *install, *map(str, projects)], check=True)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--junit-xml=said.xml", "--import-mode=importlib"]
        + [str(project / "tests") for project in projects],
        cwd=place,
        env=os.environ | {"PYTHONPATH": str(place / "site")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (place / "said.xml").exists(), done.stdout + done.stderr
    cases = ElementTree.parse(place / "said.xml").getroot().iter("testcase")
    return {f"{c.get('classname')}::{c.get('name')}": "".join(c.itertext()) if len(c) else "passed" for c in cases}


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_package_installs_and_passes_its_own_tests_and_the_kit(kind: Kind, tested: Mapping[str, str]) -> None:
    """Its tests have it pass the kit."""
    own = {name.rpartition("::")[2]: said for name, said in tested.items() if f"test_fresh_{kind}::" in name}
    assert {"test_it_passes_the_conformance_kit", "test_its_suite_can_be_run"} < own.keys(), tested.keys()
    assert set(own.values()) == {"passed"}, own


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
