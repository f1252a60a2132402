"""What a training holds of its pictures."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from tiny_models import tiny_random_llava

from arena.data.sample import Sample
from arena.lvlm.base import images_of
from arena.recipes.training import _Collator


def held(thing: object, seen: set[int]) -> list[torch.Tensor]:
    """All tensors that an object holds, without those of the model."""
    if id(thing) in seen:
        return []
    seen.add(id(thing))
    if isinstance(thing, torch.Tensor):
        return [thing]
    parts = thing.values() if isinstance(thing, dict) else thing if isinstance(thing, list | tuple) else ()
    return [tensor for part in parts for tensor in held(part, seen)]


def test_pictures_are_kept_as_they_came_and_become_floats_a_batch_at_a_time() -> None:
    rng = np.random.default_rng(0)
    samples = [
        Sample(f"s{i}", Image.fromarray(rng.integers(0, 256, shape, np.uint8)), "what is it?", "red")
        for i, shape in enumerate([(48, 60, 3), (50, 31), (48, 48, 4)])
    ]
    lvlm = tiny_random_llava()
    collator = _Collator(lvlm, samples)
    assert held({k: v for k, v in vars(collator).items() if k != "lvlm"}, set()) == []
    batch = collator.batch([2, 0])
    assert held({k: v for k, v in vars(collator).items() if k != "lvlm"}, set()) == []
    whole = lvlm.encode([samples[2], samples[0]])
    wanted = images_of([samples[2], samples[0]])
    assert all(torch.equal(x, y) for x, y in zip(batch.images, wanted, strict=True))
    assert torch.equal(batch.pixels["pixel_values"], whole.pixels["pixel_values"])
    assert torch.equal(batch.input_ids, whole.input_ids) and torch.equal(batch.roles, whole.roles)
    assert batch.indices.tolist() == [2, 0]
