"""UEraser: its policy, and the choice of the worst draw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hooked import dropping, hooks, train
from tiny_models import tiny_random_llava

from arena.data.sample import Sample
from arena.lvlm.base import LVLM
from arena.lvlm.batch import IGNORE, Batch
from attacks.training.ueraser import UEraserHooks, worst


def test_augmented_pictures_keep_size_and_range_and_leave_the_global_generator_alone(unequal: list[Sample]) -> None:
    images = tiny_random_llava().encode(unequal).images
    state = torch.get_rng_state()
    attack: UEraserHooks = hooks("ueraser")
    changes: list[torch.Tensor] = []
    for _ in range(12):
        augmented = attack.augment(images)
        for before, after in zip(images, augmented, strict=True):
            assert after.shape == before.shape
            assert after.min() >= 0 and after.max() <= 1
            changes.append((after - before).abs().mean())
    assert torch.stack(changes).mean() > 0.1
    assert torch.equal(torch.get_rng_state(), state)
    again = hooks("ueraser")
    assert all(torch.equal(x, y) for x, y in zip(hooks("ueraser").augment(images), again.augment(images), strict=True))
    assert not torch.equal(again.augment(images)[0], hooks("ueraser").augment(images)[0])


@pytest.mark.parametrize(("config", "alone"), [({}, 0.5), ({"plasma": 1.0}, 0.0)], ids=str)
def test_the_policy_is_that_of_the_authors_for_general_use(config: dict[str, object], alone: float) -> None:
    """And for CIFAR-10, with plasma always."""
    brightness, contrast, shuffle, _ = hooks("ueraser", **config).policy
    said = [repr(part) for part in (brightness, contrast)]
    assert all("roughness=(0.3, 0.7)" in text for text in said) and "intensity=(0.5, 1.0)" in said[0]
    grey = torch.full((400, 3, 8, 8), 0.4) + 0.2 * torch.rand(8, 8, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    for part in (brightness, contrast):
        left = (part(grey) == grey).all((1, 2, 3)).float().mean()
        assert float(left) == pytest.approx(alone, abs=0.08)
    coloured = torch.rand(400, 3, 2, 2)
    left = (shuffle(coloured) == coloured).all((1, 2, 3)).float().mean()
    assert float(left) == pytest.approx(0.5 + 0.5 / 6, abs=0.08)  # a sixth of shuffles changes nothing


def test_the_loss_is_the_maximum_over_draws_per_sample_then_of_a_single_draw(glyphs: tuple[Sample, ...]) -> None:
    lvlm = tiny_random_llava()
    batch = lvlm.encode(glyphs[:6])
    tokens = (batch.labels != IGNORE).sum(1)

    def expected(draws: int) -> float:
        twin: UEraserHooks = hooks("ueraser")
        losses = [lvlm.losses(lvlm.with_images(batch, twin.augment(batch.images))) for _ in range(draws)]
        highest = torch.stack(losses).amax(0)
        return ((highest * tokens).sum() / tokens.sum()).item()

    for progress, draws in ((0.0, 5), (0.29, 5), (0.3, 1), (0.99, 1)):
        assert hooks("ueraser").loss(lvlm, batch, progress).item() == pytest.approx(expected(draws), rel=1e-5)
    assert expected(5) > expected(1)


def test_each_sample_gets_its_own_worst_picture(glyphs: tuple[Sample, ...]) -> None:
    lvlm = tiny_random_llava()
    batch = lvlm.encode(glyphs[:6])
    attack: UEraserHooks = hooks("ueraser")
    candidates = [attack.augment(batch.images) for _ in range(4)]
    losses = torch.stack([lvlm.losses(lvlm.with_images(batch, images)) for images in candidates])
    best = losses.argmax(0).tolist()
    chosen = worst(lvlm, batch, candidates)
    assert len(set(best)) > 1
    assert all(x is candidates[k][i] for i, (k, x) in enumerate(zip(best, chosen, strict=True)))


class Counting(UEraserHooks):
    """Counts the augmentations of each step."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.counts: list[int] = []

    def loss(self, lvlm: LVLM, batch: Batch, progress: float) -> torch.Tensor:
        self.counts.append(0)
        return super().loss(lvlm, batch, progress)

    def augment(self, images: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        self.counts[-1] += 1
        return super().augment(images)


def test_several_draws_in_the_first_part_of_training_only(glyphs: tuple[Sample, ...], tmp_path: Path) -> None:
    attack = Counting(3, 0.5, 0.5, torch.Generator().manual_seed(0))
    train(glyphs, tmp_path, attack)
    assert attack.counts == [3, 3, 3, 1, 1, 1]


def test_choosing_leaves_training_its_gradient_under_autocast(glyphs: tuple[Sample, ...]) -> None:
    lvlm = tiny_random_llava()
    batch = lvlm.encode(glyphs[:4])
    with torch.autocast("cpu", torch.bfloat16):
        hooks("ueraser").loss(lvlm, batch, 0.0).backward()
    query = lvlm.module(lvlm.language_model).layers[0].self_attn.q_proj.weight
    assert query.grad is not None and query.grad.abs().max() > 0


def test_the_worst_draw_is_the_worst_for_the_model_without_dropout(glyphs: tuple[Sample, ...]) -> None:
    lvlm = dropping()
    batch = lvlm.encode(glyphs[:4])
    candidates = [hooks("ueraser", seed).augment(batch.images) for seed in range(3)]
    state = torch.get_rng_state()
    chosen = [worst(lvlm, batch, candidates) for _ in range(4)]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(x is y for other in chosen for x, y in zip(chosen[0], other, strict=True))
