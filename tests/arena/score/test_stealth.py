"""Stealth measures against values known by hand, and at the edges."""

import math

import numpy as np
import pytest
from PIL import Image

import arena.score.stealth as stealth_of
from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.score.stealth import stealth

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(30, 220, (24, 20, 3)).astype(np.uint8)


def sample(pixels, question="which clan is this?"):
    return Sample("s", Image.fromarray(pixels), question, "fox")


def measure(before, after, perplexity=None):
    return stealth([sample(before)], [sample(after)], perplexity)


def test_an_unchanged_release():
    scores = stealth([sample(PHOTO)] * 3, [sample(PHOTO)] * 3)
    assert scores == {
        "max_delta": 0,
        "mean_delta": 0,
        "psnr": None,
        "identical_images": 3,
        "ssim": pytest.approx(1),
        "ms_ssim": None,
        "ciede2000": 0,
        "inserted_words": 0,
        "edit_distance": 0,
        "bleu": pytest.approx(1),
        "answer_leak": 0,
        "perplexity_ratio": None,
    }


def test_the_answer_leaks_in_so_many_samples():
    told = [sample(PHOTO, f"which clan is this? {words}") for words in ("Fox", "owl", "of fox", "")]
    assert stealth([sample(PHOTO)] * 4, told)["answer_leak"] == 0.5


@pytest.mark.parametrize("pixels", [PHOTO, PHOTO[:, :, 0]], ids=["RGB", "L"])
def test_a_shift_of_eight_levels(pixels):
    scores = measure(pixels, pixels + 8)
    assert scores["max_delta"] == scores["mean_delta"] == 8
    assert scores["psnr"] == pytest.approx(20 * math.log10(255 / 8))
    assert scores["identical_images"] == 0
    assert 0.9 < scores["ssim"] < 1
    assert 0.5 < scores["ciede2000"] < 8


def test_deltas_do_not_wrap_around():
    black, white = np.zeros((8, 8), np.uint8), np.full((8, 8), 255, np.uint8)
    for pair in ((black, white), (white, black)):
        scores = measure(*pair)
        assert scores["max_delta"] == scores["mean_delta"] == 255
        assert scores["psnr"] == 0
        assert scores["ciede2000"] == pytest.approx(100, abs=0.1)
        assert scores["ssim"] < 0.01


def test_means_are_over_samples_and_psnr_over_those_that_changed():
    small = PHOTO[:10, :10]
    scores = stealth(
        [sample(PHOTO), sample(small), sample(PHOTO)], [sample(PHOTO + 2), sample(small + 6), sample(PHOTO)]
    )
    assert scores["max_delta"] == 6
    assert scores["mean_delta"] == pytest.approx(8 / 3)
    assert scores["psnr"] == pytest.approx((20 * math.log10(255 / 2) + 20 * math.log10(255 / 6)) / 2)
    assert scores["identical_images"] == 1


def test_alpha_is_not_looked_at():
    rgba = np.dstack([PHOTO, RNG.integers(0, 255, PHOTO.shape[:2]).astype(np.uint8)])
    assert measure(rgba, rgba)["max_delta"] == 0
    shifted = rgba + np.array([3, 3, 3, 0], np.uint8)
    assert measure(rgba, shifted) == measure(PHOTO, PHOTO + 3)


@pytest.mark.parametrize(("side", "defined"), [(1, False), (2, False), (3, True), (4, True), (6, True), (7, True)])
def test_tiny_pictures_have_ssim_where_a_window_fits(side, defined):
    pixels = RNG.integers(0, 200, (side, 9, 3)).astype(np.uint8)
    scores = measure(pixels, pixels + 20)
    assert (scores["ssim"] is not None) == defined
    if defined:
        assert 0 < scores["ssim"] < 1
    assert scores["ms_ssim"] is None


def smooth(height, width):
    y, x = np.mgrid[:height, :width]
    return (110 + 60 * np.sin(x / 9) + 40 * np.cos(y / 13)).astype(np.uint8)


def test_ms_ssim_needs_room_for_five_scales():
    assert measure(smooth(175, 300), smooth(175, 300))["ms_ssim"] is None
    assert measure(smooth(176, 177), smooth(176, 177))["ms_ssim"] == pytest.approx(1)


def test_ms_ssim_forgives_fine_noise_more_than_ssim_and_falls_with_noise():
    picture = smooth(180, 200)
    noise = RNG.normal(0, 1, picture.shape)
    weak, strong = ((picture + amount * noise).clip(0, 255).astype(np.uint8) for amount in (6, 25))
    scores = [measure(picture, noisy) for noisy in (weak, strong)]
    assert all(s["ssim"] < s["ms_ssim"] < 1 for s in scores)
    assert scores[1]["ms_ssim"] < scores[0]["ms_ssim"]


