"""feature-target: pictures that look like another class's to the vision tower."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_samples import mixed_samples

from arena.budget import Budget
from arena.data.embedded.glyphs import Glyphs
from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.plugins.base import DefenderWorld
from arena.plugins.registry import Registry
from arena.release import build_release
from defenses.classes import aimed_at
from defenses.feature_target import FeatureTarget
from defenses.features import features


def world(seed: int = 0) -> DefenderWorld:
    return DefenderWorld(Budget(image=8), seed, lambda: (Registry().create("model", "tiny-llava").load(),))


def release(name: str, samples: Sequence[Sample], **config: Any) -> list[Sample]:
    made = Registry().create("defense", name, config).protect(samples, world())
    return build_release(samples, made, world().budget)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return list(Glyphs().load(12, 0, 0, seed=1).train)


def seen(samples: Sequence[Sample]) -> torch.Tensor:
    """Features ``(n, tokens, d)``."""
    (lvlm,) = world().surrogates()
    with torch.no_grad():
        return features(lvlm, lvlm.encode(samples)).unflatten(0, (len(samples), -1))


def distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a - b).flatten(1).norm(dim=1)


def test_every_picture_looks_more_like_its_target_and_like_no_other_picture_as_much(samples: list[Sample]) -> None:
    targets = aimed_at(samples, False, 0)
    clean = seen(samples)
    crafted = seen(release("feature-target", samples, pgd_steps=20, batch_size=6))
    noisy = seen(release("random", samples))
    goals = clean[targets]
    before = distances(clean, goals)
    assert (distances(crafted, goals) < 0.85 * before).all()
    assert (distances(crafted, goals) < distances(noisy, goals)).all()
    for place, target in enumerate(targets):  # of all pictures, the target has come nearest
        others = torch.stack(
            [
                distances(crafted[[place]], clean[[j]])[0] / distances(clean[[place]], clean[[j]])[0]
                for j in range(len(samples))
                if j != place
            ]
        )
        own = distances(crafted[[place]], clean[[target]])[0] / before[place]
        assert own <= others.min() + 1e-6


def test_more_steps_come_nearer(samples: list[Sample]) -> None:
    few = samples[:6]
    goals = seen(samples)[aimed_at(few, False, 0)]

    def left(steps: int) -> float:
        return float(distances(seen(release("feature-target", few, pgd_steps=steps, batch_size=6)), goals).mean())

    assert left(20) < left(2)


def test_a_class_has_one_target_of_another_class_that_the_seed_draws() -> None:
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for _ in range(12)]
    given = [Sample(str(i), x, "?", ("fox", "Owl", "owl", "bear")[i % 4]) for i, x in enumerate(pictures)]
    drawn = []
    for seed in range(20):
        targets = aimed_at(given, False, seed)
        assert targets == aimed_at(given, False, seed)
        assert all(given[t].answer.lower() != s.answer.lower() for s, t in zip(given, targets, strict=True))
        assert len({(s.answer.lower(), t) for s, t in zip(given, targets, strict=True)}) == 3
        drawn.append(targets[0])
    assert len(set(drawn)) > 4  # of nine pictures
    with pytest.raises(ArenaError, match="all pictures have one answer"):
        aimed_at(given[:1], False, 0)


def test_a_picture_with_several_answers_has_one_target_which_is_not_itself() -> None:
    first, second = mixed_samples(2)
    several = [first, replace(first, id="again", answer="seven"), second, replace(second, id="too", answer="eight")]
    for seed in range(6):
        targets = aimed_at(several, False, seed)
        assert targets[0] == targets[1] in (2, 3) and targets[2] == targets[3] in (0, 1)
    with pytest.raises(ArenaError, match="all pictures have one answer"):
        aimed_at(several[:2], False, 0)


def test_steps_are_shorter_by_as_much_each_time_from_the_radius_to_a_hundredth_of_it() -> None:
    steps = FeatureTarget(FeatureTarget.Config()).steps()
    assert len(steps) == 500 and steps[0] == 1
    assert np.diff(steps) == pytest.approx(np.full(499, -0.99 / 500))
    assert steps[-1] - 0.99 / 500 == pytest.approx(0.01)


def test_pictures_of_any_size_are_led_to_the_target_at_their_own() -> None:
    given = mixed_samples(5)
    plugin = Registry().create("defense", "feature-target", {"pgd_steps": 8, "batch_size": 3, "views": True})
    released = build_release(given, plugin.protect(given, world()), world().budget)
    assert plugin.distinguished(given, released, world()) is None
    assert plugin.distinguished(given, release("random", given), world()) is not None
    assert plugin.distinguished(given, release("hypo", given, clean_steps=8, pgd_steps=8), world()) is not None
