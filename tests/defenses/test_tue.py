"""tue: noise off which the class is read, whatever the picture, and which spares a learner without labels that."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_samples import mixed_samples
from tiny_models import tiny_random_llava
from torch import Tensor

from arena.budget import Budget
from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.kit.material import plain
from arena.plugins.base import DefenderWorld
from arena.plugins.registry import Registry
from arena.release import build_release
from defenses.claims import changes
from defenses.classes import picture_classes
from defenses.noise import Noise
from defenses.tue import DrawnAnew, TransferableExamples, contrast, discriminant, views
from mmguard.settings import Pictures

QUICK: dict[str, Any] = {"rounds": 3, "theta_steps": 1, "rank": 2, "pgd_steps": 4, "step": 4.0, "batch_size": 6}


def release(samples: Sequence[Sample], **config: Any) -> list[Sample]:
    world = DefenderWorld(Budget(image=8), 0, lambda: (tiny_random_llava(),))
    made = Registry().create("defense", "tue", {**QUICK, **config})
    return build_release(samples, made.protect(samples, world), world.budget)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return plain(18, seed=2)


@pytest.fixture(scope="module")
def released(samples: list[Sample]) -> list[Sample]:
    return release(samples)


@pytest.fixture(scope="module")
def without(samples: list[Sample]) -> list[Sample]:
    """Of the self-supervised loss alone."""
    return release(samples, separability=0.0)


def noise(before: Sequence[Sample], after: Sequence[Sample]) -> Tensor:
    return torch.stack([torch.from_numpy(delta).double().flatten() for delta in changes(before, after)])


def separability(before: Sequence[Sample], after: Sequence[Sample]) -> float:
    return float(discriminant(noise(before, after), torch.from_numpy(picture_classes(before, False, 0))))


def test_the_discriminant_is_by_hand() -> None:
    found = torch.randn(9, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    classes = torch.tensor([0, 2, 5, 0, 2, 5, 0, 2, 2])
    means = {k: found[classes == k].mean(0) for k in (0, 2, 5)}
    sigma = {k: np.mean([math.dist(x, means[k]) for x in found[classes == k]]) for k in means}
    pairs = [(i, j) for i in means for j in means if i != j]
    wanted = np.mean([(sigma[i] + sigma[j]) / math.dist(means[i], means[j]) for i, j in pairs])
    assert float(discriminant(found, classes)) == pytest.approx(wanted, rel=1e-4)


def test_the_discriminant_falls_where_classes_come_together_and_where_they_come_apart() -> None:
    found = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    classes = torch.tensor([0, 1] * 4)
    means = torch.stack([found[classes == k].mean(0) for k in (0, 1)])[classes]
    before = discriminant(found, classes)
    assert discriminant(means + 0.5 * (found - means), classes) < 0.6 * before
    assert discriminant(found + 2 * means, classes) < 0.6 * before
    leaf = found.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminant(leaf, classes), leaf)
    inwards = (gradient * (found - means)).sum(1)
    assert all(inwards[classes == k].sum() > 0.1 for k in (0, 1))  # by the sigmas: means move all alike


@pytest.mark.parametrize("classes", [[0, 0, 0], [0, 1, 2], [0, 1, 1]])
def test_the_discriminant_of_equal_noise_has_a_finite_gradient(classes: list[int]) -> None:
    leaf = torch.zeros(3, 4, requires_grad=True)
    value = discriminant(leaf, torch.tensor(classes)) + 0 * leaf.sum()
    (gradient,) = torch.autograd.grad(value, leaf)
    assert gradient.isfinite().all() and value.item() == (len(set(classes)) > 1)


def test_the_loss_of_two_views_is_simclrs() -> None:
    one, other = torch.randn(2, 4, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = torch.cat([one, other])
    weights = [[math.exp(float(torch.cosine_similarity(a, b, 0)) / 0.5) for b in rows] for a in rows]
    terms = [-math.log(weights[i][(i + 4) % 8] / (sum(weights[i]) - weights[i][i])) for i in range(8)]
    wanted = [(terms[i] + terms[i + 4]) / 2 for i in range(4)]
    assert contrast(one, other, 0.5).tolist() == pytest.approx(wanted)
    assert contrast(one[:1], other[:1], 0.5).tolist() == [0]


def test_views_are_of_the_pictures_sizes_other_ones_each_and_the_seeds() -> None:
    images = [torch.rand(3, *size, generator=torch.Generator().manual_seed(1)) for size in ((9, 12), (1, 30), (9, 12))]
    leaves = [x.requires_grad_() for x in images]
    before = torch.random.get_rng_state()
    one, same, other = (views(leaves, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    for x, a, b, c in zip(images, one, same, other, strict=True):
        assert a.shape == x.shape and a.min() >= 0 and a.max() <= 1 and torch.equal(a, b) and not torch.equal(a, c)
    twice = views([images[0], images[0]], torch.Generator().manual_seed(0))
    assert not torch.equal(twice[0], twice[1])
    gradients = torch.autograd.grad(sum(x.square().sum() for x in one), leaves)  # type: ignore[arg-type]
    assert all(g.any() for g in gradients)


def test_the_noise_is_separable_by_class_because_of_the_discriminant(
    samples: list[Sample], released: list[Sample], without: list[Sample]
) -> None:
    """Without it the noises of a class are about as far from each other as from others."""
    found, plainly = separability(samples, released), separability(samples, without)
    assert found < 1 < plainly and found < 0.5 * plainly


def test_the_discriminant_is_of_the_noise_and_not_of_the_pictures() -> None:
    """Where nothing else counts, the noise is the same on whatever pictures."""
    one, other = plain(12, seed=2), plain(12, seed=3)
    found = [noise(samples, release(samples, separability=1e6)) for samples in (one, other)]
    assert (found[0] != found[1]).double().mean() < 0.01 < (found[0] != 0).double().mean()


def test_batches_are_drawn_anew_so_that_all_noises_of_a_class_come_together(
    samples: list[Sample], released: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = separability(samples, released)
    monkeypatch.setattr(DrawnAnew, "draw", lambda self, rng: None)
    assert drawn < 0.7 * separability(samples, release(samples))


def test_a_batch_has_all_samples_of_a_picture_and_a_pass_every_sample_once() -> None:
    samples = plain(11, seed=2)
    samples += [replace(samples[3], id="again", answer="two"), replace(samples[8], id="too", answer="six")]
    found = DrawnAnew(samples, 8 / 255, 4, False)
    rng, seen = np.random.default_rng(0), set()
    for _ in range(5):
        found.draw(rng)
        parts = found._parts
        assert sorted(i for part in parts for i in part) == list(range(13)) and max(map(len, parts)) <= 4
        assert all((3 in part) == (11 in part) and (8 in part) == (12 in part) for part in parts)
        seen.add(str(parts))
    assert len(seen) == 5


def test_noise_spares_a_learner_without_labels_the_pictures() -> None:
    """Training lowers the loss of two views, and so does noise after it, more than its random signs."""
    torch.manual_seed(0)
    samples = plain(8, seed=2)
    classes = picture_classes(samples, False, 0)
    config = TransferableExamples.Config(**{**QUICK, "separability": 0, "learning_rate": 1e-2})
    lvlm, generator = tiny_random_llava(), torch.Generator().manual_seed(0)
    surrogate = TransferableExamples(config)._surrogate(lvlm, samples, classes, generator)
    kept = Noise(samples, 32 / 255, 8, False)

    @torch.no_grad()
    def loss() -> float:
        generator.manual_seed(7)  # the same views each time
        batch = surrogate.encode(range(8), kept.shown(range(8)))
        return float(np.mean([float(surrogate.lvlm.losses(batch).mean()) for _ in range(20)]))

    before = loss()
    for _ in range(20):
        surrogate.train_step(range(8), kept.shown)
    learned = loss()
    kept.descend([surrogate], [4 / 255] * 20, Pictures())
    crafted = loss()
    kept.start(lambda shape: 2.0 * torch.randint(2, shape, generator=generator) - 1)
    assert learned < before - 0.05 and crafted < min(learned, loss()) - 0.05


def test_the_surrogate_learns_between_turns_of_the_noise() -> None:
    samples = plain(6, seed=2)
    settings = {"separability": 0.0, "theta_steps": 3}
    trained, barely = (release(samples, **settings, learning_rate=rate) for rate in (1e-2, 1e-12))
    assert any(a.image.tobytes() != b.image.tobytes() for a, b in zip(trained, barely, strict=True))


def test_a_picture_with_several_answers_is_one_picture_of_the_first_ones_class() -> None:
    samples = plain(6, seed=2)
    asked_again = [*samples, replace(samples[0], id="again", answer="bear")]
    released = release(asked_again)
    assert released[0].image.tobytes() == released[-1].image.tobytes() != samples[0].image.tobytes()
    with pytest.raises(ArenaError, match="tue: all pictures have one answer"):
        release([samples[0], replace(samples[0], id="again", answer="bear")])


def test_pictures_of_any_size_and_cut_ones_have_separable_noise() -> None:
    given = [*mixed_samples(5), Sample("wide", Image.new("RGB", (90, 30), (120, 90, 100)), "what?", "fox")]
    released = release(given, views=True)
    assert all(delta.any() for delta in changes(given, released))


def test_the_claim_is_of_the_discriminant(samples: list[Sample], released: list[Sample], without: list[Sample]) -> None:
    plugin, world = TransferableExamples(), DefenderWorld(Budget(image=8), 0)
    assert plugin.distinguished(samples, released, world) is None
    said = plugin.distinguished(samples, without, world)
    assert said is not None and "it should be lower, and below 1" in said
