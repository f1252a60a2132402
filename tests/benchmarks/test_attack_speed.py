"""What training-time attacks cost on top of plain fine-tuning.

Ratios of interleaved runs on one thread; absolute times of a shared machine say little. `extra_info` holds the ratio
and what it should stay below.
"""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from arena.data.embedded.glyphs import Glyphs
from arena.data.sample import Sample
from arena.lvlm.base import LVLM
from arena.lvlm.batch import Batch
from arena.plugins.base import AttackerWorld, TrainingHooks
from arena.plugins.registry import Registry
from arena.recipes import training

SAMPLES, BATCH, STEPS = 128, 8, 3


@pytest.fixture(scope="module")
def samples() -> tuple[Sample, ...]:
    return Glyphs().load(SAMPLES, 0, 0, seed=5).train


class Clocked(TrainingHooks):
    """Notes when the first step begins: loading and preparing the model is no part of a step."""

    def __init__(self, inner: TrainingHooks) -> None:
        self.inner = inner
        self.start: float | None = None

    def loss(self, lvlm: LVLM, batch: Batch, progress: float) -> torch.Tensor:
        self.start = self.start or time.perf_counter()
        return self.inner.loss(lvlm, batch, progress)


def seconds(recipe: str, hooks: TrainingHooks, samples: tuple[Sample, ...], folder: Path) -> float:
    """Seconds of one epoch's training steps, without held-out evaluation."""
    torch.set_num_threads(1)
    lvlm = Registry().create("model", "tiny-llava", {}).load()
    plugin = Registry().create("recipe", recipe, {"epochs": 1, "batch_size": BATCH, "checkpoints": "best"})
    clocked = Clocked(hooks)
    training.fine_tune(lvlm, plugin, samples, 0, folder, clocked)
    assert clocked.start is not None
    return time.perf_counter() - clocked.start


@pytest.mark.parametrize("recipe", ["lora", "projector", "full"])
def test_adversarial_training_against_plain_fine_tuning(
    benchmark: BenchmarkFixture,
    samples: tuple[Sample, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    recipe: str,
) -> None:
    monkeypatch.setattr(training, "evaluate", lambda *args: (0.0, 0.0))
    attack = Registry().create("attack", "adv-train", {"steps": STEPS})

    def attacked() -> float:
        return seconds(recipe, attack.training(AttackerWorld(seed=0)), samples, tmp_path)

    def plain() -> float:
        return seconds(recipe, TrainingHooks(), samples, tmp_path)

    plain()  # warm-up: imports, and the resampling matrices
    ratio = median(attacked() / plain() for _ in range(3))
    benchmark.extra_info |= {
        f"adv-train with {STEPS} steps / plain {recipe}": round(ratio, 3),
        "below": (STEPS + 1) * 1.15,
    }
    benchmark.pedantic(attacked, rounds=1)
