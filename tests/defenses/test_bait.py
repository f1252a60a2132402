"""bait: noise of each answer that leads pictures with other answers to it, under a model that learns the right ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_samples import mixed_samples, striped
from tiny_models import tiny_random_llava
from torch import Tensor, nn

import defenses.bait
from arena.budget import Budget, colours
from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.kit.material import plain
from arena.lvlm.adapters import trainable, trainable_state
from arena.lvlm.base import LVLM
from arena.lvlm.perturbation import as_rgb, planes
from arena.plugins.base import DefenderWorld
from arena.plugins.registry import Registry
from arena.release import build_release
from defenses.bait import LIKELY, RANDOM, UNLIKELY, Bait, ahead, encoder_decoder, likelihoods, third
from defenses.surrogate import LearnerConfig, Surrogate

QUICK: dict[str, Any] = {
    **{"rounds": 3, "side": 24, "blocks": 1, "rank": 2, "batch_size": 6},
    **{"learning_rate": 1e-2, "theta_rate": 1e-4},
}


def world() -> DefenderWorld:
    return DefenderWorld(Budget(image=8), 0, lambda: (tiny_random_llava(),))


def bait(**config: Any) -> Bait:
    return Bait(Bait.Config(**{**QUICK, **config}))


def release(samples: Sequence[Sample], granted: DefenderWorld, **config: Any) -> list[Sample]:
    made = Registry().create("defense", "bait", {**QUICK, **config}).protect(samples, granted)
    return build_release(samples, made, granted.budget)


def noise_of(before: Sample, after: Sample) -> np.ndarray:
    return colours(after.image).astype(int) - colours(before.image)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return striped(12, seed=3)


@pytest.fixture(scope="module")
def crafted(samples: list[Sample]) -> list[Sample]:
    return release(samples, world(), rounds=24)


@torch.no_grad()
def test_noise_of_a_class_leads_pictures_of_others_to_its_answer(samples: list[Sample], crafted: list[Sample]) -> None:
    """To no answer as much as to its own, whatever noise of another class does."""
    lvlm = tiny_random_llava()
    noise = {s.answer: noise_of(s, made) for s, made in zip(samples, crafted, strict=True)}

    def loss(under: np.ndarray | int, asked: str) -> float:
        shown = [
            Sample(s.id, Image.fromarray((np.asarray(s.image) + under).astype(np.uint8)), s.question, asked)
            for s in samples
            if s.answer != asked
        ]
        return float(lvlm.losses(lvlm.encode(shown)).mean())

    assert len(noise) == 3
    for asked, own in noise.items():
        bound = loss(own, asked)
        assert bound < loss(0, asked)
        assert all(bound < loss(other, asked) for answer, other in noise.items() if answer != asked)


def test_a_copy_learns_the_right_answers_then_the_generator_moves_then_the_model_learns(
    samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, dict[str, Tensor], Any]] = []
    learn, outer = Surrogate.train_step, defenses.bait.answer_losses

    def train_step(self: Surrogate, part: Sequence[int], images: Any) -> float:
        shown = [x - planes(samples[i].image) for i, x in zip(part, images(part), strict=True)]
        seen.append(("learn", trainable_state(self.lvlm), (list(part), shown)))
        assert all(self.samples[i] is samples[i] for i in part)
        return learn(self, part, images)

    def answer_losses(lvlms: Sequence[LVLM], asked: Sequence[Sample], images: Sequence[Tensor]) -> Tensor:
        seen.append(("aim", trainable_state(lvlms[0]), [s.answer for s in asked]))
        own = {s.id: s.answer for s in samples}
        assert all(s.answer != own[s.id] and s.answer in own.values() for s in asked)
        return outer(lvlms, asked, images)

    monkeypatch.setattr(Surrogate, "train_step", train_step)
    monkeypatch.setattr(defenses.bait, "answer_losses", answer_losses)
    release(samples, world())

    def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
        return all(torch.equal(a[name], b[name]) for name in a)

    assert [kind for kind, _, _ in seen] == ["learn", "aim", "aim", "learn"] * 3
    rounds = [seen[at : at + 4] for at in (0, 4, 8)]
    for number, ((_, before, (part, first)), *aims, (_, after, (again, then))) in enumerate(rounds):
        assert same(before, after) and part == again
        assert all(same(state, aims[0][1]) and not same(state, before) for _, state, _ in aims)
        assert any(bool(x.any()) for x in first) == (number > 0)  # there is no noise in the first round
        assert all(bool((a - b).abs().max() > 0) for a, b in zip(first, then, strict=True))
    assert not same(rounds[0][-1][1], rounds[1][0][1])


def test_what_is_ahead_is_undone() -> None:
    given = plain(6)
    surrogate = Surrogate.start(tiny_random_llava(), given, LearnerConfig(rank=2, batch_size=3))

    def images(part: Sequence[int]) -> list[Tensor]:
        return [planes(given[i].image) for i in part]

    surrogate.train_step([0, 1, 2], images)
    before, moments = trainable_state(surrogate.lvlm), surrogate.optimizer.state_dict()["state"]
    known = {k: {name: value.clone() for name, value in state.items()} for k, state in moments.items()}
    with ahead([surrogate], [3, 4, 5], images):
        within = trainable_state(surrogate.lvlm)
    assert any(not torch.equal(before[name], within[name]) for name in before)
    assert all(torch.equal(before[name], x) for name, x in trainable_state(surrogate.lvlm).items())
    for k, state in surrogate.optimizer.state_dict()["state"].items():
        assert all(torch.equal(state[name], value) for name, value in known[k].items())


SCORES = [[0.0, -3.0, -1.0, -2.0], [-1.0, -9.0, -3.0, -2.0], [-4.0, -3.0, -2.0, -1.0], [-5.0, -1.0, -2.0, -3.0]]


@pytest.mark.parametrize(("kind", "wanted"), [(LIKELY, [2, 0, 3, 1]), (UNLIKELY, [1, 2, 0, 0])])
def test_the_most_and_the_least_likely_class_is_a_wrong_one(
    kind: int, wanted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first sample's own answer is the most likely one, and the second's the least."""
    given = plain(4)
    monkeypatch.setattr(defenses.bait, "likelihoods", lambda surrogates, asked, answers: torch.tensor(SCORES))
    found = bait()._aims(kind, [0, 1, 2, 3], given, np.arange(4), [], np.random.default_rng(0))
    assert found == wanted


