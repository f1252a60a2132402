"""Paths that cannot be looked at are named in a paragraph, those that are not there are not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from unprivileged import without_rights

from arena.errors import ArenaError, UsageError
from arena.paths import exists, is_file, is_folder, unreadable


def test_what_is_there_and_what_is_not(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert exists(tmp_path) and is_folder(tmp_path) and not is_file(tmp_path)
    assert exists(tmp_path / "file") and is_file(str(tmp_path / "file")) and not is_folder(tmp_path / "file")
    for path in (tmp_path / "no", tmp_path / "file" / "below"):
        assert not exists(path) and not is_file(path) and not is_folder(path)


@pytest.mark.parametrize("ask", [exists, is_file, is_folder])
def test_a_path_that_cannot_be_looked_at_is_named(tmp_path: Path, ask: Callable[[Path | str], bool]) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UsageError, match=r"xx cannot be used \(File name too long\): name another path"):
        ask(tmp_path / ("x" * 300))
    with pytest.raises(UsageError, match=r"loop cannot be used \(Too many levels of symbolic links\)"):
        ask(tmp_path / "loop")
    with pytest.raises(UsageError, match="null byte"):
        ask("a\0b")
    locked = tmp_path / "locked"
    locked.mkdir(mode=0)
    with without_rights(), pytest.raises(UsageError, match=r"below cannot be used \(Permission denied\)"):
        ask(locked / "below")
    locked.chmod(0o700)


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    error = unreadable(tmp_path, PermissionError(13, "Permission denied"))
    assert isinstance(error, ArenaError) and str(error).startswith(f"{tmp_path} cannot be read (Permission denied)")
