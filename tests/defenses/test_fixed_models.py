"""hypo and tap: noise through a model that has learned the clean data and stays as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
from defenses.augmentation import SHIFT, shifted
from defenses.noise import Noise
from defenses.surrogate import LearnerConfig, Surrogate, trained
from defenses.tap import TargetedPoisons, aimed
from mmguard.settings import Pictures

LEARNED: dict[str, Any] = {"clean_steps": 40, "batch_size": 8, "rank": 4}


def world(surrogates: int = 1) -> DefenderWorld:
    """With models that know pictures: random ones would not learn a clan in a few steps."""
    registry = Registry()
    return DefenderWorld(
        Budget(image=8), 0, lambda: tuple(registry.create("model", "tiny-llava").load() for _ in range(surrogates))
    )


def release(name: str, samples: Sequence[Sample], granted: DefenderWorld | None = None, **config: Any) -> list[Sample]:
    granted = granted or world()
    made = Registry().create("defense", name, config).protect(samples, granted)
    return build_release(samples, made, granted.budget)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return list(Glyphs().load(18, 0, 0, seed=1).train)


@pytest.fixture(scope="module")
def learned(samples: list[Sample]) -> Surrogate:
    (surrogate,) = trained(samples, world(), LearnerConfig(batch_size=8, rank=4), 40)
    return surrogate


def loss(surrogate: Surrogate, pictures: Sequence[Sample], answers: Sequence[Sample]) -> float:
    asked = [a.with_content(p.image, a.question) for p, a in zip(pictures, answers, strict=True)]
    with torch.no_grad():
        return float(surrogate.lvlm.losses(surrogate.lvlm.encode(asked)).mean())


def test_a_trained_surrogate_has_learned_the_pictures_and_learns_no_more(samples: list[Sample]) -> None:
    errors = []
    for steps in (1, 40):
        granted = world()
        (surrogate,) = trained(samples, granted, LearnerConfig(batch_size=8, rank=4), steps)
        errors.append(granted.diagnostics["surrogate_error"])
        assert not surrogate.lvlm.model.training
        assert not any(p.requires_grad for p in surrogate.lvlm.model.parameters())
    assert errors[1] < errors[0]


def test_hypo_descends_on_the_model_that_has_learned(samples: list[Sample], learned: Surrogate) -> None:
    """Not on the one before, whose noise lowers the loss of the learned one by less."""
    settings = {"pgd_steps": 6, "batch_size": 8, "rank": 4}
    clean = loss(learned, samples, samples)
    through_it = loss(learned, release("hypo", samples, clean_steps=40, **settings), samples)
    before = loss(learned, release("hypo", samples, clean_steps=1, **settings), samples)
    assert through_it < clean and clean - through_it > 1.2 * (clean - before)


def test_tap_leads_the_learned_model_to_the_next_class_and_hypo_to_the_own(
    samples: list[Sample], learned: Surrogate
) -> None:
    targets = aimed(samples, 0)
    tap = release("tap", samples, pgd_steps=12, step=1.6, **LEARNED)
    hypo = release("hypo", samples, pgd_steps=12, **LEARNED)
    assert loss(learned, tap, targets) < loss(learned, samples, targets) < loss(learned, hypo, targets)
    assert loss(learned, hypo, samples) < loss(learned, samples, samples) < loss(learned, tap, samples)


def test_the_next_class_is_never_the_own_and_its_most_frequent_answer_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.new("RGB", (8, 8))
    answers = ("Fox", "fox", "fox", "bear", "owl", "owl")
    samples = [Sample(str(i), image, "which clan?", a) for i, a in enumerate(answers)]
    assert [s.answer for s in aimed(samples, 0)] == ["owl", "owl", "owl", "fox", "bear", "bear"]
    with pytest.raises(ArenaError, match="no other one to aim at"):
        aimed(samples[:3], 0)
    monkeypatch.setattr("defenses.classes.MOST_CLASSES", 3)
    many = [Sample(str(i), image, "?", f"answer number {i}") for i in range(9)]
    targets = aimed(many, 0)
    assert all(a.answer != b.answer for a, b in zip(many, targets, strict=True))
    assert len({s.answer for s in targets}) == 3


def test_steps_of_tap_shrink_three_times() -> None:
    made = TargetedPoisons(TargetedPoisons.Config(pgd_steps=16, step=0.51, decay=0.5)).steps()
    levels = [0.51] * 6 + [0.255] * 4 + [0.1275] * 4 + [0.06375] * 2
    assert [255 * step for step in made] == pytest.approx(levels)
    assert len(set(TargetedPoisons(TargetedPoisons.Config(decay=1)).steps())) == 1


def test_shifted_pictures_keep_their_size_and_repeat_their_edges() -> None:
    generator = torch.Generator().manual_seed(0)
    rows, columns = torch.arange(16.0)[:, None].expand(16, 24), torch.arange(24.0).expand(16, 24)
    x = torch.stack((rows, columns, rows)).requires_grad_()
    seen = set()
    for _ in range(60):
        moved = shifted(x, SHIFT, generator)
        down, right = round(moved[0, 8, 0].item() - 8), round(moved[1, 0, 12].item() - 12)
        seen.add((down, right))
        assert torch.equal(moved[0, :, 0], (torch.arange(16.0) + down).clamp(0, 15))
        assert torch.equal(moved[1, 0], (torch.arange(24.0) + right).clamp(0, 23))
    assert {d for d, _ in seen} == set(range(-2, 3)) and {r for _, r in seen} == set(range(-3, 4))
    (gradient,) = torch.autograd.grad(shifted(x, SHIFT, generator).sum(), x)
    assert gradient.sum() == x.numel()
    assert torch.equal(shifted(x, 0, generator), x)
    tiny = torch.rand(3, 1, 5)
    assert shifted(tiny, SHIFT, generator).shape == tiny.shape


def test_several_surrogates_are_descended_on_together(samples: list[Sample]) -> None:
    """The steps are those against the sum of their gradients: twice the same model is once that model."""
    config: dict[str, Any] = {"clean_steps": 2, "pgd_steps": 3, "batch_size": 8}
    settings = LearnerConfig(batch_size=8, rank=4)
    kept = []
    for count in (1, 2):
        several = [trained(samples, world(), settings, 3)[0] for _ in range(count)]
        noise = Noise(samples, 8 / 255, 8, near=False)
        noise.descend(several, [1 / 255] * 3, Pictures())
        kept.append(noise.shown(range(len(samples))))
    assert all(torch.equal(a, b) for a, b in zip(*kept, strict=True))
    alone, both = (release("hypo", samples, world(count), **config) for count in (1, 2))
    assert [s.image.tobytes() for s in alone] != [s.image.tobytes() for s in both]  # their adapters differ


def test_noise_starts_where_it_is_told_within_ball_and_picture() -> None:
    mixed = mixed_samples(5)
    noise = Noise(mixed, 4 / 255, 8, near=False)
    generator = torch.Generator().manual_seed(0)
    noise.start(lambda shape: 3 * torch.randn(shape, generator=generator))
    for i, x in enumerate(noise.shown(range(5))):
        delta = noise.of_sample(i)
        assert 255 * delta.abs().max() <= 4.001 and delta.abs().mean() > 2 / 255
        assert x.min() >= 0 and x.max() <= 1
