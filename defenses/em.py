"""EM: error-minimising noise (Huang 2021, arXiv 2101.04898), sample-wise and class-wise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import count, islice
from math import ceil

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from arena.budget import Budget
from arena.data.copies import Local, Sharing, shared
from arena.data.sample import Sample
from arena.lvlm.adapters import fused
from arena.lvlm.batch import Batch
from arena.lvlm.perturbation import (
    PIXELS,
    as_rgb,
    batches,
    check_finite,
    pieces,
    planes,
    project,
    sign_descent,
    to_pixels,
)
from arena.lvlm.views import cuts, leaves_out
from arena.plugins.base import DefenderWorld, Effort, ImageDefense, Pixels, setting
from defenses.claims import changes, free, noise_lowers_the_loss
from defenses.classes import answer_classes
from defenses.surrogate import Perturbations, Surrogate, SurrogateConfig, shuffled
from mmguard.settings import image_steps


class ErrorMinimizing(ImageDefense):
    """min_delta min_theta CE(f_theta(x + delta), y), one delta per sample.

    Rounds of `theta_steps` training steps of a LoRA surrogate on the protected data and `pgd_steps` sign steps of every
    delta, until the surrogate errs on less than `stop_error` of them. No augmentation while crafting.
    """

    needs = frozenset({"seed", "surrogates"})

    class Config(SurrogateConfig):
        pass

    config: Config

    def effort(self, samples: int, budget: Budget) -> Effort:
        """All rounds: noise steps and minibatches of training, and two forward passes for what is measured."""
        c = self.config
        minibatches = c.theta_steps * min(c.batch_size, samples) / samples
        return Effort(forwards=2 * c.rounds, gradients=c.rounds * (image_steps(c.pgd_steps, c.views) + minibatches))

    def perturb(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Pixels]:
        c, sharing = self.config, self._sharing(samples)
        delta = Perturbations([samples[i] for i in sharing.first], torch.float32)
        pictures = Counter(sharing.delta)

        def of_sample(i: int) -> Tensor:
            d = sharing.of_sample[i]
            return delta[d] if pictures[d] == 1 else project(delta[d], planes(samples[i].image), world.budget.epsilon)

        parts = sharing.parts([s.image.width * s.image.height for s in samples], c.batch_size, PIXELS)
        for number in self._rounds(samples, of_sample, world):
            for surrogate in self._surrogates:
                with fused(surrogate.lvlm):
                    for part in parts:
                        shares = sharing.local(part)
                        clean = [planes(samples[part[i]].image) for i in shares.shows]
                        noise = [delta[d] for d in shares.deltas]
                        moved = self._descend(surrogate, part, shares, clean, noise, world.budget.epsilon, number)
                        for d, values in zip(shares.deltas, moved, strict=True):
                            delta[d] = values
        return (to_pixels(s.image, planes(s.image) + of_sample(i)) for i, s in enumerate(samples))

    def distinguished(self, samples: Sequence[Sample], released: Sequence[Sample], world: DefenderWorld) -> str | None:
        """The surrogates' loss is lower than on the original pictures, and than with random signs of the same noise."""
        return noise_lowers_the_loss(samples, released, world, samples)

    def _rounds(self, samples: Sequence[Sample], delta: Callable[[int], Tensor], world: DefenderWorld) -> Iterator[int]:
        """Train the surrogates, hand over for the noise's turn, stop when all of them err little enough; `delta` gives
        a sample's present noise."""

        def noisy(indices: Sequence[int]) -> list[Tensor]:
            return [planes(samples[i].image) + delta(i) for i in indices]

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

    def _sharing(self, samples: Sequence[Sample]) -> Sharing:
        return shared(samples, self.config.copies == "near")

    def _descend(
        self,
        surrogate: Surrogate,
        part: Sequence[int],
        shares: Local,
        clean: list[Tensor],
        delta: list[Tensor],
        epsilon: float,
        number: int,
    ) -> list[Tensor]:
        """The noise of the samples `part` after its steps in a round; noise of several pictures takes the sum of their
        gradients, and is held in the ball alone."""
        c, step = self.config, self.config.step / 255
        batch = surrogate.encode(part, [clean[p] for p in shares.picture])
        pictures = [shares.delta.count(d) for d in range(len(delta))]
        first = [shares.delta.index(d) for d in range(len(delta))]
        for turn in range(c.pgd_steps):
            gradients = self._gradients(surrogate, part, batch, shares, clean, delta, number * c.pgd_steps + turn)
            delta = [
                sign_descent(d, g, clean[p], step, epsilon)
                if count == 1
                else (d - step * g.sign()).clamp(-epsilon, epsilon)
                for d, g, p, count in zip(delta, gradients, first, pictures, strict=True)
            ]
        return delta

    def _gradients(
        self,
        surrogate: Surrogate,
        part: Sequence[int],
        batch: Batch,
        shares: Local,
        clean: Sequence[Tensor],
        delta: Sequence[Tensor],
        turn: int,
    ) -> list[Tensor]:
        """Of the loss by each noise: through the surrogate's own view of the pictures, and with `views` through others,
        one after the other."""
        leaves, lvlm = [d.clone().requires_grad_() for d in delta], surrogate.lvlm
        total: dict[int, Tensor] = {}
        for cut in (None, *(cuts(turn) if self.config.views else ())):
            chosen = [i for i, p in enumerate(shares.picture) if cut is None or leaves_out(lvlm, *clean[p].shape[-2:])]
            if not chosen:
                continue
            images = {
                p: as_rgb(_perturbed(clean[p], leaves[d], shares.delta.count(d) > 1)).to(lvlm.device)
                for p, d in enumerate(shares.delta)
                if any(shares.picture[i] == p for i in chosen)
            }
            if cut is None:
                seen = lvlm.with_images(batch, [images[p] for p in shares.picture])
            else:
                shown = {p: cut(x) for p, x in images.items()}
                seen = surrogate.encode([part[i] for i in chosen], [shown[shares.picture[i]] for i in chosen])
            loss = lvlm.forward(seen, answers_only=True).losses.sum()
            gradients = dict(enumerate(torch.autograd.grad(loss, leaves, allow_unused=True)))
            found = {d: gradient for d, gradient in gradients.items() if gradient is not None}
            check_finite("the gradient in the pixels", list(found.values()))
            for d, gradient in found.items():
                total[d] = total[d] + gradient if d in total else gradient
        return [total[d] for d in range(len(leaves))]


