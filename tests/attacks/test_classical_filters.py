"""What sets each of the classical filters apart, on a photograph and on patterns of which the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from skimage import data as photographs

from arena.plugins.base import AttackerWorld, ImageAttack
from arena.plugins.registry import Registry
from attacks.image.noise_level import noise_level

FILTERS = ("median", "gaussian-noise", "sharpen", "frequency-filter", "tv", "bilateral", "nl-means", "wavelet")


def filtered(id: str, *pixels: np.ndarray, seed: int = 0, **config: object) -> list[np.ndarray]:
    """Pictures after an attack, as float64."""
    attack = Registry().create("attack", id, config)
    assert isinstance(attack, ImageAttack)
    images = attack.purify_images([Image.fromarray(x) for x in pixels], AttackerWorld(seed))
    return [np.asarray(image, float) for image in images]


def photo(side: int = 128) -> np.ndarray:
    return np.asarray(Image.fromarray(photographs.astronaut()).resize((side, side), Image.Resampling.LANCZOS))


def error(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.square(x.astype(float) - y).mean())


def bytes_of(x: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(x), 0, 255).astype(np.uint8)


def variation(x: np.ndarray) -> float:
    return sum(float(np.abs(np.diff(x.astype(float), axis=axis)).mean()) for axis in (0, 1))


def noised(kind: str, level: float = 8) -> np.ndarray:
    """The photograph with Gaussian noise, or with signs as an adversarial perturbation of the whole budget has them."""
    rng, clean = np.random.default_rng(0), photo()
    noise = rng.standard_normal(clean.shape) if kind == "gaussian" else rng.choice([-1, 1], clean.shape)
    return bytes_of(clean + level * noise)


def grating(cycles: float, side: int = 64) -> np.ndarray:
    """Stripes of so many cycles per pixel around mid-grey, amplitude 100."""
    row = 128 + 100 * np.cos(2 * np.pi * cycles * (np.arange(side) + 0.5))
    return bytes_of(np.tile(row, (side, 1)))


def edge(side: int = 40) -> np.ndarray:
    return np.repeat(np.array([[60, 200]], np.uint8), side // 2, axis=1).repeat(side, axis=0)


def test_the_median_takes_salt_and_pepper_and_leaves_an_edge() -> None:
    rng, clean = np.random.default_rng(0), edge()
    spots = rng.choice([0, 1, 2], clean.shape, p=[0.96, 0.02, 0.02])
    salted = np.where(spots == 0, clean, np.where(spots == 1, 0, 255)).astype(np.uint8)
    assert error(filtered("median", salted)[0], clean) < 0.05 * error(salted, clean)
    assert np.array_equal(filtered("median", clean)[0], clean)
    (wide,) = filtered("median", np.pad(np.full((3, 3), 255, np.uint8), 8), radius=3)
    assert not wide.any()  # nine pixels of forty-nine
    (narrow,) = filtered("median", np.pad(np.full((3, 3), 255, np.uint8), 8), radius=1)
    assert narrow.any()


def test_gaussian_noise_has_its_sigma() -> None:
    grey = np.full((200, 200, 3), 128, np.uint8)
    for sigma in (0.02, 0.1):
        noise = filtered("gaussian-noise", grey, sigma=sigma)[0] - 128
        assert abs(noise.mean()) < 0.2 and noise.std() == pytest.approx(255 * sigma, rel=0.02)
        kurtosis = (noise**4).mean() / (noise**2).mean() ** 2
        assert kurtosis == pytest.approx(3, abs=0.1)  # 1.8 where noise is uniform
        assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.03  # channels by themselves


def test_gaussian_noise_is_another_for_each_picture_and_seed_but_not_for_another_order() -> None:
    one, two = (np.full((32, 32, 3), value, np.uint8) for value in (100, 101))
    first, second = filtered("gaussian-noise", one, two)
    assert not np.array_equal(first - 100, second - 101)
    assert abs(np.corrcoef((first - 100).ravel(), (second - 101).ravel())[0, 1]) < 0.1
    again = filtered("gaussian-noise", two, one)
    assert np.array_equal(again[1], first) and np.array_equal(again[0], second)
    assert not np.array_equal(filtered("gaussian-noise", one, seed=1)[0], first)
    tall = np.full((64, 16, 3), 100, np.uint8)  # the bytes of `one` in another shape
    assert not np.array_equal(filtered("gaussian-noise", tall)[0].ravel(), first.ravel())


def test_sharpening_raises_gradients_and_overshoots_at_an_edge() -> None:
    values = [variation(photo())] + [variation(filtered("sharpen", photo(), amount=a)[0]) for a in (0.5, 1.0, 2.0)]
    assert values == sorted(values) and values[-1] > 1.5 * values[0]
    (sharp,) = filtered("sharpen", edge())
    assert sharp.min() < 60 and sharp.max() > 200 and sharp[20, 0] == 60 and sharp[20, -1] == 200


@pytest.mark.parametrize(("cycles", "left"), [(1 / 16, 1.0), (1 / 8, 1.0), (1 / 4, 0.5), (3 / 8, 0.04), (1 / 2, 0.0)])
def test_the_frequency_filter_keeps_what_is_low(cycles: float, left: float) -> None:
    """What is left of stripes is `1 / (1 + (f / cutoff)^8)` of their amplitude, in either direction."""
    before = grating(cycles)
    for x in (before, before.T.copy()):
        after = filtered("frequency-filter", x, cutoff=0.25)[0]
        contrast = (after - 128).std() / max((x.astype(float) - 128).std(), 1e-9)
        assert contrast == pytest.approx(left, abs=0.03)


def test_the_frequency_filter_is_round_and_does_not_wrap_around() -> None:
    rows, columns = np.indices((64, 64)) + 0.5
    diagonal = bytes_of(128 + 100 * np.cos(2 * np.pi * 0.22 * rows) * np.cos(2 * np.pi * 0.22 * columns))
    after = filtered("frequency-filter", diagonal, cutoff=0.25, order=64)[0]
    assert np.abs(after - 128)[16:48, 16:48].max() < 15  # 0.31 cycles a pixel, though 0.22 along each side
    slope = np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1))
    assert np.abs(filtered("frequency-filter", slope, cutoff=0.1)[0] - slope).max() < 10  # 252 beside 0 if it did


def test_total_variation_falls_the_more_the_weight_is() -> None:
    noisy = noised("gaussian")
    values = [variation(noisy)] + [variation(filtered("tv", noisy, weight=w)[0]) for w in (0.02, 0.1, 0.5)]
    assert values == sorted(values, reverse=True) and values[2] < 0.5 * values[0]
    rng, clean = np.random.default_rng(0), edge()
    (smooth,) = filtered("tv", bytes_of(clean + 10 * rng.standard_normal(clean.shape)))
    assert smooth[:, :19].std() < 2 and smooth[5:-5, 20].mean() - smooth[5:-5, 19].mean() > 100


def test_the_bilateral_filter_keeps_an_edge_that_blur_does_not() -> None:
    rng, clean = np.random.default_rng(0), edge()
    noisy = bytes_of(clean + 6 * rng.standard_normal(clean.shape))
    kept, blurred = filtered("bilateral", noisy)[0], filtered("blur", noisy, sigma=1.5)[0]
    step = [x[:, 20].mean() - x[:, 19].mean() for x in (kept, blurred)]
    assert step[0] > 130 and step[1] < 60
    assert kept[:, :15].std() < 0.4 * noisy[:, :15].std()  # and what is no edge is smoothed


def test_the_bilateral_filter_weighs_by_distance_and_by_colour() -> None:
    """Its answer to a bright pixel, by the formula."""
    x = np.zeros((21, 21), np.uint8)
    x[10, 10] = 255
    (answer,) = filtered("bilateral", x, sigma_color=2, sigma_spatial=1)
    places = np.arange(-3, 4)
    near = np.exp(-(places[:, None] ** 2 + places**2) / 2)
    unlike = np.exp(-1 / (2 * 2**2))
    expected = unlike * near / (near.sum() - near + unlike * near)
    expected[3, 3] = 1 / (1 + unlike * (near.sum() - 1))
    assert np.abs(answer[7:14, 7:14] - 255 * expected).max() <= 0.51
    assert answer.sum() == answer[7:14, 7:14].sum()


def test_the_bilateral_filter_is_the_same_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    (whole,) = filtered("bilateral", photo(60))
    monkeypatch.setattr("attacks.image.bilateral.BAND", 7 * 60)
    assert np.array_equal(filtered("bilateral", photo(60))[0], whole)


@pytest.mark.parametrize("kind", ["gaussian", "signs"])
@pytest.mark.parametrize("id", ["nl-means", "wavelet", "bilateral"])
def test_denoisers_bring_a_noised_picture_nearer_to_the_clean_one(id: str, kind: str) -> None:
    clean, noisy = photo(), noised(kind)
    assert error(filtered(id, noisy)[0], clean) < 0.8 * error(noisy, clean)
    assert error(filtered(id, clean)[0], clean) < 0.5 * error(noisy, clean)  # and cost less than the noise did


@pytest.mark.parametrize("id", ["nl-means", "wavelet"])
def test_denoisers_measure_the_noise_unless_they_are_told(id: str) -> None:
    clean = photo()
    estimated = [error(filtered(id, x)[0], x) for x in (clean, noised("gaussian", 4), noised("gaussian", 16))]
    assert estimated[0] < estimated[1] < estimated[2]
    told = [error(filtered(id, clean, sigma=s)[0], clean) for s in (0.01, 0.03, 0.1)]
    assert told[0] < told[1] < told[2]
    flat = edge()  # no noise to be found
    assert np.array_equal(filtered(id, flat)[0], flat)


def test_the_noise_level_is_that_of_the_noise() -> None:
    rng = np.random.default_rng(0)
    for shape in ((128, 128), (128, 128, 3)):
        assert noise_level(0.5 + 0.03 * rng.standard_normal(shape)) == pytest.approx(0.03, rel=0.05)
    assert noise_level(np.full((1, 1), 0.5)) == 0 and noise_level(edge() / 255) == 0
    steep = np.add.outer(np.arange(64.0), np.arange(64.0)) / 128  # no noise either
    assert noise_level(steep) < 1e-3


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (30, 1), (2, 3), (300, 2)])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "LA", "RGBA"])
@pytest.mark.parametrize("id", FILTERS)
def test_small_and_narrow_pictures(id: str, mode: str, size: tuple[int, int]) -> None:
    """Any size and mode, palettes too; a picture of one colour stays as it is, but for noise that is put on it."""
    attack = Registry().create("attack", id, {})
    assert isinstance(attack, ImageAttack)
    one_colour = Image.new("RGB", size, (200, 10, 99)).convert(mode)
    drawn = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).convert(mode)
    first, second = attack.purify_images([one_colour, drawn], AttackerWorld(0))
    assert (first.size, first.mode) == (second.size, second.mode) == (size, mode)
    if id != "gaussian-noise" and mode != "P":  # to which a conversion brings several colours
        change = np.asarray(first.convert("RGB"), int) - np.asarray(one_colour.convert("RGB"), int)
        assert np.abs(change).max() <= 1


@pytest.mark.parametrize("id", FILTERS)
def test_pictures_come_one_at_a_time(id: str) -> None:
    """The first is done before the second is touched."""
    attack = Registry().create("attack", id, {})
    assert isinstance(attack, ImageAttack)
    broken = Image.fromarray(photo(16))
    broken.convert = broken.tobytes = None  # type: ignore[method-assign,assignment]
    broken.__dict__["_mode"] = "CMYK"
    images = iter(attack.purify_images([Image.fromarray(photo(16)), broken], AttackerWorld(0)))
    assert next(images).size == (16, 16)
    with pytest.raises(TypeError):
        next(images)
