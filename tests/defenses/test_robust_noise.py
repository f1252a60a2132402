"""rem and sem: noise that lowers the loss also of pictures that are shifted and perturbed against it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import tiny_random_llava
from torch import Tensor

from arena.budget import Budget
from arena.data.embedded.glyphs import Glyphs
from arena.data.sample import Sample
from arena.lvlm.base import LVLM
from arena.plugins.base import DefenderWorld
from arena.plugins.registry import Registry
from arena.release import build_release
from defenses.augmentation import SHIFT, shifted
from defenses.noise import Loss
from defenses.rem import RobustErrorMinimizing, uniform
from defenses.sem import StableErrorMinimizing

ROUND: dict[str, Any] = {"rounds": 1, "theta_steps": 1, "batch_size": 6, "rank": 2}
RADIUS = 4 / 255


def release(name: str, samples: Sequence[Sample], **config: Any) -> list[Sample]:
    world = DefenderWorld(Budget(image=8), 0, lambda: (tiny_random_llava(),))
    return build_release(
        samples, Registry().create("defense", name, {**ROUND, **config}).protect(samples, world), world.budget
    )


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return list(Glyphs().load(6, 0, 0, seed=1).train)


def asked(lvlm: LVLM, samples: Sequence[Sample]) -> tuple[list[Tensor], Loss]:
    batch = lvlm.encode(samples)
    return list(batch.images), lambda images: lvlm.losses(lvlm.with_images(batch, images)).sum()


def test_da_raises_the_loss_within_its_radius(samples: list[Sample]) -> None:
    images, loss = asked(tiny_random_llava(), samples)
    made = RobustErrorMinimizing(RobustErrorMinimizing.Config(inner_steps=10))
    worst = made._raised(images, loss, RADIUS, torch.Generator().manual_seed(0))
    at_random = [x + uniform(x, RADIUS, torch.Generator().manual_seed(0)) for x in images]
    for x, other in zip(images, worst, strict=True):
        assert (other - x).abs().mean() > RADIUS / 2 and (other - x).abs().max() < RADIUS + 1e-6
        assert other.min() >= 0 and other.max() <= 1
    with torch.no_grad():
        assert loss(worst) > max(loss(images), loss(at_random))


def test_sem_meets_even_noise_of_the_same_radius_drawn_anew(samples: list[Sample]) -> None:
    images, loss = asked(tiny_random_llava(), samples)
    grey = [torch.full_like(x, 0.5) for x in images]
    made, generator = StableErrorMinimizing(), torch.Generator().manual_seed(0)
    seen = [made._disturbed(grey, loss, RADIUS, generator) for _ in range(2)]
    first, second = ([y - x for x, y in zip(grey, shown, strict=True)] for shown in seen)
    for one, other in zip(first, second, strict=True):
        assert RADIUS * 0.99 < one.abs().max() < RADIUS + 1e-6 and one.abs().mean() == pytest.approx(
            RADIUS / 2, rel=0.05
        )
        assert not torch.equal(one, other)


def test_gradient_passes_by_da_as_if_it_were_given(samples: list[Sample]) -> None:
    images, loss = asked(tiny_random_llava(), samples)
    leaves = [x.clone().requires_grad_() for x in images]
    for made in (RobustErrorMinimizing(), StableErrorMinimizing()):
        seen = made._disturbed(leaves, loss, RADIUS, torch.Generator().manual_seed(0))
        gradients = torch.autograd.grad(torch.stack([x.sum() for x in seen]).sum(), leaves)
        assert all((g == 1).all() for g in gradients)


def disturbed_loss(samples: Sequence[Sample], answers: Sequence[Sample], steps: int) -> float:
    """Under shifts and da of so many steps, or random noise for none, by the model as it is; the mean of 4 draws."""
    images, loss = asked(
        tiny_random_llava(), [a.with_content(s.image, a.question) for s, a in zip(samples, answers, strict=True)]
    )
    generator = torch.Generator().manual_seed(9)
    config = {"inner_steps": steps} if steps else {}
    made = (RobustErrorMinimizing if steps else StableErrorMinimizing)(RobustErrorMinimizing.Config(**config))
    drawn = []
    for _ in range(4):
        moved = [shifted(x, SHIFT, generator) for x in images]
        drawn.append(loss(made._disturbed(moved, loss, RADIUS, generator)).item())
    return float(np.mean(drawn))


def test_noise_made_for_disturbed_pictures_serves_them_better_than_em(samples: list[Sample]) -> None:
    """Each against its own disturbance, at one size and number of steps."""
    steps = {"pgd_steps": 8, "step": 2.0}
    em = release("em", samples, **steps)
    for name, inner in (("rem", 5), ("sem", 0)):
        robust = release(name, samples, draws=3, inner_steps=5, **steps)
        clean, plain, own = (disturbed_loss(x, samples, inner) for x in (samples, em, robust))
        assert own < plain and own < clean, (name, clean, plain, own)
