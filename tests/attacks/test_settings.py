"""What of an attack's settings is part of what a cell is, and what attacks say of themselves for estimates."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from arena.plugins.base import Attack, Effort
from arena.plugins.registry import Registry
from attacks import checkpoints
from attacks.image.denoiser import SHIPPED as DENOISER
from attacks.text.paraphrase import SHIPPED as PARAPHRASER

WEIGHTS: dict[str, tuple[str, ...]] = {
    "diffpure": ("checkpoint",),
    "vae-trans": ("checkpoint",),
    "noisy-upscale": ("checkpoint",),
    "onion": ("language_model",),
    "paraphrase": ("checkpoint",),
    "back-translate": ("forth", "back"),
}
"""Settings that name weights, by the attack."""

ATTACKS = [entry.id for entry in Registry().entries("attack")]


def attack(name: str, **config: object) -> Attack:
    return Registry().create("attack", name, config)


@pytest.mark.parametrize("name", [name for name in ATTACKS if "device" in type(attack(name).config).model_fields])
def test_the_device_is_no_part_of_what_a_cell_is(name: str) -> None:
    here, there = (attack(name, device=device).config for device in ("cpu", "cuda:1"))
    assert here.identity() == there.identity() and here.runtime() != there.runtime()


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_are_known_by_their_content(name: str, tmp_path: Path) -> None:
    folders = [tmp_path / place for place in ("one", "two", "other")]
    for folder, weights in zip(folders, (b"same", b"same", b"different"), strict=True):
        folder.mkdir()
        (folder / "config.json").write_text("{}", encoding="utf-8")
        (folder / "model.safetensors").write_bytes(weights)
    one, two, other = (attack(name, **dict.fromkeys(WEIGHTS[name], str(folder))) for folder in folders)
    assert one.fingerprint() == two.fingerprint() != other.fingerprint()
    assert one.config.identity() == other.config.identity() and not set(WEIGHTS[name]) & set(one.config.identity())


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_hub_id_is_known_by_its_commit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "resolve", lambda id, revision: {"main": "a" * 40, "v2": "b" * 40}[revision])
    found = {at: attack(name, **dict.fromkeys(WEIGHTS[name], f"who/what{at}")).fingerprint() for at in ("", "@v2")}
    assert found == {
        at: " ".join([f"who/what@{commit * 40}"] * len(WEIGHTS[name])) for at, commit in (("", "a"), ("@v2", "b"))
    }


@pytest.mark.parametrize(("name", "folder"), [("diffpure", DENOISER), ("paraphrase", PARAPHRASER)])
def test_shipped_weights_are_those_of_their_folder(name: str, folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert attack(name).fingerprint() == attack(name, checkpoint=str(copy)).fingerprint()


EFFORTS: dict[str, tuple[dict[str, object], Effort]] = {
    "jpeg": ({}, Effort()),
    "diffpure": ({"steps": 5}, Effort()),  # passes of a model of its own are not counted
    "onion": ({}, Effort(gradients=1)),
    "adv-train": ({"steps": 7}, Effort(gradients=7)),
    "ueraser": ({"draws": 4, "share": 0.5}, Effort(forwards=2)),
    "augment": ({}, Effort()),
    "loss-filter": ({}, Effort()),
}


@pytest.mark.parametrize("name", EFFORTS)
def test_the_effort_of_a_sample_is_counted(name: str) -> None:
    config, wanted = EFFORTS[name]
    assert attack(name, **config).effort() == wanted


def test_a_single_draw_needs_no_choice() -> None:
    assert attack("ueraser", draws=1).effort() == Effort()
