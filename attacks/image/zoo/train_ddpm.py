"""Training of the shipped diffusion model: ``python -m attacks.image.zoo WORK OUT``.

Predicts the noise in pictures of `attacks.image.zoo.pictures`, at the noise levels of DDPM (Ho 2020, arXiv 2006.11239):
1,000 steps, linear schedule, so that a level t* means what it means in DiffPure and AVATAR. Purification starts at low
levels, and there the model is trained most; the weights shipped are their exponential moving average.

Every batch is a function of (seed, step): a run that was killed goes on from its last checkpoint in WORK to the same
weights.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from arena.files import atomically
from attacks.image.zoo import pictures

STEPS = 1150
WARM_UP, FALL = 100, (950, 1400)
"""The learning rate rises for `WARM_UP` steps, and falls from the first step of `FALL` on towards 0 at the second; the
average makes up for training ending before that."""
BATCH, RATE = 8, 2e-3
CHECKPOINT_EVERY = 50
LOW, LOW_SHARE = 150, 0.75
"""Levels below `LOW` make up `LOW_SHARE` of a batch, beyond their part of those drawn from all levels."""
EMA_DECAY = 0.995


def build() -> Any:
    """An untrained model, float32, initialised from the training seed. Nearly all of its time goes into the first
    level, so that one is narrow; attention is at 6 x 6, where it costs nothing."""
    torch.manual_seed(pictures.TRAINING)
    return UNet2DModel(
        sample_size=pictures.SIZE,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(24, 32, 64, 96),
        down_block_types=("DownBlock2D", "DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=16,
    )


def build_scheduler() -> Any:
    return DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear", beta_start=1e-4, beta_end=0.02)


def as_tensor(pixels: np.ndarray) -> Tensor:
    """float32 ``(B, 3, H, W)`` in [-1, 1] of uint8 ``(B, H, W, 3)``."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


class Training:
    """The model on its way, checkpointed in `folder`."""

    def __init__(self, folder: Path, say: Callable[[str], None] = print, steps: int = STEPS) -> None:
        self.folder, self.say, self.steps = folder, say, steps
        folder.mkdir(parents=True, exist_ok=True)
        self.model = build()
        self.scheduler = build_scheduler()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=RATE, betas=(0.9, 0.99), weight_decay=0.01)
        self.average = EMAModel(self.model.parameters(), decay=EMA_DECAY)
        self.step = self._resume()

    def run(self) -> Any:
        """Train to the end; returns the model with averaged weights, in evaluation mode."""
        parameters = list(self.model.parameters())
        mean = math.nan
        self.model.train()
        while self.step < self.steps:
            for group in self.optimizer.param_groups:
                group["lr"] = _rate(self.step)
            loss = self._loss(pictures.stream(pictures.TRAINING, self.step))
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            self.optimizer.step()
            self.average.step(parameters)
            self.step += 1
            mean = loss.item() if math.isnan(mean) else 0.98 * mean + 0.02 * loss.item()
            if self.step % CHECKPOINT_EVERY == 0 or self.step == self.steps:
                self._checkpoint()
                self.say(f"tiny-ddpm-48 {self.step}/{self.steps} loss {mean:.4f}")
        self.average.copy_to(parameters)
        return self.model.eval()

    def _loss(self, rng: np.random.Generator) -> Tensor:
        clean = as_tensor(np.stack([pictures.picture(rng) for _ in range(BATCH)]))
        noise = torch.from_numpy(rng.standard_normal(clean.shape, np.float32))
        levels = self.scheduler.config.num_train_timesteps
        t = torch.from_numpy(rng.integers(np.where(rng.random(BATCH) < LOW_SHARE, LOW, levels)))
        predicted = self.model(self.scheduler.add_noise(clean, noise, t), t).sample
        return nn.functional.mse_loss(predicted, noise)

    def _checkpoint(self) -> None:
        """Model, average and optimizer moments in one safetensors file, replaced atomically."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"average.{i}": v for i, v in enumerate(self.average.shadow_params)}
        for i, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{k}": v for k, v in state.items()}
        with atomically(self.folder / "ddpm.safetensors") as partial:
            save_file({k: v.contiguous() for k, v in tensors.items()}, partial, {"step": json.dumps(self.step)})

    def _resume(self) -> int:
        path = self.folder / "ddpm.safetensors"
        if not path.exists():
            return 0
        tensors = load_file(path)
        with safe_open(path, "pt") as file:
            step = int(json.loads(file.metadata()["step"]))
        self.model.load_state_dict(_part(tensors, "model."))
        average = _part(tensors, "average.")
        self.average.shadow_params = [average[str(i)] for i in range(len(average))]
        self.average.optimization_step = step
        states: dict[int, dict[str, Tensor]] = {}
        for key, value in _part(tensors, "optimizer.").items():
            index, field = key.split(".", 1)
            states.setdefault(int(index), {})[field] = value
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": states})
        return step


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _rate(step: int) -> float:
    """Of the step with this number, from 0: linear warm-up, constant, then a half cosine."""
    left = min(1.0, (FALL[1] - step) / (FALL[1] - FALL[0]))
    return RATE * min(1.0, (step + 1) / WARM_UP) * 0.5 * (1 - math.cos(math.pi * left))
