"""Random crop and pad: places are drawn, each picture has draws of its own, and the seed is what they depend on."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from arena.plugins.base import AttackerWorld
from attacks.image.crop_pad import CropPad

WHITE = Image.new("L", (40, 30), 255)


def corners(images: list[Image.Image], seed: int) -> list[tuple[int, ...]]:
    attack = CropPad(CropPad.Config(side=0.5, border="black"))
    return [image.getbbox() for image in attack.purify_images(images, AttackerWorld(seed=seed))]


def test_crops_land_in_many_places_of_the_right_size() -> None:
    found = corners([WHITE] * 40, seed=0)
    assert {(right - left, bottom - top) for left, top, right, bottom in found} == {(20, 15)}
    assert len(set(found)) > 30
    lefts, tops = np.array(found).T[:2]
    assert (lefts.min(), tops.min()) < (4, 4) and lefts.max() > 16 and tops.max() > 11  # the whole range: 0..20, 0..15


def test_draws_follow_the_seed_and_not_the_other_pictures() -> None:
    assert corners([WHITE] * 5, seed=1) == corners([WHITE] * 5, seed=1) != corners([WHITE] * 5, seed=2)
    large = Image.new("RGB", (90, 90), "white")
    assert corners([large, WHITE], seed=1)[1] == corners([WHITE, WHITE, WHITE], seed=1)[1]


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 2)])
def test_tiny_pictures_keep_at_least_a_pixel(size: tuple[int, int]) -> None:
    for border, white in (("black", 1), ("edge", size[0] * size[1])):
        attack = CropPad(CropPad.Config(side=0.01, border=border))
        (image,) = attack.purify_images([Image.new("RGB", size, "white")], AttackerWorld(seed=0))
        assert image.size == size and np.asarray(image, int).sum() == white * 3 * 255
