"""The golden cells: every family, recipe and kind of attack, at the size of a toy; and the file that pins them.

``python tests/golden/cells.py`` computes them anew and writes ``golden.json``: do so only when what they pin has
changed on purpose, with the protocol version, or a plugin's, counted up.
"""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from arena.engine.execute import run
from arena.environment import machine
from arena.plugins.identity import PROTOCOL_VERSION
from arena.plugins.registry import Registry
from arena.records.schema import Record
from arena.suites.schema import Suite

FILE = Path(__file__).with_name("golden.json")

CHECKPOINTS = (
    *(
        "llava",
        "qwen2-5-vl-7b",
        "qwen3-vl-2b",
        "internvl3-8b",
        "glm-4-1v-9b",
        "idefics3-8b",
        "smolvlm2-2b",
        "gemma3-4b",
    ),
    *("minicpm-v-4-6", "llama-3-2-11b-vision"),
)
"""One of each architecture; random checkpoints stand for them."""

SHIPPED = ("tiny-llava", "tiny-llava-48", "tiny-qwen3-vl", "tiny-idefics3")
RECIPES = ("lora", "dora", "qlora", "projector", "projector-lora", "full")
ATTACKS: tuple[Any, ...] = (
    "none",
    "jpeg",
    "punct",
    {"id": "mix", "auxiliary": 0.5},
    {"id": "adv-train", "config": {"steps": 1}},
    {"id": "vae", "auxiliary": 0.5},
    {"id": "onion", "auxiliary": 0.5, "config": {"quantile": 0.9}},
    "diffpure+paraphrase",
)
"""Of pictures, of text, with clean data, within training, fitted, with the base model, with weights of its own."""

PACKAGES = ("torch", "transformers", "peft", "accelerate", "tokenizers", "numpy", "pillow", "kornia", "diffusers")


def suites(folder: Path) -> list[Suite]:
    """The suites of the golden cells; checkpoints are written into `folder`."""
    registry = Registry()
    models: list[dict[str, Any]] = [{"id": name, "label": name} for name in SHIPPED]
    for name in CHECKPOINTS:
        settings = registry.create("model", name).dry_run(folder / name, seed=5)
        assert settings is not None, f"{name} has no random checkpoint"
        models.append({"id": name, "label": name, "config": dict(settings)})
    fast = {"epochs": 2, "batch_size": 4, "checkpoints": "best"}
    longer = {**fast, "epochs": 24}
    small = {"id": "glyphs", "train": 8, "auxiliary": 4, "test": 12, "seed": 3}
    common: dict[str, Any] = {"datasets": [small], "seeds": [0], "defenses": ["none"], "attacks": ["none"]}
    common["budgets"] = [{"forbid_answer_words": False}]  # a draft is the same under the rule, but for its words
    crafting = {"rounds": 1, "theta_steps": 2, "pgd_steps": 2}
    words = {"rounds": 1, "pgd_steps": 2, "candidates": 2}
    found = (
        {"id": "families", "models": models, "recipes": [{"id": "lora", "label": "lora", "config": fast}]},
        {
            "id": "recipes",
            "models": ["tiny-llava"],
            "recipes": [{"id": name, "label": name, "config": longer} for name in RECIPES],
        },
        {
            "id": "attacks",
            "models": ["tiny-llava"],
            "recipes": [{"id": "lora", "label": "lora", "config": longer}],
            "attacks": ATTACKS,
            "defenses": ["none", {"id": "em", "label": "em", "config": crafting}],
            "skip": [{"defenses": ["none"]}],
        },
        {
            "id": "defenses",
            "models": ["tiny-llava"],
            "recipes": [{"id": "lora", "label": "lora", "config": longer}],
            "defenses": [
                "none",
                "random",
                "lsp",
                {"id": "mem", "label": "mem", "config": {**words, "theta_steps": 2, "text_rounds": 1}},
                {"id": "mmguard-bph", "label": "bph", "config": {**words, "slots": 1}},
            ],
            "skip": [{"defenses": ["none"]}],
        },
    )
    return [Suite.model_validate(common | one) for one in found]


def compute(folder: Path) -> dict[str, Record]:
    """The records of all golden cells, by suite and label."""
    found: dict[str, Record] = {}
    for suite in suites(folder / "checkpoints"):
        report = run(
            suite,
            store=folder / "store",
            results=folder / f"{suite.id}.jsonl",
            scheduler="sync",
            console=Console(file=io.StringIO()),
        )
        for cell, record in zip(report.plan.cells, report.records, strict=True):
            found[f"{suite.id}: {cell.label}"] = record
    return found


def pinned(record: Record) -> dict[str, Any]:
    """What of a record is pinned."""
    assert record.outcome is not None, record.failure
    return {
        "cell": record.cell,
        "lineage": record.lineage.model_dump(),
        "correct": record.outcome.correct,
        "losses": [epoch.loss for epoch in record.epochs],
    }


def here(record: Record) -> dict[str, Any]:
    """What makes contents comparable: the machine and the packages of a record."""
    return {"machine": machine(), **{name: record.environment.packages.get(name) for name in PACKAGES}}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        records = compute(Path(folder))
    first = next(iter(records.values()))
    content = {
        "protocol_version": PROTOCOL_VERSION,
        "made_on": here(first),
        "cells": {label: pinned(record) for label, record in records.items()},
    }
    FILE.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
