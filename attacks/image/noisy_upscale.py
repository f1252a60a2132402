"""Noisy upscaling: noise, then a diffusion upscaler (Hönig 2024, arXiv 2406.12027, from the authors' public code).

A protection drowns in Gaussian noise, and an upscaler that was trained on noisy pictures paints the noise over: it
draws the large picture from nothing, and the noisy one only guides it. `diffpure` denoises the noisy picture itself.

Kept of the source are the noise (0.1 of the range of colours, clipped, 8 bits), the upscaler (that of Stable Diffusion,
which enlarges by 4) and its 75 steps, and how it is told of the noise: as level 320 of 350, where it would add noise of
that level by itself, and adds that of level 0 here. Adapted are:

* the prompt, which is a caption of the picture there and empty here: samples have questions and answers, and no
  captions. The guidance towards a prompt, 9 there, has then no effect;
* the size: enlarged pictures are reduced to their own size again, so that what is compared has one size.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pydantic import Field

from arena.errors import ArenaError
from arena.plugins.base import AttackerWorld, ImageAttack, PluginConfig, setting
from attacks.checkpoints import fingerprint, pinned
from attacks.image.colour import on_colours
from attacks.image.gaussian_noise import GaussianNoise
from attacks.image.tiles import padded


class NoisyUpscale(ImageAttack):
    """Gaussian noise, then the upscaler of a latent diffusion model, then the picture's own size again.

    Pictures go through the upscaler whole and one by one, mirrored beyond their borders to the sides that it takes; its
    attention takes memory by the square of the pixels. Each picture's noise comes from a generator of its own.
    """

    needs = frozenset({"seed"})
    packages = ("diffusers", "numpy", "pillow", "tokenizers")

    class Config(PluginConfig):
        sigma: float = Field(0.1, gt=0, le=1, description="standard deviation of the noise, of colours in [0, 1]")
        noise_level: int = Field(320, ge=0, description="how noisy the upscaler is told that pictures are")
        steps: int = Field(75, ge=1, description="denoising steps of the upscaler")
        checkpoint: str = setting(
            "stabilityai/stable-diffusion-x4-upscaler",
            runtime=True,
            min_length=1,
            description="diffusers StableDiffusionUpscalePipeline: hub id, with @revision where not main, or folder",
        )
        device: str = setting("cpu", runtime=True, description="torch device, such as cpu or cuda:0")

    config: Config

    def purify_images(self, images: Sequence[Image.Image], world: AttackerWorld) -> Iterable[Image.Image]:
        c = self.config
        upscaler = load_upscaler(c.checkpoint).to(c.device)
        if c.noise_level > (most := upscaler.config.max_noise_level):
            raise ArenaError(
                f"noisy-upscale: noise_level is {c.noise_level}, and {c.checkpoint!r} knows levels up to {most} only: "
                "take a lower one"
            )
        noise = GaussianNoise(GaussianNoise.Config(sigma=c.sigma))
        seeds = (int(rng.integers(2**63)) for rng in world.rng().spawn(len(images)))
        for i, (image, noisy, seed) in enumerate(zip(images, noise.purify_images(images, world), seeds, strict=True)):
            painted = self._painted(upscaler, noisy.convert("RGB"), torch.Generator().manual_seed(seed))
            yield coloured(image, painted)
            world.progress((i + 1) / len(images))

    def _painted(self, upscaler: Any, noisy: Image.Image, generator: torch.Generator) -> Image.Image:
        """What the upscaler makes of an RGB picture, at its size."""
        unit = 2 ** (max(len(part.config.block_out_channels) for part in (upscaler.unet, upscaler.vae)) - 1)
        height, width = (side + -side % unit for side in (noisy.height, noisy.width))
        frame, (rows, columns) = padded(np.asarray(noisy), (height, width))
        large: Image.Image = upscaler(
            "",
            Image.fromarray(frame),
            num_inference_steps=self.config.steps,
            guidance_scale=1.0,
            noise_level=self.config.noise_level,
            generator=generator,
        ).images[0]
        small = large.resize((width, height), Image.Resampling.LANCZOS)
        return small.crop((columns.start, rows.start, columns.stop, rows.stop))

    def fingerprint(self) -> str:
        """What identifies the upscaler's weights."""
        return fingerprint(self.config.checkpoint)

    def pinned(self) -> Mapping[str, Any]:
        return {"checkpoint": pinned(self.config.checkpoint)}


def coloured(image: Image.Image, colours: Image.Image) -> Image.Image:
    """The picture with the colours of an RGB one, in its own mode."""
    return on_colours(image, lambda plane: colours.convert(plane.mode))


class NoNoise:
    """The scheduler of the noise that an upscaler adds to its picture, which adds that of level 0 whatever the level
    that the upscaler is told."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler

    def add_noise(self, picture: torch.Tensor, noise: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        noisy: torch.Tensor = self.scheduler.add_noise(picture, noise, torch.zeros_like(level))
        return noisy


def load_upscaler(checkpoint: str) -> Any:
    """A diffusers StableDiffusionUpscalePipeline that adds the noise of level 0 by itself, whatever level it is told.

    `checkpoint` is a folder or a hub id, which may end in ``@`` and a branch, tag or commit. Weights are read from
    safetensors only. Raises `ArenaError` if they cannot be reached or read, or are those of another kind of model.
    """
    from diffusers import AutoencoderKL, StableDiffusionUpscalePipeline, UNet2DConditionModel
    from safetensors import SafetensorError
    from transformers import CLIPTextModel

    name, _, revision = (checkpoint, "", "") if Path(checkpoint).is_dir() else checkpoint.partition("@")
    place: dict[str, Any] = {"revision": revision or "main"}

    def refuse(problem: str) -> ArenaError:
        return ArenaError(
            f"noisy-upscale: {checkpoint!r} cannot be loaded: {' '.join(problem.split()).rstrip('.')}. Give a folder, "
            "or a hub id that this machine can reach or has in its cache, of a diffusers "
            "StableDiffusionUpscalePipeline in safetensors"
        )

    parts = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel}
    try:
        found = StableDiffusionUpscalePipeline.load_config(name, **place).get("_class_name")
        if found != "StableDiffusionUpscalePipeline":
            raise refuse(f"its model_index.json is that of {found or 'no diffusers pipeline'}")
        loaded = {}
        for part, kind in parts.items():
            loaded[part], report = kind.from_pretrained(
                name, subfolder=part, use_safetensors=True, output_loading_info=True, **place
            )
            if report["missing_keys"]:
                raise refuse(f"the weights of its {part} lack {min(report['missing_keys'])!r}")
        channels, latent = loaded["unet"].config.in_channels, loaded["vae"].config.latent_channels
        if channels != latent + 3:
            raise refuse(f"its unet takes {channels} channels, not {latent} of a latent and 3 of a picture")
        upscaler = StableDiffusionUpscalePipeline.from_pretrained(name, **loaded, **place)
        known, words = len(upscaler.tokenizer), upscaler.text_encoder.config.vocab_size
        if known < words:
            raise refuse(f"its tokenizer knows {known} of the {words} tokens of its text_encoder")
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        raise refuse(str(error)) from error
    upscaler.low_res_scheduler = NoNoise(upscaler.low_res_scheduler)
    upscaler.set_progress_bar_config(disable=True)
    return upscaler
