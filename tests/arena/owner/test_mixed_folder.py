"""A folder as it is, in one command: every file is released as it looks, or named with a reason and a remedy."""

from __future__ import annotations

import io
import json
import os
import resource
import time
from pathlib import Path

import numpy as np
import pytest
from mixed_folder import SOUND, UNSOUND, write_mixed_folder
from PIL import Image, ImageCms, ImageOps
from typer.testing import CliRunner

from arena.cli.app import app
from arena.data import shelf
from arena.data.pictures.encoding import Encoding
from arena.errors import ArenaError, UsageError
from arena.owner.protect import protect_folder
from arena.owner.report import Report, read_report

FILES = len(SOUND) + len(UNSOUND) + 3
LARGE = os.environ.get("ARENA_LARGE_FOLDER")


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_mixed_folder(tmp_path_factory.getbasetemp() / "mixed", FILES, [(48, 36), (40, 56)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, kinds: dict[str, str]) -> Path:
    return tmp_path_factory.getbasetemp() / "mixed"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Path:
    place = tmp_path_factory.mktemp("released") / "out"
    ran = CliRunner().invoke(app, ["protect", str(folder), "--defense", "random", "--out", str(place)])
    assert ran.exit_code == 0, ran.output
    assert f"{len(SOUND)} samples protected with random" in ran.output
    assert "not released: 8 pictures in all; the report names each with reason and remedy" in ran.output
    return place


def viewed(path: Path) -> np.ndarray:
    """What a viewer shows of a file: upright, in sRGB by its profile, with alpha, int16 ``(H, W, 4)``."""
    with Image.open(path) as file:
        profile = file.info.get("icc_profile")
        image = ImageOps.exif_transpose(file)
    if image.mode.startswith("I;16"):
        image = Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
    if profile is not None:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        image = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    return np.asarray(image.convert("RGBA")).astype(np.int16)


def check_release(folder: Path, out: Path, kinds: dict[str, str], tmp_path: Path) -> Report:
    import datasets

    report = read_report(out)
    released = {sample.source_file: sample for sample in report.samples}
    refused = {refusal.file: refusal for refusal in report.refused}
    assert set(released) | set(refused) == set(kinds) and not set(released) & set(refused)
    assert {kinds[file] for file in released} == set(SOUND)
    assert all(refusal.reason and refusal.remedy for refusal in report.refused)
    stored = {sample.name: sample for sample in (out / "data").iterdir()}
    from arena.data.names import Names

    for file, about in released.items():
        assert Path(about.file).stem == Path(file).stem
        original = Names(folder).find(file)
        assert original is not None
        before, after = viewed(original), viewed(stored[about.file])
        assert before.shape == after.shape, file
        assert np.array_equal(before[..., 3], after[..., 3]), file
        # Of colours through a profile a level is more than a level.
        assert np.abs(before - after).max() <= (8 if kinds[file] != "other colour space" else 16), file
    assert report.measured.image == 8
    table = datasets.load_dataset(
        "imagefolder", data_dir=str(out / "data"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert sorted(table["id"]) == sorted(released)
    return report


def test_every_file_is_released_as_it_looks_or_named(
    folder: Path, out: Path, kinds: dict[str, str], tmp_path: Path
) -> None:
    report = check_release(folder, out, kinds, tmp_path)
    reasons = {kinds[r.file]: r.reason for r in report.refused}
    said = {
        **{"pages": "has 2 pages", "animated": "has 2 pages", "cut off": "is damaged", "floats": "values of 32 bits"},
        **{"no picture": "no known format", "no row": "has no row", "no file": "is not in the folder"},
        "no answer": "answer is missing or empty",
    }
    assert set(reasons) == set(said) and all(said[kind] in reasons[kind] for kind in said)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "8 pictures were not released" in page and all(r.file in page for r in report.refused)
    changes = {kinds[s.source_file]: " ".join(s.changes) for s in report.samples}
    assert "turned upright" in changes["photograph on its side"] and "EXIF" in changes["photograph on its side"]
    assert "palette" in changes["gif"] and "CMYK became sRGB" in changes["for print"] and not changes["plain"]
    assert "What was changed beside the protection" in page and "CMYK became sRGB" in page


def test_no_place_is_published(out: Path) -> None:
    report = read_report(out)
    for sample in report.samples:
        with Image.open(out / "data" / sample.file) as file:
            assert not file.getexif() and not file.info.get("xmp"), sample.file


def test_all_or_nothing(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ArenaError, match=r"8 pictures cannot be released, and --strict asks for all: .*; and 3 more"):
        protect_folder(folder, tmp_path / "out", "random", strict=True)
    assert not (tmp_path / "out").exists()


def test_what_a_format_cannot_hold_is_refused_with_it(folder: Path, kinds: dict[str, str], tmp_path: Path) -> None:
    report = protect_folder(folder, tmp_path / "out", "none", encoding=Encoding(format="jpeg"), keep_exif=True)
    clear = {"transparent", "grey and transparent", "clear colour"}
    assert {kinds[r.file] for r in report.refused if "transparency" in r.reason} == clear
    assert all(r.remedy == "release it as png or webp (--format)" for r in report.refused if "transp" in r.reason)
    assert {Path(s.file).suffix for s in report.samples} == {".jpg", ".jpeg"}
    (photo,) = (s.file for s in report.samples if kinds[s.source_file] == "photograph on its side")
    with Image.open(tmp_path / "out" / "data" / photo) as file:
        exif = file.getexif()
        assert exif[0x0110] == "Camera" and exif.get_ifd(0x8825)[1] == "N" and 0x0112 not in exif


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--format", "gif"], "--format gif: Input should be 'png', 'webp' or 'jpeg'"),
        (["--format", "jpeg", "--quality", "89"], "--quality 89: Input should be greater than or equal to 90"),
        (["--quality", "95"], "png is lossless and has no quality"),
        (["--split", "train+test"], "is not one split"),
    ],
)
def test_options_that_are_refused(words: list[str], said: str, folder: Path, tmp_path: Path) -> None:
    command = ["protect", str(folder), "--defense", "none", "--out", str(tmp_path / "out"), *words]
    ran = CliRunner().invoke(app, command)
    assert isinstance(ran.exception, UsageError) and said in str(ran.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.timeout(7200)
@pytest.mark.skipif(not LARGE, reason="minutes and gigabytes: ARENA_LARGE_FOLDER=200 tries so many files of 1 to 12 MP")
def test_a_large_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = [(1200, 900), (2048, 1536), (4000, 3000), (1000, 1400), (3000, 2000)]
    kinds = write_mixed_folder(tmp_path / "in", int(LARGE or 0), sizes)
    shelf.limit(shelf.SMALL)
    started = time.perf_counter()
    report = protect_folder(tmp_path / "in", tmp_path / "out", "random")
    took = time.perf_counter() - started
    memory = [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, report.peak_memory_mb / 2**10]
    check_release(tmp_path / "in", tmp_path / "out", kinds, tmp_path)
    counts = {"released": len(report.samples), "refused": len(report.refused)}
    with capsys.disabled():
        print(json.dumps({**counts, "seconds": round(took), "GiB": [round(m, 2) for m in memory]}))  # noqa: T201


def test_one_file_with_several_questions_is_one_file_of_the_release(tmp_path: Path) -> None:
    import datasets

    (tmp_path / "in").mkdir()
    rows = []
    for name, question in (("a.png", "what?"), ("b.png", "where?"), ("a.png", "who?"), ("a.png", "when?")):
        Image.new("RGB", (40, 32), (90, 120, 60)).save(tmp_path / "in" / name)
        rows.append(json.dumps({"file_name": name, "question": question, "answer": "it"}))
    (tmp_path / "in" / "metadata.jsonl").write_text("\n".join(rows), encoding="utf-8")
    report = protect_folder(tmp_path / "in", tmp_path / "out", "random")
    assert [s.id for s in report.samples] == ["a.png", "b.png", "a.png#2", "a.png#3"] and not report.refused
    assert {p.name for p in (tmp_path / "out" / "data").iterdir()} == {"a.png", "b.png", "metadata.jsonl"}
    table = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "out" / "data"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert sorted(table["question"]) == ["what?", "when?", "where?", "who?"]
    assert read_report(tmp_path / "out") == protect_folder(tmp_path / "in", tmp_path / "out", "random", resume=True)
