"""style-eot: noise that raises the loss of fine-tuned models and gives pictures another style, through purifiers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_samples import mixed_samples
from tiny_models import tiny_random_llava
from torch import Tensor

import mmguard.purifiers
from arena.budget import Budget, colours
from arena.data.embedded.glyphs import Glyphs
from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.lvlm.base import LVLM
from arena.plugins.base import DefenderWorld
from arena.plugins.registry import Registry
from arena.release import build_release
from defenses.classes import aimed_at
from defenses.features import features
from defenses.style_eot import StyleEOT, moments, style
from defenses.surrogate import LearnerConfig, Surrogate

QUICK: dict[str, Any] = {"rounds": 3, "theta_steps": 2, "rank": 2, "batch_size": 6, "step": 2.0}


def world(seed: int = 0) -> DefenderWorld:
    return DefenderWorld(Budget(image=8), seed, lambda: (tiny_random_llava(),))


def release(samples: Sequence[Sample], **config: Any) -> list[Sample]:
    defense = Registry().create("defense", "style-eot", {**QUICK, **config})
    return build_release(samples, defense.protect(samples, world()), Budget(image=8))


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return list(Glyphs().load(12, 0, 0, seed=1).train)


@torch.no_grad()
def of_style(samples: Sequence[Sample], lvlm: LVLM) -> Tensor:
    """Mean and variance of features over tokens, ``(n, 2, d)``."""
    found = features(lvlm, lvlm.encode(samples)).unflatten(0, (len(samples), -1)).double()
    return torch.stack([found.mean(1), ((found - found.mean(1, keepdim=True)) ** 2).mean(1)], 1)


def apart(one: Tensor, other: Tensor) -> Tensor:
    return ((one - other) ** 2).mean(2).sum(1)


def test_the_style_leaves_the_pictures_own_for_the_targets(samples: list[Sample]) -> None:
    lvlm = tiny_random_llava()
    released = release(samples, style_weight=1000.0)
    clean, styled, plain = (of_style(x, lvlm) for x in (samples, released, release(samples, style_weight=0.0)))
    targets = clean[aimed_at(samples, False, 0)]

    def towards(found: Tensor) -> Tensor:
        """How far along the way from the own style to the target's, 0 to 1 and beyond."""
        way = (targets - clean).flatten(1)
        return ((found - clean).flatten(1) * way).sum(1) / (way**2).sum(1)

    assert (towards(styled) > 0.2).all()
    assert (towards(styled) > towards(plain) + 0.1).all()


def test_its_loss_is_that_of_answers_and_of_both_distances_of_the_style(samples: list[Sample]) -> None:
    surrogate = Surrogate.start(tiny_random_llava(), samples, LearnerConfig(rank=2, batch_size=6))
    noisy = build_release(samples, Registry().create("defense", "random").protect(samples, world()), Budget(image=8))
    (met,) = StyleEOT(StyleEOT.Config(style_weight=3.0))._met([surrogate], 0)
    own = tiny_random_llava()
    clean, found = of_style(samples, own), of_style(noisy, own)
    with torch.no_grad():
        answers = own.losses(own.encode(noisy)).double()
        given = met.lvlm.losses(met.lvlm.encode(noisy)).double()
        every = features(own, own.encode(samples)).unflatten(0, (len(samples), -1)).double()
    scale = (every**2).mean((1, 2)).sqrt()[:, None]
    powers = torch.cat([scale, scale**2], 1)[..., None]  # of means and of variances
    goals = clean[aimed_at(samples, False, 0)]
    styles = apart(found / powers, clean / powers) - apart(found / powers, goals / powers)
    torch.testing.assert_close(given, answers + 3 * styles, atol=1e-5, rtol=1e-4)


def test_noise_ascends_through_purifiers_that_are_there_unless_others_are_asked_for(
    samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str] = []
    purified = mmguard.purifiers.purified

    def noted(images: Sequence[Tensor], purifier: Any, turn: int, model: str | None) -> list[Tensor]:
        used.append(purifier)
        return purified(images, purifier, turn, model)

    monkeypatch.setattr(mmguard.purifiers, "purified", noted)
    release(samples[:6], rounds=1, theta_steps=1, pgd_steps=1)
    assert sorted(used) == ["blur", "jpeg"]
    used.clear()
    release(samples[:6], rounds=1, theta_steps=1, pgd_steps=1, purifiers=["grayscale"])
    assert used == ["grayscale"]


def test_the_claim_is_of_the_loss_and_of_the_style(samples: list[Sample]) -> None:
    defense = Registry().create("defense", "style-eot", QUICK)
    assert defense.distinguished(samples, release(samples, style_weight=30.0), world()) is None
    assert "it should be lower" in str(defense.distinguished(samples, samples, world()))
    # Noise that raises the loss and leads to another style
    other = [
        s.with_content(
            Image.fromarray(
                (2 * colours(s.image).astype(int) - colours(r.image).astype(int)).clip(0, 255).astype(np.uint8)
            ),
            s.question,
        )
        for s, r in zip(samples, release(samples, style_weight=1e6), strict=True)
    ]
    assert "it should be lower" in str(defense.distinguished(samples, other, world()))


def test_pictures_of_any_size_and_mode_and_of_one_class() -> None:
    given = mixed_samples(5)
    for before, after in zip(given, release(given, rounds=1, views=True), strict=True):
        change = np.abs(colours(after.image).astype(int) - colours(before.image))
        assert (after.image.size, after.image.mode) == (before.image.size, before.image.mode)
        assert 0 < change.max() <= 8
    with pytest.raises(ArenaError, match="all pictures have one answer"):
        release([Sample(s.id, s.image, s.question, "red") for s in given])


def test_moments_and_their_distance() -> None:
    one, other = torch.tensor([[1.0, 0], [3, 0]]), torch.tensor([[2.0, 4], [2, 0]])
    assert moments(one).tolist() == [[2, 0], [1, 0]]
    assert moments(other).tolist() == [[2, 2], [0, 4]]
    assert float(style(moments(one), moments(other), 2.0)) == pytest.approx((0 + 4) / 2 / 4 + (1 + 16) / 2 / 16)
    assert float(style(moments(one), moments(one), 0.1)) == 0
