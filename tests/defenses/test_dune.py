"""dune: a colour of each class and noise of each picture, both towards the label three classes further."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from small_samples import mixed_samples
from tiny_models import tiny_random_llava

from arena.budget import Budget
from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.kit.material import plain
from arena.lvlm.perturbation import planes
from arena.plugins.base import DefenderWorld
from arena.plugins.registry import Registry
from arena.release import build_release
from defenses.claims import changes
from defenses.classes import answer_classes
from defenses.dune import DualBranch, as_it_is, coloured, local_means, penalty, shifted_labels, swarm
from defenses.surrogate import Surrogate

ANSWERS = ("ant", "bear", "cat", "dog", "eel")
QUICK: dict[str, Any] = {
    **{"clean_steps": 6, "batch_size": 10, "models": 2, "rank": 2, "learning_rate": 1e-2, "pgd_steps": 8, "step": 1.0},
    **{"particles": 6, "iterations": 5, "pictures": 2},
}


def world(image: float = 8) -> DefenderWorld:
    return DefenderWorld(Budget(image=image), 0, lambda: (tiny_random_llava(),))


def release(samples: Sequence[Sample], image: float = 8, **config: Any) -> list[Sample]:
    made = Registry().create("defense", "dune", {**QUICK, **config})
    return build_release(samples, made.protect(samples, world(image)), world(image).budget)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """Two of each of five answers."""
    return [replace(s, answer=ANSWERS[2 * i % 5]) for i, s in enumerate(plain(10, seed=2))]


@pytest.fixture(scope="module")
def models(samples: list[Sample]) -> list[Surrogate]:
    return DualBranch(DualBranch.Config(**QUICK))._models(samples, shifted_labels(samples, 0), world())


@pytest.fixture(scope="module")
def tinted(samples: list[Sample]) -> list[Sample]:
    """With colours alone."""
    return release(samples, colour=1.0)


@pytest.fixture(scope="module")
def noisy(samples: list[Sample]) -> list[Sample]:
    """With noise alone."""
    return release(samples, colour=0.0)


@pytest.fixture(scope="module")
def both(samples: list[Sample]) -> list[Sample]:
    return release(samples)


@torch.no_grad()
def loss(models: Sequence[Surrogate], images: Sequence[Image.Image]) -> float:
    """Of the shifted labels."""
    shown = [planes(image) for image in images]
    return float(np.mean([m.lvlm.losses(m.encode(range(len(shown)), shown)).mean().item() for m in models]))


@pytest.mark.parametrize(("count", "shift"), [(2, 1), (3, 1), (4, 3), (5, 3), (6, 3)])
def test_labels_are_those_of_three_classes_further_and_never_the_own(count: int, shift: int) -> None:
    answers = ("ant", "bear", "cat", "dog", "eel", "fox")[:count]
    samples = [replace(s, answer=answers[i % count]) for i, s in enumerate(plain(2 * count))]
    wanted = [answers[(i + shift) % count] for i in range(2 * count)]
    assert [s.answer for s in shifted_labels(samples, 0)] == wanted


def test_one_answer_is_refused() -> None:
    with pytest.raises(ArenaError, match="dune: all samples have one answer"):
        release([replace(s, answer="ant") for s in plain(3)])


def test_the_swarm_finds_what_costs_least_and_keeps_it() -> None:
    goal, seen = np.array([0.03, -0.05, 0.01]), list[float]()

    def cost(colour: np.ndarray) -> float:
        seen.append(float(np.square(colour - goal).sum()))
        return seen[-1]

    found = swarm(cost, 0.1, 10, 10, np.random.default_rng(0))
    assert len(seen) == 100 and np.square(found - goal).sum() == min(seen) < 0.2 * min(seen[:10])
    near = swarm(cost, 0.02, 10, 10, np.random.default_rng(0))
    assert np.abs(near).max() <= 0.02 and np.abs(near - goal.clip(-0.02, 0.02)).max() < 0.01


@pytest.mark.parametrize("size", [(20, 23), (7, 7), (5, 40), (4, 3)])
def test_the_penalty_is_of_psnr_and_ssim(size: tuple[int, int]) -> None:
    dark, colour = 0.02 * np.random.default_rng(0).random((*size, 3)), np.array([0.04, 0.01, 0.15])
    window = min(7, *(side - 1 + side % 2 for side in size))
    ssim = structural_similarity(dark, dark + colour, win_size=window, data_range=1, channel_axis=2)
    psnr = peak_signal_noise_ratio(dark, dark + colour, data_range=1)
    local = [local_means(torch.from_numpy(dark).permute(2, 0, 1))]
    assert psnr > 20 and ssim < 0.6 and penalty(colour, local) == pytest.approx(0.8 - ssim, abs=1e-4)
    bright = [local_means(torch.full((3, *size), 0.6))]
    assert penalty(colour / 2, bright) == 0 and penalty(np.full(3, 0.2), bright) == pytest.approx(20 - 13.979, abs=1e-2)
    assert penalty(np.zeros(3), local) == pytest.approx(0)


def test_models_are_states_of_one_training_and_their_frozen_weights_lie_in_memory_once(samples: list[Sample]) -> None:
    config = DualBranch.Config(**{**QUICK, "models": 3})
    surrogate = Surrogate.start(tiny_random_llava(), samples, config)
    batch = surrogate.encode([0, 1], [planes(s.image) for s in samples[:2]])
    kept = as_it_is(surrogate, samples)
    before = surrogate.lvlm.losses(batch).detach()
    surrogate.train_step(range(10), lambda part: [planes(samples[i].image) for i in part])
    assert torch.equal(kept.lvlm.losses(batch), before) and not torch.equal(surrogate.lvlm.losses(batch), before)
    of = dict(surrogate.lvlm.model.named_parameters())
    apart = {name for name, p in kept.lvlm.model.named_parameters() if p.data_ptr() != of[name].data_ptr()}
    assert apart == {name for name, p in of.items() if p.requires_grad}
    states = DualBranch(config)._models(samples, samples, world())
    shown = [planes(s.image) for s in samples]
    losses = [s.lvlm.losses(s.encode(range(10), shown)).mean().item() for s in states]
    assert len(losses) == 3 and losses[0] > losses[1] > losses[2]


def test_a_colour_is_one_of_its_class_on_every_pixel(samples: list[Sample], tinted: list[Sample]) -> None:
    found = [delta.reshape(-1, 3) for delta in changes(samples, tinted)]
    assert all((delta == delta[0]).all() and delta.any() for delta in found)
    colours = [tuple(delta[0]) for delta in found]
    assert colours[:5] == colours[5:] and len(set(colours)) > 2


def test_the_colour_alone_leads_to_the_shifted_label(
    samples: list[Sample], tinted: list[Sample], models: list[Surrogate]
) -> None:
    """Nearer than the originals, than other colours of the same size, and than the colours of other classes."""
    crafted = loss(models, [s.image for s in tinted])
    rng = np.random.default_rng(0)
    colours = np.stack([delta[0, 0] for delta in changes(samples, tinted)])[:5]
    others = [colours * rng.choice((-1, 1), colours.shape) for _ in range(12)]
    turned = [np.roll(colours, by, 0) for by in (1, 2, 3, 4)]

    def shown(given: np.ndarray) -> float:
        values = [np.asarray(s.image) + given[i % 5] for i, s in enumerate(samples)]
        return loss(models, [Image.fromarray(x.astype(np.uint8)) for x in values])

    assert shown(colours) == pytest.approx(crafted)
    assert crafted < loss(models, [s.image for s in samples])
    assert crafted < min(map(shown, turned)) and crafted < np.mean([*map(shown, others)]) - np.std(
        [*map(shown, others)]
    )


def test_both_branches_keep_their_shares_of_the_budget(
    samples: list[Sample], noisy: list[Sample], models: list[Surrogate]
) -> None:
    config = {**QUICK, "colour": 0.25, "step": 4.0}
    made, classes = DualBranch(DualBranch.Config(**config)), answer_classes(samples, 0)
    colours = 255 * made._colours(samples, models, 2 / 255, world()).numpy()
    assert np.abs(colours).max() <= 2 + 1e-4
    for kind, delta in zip(classes, changes(samples, release(samples, **config)), strict=True):
        noise = delta - colours[kind]
        assert 5.4 < np.abs(noise).max() <= 6.5 and np.abs(delta).max() <= 8
    only = changes(samples, noisy)
    assert max(np.abs(delta.mean((0, 1))).max() for delta in only) < 2 < max(np.abs(delta).max() for delta in only)


def test_noise_and_both_lead_to_the_shifted_label(
    samples: list[Sample], noisy: list[Sample], both: list[Sample], models: list[Surrogate]
) -> None:
    clean, *crafted = (loss(models, [s.image for s in shown]) for shown in (samples, noisy, both))
    assert max(crafted) < clean


def test_the_claim_is_of_the_colour_too(samples: list[Sample], noisy: list[Sample], both: list[Sample]) -> None:
    plugin = DualBranch(DualBranch.Config(**QUICK))
    assert plugin.distinguished(samples, both, world()) is None
    assert "they should have one colour" in str(plugin.distinguished(samples, noisy, world()))


def test_any_size_and_mode_and_a_picture_with_several_answers() -> None:
    given = mixed_samples(5)
    given = [replace(s, answer=ANSWERS[i % 3]) for i, s in enumerate(given)]
    given.append(replace(given[0], id="again", answer=ANSWERS[1]))
    released = release(given, colour=1.0)
    assert released[0].image.tobytes() == released[-1].image.tobytes() != given[0].image.tobytes()
    grey = coloured(torch.full((1, 2, 2), 0.5), torch.tensor([0.1, 0.2, 0.0]))
    assert torch.allclose(grey, torch.full((1, 2, 2), 0.6))
