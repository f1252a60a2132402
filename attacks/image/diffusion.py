"""What purifiers share that noise pictures and lead them back by an unconditional diffusion model of pictures."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from PIL import Image
from pydantic import Field

from arena.errors import ArenaError
from arena.lvlm.perturbation import batches
from arena.plugins.base import AttackerWorld, ImageAttack, PluginConfig, setting
from attacks.checkpoints import fingerprint, pinned
from attacks.image.colour import on_colours
from attacks.image.denoiser import CHECKPOINT, SHIPPED, load
from attacks.image.tiles import Tiling, padded

if TYPE_CHECKING:
    from attacks.image.denoiser import Denoiser


class Diffusion(ImageAttack):
    """Hands pictures of one size to `purified`, smaller ones padded to the model's, and a generator for each."""

    needs = frozenset({"seed"})
    packages: ClassVar[tuple[str, ...]] = ("diffusers", "numpy")

    class Config(PluginConfig):
        t_star: int = Field(ge=1, description="noise level, of the scheduler's 1,000")
        checkpoint: str | None = setting(
            None, runtime=True, min_length=1, description=f"diffusion model: {CHECKPOINT}; else our own"
        )
        overlap: float = Field(0.25, ge=0, le=0.5, description="least overlap of tiles, as a share of their side")
        batch_size: int = setting(16, dry_run=8, ge=1, description="tiles that the model sees together")
        device: str = setting("cpu", runtime=True, description="torch device, such as cpu or cuda:0")

    config: Config

    @abstractmethod
    def purified(
        self, denoiser: Denoiser, tiling: Tiling, pixels: np.ndarray, generators: list[torch.Generator]
    ) -> np.ndarray:
        """uint8 ``(B, H, W, 3)`` of as much, purified; H and W are at least the model's."""

    def purify_images(self, images: Sequence[Image.Image], world: AttackerWorld) -> Iterable[Image.Image]:
        c = self.config
        denoiser = load(c.checkpoint, c.device)
        if c.t_star > denoiser.levels:
            raise ArenaError(
                f"t_star is {c.t_star}, and diffusion model {denoiser.name!r} has noise levels 1 to "
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
                purified = self.purified(denoiser, tiling, pixels, [generators[i] for i in chosen])
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


def as_values(pixels: np.ndarray, device: str) -> torch.Tensor:
    """uint8 pictures ``(B, H, W, 3)`` as the models see them: float32 ``(B, 3, H, W)`` in [-1, 1]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device, torch.float32) / 127.5 - 1


def as_pixels(values: torch.Tensor) -> np.ndarray:
    """The other way round, rounded and cut off."""
    levels_of_8_bits = ((values + 1) * 127.5).round().clamp(0, 255).byte()
    return np.asarray(levels_of_8_bits.permute(0, 2, 3, 1).cpu())


def output(denoiser: Denoiser, level: int, tiles: torch.Tensor) -> torch.Tensor:
    """What the model says of tiles ``(N, 3, h, w)`` at a noise level, which the scheduler understands."""
    found: torch.Tensor = denoiser.unet(tiles, level).sample
    return found
