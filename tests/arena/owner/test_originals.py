"""What `arena protect` takes from a source: rows, splits and parts of them, columns of pictures."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from arena.data.fixtures import table
from arena.data.hub.vqa_rad import VqaRad
from arena.errors import ArenaError, UsageError
from arena.owner.originals import read_originals
from arena.owner.splits import Split


def test_one_saved_split_answers_to_its_own_name_alone(tmp_path: Path) -> None:
    named = datasets.Dataset(table("vqa-rad", range(4)).data, split=datasets.Split.TEST)
    for rows, own, other in ((named, "test", "train"), (table("vqa-rad", range(4)), "train", "test")):
        folder = tmp_path / own
        rows.save_to_disk(str(folder))
        assert len(read_originals(str(folder), split=own).samples) == 4
        assert len(read_originals(str(folder), split=f"{own}[1:3]").samples) == 2
        for asked in (other, f"{other}[:1]"):
            with pytest.raises(UsageError, match=rf"no split '{other}': name one of {own}"):
                read_originals(str(folder), split=asked)


def imagefolder(folder: Path, names: list[str]) -> Path:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / name)
    rows = [json.dumps({"file_name": name, "question": "what?", "answer": "it"}) for name in names]
    (folder / "metadata.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return folder


def encoded(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (number, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def parquet(path: Path, kind: str, count: int = 5) -> Path:
    """A file as `datasets` writes it, as pandas does, or with the wide type that other tools take."""
    columns = {"question": ["what?"] * count, "answer": ["it"] * count}
    pictures = [encoded(number) for number in range(count)]
    if kind == "datasets":
        rows = [{"bytes": content, "path": None} for content in pictures]
        features = datasets.Features(
            image=datasets.Image(), question=datasets.Value("string"), answer=datasets.Value("string")
        )
        datasets.Dataset.from_dict({"image": rows, **columns}, features=features).to_parquet(str(path))
    elif kind == "pandas":
        pd.DataFrame({"image": pictures, **columns}).to_parquet(path)
    else:
        pq.write_table(pa.table({"image": pa.array(pictures, pa.large_binary()), **columns}), path)
    return path


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return {
        "folder": str(imagefolder(tmp_path / "folder", [f"{i}.png" for i in range(5)])),
        "parquet": str(parquet(tmp_path / "a.parquet", "datasets")),
    }


PARTS = {"train[:2]": [0, 1], "train[-1:]": [4], "train[40%:80%]": [2, 3], "train[:]": [0, 1, 2, 3, 4]}


@pytest.mark.parametrize("kind", ["folder", "parquet"])
def test_a_part_of_a_split_is_that_part(kind: str, sources: dict[str, str]) -> None:
    def numbers(split: str, limit: int | None = None) -> list[int]:
        return [s.image.getpixel((0, 0))[0] for s in read_originals(sources[kind], None, split, limit).samples]  # type: ignore[index]

    for split, wanted in PARTS.items():
        assert numbers(split) == wanted
    assert numbers("train[1:4]", 2) == [1, 2]
    for wrong in (
        "train[7:]",
        "train[3:1]",
        "train[a:b]",
        "train+test",
        "train[1]",
        "train[:1",
        "test[:1]",
        "validation",
    ):
        with pytest.raises(
            UsageError, match=re.escape(repr(wrong.partition("[")[0] if wrong[:4] == "test" else wrong))
        ):
            read_originals(sources[kind], None, wrong)


def test_a_parquet_file_is_the_split_that_its_name_says(tmp_path: Path) -> None:
    path = str(parquet(tmp_path / "test-00000-of-00001.parquet", "datasets"))
    assert len(read_originals(path, split="test[:3]").samples) == 3 and len(read_originals(path).samples) == 5
    with pytest.raises(UsageError, match="no split 'validation': name one of train"):
        read_originals(path, split="validation")


@pytest.mark.parametrize("kind", ["datasets", "pandas", "wide"])
def test_pictures_as_plain_bytes_are_pictures(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "data"
    folder.mkdir()
    found = read_originals(str(parquet(folder / "train.parquet", kind)))
    assert [s.image.getpixel((0, 0)) for s in found.samples] == [(i, 0, 0) for i in range(5)]
    assert found.files == [f"{i:06d}.png" for i in range(5)]
    settings = {"source": str(folder), "evaluation_split": "train"}
    splits = VqaRad(VqaRad.Config.model_validate(settings)).load(2, 0, 2, 0)
    assert len({s.image.tobytes() for s in (*splits.train, *splits.test)}) == 4


def test_a_row_that_cannot_be_taken_is_refused_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = [{"image": encoded(0), "question": "what?", "answer": "it"} for _ in range(5)]
    rows[1]["image"], rows[2]["image"], rows[3]["answer"] = None, b"no picture", ""  # type: ignore[call-overload]
    pd.DataFrame(rows).to_parquet(tmp_path / "a.parquet")
    found = read_originals(str(tmp_path / "a.parquet"))
    assert found.files == ["000000.png", "000004.png"] and [s.id for s in found.samples] == found.files
    assert {r.file: r.reason.split(" (")[0] for r in found.refused} == {
        "000001.png": "has no picture in 'image'",
        "000002.png": "is damaged or no picture",
        "000003.png": "answer is missing or empty",
    }


def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    folder = imagefolder(tmp_path / "in", [f"{i}.png" for i in range(4)])
    for name in ("1.png", "3.png"):
        (folder / name).write_bytes(b"damaged")
    assert read_originals(str(folder), limit=1).refused == []
    assert [r.file for r in read_originals(str(folder), limit=3).refused] == ["1.png"]
    with pytest.raises(ArenaError, match=r"line 4: '3\.png' is damaged"):
        read_originals(str(folder), split="train[3:]")


def test_several_splits_with_one_metadata_file(tmp_path: Path) -> None:
    folder = imagefolder(tmp_path / "in", ["train/0.png", "train/1.png", "test/0.png", "new/0.png"])
    found = read_originals(str(folder))
    assert found.files == ["train/0.png", "train/1.png"]
    assert found.notes == ("rows of other splits were left out: test (1), new (1); --split takes them",)
    assert read_originals(str(folder), split="new").files == ["new/0.png"]
    with pytest.raises(UsageError, match="no split 'validation': name one of train, test, new"):
        read_originals(str(folder), split="validation")


def test_a_split_is_one_split() -> None:
    assert Split("train").whole and not Split("train[:]").whole and Split("a-b.c[:1]").name == "a-b.c"
