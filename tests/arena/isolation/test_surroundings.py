"""What a process of a plugin may read, and removing what it left."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import arena
from arena.isolation.leftovers import remove
from arena.isolation.surroundings import environment, exposed, for_network, named, private, readable


def may_read(path: Path) -> bool:
    return any(path.resolve().is_relative_to(root.resolve()) for root in readable(network=False))


def test_interpreter_packages_and_the_arena_are_readable() -> None:
    for path in (Path(sys.executable), Path(os.__file__), Path(pytest.__file__), Path(str(arena.__file__))):
        assert may_read(path)


def test_home_temporary_folders_and_boards_are_not_readable(tmp_path: Path) -> None:
    repository = Path(str(arena.__file__)).parents[1]
    paths = (tmp_path, Path("/tmp"), Path("/"), Path("/proc"), Path(f"/proc/{os.getppid()}/environ"), Path("/dev/shm"))
    for path in (*paths, repository, repository / "leaderboards" / "records", repository / "tests"):
        assert not may_read(path), path


def test_of_a_folder_with_modules_only_modules_are_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "package").mkdir()
    for name in ("module.py", "package/__init__.py", "package/data.bin", "results.jsonl", "suite.yaml"):
        (tmp_path / name).touch()
    for name in ("store", "leaderboards", "__pycache__"):
        (tmp_path / name).mkdir()
    (tmp_path / "leaderboards" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    found = {path.name for path in tmp_path.iterdir() if may_read(path)}
    assert found == {"module.py", "package", "__pycache__"}
    assert may_read(tmp_path / "package" / "data.bin")


def test_libraries_that_the_environment_names_are_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not may_read(tmp_path)
    monkeypatch.setenv("LD_LIBRARY_PATH", f":relative:{tmp_path}")
    assert may_read(tmp_path) and not may_read(Path("/tmp"))


def test_where_a_store_could_be_read(tmp_path: Path) -> None:
    assert exposed(tmp_path / "store") is None
    around = exposed(Path(sys.prefix) / "store")
    assert around is not None and Path(sys.prefix).resolve().is_relative_to(around)


def test_no_secret_is_passed_on_and_proxies_only_with_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "HF_TOKEN": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "CUDA_VISIBLE_DEVICES": "0",
        "https_proxy": "c",
        "EDITOR": "vi",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert {name for name in given if name in environment()} == {"CUDA_VISIBLE_DEVICES"}
    assert {name for name in given if name in for_network()} == {"HF_TOKEN", "https_proxy"}
    assert not set(given) & set(private(Path("/home")))


def test_files_that_settings_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two", "three"):
        (tmp_path / name).touch()
    settings = {"file": str(tmp_path / "one"), "more": [{"deep": "two"}, "nul\0", "x" * 5000, "~", ""], "number": 3}
    assert sorted(map(str, named(settings))) == [str(tmp_path / "one"), "two"]


@pytest.mark.parametrize("what", ["plain", "deep", "closed", "link", "file", "nothing"])
def test_removing_what_was_left(tmp_path: Path, what: str) -> None:
    place, other = tmp_path / "place", tmp_path / "other"
    other.mkdir()
    (other / "file").touch()
    if what == "file":
        place.touch()
    elif what != "nothing":
        place.mkdir()
        (place / "file").touch()
    if what == "deep":
        here = Path.cwd()
        os.chdir(place)
        for _ in range(1200):
            Path("deeper").mkdir()
            os.chdir("deeper")
        os.chdir(here)
    if what == "closed":
        place.chmod(0)
    if what == "link":
        (place / "link").symlink_to(other)
    remove(place)
    assert not place.exists() and (other / "file").exists()
