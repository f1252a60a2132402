"""What the attack `jpeg` costs on top of a bare Pillow loop.

A ratio of interleaved runs; absolute times of a shared machine say little. `extra_info` holds the ratio and what it
should stay below.
"""

from __future__ import annotations

import io
import time
from statistics import median

import numpy as np
import pytest
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture

from arena.data.sample import Sample
from arena.plugins.base import AttackerWorld
from arena.plugins.registry import Registry

COUNT, QUALITY = 400, 10


@pytest.mark.parametrize("side", [48, 336])
def test_jpeg_against_a_bare_loop(benchmark: BenchmarkFixture, side: int) -> None:
    rng = np.random.default_rng(0)
    count = COUNT if side < 100 else COUNT // 8
    images = [Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)) for _ in range(count)]
    samples = [Sample(str(i), image, "which clan?", "fox") for i, image in enumerate(images)]
    attack, world = Registry().create("attack", "jpeg", {"quality": QUALITY}), AttackerWorld()

    def arena() -> list[Image.Image]:
        return [sample.image for sample in attack.purify(samples, world)]

    def bare() -> list[Image.Image]:
        results = []
        for image in images:
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=QUALITY)
            decoded = Image.open(buffer)
            decoded.load()
            results.append(decoded)
        return results

    assert [image.tobytes() for image in arena()] == [image.tobytes() for image in bare()]
    ratios = []
    for _ in range(15):  # in turn, so that a busy machine slows both alike
        times = []
        for function in (arena, bare):
            start = time.process_time()
            function()
            times.append(time.process_time() - start)
        ratios.append(times[0] / times[1])
    benchmark.extra_info |= {f"jpeg / Pillow, {side} pixels": round(median(ratios), 3), "below": 1.2}
    benchmark.pedantic(arena, rounds=1)
