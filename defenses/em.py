"""EM: error-minimising noise (Huang 2021, arXiv 2101.04898), sample-wise and class-wise."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import count, islice
from math import ceil

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from arena.budget import Budget
from arena.data.copies import Local, shared
from arena.data.sample import Sample
from arena.lvlm.perturbation import batches, pieces, planes, project, to_pixels
from arena.plugins.base import DefenderWorld, Effort, ImageDefense, Pixels, setting
from defenses.claims import changes, free, noise_lowers_the_loss
from defenses.classes import answer_classes
from defenses.noise import Noise, gradients
from defenses.perturbations import shuffled
from defenses.purifying import Purifying
from defenses.surrogate import Images, Surrogate, SurrogateConfig
from mmguard.settings import image_steps


class ErrorMinimizing(Purifying, ImageDefense):
    """min_delta min_theta CE(f_theta(x + delta), y), one delta per sample.

    Rounds of `theta_steps` training steps of a LoRA surrogate on the protected data and `pgd_steps` sign steps of every
    delta, until the surrogate errs on less than `stop_error` of them. No augmentation while crafting.

    Budget: L∞ on pictures.
    """

    needs = frozenset({"seed", "surrogates"})

    class Config(SurrogateConfig):
        pass

    config: Config

    def effort(self, samples: int, budget: Budget) -> Effort:
        """All rounds: noise steps and minibatches of training, and two forward passes for what is measured."""
        c = self.config
        minibatches = c.theta_steps * min(c.batch_size, samples) / samples
        return Effort(forwards=2 * c.rounds, gradients=c.rounds * (image_steps(c.pgd_steps, c) + minibatches))

    def perturb(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Pixels]:
        c = self.config
        noise = Noise(samples, world.budget.epsilon, c.batch_size, c.copies == "near")
        for number in self._rounds(samples, noise.shown, world):
            for surrogate in self._surrogates:
                noise.descend([surrogate], [c.step / 255] * c.pgd_steps, c, turn=number * c.pgd_steps)
        return noise.released()

    def distinguished(self, samples: Sequence[Sample], released: Sequence[Sample], world: DefenderWorld) -> str | None:
        """The surrogates' loss is lower than on the original pictures, and than with random signs of the same noise."""
        return noise_lowers_the_loss(samples, released, world, samples)

    def _rounds(self, samples: Sequence[Sample], noisy: Images, world: DefenderWorld) -> Iterator[int]:
        """Train the surrogates, hand over for the noise's turn, stop when all of them err little enough; `noisy` gives
        pictures with their present noise."""
        c, rng = self.config, world.rng()
        torch.manual_seed(world.seed)
        self._surrogates = [Surrogate.start(lvlm, samples, c) for lvlm in world.surrogates()]
        order = shuffled(len(samples), c.batch_size, rng)
        for number in range(c.rounds):
            for _ in range(c.theta_steps):
                part = next(order)
                for surrogate in self._surrogates:
                    surrogate.train_step(part, noisy)
            yield number
            error = max(s.errors(noisy) for s in self._surrogates)
            world.progress((number + 1) / c.rounds, f"surrogate error {error:.3f}")
            world.diagnostics |= {"rounds": number + 1, "surrogate_error": error}
            if error < c.stop_error:
                return


