"""Noise that raises the loss of fine-tuned models and gives pictures the style of others, also once they are purified:
the objective of StyleGuard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, lru_cache

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from arena.budget import Budget
from arena.data.sample import Sample
from arena.lvlm import pixels
from arena.lvlm.base import LVLM
from arena.lvlm.batch import Batch
from arena.plugins.base import DefenderWorld, Effort, setting
from defenses.anti_finetune import AntiFinetune
from defenses.claims import noise_lowers_the_loss
from defenses.classes import aimed_at
from defenses.features import PLAIN, by_other_losses, features, led_by
from defenses.surrogate import Surrogate
from mmguard.settings import Purifier, image_steps

KEPT = 256
"""Pictures whose moments are remembered."""

Distances = Callable[[Batch, Sequence[int]], tuple[Tensor, Tensor]]
"""Of the pictures of a batch, and of the numbers of its samples: how far the style of each is from that of the original
and from that of its target, ``(B,)`` each, with gradient."""


class StyleEOT(AntiFinetune):
    """max over delta of E_t CE(f_theta'(t(x + delta)), y) + w (D(t(x + delta), x) - D(t(x + delta), target)).

    D is the mean squared difference of the means of features, and of their variances, each channel's over a picture:
    its style. StyleGuard (Li 2025, arXiv 2505.18766) adds it to the objective of Anti-DreamBooth, see `anti-finetune`,
    so that noise holds for models that were not crafted against, whose features resemble each other. So that it also
    holds once a picture was purified, purifiers are among the models that it is crafted against. As in the authors'
    code w is 0.1, rounds and steps of the noise are those of `anti-finetune`, and statistics are of one picture at a
    time. Their radius is 0.025 of [0, 1], ours the budget's.

    Adapted: the features are those of vision tower and projector, see `defenses.features`, divided by the root mean
    square of the original picture's, where theirs are latents of an autoencoder, scaled to a deviation of about 1. The
    target is a picture of another class, as of `feature-target`, where the authors have a folder of pictures in another
    style. Their purifier is a diffusion upscaler, whose loss noise is to raise as well, and no gradient passes through
    the small picture that it enlarges. Here noise is crafted through differentiable purifiers (`purifiers`), JPEG and
    blur unless others are asked for. The random shift of `anti-finetune` is MetaCloak's, and left out. The authors
    average the noise that each model asks for after its steps, and go on from there; here the gradients of all are
    added up in each step.

    Budget: L∞ on pictures.
    """

    packages = ("scikit-learn",)

    class Config(AntiFinetune.Config):
        style_weight: float = Field(0.1, ge=0, description="w, the weight of the style; 0.1 is the authors'")
        shift: float = Field(0.0, ge=0, le=1, description="largest shift of the transform, as a share of the sides")
        purifiers: tuple[Purifier, ...] = setting(
            ("jpeg", "blur"),
            dry_run=[],
            description="attacks that perturbations are made to survive: their loss is also taken through each of "
            "these, drawn anew for every step (expectation over transformations, arXiv 1707.07397)",
        )

    config: Config

    def effort(self, samples: int, budget: Budget) -> Effort:
        """As of `anti-finetune`, and features in each noise step, as if the language model ran too."""
        c, plain = self.config, super().effort(samples, budget)
        return replace(plain, gradients=plain.gradients + c.rounds * image_steps(c.pgd_steps, c) * c.draws)

    def _met(self, surrogates: Sequence[Surrogate], seed: int) -> Sequence[Surrogate]:
        """The surrogates, whose losses also have a part for the style."""
        return [self._styled(surrogate, seed) for surrogate in surrogates]

    def _styled(self, surrogate: Surrogate, seed: int) -> Surrogate:
        lvlm = surrogate.lvlm
        distances = self._distances(lvlm, surrogate.samples, seed)

        def losses(batch: Batch, numbers: Sequence[int]) -> Tensor:
            from_original, from_target = distances(batch, numbers)
            answers = lvlm.forward(batch, answers_only=True).losses
            return answers + self.config.style_weight * (from_original - from_target)

        return led_by(surrogate, losses)

    def distinguished(self, samples: Sequence[Sample], released: Sequence[Sample], world: DefenderWorld) -> str | None:
        """As of `anti-finetune`, and the style is nearer to the target's than to the original's by more than on the
        original pictures, and than with random signs of the same noise; what is compared is the difference of both
        distances."""
        failed = super().distinguished(samples, released, world)
        if failed is not None:
            return failed

        def nearer(lvlm: LVLM) -> LVLM:
            distances = self._distances(lvlm, samples, world.seed)

            def losses(batch: Batch, numbers: Sequence[int]) -> Tensor:
                from_original, from_target = distances(batch, numbers)
                return from_target - from_original

            return by_other_losses(lvlm, samples, losses, self.config.batch_size).lvlm

        failed = noise_lowers_the_loss(samples, released, world, samples, [nearer(x) for x in world.surrogates()])
        return failed and f"of the style, {failed}"

    def _distances(self, lvlm: LVLM, samples: Sequence[Sample], seed: int) -> Distances:
        near = self.config.copies == "near"
        targets = aimed_at(samples, near, seed)

        @cache
        @torch.no_grad()
        def tokens(height: int, width: int) -> int:
            grey = torch.full((3, height, width), 0.5, device=lvlm.device)
            return len(features(lvlm, lvlm.encode([PLAIN], [grey])))

        @lru_cache(maxsize=KEPT)
        @torch.no_grad()
        def seen(number: int, height: int, width: int) -> tuple[Tensor, float]:
            """The moments of a sample's picture at a size, and the root mean square of its features."""
            resized = pixels.resize(pixels.to_tensor(samples[number].image), height, width, Image.Resampling.BICUBIC)
            found = features(lvlm, lvlm.encode([PLAIN], [pixels.to_bytes(resized).to(lvlm.device)]))
            return moments(found), float(found.square().mean().sqrt().clamp(min=1e-6))

        def distances(batch: Batch, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
            sizes = [(image.shape[-2], image.shape[-1]) for image in batch.images]
            parts = features(lvlm, batch).split([tokens(*size) for size in sizes])
            pairs = []
            for found, number, size in zip(parts, numbers, sizes, strict=True):
                (own, scale), (aim, _) = seen(number, *size), seen(targets[number], *size)
                pairs.append(torch.stack([style(moments(found), other, scale) for other in (own, aim)]))
            from_original, from_target = torch.stack(pairs, 1)
            return from_original, from_target

        return distances


def moments(found: Tensor) -> Tensor:
    """The mean and the variance over a picture's features ``(tokens, d)``, of each channel, ``(2, d)``."""
    return torch.stack([found.mean(0), found.var(0, correction=0)])


def style(one: Tensor, other: Tensor, scale: float) -> Tensor:
    """D of two pictures' moments, of features that are divided by `scale`; a scalar."""
    apart: Tensor = (one - other).square().mean(1) / torch.tensor([scale**2, scale**4], device=one.device)
    return apart.sum()
