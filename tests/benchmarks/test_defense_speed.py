"""Speed of the protections that need no surrogate, and memory of all, on pictures of 224 x 224."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from arena.budget import Budget
from arena.data.sample import Sample
from arena.plugins.base import DefenderWorld
from arena.plugins.registry import Registry

BUDGETS = {
    "ar": Budget(norm="l2", image=5),
    "cuda": Budget(norm="unbounded"),
    "lsp": Budget(norm="l2", image=6),
    "ops": Budget(norm="l0", image=1),
}
PICTURES, ANSWERS = 400, 4
ROOT = Path(__file__).parents[2]
CLEAN = {"clean_steps": 1, "pgd_steps": 1}
TURNS = {"rounds": 1, "theta_steps": 1, "pgd_steps": 1}
MMGUARD = {"rounds": 1, "pgd_steps": 1, "candidates": 2, "trigger_tokens": 1}
SETTINGS: dict[str, dict[str, object]] = {
    **{name: {} for name in ("random", "random-words", "answer-word", "lsp", "ar", "ops", "cuda", "regtext")},
    **dict.fromkeys(("em", "mi-ue", "tue", "anti-finetune", "style-eot"), TURNS),
    **{name: TURNS | {"draws": 1, "inner_steps": 1} for name in ("rem", "sem")},
    "em-class": TURNS | {"batches": 2},
    "hypo": CLEAN,
    "tap": CLEAN,
    "dune": CLEAN | {"models": 1, "particles": 2, "iterations": 1, "pictures": 2},
    "feature-target": {"pgd_steps": 1},
    "pil": {"train_steps": 2, "pgd_steps": 1},
    "ntga": {"pgd_steps": 1, "block": 32},
    "uc": {"clusters": 2, "epochs": 1, "side": 16, "width": 4},
    "t2ue": {"epochs": 1, "blocks": 3, "width": 4},
    "bait": {"rounds": 1, "side": 16, "blocks": 1, "candidates": 2},
    "vtg": {"rounds": 1, "theta_steps": 1, "side": 16, "style_width": 2},
    "text-em": {"rounds": 1, "candidates": 2, "trigger_tokens": 1},
    "mem": TURNS | {"candidates": 2, "trigger_tokens": 1},
    **dict.fromkeys(("mmguard-bph", "mmguard-crs"), MMGUARD),
}
"""Of each method that crafts something, so that it does all that it does, and not for long."""


@pytest.mark.parametrize("name", BUDGETS)
def test_pictures_a_second(name: str, benchmark: Any) -> None:
    torch.set_num_threads(1)
    samples = _pictures(PICTURES)
    defense, world = Registry().create("defense", name, {}), DefenderWorld(seed=0, budget=BUDGETS[name])
    made = benchmark.pedantic(lambda: sum(1 for _ in defense.protect(samples, world)), rounds=3)
    assert made == PICTURES
    benchmark.extra_info["pictures a second, asked 200 of ar and lsp"] = round(PICTURES / benchmark.stats.stats.median)


def test_a_thousand_pictures_by_a_linear_classifier(benchmark: Any) -> None:
    """pil on two threads."""
    torch.set_num_threads(2)
    samples = _pictures(1000)
    defense, world = Registry().create("defense", "pil", {}), DefenderWorld(seed=0, budget=Budget())
    assert benchmark.pedantic(lambda: sum(1 for _ in defense.protect(samples, world)), rounds=1) == 1000
    benchmark.extra_info["seconds, asked 60"] = round(benchmark.stats.stats.median)


def _pictures(count: int) -> list[Sample]:
    rng = np.random.default_rng(0)
    return [
        Sample(str(i), Image.fromarray(rng.integers(0, 256, (224, 224, 3), np.uint8)), "what?", f"answer {i % ANSWERS}")
        for i in range(count)
    ]


MEMORY = """
    import json, resource, sys
    import numpy as np
    from collections.abc import Sequence
    from PIL import Image
    from arena.budget import Budget
    from arena.data.sample import Sample
    from arena.plugins.base import DefenderWorld
    from arena.plugins.registry import Registry
    from tiny_models import tiny_random_llava

    class Drawn(Sequence):
        "Samples of 150 kB each that exist while they are looked at."

        def __len__(self):
            return int(sys.argv[1])

        def __getitem__(self, i):
            if isinstance(i, slice):
                return [self[number] for number in range(*i.indices(len(self)))]
            if i >= len(self):
                raise IndexError
            pixels = np.random.default_rng(i).integers(0, 256, (224, 224, 3), dtype=np.uint8)
            return Sample(str(i), Image.fromarray(pixels), "which clan is this?", ("red", "blue")[i % 2])

    name, config = sys.argv[2:]
    defense = Registry().create("defense", name, json.loads(config))
    for draft in defense.protect(Drawn(), DefenderWorld(Budget(), 0, lambda: (tiny_random_llava(),))):
        pass
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.parametrize("name", SETTINGS)
def test_memory_does_not_grow_with_the_data(name: str, benchmark: Any) -> None:
    def peak(count: int) -> int:
        """Most resident MiB of a run in a process of its own."""
        command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(MEMORY), str(count), name]
        # Freed tensors go back to the system at once, so that the peak measures what is in use and not fragmentation.
        paths = f"{ROOT}:{ROOT / 'tests'}"
        environment = {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
        done = subprocess.run(
            [*command, json.dumps(SETTINGS[name])], env=environment, capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    few = peak(200)
    many = benchmark.pedantic(lambda: peak(2000), rounds=1)
    benchmark.extra_info |= {"MiB at 200": few, "MiB at 2000": many, "ratio": round(many / few, 3), "at most": 1.1}
    assert many - few < 50  # the 1,800 pictures more are 270 MiB


def test_every_protection_that_crafts_something_is_measured() -> None:
    ids = {entry.id for entry in Registry().entries("defense") if entry.origin.package == "mmguard-arena"}
    ablations = {id for id in ids if id.startswith("mmguard-")} - SETTINGS.keys()
    assert ids - ablations - SETTINGS.keys() == {"none", "released"}
