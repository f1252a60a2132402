"""mi-ue: noise that makes the features of one answer alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from small_samples import mixed_samples
from tiny_models import tiny_random_llava
from torch import Tensor

from arena.budget import Budget
from arena.data.embedded.glyphs import Glyphs
from arena.data.sample import Sample
from arena.lvlm.base import LVLM
from arena.plugins.base import DefenderWorld
from arena.plugins.registry import Registry
from arena.release import build_release
from defenses.classes import answer_classes
from defenses.features import answer_features
from defenses.mi_ue import MutualInformation, nt_xent

QUICK: dict[str, Any] = {"rounds": 3, "theta_steps": 2, "rank": 2, "pgd_steps": 6, "step": 1.0, "last_step": 1.0}


def release(name: str, samples: Sequence[Sample], **config: Any) -> list[Sample]:
    world = DefenderWorld(Budget(image=8), 0, lambda: (tiny_random_llava(),))
    return build_release(samples, Registry().create("defense", name, config).protect(samples, world), world.budget)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return list(Glyphs().load(16, 0, 0, seed=1).train)


@torch.no_grad()
def features(samples: Sequence[Sample], lvlm: LVLM | None = None) -> Tensor:
    lvlm = lvlm or tiny_random_llava()
    return answer_features(lvlm, lvlm.encode(samples))


def test_the_loss_is_the_papers() -> None:
    found = torch.randn(5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    classes = torch.tensor([0, 1, 0, 2, 1])
    losses = nt_xent(found, classes, 0.1)
    for i in range(5):
        weights = [math.exp(float(torch.cosine_similarity(found[i], found[j], 0)) / 0.1) for j in range(5)]
        own = sum(w for j, w in enumerate(weights) if classes[j] == classes[i])
        assert float(losses[i]) == pytest.approx(-math.log(own / sum(weights)), rel=1e-4)
    assert nt_xent(found, torch.zeros(5, dtype=torch.long), 0.1).abs().max() < 1e-5


def test_features_are_those_that_the_first_answer_token_is_read_off() -> None:
    lvlm, samples = tiny_random_llava(), mixed_samples(4)
    batch = lvlm.encode(samples)
    found = answer_features(lvlm, batch)
    forward = lvlm.forward(batch)
    first = (forward.labels >= 0).int().argmax(1)
    wanted = torch.stack([forward.logits[i, place] for i, place in enumerate(first)])
    torch.testing.assert_close(lvlm.model.get_output_embeddings()(found), wanted.float(), atol=1e-4, rtol=1e-4)
    alone = torch.cat([features([s], lvlm) for s in samples])
    torch.testing.assert_close(found, alone, atol=1e-4, rtol=1e-4)


def test_cosines_within_a_class_rise_against_those_between_classes(samples: list[Sample]) -> None:
    """By more than under noise that lowers the loss of the answers, of the same steps."""
    classes = answer_classes(samples, 0)
    same = classes[:, None] == classes
    np.fill_diagonal(same, False)

    def apart(shown: Sequence[Sample]) -> float:
        unit = torch.nn.functional.normalize(features(shown), dim=1)
        cosines = (unit @ unit.T).numpy()
        return float(cosines[same].mean() - cosines[classes[:, None] != classes].mean())

    steps = {"rounds": 3, "theta_steps": 2, "rank": 2, "pgd_steps": 6, "step": 1.0}
    em, own = release("em", samples, **steps), release("mi-ue", samples, **QUICK)
    assert apart(own) > max(apart(em), apart(samples))


def test_steps_grow_evenly_from_round_to_round() -> None:
    made = MutualInformation(MutualInformation.Config(rounds=4))
    assert [255 * step for step in made.steps()] == pytest.approx([0.2, 0.25, 0.3, 0.35])


def test_noise_is_made_for_models_that_have_learned_from_it(samples: list[Sample]) -> None:
    """The surrogate is trained between the noise's turns: without training another release comes out."""
    once = {**QUICK, "rounds": 2}
    trained = release("mi-ue", samples, **{**once, "theta_steps": 3, "learning_rate": 1e-2})
    barely = release("mi-ue", samples, **{**once, "theta_steps": 3, "learning_rate": 1e-12})
    assert any(a.image.tobytes() != b.image.tobytes() for a, b in zip(trained, barely, strict=True))
