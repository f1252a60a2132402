"""Noise on disk is the noise that was put there."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from small_samples import mixed_samples
from tiny_models import tiny_random_llava

from arena.budget import Budget
from arena.errors import ArenaError
from arena.lvlm.base import LVLM
from arena.lvlm.batch import Batch
from arena.lvlm.perturbation import planes
from arena.plugins.base import DefenderWorld
from arena.plugins.registry import Registry
from defenses.perturbations import Perturbations


def test_perturbations_come_back_as_they_were() -> None:
    samples = mixed_samples(5)  # sizes and modes that differ
    for dtype in (torch.float32, torch.int16):
        kept = Perturbations(samples, dtype)
        values = [(torch.rand_like(planes(s.image)) * 99).to(dtype) for s in samples]
        for i, value in enumerate(values):
            assert kept[i].dtype == dtype and not kept[i].any()
            kept[i] = value
        for i, (sample, value) in enumerate(zip(samples, values, strict=True)):
            assert torch.equal(kept[i], value)
            if len(value) == 3:  # in memory as the picture's planes: rounding depends on it
                assert kept[i].stride() == planes(sample.image).stride()


ROUNDS = {"rounds": 2, "theta_steps": 3, "pgd_steps": 1}
ONCE = {"clean_steps": 3, "pgd_steps": 1}
ROBUST = {**ROUNDS, "draws": 1, "inner_steps": 1}
LEARNING = {
    "em": ROUNDS,
    "em-class": ROUNDS,
    "mem": ROUNDS,
    "hypo": ONCE,
    "tap": ONCE,
    "rem": ROBUST,
    "sem": ROBUST,
    "mi-ue": ROUNDS,
    "tue": ROUNDS,
    "dune": {**ONCE, "models": 1, "particles": 2, "iterations": 1},
}
"""Methods whose surrogate learns, with settings under which it learns a little."""


@pytest.mark.parametrize("name", LEARNING)
def test_a_surrogate_that_diverges_protects_nothing(name: str) -> None:
    """Its gradients would be NaN, by whose sign nothing moves, and nothing would say so."""
    settings = {**LEARNING[name], "learning_rate": 1e30}
    world = DefenderWorld(Budget(image=4, text=2), seed=0, surrogates=lambda: (tiny_random_llava(),))
    with pytest.raises(ArenaError, match="the surrogate's loss is NaN or infinite: the surrogate diverged"):
        list(Registry().create("defense", name, settings).protect(mixed_samples(4), world))  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", LEARNING)
def test_a_gradient_that_is_no_number_protects_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the loss is one, as in a type of few bits."""
    lvlm = tiny_random_llava()
    shown = type(lvlm).with_images

    def steep(self: LVLM, batch: Batch, images: Sequence[torch.Tensor]) -> Batch:
        return shown(self, batch, [x + 0 * (x - x.detach()).sqrt() for x in images])

    monkeypatch.setattr(type(lvlm), "with_images", steep)
    world = DefenderWorld(Budget(image=4, text=2), seed=0, surrogates=lambda: (lvlm,))
    with pytest.raises(ArenaError, match="the gradient in the pixels is NaN or infinite"):
        list(Registry().create("defense", name, LEARNING[name]).protect(mixed_samples(4), world))  # type: ignore[attr-defined]
