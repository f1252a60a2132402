"""Samples that attacks inside fine-tuning are tried on."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from arena.data.embedded.glyphs import Glyphs
from arena.data.sample import Sample


@pytest.fixture(scope="module")
def glyphs() -> tuple[Sample, ...]:
    return Glyphs().load(24, 0, 0, seed=3).train


@pytest.fixture(scope="module")
def unequal() -> list[Sample]:
    """Two pictures of one size, and others of sizes and modes of their own."""
    rng = np.random.default_rng(0)
    shapes: list[tuple[int, ...]] = [(48, 48, 3), (40, 64), (33, 70, 4), (48, 48, 3), (5, 3, 3)]
    return [
        Sample(str(i), Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)), "which clan?", answer)
        for i, (shape, answer) in enumerate(zip(shapes, ("red", "two", "red", "star", "two"), strict=True))
    ]
