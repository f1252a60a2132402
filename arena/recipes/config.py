"""The settings that every recipe has; apart from the loop, so that reading a suite loads no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from arena.plugins.base import PluginConfig, setting


class TrainingConfig(PluginConfig):
    """Settings that every recipe has: the published fine-tuning set-up, with rates and epochs for the tiny models."""

    learning_rate: float = Field(
        2e-3, gt=0, description="peak learning rate; 1e-5 to 3e-4 for multi-billion-parameter models"
    )
    epochs: int = setting(8, dry_run=1, ge=1, description="passes over the training set")
    batch_size: int = setting(8, dry_run=8, ge=1, description="samples per device and step")
    gradient_accumulation: int = setting(1, dry_run=1, ge=1, description="steps per update")
    gradient_checkpointing: bool = setting(
        False, dry_run=False, description="recompute activations in the backward pass to save memory"
    )
    precision: Literal["float32", "bfloat16"] = setting(
        "float32", dry_run="float32", description="autocast type of training"
    )
    warmup_ratio: float = Field(0.1, ge=0, lt=1, description="share of the steps that warm up; cosine decay follows")
    weight_decay: float = Field(0.0, ge=0, description="of what learns (AdamW)")
    pack: int = setting(
        8,
        runtime=True,
        ge=1,
        description="cells at most that are trained in one pass, where the recipe allows it; 1: each by itself",
    )
    checkpoints: Literal["all", "best"] = setting(
        "all", dry_run="best", description="epochs kept on disk; peak accuracy needs all of them"
    )