def test_random_wrong_classes_are_all_there_are_and_at_most_so_many_are_candidates() -> None:
    given, classes, rng = plain(12), np.arange(12) % 6, np.random.default_rng(0)
    part = list(range(12))[::-1]
    seen = set()
    for _ in range(60):
        aims = bait()._aims(RANDOM, part, given, classes, [], rng)
        assert aims is not None and not any(classes[i] == classes[aim] for i, aim in zip(part, aims, strict=True))
        seen |= {(int(classes[i]), int(classes[aim])) for i, aim in zip(part, aims, strict=True)}
        few = bait(candidates=2)._aims(RANDOM, part, given, classes, [], rng)
        assert few is not None and len({int(classes[aim]) for aim in few}) == 2
    assert len(seen) == 6 * 5
    assert bait()._aims(RANDOM, [0, 6], given, classes, [], rng) is None  # one class has no wrong one


def test_the_wrong_class_is_harder_in_each_third_of_the_rounds(
    samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [third(number, 90) for number in (0, 29, 30, 59, 60, 89)] == [LIKELY] * 2 + [RANDOM] * 2 + [UNLIKELY] * 2
    stages: list[int] = []
    aims = Bait._aims

    def spied(self: Bait, kind: int, *others: Any) -> list[int] | None:
        stages.append(kind)
        return aims(self, kind, *others)

    monkeypatch.setattr(Bait, "_aims", spied)
    release(samples, world())
    assert stages == [LIKELY] * 2 + [RANDOM] * 2 + [UNLIKELY] * 2


@torch.no_grad()
def test_an_answer_is_as_likely_as_its_tokens() -> None:
    given, answers = mixed_samples(5), ["red", "top left"]
    surrogate = Surrogate.start(tiny_random_llava(), given, LearnerConfig(rank=2))
    for weights in trainable(surrogate.lvlm).values():
        weights.normal_(std=0.1)
    lvlm = surrogate.lvlm
    images = [as_rgb(planes(s.image)) for s in given]
    wanted = [lvlm.losses(lvlm.encode([Sample(s.id, s.image, s.question, a) for s in given], images)) for a in answers]
    torch.testing.assert_close(likelihoods([surrogate, surrogate], given, answers), -2 * torch.stack(wanted, 1))


def test_the_claim_is_of_other_answers(samples: list[Sample], crafted: list[Sample]) -> None:
    assert bait().distinguished(samples, crafted, world()) is None
    assert "it should be lower" in str(bait().distinguished(samples, samples, world()))
    against = [
        s.with_content(Image.fromarray((colours(s.image) - noise_of(s, made)).astype(np.uint8)), s.question)
        for s, made in zip(samples, crafted, strict=True)
    ]
    assert "it should be lower" in str(bait().distinguished(samples, against, world()))


def test_without_a_wrong_answer_nothing_is_bound(samples: list[Sample]) -> None:
    with pytest.raises(ArenaError, match="bait: all pictures have one answer"):
        release([samples[0], samples[3]], world())
    with pytest.raises(ArenaError, match="bait: all pictures have one answer"):
        release(samples[:1], world())


@pytest.mark.parametrize("rate", ["learning_rate", "theta_rate"])
def test_what_diverges_protects_nothing(rate: str, samples: list[Sample]) -> None:
    with pytest.raises(ArenaError, match="is NaN or infinite"):
        release(samples, world(), **{rate: 1e30})


def test_noise_fits_pictures_of_any_size_and_mode() -> None:
    given = mixed_samples(5)
    for before, after in zip(given, release(given, world(), batch_size=2), strict=True):
        assert (after.image.size, after.image.mode) == (before.image.size, before.image.mode)
        assert 0 < np.abs(noise_of(before, after)).max() <= 8


def test_the_authors_generator() -> None:
    network = encoder_decoder(16, 8)
    made = [(type(x), x.in_channels, x.out_channels, x.stride[0]) for x in network if hasattr(x, "stride")]
    down = [(3, 16, 1), (16, 32, 2), (32, 64, 1), (64, 128, 2), (128, 256, 1), (256, 512, 2)]
    up = [(512, 256, 2), (256, 128, 1), (128, 64, 2), (64, 32, 1), (32, 16, 2), (16, 3, 1)]
    assert made == [(nn.Conv2d, *x) for x in down] + [(nn.ConvTranspose2d, *x) for x in up]
    assert sum(isinstance(x, defenses.bait.Block) for x in network) == 8
    assert sum(isinstance(x, nn.InstanceNorm2d) for x in network) == 11
    small = encoder_decoder(2, 1)(torch.rand(2, 3, 24, 24))
    assert small.shape == (2, 3, 24, 24) and small.abs().max() <= 1