def _perturbed(clean: Tensor, delta: Tensor, several: bool) -> Tensor:
    """x + delta; noise of `several` pictures was projected onto none of them."""
    return (clean + delta).clamp(0, 1) if several else clean + delta


class ErrorMinimizingClasswise(ErrorMinimizing):
    """Class-wise EM: all samples with one answer share one delta, which moves by the mean of the signs of their steps.

    In a round the authors' code goes over CIFAR-10 once, with one step a batch of 512: 97 steps of 0.8/255, enough to
    reach the border of the ball. A round here goes over the data until there were as many; a single pass over a hundred
    samples would leave most of the budget unspent. Pictures of other sizes see the top left part of a class's delta.
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
        again = c.rounds * image_steps(c.pgd_steps, c.views) * (self._passes(samples) - 1)
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

        order, turns = shuffled(len(samples), c.batch_size, np.random.default_rng([world.seed, 1])), count()
        for _ in self._rounds(samples, of_sample, world):
            for surrogate in self._surrogates:
                several = islice(order, self._passes(len(samples)) * len(batches(len(samples), c.batch_size)))
                for part in (one for many in several for one in pieces(many, samples)):
                    clean = [planes(samples[i].image) for i in part]
                    batch = surrogate.encode(part, clean)
                    for _ in range(c.pgd_steps):
                        steps = [torch.zeros(largest) for _ in of_class]
                        noise = [of_sample(i) for i in part]
                        apart = Local.apart(len(part))
                        gradients = self._gradients(surrogate, part, batch, apart, clean, noise, next(turns))
                        for i, g in zip(part, gradients, strict=True):
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
        classes, sharing = answer_classes(samples, seed), self._sharing(samples)
        folded = classes[[sharing.first[d] for d in sharing.of_sample]]
        return np.unique(folded, return_inverse=True)[1]
