"""LE-JCDP: purification by diffusion that two distances guide (Jiang 2023, arXiv 2305.09241).

A picture x' in [-1, 1] goes through four rounds, each of which noises it to level t* and leads it back level by level.
With f the model's estimate of the picture, mu and s_t the mean and variance of DDPM's reverse step (arXiv 2006.11239,
equations 6 and 7), d a distance and x'_t the released picture, noised anew to the present level:

    x_(t-1) = mu(x_t, f(x_t, t)) - s_t g_t grad d(x_t, x'_t) + sqrt(s_t) e,    g_t = g sqrt((1 - a_t) / a_t) / m

So little noise is added that what a picture shows stays, and guidance keeps it from drifting off over the rounds.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from arena.plugins.base import setting
from attacks.image.diffusion import Diffusion, as_pixels, as_values, output
from attacks.image.tiles import Tiling

if TYPE_CHECKING:
    from attacks.image.denoiser import Denoiser

MARGIN = 2 * 8 / 255 / 3
"""m, a third of the perturbation of 8/255 that the authors reckon with, in values from -1 to 1."""
PICTURE = 3 * 32 * 32
"""Values of the pictures that g is for."""
WINDOW = 11
"""Pixels along a side of SSIM's window, at most."""


class JointConditional(Diffusion):
    """Pictures are noised a little and denoised, four times over, and held to what they were by two distances.

    At levels from `turn` on it is the mean squared error, below it one of looks. Steps, levels, variances and g are
    those of the authors' code for CIFAR-10. Adapted: looks are compared by SSIM, which that code has too, since the
    weights of LPIPS do not come with the arena. That code takes means over a batch of 500 pictures, so that guidance
    is the weaker the more pictures are purified together; here each one has its own. g counts as much for a value of a
    picture of any size as for one of 32 x 32 pixels. A released picture is noised by the generator of its picture.

    Pictures of any size and `checkpoint` are as in `diffpure`. A picture takes 80 passes of the model.
    """

    packages = ("diffusers", "numpy", "kornia")

    class Config(Diffusion.Config):
        t_star: int = Field(20, ge=1, description="noise level, of the scheduler's 1,000; 20 is the authors'")
        rounds: int = setting(
            4, dry_run=1, ge=1, description="times that pictures are noised and led back; 4 is theirs"
        )
        guidance: float = Field(70_000, ge=0, description="g, the strength of guidance; 0 for none")
        turn: int = Field(
            11, ge=0, description="level below which looks guide in place of squared errors; 11 is theirs"
        )

    config: Config

    def purified(
        self, denoiser: Denoiser, tiling: Tiling, pixels: np.ndarray, generators: list[torch.Generator]
    ) -> np.ndarray:
        from diffusers.utils.torch_utils import randn_tensor

        c, scheduler = self.config, denoiser.scheduler
        levels = list(range(c.t_star - 1, -1, -1))  # the scheduler's numbers start at 0
        scheduler.set_timesteps(timesteps=levels)
        released = as_values(pixels, c.device)

        def noise() -> Tensor:
            drawn: Tensor = randn_tensor(released.shape, generators, released.device, released.dtype)
            return drawn

        x = released
        with torch.no_grad():
            for _ in range(c.rounds):
                x = scheduler.add_noise(x, noise(), torch.tensor(levels[:1]))
                for level in levels:
                    found = tiling.map(x, partial(output, denoiser, level), c.batch_size)
                    # of the scheduler's own step only what it takes for the picture
                    estimate = scheduler.step(found, level, x, generators).pred_original_sample
                    mean, variance = reverse_step(scheduler, level, x, estimate)
                    if c.guidance:
                        now = scheduler.add_noise(released, noise(), torch.tensor([level]))
                        signal = scheduler.alphas_cumprod[level]
                        strength = c.guidance / MARGIN * ((1 - signal) / signal).sqrt() * x[0].numel() / PICTURE
                        mean = mean - variance * strength * slope(x, now, squared=level >= c.turn)
                    x = mean + variance.sqrt() * noise() if level else mean
        return as_pixels(x)


def reverse_step(scheduler: object, level: int, x: Tensor, estimate: Tensor) -> tuple[Tensor, Tensor]:
    """Mean ``(B, 3, H, W)`` and variance, a scalar, of the reverse step from a level: the larger one of DDPM's two."""
    products = scheduler.alphas_cumprod  # type: ignore[attr-defined]
    product, before = products[level], products[level - 1] if level else torch.ones(())
    beta = 1 - product / before  # rounded as the products are
    mean = (beta * before.sqrt() * estimate + (1 - before) * (1 - beta).sqrt() * x) / (1 - product)
    if level:
        return mean, beta
    return mean, (1 - products[1] / products[0]) * (1 - products[0]) / (1 - products[1])  # no noise comes with it


def slope(x: Tensor, to: Tensor, squared: bool) -> Tensor:
    """The gradient of each picture's distance from another one, ``(B, 3, H, W)`` in [-1, 1]: the mean squared error, or
    one minus the mean SSIM."""
    from kornia.metrics import ssim

    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        if squared:
            distance = (leaf - to).square().mean((1, 2, 3))
        else:
            side = min(WINDOW, *(length - 1 + length % 2 for length in x.shape[-2:]))
            distance = 1 - ssim((leaf + 1) / 2, (to + 1) / 2, side).mean((1, 2, 3))
        (gradient,) = torch.autograd.grad(distance.sum(), leaf)
    return gradient
