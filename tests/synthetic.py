"""Records of a made-up suite with known probabilities of a right answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from arena.plugins.identity import PROTOCOL_VERSION, identity
from arena.records.schema import Outcome, Record
from arena.suites.schema import Suite, digest

ITEMS = 120


def plugin(name: str, **fields: Any) -> dict[str, Any]:
    origin = {"package": "mmguard-arena", "version": "0.1.0"}
    made = {"source_digest": f"{name}-source", "origin": origin}
    return {"id": name, "version": "1", "config": {}, "runtime": {}, "fingerprint": None, **made, **fields}


def base_model(name: str) -> dict[str, Any]:
    return plugin(name, fingerprint="m" * 8, family="llava")


def correct(probability: float, key: tuple[int, ...], items: int = ITEMS) -> np.ndarray:
    """Items answered right with the given probability; difficulty is shared by all cells, luck belongs to `key`."""
    difficulty = np.random.default_rng(0).random(items)
    luck = np.random.default_rng(key).random(items)
    return (0.7 * difficulty + 0.3 * luck).argsort().argsort() < round(probability * items)


def record(
    probability: float = 0.9,
    defense: str = "none",
    attack: str = "none",
    seed: int = 0,
    *,
    recipe: str = "lora",
    sweep: str | None = None,
    dataset: str = "glyphs",
    model: str = "tiny-llava",
    image: float = 8.0,
    auxiliary: float = 0.0,
    zero_shot: float | None = 0.1,
    items: int = ITEMS,
    error: str | None = None,
    bits: np.ndarray | None = None,
    surrogates: Sequence[str] = (),
    created: str = "2026-01-01T00:00:00+00:00",
    **changes: Any,
) -> Record:
    """One record; `error` makes it a failed one, a `sweep`, with a bound of 0.05, is the one that its recipe is of,
    `surrogates` are the fine-tuned model unless given, `changes` replace top-level fields."""
    budget = "" if defense == "none" else str(image)  # the clean control is the same under every budget
    names = (dataset, model, defense, attack, recipe, budget, str(auxiliary))
    key = (seed, *"/".join((*names, *surrogates)).encode())
    if bits is None:
        bits = correct(probability, key, items)
    crafted = defense not in ("none", "random")
    owned = list(surrogates) or ([model] if crafted else [])
    stage = {"seconds": 12.0, "seconds_per_sample": 0.05, "peak_memory_mb": 900.0}
    stealth = {"psnr": None if defense == "none" else 31.5, "ssim": 0.91, "max_delta": image}
    fields: dict[str, Any] = {
        "protocol_version": PROTOCOL_VERSION,
        "suite": {"id": "made-up", "digest": "5" * 64},
        "status": "done" if error is None else "failed",
        "failure": None if error is None else {"stage": "release", "error": error, "traceback": "Traceback ..."},
        "dataset": plugin(dataset, samples="f" * 8, train=256, auxiliary=64, test=items, seed=0, convention="exact"),
        "model": base_model(model),
        "defense": plugin(defense, label=defense, surrogates=[base_model(name) for name in owned]),
        "attack": {"label": attack, "parts": [plugin(attack)]},
        "recipe": plugin(recipe, label=recipe, sweep=sweep, clean_cost=None if sweep is None else 0.05),
        "knowledge": "none" if not crafted else "white-box" if model in owned else "black-box",
        "budget": {"norm": "linf", "image": image, "text": 5, "forbid_answer_words": True},
        "auxiliary": auxiliary,
        "seed": seed,
        "zero_shot": None if zero_shot is None else Outcome.pack(correct(zero_shot, (99,), items)),
        "outcome": None if error is not None else Outcome.pack(bits, {"exact": float(bits.mean())}),
        "peak_accuracy": None if error is not None else min(1.0, float(bits.mean()) + 0.01),
        "chosen_epoch": None if error is not None else 0,
        "epochs": [{"loss": 0.2, "held_out_accuracy": 0.8, "held_out_loss": 0.3, "test_accuracy": 0.5}],
        "stealth": stealth if error is None else None,
        "cost": {"protect": stage if crafted else None, "purify": None, "finetune": stage, "machine": "2 cores, 8 GB"},
        "diagnostics": {"eta": 0.25} if crafted else {},
        "lineage": {"clean": "c1", "release": "r1", "purified": None, "checkpoint": "k1", "score": "s1"},
        "engine_digest": "engine-source",
        "environment": {
            "packages": {"torch": "2.13.0", "numpy": "2.4.6"},
            "git_commit": "0123456789abcdef",
            "git_dirty": False,
            "device": "cpu",
            "threads": 2,
            "nondeterminism": [],
        },
        "created": created,
        **changes,
    }
    return Record.model_validate({**fields, "cell": identity(fields)})


QUICK: Mapping[tuple[str, str], float] = {
    ("none", "none"): 0.90,
    ("none", "grayscale"): 0.88,
    ("none", "jpeg"): 0.80,
    ("random", "none"): 0.90,
    ("random", "grayscale"): 0.88,
    ("random", "jpeg"): 0.80,
    ("em", "none"): 0.25,
    ("em", "grayscale"): 0.35,
    ("em", "jpeg"): 0.55,
    ("lsp", "none"): 0.75,
    ("lsp", "grayscale"): 0.84,
    ("lsp", "jpeg"): 0.79,
}


def declared(made: Record, **facts: Any) -> Record:
    """The record with what its attack declares."""
    return made.model_copy(update={"attack": made.attack.model_copy(update=facts)})


def quick(table: Mapping[tuple[str, str], float] = QUICK, seeds: int = 3, **fields: Any) -> list[Record]:
    """Defenses x attacks x seeds with the given probabilities."""
    return [record(p, d, a, s, **fields) for (d, a), p in table.items() for s in range(seeds)]


def recorded_of(suite: Suite, probability: float = 0.5) -> list[Record]:
    """A record of every cell that a suite of installed plugins asks for, each with the same probability."""
    from arena.engine.plan import planned_cells
    from arena.plugins.registry import Registry

    made = []
    for cell in planned_cells(suite, Registry()):
        template = record(probability, seed=cell.asked.seed, items=cell.asked.dataset.test).model_dump(mode="json")
        own = {"suite": {"id": suite.id, "digest": digest(suite)}, "cell": cell.key}
        made.append(Record.model_validate({**template, **cell.asked.model_dump(mode="json"), **own}))
    return made
