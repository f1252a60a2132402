"""Diffusion purification: DiffPure (Nie 2022, arXiv 2205.07460), against protections AVATAR (Dolatabadi 2023, arXiv
2303.08500).

A picture x in [-1, 1] is noised to level t* of a diffusion model, ``x_t = sqrt(a_t) x + sqrt(1 - a_t) e`` with e normal
and a_t the product of the first t* factors ``1 - beta`` (equation 2 of DDPM, arXiv 2006.11239), and the model's reverse
process leads it back to level 0. A protection drowns in the noise, and what the model knows of pictures does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
from PIL import Image
from pydantic import Field, model_validator

from arena.errors import ArenaError
from arena.lvlm.perturbation import batches
from arena.plugins.base import AttackerWorld, ImageAttack, PluginConfig, setting
from attacks.checkpoints import fingerprint, pinned
from attacks.image.colour import on_colours
from attacks.image.denoiser import CHECKPOINT, SHIPPED, load
from attacks.image.tiles import Tiling, padded

if TYPE_CHECKING:
    from attacks.image.denoiser import Denoiser


class DiffPure(ImageAttack):
    """Pictures are noised to level t*, then denoised by an unconditional diffusion model of RGB pictures.

    Pictures keep their size: smaller ones are padded to the model's, in larger ones every noise estimate is blended of
    overlapping tiles, so that the noise is one for the whole picture and tiles leave no seams. Each picture's noise
    comes from a generator of its own.

    Without `checkpoint`, a small model does it that knows procedural scenes of 48 x 48 pixels, see its card
    (`attacks/image/zoo/tiny_ddpm_48/README.md`); for photographs name one that was trained on such.
    """

    needs = frozenset({"seed"})
    packages = ("diffusers", "numpy")

    class Config(PluginConfig):
        t_star: int = Field(100, ge=1, description="noise level, of the scheduler's 1,000; 100 is AVATAR's")
        sampler: Literal["ddim", "ddpm"] = Field("ddim", description="without noise in the reverse process, or with it")
        steps: int = Field(10, ge=1, description="denoising steps, evenly spaced from t_star to 0")
        checkpoint: str | None = setting(
            None, runtime=True, min_length=1, description=f"diffusion model: {CHECKPOINT}; else our own"
        )
        overlap: float = Field(0.25, ge=0, le=0.5, description="least overlap of tiles, as a share of their side")
        batch_size: int = setting(16, dry_run=8, ge=1, description="tiles that the model sees together")
        device: str = setting("cpu", runtime=True, description="torch device, such as cpu or cuda:0")

        @model_validator(mode="after")
        def _steps_are_distinct(self) -> Self:
            if self.steps > self.t_star:
                raise ValueError(f"{self.steps} steps are more than the {self.t_star} levels below t_star: take fewer")
            return self

    config: Config

    def purify_images(self, images: Sequence[Image.Image], world: AttackerWorld) -> Iterable[Image.Image]:
        c = self.config
        denoiser = load(c.checkpoint, c.device)
        if c.t_star > denoiser.levels:
            raise ArenaError(
                f"diffpure: t_star is {c.t_star}, and diffusion model {denoiser.name!r} has noise levels 1 to "
                f"{denoiser.levels} only: take a lower one"
            )
        generators = [torch.Generator().manual_seed(int(rng.integers(2**63))) for rng in world.rng().spawn(len(images))]
        frames = [padded(np.asarray(image.convert("RGB")), denoiser.size) for image in images]
        sizes: dict[tuple[int, ...], list[int]] = {}
        for i, (frame, _) in enumerate(frames):
            sizes.setdefault(frame.shape[:2], []).append(i)
        results: dict[int, Image.Image] = {}
        for (height, width), numbers in sizes.items():
            tiling = Tiling((height, width), denoiser.size, c.overlap)
            for part in batches(len(numbers), max(1, c.batch_size // len(tiling.places))):
                chosen = [numbers[k] for k in part]
                pixels = np.stack([frames[i][0] for i in chosen])
                purified = purify(denoiser, tiling, pixels, [generators[i] for i in chosen], c)
                results |= {i: Image.fromarray(p[frames[i][1]]) for i, p in zip(chosen, purified, strict=True)}
                world.progress(len(results) / len(images))
        return [_coloured(image, results[i]) for i, image in enumerate(images)]

    @property
    def in_domain(self) -> str:
        """The model that comes with the arena knows the pictures of its datasets."""
        return "" if self.config.checkpoint else "its diffusion model was trained on clean pictures of this kind"

    def fingerprint(self) -> str:
        """What identifies the model's weights."""
        return fingerprint(self.config.checkpoint or str(SHIPPED))

    def pinned(self) -> Mapping[str, Any]:
        return {"checkpoint": pinned(self.config.checkpoint)} if self.config.checkpoint else {}


def _coloured(image: Image.Image, colours: Image.Image) -> Image.Image:
    """The picture with the colours of an RGB one, in its own mode."""
    return on_colours(image, lambda plane: colours.convert(plane.mode))


@torch.inference_mode()
def purify(
    denoiser: Denoiser, tiling: Tiling, pixels: np.ndarray, generators: list[torch.Generator], config: DiffPure.Config
) -> np.ndarray:
    """uint8 ``(B, H, W, 3)`` of as much, purified; H and W are at least the model's."""
    from diffusers.utils.torch_utils import randn_tensor

    scheduler = denoiser.scheduler
    levels = noise_levels(config.t_star, config.steps)
    scheduler.set_timesteps(timesteps=levels)
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(config.device, torch.float32) / 127.5 - 1
    noise = randn_tensor(x.shape, generators, x.device, x.dtype)
    x = scheduler.add_noise(x, noise, torch.tensor(levels[:1]))
    for level, following in zip(levels, [*levels[1:], None], strict=True):
        output = tiling.map(x, partial(_output, denoiser, level), config.batch_size)
        step = scheduler.step(output, level, x, generators)
        if following is None:  # from here to level 0 there is no noise left to add
            x = step.pred_original_sample
        elif config.sampler == "ddpm":
            x = step.prev_sample
        else:
            kept, lost = scheduler.alphas_cumprod[level].sqrt(), (1 - scheduler.alphas_cumprod[level]).sqrt()
            estimate = (x - kept * step.pred_original_sample) / lost
            x = scheduler.add_noise(step.pred_original_sample, estimate, torch.tensor([following]))
    levels_of_8_bits = ((x + 1) * 127.5).round().clamp(0, 255).byte()
    return np.asarray(levels_of_8_bits.permute(0, 2, 3, 1).cpu())


def _output(denoiser: Denoiser, level: int, tiles: torch.Tensor) -> torch.Tensor:
    output: torch.Tensor = denoiser.unet(tiles, level).sample
    return output


def noise_levels(t_star: int, steps: int) -> list[int]:
    """The scheduler's numbers, which start at 0, of `steps` levels from t* down: 99, 89, ... 9 of 100 in 10 steps."""
    return [int(level) for level in np.linspace(t_star, 0, steps, endpoint=False).round().astype(int) - 1]
