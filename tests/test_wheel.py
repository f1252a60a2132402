"""What is not code and is read at run time goes into the wheel."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from setuptools.command.build_py import build_py
from setuptools.dist import Distribution

ROOT = Path(__file__).parents[1]
PACKAGES = ("arena", "mmguard", "defenses", "attacks")
"""But for the leaderboards, whose records are of a checkout."""


@pytest.fixture(scope="module")
def packed() -> set[str]:
    """Paths of all data files that setuptools puts beside the modules."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        distribution = Distribution()
        distribution.parse_config_files(["pyproject.toml"])
        distribution.include_package_data = False  # which is for files that a manifest names; there is none
        command = build_py(distribution)
        command.ensure_finalized()
        return {Path(folder, name).as_posix() for _, folder, _, names in command.data_files for name in names}


def test_the_wheel_has_the_data_that_are_read(packed: set[str]) -> None:
    listed = subprocess.run(["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no checkout of git")
    data = [path for path in listed.stdout.split("\n") if path and not path.endswith(".py")]
    missing = [path for path in data if path not in packed and not path.endswith(".md")]  # pages are for a checkout
    assert missing == []


def test_pictures_go_with_their_licence(packed: set[str]) -> None:
    assert {f"arena/data/embedded/emoji/{name}" for name in ("noto.zip", "LICENSE")} <= packed
