"""HYPO: hypocritical perturbations (Tao 2021, arXiv 2102.04716): clean pictures made easier for a trained model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import Field

from arena.budget import Budget
from arena.data.sample import Sample
from arena.plugins.base import DefenderWorld, Effort, ImageDefense, Pixels, setting
from defenses.claims import noise_lowers_the_loss
from defenses.noise import Noise
from defenses.purifying import Purifying
from defenses.surrogate import LearnerConfig, trained
from mmguard.settings import image_steps


class FixedConfig(LearnerConfig):
    """How a surrogate learns the clean data, before noise is crafted through it as it then is."""

    clean_steps: int = setting(
        200,
        dry_run=1,
        ge=1,
        description="training steps of the surrogate on the clean data; 200 are 25 passes over 256 samples",
    )


class Hypocritical(Purifying, ImageDefense):
    """min_delta CE(f(x + delta), y) through a fixed model f that was trained on the clean data: no inner loop.

    It is error-minimising noise of a model that never sees a perturbation: what the model has learned of a class is
    written over the pictures of that class. The paper's attack P2. Its code takes 100 steps of a fifth of the radius
    from no noise at all, by default in an L2 ball; steps are smaller here, as those of `em`.

    Adapted: the label is the answer, the loss that of its tokens, and the model a pretrained one with LoRA adapters
    instead of one trained from scratch. The adapters should have learned every training question: larger data need
    more steps than the default, and `surrogate_error` in a record is the share of wrong answers left. Several
    surrogates are descended on together.

    Budget: L∞ on pictures.
    """

    needs = frozenset({"seed", "surrogates"})

    class Config(FixedConfig):
        pgd_steps: int = setting(100, dry_run=1, ge=1, description="noise steps; 100 is the authors'")
        step: float = Field(0.8, gt=0, description="size of a noise step, in 1/255; the authors' code has 1/5 radius")

    config: Config

    def effort(self, samples: int, budget: Budget) -> Effort:
        """Training on the clean data, a forward pass for its error, and the noise steps."""
        c = self.config
        minibatches = c.clean_steps * min(c.batch_size, samples) / samples
        return Effort(forwards=1, gradients=image_steps(c.pgd_steps, c) + minibatches)

    def perturb(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Pixels]:
        c = self.config
        noise = Noise(samples, world.budget.epsilon, c.batch_size, c.copies == "near")
        surrogates = trained(samples, world, c, c.clean_steps)
        noise.descend(surrogates, [c.step / 255] * c.pgd_steps, c, progress=world.progress)
        return noise.released()

    def distinguished(self, samples: Sequence[Sample], released: Sequence[Sample], world: DefenderWorld) -> str | None:
        """The loss of surrogates that have learned the original pictures is lower than on these, and than with random
        signs of the same noise."""
        learned = [s.lvlm for s in trained(samples, world, self.config, self.config.clean_steps)]
        return noise_lowers_the_loss(samples, released, world, samples, learned)
