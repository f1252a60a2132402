"""COIN: pixels come from near by, at random, and a filter that all pictures of a class went through is hidden."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression

from arena.budget import Budget
from arena.data.sample import Sample
from arena.plugins.base import AttackerWorld, DefenderWorld, ImageAttack
from arena.plugins.registry import Registry
from arena.release import build_release
from attacks.image.coin import Coin

ROWS, COLUMNS = np.indices((40, 60))


def coin(*images: np.ndarray, seed: int = 0, **config: float) -> list[np.ndarray]:
    attack = Coin(Coin.Config(**config))
    made = attack.purify_images([Image.fromarray(x) for x in images], AttackerWorld(seed=seed))
    return [np.asarray(image, float) for image in made]


def slopes(step: int) -> np.ndarray:
    """Red says the column, green the row, and blue the column again, in steps of so many levels."""
    return np.stack([step * COLUMNS, step * ROWS, step * COLUMNS], -1).astype(np.uint8)


@pytest.mark.parametrize("shift", [0.5, 2.0])
def test_each_pixel_comes_from_a_place_of_its_own_within_the_shift(shift: float) -> None:
    (after,) = coin(slopes(4), shift=shift)
    inner = (slice(3, -3), slice(3, -3))
    moved = (after - slopes(4))[inner] / 4
    assert np.abs(moved).max() <= shift + 0.126  # half a level, at four levels a pixel
    assert np.array_equal(after[inner][..., 0], after[inner][..., 2])  # colours move together
    for across in (moved[..., 0], moved[..., 1]):
        assert across.std() == pytest.approx(shift / np.sqrt(3), rel=0.08) and abs(across.mean()) < 0.08
        assert np.abs(np.corrcoef(across[:, 1:].ravel(), across[:, :-1].ravel())[0, 1]) < 0.1
    assert abs(np.corrcoef(moved[..., 0].ravel(), moved[..., 1].ravel())[0, 1]) < 0.1


def test_colours_between_pixels_are_interpolated_and_the_picture_goes_on_at_the_opposite_border() -> None:
    x = np.zeros((20, 20), np.uint8)
    x[:, 0] = 200
    (after,) = coin(x)
    assert 0 < (after[:, -1] > 0).mean() < 1 and 0 < (after[:, -2] > 0).mean() < 1  # from beyond the right border
    assert not after[:, 3:-2].any()
    assert len(np.unique(after)) > 20 and after.max() <= 200


def test_shifts_follow_the_seed_and_not_the_other_pictures() -> None:
    one, other = slopes(4), slopes(3)
    first, second = coin(one, one)
    assert not np.array_equal(first, second)
    assert np.array_equal(coin(other, one)[1], second) and not np.array_equal(coin(one, seed=1)[0], first)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P"])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 2), (300, 2)])
def test_pictures_of_any_size_and_mode(size: tuple[int, int], mode: str) -> None:
    one_colour = Image.new("RGB", size, (200, 10, 99)).convert(mode)
    (image,) = Coin().purify_images([one_colour], AttackerWorld(seed=0))
    assert (image.size, image.mode) == (size, mode)
    if mode != "P":  # to which a conversion brings several colours
        assert np.abs(np.asarray(image, int) - np.asarray(one_colour, int)).max() <= 1


# Against cuda


def textures(count: int) -> list[Sample]:
    """Noise without neighbourhoods: what neighbours have in common afterwards is a filter's."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return [Sample(str(i), Image.fromarray(x), "which clan?", "abcd"[i % 4]) for i, x in enumerate(pixels)]


def told(samples: Sequence[Sample]) -> float:
    """In how many of the pictures that it has not seen a learner tells the class by how alike neighbours are."""
    features = []
    for sample in samples:
        grey = np.asarray(sample.image.convert("L"), float)
        spectrum = np.abs(np.fft.fft2(grey - grey.mean())) ** 2
        alike = np.fft.ifft2(spectrum / spectrum.sum()).real * grey.size
        features.append(np.roll(alike, (3, 3), (0, 1))[:7, :7].ravel())
    answers, half = [s.answer for s in samples], len(samples) * 3 // 5
    learner = LogisticRegression(C=100, max_iter=5000).fit(features[:half], answers[:half])
    return float(learner.score(features[half:], answers[half:]))


@cache
def told_after(name: str) -> float:
    """`told` of a release of `cuda` after an attack, on average over three seeds of its filters."""
    budget, clean, shares = Budget(norm="unbounded", image=255), textures(160), []
    for seed in range(3):
        drafts = Registry().create("defense", "cuda").protect(clean, DefenderWorld(budget, seed))
        attack = Registry().create("attack", name)
        shares.append(told(list(attack.purify(build_release(clean, drafts, budget, None), AttackerWorld(seed=0)))))
    return float(np.mean(shares))


def test_the_filter_of_a_class_is_hidden() -> None:
    """Four classes: a quarter is chance."""
    assert isinstance(Registry().create("attack", "coin"), ImageAttack)
    assert told(textures(160)) < 0.4 and told_after("none") > 0.85
    assert told_after("coin") < 0.45


@pytest.mark.parametrize("name", ["jpeg", "grayscale", "bit-depth", "median", "gaussian-noise"])
def test_it_hides_the_filter_better_than_what_helps_against_added_noise(name: str) -> None:
    assert told_after("coin") + 0.05 < told_after(name)
