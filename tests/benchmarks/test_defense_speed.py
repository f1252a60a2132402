"""Speed of the protections that need no surrogate, on pictures of 224 x 224."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from arena.budget import Budget
from arena.data.sample import Sample
from arena.plugins.base import DefenderWorld
from arena.plugins.registry import Registry

BUDGETS = {
    "ar": Budget(norm="l2", image=5),
    "cuda": Budget(norm="unbounded"),
    "lsp": Budget(norm="l2", image=6),
    "ops": Budget(norm="l0", image=1),
}
PICTURES, ANSWERS = 400, 4


@pytest.mark.parametrize("name", BUDGETS)
def test_pictures_a_second(name: str, benchmark: Any) -> None:
    torch.set_num_threads(1)
    samples = _pictures(PICTURES)
    defense, world = Registry().create("defense", name, {}), DefenderWorld(seed=0, budget=BUDGETS[name])
    made = benchmark.pedantic(lambda: sum(1 for _ in defense.protect(samples, world)), rounds=3)
    assert made == PICTURES
    benchmark.extra_info["pictures a second, asked 200 of ar and lsp"] = round(PICTURES / benchmark.stats.stats.median)


def test_a_thousand_pictures_by_a_linear_classifier(benchmark: Any) -> None:
    """pil on two threads."""
    torch.set_num_threads(2)
    samples = _pictures(1000)
    defense, world = Registry().create("defense", "pil", {}), DefenderWorld(seed=0, budget=Budget())
    assert benchmark.pedantic(lambda: sum(1 for _ in defense.protect(samples, world)), rounds=1) == 1000
    benchmark.extra_info["seconds, asked 60"] = round(benchmark.stats.stats.median)


def _pictures(count: int) -> list[Sample]:
    rng = np.random.default_rng(0)
    return [
        Sample(str(i), Image.fromarray(rng.integers(0, 256, (224, 224, 3), np.uint8)), "what?", f"answer {i % ANSWERS}")
        for i in range(count)
    ]
