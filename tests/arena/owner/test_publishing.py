"""Releases in the owner's format: the budget on the decoded files, and what reads them afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from owner_folder import QUICK, write_checkpoint, write_owner_folder
from PIL import Image

from arena.budget import Budget, check, colours
from arena.data.pictures.encoding import PNG, Encoding
from arena.data.sample import digest
from arena.errors import ArenaError, UsageError
from arena.owner.explain import explain
from arena.owner.fitting import fitted
from arena.owner.originals import read_originals
from arena.owner.protect import protect_folder
from arena.owner.publishing import crafted_within
from arena.owner.released import read_released
from arena.owner.report import read_report
from arena.stress.folder import read_protected
from arena.stress.settings import Settings

JPEG = Encoding(format="jpeg", quality=90)
WEBP = Encoding(format="webp")


def smooth(rng: np.random.Generator, shape: tuple[int, ...], low: int, high: int) -> np.ndarray:
    coarse = rng.integers(low, high + 1, (-(-shape[0] // 5), -(-shape[1] // 5), *shape[2:]))
    return coarse.repeat(5, 0).repeat(5, 1)[: shape[0], : shape[1]]


@pytest.mark.parametrize("budget", [Budget(image=8), Budget(image=2.5), Budget(image=0), Budget(norm="l2", image=3)])
@pytest.mark.parametrize("shape", [(45, 67, 3), (40, 64), (5, 3, 3)])
@pytest.mark.parametrize("quality", [90, 100])
def test_the_file_keeps_the_budget_that_its_draft_would_not(
    quality: int, shape: tuple[int, ...], budget: Budget
) -> None:
    encoding, rng = Encoding(format="jpeg", quality=quality), np.random.default_rng(1)
    before = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
    original = encoding.published(before)
    values = np.asarray(original).astype(int) + smooth(rng, shape, -int(budget.image), int(budget.image))
    draft = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    file = encoding.published(fitted(before, original, draft, encoding, budget))
    change = colours(file).astype(int) - colours(original)
    amount = np.sqrt(np.mean(change**2)) if budget.norm == "l2" else np.abs(change).max()
    assert amount <= budget.image
    if budget.image >= 8 and shape[0] > 8:
        unfitted = colours(encoding.published(draft)).astype(int) - colours(original)
        assert np.abs(unfitted).max() > budget.image
        wanted = colours(draft).astype(int) - colours(original)
        assert np.corrcoef(change.ravel(), wanted.ravel())[0, 1] > 0.6


def test_a_picture_that_was_not_changed_is_the_file_of_the_original() -> None:
    before = Image.fromarray(np.random.default_rng(1).integers(0, 256, (30, 30, 3), dtype=np.uint8))
    original = JPEG.published(before)
    assert JPEG.published(fitted(before, original, original, JPEG, Budget())).tobytes() == original.tobytes()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_owner_folder(tmp_path_factory.mktemp("owner"))
    image = Image.open(folder / "c/deep/x.png").convert("RGB")  # JPEG has no alpha
    image.save(folder / "c/deep/x.png")
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def jpeg(tmp_path_factory: pytest.TempPathFactory, source: Path, checkpoint: Path) -> Path:
    out = tmp_path_factory.mktemp("jpeg") / "out"
    config = {**QUICK, "pgd_steps": 6, "step": 2}
    protect_folder(source, out, "mmguard-bph", [f"llava={checkpoint}"], config=config, encoding=JPEG)
    return out


def test_a_jpeg_release_is_held_against_the_originals_as_jpeg(source: Path, jpeg: Path) -> None:
    report = read_report(jpeg)
    originals = read_originals(str(source), encoding=JPEG)
    released = read_released(jpeg, report)
    changes = []
    for index, (original, sample, about) in enumerate(zip(originals.samples, released, report.samples, strict=True)):
        with Image.open(source / about.source_file) as file, Image.open(jpeg / "data" / about.file) as saved:
            assert digest([original]) == about.clean and JPEG.published(file.convert(file.mode)) == original.image
            assert saved.format == "JPEG" and saved.tobytes() == sample.image.tobytes()
        check(original, sample, report.request.budget, None, index)
        changes.append(np.abs(colours(sample.image).astype(int) - colours(original.image)).max())
    assert report.measured.image == max(changes) <= 8 and min(changes) > 0
    assert any(note.startswith("saving as JPEG at quality 90 alone moves pixels by up to ") for note in report.notes)
    assert any("of its mean are left in the files (JPEG at quality 90)" in note for note in report.notes)
    page = (jpeg / "report.html").read_text(encoding="utf-8")
    assert "held against the original as JPEG at quality 90 saves it" in page
    assert explain(jpeg, 1).protected_map is not None


@pytest.mark.parametrize("kind", ["webp", "jpeg"])
def test_a_stress_test_reads_a_release_in_another_format(kind: str, source: Path, jpeg: Path, tmp_path: Path) -> None:
    place = jpeg
    if kind == "webp":
        protect_folder(source, place := tmp_path / "out", "random", encoding=WEBP)
        assert {p.suffix for p in (place / "data").rglob("*") if p.is_file()} == {".webp", ".jsonl"}
        report = read_report(place)
        modes = [sample.image.mode for sample in read_released(place, report)]
        assert modes == [s.image.mode for s in read_originals(str(source)).samples] and "L" in modes
    found = read_protected(Settings(target=str(place)))
    assert found.breaches == () and len(found.originals) == 5 and found.exported == (kind == "jpeg")


DAMAGE = {
    "a picture cut off": (lambda data: (data / "z.png").write_bytes((data / "z.png").read_bytes()[:90]), "z.png"),
    "a picture replaced": (lambda data: Image.new("RGB", (40, 64)).save(data / "z.png"), "'z.png' was changed"),
    "a picture gone": (lambda data: (data / "grey.png").unlink(), "'grey.png' is not in the folder"),
    "a picture more": (lambda data: Image.new("L", (8, 8)).save(data / "more.png"), "'more.png' has no row"),
    "a row gone": (lambda data: cut(data / "metadata.jsonl", -1), "has no row"),
    "a question changed": (lambda data: edit(data / "metadata.jsonl"), "was changed since the release was made"),
    "no metadata": (lambda data: (data / "metadata.jsonl").unlink(), "has no metadata"),
    "no folder": (lambda data: data.rename(data.with_name("moved")), "is not a folder"),
}


def cut(path: Path, rows: int) -> None:
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:rows]), encoding="utf-8")


def edit(path: Path) -> None:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows[0]["question"] += " really?"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, source: Path) -> Path:
    protect_folder(source, out := tmp_path_factory.mktemp("finished") / "out", "random")
    return out


@pytest.mark.parametrize("case", DAMAGE)
def test_resume_says_what_became_of_a_finished_release(case: str, source: Path, finished: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(finished, out := tmp_path / "out")
    assert protect_folder(source, out, "random", resume=True) == read_report(finished)
    damage, said = DAMAGE[case]
    damage(out / "data")
    with pytest.raises(ArenaError) as error:
        protect_folder(source, out, "random", resume=True)
    assert said in str(error.value) and "restore it, or protect again into a new folder" in str(error.value)


def test_a_defense_leaves_room_for_compression() -> None:
    assert [crafted_within(Budget(image=n), JPEG).image for n in (8, 2.5, 1, 0.5, 0)] == [5, 1, 1, 0, 0]
    assert crafted_within(Budget(image=8), WEBP) == Budget(image=8)
    assert crafted_within(Budget(image=8, norm="l2"), JPEG) == Budget(image=8, norm="l2")


def test_no_jpeg_file_keeps_a_number_of_pixels() -> None:
    one = Budget(norm="l0", image=1)
    assert crafted_within(one, PNG) == one
    with pytest.raises(UsageError, match="no file keeps a budget of 1 pixel: release PNG or WebP"):
        crafted_within(one, JPEG)
