"""Crafting with whole passes and binding against without, verification against whole sequences."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import pytest
import torch

from arena.budget import Budget
from arena.data.embedded.glyphs import Glyphs
from arena.data.sample import Sample
from arena.lvlm import base, continuation, shortcuts
from arena.lvlm.adapters import attach_lora, linear_modules
from arena.lvlm.base import LVLM, images_of
from arena.lvlm.families.llava.model import Llava
from arena.lvlm.zoo.models import TINY
from mmguard import craft
from mmguard.candidates import candidate_losses
from mmguard.craft import Crafting, Tally
from mmguard.objective import Objective, evaluate, reference
from mmguard.trigger import admissible_vocabulary, insert

SAMPLES, WORDS, CANDIDATES = 16, 5, 64


@pytest.fixture(scope="module")
def lvlm() -> LVLM:
    """An adapted surrogate of tiny-llava's sizes; speed does not depend on the weights."""
    spec = TINY["tiny-llava"]
    tokenizer = spec.tokenizer()
    model = Llava(spec.build(tokenizer), tokenizer, spec.image_processor())
    tuned = attach_lora(model, 8, 16, 0.1, linear_modules(model, model.language_model))
    tuned.model.eval().requires_grad_(False)
    return tuned


@pytest.fixture(scope="module")
def samples() -> tuple[Sample, ...]:
    return Glyphs().load(SAMPLES, 0, 0, seed=0).train


def objective(name: str) -> Objective:
    return Objective.model_validate({"objective": name})


def best_of(turns: int, *functions: Callable[[], object]) -> list[float]:
    """The shortest time of each, taken in turn so that a busy machine slows all alike."""
    times = [[] for _ in functions]
    for turn in range(turns + 1):
        for function, taken in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            if turn:  # the first warms up
                taken.append(time.perf_counter() - start)
    return [min(taken) for taken in times]


@contextmanager
def plainly() -> Iterator[None]:
    """Within the block, forward passes leave nothing out, and every one runs the vision tower."""
    with (
        patch.object(base, "FEWEST_ROWS", sys.maxsize),
        patch.object(continuation, "FEWEST_ROWS", sys.maxsize),
        patch.object(craft, "same_pictures", lambda lvlm: nullcontext()),
        patch.object(shortcuts.PatchConv2d, "forward", torch.nn.Conv2d.forward),
    ):
        yield


@pytest.mark.parametrize("name", ["none", "bph", "crs"])
def test_what_is_left_out(benchmark: Any, lvlm: LVLM, samples: tuple[Sample, ...], name: str) -> None:
    """A batch's turn in a round against the same turn with whole forward passes."""
    vocabulary = admissible_vocabulary(lvlm)
    gaps = [len(s.question.split()) for s in samples]

    def turn() -> tuple[list[bytes], list[tuple[str, ...]]]:
        delta = [torch.zeros(3, 48, 48, dtype=torch.int16) for _ in samples]
        triggers = [vocabulary.words[i : i + WORDS] for i in range(SAMPLES)]
        crafting = Crafting.start(samples, delta, triggers, gaps, [lvlm], [1.0], objective(name), [Tally.new()])
        crafting.perturb(8, 1, 8)
        crafting.rewrite(vocabulary, range(WORDS), 16, WORDS, 0.0, 128, Budget(text=WORDS))
        crafting.measure(shifts=False)
        return [d.numpy().tobytes() for d in crafting.delta], crafting.words

    whole = plainly()(turn)
    assert turn() == whole()
    fast, slow = best_of(3, turn, whole)
    benchmark.extra_info |= {"ratio": slow / fast, "reach": 1.5}
    benchmark.pedantic(turn, rounds=1)


@pytest.mark.parametrize("name", ["bph", "crs"])
def test_binding_costs_little(benchmark: Any, lvlm: LVLM, samples: tuple[Sample, ...], name: str) -> None:
    words = admissible_vocabulary(lvlm).words

    def craft(name: str) -> Crafting:
        delta = [torch.zeros(3, 48, 48, dtype=torch.int16) for _ in samples]
        triggers = [words[i : i + WORDS] for i in range(SAMPLES)]
        gaps = [len(s.question.split()) for s in samples]
        return Crafting.start(samples, delta, triggers, gaps, [lvlm], [1.0], objective(name), [Tally.new()])

    bound, plain = craft(name), craft("none")
    times = best_of(5, lambda: bound.perturb(4, 1, 8), lambda: plain.perturb(4, 1, 8))
    benchmark.extra_info |= {"ratio": times[1] / times[0], "at least": 0.6}
    benchmark.extra_info["image steps per second"] = 4 * SAMPLES / times[0]
    benchmark.pedantic(lambda: bound.perturb(4, 1, 8), rounds=1)


@pytest.mark.parametrize("name", ["none", "bph", "crs"])
def test_verification_costs_the_tail(benchmark: Any, lvlm: LVLM, samples: tuple[Sample, ...], name: str) -> None:
    words, images, chosen = admissible_vocabulary(lvlm).words, images_of(samples), objective(name)
    sizes = [(x.shape[-2], x.shape[-1]) for x in images]
    clean = reference(lvlm, samples, range(2))
    slots = [
        [
            [
                insert(s.question, (*words[:slot], word, *words[slot + 1 : WORDS]), len(s.question.split()))
                for word in words[: CANDIDATES + 1]
            ]
            for s in samples
        ]
        for slot in range(WORDS)
    ]

    def shared() -> list[torch.Tensor]:
        pixels = lvlm.pixel_inputs(images)
        return [torch.cat(candidate_losses(chosen, lvlm, samples, sizes, v, clean, 128, pixels)) for v in slots]

    @torch.no_grad()
    @plainly()
    def whole() -> list[torch.Tensor]:
        losses = []
        for versions in slots:
            columns = []
            for column in zip(*versions, strict=True):  # the c-th candidate of every sample, as one batch
                texts = [s.with_content(s.image, text) for s, (text, _) in zip(samples, column, strict=True)]
                batch = lvlm.encode(texts, images, [span for _, span in column])
                columns.append(evaluate(chosen, lvlm, batch, clean)[0].joint)
            losses.append(torch.stack(columns, 1).flatten())
        return losses

    for one, other in zip(shared(), whole(), strict=True):
        assert (one - other).abs().max() < 1e-4
    fast, slow = best_of(3, shared, whole)
    benchmark.extra_info |= {"ratio": slow / fast, "at least": 4}
    benchmark.extra_info["candidates per second"] = SAMPLES * WORDS * (CANDIDATES + 1) / fast
    benchmark.pedantic(shared, rounds=1)
