"""Folders of pictures that cannot be read: what cannot is named, with a remedy, in one paragraph."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from unprivileged import without_rights

from arena.data.folder import read_imagefolder
from arena.data.hub.docvqa import DocVQA
from arena.data.imagefolder import ImageFolder
from arena.errors import ArenaError, UsageError

BROKEN = Path("/proc/self/mem")
"""A file that is there and gives an error when it is read."""

pytestmark = pytest.mark.skipif(not BROKEN.exists(), reason="needs the files of Linux")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "pictures"
    place.mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(place / name)
    rows = [{"file_name": name, "question": "what?", "answer": "it"} for name in ("a.png", "b.png")]
    (place / "metadata.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return place


def replaced(path: Path, target: Path | str) -> None:
    path.unlink()
    path.symlink_to(target)


def renamed(folder: Path, name: str) -> None:
    text = (folder / "metadata.jsonl").read_text(encoding="utf-8")
    (folder / "metadata.jsonl").write_text(text.replace("b.png", name), encoding="utf-8")
    (folder / "b.png").unlink()


CASES: dict[str, tuple[Callable[[Path], object], str]] = {
    "metadata that give an error": (lambda f: replaced(f / "metadata.jsonl", BROKEN), "metadata.jsonl cannot be read"),
    "metadata that link to themselves": (
        lambda f: replaced(f / "metadata.jsonl", "metadata.jsonl"),
        "metadata.jsonl cannot be used (Too many levels of symbolic links)",
    ),
    "a picture that gives an error": (lambda f: replaced(f / "b.png", BROKEN), "line 2: 'b.png' cannot be read ("),
    "a picture that links to itself": (
        lambda f: replaced(f / "b.png", "b.png"),
        "line 2: 'b.png' cannot be read (Too many levels of symbolic links)",
    ),
    "a picture of too long a name": (lambda f: renamed(f, "x" * 300), "cannot be read (File name too long)"),
    "a picture that is a folder": (
        lambda f: (renamed(f, "c.png"), (f / "c.png").mkdir()),
        "line 2: 'c.png' cannot be read (Is a directory)",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_read_is_named(case: str, folder: Path) -> None:
    damage, said = CASES[case]
    damage(folder)
    with pytest.raises(ArenaError) as error:
        read_imagefolder(folder)
    assert said in str(error.value) and len(str(error.value)) < 1000


@pytest.mark.parametrize("name", ["x" * 300, "loop", "loop/below"])
def test_a_folder_that_cannot_be_looked_at_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    place = tmp_path / name
    for read in (
        lambda: read_imagefolder(place),
        lambda: ImageFolder(ImageFolder.Config(source=str(place))).fingerprint(),
        lambda: DocVQA(DocVQA.Config(source=str(place))).fingerprint(),
        lambda: DocVQA(DocVQA.Config(source=str(place))).load(1, 0, 0, 0),
    ):
        with pytest.raises(UsageError, match=r"cannot be used \((File name too long|Too many levels)"):
            read()


@pytest.mark.parametrize(("dataset", "first"), [(ImageFolder, "read_bytes"), (DocVQA, "iterdir")])
def test_data_that_cannot_be_read_have_no_fingerprint(
    dataset: type[ImageFolder], first: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = dataset(dataset.Config(source=str(folder)))
    assert source.fingerprint()
    replaced(folder / "b.png", BROKEN)
    with pytest.raises(ArenaError, match=r"cannot be read \("):
        source.fingerprint()

    def refused(path: Path) -> object:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, first, refused)
    with pytest.raises(ArenaError, match=rf"{folder}.* cannot be read \(Permission denied\)"):
        source.fingerprint()


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_a_folder_of_another_user_is_named(folder: Path) -> None:
    folder.chmod(0o700)
    with without_rights(), pytest.raises(ArenaError, match="Permission denied"):
        read_imagefolder(folder)
