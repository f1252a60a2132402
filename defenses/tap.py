"""TAP: targeted adversarial poisons (Fowl 2021, arXiv 2106.10807): pictures that a clean model takes for other ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor

from arena.budget import Budget
from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.plugins.base import DefenderWorld, Effort, ImageDefense, Pixels, setting
from defenses.augmentation import SHIFT, shifted
from defenses.claims import noise_lowers_the_loss
from defenses.classes import answer_classes
from defenses.hypo import FixedConfig
from defenses.looks import Loss
from defenses.noise import Noise
from defenses.purifying import Purifying
from defenses.surrogate import trained
from mmguard.settings import image_steps


class TargetedPoisons(Purifying, ImageDefense):
    """min_delta E_t CE(f(t(x + delta)), pi(y)): f is fixed and has learned the clean data, pi takes no class to itself.

    Features of a wrong class stand in pictures of the right one, so whoever learns from them learns to take the one for
    the other. As in the authors' code pi is the next class, noise starts at a normal draw clipped to the ball, and 250
    steps are 1/20 of the radius long, through one draw of augmentation each. That code lets steps shrink to a tenth
    after 3/8, 5/8 and 7/8 of them where it uses momentum; here they always do. It takes the best of 8 restarts by the
    loss; here there is one start.

    Adapted: a class is an answer, see `defenses.classes`, and classes are in alphabetical order; the loss is that of
    the tokens of the next class's most frequent answer, whatever the question is. The model is a pretrained one with
    LoRA adapters, trained as for `hypo`. The augmentation t shifts pictures by up to an eighth of their sides; other
    than the authors' it mirrors none, since questions ask for left and right. Several surrogates are descended on
    together.

    Budget: L∞ on pictures.
    """

    needs = frozenset({"seed", "surrogates"})
    packages = ("scikit-learn",)

    class Config(FixedConfig):
        pgd_steps: int = setting(250, dry_run=2, ge=1, description="noise steps; 250 is the paper's")
        step: float = Field(0.4, gt=0, description="size of the first noise steps, in 1/255; the authors' 1/20 radius")
        decay: float = Field(
            0.1, gt=0, le=1, description="what steps are multiplied by after 3/8, 5/8 and 7/8 of them; 1 for none"
        )
        shift: float = setting(
            SHIFT, dry_run=0, ge=0, le=1, description="largest shift of the augmentation, as a share of the sides"
        )

    config: Config

    def effort(self, samples: int, budget: Budget) -> Effort:
        """Training on the clean data, a forward pass for its error, and the noise steps."""
        c = self.config
        minibatches = c.clean_steps * min(c.batch_size, samples) / samples
        return Effort(forwards=1, gradients=image_steps(c.pgd_steps, c) + minibatches)

    def perturb(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Pixels]:
        c, generator = self.config, world.torch_generator()
        targets = aimed(samples, world.seed)
        noise = Noise(samples, world.budget.epsilon, c.batch_size, c.copies == "near")
        noise.start(lambda shape: torch.randn(shape, generator=generator))

        def augmented(images: list[Tensor], loss: Loss) -> list[Tensor]:
            return [shifted(x, c.shift, generator) for x in images]

        surrogates = [replace(s, samples=targets) for s in trained(samples, world, c, c.clean_steps)]
        noise.descend(surrogates, self.steps(), c, [augmented], progress=world.progress)
        return noise.released()

    def steps(self) -> list[float]:
        """The sizes of all steps, in [0, 1] pixel values."""
        c = self.config
        passed = [sum(8 * number >= share * c.pgd_steps for share in (3, 5, 7)) for number in range(c.pgd_steps)]
        return [c.step / 255 * c.decay**milestones for milestones in passed]

    def distinguished(self, samples: Sequence[Sample], released: Sequence[Sample], world: DefenderWorld) -> str | None:
        """The loss of the next class's answers, by surrogates that have learned the original pictures, is lower than on
        these, and than with random signs of the same noise."""
        learned = [s.lvlm for s in trained(samples, world, self.config, self.config.clean_steps)]
        return noise_lowers_the_loss(samples, released, world, aimed(samples, world.seed), learned)


def aimed(samples: Sequence[Sample], seed: int) -> list[Sample]:
    """The samples with the answer of the class after their own: its most frequent one, the first in the alphabet of
    several. Raises `ArenaError` where all are of one class."""
    classes = answer_classes(samples, seed).tolist()
    kinds = max(classes) + 1
    if kinds == 1:
        raise ArenaError("tap: all samples have one answer, so there is no other one to aim at; protect more kinds")
    answers = [Counter(s.answer for s, k in zip(samples, classes, strict=True) if k == kind) for kind in range(kinds)]
    texts = [min(counts, key=lambda text: (-counts[text], text)) for counts in answers]
    return [replace(s, answer=texts[(k + 1) % kinds]) for s, k in zip(samples, classes, strict=True)]
