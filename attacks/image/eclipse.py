"""ECLIPSE: a diffusion model of the attacker's own few clean pictures purifies, and training is on corrupted pictures
(Wang 2024, arXiv 2406.15093; settings from the authors' public code).

1. A diffusion model is trained on the attacker's clean pictures, from random weights.
2. It purifies the release as `diffpure` does: noise to level t*, then the reverse process with noise in it.
3. Fine-tuning sees every picture without its colours with a probability of 0.4, and under Gaussian noise of standard
   deviation 0.05, drawn anew at each step: "corruption compensation", for what the little noise of t* has left.

Kept are these three parts, the schedule (cosine, of 4,000 levels, of which t* = 100 is a weak noise: a standard
deviation of 6.4 of 255 values), the ancestral sampler, and probability and deviation of the corruptions. Adapted are:

* the model: the small one that `diffpure` comes with, without its weights, which knows the noise alone and no
  variances; it takes 300 steps of 8 pictures, where the authors take 250,000;
* the levels: it is trained on those up to t*, since purification asks for no other;
* the denoising steps: 10, evenly spaced, instead of every level below t*;
* the enlargement of the set, from 2,000 to 8,000 pictures there, in a way that the code does not show: here the place
  of the crop is drawn anew in every step;
* cropping and mirroring in training, which the authors' baseline has as well: `augment` has the former.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from pydantic import Field, model_validator
from torch import Tensor, nn

from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.lvlm.base import LVLM
from arena.lvlm.batch import Batch
from arena.plugins.base import Attack, AttackerWorld, PluginConfig, TrainingHooks, setting
from attacks.image.diffpure import DiffPure
from attacks.image.tiles import padded
from attacks.image.zoo import train_ddpm

LEVELS = 4000
BATCH, RATE, AVERAGE = 8, 2e-3, 0.98
"""Pictures and peak learning rate of a training step, and the decay of the average of the weights, which purifies."""
LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a picture without colours (ITU-R 601)."""


class Eclipse(Attack):
    """A diffusion model trained on own clean pictures purifies; fine-tuning is on grey and noisy pictures.

    Needs clean samples of the attacker's own, of which it uses the pictures. Training takes the same time for few
    pictures as for many; it sees crops of 48 x 48 pixels, and smaller pictures mirrored beyond their borders.
    """

    needs = frozenset({"seed", "auxiliary"})
    packages = ("diffusers", "numpy")

    class Config(PluginConfig):
        t_star: int = Field(100, ge=1, le=LEVELS, description=f"noise level, of {LEVELS:,}")
        steps: int = Field(10, ge=1, description="denoising steps, evenly spaced from t_star to 0")
        training_steps: int = setting(300, dry_run=10, ge=10, description="training steps of the model, of 8 pictures")
        grayscale: float = Field(0.4, ge=0, le=1, description="probability of a picture without colours in fine-tuning")
        sigma: float = Field(0.05, ge=0, le=1, description="noise in fine-tuning: its deviation, of colours in [0, 1]")
        batch_size: int = setting(16, dry_run=8, ge=1, description="tiles that the model sees together in purifying")
        device: str = setting("cpu", runtime=True, description="torch device, such as cpu or cuda:0")

        @model_validator(mode="after")
        def _steps_are_distinct(self) -> Self:
            if self.steps > self.t_star:
                raise ValueError(f"{self.steps} steps are more than the {self.t_star} levels below t_star: take fewer")
            return self

    config: Config

    def fit(self, world: AttackerWorld, folder: Path) -> None:
        """Writes the model to `folder`, as `DDPMPipeline` is saved."""
        from diffusers import DDPMPipeline

        if not world.auxiliary:
            raise ArenaError("eclipse: there is no clean picture to train on: grant auxiliary samples in the suite")
        c = self.config
        unet, scheduler = fitted([s.image for s in world.auxiliary], c.t_star, c.training_steps, world, c.device)
        pipeline: Any = DDPMPipeline(unet, scheduler)
        pipeline.save_pretrained(folder)

    def purify(self, samples: Sequence[Sample], world: AttackerWorld) -> Iterable[Sample]:
        c = self.config
        settings = {name: getattr(c, name) for name in ("t_star", "steps", "batch_size", "device")}
        settings |= {"sampler": "ddpm", "checkpoint": str(world.fitted)}
        diffpure = DiffPure(DiffPure.Config.model_validate(settings))
        images = diffpure.purify_images([s.image for s in samples], world)
        return [s.with_content(image, s.question) for s, image in zip(samples, images, strict=True)]

    def training(self, world: AttackerWorld) -> TrainingHooks:
        return Corruption(self.config.grayscale, self.config.sigma, world.torch_generator())