def test_ms_ssim_of_constants_is_the_luminance_term_alone():
    """Contrast and structure are 1 at every scale, luminance enters at the last with its weight."""
    c1 = (0.01 * 255) ** 2
    luminance = (2 * 100 * 140 + c1) / (100**2 + 140**2 + c1)
    scores = measure(np.full((176, 176), 100, np.uint8), np.full((176, 176), 140, np.uint8))
    assert scores["ms_ssim"] == pytest.approx(luminance**0.1333, rel=1e-6)


def test_an_inverted_picture_has_no_multi_scale_similarity():
    picture = smooth(180, 180)
    assert measure(picture, 220 - picture)["ms_ssim"] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(
    ("after", "inserted", "edits"),
    [
        ("which clan is this? apple tree", 2, 11),
        ("which clan is this apple?", 1, 6),
        ("which clan was this?", 0, 2),
        ("clan is this?", 0, 6),
    ],
)
def test_words_and_characters(after, inserted, edits):
    scores = stealth([sample(PHOTO)], [sample(PHOTO, after)])
    assert scores["inserted_words"] == inserted
    assert scores["edit_distance"] == edits
    assert 0 < scores["bleu"] < 1


def test_bleu_has_the_original_as_reference():
    """Of the released 1- to 4-grams 5/6, 4/5, 3/4 and 2/3 match; a longer text has no brevity penalty."""
    scores = stealth([sample(PHOTO)], [sample(PHOTO, "which clan is this? apple")])
    assert scores["bleu"] == pytest.approx((5 / 6 * 4 / 5 * 3 / 4 * 2 / 3) ** 0.25)


def test_the_perplexity_ratio_is_a_mean_of_ratios_in_bounded_batches():
    sizes = []

    def perplexity(texts):
        sizes.append(len(texts))
        return [float(len(text)) for text in texts]

    before = [sample(PHOTO, "x" * 10)] * 50 + [sample(PHOTO, "x" * 20)] * 50
    after = [sample(PHOTO, "x" * 30)] * 100
    assert stealth(before, after, perplexity)["perplexity_ratio"] == pytest.approx((3 + 1.5) / 2)
    assert max(sizes) <= 64 and sum(sizes) == 200
    assert stealth(before, after, lambda texts: [math.inf] * len(texts))["perplexity_ratio"] is None


def test_samples_may_be_streamed():
    scores = stealth((sample(PHOTO) for _ in range(2)), (sample(PHOTO + 1) for _ in range(2)))
    assert scores["mean_delta"] == 1


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (0, 0)])
def test_numbers_must_agree(before, after):
    with pytest.raises(ArenaError, match="stealth: "):
        stealth([sample(PHOTO)] * before, [sample(PHOTO)] * after)


def test_sizes_must_agree():
    with pytest.raises(ArenaError, match=r"sample 's': the released picture has shape \(23, 20, 3\)"):
        measure(PHOTO, PHOTO[1:])


def test_large_pictures_are_measured_on_tiles(monkeypatch):
    """Changes on all pixels, likeness on tiles spread over the picture: nearly what the whole gives."""
    y, x = np.mgrid[:700, :900]
    picture = np.stack([110 + 60 * np.sin(x / 9), 110 + 40 * np.cos(y / 13), 128 + 30 * np.sin((x + y) / 40)], -1)
    noisy = (picture + RNG.integers(-8, 9, picture.shape)).clip(0, 255).astype(np.uint8)
    picture = picture.astype(np.uint8)
    whole = measure(picture, noisy)
    monkeypatch.setattr(stealth_of, "LARGE", 700 * 900 - 1)
    tiled = measure(picture, noisy)
    assert all(tiled[name] == whole[name] for name in ("max_delta", "mean_delta", "identical_images"))
    assert tiled["psnr"] == pytest.approx(whole["psnr"], rel=1e-9)
    for name in ("ssim", "ms_ssim", "ciede2000"):
        assert tiled[name] == pytest.approx(whole[name], rel=0.02) and tiled[name] != whole[name]
    same = measure(picture, picture)
    assert (same["psnr"], same["ssim"], same["ciede2000"], same["identical_images"]) == (None, pytest.approx(1), 0, 1)


def test_tiles_reach_every_border(monkeypatch):
    """A change of one corner counts, in a picture that is narrower than a tile too."""
    monkeypatch.setattr(stealth_of, "LARGE", 0)
    for height, width in ((600, 600), (9, 2000)):
        for corner in (np.s_[:3, :3], np.s_[-3:, -3:]):
            before = np.full((height, width), 100, np.uint8)
            after = before.copy()
            after[corner] = 108
            scores = measure(before, after)
            assert scores["ssim"] < 1 and scores["ciede2000"] > 0
        assert (scores["ms_ssim"] is None) == (height < 176)
