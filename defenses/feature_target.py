"""Noise that makes pictures look like others to a vision tower: the objective of Glaze and Nightshade."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import torch
from PIL import Image
from torch import Tensor

from arena.budget import Budget
from arena.data.sample import Sample
from arena.lvlm import pixels
from arena.lvlm.base import LVLM
from arena.lvlm.batch import Batch
from arena.plugins.base import DefenderWorld, Effort, ImageDefense, Pixels, PluginConfig, setting
from defenses.claims import noise_lowers_the_loss
from defenses.classes import aimed_at
from defenses.features import by_other_losses, features
from defenses.noise import Noise
from defenses.purifying import Purifying
from defenses.surrogate import Surrogate
from mmguard.settings import Pictures, image_steps

LAST = 0.01
"""Length of a step after the last one, as a share of the first one's."""

KEPT = 64
"""Targets whose features are remembered."""


class FeatureTarget(Purifying, ImageDefense):
    """min_delta ||F(x + delta) - F(target)||_2, where F are the features of vision tower and projector.

    Whoever learns from the pictures learns of a class what another one looks like. The objective is that of Glaze (Shan
    2023, arXiv 2302.04222) and Nightshade (Shan 2024, arXiv 2310.13828), whose F is the encoder of a diffusion model.
    Steps are those of Nightshade's code: 500 against the sign of the gradient, from no noise, the first as long as the
    radius, shorter by as much each time, to a hundredth of it. All pictures of a class have one target. The authors'
    radius is 0.04 or 0.05 of [0, 1], ours is the budget's, and as in their code there is no penalty beyond it.

    Adapted: a class is an answer, see `defenses.classes`, and a picture with several answers is of the first one's
    class. The target is a picture of a class drawn by the seed, where the authors have one generated for the other
    concept. It is seen at the size of the picture that it is a target of. F is that of pretrained surrogates as they
    are, all tokens of it; several surrogates are descended on together.

    Budget: L∞ on pictures.
    """

    needs = frozenset({"seed", "surrogates"})
    packages = ("scikit-learn",)

    class Config(PluginConfig, Pictures):
        pgd_steps: int = setting(500, dry_run=4, ge=1, description="noise steps; 500 is the authors'")
        batch_size: int = setting(32, dry_run=8, ge=1, description="samples per step")

    config: Config

    def effort(self, samples: int, budget: Budget) -> Effort:
        """The noise steps, as if the language model ran too."""
        return Effort(gradients=image_steps(self.config.pgd_steps, self.config))

    def perturb(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Pixels]:
        noise = Noise(samples, world.budget.epsilon, self.config.batch_size, self.config.copies == "near")
        steps = [world.budget.epsilon * share for share in self.steps()]
        noise.descend(self._surrogates(samples, world), steps, self.config, progress=world.progress)
        return noise.released()

    def steps(self) -> list[float]:
        """The lengths of all steps, as shares of the radius."""
        return [1 - (1 - LAST) * number / self.config.pgd_steps for number in range(self.config.pgd_steps)]

    def distinguished(self, samples: Sequence[Sample], released: Sequence[Sample], world: DefenderWorld) -> str | None:
        """Features are nearer to those of the targets than on the original pictures, and than with random signs of the
        same noise; the loss is their distance."""
        models = [surrogate.lvlm for surrogate in self._surrogates(samples, world)]
        return noise_lowers_the_loss(samples, released, world, samples, models)

    def _surrogates(self, samples: Sequence[Sample], world: DefenderWorld) -> list[Surrogate]:
        """The surrogates, whose loss is the distance of a sample's features to those of its target."""
        targets = aimed_at(samples, self.config.copies == "near", world.seed)
        return [self._led(lvlm, samples, targets) for lvlm in world.surrogates()]

    def _led(self, lvlm: LVLM, samples: Sequence[Sample], targets: Sequence[int]) -> Surrogate:
        @lru_cache(maxsize=KEPT)
        @torch.no_grad()
        def wanted(target: int, height: int, width: int) -> Tensor:
            sample = samples[target]
            seen = pixels.resize(pixels.to_tensor(sample.image), height, width, Image.Resampling.BICUBIC)
            return features(lvlm, lvlm.encode([sample], [pixels.to_bytes(seen).to(lvlm.device)]))

        def distances(batch: Batch, numbers: Sequence[int]) -> Tensor:
            sizes = [(image.shape[-2], image.shape[-1]) for image in batch.images]
            goals = [wanted(targets[i], *size) for i, size in zip(numbers, sizes, strict=True)]
            found = features(lvlm, batch).split([len(goal) for goal in goals])
            return torch.stack([(a - b).norm() for a, b in zip(found, goals, strict=True)])

        return by_other_losses(lvlm, samples, distances, self.config.batch_size)
