"""Procedural pictures that the shipped diffusion model is trained and measured on.

Streams of their own: a stream is a `numpy` generator at the words (`TRAINING` or `HELD_OUT`, number). The `glyphs`
dataset draws from children of a seed, which numpy tells apart from plain words whatever the seed is; the tiny models
are trained from the seeds in `arena.lvlm.zoo.models`. So no picture here is protected, tested or seen by a model.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from arena.data.embedded import scenes

SIZE = scenes.SIZE
TRAINING, HELD_OUT = 3_150_824_117, 2_884_390_265


def stream(seed: int, number: int) -> np.random.Generator:
    """The generator of a training step, or of a held-out set."""
    return np.random.default_rng((seed, number))


def scene(rng: np.random.Generator) -> np.ndarray:
    """uint8 ``(48, 48, 3)``: things of any shapes, or of one shape as in ``glyphs``, with equal chance."""
    drawn = scenes.random_scene(rng) if rng.random() < 0.5 else scenes.scene_of(rng, str(rng.choice(scenes.SHAPES)))
    return drawn.pixels


def picture(rng: np.random.Generator) -> np.ndarray:
    """uint8 ``(48, 48, 3)``: mostly a scene; else a scene in other colours or enlarged, or strokes of a pen.

    The others keep the model usable for pictures that are no scenes: grey ones, details of large ones, handwriting.
    """
    kind = rng.random()
    if kind < 0.65:
        return scene(rng)
    if kind < 0.75:
        return _recoloured(scene(rng), rng)
    if kind < 0.85:
        return _enlarged(scene(rng), rng)
    return _strokes(rng)


def _recoloured(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Grey, or with channels in another order; half of them as negatives."""
    pixels = pixels[..., rng.permutation(3)] if rng.random() < 0.5 else pixels[..., [rng.integers(3)] * 3]
    return 255 - pixels if rng.random() < 0.5 else pixels


def _enlarged(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A part of the picture, enlarged up to threefold."""
    side = int(rng.integers(SIZE // 3, SIZE))
    left, top = rng.integers(0, SIZE - side + 1, 2).tolist()
    box = (left, top, left + side, top + side)
    return np.asarray(Image.fromarray(pixels).resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=box))


def _strokes(rng: np.random.Generator, coarse: int = 8, fine: int = 32) -> np.ndarray:
    """White or coloured curves on black or on a plain colour, as soft as a picture of 8 x 8 pixels enlarged."""
    canvas = Image.new("L", (fine, fine))
    draw = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(1, 3)):
        points = rng.uniform(2, fine - 2, (rng.integers(2, 6), 2))
        draw.line([tuple(point) for point in points.tolist()], fill=255, width=int(rng.integers(3, 7)), joint="curve")
    soft = canvas.resize((coarse, coarse), Image.Resampling.BOX).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    cover = np.asarray(soft, np.float32)[:, :, None] / 255
    paper, ink = (np.zeros(3), np.full(3, 255)) if rng.random() < 0.5 else rng.uniform(0, 255, (2, 3))
    return np.rint(paper + cover * (ink - paper)).clip(0, 255).astype(np.uint8)
