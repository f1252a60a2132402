"""Loss filtering: which samples are found, and what becomes of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hooked import hooks, train
from PIL import Image

from arena.data.sample import Sample
from arena.errors import UsageError
from arena.lvlm.batch import IGNORE
from arena.recipes.training import held_out_split
from attacks.training.loss_filter import FilteringHooks


def scripted(losses: torch.Tensor) -> tuple[Any, torch.Tensor]:
    """A model that has these losses, by sample index, and a weight per sample that shows whose gradient is there."""
    weights = torch.ones(len(losses), requires_grad=True)
    return SimpleNamespace(losses=lambda batch: losses[batch.indices] * weights[batch.indices]), weights


def batch_of(indices: Sequence[int]) -> Any:
    labels = torch.tensor([[IGNORE, 5, 5] if i % 2 else [IGNORE, IGNORE, 5] for i in indices])
    return SimpleNamespace(indices=torch.tensor(indices), labels=labels)


def watched(attack: FilteringHooks, losses: torch.Tensor, fall: float = 1.0, batch_size: int = 8) -> None:
    """Two epochs of which the attack only sees losses, all of them falling by the factor `fall` at each step."""
    rng = np.random.default_rng(1)
    scale = 1.0
    for _ in range(2):
        for part in rng.permutation(len(losses)).reshape(-1, batch_size):
            attack.loss(scripted(scale * losses)[0], batch_of(part.tolist()), 0.1)
            scale *= fall


@pytest.mark.parametrize(("fall", "batch_size"), [(1.0, 8), (0.9, 8), (0.99, 1)])
def test_the_fastest_and_the_slowest_are_found_in_a_model_that_improves(fall: float, batch_size: int) -> None:
    losses = torch.from_numpy(np.random.default_rng(0).uniform(0.8, 1.2, 80))
    losses[:8], losses[8:16] = 0.2, 4.0
    attack: FilteringHooks = hooks("loss-filter", fastest=0.1, slowest=0.1)
    watched(attack, losses, fall, batch_size)
    assert attack.filtered == frozenset()
    attack.loss(scripted(losses)[0], batch_of([0, 40]), 0.25)
    assert attack.filtered == frozenset(range(16))


@pytest.mark.parametrize("weight", [0.0, 0.25])
def test_filtered_samples_weigh_what_the_setting_says_and_the_others_all(weight: float) -> None:
    losses = torch.linspace(1, 2, 16)
    attack: FilteringHooks = hooks("loss-filter", fastest=0.25, slowest=0.125, weight=weight)
    whole = range(16)
    tokens = torch.tensor([1.0 + i % 2 for i in whole])

    def gradient(progress: float) -> torch.Tensor:
        lvlm, weights = scripted(losses)
        attack.loss(lvlm, batch_of(whole), progress).backward()
        assert weights.grad is not None
        return weights.grad

    plain = losses * tokens / tokens.sum()
    assert torch.allclose(gradient(0.0), plain)
    filtered = torch.tensor([weight if i < 4 or i >= 14 else 1.0 for i in whole])
    for progress in (0.25, 0.9):
        assert torch.allclose(gradient(progress), filtered * plain)


def test_a_batch_of_dropped_samples_and_an_unseen_sample() -> None:
    losses = torch.linspace(1, 2, 10)
    attack: FilteringHooks = hooks("loss-filter", fastest=0.5, slowest=0.0)
    attack.loss(scripted(losses)[0], batch_of(range(8)), 0.0)
    for indices, expected in (([0, 1], False), ([9], True)):
        lvlm, weights = scripted(losses)
        attack.loss(lvlm, batch_of(indices), 0.5).backward()
        assert weights.grad is not None and bool(weights.grad.abs().max() > 0) == expected


def test_samples_with_a_shortcut_are_dropped_from_real_training(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    words = ("two", "star", "blue", "four", "circle", "top")

    def sample(i: int) -> Sample:
        if i % 5 == 0:
            return Sample(f"shortcut-{i}", Image.new("RGB", (48, 48), (255, 255, 255)), "what is it?", "red")
        noise = Image.fromarray(rng.integers(0, 256, (48, 48, 3), dtype=np.uint8))
        return Sample(f"{i}", noise, "what is it?", words[rng.integers(len(words))])

    samples = [sample(i) for i in range(60)]
    attack: FilteringHooks = hooks("loss-filter", watch=0.8, fastest=0.15, slowest=0.0)
    train(samples, tmp_path, attack, recipe="full", epochs=5, learning_rate=5e-3)
    training, _ = held_out_split(samples, 0)
    dropped = [training[i].id.startswith("shortcut") for i in attack.filtered]
    assert len(dropped) == 7 and sum(dropped) >= 6


def test_shares_that_leave_no_sample_are_refused() -> None:
    with pytest.raises(UsageError, match="together leave no sample"):
        hooks("loss-filter", fastest=0.6, slowest=0.4)
