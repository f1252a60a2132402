"""What the harness costs on top of the arithmetic: recipes and EM against bare loops, and the start of the command
line.

Ratios of interleaved runs on one thread; absolute times of a shared machine say little. `extra_info` holds the ratio
and
what it should reach.
"""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from arena.budget import Budget
from arena.data.embedded.glyphs import Glyphs
from arena.data.sample import Sample
from arena.lvlm.base import LVLM, images_of
from arena.lvlm.perturbation import batches, planes, sign_descent
from arena.lvlm.shortcuts import PatchConv2d
from arena.plugins.base import DefenderWorld
from arena.plugins.registry import Registry
from arena.recipes.packing import Member, train_together
from arena.recipes.training import fine_tune, held_out_split

SAMPLES, BATCH, EPOCHS = 128, 8, 2


def model() -> LVLM:
    torch.set_num_threads(1)
    return Registry().create("model", "tiny-llava", {}).load()


def samples() -> tuple[Sample, ...]:
    return Glyphs().load(SAMPLES, 0, 0, seed=5).train


def interleaved(ours: Callable[[], float], bare: Callable[[], float], rounds: int = 3) -> float:
    """Median ratio bare / ours of times measured in turn: 1 where the harness is free."""
    return median(bare() / ours() for _ in range(rounds))


def recipe_seconds(name: str, folder: Path) -> float:
    """Seconds of the training steps of a recipe, without loading and held-out evaluation."""
    recipe = Registry().create("recipe", name, {"epochs": EPOCHS, "batch_size": BATCH})
    spent = [0.0]
    lvlm = model()

    def clock(done: float, note: str) -> None:
        spent.append(time.perf_counter())

    from arena.recipes import training

    judged = training.evaluate
    outside = 0.0

    def evaluate(*args: object) -> tuple[float, float]:
        nonlocal outside
        start = time.perf_counter()
        result = judged(*args)  # type: ignore[arg-type]
        outside += time.perf_counter() - start
        return result

    training.evaluate = evaluate  # type: ignore[assignment]
    try:
        start = time.perf_counter()
        fine_tune(lvlm, recipe, samples(), 0, folder, progress=clock)
        return time.perf_counter() - start - outside
    finally:
        training.evaluate = judged


