"""Surrogates that see pictures through the compression that they are published in."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from small_samples import mixed_samples
from tiny_models import tiny_random_llava

from arena.data.pictures.encoding import PNG, Encoding
from arena.lvlm.adapters import attach_lora, linear_modules
from arena.lvlm.pixels import to_tensor
from arena.lvlm.published import published, seeing_published

JPEG = Encoding(format="jpeg", quality=90)


def test_forward_it_is_the_file_and_backward_nothing() -> None:
    values = np.random.default_rng(0).integers(0, 256, (19, 30, 3), dtype=np.uint8)
    x = (torch.from_numpy(values).permute(2, 0, 1).float() / 255 + 0.3 / 255).clamp(0, 1).requires_grad_()
    y = published(x, JPEG)
    assert torch.equal(y.mul(255).round().byte(), to_tensor(JPEG.published(Image.fromarray(values))).mul(255).byte())
    weight = torch.rand(y.shape)
    (gradient,) = torch.autograd.grad((y * weight).sum(), x)
    assert torch.equal(gradient, weight)


def test_a_surrogate_sees_the_file_also_with_adapters() -> None:
    lvlm, samples = tiny_random_llava(), mixed_samples(4)
    seeing = seeing_published(lvlm, JPEG)
    assert seeing_published(lvlm, PNG) is lvlm and isinstance(seeing, type(lvlm))
    tuned = attach_lora(seeing, 2, 4, 0.0, linear_modules(seeing, seeing.language_model))
    shown = [to_tensor(JPEG.published(s.image.convert("RGB"))) for s in samples]
    wanted = lvlm.encode(samples, shown).pixels["pixel_values"]
    assert not torch.equal(lvlm.encode(samples).pixels["pixel_values"], wanted)
    for model in (seeing, tuned):
        batch = model.encode(samples)
        assert torch.equal(batch.pixels["pixel_values"], wanted)
        plain = [to_tensor(s.image) for s in samples]
        assert torch.equal(model.with_images(batch, plain).pixels["pixel_values"], wanted)
