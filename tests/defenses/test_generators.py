"""What generators share that make noise of pictures by class: the mean of a class, and what is kept for later."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from small_samples import striped
from tiny_models import tiny_random_llava
from torch import nn

from arena.budget import Budget, colours
from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.plugins.base import DefenderWorld
from arena.plugins.registry import Registry
from arena.release import build_release
from defenses import generators
from defenses.bait import encoder_decoder
from defenses.vtg import noise_network

SIDE = 24
QUICK = {"rounds": 3, "side": SIDE, "rank": 2, "batch_size": 6, "learning_rate": 1e-2, "theta_rate": 1e-4}
CASES: dict[str, tuple[dict[str, Any], Callable[[], nn.Module]]] = {
    "bait": ({**QUICK, "rounds": 24, "blocks": 1}, lambda: encoder_decoder(2, 1)),
    "vtg": ({**QUICK, "theta_steps": 1, "style_width": 2}, lambda: noise_network(8)),
}
LATER = DefenderWorld(Budget(image=8), 5)
"""Without a model, and of another seed."""


class Trained(NamedTuple):
    """What a method of this name made of some samples, and the folder of what it keeps."""

    name: str
    samples: list[Sample]
    released: list[Sample]
    kept: str


def release(name: str, samples: Sequence[Sample], granted: DefenderWorld, **config: Any) -> list[Sample]:
    made = Registry().create("defense", name, {**CASES[name][0], **config}).protect(samples, granted)
    return build_release(samples, made, granted.budget)


def noise_of(before: Sample, after: Sample) -> np.ndarray:
    return colours(after.image).astype(int) - colours(before.image)


@pytest.fixture(scope="module", params=CASES)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder: Path = tmp_path_factory.mktemp("workspace")
    granted = DefenderWorld(Budget(image=8), 0, lambda: (tiny_random_llava(),), workspace=folder)
    samples = striped(12, seed=3)
    return Trained(request.param, samples, release(request.param, samples, granted), str(folder / "trained"))


def test_all_of_a_class_have_the_mean_of_what_the_generator_makes_of_its_pictures(trained: Trained) -> None:
    network = CASES[trained.name][1]()
    generators.read(Path(trained.kept), network, {})
    network.eval()
    mixed = [Sample(s.id, s.image, s.question, ("fox", "owl")[i % 2]) for i, s in enumerate(trained.samples[:7])]
    made = release(trained.name, mixed, LATER, reuse=trained.kept)
    for answer in ("fox", "owl"):
        own = [i for i, s in enumerate(mixed) if s.answer == answer]
        with torch.no_grad():
            each = torch.cat([network(generators.seen([mixed[i]], SIDE)) for i in own])
        assert each.std(0).max() > 0.1  # the generator tells pictures apart, and the release does not
        wanted = generators.fitting(8 * each.mean(0), torch.zeros(3, 48, 48)).permute(1, 2, 0).numpy()
        for i in own:
            assert np.abs(noise_of(mixed[i], made[i]) - wanted).max() < 0.501


def test_what_is_kept_makes_the_same_again_and_noise_of_other_pictures(trained: Trained) -> None:
    again = release(trained.name, trained.samples, LATER, reuse=trained.kept)
    assert [s.image.tobytes() for s in again] == [s.image.tobytes() for s in trained.released]
    other = striped(6, seed=8)
    later = release(trained.name, other, LATER, reuse=trained.kept)
    made = [noise_of(*pair) for pair in zip(other, later, strict=True)]
    assert all((made[i] == made[i + 3]).all() and made[i].any() for i in range(3))
    assert not (made[0] == noise_of(trained.samples[0], trained.released[0])).all()
    with pytest.raises(ArenaError, match="made with other settings or surrogates"):
        release(trained.name, trained.samples, LATER, reuse=trained.kept, width=3)


def test_pictures_of_a_group_that_change_otherwise_are_named() -> None:
    samples = striped(4, seed=1)
    made = build_release(samples, Registry().create("defense", "random").protect(samples, LATER), LATER.budget)
    assert generators.apart(samples, samples, [0, 0, 0, 0]) is None
    assert generators.apart(samples, made, [0, 1, 2, 3]) is None
    named = str(generators.apart(samples, made, [0, 1, 0, 2]))
    assert repr(samples[0].id) in named and repr(samples[2].id) in named and repr(samples[1].id) not in named
