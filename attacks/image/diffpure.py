"""Diffusion purification: DiffPure (Nie 2022, arXiv 2205.07460), against protections AVATAR (Dolatabadi 2023, arXiv
2303.08500).

A picture x in [-1, 1] is noised to level t* of a diffusion model, ``x_t = sqrt(a_t) x + sqrt(1 - a_t) e`` with e normal
and a_t the product of the first t* factors ``1 - beta`` (equation 2 of DDPM, arXiv 2006.11239), and the model's reverse
process leads it back to level 0. A protection drowns in the noise, and what the model knows of pictures does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator

from attacks.image.diffusion import Diffusion, as_pixels, as_values, output
from attacks.image.tiles import Tiling

if TYPE_CHECKING:
    from attacks.image.denoiser import Denoiser


class DiffPure(Diffusion):
    """Pictures are noised to level t*, then denoised by an unconditional diffusion model of RGB pictures.

    Pictures keep their size: smaller ones are padded to the model's, in larger ones every noise estimate is blended of
    overlapping tiles, so that the noise is one for the whole picture and tiles leave no seams. Each picture's noise
    comes from a generator of its own.

    Without `checkpoint`, a small model does it that knows procedural scenes of 48 x 48 pixels, see its card
    (`attacks/image/zoo/tiny_ddpm_48/README.md`); for photographs name one that was trained on such.
    """

    class Config(Diffusion.Config):
        t_star: int = Field(100, ge=1, description="noise level, of the scheduler's 1,000; 100 is AVATAR's")
        sampler: Literal["ddim", "ddpm"] = Field("ddim", description="without noise in the reverse process, or with it")
        steps: int = Field(10, ge=1, description="denoising steps, evenly spaced from t_star to 0")

        @model_validator(mode="after")
        def _steps_are_distinct(self) -> Self:
            if self.steps > self.t_star:
                raise ValueError(f"{self.steps} steps are more than the {self.t_star} levels below t_star: take fewer")
            return self

    config: Config

    def purified(
        self, denoiser: Denoiser, tiling: Tiling, pixels: np.ndarray, generators: list[torch.Generator]
    ) -> np.ndarray:
        return purify(denoiser, tiling, pixels, generators, self.config)


@torch.inference_mode()
def purify(
    denoiser: Denoiser, tiling: Tiling, pixels: np.ndarray, generators: list[torch.Generator], config: DiffPure.Config
) -> np.ndarray:
    """uint8 ``(B, H, W, 3)`` of as much, purified; H and W are at least the model's."""
    from diffusers.utils.torch_utils import randn_tensor

    scheduler = denoiser.scheduler
    path = noise_levels(config.t_star, config.steps)
    scheduler.set_timesteps(timesteps=[level for level, _ in path])
    x = as_values(pixels, config.device)
    noise = randn_tensor(x.shape, generators, x.device, x.dtype)
    x = scheduler.add_noise(x, noise, torch.tensor([path[0][0]]))
    return as_pixels(led_back(denoiser, tiling, x, path, config.batch_size, config.sampler, generators))


def led_back(
    denoiser: Denoiser,
    tiling: Tiling,
    x: torch.Tensor,
    path: Sequence[tuple[int, int | None]],
    batch_size: int,
    sampler: Literal["ddim", "ddpm"],
    generators: list[torch.Generator] | torch.Generator,
) -> torch.Tensor:
    """Noisy pictures ``(B, 3, H, W)`` led from level to level of `path`, differentiably; None is the picture itself.
    The scheduler's timesteps are the levels."""
    scheduler = denoiser.scheduler
    for level, following in path:
        found = tiling.map(x, partial(output, denoiser, level), batch_size)
        step = scheduler.step(found, level, x, generators)
        if following is None:  # from here to level 0 there is no noise left to add
            x = step.pred_original_sample
        elif sampler == "ddpm":
            x = step.prev_sample
        else:
            kept, lost = scheduler.alphas_cumprod[level].sqrt(), (1 - scheduler.alphas_cumprod[level]).sqrt()
            estimate = (x - kept * step.pred_original_sample) / lost
            x = scheduler.add_noise(step.pred_original_sample, estimate, torch.tensor([following]))
    return x


def noise_levels(t_star: int, steps: int) -> list[tuple[int, int | None]]:
    """The scheduler's numbers, which start at 0, of `steps` levels from t* down, 99, 89, ... 9 of 100 in 10 steps, each
    with the one that follows; None after the last."""
    levels = [int(level) for level in np.linspace(t_star, 0, steps, endpoint=False).round().astype(int) - 1]
    return list(zip(levels, [*levels[1:], None], strict=True))
