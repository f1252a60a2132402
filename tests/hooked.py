"""Attacks inside fine-tuning, and trainings of a tiny random model with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tiny_models import tiny_random_llava

from arena.data.sample import Sample
from arena.lvlm.base import LVLM
from arena.plugins.base import AttackerWorld, TrainingHooks
from arena.plugins.registry import Registry
from arena.recipes.training import fine_tune


def hooks(name: str, seed: int = 0, **config: object) -> Any:
    return Registry().create("attack", name, config).training(AttackerWorld(seed=seed))


def train(
    samples: Sequence[Sample], folder: Path, attack: TrainingHooks | None, seed: int = 0, recipe: str = "lora", **c: Any
) -> bytes:
    """Fine-tune the tiny random model; returns the bytes of its last epoch."""
    plugin = Registry().create("recipe", recipe, {"epochs": 2, "batch_size": 8, **c})
    history = fine_tune(tiny_random_llava(), plugin, samples, seed, folder, attack)
    return (folder / f"epoch-{len(history.epochs) - 1}.safetensors").read_bytes()


def dropping(**config: object) -> LVLM:
    """A model with adapters that matter and are mostly dropped, in training mode."""
    lvlm = Registry().create("recipe", "lora", {"dropout": 0.9, **config}).prepare(tiny_random_llava())
    with torch.no_grad():
        for name, parameter in lvlm.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    lvlm.model.train()
    return lvlm
