"""MI-UE: mutual information unlearnable examples (Zhu 2026, arXiv 2603.03725)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from arena.budget import Budget
from arena.data.sample import Sample
from arena.lvlm.base import LVLM
from arena.lvlm.batch import Batch
from arena.plugins.base import DefenderWorld, Effort, ImageDefense, Pixels, setting
from defenses.claims import noise_lowers_the_loss
from defenses.classes import answer_classes
from defenses.features import Losses, answer_features, by_other_losses, led_by
from defenses.noise import Noise
from defenses.perturbations import shuffled
from defenses.purifying import Purifying
from defenses.surrogate import LearnerConfig, Surrogate
from mmguard.settings import image_steps


class MutualInformation(Purifying, ImageDefense):
    """min_delta NT-Xent(h_theta(x + delta), y), where theta learns min_theta CE(f_theta(x + delta), y).

    Features h of one class become alike, and those of two classes unlike: of sample i, with cosines s of features,

        - log (sum over j of its class of exp(s_ij / t)) / (sum over all j of exp(s_ij / t))

    The less features of a class vary, the less they can tell of the clean picture: an upper bound of their mutual
    information falls. As in the authors' code t is 0.1, j goes over a batch and includes i, noise begins with nothing
    and takes 10 steps after each pass of training, whose length goes from 0.2/255 to 0.4/255 evenly.

    Adapted: the class is the answer, see `defenses.classes`. Features are what the output layer of the language model
    reads where it predicts the answer's first token, as theirs are what a classifier's last layer reads. The model is a
    pretrained one with LoRA adapters, trained by the loss of the answer's tokens; a pass is `theta_steps` steps, and
    there are 25 and not 100, as data and adapters are small. Batches have 32 samples instead of 512. Several surrogates
    are descended on together.

    Budget: L∞ on pictures.
    """

    needs = frozenset({"seed", "surrogates"})
    packages = ("scikit-learn",)

    class Config(LearnerConfig):
        rounds: int = setting(25, dry_run=1, ge=1, description="rounds of training and of noise")
        theta_steps: int = setting(10, dry_run=1, ge=1, description="training steps of the surrogate per round")
        pgd_steps: int = setting(10, dry_run=2, ge=1, description="noise steps per round; 10 is the authors'")
        step: float = setting(0.2, dry_run=1, gt=0, description="size of the first round's noise steps, in 1/255")
        last_step: float = setting(
            0.4, dry_run=1, gt=0, description="size towards which it goes from round to round, in 1/255"
        )
        temperature: float = Field(0.1, gt=0, description="t, what cosines are divided by")

    config: Config

    def effort(self, samples: int, budget: Budget) -> Effort:
        """All rounds: noise steps and minibatches of training."""
        c = self.config
        minibatches = c.theta_steps * min(c.batch_size, samples) / samples
        return Effort(gradients=c.rounds * (image_steps(c.pgd_steps, c) + minibatches))

    def perturb(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Pixels]:
        c = self.config
        noise = Noise(samples, world.budget.epsilon, c.batch_size, c.copies == "near")
        torch.manual_seed(world.seed)
        surrogates = [Surrogate.start(lvlm, samples, c) for lvlm in world.surrogates()]
        classes = answer_classes(samples, world.seed)
        led = [led_by(s, self._losses(s.lvlm, classes)) for s in surrogates]
        order = shuffled(len(samples), c.batch_size, world.rng())
        for number, step in enumerate(self.steps()):
            losses = []
            for _ in range(c.theta_steps):
                part = next(order)
                losses += [s.train_step(part, noise.shown) for s in surrogates]
            noise.descend(led, [step] * c.pgd_steps, c, turn=number * c.pgd_steps)
            world.progress((number + 1) / c.rounds, f"loss {np.mean(losses):.3f}")
        return noise.released()

    def steps(self) -> list[float]:
        """The sizes of noise steps by round, in [0, 1] pixel values."""
        c = self.config
        return [(c.step + (c.last_step - c.step) * number / c.rounds) / 255 for number in range(c.rounds)]

    def distinguished(self, samples: Sequence[Sample], released: Sequence[Sample], world: DefenderWorld) -> str | None:
        """Features of a class are more alike, among all, than on the original pictures, and than with random signs of
        the same noise; the loss is NT-Xent."""
        classes, size = answer_classes(samples, world.seed), self.config.batch_size
        models = [by_other_losses(x, samples, self._losses(x, classes), size).lvlm for x in world.surrogates()]
        return noise_lowers_the_loss(samples, released, world, samples, models)

    def _losses(self, lvlm: LVLM, classes: np.ndarray) -> Losses:
        def losses(batch: Batch, numbers: Sequence[int]) -> Tensor:
            mine = torch.from_numpy(classes[list(numbers)]).to(lvlm.device)
            return nt_xent(answer_features(lvlm, batch), mine, self.config.temperature)

        return losses


def nt_xent(features: Tensor, classes: Tensor, temperature: float) -> Tensor:
    """The normalised, temperature-scaled cross entropy of each sample, ``(B,)``, of features ``(B, d)`` and classes
    ``(B,)``: least where those of a class, each itself included, are alike and no others are."""
    unit = torch.nn.functional.normalize(features, dim=1)
    alike = unit @ unit.T / temperature
    own = alike.masked_fill(classes[:, None] != classes, -torch.inf)
    return alike.logsumexp(1) - own.logsumexp(1)
