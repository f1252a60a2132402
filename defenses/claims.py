"""What methods claim of their releases, tested on one (`Defense.distinguished`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from arena.data.colours import colours, recoloured
from arena.data.sample import Sample
from arena.lvlm.base import LVLM
from arena.lvlm.perturbation import batches
from arena.plugins.base import DefenderWorld
from defenses.looks import Look, as_they_are

DRAWS, DEVIATIONS = 8, 4
"""Draws of random signs, and by how many of their standard deviations a loss has to be below their mean."""


def changes(samples: Sequence[Sample], released: Sequence[Sample]) -> list[np.ndarray]:
    """How the colours of each picture changed, int ``(H, W, C)`` in 1/255."""
    return [colours(b.image).astype(int) - colours(a.image) for a, b in zip(samples, released, strict=True)]


def free(sample: Sample, levels: int) -> np.ndarray:
    """Which values of a picture may change by so many levels without being cut off, bool ``(H, W, C)``."""
    values = colours(sample.image)
    return (values >= levels) & (values <= 255 - levels)


def noise_lowers_the_loss(
    samples: Sequence[Sample],
    released: Sequence[Sample],
    world: DefenderWorld,
    questions: Sequence[Sample],
    models: Sequence[LVLM] = (),
    look: Look = as_they_are,
) -> str | None:
    """None where every surrogate's loss on the released pictures is lower than on the original ones, and than with the
    same noise of random signs by more than chance, all with the given `questions` and their answers; else what is
    wrong. `models` take the place of fresh surrogates, and what `look` shows that of the pictures."""
    rng = np.random.default_rng(world.seed)
    mixed = [[_with_random_signs(a, b, rng) for a, b in zip(samples, released, strict=True)] for _ in range(DRAWS)]
    for lvlm in models or world.surrogates():
        crafted, clean = (_loss(lvlm, pictures, questions, look) for pictures in (released, samples))
        random = [_loss(lvlm, pictures, questions, look) for pictures in mixed]
        if not (crafted < clean and crafted < np.mean(random) - DEVIATIONS * np.std(random)):
            return (
                f"the surrogate's loss is {crafted:.6g} on the released pictures, {clean:.6g} on the originals and "
                f"{np.mean(random):.6g} ± {np.std(random):.2g} with random signs of the same noise: it should be lower"
            )
    return None


def _with_random_signs(original: Sample, released: Sample, rng: np.random.Generator) -> Sample:
    (change,) = changes([original], [released])
    turned = np.abs(change) * rng.choice((-1, 1), change.shape)
    values = np.clip(colours(original.image) + turned, 0, 255).astype(np.uint8)
    return original.with_content(Image.fromarray(recoloured(original.image, values)), original.question)


@torch.no_grad()
def _loss(lvlm: LVLM, pictures: Sequence[Sample], questions: Sequence[Sample], look: Look) -> float:
    samples = [q.with_content(p.image, q.question) for p, q in zip(pictures, questions, strict=True)]
    return float(torch.cat([_losses(lvlm, samples[p.start : p.stop], look) for p in batches(len(samples), 8)]).mean())


def _losses(lvlm: LVLM, samples: Sequence[Sample], look: Look) -> Tensor:
    batch = lvlm.encode(samples)

    def losses(images: Sequence[Tensor]) -> Tensor:
        return lvlm.losses(lvlm.with_images(batch, images))

    return losses(look(list(batch.images), lambda images: losses(images).sum()))
