"""What purification does to held-out pictures: how near it brings perturbed ones to the clean ones, in pixels and in
the features of a vision tower, and what it costs clean ones."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor

from arena.lvlm.base import LVLM
from arena.lvlm.pixels import to_tensor
from arena.plugins.base import AttackerWorld
from attacks.image.diffpure import DiffPure
from attacks.image.zoo import pictures

EPSILON = 8
"""Of perturbations, in 8-bit levels."""


def held_out(count: int) -> np.ndarray:
    """uint8 ``(count, 48, 48, 3)``: scenes like those of ``glyphs`` and of the tiny models; no training saw them."""
    rng = pictures.stream(pictures.HELD_OUT, 0)
    return np.stack([pictures.scene(rng) for _ in range(count)])


def random_sign(clean: np.ndarray) -> np.ndarray:
    """Every value moved by `EPSILON` levels up or down, as far as there are levels."""
    sign = pictures.stream(pictures.HELD_OUT, 1).choice([-1, 1], clean.shape)
    perturbed: np.ndarray = (clean + EPSILON * sign).clip(0, 255).astype(np.uint8)
    return perturbed


def adversarial(clean: np.ndarray, lvlm: LVLM, steps: int = 10) -> np.ndarray:
    """Pictures whose vision features are as far from the clean ones' as `steps` steps of sign ascent bring them."""
    target = features(clean, lvlm).detach()
    x, epsilon = _images(clean), EPSILON / 255
    delta = epsilon * (_images(random_sign(clean)) - x).sign() / 2
    for _ in range(steps):
        delta.requires_grad_()
        distance = (_features(x + delta, lvlm) - target).square().sum()
        (gradient,) = torch.autograd.grad(distance, delta)
        delta = (delta.detach() + 2.5 * epsilon / steps * gradient.sign()).clamp(-epsilon, epsilon)
        delta = (x + delta).clamp(0, 1) - x
    return ((x + delta) * 255).round().byte().permute(0, 2, 3, 1).numpy()


def _images(pixels: np.ndarray) -> Tensor:
    return torch.stack([to_tensor(Image.fromarray(p)) for p in pixels])


def _features(images: Tensor, lvlm: LVLM) -> Tensor:
    tower = lvlm.module(lvlm.vision_tower)
    hidden: Tensor = tower(**lvlm.pixel_inputs(list(images)), output_hidden_states=True).hidden_states[-1][:, 1:]
    return hidden


def features(pixels: np.ndarray, lvlm: LVLM) -> Tensor:
    """The tower's patch features ``(B, patches, d)`` of uint8 ``(B, H, W, 3)``, as the projector is fed them."""
    return _features(_images(pixels), lvlm).detach()


def feature_error(pixels: np.ndarray, clean: np.ndarray, lvlm: LVLM) -> np.ndarray:
    """``(B,)``: distance of each picture's features from the clean picture's, relative to the norm of these."""
    found, target = features(pixels, lvlm), features(clean, lvlm)
    errors: np.ndarray = ((found - target).flatten(1).norm(dim=1) / target.flatten(1).norm(dim=1)).numpy()
    return errors


def psnr(pixels: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """``(B,)``: peak signal to noise ratio of each picture against the clean one, in dB."""
    return np.array([peak_signal_noise_ratio(c, p, data_range=255) for c, p in zip(clean, pixels, strict=True)])


def purified(pixels: np.ndarray, **settings: object) -> np.ndarray:
    """uint8 ``(B, H, W, 3)`` through the attack with these settings, seed 0."""
    attack = DiffPure(DiffPure.Config.model_validate(settings))
    images = attack.purify_images([Image.fromarray(p) for p in pixels], AttackerWorld(seed=0))
    return np.stack([np.asarray(image) for image in images])
