"""Crafting and fine-tuning on any device and in any type come to about what they come to on a CPU in float32.

Tolerances of bfloat16 are about twice what a CPU was seen to need. In float32 devices differ by the order of sums
alone, which turns the sign of few gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch

from arena.budget import Budget
from arena.data.colours import colours
from arena.data.embedded.glyphs import Glyphs
from arena.data.sample import Sample
from arena.lvlm.adapters import trainable
from arena.lvlm.base import LVLM
from arena.lvlm.checkpoints import ZOO
from arena.plugins.base import DefenderWorld
from arena.plugins.registry import Registry
from arena.recipes.training import History, fine_tune, load_epoch, tuned_model
from arena.release import build_release

BUDGET = Budget(image=8, text=2)
DEFENSES: dict[str, dict[str, Any]] = {
    "em": {"rounds": 1, "theta_steps": 5, "pgd_steps": 6, "step": 1.5, "batch_size": 12},
    "mmguard-bph": {"rounds": 1, "pgd_steps": 6, "candidates": 2, "batch_size": 12, "dropout": 0.0},
}
TUNING = {"epochs": 3, "batch_size": 4, "dropout": 0.0, "learning_rate": 1e-3}


def model(device: str, dtype: str) -> LVLM:
    """tiny-llava, by the checkpoint settings of every model of the hub."""
    settings = {"checkpoint": str(ZOO / "tiny_llava"), "device": device, "dtype": dtype}
    lvlm: LVLM = Registry().create("model", "llava", settings).load()
    kinds = {p.device.type for p in lvlm.model.parameters()}
    assert kinds == {"cpu" if device == "cpu" else "cuda"} and lvlm.model.dtype == getattr(torch, dtype)
    if device == "auto":
        assert len({p.device for p in lvlm.model.parameters()}) > 1, "the model is on several GPUs"
    return lvlm


@cache
def samples() -> tuple[Sample, ...]:
    return Glyphs().load(12, 0, 0, seed=5).train


def released(defense: str, device: str, dtype: str) -> list[Sample]:
    """A release in budget: `build_release` refuses any other."""
    lvlm = model(device, dtype)
    world = DefenderWorld(BUDGET, 0, lambda: (lvlm,))
    drafts = Registry().create("defense", defense, DEFENSES[defense]).protect(samples(), world)
    return build_release(samples(), drafts, BUDGET, lambda text: len(lvlm.tokenizer(text)["input_ids"]))


@cache
def expected(defense: str) -> list[Sample]:
    return released(defense, "cpu", "float32")


def change(release: Sequence[Sample]) -> np.ndarray:
    """What was added to all pictures, in 1/255."""
    pairs = zip(release, samples(), strict=True)
    return np.concatenate([(colours(b.image).astype(int) - colours(a.image)).ravel() for b, a in pairs])


@torch.no_grad()
def loss(release: Sequence[Sample]) -> float:
    """Of the model as it was before, on a CPU in float32."""
    judge = exact()
    return float(judge.losses(judge.encode(release)).mean())


@cache
def exact() -> LVLM:
    return model("cpu", "float32")


@pytest.mark.parametrize("defense", DEFENSES)
def test_crafting(defense: str, device: str, dtype: str) -> None:
    release, wanted = released(defense, device, dtype), expected(defense)
    added, usual = change(release), change(wanted)
    assert 0 < np.abs(added).max() <= BUDGET.image
    assert np.abs(added).mean() == pytest.approx(np.abs(usual).mean(), rel=0.1)
    assert np.corrcoef(added, usual)[0, 1] > (0.98 if dtype == "float32" else 0.8)
    gained, possible = loss(samples()) - loss(release), loss(samples()) - loss(wanted)
    assert possible > 0.1 and gained == pytest.approx(possible, rel=0.05 if dtype == "float32" else 0.3)


def tuned(device: str, dtype: str, precision: str, folder: Path) -> tuple[History, list[str]]:
    """How a fine-tuning went, and the answers of its last epoch."""
    recipe = Registry().create("recipe", "lora", {**TUNING, "precision": precision})
    history = fine_tune(model(device, dtype), recipe, samples(), 0, folder)
    lvlm = tuned_model(model(device, dtype), recipe, 0)
    assert {p.dtype for p in trainable(lvlm).values()} == {torch.float32}, "adapters would lose small updates"
    load_epoch(lvlm, folder, len(history.epochs) - 1)
    return history, lvlm.generate(samples(), max_new_tokens=4)


@cache
def expected_tuning() -> tuple[History, list[str]]:
    with TemporaryDirectory() as folder:
        return tuned("cpu", "float32", "float32", Path(folder))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_fine_tuning(device: str, dtype: str, precision: str, tmp_path: Path) -> None:
    """In types of weights and of computing that may differ, `precision` being the type of autocast."""
    history, answers = tuned(device, dtype, precision, tmp_path)
    usual, answered = expected_tuning()
    rough = "bfloat16" in (dtype, precision)
    for epoch, other in zip(history.epochs, usual.epochs, strict=True):
        assert epoch.loss == pytest.approx(other.loss, rel=0.1 if rough else 0.01)
        assert epoch.held_out_loss == pytest.approx(other.held_out_loss, rel=0.1 if rough else 0.01)
    assert history.epochs[-1].loss < history.epochs[0].loss
    agreed = sum(a == b for a, b in zip(answers, answered, strict=True))
    assert agreed >= len(answers) * (0.7 if rough else 0.95)


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU it is there")
def test_sharing_out_without_a_gpu_is_the_cpu() -> None:
    settings = {"checkpoint": str(ZOO / "tiny_llava"), "device": "auto", "dtype": "float32"}
    lvlm = Registry().create("model", "llava", settings).load()
    assert lvlm.device.type == "cpu"
    with torch.no_grad():
        losses = [m.losses(m.encode(samples())) for m in (lvlm, exact())]
    assert torch.equal(*losses)
