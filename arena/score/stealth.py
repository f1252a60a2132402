"""How much a release shows: distances between original and released samples, on the released bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import zip_longest

import numpy as np
from rapidfuzz.distance import Levenshtein
from sacrebleu.metrics.bleu import BLEU
from scipy.ndimage import gaussian_filter
from skimage.color import deltaE_ciede2000, gray2rgb, rgb2lab
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from arena.budget import words
from arena.data.colours import colours
from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.leak import given_away

# Wang, Simoncelli and Bovik 2003: the weights of the five scales, and the constants and window of SSIM.
_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
_MARGIN = 5
_MS_SSIM_SIDE = (2 * _MARGIN + 1) * 2 ** (len(_WEIGHTS) - 1)

LARGE = 2**21
"""Pixels up to which a picture is measured as a whole; a photograph of 12 megapixels would take half a minute."""

_TILES, _TILE = 4, 256

_CHUNK = 64


def stealth(
    originals: Iterable[Sample],
    released: Iterable[Sample],
    perplexity: Callable[[list[str]], list[float]] | None = None,
) -> dict[str, float | None]:
    """Means over pairs of samples in the same order; a value that is not defined is None.

    ``max_delta`` is the largest change over all samples and ``mean_delta`` the mean change, in 1/255; ``psnr`` in dB
    over the pictures that changed, ``identical_images`` counts the others; ``ssim`` (7 x 7 window, smaller for smaller
    pictures) and ``ms_ssim`` (pictures of at least 176 pixels a side) in [-1, 1]; ``ciede2000`` the mean colour
    difference; ``inserted_words``; ``edit_distance`` in characters; ``bleu`` in [0, 1] with the original as reference;
    ``answer_leak`` the share of samples whose inserted words hold the answer (`arena.leak`); ``perplexity_ratio``
    released to original, by `perplexity` of a batch of texts. Alpha is not looked at.

    Of pictures with more than `LARGE` pixels, SSIM, MS-SSIM and CIEDE2000 are means over 16 tiles of 256 x 256 pixels,
    at full resolution and spread evenly; what is said of changes and PSNR is of all pixels.

    Raises `ArenaError` if numbers of samples or sizes of pictures differ.
    """
    values: dict[str, list[float]] = {name: [] for name in _MEASURES}
    texts: list[tuple[str, str]] = []
    for original, other in zip_longest(originals, released):
        if original is None or other is None:
            raise ArenaError("stealth: the numbers of original and released samples differ: give one for each")
        pair = {**_image_measures(original, other), **_text_measures(original.question, other.question)}
        pair["answer_leak"] = float(given_away(original, other.question))
        for name, value in pair.items():
            if value is not None:
                values[name].append(value)
        texts.append((original.question, other.question))
    if not texts:
        raise ArenaError("stealth: there are no samples to compare: give at least one")
    scores: dict[str, float | None] = {
        name: (float(np.mean(found)) if found else None) for name, found in values.items()
    }
    scores["max_delta"] = max(values["max_delta"])
    scores["identical_images"] = float(len(texts) - len(values["psnr"]))
    scores["perplexity_ratio"] = _perplexity_ratio(texts, perplexity) if perplexity is not None else None
    return scores


_MEASURES = (
    "max_delta",
    "mean_delta",
    "psnr",
    "ssim",
    "ms_ssim",
    "ciede2000",
    "inserted_words",
    "edit_distance",
    "bleu",
    "answer_leak",
)


def _image_measures(original: Sample, released: Sample) -> dict[str, float | None]:
    before, after = colours(original.image), colours(released.image)
    if before.shape != after.shape:
        raise ArenaError(
            f"stealth: sample {original.id!r}: the released picture has shape {after.shape}, the original "
            f"{before.shape}: a release keeps size and channels"
        )
    delta = np.abs(after.astype(np.int16) - before)
    whole: dict[str, float | None] = {"max_delta": float(delta.max()), "mean_delta": float(delta.mean())}
    if before.shape[0] * before.shape[1] <= LARGE:
        psnr = peak_signal_noise_ratio(before, after, data_range=255) if delta.any() else None
        return {**whole, "psnr": None if psnr is None else float(psnr), **_look(before, after)}
    squares = sum(int(np.square(rows, dtype=np.int32).sum(dtype=np.int64)) for rows in delta)
    whole["psnr"] = 10 * math.log10(255**2 * delta.size / squares) if squares else None
    del delta
    tiles = [_look(before[place], after[place]) for place in _tiles(before.shape[0], before.shape[1])]
    means = {name: [value for tile in tiles if (value := tile[name]) is not None] for name in tiles[0]}
    return {**whole, **{name: float(np.mean(found)) if found else None for name, found in means.items()}}


def _look(before: np.ndarray, after: np.ndarray) -> dict[str, float | None]:
    """The measures of likeness, of uint8 ``(H, W, C)``."""
    lab = [rgb2lab(gray2rgb(values[:, :, 0]) if values.shape[2] == 1 else values) for values in (before, after)]
    return {
        "ssim": _ssim(before, after),
        "ms_ssim": _ms_ssim(before.astype(np.float64), after.astype(np.float64)),
        "ciede2000": float(deltaE_ciede2000(*lab).mean()),
    }


def _tiles(height: int, width: int) -> list[tuple[slice, slice]]:
    """`_TILES` x `_TILES` places of tiles, spread evenly from border to border; fewer where they would be the same."""

    def starts(length: int) -> list[int]:
        return sorted({round(i * max(0, length - _TILE) / (_TILES - 1)) for i in range(_TILES)})

    return [(slice(y, y + _TILE), slice(x, x + _TILE)) for y in starts(height) for x in starts(width)]


def _ssim(before: np.ndarray, after: np.ndarray) -> float | None:
    """SSIM of uint8 ``(H, W, C)``; None below 3 pixels a side, where no window fits."""
    side = min(before.shape[:2])
    if side < 3:
        return None
    window = min(7, side - 1 + side % 2)
    return float(structural_similarity(before, after, win_size=window, data_range=255, channel_axis=2))


def _ms_ssim(x: np.ndarray, y: np.ndarray) -> float | None:
    """Multi-scale SSIM of float ``(H, W, C)`` in [0, 255] over five scales; None where the last is below its window.

    By hand, since torchmetrics (1.9) judges the last scale with its mirrored border, which moves values by up to 3e-4,
    and takes some 30 times as long, and 87 GB for pictures of 6 megapixels.
    """
    if min(x.shape[:2]) < _MS_SSIM_SIDE:
        return None
    product = np.ones(x.shape[2])
    for scale, weight in enumerate(_WEIGHTS):
        mean_x, mean_y = _window(x), _window(y)
        var_x, var_y = _window(x * x) - mean_x**2, _window(y * y) - mean_y**2
        covariance = _window(x * y) - mean_x * mean_y
        similarity = (2 * covariance + _C2) / (var_x + var_y + _C2)
        if scale == len(_WEIGHTS) - 1:
            similarity = similarity * (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
        # Anti-correlated contrast would make a fractional power complex: it counts as no similarity.
        product *= np.maximum(similarity.mean((0, 1)), 0) ** weight
        x, y = _halved(x), _halved(y)
    return float(product.mean())


def _window(values: np.ndarray) -> np.ndarray:
    """The mean under an 11 x 11 Gaussian window, where the window lies inside the picture."""
    smooth = gaussian_filter(values, sigma=(1.5, 1.5, 0), radius=(_MARGIN, _MARGIN, 0))
    return np.asarray(smooth)[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]


def _halved(values: np.ndarray) -> np.ndarray:
    height, width, channels = values.shape
    even = values[: height // 2 * 2, : width // 2 * 2]
    return np.asarray(even.reshape(height // 2, 2, width // 2, 2, channels).mean((1, 3)))


@cache
def _bleu() -> BLEU:
    return BLEU(effective_order=True)


def _text_measures(original: str, released: str) -> dict[str, float | None]:
    edits = Levenshtein.editops(words(original), words(released))
    return {
        "inserted_words": float(sum(edit.tag == "insert" for edit in edits)),
        "edit_distance": float(Levenshtein.distance(original, released)),
        "bleu": float(_bleu().sentence_score(released, [original]).score) / 100,
    }


def chunks(before: Sequence[str], after: Sequence[str]) -> Iterator[list[str]]:
    """The texts as a model reads them, in batches, those before in turn with those after."""
    for start in range(0, len(before), _CHUNK):
        yield list(before[start : start + _CHUNK])
        yield list(after[start : start + _CHUNK])


def _perplexity_ratio(texts: list[tuple[str, str]], perplexity: Callable[[list[str]], list[float]]) -> float | None:
    ratios: list[float] = []
    parts = chunks([a for a, _ in texts], [b for _, b in texts])
    for before, after in zip(parts, parts, strict=True):
        ratios += [b / a for a, b in zip(perplexity(before), perplexity(after), strict=True)]
    mean = float(np.mean(ratios))
    return mean if np.isfinite(mean) else None
