"""ntga: noise after which infinitely wide networks, trained on the pictures, err on clean ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from arena.budget import Budget
from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.lvlm.perturbation import planes
from arena.plugins.base import DefenderWorld
from arena.plugins.registry import Registry
from arena.release import build_release
from defenses.flat import flat
from defenses.ntga import BIASES, LAYERS, WEIGHTS, predicted, tangent_kernel

ANSWERS = ("fox", "owl", "bear")


def pictures(count: int, size: tuple[int, int] = (9, 8), seed: int = 0) -> list[Sample]:
    """Noise, brighter in one of three bands, which tells the answer."""
    rng = np.random.default_rng(seed)
    samples = []
    for i in range(count):
        values = rng.integers(90, 130, (size[1], size[0], 3))
        values[i % 3 :: 3] += 11
        samples.append(Sample(str(i), Image.fromarray(values.astype(np.uint8)), "which clan?", ANSWERS[i % 3]))
    return samples


def release(samples: Sequence[Sample], seed: int = 0, **config: Any) -> list[Sample]:
    """No surrogate is granted, so that none is asked for."""
    world = DefenderWorld(Budget(image=8), seed)
    return build_release(samples, Registry().create("defense", "ntga", config).protect(samples, world), world.budget)


def rows(samples: Sequence[Sample]) -> Tensor:
    return flat([planes(s.image) for s in samples], (8, 9)).double()


class Layer(nn.Module):
    """One layer of a wide network, with weights that are scaled where they act."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.scale = (WEIGHTS / inputs) ** 0.5
        self.weight = nn.Parameter(torch.randn(width, inputs, dtype=torch.float64))
        self.bias = nn.Parameter(torch.randn(width, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return torch.erf(self.scale * x @ self.weight.T + BIASES**0.5 * self.bias)


def test_the_kernel_is_that_of_wide_networks() -> None:
    """Of the gradients of an output in all weights; the mean over outputs and networks comes near it."""
    torch.manual_seed(0)
    x = torch.rand(3, 20, dtype=torch.float64)
    found = []
    for _ in range(3):
        network = nn.Sequential(Layer(20, 200), *(Layer(200, 200) for _ in range(LAYERS - 2)), Layer(200, 100))
        for output in range(100):
            gradients = [torch.autograd.grad(network(one[None])[0, output], list(network.parameters())) for one in x]
            values = torch.stack([torch.cat([g.flatten() for g in one]) for one in gradients])
            found.append(values @ values.T)
    kernel = tangent_kernel(x, x)
    assert torch.allclose(torch.stack(found).mean(0), kernel, rtol=0.15)
    assert torch.allclose(kernel, kernel.T) and torch.linalg.eigvalsh(kernel).min() > 0


def test_predictions_are_those_of_gradient_descent_on_squared_errors() -> None:
    torch.manual_seed(0)
    x, unseen = torch.rand(5, 30, dtype=torch.float64), torch.rand(2, 30, dtype=torch.float64)
    labels = torch.eye(3, dtype=torch.float64)[[0, 1, 2, 0, 1]]
    among, across = tangent_kernel(x, x), tangent_kernel(unseen, x)
    outputs, answers, rate = torch.zeros(5, 3).double(), torch.zeros(2, 3).double(), 0.01
    for _ in range(round(64 / rate)):
        error = (outputs - labels) / labels.numel()
        outputs, answers = outputs - rate * among @ error, answers - rate * across @ error
    assert torch.allclose(predicted(x, unseen, labels, 64, 1e-12), answers, rtol=1e-2, atol=1e-3)
    late = predicted(x, x, labels, 1e9, 1e-9)
    assert torch.allclose(late, labels, atol=1e-3)


def test_networks_trained_on_the_release_err_on_clean_pictures() -> None:
    """Also on ones that it was not made against."""
    samples, unseen = pictures(24), pictures(30, seed=1)
    kinds = torch.tensor([ANSWERS.index(s.answer) for s in samples])
    labels = torch.eye(3, dtype=torch.float64)[kinds]

    def right(shown: Sequence[Sample]) -> float:
        answers = predicted(rows(shown), rows(unseen), labels, 64, 1e-4).argmax(1)
        return float((answers == torch.tensor([ANSWERS.index(s.answer) for s in unseen])).double().mean())

    rng = np.random.default_rng(0)
    noisy = [
        s.with_content(
            Image.fromarray(np.clip(np.asarray(s.image) + rng.choice([-8, 8], (8, 9, 3)), 0, 255).astype(np.uint8)),
            s.question,
        )
        for s in samples
    ]
    assert right(release(samples)) < right(noisy) - 0.2 and right(noisy) > 0.8


def test_each_step_goes_on_from_the_one_before() -> None:
    samples = pictures(12)
    steps = {k: rows(release(samples, pgd_steps=k, step=1.0)) - rows(samples) for k in (1, 3)}
    assert (255 * steps[1].abs()).max() < 1.01 and (255 * steps[3].abs()).max() > 2.9


def test_a_picture_is_not_made_against_itself() -> None:
    """Blocks validate on the other half: pictures that show the same are in one."""
    samples = pictures(6)
    twice = [*samples, Sample("again", samples[0].image, "and its foe?", "bear")]
    released = release(twice)
    assert released[0].image.tobytes() == released[-1].image.tobytes() != samples[0].image.tobytes()


def test_blocks_are_made_one_after_the_other() -> None:
    samples = pictures(12)
    whole, parts = release(samples), release(samples, block=3)
    assert any(a.image.tobytes() != b.image.tobytes() for a, b in zip(whole, parts, strict=True))
    assert all(np.any(rows([a]).numpy() != rows([b]).numpy()) for a, b in zip(samples, parts, strict=True))


@pytest.mark.parametrize(
    ("samples", "problem"),
    [
        ([Sample(s.id, s.image, s.question, "fox") for s in pictures(3)], "all samples have one answer"),
        (
            [Sample(s.id, pictures(1)[0].image, s.question, s.answer) for s in pictures(3)],
            "all samples show one picture",
        ),
    ],
)
def test_what_leaves_nothing_to_learn_is_refused(samples: list[Sample], problem: str) -> None:
    with pytest.raises(ArenaError, match=problem):
        release(samples)
