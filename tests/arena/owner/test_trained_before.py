"""What a defense trained on some pictures is given to others: `arena protect --reuse`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from owner_folder import write_checkpoint, write_owner_folder
from PIL import Image
from safetensors.torch import load_file, save_file

from arena.budget import Budget, colours
from arena.errors import ArenaError, UsageError
from arena.owner.protect import protect_folder
from arena.owner.report import Report

CONFIG: dict[str, Any] = {"clusters": 2, "epochs": 1, "side": 16, "width": 4, "learning_rate": 1e-2}
FILE = Path("trained") / "tensors.safetensors"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"llava={write_checkpoint(tmp_path_factory.mktemp('model'))}"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_owner_folder(tmp_path_factory.mktemp("owner"))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, source: Path, checkpoint: str) -> Path:
    out = tmp_path_factory.mktemp("first") / "out"
    report = protect_folder(source, out, "uc", [checkpoint], config=CONFIG)
    assert any("--reuse" in note for note in report.notes)
    return out


def later(source: Path, out: Path, reuse: Path, checkpoint: str, **other: Any) -> Report:
    return protect_folder(
        source, out, **{"defense": "uc", "surrogates": [checkpoint], "config": CONFIG, "reuse": reuse, **other}
    )


def test_pictures_get_the_noise_that_was_trained_on_others(
    first: Path, source: Path, checkpoint: str, tmp_path: Path
) -> None:
    other = shutil.copytree(source, tmp_path / "other")
    for path in [p for p in other.rglob("*") if p.suffix in (".png", ".jpg", ".bmp")]:
        with Image.open(path) as image:
            changed = Image.eval(image.convert(image.mode), lambda value: 64 + value // 2)
        changed.save(path)
    report = later(other, tmp_path / "out", first, checkpoint)
    noise = load_file(first / FILE)["noise"]
    found = 0
    for sample in report.samples:
        with (
            Image.open(other / sample.source_file) as before,
            Image.open(tmp_path / "out" / "data" / sample.file) as after,
        ):
            change = colours(after).astype(int) - colours(before)
        if change.ndim == 3 and Path(sample.source_file).suffix != ".jpg":
            sized = torch.nn.functional.interpolate(noise, change.shape[:2]).permute(0, 2, 3, 1).numpy() * 255
            found += any(np.abs(change - one).max() <= 0.51 for one in sized)
    assert found >= 2
    assert not (tmp_path / "out" / "trained").exists()


def test_the_same_pictures_get_the_same_again(first: Path, source: Path, checkpoint: str, tmp_path: Path) -> None:
    report = later(source, tmp_path / "out", first, checkpoint, seed=5)
    for sample in report.samples:
        assert (tmp_path / "out" / "data" / sample.file).read_bytes() == (first / "data" / sample.file).read_bytes()


@pytest.mark.parametrize(
    ("defense", "config"),
    [
        ("t2ue", {"epochs": 1, "blocks": 3, "width": 4}),
        ("bait", {"rounds": 1, "side": 16, "blocks": 1, "rank": 2}),
        ("vtg", {"rounds": 1, "theta_steps": 1, "side": 16, "style_width": 2, "rank": 2}),
    ],
)
def test_a_generator_makes_the_same_again(
    defense: str, config: dict[str, object], source: Path, checkpoint: str, tmp_path: Path
) -> None:
    asked = {"defense": defense, "config": config}
    first = tmp_path / "first"
    protect_folder(source, first, surrogates=[checkpoint], **asked)  # type: ignore[arg-type]
    report = later(source, tmp_path / "out", first, checkpoint, seed=5, **asked)
    for sample in report.samples:
        assert (tmp_path / "out" / "data" / sample.file).read_bytes() == (first / "data" / sample.file).read_bytes()


def test_what_is_asked_otherwise_than_then_is_refused(
    first: Path, source: Path, checkpoint: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for other, named in (
        ({"config": {**CONFIG, "clusters": 3}}, "defense differ"),
        ({"budget": Budget(image=4)}, "budget differ"),
        ({"surrogates": ["tiny-llava"]}, "surrogates differ"),
        ({"defense": "random", "surrogates": [], "config": {}}, "trains nothing"),
        ({"reuse": source}, "has no report.json"),
    ):
        with pytest.raises(UsageError, match=named):
            later(source, out, **{"reuse": first, "checkpoint": checkpoint, **other})
        assert not out.exists()


def test_damaged_or_missing_tensors_are_named(first: Path, source: Path, checkpoint: str, tmp_path: Path) -> None:
    copy = shutil.copytree(first, tmp_path / "copy")
    tensors = load_file(copy / FILE)
    for number, (changed, named) in enumerate(
        (
            ({"noise": tensors["noise"]}, "has no 'centres'"),
            ({**tensors, "noise": tensors["noise"][:1]}, "'noise'"),
            ({**tensors, "noise": tensors["noise"] * torch.nan}, "finite"),
            ({**tensors, "centres": tensors["centres"][:, :3].contiguous()}, "'centres'"),
            ({**tensors, "noise": tensors["noise"].sign() / 16}, "beyond the budget"),
        )
    ):
        save_file(changed, copy / FILE)
        with pytest.raises(ArenaError, match=named):
            later(source, tmp_path / str(number), copy, checkpoint)
    (copy / FILE).write_bytes(b"no tensors")
    with pytest.raises(ArenaError, match="is damaged"):
        later(source, tmp_path / "damaged", copy, checkpoint)
    (copy / FILE).unlink()
    with pytest.raises(UsageError, match="has no trained"):
        later(source, tmp_path / "missing", copy, checkpoint)
