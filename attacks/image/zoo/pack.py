"""From trained weights to the shipped checkpoint: float16, in the diffusers format, and a card with held-out
measures."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMPipeline
from torch import nn

from arena.lvlm.base import LVLM
from arena.lvlm.families.llava.checkpoints import TinyLlava
from attacks.image import denoiser
from attacks.image.zoo import measure, pictures
from attacks.image.zoo.train_ddpm import BATCH, EMA_DECAY, FALL, LOW, LOW_SHARE, RATE, WARM_UP, Training, as_tensor

HELD_OUT = 32
EDGES = (0, 50, 100, 200, 500, 1000)
"""Of the ranges of levels whose losses the card states."""
T_STARS = (20, 40, 60, 100)


def pack(training: Training, out: Path, say: Callable[[str], None] = print, count: int = HELD_OUT) -> None:
    """Train what is left to train, write the model to `out` as `DDPMPipeline` does, and measure what was written."""
    unet = training.run()
    pipeline: Any = DDPMPipeline(unet.half(), training.scheduler)
    pipeline.save_pretrained(out)
    text = _card(training, _losses(str(out), count), _purification(str(out), count), count)
    (out / "README.md").write_text(text, encoding="utf-8")
    say(text)


@torch.inference_mode()
def _losses(checkpoint: str, count: int) -> dict[str, float]:
    """Mean squared error of the predicted noise, by range of levels."""
    model = denoiser.load(checkpoint, "cpu")
    rng = pictures.stream(pictures.HELD_OUT, 2)
    clean = as_tensor(measure.held_out(count))
    losses = {}
    for low, high in pairwise(EDGES):
        t = torch.from_numpy(rng.integers(low, high, count))
        noise = torch.from_numpy(rng.standard_normal(clean.shape, np.float32))
        predicted = model.unet(model.scheduler.add_noise(clean, noise, t), t).sample
        losses[f"{low} to {high - 1}"] = nn.functional.mse_loss(predicted, noise).item()
    return losses


def _purification(checkpoint: str, count: int) -> list[str]:
    """Rows of the card: PSNR and feature error of clean and perturbed pictures, as they are and purified."""
    lvlm = TinyLlava().load()
    clean = measure.held_out(count)
    sets = {
        "clean": clean,
        "random sign": measure.random_sign(clean),
        "adversarial": measure.adversarial(clean, lvlm),
    }
    rows = [_row("as it is", sets, clean, lvlm)]
    for t_star in T_STARS:
        after = {name: measure.purified(x, checkpoint=checkpoint, t_star=t_star) for name, x in sets.items()}
        rows.append(_row(f"t* = {t_star}", after, clean, lvlm))
    return rows


def _row(name: str, sets: dict[str, np.ndarray], clean: np.ndarray, lvlm: LVLM) -> str:
    cells = []
    for pixels in sets.values():
        if np.array_equal(pixels, clean):
            cells.append("same")
        else:
            error = measure.feature_error(pixels, clean, lvlm).mean()
            cells.append(f"{measure.psnr(pixels, clean).mean():.1f} dB, {error:.3f}")
    return f"| {name} | {' | '.join(cells)} |"


def _card(training: Training, losses: dict[str, float], purification: list[str], count: int) -> str:
    unet = training.model
    of_losses = "\n".join(f"| {levels} | {loss:.4f} |" for levels, loss in losses.items())
    of_purification = "\n".join(purification)
    return f"""# tiny-ddpm-48

An unconditional diffusion model of pictures of {pictures.SIZE} x {pictures.SIZE} pixels, RGB, for experiments on a CPU;
what `diffpure` purifies with where no other is named. It knows procedural scenes and is of no use outside this arena.

| | |
|---|---|
| parameters | {unet.num_parameters():,}, float16 |
| channels by level | {", ".join(map(str, unet.config.block_out_channels))}; attention in the last |
| noise | {training.scheduler.config.num_train_timesteps:,} levels, linear schedule as in DDPM (arXiv 2006.11239) |
| training | {training.steps:,} steps of {BATCH} pictures, AdamW |
| learning rate | {RATE:g}, rising to step {WARM_UP}, falling from step {FALL[0]} |
| weights | exponential moving average, decay {EMA_DECAY} |

Made by `python -m attacks.image.zoo WORK OUT` (`attacks/image/zoo/train_ddpm.py`) from seed {pictures.TRAINING}.
Training data are procedural pictures alone (`attacks/image/zoo/pictures.py`): scenes of `arena/data/scenes.py`, also
recoloured and enlarged, and strokes of a pen. {LOW_SHARE:.0%} of the levels trained on are below {LOW}, the others
anywhere: it purifies, and to draw pictures from nothing it has not learned well.

Mean squared error of the noise it predicts in {count} held-out scenes (seed {pictures.HELD_OUT}), by level:

| level | error |
|---|---|
{of_losses}

The same scenes, clean and perturbed by up to {measure.EPSILON}/255, against the clean ones, purified with the default
settings at several t*: PSNR, and distance of the patch features of tiny-llava's vision tower relative to their norm.
Random sign is noise of full strength; adversarial noise was made by 10 steps of sign ascent on that distance.

| | clean | random sign | adversarial |
|---|---|---|---|
{of_purification}
"""
