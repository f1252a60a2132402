"""vtg: noise of a generator that follows labels, trained beside a model that also learns the data in other styles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from small_samples import mixed_samples, striped
from tiny_models import tiny_random_llava
from torch import Tensor, nn

import defenses.vtg
from arena.budget import Budget, colours
from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.kit.material import plain
from arena.lvlm.perturbation import planes
from arena.plugins.base import DefenderWorld
from arena.plugins.registry import Registry
from arena.release import build_release
from defenses import generators
from defenses.generators import class_means, seen
from defenses.surrogate import Surrogate
from defenses.uc import Seeing
from defenses.vtg import (
    Coupled,
    Twice,
    Versatile,
    estrange,
    in_place_of,
    label_embeddings,
    noise_network,
    painting,
    style_network,
    transport,
)

QUICK: dict[str, Any] = {
    **{"rounds": 2, "theta_steps": 2, "side": 24, "style_width": 2, "rank": 2, "batch_size": 6},
    **{"learning_rate": 1e-2, "theta_rate": 1e-4},
}


def world() -> DefenderWorld:
    return DefenderWorld(Budget(image=8), 0, lambda: (tiny_random_llava(),))


def release(samples: Sequence[Sample], granted: DefenderWorld, **config: Any) -> list[Sample]:
    made = Registry().create("defense", "vtg", {**QUICK, **config}).protect(samples, granted)
    return build_release(samples, made, granted.budget)


def noise_of(before: Sample, after: Sample) -> np.ndarray:
    return colours(after.image).astype(int) - colours(before.image)


def vtg(**config: Any) -> Versatile:
    return Versatile(Versatile.Config(**{**QUICK, **config}))


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return striped(12, seed=3)


@pytest.fixture(scope="module")
def crafted(samples: list[Sample]) -> list[Sample]:
    return release(samples, world(), rounds=50, theta_steps=1, learning_rate=3e-3)


@torch.no_grad()
def test_noise_alone_is_nearest_to_its_own_label(samples: list[Sample], crafted: list[Sample]) -> None:
    classes = np.unique([s.answer for s in samples], return_inverse=True)[1]
    model = Coupled.of(tiny_random_llava(), samples, classes)
    noise = {
        int(k): torch.from_numpy(noise_of(s, made)).permute(2, 0, 1) / 255
        for k, s, made in zip(classes, samples, crafted, strict=True)
    }
    assert sorted(noise) == [0, 1, 2]
    alone = model.seeing.pictures([0.5 + noise[k] for k in range(3)])
    told = torch.stack([-model.contrast(alone, [k] * 3) for k in range(3)], 1)
    grey = -model.contrast(model.seeing.pictures([torch.full((3, 48, 48), 0.5)] * 3), [0, 1, 2])
    assert told.argmax(0).tolist() == [0, 1, 2]  # no other noise leads to a label as much as its own
    assert (told.diag() > grey).all()


def test_the_model_learns_each_picture_in_two_styles_under_the_noise_of_the_round_before(
    samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[list[int], list[Tensor]]] = []
    noises = [torch.zeros(3, 3, 24, 24)]
    learn, means = Surrogate.train_step, class_means

    def train_step(self: Surrogate, part: Sequence[int], images: Any) -> float:
        steps.append((list(part), images(part)))
        assert [self.samples[i] for i in part] == 2 * [samples[i] for i in part[: len(part) // 2]]
        return learn(self, part, images)

    def spied(*args: Any) -> Tensor:
        noises.append(8 / 255 * means(*args))
        return means(*args)

    monkeypatch.setattr(Surrogate, "train_step", train_step)
    monkeypatch.setattr(defenses.vtg, "class_means", spied)
    release(samples, world())
    classes = np.unique([s.answer for s in samples], return_inverse=True)[1]
    assert len(steps) == 2 * 2
    for number, (part, images) in enumerate(steps):
        half, noise = len(part) // 2, noises[number // 2]
        assert part[half:] == [12 + i for i in part[:half]] and half == 6
        for i, plainly, painted in zip(part[:half], images[:half], images[half:], strict=True):
            own = generators.fitting(noise[classes[i]], plainly)
            clean = planes(samples[i].image)
            torch.testing.assert_close(plainly, (clean + own).clamp(0, 1))
            apart = (painted - own - clean).abs().mean()
            assert apart > 0.02  # another picture, under the same noise
    assert not noises[1].eq(0).all()


def test_other_styles_move_away_from_the_pictures() -> None:
    torch.manual_seed(0)
    styles, pictures, one = style_network(2), seen(striped(6, seed=1), 24), Seeing(tiny_random_llava())
    before = [p.clone() for p in one.lvlm.model.parameters()]
    optimizer = torch.optim.Adam(styles.parameters(), 1e-2)
    apart = [estrange(styles, optimizer, pictures, [one, one]) for _ in range(12)]
    assert apart[-1] > 1.2 * apart[0] > 0
    assert all(torch.equal(a, b) for a, b in zip(before, one.lvlm.model.parameters(), strict=True))
    with torch.no_grad():
        painted = painting(styles, pictures)
        alone = transport(one.pictures(list(pictures)), one.pictures(list(painted)))
    assert painted.shape == pictures.shape and painted.min() >= 0 and painted.max() <= 1
    assert 2 * float(alone) == pytest.approx(estrange(styles, optimizer, pictures, [one, one]), rel=1e-4)


def test_transport_is_that_of_a_plan_with_uniform_margins() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(5, 7, generator=generator), torch.randn(5, 7, generator=generator)
    cost = 1 - torch.cosine_similarity(one[:, None], other[None], dim=2).double()
    plan = torch.exp(-cost)
    for _ in range(2000):
        plan = plan / plan.sum(0) / 5
        plan = plan / plan.sum(1, keepdim=True) / 5
    assert float(transport(one, other)) == pytest.approx(float((plan * cost).sum()), rel=1e-5)
    assert transport(one, one) < transport(one, other)
    with_gradient = one.clone().requires_grad_()
    transport(with_gradient, other).backward()
    assert torch.autograd.gradcheck(transport, (one.double().requires_grad_(), other.double()))


@torch.no_grad()
def test_labels_are_the_mean_embeddings_of_answers() -> None:
    lvlm, given = tiny_random_llava(), plain(3)
    named = [Sample(s.id, s.image, s.question, a) for s, a in zip(given, ("red", "top left", "blue"), strict=True)]
    table, found = lvlm.model.get_input_embeddings().weight, label_embeddings(lvlm, named, np.array([0, 1, 0]))

    def tokens(text: str) -> Tensor:
        return table[lvlm.tokenizer(f" {text}", add_special_tokens=False)["input_ids"]].mean(0)

    for row, wanted in zip(found, ((tokens("red") + tokens("blue")) / 2, tokens("top left")), strict=True):
        torch.testing.assert_close(row, wanted / wanted.square().mean().sqrt())


@torch.no_grad()
def test_the_contrast_is_among_all_labels_and_of_all_modules_of_a_projector() -> None:
    labels, features = torch.eye(3), torch.tensor([[2.0, 0, 1], [0, 0, 5]])
    model = Coupled(Seeing(tiny_random_llava()), labels)
    wanted = [-torch.log_softmax(features[0], 0)[2], -torch.log_softmax(features[1], 0)[2]]
    torch.testing.assert_close(model.contrast(features, [2, 2]), torch.stack(wanted))
    twice = model.contrast(torch.cat([features, features], 1), [2, 2])
    torch.testing.assert_close(twice, -torch.log_softmax(2 * features, 1)[:, 2])


def test_samples_come_twice(samples: list[Sample]) -> None:
    twice = Twice(samples)
    assert len(twice) == 24 and [*twice] == [*samples, *samples]
    assert twice[12] is samples[0] and twice[-1] is samples[11] and twice[10:14] == [*samples[10:], *samples[:2]]
    with pytest.raises(IndexError):
        twice[24]


def test_the_claim_is_of_answers_and_of_noise_alone(samples: list[Sample], crafted: list[Sample]) -> None:
    assert vtg().distinguished(samples, crafted, world()) is None
    assert "it should be lower" in str(vtg().distinguished(samples, samples, world()))


def test_what_is_not_of_labels_is_told_apart(samples: list[Sample], crafted: list[Sample]) -> None:
    em = Registry().create("defense", "em", {"rounds": 1, "theta_steps": 1, "batch_size": 6, "rank": 2})
    made = build_release(samples, em.protect(samples, world()), Budget(image=8))
    assert "both are of one class" in str(vtg().distinguished(samples, made, world()))
    other = {"bear": "fox", "fox": "owl", "owl": "bear"}
    before, after = ([Sample(s.id, s.image, s.question, other[s.answer]) for s in part] for part in (samples, crafted))
    assert "it should be lower" in str(vtg().distinguished(before, after, world()))


def test_one_label_has_nothing_to_be_told_from(samples: list[Sample]) -> None:
    alike = [samples[0], samples[3], samples[6]]
    made = release(alike, world(), rounds=3)
    assert all(noise_of(a, b).any() for a, b in zip(alike, made, strict=True))
    assert "told apart" not in str(vtg().distinguished(alike, made, world()))


@pytest.mark.parametrize("rate", ["learning_rate", "theta_rate"])
def test_what_diverges_protects_nothing(rate: str, samples: list[Sample]) -> None:
    with pytest.raises(ArenaError, match="is NaN or infinite"):
        release(samples, world(), **{rate: 1e30})


def test_noise_fits_pictures_of_any_size_and_mode() -> None:
    given = mixed_samples(5)
    for before, after in zip(given, release(given, world(), batch_size=2), strict=True):
        assert (after.image.size, after.image.mode) == (before.image.size, before.image.mode)
        assert 0 < np.abs(noise_of(before, after)).max() <= 8
    assert in_place_of(torch.zeros(1, 9, 30), torch.rand(3, 24, 24)).shape == (1, 9, 30)


def test_the_authors_networks() -> None:
    network = noise_network(8)
    made = [
        (type(x), x.in_channels, x.out_channels, x.kernel_size[0], x.stride[0]) for x in network if hasattr(x, "stride")
    ]
    assert made == [
        *((nn.Conv2d, *x) for x in ((3, 8, 3, 1), (8, 16, 3, 2), (16, 32, 3, 2))),
        *((nn.ConvTranspose2d, *x) for x in ((32, 16, 3, 2), (16, 8, 3, 2), (8, 3, 6, 1))),
    ]
    assert sum(isinstance(x, defenses.vtg.Block) for x in network) == 4
    for side in (16, 20, 32, 36):
        assert network(torch.rand(2, 3, side, side)).shape == (2, 3, side, side)
    styles = style_network(64)
    assert sum(isinstance(x, defenses.vtg.Block) for x in styles) == 6
    assert sum(weights.numel() for weights in styles.parameters()) == 8_414_848
    assert style_network(2)(torch.rand(2, 3, 24, 24)).shape == (2, 3, 24, 24)
