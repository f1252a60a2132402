"""Perturbations of many samples, and the order in which these are worked on."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from arena.data.sample import Sample
from arena.lvlm.perturbation import batches, planes


class Perturbations:
    """One perturbation ``(C, H, W)`` of a type for each of the samples, zero at first, in a temporary file: memory does
    not grow with the data.

    Values lie in the file, and in what is read, as `planes` has those of the picture.
    """

    def __init__(self, samples: Sequence[Sample], dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._shapes = [tuple(planes(sample.image).shape) for sample in samples]
        self._starts = np.concatenate(
            [[0], np.cumsum([dtype.itemsize * int(np.prod(shape)) for shape in self._shapes])]
        )
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - gone with this object
        self._file.truncate(int(self._starts[-1]))

    def __getitem__(self, index: int) -> Tensor:
        channels, height, width = self._shapes[index]
        self._file.seek(int(self._starts[index]))
        values = torch.frombuffer(
            bytearray(self._file.read(self._dtype.itemsize * channels * height * width)), dtype=self._dtype
        )
        if channels == 1:
            return values.view(1, height, width)
        return values.view(height, width, channels).permute(2, 0, 1)

    def __setitem__(self, index: int, delta: Tensor) -> None:
        self._file.seek(int(self._starts[index]))
        self._file.write(delta.permute(1, 2, 0).contiguous().numpy().tobytes())


def shuffled(size: int, batch_size: int, rng: np.random.Generator) -> Iterator[list[int]]:
    """Endless minibatches of indices, reshuffled each pass."""
    while True:
        order = rng.permutation(size)
        for part in batches(size, batch_size):
            yield [int(order[i]) for i in part]
