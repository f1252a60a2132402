"""Resampling: sizes, filters, and pictures that are small enough already."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from skimage import data as photographs

from arena.data.sample import Sample
from arena.plugins.base import AttackerWorld
from arena.plugins.registry import Registry


def resized(image: Image.Image, **config: object) -> Image.Image:
    attack = Registry().create("attack", "resize", config)
    (sample,) = attack.purify([Sample("a", image, "which?", "it")], AttackerWorld())
    assert (sample.question, sample.answer) == ("which?", "it")
    return sample.image


@pytest.mark.parametrize(
    ("config", "size"),
    [
        ({}, (60, 44)),
        ({"scale": 0.5}, (30, 22)),
        ({"longest": 30}, (30, 22)),
        ({"longest": 1080}, (60, 44)),
        ({"scale": 0.5, "longest": 40}, (30, 22)),
        ({"scale": 0.9, "longest": 30}, (30, 22)),
        ({"scale": 0.001}, (1, 1)),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA"])
def test_sizes(mode: str, config: dict[str, object], size: tuple[int, int]) -> None:
    photo = Image.fromarray(photographs.astronaut()).resize((60, 44)).convert(mode)
    found = resized(photo, **config)
    assert (found.size, found.mode) == (size, mode)
    if size == (60, 44):
        assert found.tobytes() == photo.tobytes()


def test_filters_differ_and_average() -> None:
    photo = Image.fromarray(photographs.astronaut())
    found = [np.asarray(resized(photo, scale=0.3, filter=name), int) for name in ("lanczos", "bicubic", "bilinear")]
    assert not np.array_equal(found[0], found[1]) and not np.array_equal(found[1], found[2])
    assert all(abs(x.mean() - np.asarray(photo).mean()) < 1 for x in found)
