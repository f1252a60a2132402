"""Which samples show the same picture, found by what the pictures are and not by their names.

Whoever has two perturbations of one picture averages them, and half of each is gone. So samples with equal pixels share
one perturbation, and so may near copies: pictures of one size that look the same, such as one that was saved again as
JPEG. Copies of another size are found, and keep perturbations of their own: resized, a perturbation is another one,
which nobody has crafted and which rounding and the limits of pixels would leave unlike the first.

Near copies are found by a perceptual hash (Zauner, "Implementation and benchmarking of perceptual image hash
functions", 2010): signs of low frequencies of the picture in grey, `HASH_BITS` of 63 of which may differ. As signs say
little of flat pictures, a reduced copy in colour must also be within `LEVELS`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from arena.data.sample import Sample

HASH_BITS = 6
"""Bits of the hash that may differ between near copies."""

LEVELS = 1.25
"""By how much their colours may differ, in 1/255: the mean over `_SIDE` x `_SIDE` parts of the picture."""

_SIDE, _KEPT, _GREY = 16, 8, 32

# The first cosines (DCT-II) over 32 places; scale does not matter for signs around a median.
_COSINES = np.cos(np.pi * np.arange(_KEPT)[:, None] * (np.arange(_GREY) + 0.5) / _GREY)


@dataclass(frozen=True)
class Look:
    """What is known of a picture: a digest of its mode, size and pixels, its size (width, height), whether it is grey,
    its perceptual hash of 63 bits, and its reduced copy, float ``(16, 16, 3)`` in 1/255."""

    digest: str
    size: tuple[int, int]
    grey: bool
    hash: int
    small: np.ndarray

    def near(self, other: Look) -> bool:
        """Whether both look the same, at whatever size; resizing moves colours within a few pixels, so that copies of
        different sizes are compared in parts twice as large."""
        change = self.small - other.small
        if self.size != other.size:
            change = change.reshape(_SIDE // 2, 2, _SIDE // 2, 2, 3).mean((1, 3))
        return (
            self.grey == other.grey
            and (self.hash ^ other.hash).bit_count() <= HASH_BITS
            and float(np.abs(change).mean()) <= LEVELS
        )


def picture_digest(image: Image.Image) -> str:
    """SHA-256 (hex) of a picture's mode, size and pixels."""
    return hashlib.sha256(f"{image.mode} {image.size} ".encode() + image.tobytes()).hexdigest()


def look(image: Image.Image) -> Look:
    """What is known of a picture."""
    colours = image.convert("RGB")
    grey = np.asarray(colours.convert("L").resize((_GREY, _GREY), Image.Resampling.BOX), float)
    frequencies = (_COSINES @ grey @ _COSINES.T).ravel()[1:]  # the first one is the brightness
    signs = np.packbits(frequencies > np.median(frequencies))
    small = np.asarray(colours.resize((_SIDE, _SIDE), Image.Resampling.HAMMING), float)
    is_grey = image.mode in ("L", "LA")
    return Look(picture_digest(image), image.size, is_grey, int.from_bytes(signs.tobytes(), "big"), small)


@dataclass(frozen=True)
class Sharing:
    """Which samples share what.

    `picture` is of each sample the number of its picture, `delta` of each picture the number of its perturbation; both
    count from 0 in the order in which they first come. `resized` are pictures that are a copy of an earlier one at
    another size, each with that one.
    """

    picture: tuple[int, ...]
    delta: tuple[int, ...]
    resized: tuple[tuple[int, int], ...] = ()

    @cached_property
    def of_sample(self) -> tuple[int, ...]:
        """The perturbation of each sample."""
        return tuple(self.delta[picture] for picture in self.picture)

    @cached_property
    def first(self) -> tuple[int, ...]:
        """Of each perturbation the first sample."""
        found: dict[int, int] = {}
        for sample, delta in enumerate(self.of_sample):
            found.setdefault(delta, sample)
        return tuple(found.values())

    def parts(self, sizes: Sequence[int], samples: int, pixels: int) -> list[list[int]]:
        """All samples in lists of at most so many, whose pictures, of these sizes in pixels, have at most so many
        pixels together, or are one. Samples of one perturbation are in one list, as far as it has room for them."""
        members: dict[int, list[int]] = {}
        for sample, delta in enumerate(self.of_sample):
            members.setdefault(delta, []).append(sample)

        def fit(part: list[int]) -> bool:
            shown = {self.picture[i]: sizes[i] for i in part}
            return len(part) <= samples and (len(shown) == 1 or sum(shown.values()) <= pixels)

        found: list[list[int]] = [[]]
        for together in members.values():
            if found[-1] and not fit([*found[-1], *together]):
                found.append([])
            for i in together:
                if not fit([*found[-1], i]):
                    found.append([])
                found[-1].append(i)
        return found

    def local(self, part: Sequence[int]) -> Local:
        """The same for some samples by themselves."""
        pictures = list(dict.fromkeys(self.picture[i] for i in part))
        deltas = list(dict.fromkeys(self.delta[p] for p in pictures))
        first: dict[int, int] = {}
        for place, i in enumerate(part):
            first.setdefault(self.picture[i], place)
        return Local(
            tuple(pictures.index(self.picture[i]) for i in part),
            tuple(first[p] for p in pictures),
            tuple(deltas.index(self.delta[p]) for p in pictures),
            tuple(deltas),
        )


@dataclass(frozen=True)
class Local:
    """What a batch of samples shares: `picture` is of each sample the place of its picture, `shows` of each picture the
    place of the first sample with it, `delta` of each picture the place of its perturbation, and `deltas` the numbers
    that perturbations have in the whole."""

    picture: tuple[int, ...]
    shows: tuple[int, ...]
    delta: tuple[int, ...]
    deltas: tuple[int, ...]

    @classmethod
    def apart(cls, samples: int) -> Local:
        """Nothing is shared."""
        return cls(*(tuple(range(samples)),) * 4)


def sharing(looks: Iterable[Look]) -> Sharing:
    """What samples share, from looks at their pictures, where near copies share a perturbation too."""
    numbers: dict[str, int] = {}
    pictures: list[Look] = []
    of_sample = []
    for one in looks:
        if one.digest not in numbers:
            numbers[one.digest] = len(pictures)
            pictures.append(one)
        of_sample.append(numbers[one.digest])
    hashes = np.array([one.hash for one in pictures], np.uint64)
    leaders, deltas, resized = list[int](), list[int](), list[tuple[int, int]]()
    for number, one in enumerate(pictures):
        bits = np.bitwise_count(hashes[leaders] ^ hashes[number])
        alike = [leader for leader in np.flatnonzero(bits <= HASH_BITS).tolist() if one.near(pictures[leaders[leader]])]
        same = [leader for leader in alike if pictures[leaders[leader]].size == one.size]
        if same:
            deltas.append(same[0])
            continue
        if alike:
            resized.append((number, leaders[alike[0]]))
        deltas.append(len(leaders))
        leaders.append(number)
    return Sharing(tuple(of_sample), tuple(deltas), tuple(resized))


def shared(samples: Sequence[Sample], near: bool) -> Sharing:
    """What samples share: with `near` near copies a perturbation too. Looks at every picture once."""
    if near:
        return sharing(look(sample.image) for sample in samples)
    numbers: dict[str, int] = {}
    of_sample = tuple(numbers.setdefault(picture_digest(s.image), len(numbers)) for s in samples)
    return Sharing(of_sample, tuple(range(len(numbers))))
