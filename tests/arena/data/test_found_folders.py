"""Folders as they come from a Mac, a notebook, a zip file or Windows: litter is no data, and names are found."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import datasets
import pytest
from PIL import Image

from arena.data.folder import files_of, list_imagefolder, parts_of, read_imagefolder
from arena.data.imagefolder import ImageFolder
from arena.data.names import Names
from arena.errors import ArenaError, Refused
from defenses.released import Released

LITTER = (
    *(".DS_Store", "._a.png", "__MACOSX/._a.png", "__MACOSX/deep/a.png", ".ipynb_checkpoints/a-checkpoint.png"),
    *(".thumbnails/normal/a.png", "Thumbs.db", "sub/Thumbs.db", "desktop.ini", ".git/x.jpg", "@eaDir/a.png/THUMB.jpg"),
    *("$RECYCLE.BIN/b.png", "__pycache__/c.gif", ".hidden.webp", "notes.md", "clip.mp4"),
)


def write(folder: Path, names: Sequence[str], rows: Sequence[str] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / name, "PNG")
    lines = (json.dumps({"file_name": name, "question": "what?", "answer": "it"}) for name in rows or names)
    (folder / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def source(folder: Path, **settings: object) -> ImageFolder:
    return ImageFolder(ImageFolder.Config.model_validate({"source": str(folder), **settings}))


@pytest.mark.parametrize("name", LITTER)
def test_what_systems_and_tools_leave_is_not_data(name: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "in", ["a.png", "sub/b.png"])
    keys = source(folder).fingerprint(), Released(Released.Config(folder=str(folder))).fingerprint()
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes((folder / "a.png").read_bytes())
    assert [s.id for s in read_imagefolder(folder)] == ["a.png", "sub/b.png"]
    assert (source(folder).fingerprint(), Released(Released.Config(folder=str(folder))).fingerprint()) == keys


def test_a_picture_without_a_row_is_named_unless_it_was_not_asked_for(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", ["a.png", "b.png", "sub/c.HEIC", "d.cr2"], ["a.png", "b.png"])
    found = list_imagefolder(folder)
    assert [entry.id for entry in found.entries] == ["a.png", "b.png"]
    assert [file for file, _ in found.refused] == ["d.cr2", "sub/c.HEIC"]
    with pytest.raises(ArenaError, match=r"'d\.cr2' has no row: add one, or remove the picture \(one of 2 that cannot"):
        read_imagefolder(folder)
    assert not list_imagefolder(folder, chosen=lambda count: range(1)).refused
    key = source(folder).fingerprint()
    (folder / "d.cr2").unlink()
    assert source(folder).fingerprint() == key


def test_the_fingerprint_is_of_the_pictures_that_metadata_name(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", ["a.png", "no-ending", ".shown.png"])
    key = source(folder).fingerprint()
    assert {path.name for path in files_of(folder)} == {"metadata.jsonl", "a.png", "no-ending", ".shown.png"}
    for name in ("no-ending", ".shown.png"):
        before = (folder / name).read_bytes()
        Image.new("RGB", (8, 8), (0, 99, 0)).save(folder / name, "PNG")
        assert source(folder).fingerprint() != key
        (folder / name).write_bytes(before)
    assert source(folder).fingerprint() == key


SPELLED = {
    "decomposed": ("Größe/日本é.png", "NFD", "NFC"),
    "composed": ("Größe/日本é.png", "NFC", "NFD"),
    "Hangul": ("사진/고양이.png", "NFD", "NFC"),
}


@pytest.mark.parametrize("case", SPELLED)
def test_a_name_in_another_unicode_form_is_found(case: str, tmp_path: Path) -> None:
    name, stored, written = SPELLED[case]
    there, said = unicodedata.normalize(stored, name), unicodedata.normalize(written, name)
    assert there != said
    folder = write(tmp_path / "in", [there], [said])
    (sample,) = read_imagefolder(folder)
    assert sample.id == said
    assert files_of(folder)[1] == folder / there


def test_names_from_other_systems_are_found_where_one_file_is_meant(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", ["sub/IMG_1.JPG", "b.png"], ["sub\\img_1.jpg", "./b.png"])
    assert [entry.path.relative_to(folder).as_posix() for entry in list_imagefolder(folder).all()] == [
        "sub/IMG_1.JPG",
        "b.png",
    ]
    write(tmp_path / "two", ["A.png", "a.PNG"], ["a.png", "A.png"])
    found = list_imagefolder(tmp_path / "two")
    assert [entry.file for entry in found.entries] == ["A.png"]
    assert str(found.refused[0][1]).endswith(
        "'a.png' may be 'A.png' or 'a.PNG': write the name just as the folder has it"
    )
    assert Names(tmp_path / "two").find("b.png") is None


def test_one_picture_may_have_several_rows(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", ["a.png"], ["a.png", "a.png", "a.png"])
    samples = read_imagefolder(folder)
    assert [s.id for s in samples] == ["a.png", "a.png#2", "a.png#3"] and samples[0].image == samples[2].image


def test_a_row_that_cannot_be_used_is_refused_alone(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", ["a.png", "b.png", "c.png"])
    rows = [
        {"file_name": "a.png", "question": "what?", "answer": ""},
        {"file_name": "b.png", "question": "what?", "answer": "it"},
        {"file_name": "gone.png", "question": "what?", "answer": "it"},
        {"file_name": "../x.png", "question": "what?", "answer": "it"},
        {"file_name": "c.png", "question": 3, "answer": "it"},
        {"question": "what?", "answer": "it"},
    ]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    found = list_imagefolder(folder)
    assert [entry.file for entry in found.entries] == ["b.png"]
    assert [(file, error.reason) for file, error in found.refused] == [
        ("a.png", "answer is missing or empty"),
        ("gone.png", "is not in the folder"),
        ("../x.png", "file_name '../x.png' leads out of the folder"),
        ("c.png", "question is a number, not a text"),
        ("line 6", "file_name is missing or empty"),
    ]
    assert all(error.remedy for _, error in found.refused)
    with pytest.raises(ArenaError, match=r"line 1: answer is missing .* \(one of 5 that cannot be used\)"):
        found.all()


def test_only_the_pictures_that_are_drawn_are_decoded(tmp_path: Path) -> None:
    names = [f"{i}.png" for i in range(12)]
    folder = write(tmp_path / "in", names)
    wanted = source(folder).load(3, 1, 2, seed=0)
    drawn = {s.id for part in (wanted.train, wanted.auxiliary, wanted.test) for s in part}
    for name in sorted(set(names) - drawn):
        (folder / name).write_bytes(b"damaged")
    assert source(folder).load(3, 1, 2, seed=0) == wanted
    (folder / wanted.test[0].id).write_bytes(b"damaged")
    with pytest.raises(Refused, match=rf"'{wanted.test[0].id}' is damaged or no picture"):
        source(folder).load(3, 1, 2, seed=0)


def test_one_metadata_file_for_training_and_test(tmp_path: Path) -> None:
    names = [f"{part}/{i}.png" for part in ("train", "test", "more") for i in range(4)]
    folder = write(tmp_path / "in", names)
    splits = source(folder).load(3, 1, 4, seed=1)
    assert {s.id for s in (*splits.train, *splits.auxiliary)} == {f"train/{i}.png" for i in range(4)}
    assert {s.id for s in splits.test} == {f"test/{i}.png" for i in range(4)}
    assert parts_of(folder) == {"train": 4, "test": 4, "more": 4}
    # As `datasets` divides the folder.
    read = datasets.load_dataset("imagefolder", data_dir=str(folder), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in read.items()}["test"] == 4
    write(tmp_path / "one", ["train/0.png", "train/1.png"])
    assert parts_of(tmp_path / "one") == {} and len(source(tmp_path / "one").load(1, 0, 1, seed=0).test) == 1


def test_folders_with_metadata_of_their_own_come_first(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", ["train/0.png", "test/0.png"])
    for part in ("train", "test"):
        write(folder / part, ["0.png", "1.png"])
    assert parts_of(folder) == {"train": 2, "test": 2}
    assert [s.id for s in source(folder).load(2, 0, 2, seed=0).train] != ["0.png", "1.png"]
    key = source(folder).fingerprint()
    Image.new("RGB", (8, 8), (0, 0, 7)).save(folder / "test" / "1.png")
    assert source(folder).fingerprint() != key