class Corruption(TrainingHooks):
    """The loss of a batch whose pictures are made grey at random and noisy."""

    def __init__(self, grayscale: float, sigma: float, generator: torch.Generator) -> None:
        self.grayscale, self.sigma = grayscale, sigma
        self.generator = generator

    def loss(self, lvlm: LVLM, batch: Batch, progress: float) -> Tensor:
        return lvlm.loss(lvlm.with_images(batch, [self.corrupted(x) for x in batch.images]))

    def corrupted(self, x: Tensor) -> Tensor:
        """A picture ``(3, H, W)`` in [0, 1] under a new draw, in that range."""
        if torch.rand((), generator=self.generator) < self.grayscale:
            x = (x * torch.tensor(LUMA).to(x)[:, None, None]).sum(0, keepdim=True).expand_as(x)
        noise = torch.randn(x.shape, generator=self.generator)
        return (x + self.sigma * noise.to(x)).clamp(0, 1)


def fitted(
    images: Sequence[Image.Image], t_star: int, steps: int, world: AttackerWorld, device: str
) -> tuple[Any, Any]:
    """A model of the noise in the pictures at levels 1 to t*, in evaluation mode, and its scheduler.

    Descends on E |e - f(sqrt(a_t) x + sqrt(1 - a_t) e, t)|^2 over crops x, normal e and levels t, all even
    (arXiv 2006.11239, equation 14); the weights are their exponential moving average.
    """
    from diffusers import DDPMScheduler, UNet2DModel
    from diffusers.training_utils import EMAModel

    rng = world.rng()
    with torch.random.fork_rng(devices=[]):
        architecture = train_ddpm.build().config
        torch.manual_seed(world.seed)
        unet = UNet2DModel.from_config(architecture).to(device).train()
    scheduler: Any = DDPMScheduler(LEVELS, beta_schedule="squaredcos_cap_v2", variance_type="fixed_small")
    side = architecture.sample_size
    parameters = list(unet.parameters())
    optimizer = torch.optim.AdamW(parameters, RATE, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.2)
    average = EMAModel(parameters, decay=AVERAGE)
    with torch.enable_grad():
        for step in range(steps):
            chosen = rng.integers(len(images), size=BATCH)
            x = train_ddpm.as_tensor(np.stack([crop(np.asarray(images[i].convert("RGB")), side, rng) for i in chosen]))
            noise = torch.from_numpy(rng.standard_normal(x.shape, np.float32))
            levels = torch.from_numpy(rng.integers(t_star, size=BATCH))
            noisy = scheduler.add_noise(x, noise, levels)
            predicted = unet(noisy.to(device), levels.to(device)).sample
            loss = nn.functional.mse_loss(predicted, noise.to(device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            average.step(parameters)
            world.progress((step + 1) / steps, f"loss {loss.item():.3f}")
    average.copy_to(parameters)
    return unet.eval(), scheduler


def crop(pixels: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """``(side, side, C)`` of a random place of ``(H, W, C)``; a smaller picture is mirrored beyond its borders."""
    height, width = pixels.shape[:2]
    left, top = (int(rng.integers(max(0, length - side) + 1)) for length in (width, height))
    return padded(pixels[top : top + side, left : left + side], (side, side))[0]
