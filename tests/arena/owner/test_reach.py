"""What is said of how much of the pictures was reached, of copies, and of earlier runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from owner_folder import QUICK, write_checkpoint
from PIL import Image

from arena.budget import Budget, colours
from arena.data.sample import Sample
from arena.owner.coverage import coverage
from arena.owner.protect import protect_folder
from arena.owner.report import read_report
from arena.owner.seen import Seen
from arena.release import read_release


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model"))


def picture(seed: int, size: tuple[int, int] = (48, 48)) -> Image.Image:
    small = np.random.default_rng(seed).integers(60, 190, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def write(folder: Path, pictures: dict[str, Image.Image]) -> Path:
    folder.mkdir()
    rows = []
    for number, (name, image) in enumerate(pictures.items()):
        image.save(folder / name)
        rows.append(json.dumps({"file_name": name, "question": f"what is {number}?", "answer": f"it is {number}"}))
    (folder / "metadata.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return folder


def sample(image: Image.Image) -> Sample:
    return Sample("s", image, "what?", "it")


def test_what_was_reached_is_measured() -> None:
    before = np.full((64, 100, 3), 128, np.uint8)
    half, scattered = before.copy(), before.copy()
    half[:, 50:, 1] += 3
    scattered[::2] += 1
    pairs = [(before, half), (before, before), (before, scattered), (before, before + 1)]
    originals, released = ([sample(Image.fromarray(pair[i])) for pair in pairs] for i in (0, 1))
    found = coverage(originals, released, ["half", "same", "scattered", "all"])
    assert found is not None and found.pictures == 3
    assert found.pixels == pytest.approx((0.5 + 0.5 + 1) / 3)
    assert [(one.file, one.pixels) for one in found.low] == [("half", 0.5), ("scattered", 0.5)]
    assert found.low[0].area == pytest.approx(0.52) and found.low[1].area == 1  # a part of 16 pixels is cut in two
    unprotected, few = found.warnings()
    assert "1 of 3 pictures have unprotected parts: of 'half' 52%" in unprotected and "views=true" in unprotected
    assert "('scattered' 50%)" in few and "no part was left out" in few
    assert coverage(originals[1:2], released[1:2], ["same"]) is None


def test_a_wide_picture_is_protected_to_its_edges(checkpoint: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "wide", {f"{i}.png": picture(i, (94, 48)) for i in range(3)})
    surrogates, config = [f"llava={checkpoint}"], {**QUICK, "pgd_steps": 3}
    report = protect_folder(source, tmp_path / "out", "mmguard-image", surrogates, config=_image(config))
    assert report.coverage is not None and report.coverage.pixels > 0.95 and report.warnings == []
    assert report.request.defense["config"]["views"] is True
    assert "area reached" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    without = protect_folder(
        source, tmp_path / "without", "mmguard-image", surrogates, config={**_image(config), "views": False}
    )
    assert without.coverage is not None and without.coverage.pixels < 0.65
    (warning, again) = sorted(without.warnings, key=lambda text: "before" in text)
    assert "3 of 3 pictures have unprotected parts" in warning and "3 of these pictures were protected before" in again
    page = (tmp_path / "without" / "report.html").read_text(encoding="utf-8")
    assert "Before you publish" in page and "unprotected parts" in page


def _image(config: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in config.items() if key != "candidates"}


def test_one_picture_has_one_perturbation_whatever_the_defense(tmp_path: Path) -> None:
    """`random` draws noise for each sample; a picture that stands in several gets that of the first."""
    first, flat = picture(1), Image.new("RGB", (48, 48), (255, 0, 128))
    near = first.copy()
    near.putpixel((0, 0), (255, 255, 255))
    small = first.resize((24, 24), Image.Resampling.BOX)
    source = write(
        tmp_path / "in",
        {"a.png": first, "b.png": flat, "c.png": first, "d.png": near, "e.png": flat, "f.png": small},
    )
    report = protect_folder(source, tmp_path / "out", "random", seed=4)
    originals, released = read_release_of(source), read_release(tmp_path / "out" / "data")
    changes = [colours(b.image).astype(int) - colours(a.image) for a, b in zip(originals, released, strict=True)]
    assert np.array_equal(changes[0], changes[2]) and np.array_equal(changes[1], changes[4])
    assert np.array_equal(changes[3][1:], changes[0][1:]) and (changes[3][0, 0] <= 0).all()
    assert not np.array_equal(changes[0], changes[1])
    assert report.measured.image == 8 and report.copies is not None
    assert (report.copies.pictures, report.copies.shared, report.copies.near) == (4, 2, 1)
    assert report.copies.resized == [("f.png", "a.png")]
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "averaging copies undoes nothing" in page and "Publish one size of each" in page


def read_release_of(source: Path) -> list[Sample]:
    from arena.release import read_imagefolder

    return read_imagefolder(source)


def test_what_was_protected_before_is_said(tmp_path: Path) -> None:
    source = write(tmp_path / "photos", {f"{i}.png": picture(i) for i in range(4)})
    first = protect_folder(source, tmp_path / "first", "random")
    assert first.warnings == []
    other = write(tmp_path / "other", {"new.png": picture(9), "renamed.png": picture(2)})
    again = protect_folder(other, tmp_path / "again", "random", seed=1)
    (said,) = again.warnings
    assert said.startswith("1 of these pictures were protected before") and str(tmp_path / "first") in said
    twice = protect_folder(tmp_path / "first" / "data", tmp_path / "elsewhere" / "twice", "random", limit=3)
    (said,) = twice.warnings
    assert said.startswith("3 of these pictures are already protected") and "Protect the originals" in said
    assert read_report(tmp_path / "elsewhere" / "twice").warnings == [said]
    fresh = write(tmp_path / "fresh", {"x.png": picture(20)})
    assert protect_folder(fresh, tmp_path / "last", "random").warnings == []


def test_unreadable_neighbours_are_passed_over(tmp_path: Path) -> None:
    source = write(tmp_path / "photos", {"x.png": picture(1)})
    for name, content in (("old", '{"schema_version": 0}'), ("else", "[]"), ("torn", "{")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(content, encoding="utf-8")
    assert protect_folder(source, tmp_path / "out", "none", budget=Budget(image=0, text=0)).warnings == []


def test_the_drafts_of_copies_keep_alpha_and_mode() -> None:
    rgba = picture(1).copy()
    rgba.putalpha(Image.linear_gradient("L").resize((48, 48)))
    originals = [sample(rgba), sample(rgba.copy()), sample(picture(1).convert("L"))]
    moved = np.asarray(rgba).copy()
    moved[..., 0] += 5
    drafts = [sample(Image.fromarray(moved)), sample(rgba), originals[2]]
    found = Seen.of(originals).one_each(originals, drafts, near=True)
    assert found[1].image.tobytes() == drafts[0].image.tobytes() and found[2] is drafts[2]
