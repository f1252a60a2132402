"""What the language model reads of a picture, in every family, and surrogates that go by it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from families import FAMILIES
from small_samples import mixed_samples
from tiny_models import tiny_random_llava
from torch import Tensor

from arena.data.sample import Sample
from arena.lvlm.base import images_of
from arena.lvlm.batch import Batch
from arena.lvlm.zoo import random_checkpoints
from defenses.features import by_other_losses, features


@pytest.mark.parametrize("name", FAMILIES)
def test_features_of_a_batch_are_those_of_each_picture_in_order(name: str, tmp_path: Path) -> None:
    random_checkpoints.write(name, tmp_path)
    lvlm = FAMILIES[name].lvlm.from_pretrained(tmp_path)
    samples = mixed_samples(4)
    images = [x.requires_grad_() for x in images_of(samples)]
    together = features(lvlm, lvlm.encode(samples, images))
    alone = [features(lvlm, lvlm.encode([s], [x])) for s, x in zip(samples, images, strict=True)]
    assert together.dtype == torch.float32
    assert together.shape == torch.cat(alone).shape
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=1e-4)
    of_second = together.split([len(x) for x in alone])[1]
    gradients = torch.autograd.grad(of_second.square().sum(), images, allow_unused=True)
    reached = [g is not None and bool(g.abs().sum() > 1e-9) for g in gradients]
    assert reached == [False, True, False, False]


def test_the_language_model_does_not_run_for_features_and_runs_as_before_afterwards() -> None:
    lvlm, samples = tiny_random_llava(), mixed_samples(2)
    batch = lvlm.encode(samples)
    before = lvlm.losses(batch)
    runs: list[object] = []
    hook = lvlm.module("model.language_model.layers.0").register_forward_hook(lambda *given: runs.append(given))
    features(lvlm, batch)
    assert not runs
    hook.remove()
    assert torch.equal(lvlm.losses(batch), before)


def test_other_losses_get_the_numbers_of_samples_and_their_pictures() -> None:
    lvlm, samples = tiny_random_llava(), mixed_samples(5)
    asked: list[list[int]] = []

    def brightness(batch: Batch, numbers: list[int]) -> Tensor:
        asked.append(list(numbers))
        return torch.stack([x.mean() for x in batch.images])

    surrogate = by_other_losses(lvlm, samples, brightness, 8)  # type: ignore[arg-type]
    images = images_of(samples)
    batch = surrogate.encode([3, 1], [images[3], images[1]])
    assert surrogate.lvlm.losses(batch).tolist() == pytest.approx([float(images[i].mean()) for i in (3, 1)])
    darker = surrogate.lvlm.with_images(batch, [x / 2 for x in (images[3], images[1])])
    assert surrogate.lvlm.losses(darker).tolist() == pytest.approx([float(images[i].mean() / 2) for i in (3, 1)])
    surrogate.lvlm.losses(surrogate.lvlm.encode([samples[4]]))
    assert asked == [[3, 1], [3, 1], [4]]
    assert not any(p.requires_grad for p in lvlm.model.parameters())
    assert len(lvlm.losses(lvlm.encode(samples[:2]))) == 2  # the model itself is what it was
    with pytest.raises(KeyError):
        surrogate.lvlm.encode([Sample("unknown", samples[0].image, "?", "a")])