def bare_seconds(name: str, threads: int = 1) -> float:
    """The same steps as a loop anybody would write: forward, backward, AdamW, on encoded batches."""
    recipe = Registry().create("recipe", name, {"epochs": EPOCHS, "batch_size": BATCH})
    lvlm = model()
    torch.set_num_threads(threads)
    start = time.perf_counter()
    tuned = recipe.prepare(lvlm)
    training, _ = held_out_split(samples(), 0)
    parameters = [p for p in tuned.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    images = images_of(training)
    tuned.model.train()
    rng = np.random.default_rng(0)
    for _ in range(EPOCHS):
        order = rng.permutation(len(training))
        for part in batches(len(training), BATCH):
            chosen = [int(order[i]) for i in part]
            batch = tuned.encode([training[i] for i in chosen], [images[i] for i in chosen])
            loss = tuned.loss(batch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
    return time.perf_counter() - start


def test_fine_tuning_against_a_bare_loop(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    recipe_seconds("lora", tmp_path / "warm")
    ratio = interleaved(lambda: recipe_seconds("lora", tmp_path / "run"), lambda: bare_seconds("lora"))
    benchmark.extra_info |= {"recipe / bare loop, samples per second": round(ratio, 3), "reach": 1.0}
    benchmark.pedantic(lambda: recipe_seconds("lora", tmp_path / "run"), rounds=1)


CELLS, PACK, CORES = 32, 8, 2


def packed_seconds(folder: Path) -> float:
    """Seconds of the trainings of `CELLS` cells in packs, two at a time, models loaded in each."""
    with ProcessPoolExecutor(CORES, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(train_pack, [folder / f"warm{i}" for i in range(CORES)], [1] * CORES))  # imports
        start = time.perf_counter()
        list(pool.map(train_pack, [folder / str(i) for i in range(CELLS // PACK)], [PACK] * (CELLS // PACK)))
        return time.perf_counter() - start


def train_pack(folder: Path, size: int) -> None:
    recipe, data = Registry().create("recipe", "lora", {"epochs": EPOCHS, "batch_size": BATCH}), samples()

    def train(number: int, member: Member) -> None:
        fine_tune(model(), recipe, data, 0, folder / str(number), member=member)

    train_together([partial(train, number) for number in range(size)])


def bare_loops_seconds() -> float:
    """A bare loop a cell, one after the other, with all cores for its products."""
    return sum(bare_seconds("lora", threads=CORES) for _ in range(CELLS))


def test_packed_cells_against_bare_loops(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    ratio = interleaved(lambda: packed_seconds(tmp_path), bare_loops_seconds, rounds=1)
    benchmark.extra_info |= {"32 packed cells / 32 bare loops, samples per second": round(ratio, 3), "reach": 2.5}
    benchmark.pedantic(lambda: train_pack(tmp_path / "one", PACK), rounds=1)


PGD = 10


def em_seconds() -> float:
    em = Registry().create("defense", "em", {"rounds": 1, "theta_steps": 1, "pgd_steps": PGD, "batch_size": 32})
    lvlm = model()
    start = time.perf_counter()
    list(em.protect(samples(), DefenderWorld(Budget(), 0, lambda: (lvlm,))))
    return time.perf_counter() - start


def bare_pgd_seconds() -> float:
    """One training step, then PGD on the answer loss batch by batch, then one pass to count errors."""
    from arena.lvlm.adapters import attach_lora, linear_modules, trainable

    data, lvlm = samples(), model()
    for module in lvlm.model.modules():
        if type(module) is PatchConv2d:
            module.__class__ = torch.nn.Conv2d  # as transformers has it
    start = time.perf_counter()
    tuned = attach_lora(lvlm, 16, 32, 0.0, linear_modules(lvlm, lvlm.language_model))
    optimizer = torch.optim.AdamW(trainable(tuned).values(), lr=1e-3)
    tuned.loss(tuned.encode(data[:32])).backward()
    optimizer.step()
    for part in batches(len(data), 32):
        clean = [planes(data[i].image) for i in part]
        batch = tuned.encode([data[i] for i in part], clean)
        delta = [torch.zeros_like(x) for x in clean]
        for _ in range(PGD):
            leaves = [d.clone().requires_grad_() for d in delta]
            loss = tuned.losses(tuned.with_images(batch, [x + d for x, d in zip(clean, leaves, strict=True)])).sum()
            gradients = torch.autograd.grad(loss, leaves)
            delta = [sign_descent(d, g, x, 0.8 / 255, 8 / 255) for d, g, x in zip(delta, gradients, clean, strict=True)]
        with torch.no_grad():
            tuned.losses(tuned.with_images(batch, [x + d for x, d in zip(clean, delta, strict=True)]))
    return time.perf_counter() - start


def test_em_against_a_bare_pgd_loop(benchmark: BenchmarkFixture) -> None:
    em_seconds()
    ratio = interleaved(em_seconds, bare_pgd_seconds)
    benchmark.extra_info |= {"em / bare PGD, image-steps per second": round(ratio, 3), "reach": 1.5}
    benchmark.pedantic(em_seconds, rounds=1)


def test_start_of_the_command_line(benchmark: BenchmarkFixture) -> None:
    command = [sys.executable, "-c", "import sys; sys.argv[1:] = ['--help']; from arena.cli.app import main; main()"]
    benchmark.pedantic(lambda: subprocess.run(command, check=True, capture_output=True), rounds=5, warmup_rounds=1)
    benchmark.extra_info["below"] = "1 s"
