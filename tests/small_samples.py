"""Small samples: of mixed sizes and modes, and with pictures that tell the answer."""

from __future__ import annotations

import numpy as np
from PIL import Image

from arena.data.sample import Sample
from arena.kit.material import plain

QUESTIONS = ("which clan is this?", "what colour is the big star?", "where is the circle in this picture?")
ANSWERS = ("red", "two", "top left")
MODES = ("RGB", "L", "RGBA", "RGB", "LA")
SIZES = ((48, 48), (48, 48), (56, 50), (60, 72), (48, 48))


def picture(rng: np.random.Generator, size: tuple[int, int], mode: str) -> Image.Image:
    bands = len(Image.new(mode, (1, 1)).getbands())
    shape = size if bands == 1 else (*size, bands)
    return Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8), mode)


def mixed_samples(count: int) -> list[Sample]:
    rng = np.random.default_rng(5)
    return [
        Sample(f"s{i}", picture(rng, SIZES[i % 5], MODES[i % 5]), QUESTIONS[i % 3], ANSWERS[i % 3])
        for i in range(count)
    ]


def striped(count: int, seed: int) -> list[Sample]:
    """Stripes across, along or aslant: a generator that sees no more than the picture can tell the answer."""
    rng, rows, columns = np.random.default_rng(seed), *np.indices((48, 48))
    stripes = [(places % 8 < 4)[..., None] * 60 for places in (rows, columns, rows + columns)]
    return [
        s.with_content(
            Image.fromarray((rng.integers(80, 110, (48, 48, 3)) + stripes[i % 3]).astype(np.uint8)), s.question
        )
        for i, s in enumerate(plain(count))
    ]
