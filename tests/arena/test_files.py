"""Files that are written whole or not at all, and never over somebody else's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from arena.errors import ArenaError
from arena.files import atomically, refuse_foreign, write_atomically


def test_what_fails_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    write_atomically(path, b"old")
    with pytest.raises(ValueError, match="broken"), atomically(path) as partial:
        partial.write_bytes(b"half")
        raise ValueError("broken")
    assert path.read_bytes() == b"old" and len(list(path.parent.iterdir())) == 1


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 127, ".hidden", "a b"])
def test_any_name_that_a_file_may_have(tmp_path: Path, name: str) -> None:
    write_atomically(tmp_path / name, b"content")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [(name, b"content")]


def test_what_may_be_written_over(tmp_path: Path) -> None:
    path = tmp_path / "mini.md"
    refuse_foreign(path, "a board", b"# ", b"protection")
    for ours in (b"", b"# mini: what protection is left\n", b"# " + b"x" * 4000 + b"protection"):
        path.write_bytes(ours)
        refuse_foreign(path, "a board", b"# ", b"protection")
    said = r"mini\.md is there and is not a board: .*[Mm]ove it away, or name another"
    for theirs in (b"my notes\n", b"# mini\n", b"protection", b"# " + b"x" * 5000 + b"protection", b"\xff"):
        path.write_bytes(theirs)
        with pytest.raises(ArenaError, match=said):
            refuse_foreign(path, "a board", b"# ", b"protection")
        assert path.read_bytes() == theirs


@pytest.mark.parametrize("kind", ["folder", "pipe", "link", "loop", "below a file"])
def test_what_is_no_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "mini.md"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to("nowhere")
    elif kind == "loop":
        path.symlink_to("mini.md")
    else:
        path.write_text("x", encoding="utf-8")
        refuse_foreign(path / "below", "a board")  # writing it says what is in the way
        return
    with pytest.raises(ArenaError, match=r"mini\.md is there and"):
        refuse_foreign(path, "a board")
