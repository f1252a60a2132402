"""anti-finetune: noise that raises the loss of models that have learned the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import tiny_random_llava
from torch import Tensor

from arena.budget import Budget, colours
from arena.data.embedded.glyphs import Glyphs
from arena.data.sample import Sample
from arena.lvlm.adapters import trainable
from arena.lvlm.perturbation import planes
from arena.plugins.base import DefenderWorld
from arena.plugins.registry import Registry
from arena.release import build_release
from defenses.surrogate import Images, LearnerConfig, Surrogate, trained

QUICK: dict[str, Any] = {"rounds": 4, "theta_steps": 3, "rank": 2, "batch_size": 6, "step": 2.0}


def world() -> DefenderWorld:
    return DefenderWorld(Budget(image=8), 0, lambda: (tiny_random_llava(),))


def release(samples: Sequence[Sample], **config: Any) -> list[Sample]:
    defense = Registry().create("defense", "anti-finetune", {**QUICK, **config})
    return build_release(samples, defense.protect(samples, world()), Budget(image=8))


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return list(Glyphs().load(12, 0, 0, seed=1).train)


def test_models_that_have_learned_the_data_err_more_on_the_release(samples: list[Sample]) -> None:
    """Than on the data, and than under random signs of the same noise."""
    released = release(samples)
    rng = np.random.default_rng(0)
    random = [
        s.with_content(
            Image.fromarray(
                np.clip(
                    colours(s.image)
                    + (colours(r.image).astype(int) - colours(s.image)) * rng.choice([-1, 1], colours(s.image).shape),
                    0,
                    255,
                ).astype(np.uint8)
            ),
            s.question,
        )
        for s, r in zip(samples, released, strict=True)
    ]
    (learned,) = trained(samples, world(), LearnerConfig(rank=2, batch_size=6), 10)
    with torch.no_grad():
        clean, noisy, ours = (
            learned.lvlm.losses(learned.lvlm.encode(x)).mean().item() for x in (samples, random, released)
        )
    assert ours > max(clean, noisy)


def test_a_copy_learns_the_clean_data_and_the_surrogate_what_is_protected(
    samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[tuple[bool, dict[str, Tensor]]] = []
    step = Surrogate.train_step

    def noted(self: Surrogate, indices: Sequence[int], images: Images) -> float:
        clean = all(torch.equal(x, planes(samples[i].image)) for x, i in zip(images(indices), indices, strict=True))
        turns.append((clean, {name: p.detach().clone() for name, p in trainable(self.lvlm).items()}))
        return step(self, indices, images)

    monkeypatch.setattr(Surrogate, "train_step", noted)
    release(samples, rounds=2)
    assert [clean for clean, _ in turns] == 2 * (3 * [True] + 3 * [False])

    def same(a: int, b: int) -> bool:
        return all(torch.equal(turns[a][1][name], turns[b][1][name]) for name in turns[a][1])

    assert same(0, 3) and same(6, 9), "the protected pictures are learned from where the copy set out"
    assert not same(3, 6) and not same(0, 1)


def test_noise_goes_on_from_round_to_round(samples: list[Sample]) -> None:
    def size(rounds: int) -> int:
        released = release(samples, rounds=rounds, pgd_steps=1)
        pairs = zip(samples, released, strict=True)
        return max(int(np.abs(colours(b.image).astype(int) - colours(a.image)).max()) for a, b in pairs)

    assert (size(1), size(3)) == (2, 6)
