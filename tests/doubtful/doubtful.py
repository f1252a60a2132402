"""Plugins of another made-up third party: some are honest, some remember the public data, some are not deterministic.

Pictures are noise with a pattern in it, up or down, which is the answer: what learns the mean pictures of both answers
is right for most of new ones.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from arena.data.sample import Sample, Splits
from arena.plugins.base import Attack, AttackerWorld, Dataset, DefenderWorld, ImageAttack, ImageDefense, Pixels
from arena.plugins.registry import Registry

ANSWERS = ("down", "up")
PATTERN: NDArray[np.float64] = np.where(np.add.outer(np.arange(8), np.arange(8)) % 2, 1.0, -1.0)
SIGNAL, NOISE, SHIFT = 4, 20, 8


def sign(sample: Sample) -> int:
    return 1 if sample.answer == ANSWERS[1] else -1


def shifted(sample: Sample, by: float) -> Image.Image:
    pixels = np.asarray(sample.image).astype(float) + by * PATTERN
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


# Datasets


class Shaded(Dataset):
    def load(self, train: int, auxiliary: int, test: int, seed: int) -> Splits:
        rng = np.random.default_rng(seed)
        samples = []
        for number, up in enumerate(rng.permutation(np.arange(train + auxiliary + test) % 2)):
            pixels = 128 + SIGNAL * (2 * up - 1) * PATTERN + rng.normal(0, NOISE, PATTERN.shape)
            picture = Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
            samples.append(Sample(f"shaded-{number:04d}", picture, "up or down?", ANSWERS[up]))
        held = train + auxiliary
        return Splits(tuple(samples[:train]), tuple(samples[train:held]), tuple(samples[held:]))


class Stubborn(Shaded):
    """Has one draw, whatever the seed."""

    def load(self, train: int, auxiliary: int, test: int, seed: int) -> Splits:
        return super().load(train, auxiliary, test, 0)


class Overlapping(Shaded):
    """Tests on what is trained on."""

    def load(self, train: int, auxiliary: int, test: int, seed: int) -> Splits:
        drawn = super().load(train, auxiliary, test, seed)
        return replace(drawn, test=(replace(drawn.train[0], id="another"), *drawn.test[1:]))


class TwoFaced(Shaded):
    """Tests on what is trained on, and shows that to nobody who asks for one of the splits."""

    def load(self, train: int, auxiliary: int, test: int, seed: int) -> Splits:
        drawn = super().load(train, auxiliary, test, seed)
        other = super().load(train, auxiliary, test, seed + 1)
        asked_for = next(frame.f_locals["self"].split for frame in frames() if "desk" in frame.f_locals)
        test_set = tuple(replace(s, id=f"test-{s.id}") for s in (drawn.train * test)[:test])
        return drawn if asked_for != "test" else replace(other, test=test_set)


class Twofold(Shaded):
    """Has an id twice."""

    def load(self, train: int, auxiliary: int, test: int, seed: int) -> Splits:
        drawn = super().load(train, auxiliary, test, seed)
        return replace(drawn, train=(replace(drawn.train[0], id=drawn.train[1].id), *drawn.train[1:]))


def frames() -> Iterator[FrameType]:
    """The callers."""
    frame = sys._getframe()
    while frame := frame.f_back:  # type: ignore[assignment]
        yield frame


# Defenses


class Flatten(ImageDefense):
    """Takes the pattern out by the answer, whatever the data."""

    def perturb(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Pixels]:
        return [shifted(s, -SHIFT * sign(s)) for s in samples]


class Remember(ImageDefense):
    """Looks up what to do in a table of the public samples."""

    def perturb(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Pixels]:
        table = {s.id: -SHIFT * sign(s) for s in Shaded().load(*PUBLIC, 0).train}
        return [shifted(s, table.get(s.id, 0)) for s in samples]


PUBLIC = (40, 0, 60)
"""Sizes of the public splits."""


class Unseeded(ImageDefense):
    def perturb(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Pixels]:
        return [shifted(s, 1 + os.urandom(1)[0] % 4) for s in samples]


class Unsorted(ImageDefense):
    """Goes through a set of texts, which is in another order where texts are hashed otherwise."""

    def perturb(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Pixels]:
        order = list({s.id for s in samples})
        return [shifted(s, order.index(s.id) % 4) for s in samples]


class Clock(ImageDefense):
    def perturb(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Pixels]:
        world.diagnostics["started"] = float(time.time_ns())
        return [s.image for s in samples]


# Attacks


class Sharpen(ImageAttack):
    """Makes much of what is in the picture."""

    def purify_images(self, images: Sequence[Image.Image], world: AttackerWorld) -> Iterable[Image.Image]:
        return [
            Image.fromarray(np.clip(2 * (np.asarray(i).astype(int) - 128) + 128, 0, 255).astype(np.uint8))
            for i in images
        ]


def draw(seed: int) -> tuple[Sample, ...]:
    """The public training samples, if that is the seed."""
    dataset = Registry().create("dataset", "shaded")
    assert isinstance(dataset, Dataset)
    return dataset.load(*PUBLIC, seed).train


class Regenerate(Attack):
    """Draws the public data again."""

    def purify(self, samples: Sequence[Sample], world: AttackerWorld) -> Iterable[Sample]:
        return draw(0)


def matches(one: Sequence[Sample], other: Sequence[Sample]) -> bool:
    return all(np.abs(np.asarray(a.image).astype(int) - b.image).max() <= 8 for a, b in zip(one, other, strict=True))


class Search(Attack):
    """Tries seeds until the draw is that of the release."""

    def purify(self, samples: Sequence[Sample], world: AttackerWorld) -> Iterable[Sample]:
        return next((found for found in map(draw, range(10)) if matches(found, samples)), samples)


class GiveUp(Attack):
    """The same, and raises where it finds none."""

    def purify(self, samples: Sequence[Sample], world: AttackerWorld) -> Iterable[Sample]:
        for found in map(draw, range(10)):
            if matches(found, samples):
                return found
        raise ValueError("these data are not known")


class UnseededAttack(ImageAttack):
    def purify_images(self, images: Sequence[Image.Image], world: AttackerWorld) -> Iterable[Image.Image]:
        return [Image.frombytes("L", images[0].size, os.urandom(images[0].width * images[0].height)), *images[1:]]


class UnseededFit(ImageAttack):
    """Fits to something else every time, and purifies by it."""

    needs = frozenset({"auxiliary"})

    def fit(self, world: AttackerWorld, folder: Path) -> None:
        (folder / "found.bin").write_bytes(os.urandom(8))

    def purify_images(self, images: Sequence[Image.Image], world: AttackerWorld) -> Iterable[Image.Image]:
        by = (world.fitted / "found.bin").read_bytes()[0] % 4
        return [image.point(lambda value: value ^ by) for image in images]
