"""pil: noise off which a linear classifier reads the class, and which leaves it nothing in the picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional as F

from arena.budget import Budget
from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.lvlm.perturbation import planes
from arena.plugins.base import DefenderWorld
from arena.plugins.registry import Registry
from arena.release import build_release
from defenses.flat import several_classes
from defenses.pil import Linear, PerturbationInducedLinearization, terms

ANSWERS = ("fox", "owl", "bear")
CONFIG: dict[str, Any] = {"train_steps": 200, "pgd_steps": 12}


def pictures(count: int, size: tuple[int, int] = (16, 12), seed: int = 0) -> list[Sample]:
    """Noise, brighter in one of three bands, which tells the answer as a rule."""
    rng = np.random.default_rng(seed)
    samples = []
    for i in range(count):
        values = rng.integers(50, 180, (size[1], size[0], 3))
        values[i % 3 :: 3] += 25
        samples.append(Sample(str(i), Image.fromarray(values.astype(np.uint8)), "which clan?", ANSWERS[i % 3]))
    return samples


def world(seed: int = 0) -> DefenderWorld:
    """No surrogate is granted, so that none is asked for."""
    return DefenderWorld(Budget(image=8), seed)


def release(samples: Sequence[Sample], seed: int = 0, **config: Any) -> list[Sample]:
    defense = Registry().create("defense", "pil", {**CONFIG, **config})
    return build_release(samples, defense.protect(samples, world(seed)), world().budget)


def classifier(samples: Sequence[Sample]) -> tuple[Linear, Tensor]:
    config = PerturbationInducedLinearization.Config(**CONFIG)
    classes = several_classes(samples, 0, "pil")
    return Linear.trained(samples, classes, config, world()), classes


def taken_away(before: Sequence[Sample], after: Sequence[Sample]) -> list[Tensor]:
    return [planes(a.image) - planes(b.image) for a, b in zip(before, after, strict=True)]


def test_the_terms_are_the_papers() -> None:
    samples = pictures(6)
    seen, classes = classifier(samples)
    clean = [planes(s.image) for s in samples]
    noise = [0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1)) for x in clean]
    told, left = terms(seen(clean), seen(noise), classes)
    assert told.item() == pytest.approx(F.cross_entropy(seen(noise), classes, reduction="sum").item())
    even = torch.full((6, 3), 1 / 3)
    shown = seen([x - d for x, d in zip(clean, noise, strict=True)])
    apart = F.kl_div(shown.log_softmax(1), even, reduction="sum").item()
    assert left.item() == pytest.approx(apart + 6 * np.log(3), rel=1e-4)


def test_the_class_is_read_off_what_is_subtracted() -> None:
    samples = pictures(36)
    released = release(samples)
    seen, classes = classifier(samples)
    subtracted = taken_away(samples, released)
    assert (seen(subtracted).argmax(1) == classes).float().mean() > 0.9
    assert (seen([-d for d in subtracted]).argmax(1) == classes).float().mean() < 0.1
    noise = torch.stack([d.flatten() for d in subtracted]).numpy()
    learner = LogisticRegression(max_iter=1000).fit(noise[:18], classes[:18])
    assert learner.score(noise[18:], classes[18:]) > 0.9


def test_with_all_weight_on_it_nothing_is_left_in_the_picture() -> None:
    samples = pictures(24)
    seen, _ = classifier(samples)

    def from_even(shown: Sequence[Sample]) -> float:
        logits = seen([planes(s.image) for s in shown])
        return float(-logits.log_softmax(1).mean())

    hidden = release(samples, shortcut=0.0)
    assert from_even(hidden) < from_even(release(samples, shortcut=1.0))
    assert from_even(hidden) - np.log(3) < 0.6 * (from_even(samples) - np.log(3))


def test_steps_make_the_noise_tell_more() -> None:
    samples = pictures(20)
    seen, classes = classifier(samples)
    few, many = (seen(taken_away(samples, release(samples, pgd_steps=steps))) for steps in (1, 12))
    assert F.cross_entropy(many, classes) < F.cross_entropy(few, classes)


def test_pictures_of_other_sizes_are_seen_at_the_size_that_most_have() -> None:
    samples = [*pictures(9), *pictures(3, (7, 30), seed=1), *pictures(3, (500, 20), seed=2)]
    samples = [Sample(str(i), s.image, s.question, s.answer) for i, s in enumerate(samples)]
    released = release(samples)
    seen, classes = classifier(samples)
    assert (seen(taken_away(samples, released)).argmax(1) == classes).float().mean() > 0.8
    wide = pictures(6, (448, 10))
    assert classifier(wide)[0]([planes(wide[0].image)]).shape == (1, 3)


def test_samples_that_show_one_picture_share_its_noise() -> None:
    samples = pictures(8)
    asked_again = Sample("again", samples[0].image, "and its foe?", ANSWERS[2])
    released = release([*samples, asked_again])
    assert released[0].image.tobytes() == released[-1].image.tobytes() != samples[0].image.tobytes()


def test_one_answer_is_refused() -> None:
    samples = [Sample(s.id, s.image, s.question, "fox") for s in pictures(3)]
    with pytest.raises(ArenaError, match="all samples have one answer"):
        release(samples)
