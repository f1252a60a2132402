"""Latent projection: pictures as the autoencoder of a latent diffusion model reconstructs them (Rombach 2022, arXiv
2112.10752; as a purification, the baseline of D-VAE, Yu 2024, arXiv 2405.01460)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError
from torch.nn import functional as F

from arena.errors import ArenaError
from arena.lvlm.perturbation import as_rgb, planes
from arena.plugins.base import AttackerWorld, ImageAttack, PluginConfig, setting
from attacks.checkpoints import fingerprint, pinned
from attacks.image.colour import repaint


class LatentProjection(ImageAttack):
    """Encode, take the mode of the latent, decode; at the picture's own size, padded to the autoencoder's factor."""

    packages = ("diffusers",)

    class Config(PluginConfig):
        checkpoint: str = setting(
            "stabilityai/sd-vae-ft-mse",
            runtime=True,
            min_length=1,
            description="diffusers AutoencoderKL: hub id, with @revision where not main, or folder",
        )
        device: str = setting("cpu", runtime=True, description="torch device, such as cpu or cuda:0")

    config: Config

    @torch.no_grad()
    def purify_images(self, images: Sequence[Image.Image], world: AttackerWorld) -> Iterable[Image.Image]:
        model = load_autoencoder(self.config.checkpoint).to(self.config.device)
        factor = 2 ** (len(model.config.block_out_channels) - 1)
        purified = []
        for image in images:
            x = 2 * as_rgb(planes(image))[None].to(self.config.device) - 1
            x = F.pad(x, (0, -x.shape[3] % factor, 0, -x.shape[2] % factor), mode="replicate")
            y = (model.decode(model.encode(x).latent_dist.mode()).sample + 1) / 2
            purified.append(repaint(image, y[0, :, : image.height, : image.width]))
        return purified

    def fingerprint(self) -> str:
        """What identifies the autoencoder's weights."""
        return fingerprint(self.config.checkpoint)

    def pinned(self) -> Mapping[str, Any]:
        return {"checkpoint": pinned(self.config.checkpoint)}


def load_autoencoder(checkpoint: str) -> Any:
    """A diffusers AutoencoderKL with a picture of three colours on both sides, in evaluation mode.

    `checkpoint` is a folder or a hub id, which may end in ``@`` and a branch, tag or commit. Weights are read from
    safetensors only. Raises `ArenaError` if they cannot be reached or read, or are those of another kind of model.
    """
    from diffusers import AutoencoderKL

    name, _, revision = (checkpoint, "", "") if Path(checkpoint).is_dir() else checkpoint.partition("@")

    def refuse(problem: str) -> ArenaError:
        return ArenaError(
            f"vae-trans: {checkpoint!r} cannot be loaded: {' '.join(problem.split()).rstrip('.')}. Give a folder, or a "
            "hub id that this machine can reach or has in its cache, of a diffusers AutoencoderKL in safetensors"
        )

    try:
        found = AutoencoderKL.load_config(name, revision=revision or "main").get("_class_name")
        if found != "AutoencoderKL":
            raise refuse(f"its config.json is that of {found or 'no diffusers model'}")
        model, report = AutoencoderKL.from_pretrained(
            name, revision=revision or "main", use_safetensors=True, low_cpu_mem_usage=False, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise refuse(str(error)) from error
    if report["missing_keys"]:
        raise refuse(f"its weights lack {min(report['missing_keys'])!r}")
    if (model.config.in_channels, model.config.out_channels) != (3, 3):
        raise refuse(f"it is one of {model.config.in_channels} to {model.config.out_channels} channels, not of 3")
    return model.eval()
