"""Orthogonal projection: what a linear probe tells answers by is taken out (Sandoval-Segura 2023, arXiv 2305.19254).

1. A linear classifier without bias, logits W x, learns the answers of the release from its raw pixels, x in [0, 1].
2. Pictures are projected onto the orthogonal complement of the rows of W (the authors' Q is of a QR decomposition of
   W^T):

    x' = x - Q Q^T x = x - W^T (W W^T)^+ W x

Perturbations that a class has in common are found as weights of the probe, since they are the simplest thing that tells
the classes; perturbations of each sample by itself are not.

Adapted:

* The class is the sample's answer, or a cluster of answers where there are more than 64.
* The probe: the authors train 20 epochs of SGD on 50,000 pictures of 32 x 32 (batches of 1,024, learning rate 0.1, a
  tenth of it after half and again after three quarters), whose steps are too long to settle, so that rounding decides
  where it ends. Here W is the minimum, which is one, of the mean cross entropy with a penalty,

    mean CE(W x, y) + penalty / 2 * (D / 3072) * |W|^2

  over pictures of D values. The default is one over the sum of the authors' learning rates: about as far as descent of
  that length goes. It is found through the inner products of the pictures; of more than 4,096 pictures the probe learns
  from as many, evenly spaced.
* Sizes: the probe sees pictures averaged (A, a linear map of each size) onto a grid of their median size, at most
  `side` pixels along a side. Where all have one size within that, A is the identity. Projected is every picture at its
  own size, by the rows of W A. Patterns that do not scale with the picture are found in pictures of one size alone.
* What comes out is clipped to the range of colours and rounded to 8 bits; the authors train on the numbers as they are.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from math import ceil

import numpy as np
from PIL import Image
from pydantic import Field
from scipy.linalg import eigh
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from arena.budget import MODES
from arena.data.colours import colours, recoloured
from arena.data.sample import Sample
from arena.plugins.base import Attack, AttackerWorld, PluginConfig
from defenses.classes import answer_classes

CIFAR = 3 * 32 * 32
"""Values of the pictures that the penalty is said for."""
MOST = 4096
"""Pictures that the probe learns from: their inner products take 128 MB."""
COLUMNS = 4096
"""Values of all these pictures that are in memory at a time."""
TINY = 1e-10
"""Share of the largest eigenvalue below which one is taken for 0."""


class OrthogonalProjection(Attack):
    """Pictures without the directions by which a linear probe on raw pixels tells the released answers.

    Strikes perturbations that all pictures of an answer share, such as those of `lsp`, `ops` and `em-class`. It also
    takes what of clean pictures a linear probe tells answers by; of an answer with few pictures that is much of these,
    which the probe knows by heart. A release with one answer, and a picture of no more values than there are
    directions, stay as they are.
    """

    packages = ("numpy", "scipy", "scikit-learn")

    class Config(PluginConfig):
        penalty: float = Field(
            0.02, gt=0, description="on the probe's squared weights, for pictures of 3,072 values; see the method"
        )
        side: int = Field(
            224, ge=1, le=1024, description="largest side in pixels of what the probe sees; larger ones are averaged"
        )

    config: Config

    def purify(self, samples: Sequence[Sample], world: AttackerWorld) -> Iterable[Sample]:
        with threadpool_limits(1):  # the same sums on any number of threads
            classes = answer_classes(samples, seed=0)  # the clusters are no draw of the attack's
            if len(set(classes.tolist())) < 2:
                return samples
            grid = grid_of([s.image.size for s in samples], self.config.side)
            weights = probe([s.image for s in samples], classes, grid, self.config.penalty)
        remove = Projection(weights)
        return (s.with_content(remove(s.image), s.question) for s in samples)


def grid_of(sizes: Sequence[tuple[int, int]], side: int) -> tuple[int, int]:
    """Rows and columns of what the probe sees of pictures of these (width, height): their medians, at most `side`."""
    width, height = np.median(np.array(sizes), axis=0)
    scale = min(1.0, side / max(width, height))
    return max(1, round(scale * height)), max(1, round(scale * width))


def probe(images: Sequence[Image.Image], classes: np.ndarray, grid: tuple[int, int], penalty: float) -> np.ndarray:
    """The weights of a penalised logistic regression without bias, float64 ``(K, 3, rows, columns)``."""
    chosen = np.unique(np.linspace(0, len(images) - 1, min(len(images), MOST)).round().astype(int))
    size = 3 * grid[0] * grid[1]
    with tempfile.TemporaryFile() as file:
        seen = np.memmap(file, np.float32, "w+", shape=(len(chosen), size))
        for row, i in enumerate(chosen):
            seen[row] = averaged(values(images[i]), grid).ravel()
        parts = [slice(at, at + COLUMNS) for at in range(0, size, COLUMNS)]
        inner = np.zeros((len(chosen), len(chosen)))
        for part in parts:
            block = seen[:, part].astype(np.float64)
            inner += block @ block.T
        # Pictures by their coordinates along the principal axes: as many as pictures, however many values these have.
        spread, axes = eigh(inner)
        kept = spread > TINY * spread[-1]
        lengths, axes = np.sqrt(spread[kept]), axes[:, kept]
        strength = 1 / (penalty * size / CIFAR * len(chosen))
        if len(set(classes[chosen].tolist())) == 2:  # of which scikit-learn has one row: the difference of the two
            strength *= 2
        learner = LogisticRegression(C=strength, fit_intercept=False, tol=1e-6, max_iter=5000)
        with warnings.catch_warnings():  # as many answers as pictures, nearly, are classes all the same
            warnings.filterwarnings("ignore", message="The number of unique classes")
            learner.fit(axes * lengths, classes[chosen])
        mixture = learner.coef_ / lengths @ axes.T
        weights = np.concatenate([mixture @ seen[:, part].astype(np.float64) for part in parts], axis=1)
        del seen
    return weights.reshape(-1, 3, *grid)


class Projection:
    """The projection of pictures of any size onto the complement of `weights`, float ``(K, 3, rows, columns)``."""

    def __init__(self, weights: np.ndarray) -> None:
        self.weights = weights
        self.grid = (weights.shape[2], weights.shape[3])
        self._inverse = cache(self._inverse_of)

    def __call__(self, image: Image.Image) -> Image.Image:
        x = values(image)
        with threadpool_limits(1):
            told = self.weights.reshape(len(self.weights), -1) @ averaged(x, self.grid).ravel()
            inverse, rank = self._inverse(x.shape[:2], x.shape[2])
            if rank >= x.size:
                return image
            common = np.tensordot(inverse @ told, self.weights, 1)
            common = common if x.shape[2] == 3 else common.sum(0, keepdims=True)
            left, right = (averages(side, cells) for side, cells in zip(x.shape[:2], self.grid, strict=True))
            for channel, plane in enumerate(common):
                x[:, :, channel] -= left.T @ plane @ right
        return painted(image, x)

    def _inverse_of(self, sides: tuple[int, int], channels: int) -> tuple[np.ndarray, int]:
        """(M M^T)^+ of the rows M of the probe on pictures of this height and width, ``(K, K)``, and the rank of M."""
        rows = self.weights if channels == 3 else self.weights.sum(1, keepdims=True)
        left, right = (averages(side, cells) for side, cells in zip(sides, self.grid, strict=True))
        moved = np.einsum("rs,kcst,tu->kcru", left @ left.T, rows, right @ right.T, optimize=True)
        inner = moved.reshape(len(rows), -1) @ rows.reshape(len(rows), -1).T
        spread, axes = eigh((inner + inner.T) / 2)
        kept = spread > TINY * max(spread[-1], np.finfo(float).tiny)
        return (axes[:, kept] / spread[kept]) @ axes[:, kept].T, int(kept.sum())


@lru_cache(maxsize=64)
def averages(side: int, cells: int) -> np.ndarray:
    """The matrix ``(cells, side)`` that averages pixels along a side into cells, which overlap where they do not fit:
    adaptive average pooling. The identity where there are as many."""
    matrix = np.zeros((cells, side))
    for cell in range(cells):
        start, stop = cell * side // cells, ceil((cell + 1) * side / cells)
        matrix[cell, start:stop] = 1 / (stop - start)
    return matrix


def averaged(x: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Values ``(H, W, 1 or 3)`` on the grid, float64 ``(3, rows, columns)``; a grey picture has three equal planes."""
    left, right = (averages(side, cells) for side, cells in zip(x.shape[:2], grid, strict=True))
    seen = np.stack([left @ x[:, :, channel] @ right.T for channel in range(x.shape[2])])
    return np.broadcast_to(seen, (3, *grid))


def values(image: Image.Image) -> np.ndarray:
    """The colours of a picture without alpha, float64 ``(H, W, 1 or 3)`` in [0, 1]."""
    return colours(image if image.mode in MODES else image.convert("RGB")) / 255


def painted(image: Image.Image, x: np.ndarray) -> Image.Image:
    """A picture of the mode and alpha channel of `image` with colours as `values` has them, clipped and rounded."""
    array = np.rint(np.clip(x, 0, 1) * 255).astype(np.uint8)
    if image.mode not in MODES:
        return Image.fromarray(array).convert(image.mode)
    return Image.fromarray(recoloured(image, array))