class ErrorMinimizingClasswise(ErrorMinimizing):
    """Class-wise EM: all samples with one answer share one delta, which moves by the mean of the signs of their steps.

    In a round the authors' code goes over CIFAR-10 once, with one step a batch of 512: 97 steps of 0.8/255, enough to
    reach the border of the ball. A round here goes over the data until there were as many; a single pass over a hundred
    samples would leave most of the budget unspent. Pictures of other sizes see the top left part of a class's delta.

    Budget: L∞ on pictures.
    """

    version = "2"
    packages = ("scikit-learn",)

    class Config(ErrorMinimizing.Config):
        pgd_steps: int = setting(1, dry_run=1, ge=1, description="noise steps on a batch; 1 is the paper's")
        batches: int = setting(
            97,
            dry_run=1,
            ge=1,
            description="least batches per round on which the noise steps, in whole passes over the data; the authors' "
            "code has 97 on CIFAR-10",
        )
        stop_error: float = Field(0.1, ge=0, le=1, description="10 % is the paper's")

    config: Config

    def effort(self, samples: int, budget: Budget) -> Effort:
        """As of `em`, with several passes of the noise a round."""
        c = self.config
        once = super().effort(samples, budget)
        again = c.rounds * image_steps(c.pgd_steps, c) * (self._passes(samples) - 1)
        return replace(once, gradients=once.gradients + again)

    def _passes(self, samples: int) -> int:
        """Passes over the data in a round."""
        return ceil(self.config.batches / len(batches(samples, self.config.batch_size)))

    def perturb(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Pixels]:
        c, epsilon = self.config, world.budget.epsilon
        classes = self._classes(samples, world.seed)
        largest = np.max([tuple(planes(s.image).shape) for s in samples], 0).tolist()
        of_class = [torch.zeros(largest) for _ in range(int(classes.max()) + 1)]

        def of_sample(i: int) -> Tensor:
            clean = planes(samples[i].image)
            channels, height, width = clean.shape
            return project(of_class[classes[i]][:channels, :height, :width], clean, epsilon)

        def noisy(indices: Sequence[int]) -> list[Tensor]:
            return [planes(samples[i].image) + of_sample(i) for i in indices]

        order, turns = shuffled(len(samples), c.batch_size, np.random.default_rng([world.seed, 1])), count()
        for _ in self._rounds(samples, noisy, world):
            for surrogate in self._surrogates:
                several = islice(order, self._passes(len(samples)) * len(batches(len(samples), c.batch_size)))
                for part in (one for many in several for one in pieces(many, samples)):
                    clean = [planes(samples[i].image) for i in part]
                    batch = surrogate.encode(part, clean)
                    for _ in range(c.pgd_steps):
                        steps = [torch.zeros(largest) for _ in of_class]
                        noise = [of_sample(i) for i in part]
                        apart = Local.apart(len(part))
                        found = gradients(surrogate, part, batch, apart, clean, noise, c, next(turns))
                        for i, g in zip(part, found, strict=True):
                            channels, height, width = g.shape
                            steps[classes[i]][:channels, :height, :width] -= g.sign() * c.step / 255
                        members = np.bincount(classes[part], minlength=len(of_class))
                        for k, size in enumerate(members):
                            if size:
                                of_class[k] = (of_class[k] + steps[k] / size).clamp(-epsilon, epsilon)
        return (to_pixels(s.image, planes(s.image) + of_sample(i)) for i, s in enumerate(samples))

    def distinguished(self, samples: Sequence[Sample], released: Sequence[Sample], world: DefenderWorld) -> str | None:
        """All samples with one answer have one delta, which lowers the surrogates' loss as that of `em` does."""
        classes = self._classes(samples, world.seed)
        noise, levels = changes(samples, released), ceil(world.budget.image)
        for kind in range(int(classes.max()) + 1):
            first, *others = np.flatnonzero(classes == kind).tolist()
            for i in others:
                rows, columns, channels = (min(sides) for sides in zip(noise[first].shape, noise[i].shape, strict=True))
                part = np.s_[:rows, :columns, :channels]
                inside = free(samples[first], levels)[part] & free(samples[i], levels)[part]
                apart = np.abs(noise[first][part] - noise[i][part])[inside]
                if apart.size and apart.max() > 1:  # halves of a level round to even values
                    return f"samples {samples[first].id!r} and {samples[i].id!r} have one answer and not one delta"
        return super().distinguished(samples, released, world)

    def _classes(self, samples: Sequence[Sample], seed: int) -> np.ndarray:
        """As `answer_classes`; a picture with several answers is of the first one's class, so that it has one noise."""
        classes, sharing = answer_classes(samples, seed), shared(samples, self.config.copies == "near")
        folded = classes[[sharing.first[d] for d in sharing.of_sample]]
        return np.unique(folded, return_inverse=True)[1]
