"""ONION's batches of deletions against one forward pass a deletion."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

from arena.data.embedded.glyphs import QUESTIONS
from arena.data.sample import Sample
from arena.lvlm.zoo.tokenizer import words
from arena.plugins.base import AttackerWorld
from arena.plugins.registry import Registry
from attacks.text.onion import join, split, suspicion
from attacks.text.perplexity import Reader

SAMPLES, TRIGGER = 48, 5


def test_onion_against_a_pass_for_each_deletion(benchmark: Any) -> None:
    torch.set_num_threads(1)
    lvlm = Registry().create("model", "tiny-llava", {}).load()
    rng = np.random.default_rng(0)
    picture = Image.new("L", (1, 1))
    samples = [
        Sample(str(i), picture, f"{QUESTIONS[i % len(QUESTIONS)]} {' '.join(rng.choice(words(), TRIGGER))}", "fox")
        for i in range(SAMPLES)
    ]
    attack, world = Registry().create("attack", "onion", {}), AttackerWorld(model=lambda: lvlm)
    texts = [split(sample.question) for sample in samples]
    reader = Reader.of_lvlm(lvlm)

    def one_by_one() -> list[np.ndarray]:
        scores = []
        for text in texts:
            whole = reader.perplexities([join(text)])[0]
            without = [reader.perplexities([join(text, (i,)).strip()])[0] for i in range(len(text))]
            scores.append(whole - np.array(without))
        return scores

    for together, single in zip(suspicion(reader, texts), one_by_one(), strict=True):
        np.testing.assert_allclose(together, single, rtol=1e-2, atol=1e-3 * np.abs(single).max())
    ratios = []
    for _ in range(3):  # in turn, so that a busy machine slows both alike
        times = []
        for function in (lambda: list(attack.purify(samples, world)), one_by_one):
            start = time.perf_counter()
            function()
            times.append(time.perf_counter() - start)
        ratios.append(times[1] / times[0])
    benchmark.extra_info |= {"one by one / onion, seconds": round(median(ratios), 2), "reach": 5}
    benchmark.extra_info["deletions"] = sum(map(len, texts))
    benchmark.pedantic(lambda: list(attack.purify(samples, world)), rounds=1)
