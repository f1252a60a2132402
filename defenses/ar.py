"""AR: autoregressive perturbations (Sandoval-Segura 2022, arXiv 2206.03693)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from pydantic import Field

from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.lvlm.perturbation import batches, pieces, planes, to_pixels
from arena.plugins.base import DefenderWorld, ImageDefense, Pixels, PluginConfig
from defenses.bounded import within
from defenses.claims import changes, free
from defenses.classes import answer_classes

CROP = 4
"""Rows and columns at the start of a signal that are cut off, of which two are Gaussian; the authors' number."""

PUBLISHED = 32
"""Side of the pictures that norms and responses are about in the authors' code."""

STARTS, DRAWN, MOST = 3, 64, 200_000
"""Starts from which the weights of a colour are tried, how many are drawn together, and how many at most."""

TOGETHER = 64
"""Samples of which those of one class and size are generated together."""

BEFORE = [(row, column) for row in range(3) for column in range(3)][:-1]
"""Where the weights of the eight pixels before stand in a filter; the ninth is the pixel itself."""


class AutoregressiveNoise(ImageDefense):
    """Noise in which every pixel is one weighted sum of the eight before it; a class has weights of its own.

        x[i, j] = sum over r, s in {0, 1, 2}, but not both 2, of b_yc[r, s] x[i - 2 + r, j - 2 + s]

    for class y and colour c. The first two rows and columns are Gaussian, anew for each sample; the first four are cut
    off, and the rest is scaled to L2 = radius * sqrt(d / 3072), d the number of colour values, which is `radius` for a
    picture of 32 x 32 pixels, as published. A filter of the weights, with -1 for the pixel itself, answers nothing to
    the noise of its class; that is what a network can learn.

    As in the authors' code, weights are Gaussian and divided by their sum, and are drawn again where a signal grows
    beyond `largest`, or where a filter of an earlier class answers less than `response` to the noise (scaled to L2 = 1
    at 32 x 32; the sum of the positive part of their convolution). The published budget is the L2 one: an L-infinity
    one clips, a smaller one scales down. Grey pictures have the noise of the first colour. The class is the answer. No
    surrogate.

    Adapted: signals must not grow in pictures as large as those of the data, and weights with which they do not are
    looked for colour by colour, which comes to the same and finds some for large pictures in time.

    Budget: L2 on pictures, or any norm that bounds values.
    """

    needs = frozenset({"seed"})
    packages = ("scikit-learn",)

    class Config(PluginConfig):
        radius: float = Field(
            1, gt=0, description="L2 norm of the noise of 32 x 32 pixels, of values in [0, 1]; 1 is the paper's"
        )
        response: float = Field(
            3, ge=0, description="least answer of the filters of earlier classes to a class's noise; 3 is the authors'"
        )
        largest: float = Field(
            5, gt=0, description="largest value of signals that start with a standard deviation of 1; 5 is the authors'"
        )

    config: Config

    def perturb(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Pixels]:
        for sample, noise in zip(samples, self.noise(samples, world), strict=True):
            x = planes(sample.image)
            yield to_pixels(sample.image, x + within(torch.from_numpy(noise), x, world.budget))

    def noise(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterator[np.ndarray]:
        """The noise of each sample, float32 ``(C, H, W)``, before a budget and rounding; of some at a time."""
        classes = answer_classes(samples, world.seed)
        processes = self.processes(samples, int(classes.max()) + 1, world.rng())
        for part in batches(len(samples), TOGETHER):
            for piece in pieces(part, samples):
                alike: dict[tuple[int, int, int, int], list[int]] = {}
                for i in piece:
                    image = samples[i].image
                    colours = 1 if image.mode in ("L", "LA") else 3
                    alike.setdefault((int(classes[i]), colours, image.height, image.width), []).append(i)
                made: dict[int, np.ndarray] = {}
                for (kind, colours, height, width), members in alike.items():
                    rngs = [np.random.default_rng([world.seed, 1, i]) for i in members]
                    signals = generated(processes[kind, :colours], height, width, rngs)
                    made |= {i: scaled(signal, self.config.radius) for i, signal in zip(members, signals, strict=True)}
                yield from (made.pop(i) for i in piece)

    def processes(self, samples: Sequence[Sample], classes: int, rng: np.random.Generator) -> np.ndarray:
        """The weights of each class and colour, float ``(classes, 3, 3, 3)``, 0 for the pixel itself. Raises
        `ArenaError` where there are none to be found."""
        steady = self._steady({s.image.size for s in samples}, rng)
        found = np.empty((0, 3, 3, 3))
        while len(found) < classes:
            process = np.stack([next(steady) for _ in range(3)])
            noise = scaled(generated(process, PUBLISHED, PUBLISHED, [rng])[0], 1)
            if all(answer >= self.config.response for answer in answers(matching(found), noise)):
                found = np.concatenate([found, process[None]])
        return found

    def _steady(self, sizes: set[tuple[int, int]], rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Weights ``(3, 3)`` whose signals do not grow in pictures of these widths and heights."""
        outermost = [a for a in sorted(sizes) if not any(a != b and a[0] <= b[0] and a[1] <= b[1] for b in sizes)]
        for _ in range(MOST // DRAWN):
            weights = rng.standard_normal((DRAWN, 3, 3))
            weights[:, 2, 2] = 0
            weights /= weights.sum((1, 2), keepdims=True)
            for width, height in [(PUBLISHED, PUBLISHED), *outermost]:  # most are found out by the small one
                grown = largest(weights, height, width, [rng] * STARTS)
                weights = weights[grown <= self.config.largest]  # also not where it is no number
            yield from weights
        raise ArenaError(
            f"of {MOST:,} processes there are not enough whose signals stay below {self.config.largest:g} in these "
            f"pictures and answer each other by {self.config.response:g}: raise `largest`, or lower `response`"
        )

    def distinguished(self, samples: Sequence[Sample], released: Sequence[Sample], world: DefenderWorld) -> str | None:
        """Every pixel of the noise is the weighted sum of those before it that its class has, up to rounding."""
        classes = answer_classes(samples, world.seed)
        filters = matching(self.processes(samples, int(classes.max()) + 1, world.rng()))
        for sample, kind, delta in zip(samples, classes, changes(samples, released), strict=True):
            most = int(np.abs(delta).max())
            if not most:
                return f"the picture of sample {sample.id!r} did not change"
            cut = (np.abs(delta) == most) & (world.budget.norm == "linf") | ~free(sample, most)
            for colour, weights in enumerate(filters[kind][: delta.shape[2]]):
                left = response(weights, delta[..., colour].astype(float))
                whole = response(np.ones((3, 3)), cut[..., colour].astype(float)) == 0
                if (np.abs(left[whole]) > np.abs(weights).sum() / 2 + 1e-3).any():
                    return f"the noise of sample {sample.id!r} does not follow the weights of its class"
        return None


def matching(processes: np.ndarray) -> np.ndarray:
    """The filters that answer nothing to processes ``(..., 3, 3)``: their weights, and -1 for the pixel itself."""
    filters = processes.copy()
    filters[..., 2, 2] = -1
    return filters


def response(weights: np.ndarray, plane: np.ndarray) -> np.ndarray:
    """A plane ``(..., H, W)`` under filters ``(..., 3, 3)`` without padding: ``(..., H - 2, W - 2)``, or empty."""
    height, width = (max(size - 2, 0) for size in plane.shape[-2:])
    parts = (weights[..., r, s, None, None] * plane[..., r : r + height, s : s + width] for r, s in [*BEFORE, (2, 2)])
    return np.asarray(sum(parts))


def answers(filters: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """What each of the filters ``(N, C, 3, 3)`` answers to noise ``(C, H, W)``: the sum of the positive part."""
    return np.asarray(np.maximum(response(filters, noise).sum(1), 0).sum((1, 2)))


def generated(weights: np.ndarray, height: int, width: int, rngs: Sequence[np.random.Generator]) -> np.ndarray:
    """Of each generator and of each of the weights ``(C, 3, 3)`` a signal, float32 ``(N, C, height, width)``."""
    columns = width + CROP
    made = np.empty(((height + CROP) * columns, len(weights), len(rngs)), np.float32)
    for number, first, last, values in _diagonals(weights, height + CROP, columns, rngs):
        made[number + first * (columns - 1) : number + last * (columns - 1) : columns - 1] = values
    return made.reshape(-1, columns, *made.shape[1:])[CROP:, CROP:].transpose(3, 2, 0, 1)


def largest(weights: np.ndarray, height: int, width: int, rngs: Sequence[np.random.Generator]) -> np.ndarray:
    """The largest values of signals of each of the weights, start aside, ``(C,)``; NaN or infinite where they grow so
    far. The signals themselves are not kept."""
    most = np.zeros((len(weights), len(rngs)), np.float32)
    for _, _, _, values in _diagonals(weights, height + CROP, width + CROP, rngs):
        most = np.maximum(most, np.abs(values).max(0))
    return np.asarray(most.max(1))


def _diagonals(
    weights: np.ndarray, rows: int, columns: int, rngs: Sequence[np.random.Generator]
) -> Iterator[tuple[int, int, int, np.ndarray]]:
    """The diagonals of signals but for the two first rows and columns, which are Gaussian: row and column of a pixel
    add up to the first number, rows are from the second to before the third, and the values ``(rows, C, N)``, which
    hold until the next is asked for. All pixels of a diagonal follow from the four before it.
    """
    shape = (len(weights), len(rngs))
    upper, left = np.empty((2, columns, *shape), np.float32), np.empty((rows, 2, *shape), np.float32)
    for number, rng in enumerate(rngs):
        upper[..., number] = rng.standard_normal((2, columns, len(weights)), np.float32)
        left[..., number] = rng.standard_normal((rows, 2, len(weights)), np.float32)
    lines, room = np.zeros((5, rows, *shape), np.float32), np.empty((rows, *shape), np.float32)
    # Repeated, so that every product is one of two runs of memory.
    factors = np.zeros((3, 3, rows, *shape), np.float32) + weights.transpose(1, 2, 0)[:, :, None, :, None].astype(
        np.float32
    )
    with np.errstate(over="ignore", invalid="ignore"):
        for number in range(rows + columns - 1):
            line = lines[number % 5]
            for place in (0, 1):
                if 0 <= number - place < columns:
                    line[place] = upper[place, number - place]
                if 0 <= number - place < rows:
                    line[number - place] = left[number - place, place]
            first, last = max(2, number - columns + 1), min(rows, number - 1)
            if first >= last:
                continue
            total, part = line[first:last], room[first:last]
            total[:] = 0
            for r, s in BEFORE:
                before = lines[(number + r + s - 4) % 5, first + r - 2 : last + r - 2]
                total += np.multiply(factors[r, s, first:last], before, out=part)
            yield number, first, last, total


def scaled(signal: np.ndarray, radius: float) -> np.ndarray:
    """A signal ``(C, H, W)`` at an L2 norm of radius * sqrt(d / 3072)."""
    signal = np.ascontiguousarray(signal)
    size = np.sqrt(np.square(signal).mean(dtype=np.float64))
    return np.asarray(signal * np.float32(radius / np.sqrt(3 * PUBLISHED**2) / size))
