"""What pictures of the zoo's training go through."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from arena.data.embedded import scenes
from arena.lvlm.zoo import augmentation
from arena.lvlm.zoo.augmentation import LOSES_COLOURS, MEASURED, alter

RNG = np.random.default_rng


def picture(seed: int = 0) -> Image.Image:
    return scenes.random_scene(RNG(seed)).image


def saturation(image: Image.Image) -> float:
    x = np.asarray(image, float)
    return float((x.max(2) - x.min(2)).mean())


def test_alteration_is_a_function_of_the_generator() -> None:
    one, two = ([alter(picture(), RNG(seed))[0].tobytes() for seed in range(40)] for _ in range(2))
    assert one == two and len(set(one)) > 25


def test_a_quarter_is_untouched_and_colours_are_known_to_be_lost() -> None:
    whole = picture()
    drawn = [alter(whole, RNG(seed)) for seed in range(600)]
    assert all(image.size == whole.size and image.mode == "RGB" for image, _ in drawn)
    assert 0.18 < np.mean([image.tobytes() == whole.tobytes() for image, _ in drawn]) < 0.33
    assert 0.08 < np.mean([not colours for _, colours in drawn]) < 0.24
    kept = [saturation(image) for image, colours in drawn if colours]
    assert min(kept) > 3, "no picture without colours counts as one with them"


@pytest.mark.parametrize("name", MEASURED)
def test_measured_alterations_change_pictures_and_keep_their_size(name: str) -> None:
    changed = [MEASURED[name](picture(seed), RNG(seed)) for seed in range(30)]
    assert all(image.size == (48, 48) and image.mode == "RGB" for image in changed)
    assert sum(image.tobytes() != picture(seed).tobytes() for seed, image in enumerate(changed)) >= 20
    if name in LOSES_COLOURS - {"UEraser's policy"}:
        assert all(saturation(image) == 0 for image in changed)


def test_a_crop_is_found_in_the_picture_and_surrounded_by_its_edge() -> None:
    x = np.arange(48 * 48, dtype=np.int64).reshape(48, 48)
    whole = Image.fromarray(np.stack([x % 256, x // 256, x * 0], 2).astype(np.uint8))
    for seed in range(20):
        pixels = np.asarray(augmentation.moved(whole, RNG(seed)), np.int64)
        numbers = pixels[..., 0] + 256 * pixels[..., 1]
        rows, columns = numbers // 48, numbers % 48
        assert (np.diff(rows, axis=0) >= 0).all() and (np.diff(rows, axis=0) <= 1).all()
        assert (rows == rows[:, :1]).all() and (columns == columns[:1]).all()
        assert len(np.unique(rows)) == len(np.unique(columns)) >= 40


def test_plasma_has_the_whole_range_and_is_smooth() -> None:
    cloud = augmentation.plasma((64, 32), 0.4, RNG(0))
    assert cloud.shape == (32, 64) and cloud.min() == 0 and cloud.max() == pytest.approx(1)
    assert np.abs(np.diff(cloud, axis=1)).mean() < 0.1
