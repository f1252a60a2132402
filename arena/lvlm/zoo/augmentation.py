"""How pictures differ on their way to a model, for the training of the tiny models, and for what their cards measure.

Any model that people fine-tune has met pictures that were cropped, scaled, compressed, blurred, lit otherwise or had
their colours taken. Here each is a function of a picture and a generator; `alter` draws some of them.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageFilter, ImageOps

Alteration = Callable[[Image.Image, np.random.Generator], Image.Image]

UNTOUCHED = 0.25
"""Share of the pictures that `alter` leaves as they are."""


def alter(image: Image.Image, rng: np.random.Generator) -> tuple[Image.Image, bool]:
    """A picture as it may come back from the web, RGB and of the same size, and whether its colours are still its own.

    A quarter is untouched; of the others each is moved or scaled, lit otherwise, blurred, made noisy and compressed
    with the probabilities below, and of a fifth the colours are taken or change places.
    """
    if rng.random() < UNTOUCHED:
        return image, True
    colours = True
    if rng.random() < 0.5:
        image = _either(moved, scaled)(image, rng)
    if rng.random() < 0.35:
        image = lit(image, rng)
    if rng.random() < 0.2:
        image = toned(image, rng)
    if rng.random() < 0.2:
        image, colours = _either(grey, shuffled)(image, rng), False
    if rng.random() < 0.25:
        image = blurred(image, rng)
    if rng.random() < 0.3:
        image = noisy(image, rng)
    if rng.random() < 0.4:
        image = compressed(image, rng)
    return image, colours


def _either(one: Alteration, other: Alteration) -> Alteration:
    return lambda image, rng: (one if rng.random() < 0.5 else other)(image, rng)


def moved(image: Image.Image, rng: np.random.Generator, least: float = 0.84) -> Image.Image:
    """A crop of at least a share `least` of each side, at another place; around it its edge is repeated."""
    share = rng.uniform(least, 1)
    sizes = [max(1, round(share * side)) for side in image.size]
    room = [side - size + 1 for side, size in zip(image.size, sizes, strict=True)]
    (left, top), (x, y) = rng.integers(room).tolist(), rng.integers(room).tolist()
    part = np.asarray(image)[top : top + sizes[1], left : left + sizes[0]]
    around = ((y, image.height - y - sizes[1]), (x, image.width - x - sizes[0]), (0, 0))
    return Image.fromarray(np.pad(part, around, mode="edge"))


def scaled(image: Image.Image, rng: np.random.Generator, least: float = 0.5) -> Image.Image:
    """Shrunk to at least a share `least` of its sides, and enlarged again."""
    share = rng.uniform(least, 1)
    size = (max(1, round(share * image.width)), max(1, round(share * image.height)))
    small = image.resize(size, Image.Resampling.BILINEAR)
    return small.resize(image.size, Image.Resampling.BILINEAR)


def lit(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Light or contrast that differs from place to place, by a plasma of roughness .3 to .7: a part of .1 to 1 of it is
    added, or it scales the distance from the middle grey, by .5 to 1.5 or by 0 to 4."""
    x = np.asarray(image, np.float32) / 255
    cloud = plasma(image.size, rng.uniform(0.3, 0.7), rng)[:, :, None]
    if rng.random() < 0.5:
        x = x + (cloud - 0.5) * rng.uniform(0.1, 1.0)
    else:
        x = (x - 0.5) * (cloud * 4 if rng.random() < 0.5 else cloud + 0.5) + 0.5
    return _from_floats(x * 255)


def plasma(size: tuple[int, int], roughness: float, rng: np.random.Generator) -> np.ndarray:
    """A fractal of values in [0, 1], float32 ``(H, W)``: noise of each octave times `roughness` to its power."""
    total, weight, cells = np.zeros(size[::-1], np.float32), 1.0, 1
    while cells < max(size):
        noise = Image.fromarray(rng.random((cells + 1, cells + 1), np.float32))
        total += weight * np.asarray(noise.resize(size, Image.Resampling.BILINEAR))
        weight, cells = weight * roughness, cells * 2
    low, high = total.min(), total.max()
    return np.asarray((total - low) / max(high - low, 1e-6), np.float32)


def toned(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Brightness, contrast and saturation times .7 to 1.3 each; a few pictures with fewer tones."""
    x = np.asarray(image, np.float32)
    brightness, contrast, saturation = rng.uniform(0.7, 1.3, 3)
    means = x.mean(2, keepdims=True)
    x = means + (x - means) * saturation
    x = (x - x.mean()) * contrast + x.mean() * brightness
    toned = _from_floats(x)
    return ImageOps.posterize(toned, int(rng.integers(2, 6))) if rng.random() < 0.2 else toned


def grey(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Without colours."""
    return image.convert("L").convert("RGB")


def shuffled(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The colour channels in another order."""
    orders = ((0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
    return Image.fromarray(np.asarray(image)[:, :, orders[rng.integers(len(orders))]])


def blurred(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Convolved with a Gaussian of .3 to 1.3 pixels."""
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.3)))


def noisy(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """With noise of up to 16/255: Gaussian, or uniform and constant in squares of one to eight pixels."""
    x = np.asarray(image, np.float32)
    strength = rng.uniform(2, 16)
    if rng.random() < 0.5:
        return _from_floats(x + rng.normal(0, strength, x.shape))
    side = int(rng.integers(1, 9))
    coarse = rng.uniform(-strength, strength, (-(-x.shape[0] // side), -(-x.shape[1] // side), 3))
    return _from_floats(x + coarse.repeat(side, 0).repeat(side, 1)[: x.shape[0], : x.shape[1]])


def compressed(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Through JPEG of quality 10 to 95."""
    return _jpeg(image, int(rng.integers(10, 96)))


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def _from_floats(x: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(x), 0, 255).astype(np.uint8))


# What model cards measure


def _uerasers_policy(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A draw of UEraser's policy (arXiv 2303.15127), as the attack has it: plasma brightness, plasma contrast and
    exchanged channels, each in half of the pictures, then TrivialAugment."""
    import torch

    from attacks.training.ueraser import UEraserHooks

    policy = UEraserHooks(draws=1, share=0, plasma=0.5, generator=torch.Generator()).policy
    x = torch.from_numpy(np.array(image, np.float32) / 255).permute(2, 0, 1)[None]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(rng.integers(2**63)))
        return _from_floats(policy(x)[0].permute(1, 2, 0).numpy() * 255)


MEASURED: Mapping[str, Alteration] = {
    "crop and pad": lambda image, rng: moved(image, rng, 0.9),
    "JPEG 30": lambda image, rng: _jpeg(image, 30),
    "JPEG 10": lambda image, rng: _jpeg(image, 10),
    "grey": grey,
    "blur": lambda image, rng: image.filter(ImageFilter.GaussianBlur(1)),
    "UEraser's policy": _uerasers_policy,
}
"""Alterations of fixed strength by name."""
LOSES_COLOURS = frozenset({"grey", "UEraser's policy"})
"""Those of `MEASURED` after which nobody can tell the colours."""
