"""TUE: transferable unlearnable examples (Ren 2023, arXiv 2210.10114), noise that is separable by class itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from kornia import augmentation
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from arena.budget import Budget
from arena.data.copies import Sharing, shared
from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.lvlm.adapters import attach_lora, linear_modules, trainable
from arena.lvlm.base import LVLM
from arena.lvlm.batch import Batch
from arena.lvlm.perturbation import PIXELS, as_rgb, planes
from arena.lvlm.pixels import by_size
from arena.plugins.base import DefenderWorld, Effort, ImageDefense, Pixels, setting
from defenses.claims import DEVIATIONS, DRAWS, changes
from defenses.classes import picture_classes
from defenses.features import led_by, mean_features
from defenses.flat import common_size, flat
from defenses.noise import Noise
from defenses.perturbations import shuffled
from defenses.purifying import Purifying
from defenses.surrogate import LearnerConfig, Surrogate
from mmguard.settings import image_steps

OUTPUTS = 128
"""Values of what two views of a picture are compared by; the authors'."""

SMALL = 1e-5
"""What both sides of the discriminant's fraction have more, so that it is defined for equal noise; the authors'."""

JITTER = (0.4, 0.4, 0.4, 0.1)
"""How far brightness, contrast, saturation and hue of a view go; the authors'."""


class TransferableExamples(Purifying, ImageDefense):
    """min_delta min_theta L(f_theta(x + delta)) + w CSD(delta): a self-supervised loss, and a term of the noise alone.

    L is SimCLR's: two views of a picture shall be told from all other pictures of a batch by the cosines of what f
    makes of them. Noise that lowers it spares a learner without labels the picture. The class-wise separability
    discriminant serves against learners with labels, whatever their models and data: with sigma_i the mean distance of
    the noises of class i from their mean, and d_ij the distance of the means of two classes,

        CSD = mean over i != j of (sigma_i + sigma_j) / d_ij

    is low where a linear model reads the class off the noise. As in the authors' code for SimCLR, noise begins with a
    uniform draw, takes 20 steps after each 20 of training, over batches that are drawn anew, and the views are cut out,
    mirrored, recoloured and made grey at random. Its commands for SimCLR and SimSiam give L no weight in the noise, and
    those for MoCo the same weight as CSD; w is from these, as otherwise no model would matter. It lets no gradient
    through the sigmas; here they are descended on too, as the formula stands.

    Adapted: the class is the answer, see `defenses.classes`, and a picture with several answers is of the first one's
    class. f is a pretrained model's vision tower and projector with LoRA adapters, the mean over image tokens, and a
    head of two layers without batch normalisation, which batches of one picture do not bear. There are 5 turns of
    training and noise and not 200, as data and adapters are small, and batches have 32 samples instead of 512. Noise is
    compared at one size, see `defenses.flat`; through `purifiers` what these change counts as noise too. Several
    surrogates are descended on together. Raises `ArenaError` where all pictures have one answer.

    Budget: L∞ on pictures.
    """

    needs = frozenset({"seed", "surrogates"})
    packages = ("scikit-learn", "kornia")

    class Config(LearnerConfig):
        rounds: int = setting(5, dry_run=1, ge=1, description="rounds of training and of noise")
        theta_steps: int = setting(20, dry_run=1, ge=1, description="training steps per round; 20 is the authors'")
        pgd_steps: int = setting(20, dry_run=2, ge=1, description="noise steps per round; 20 is the authors'")
        step: float = setting(0.8, dry_run=8, gt=0, description="size of a noise step, in 1/255; 0.8 is the authors'")
        learning_rate: float = Field(1e-3, gt=0, description="of adapters and head (AdamW); 1e-3 is the authors'")
        batch_size: int = setting(32, ge=1, description="samples per step, for the surrogate and for the noise")
        temperature: float = Field(0.5, gt=0, description="what cosines are divided by; 0.5 is the authors'")
        separability: float = Field(1, ge=0, description="w, the weight of the noise's separability")

    config: Config

    def effort(self, samples: int, budget: Budget) -> Effort:
        """All rounds: two views for each noise step and minibatch, as if the language model ran too."""
        c = self.config
        minibatches = c.theta_steps * min(c.batch_size, samples) / samples
        return Effort(gradients=2 * c.rounds * (image_steps(c.pgd_steps, c) + minibatches))

    def perturb(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Pixels]:
        c, rng, generator = self.config, world.rng(), world.torch_generator()
        classes = self._classes(samples, world.seed)
        noise = DrawnAnew(samples, world.budget.epsilon, c.batch_size, c.copies == "near")
        noise.start(lambda shape: 2 * torch.rand(shape, generator=generator) - 1)
        torch.manual_seed(world.seed)
        surrogates = [self._surrogate(lvlm, samples, classes, generator) for lvlm in world.surrogates()]
        order = shuffled(len(samples), c.batch_size, rng)
        for number in range(c.rounds):
            losses = []
            for _ in range(c.theta_steps):
                part = next(order)
                losses += [s.train_step(part, noise.shown) for s in surrogates]
            noise.draw(rng)
            noise.descend(surrogates, [c.step / 255] * c.pgd_steps, c, turn=number * c.pgd_steps)
            world.progress((number + 1) / c.rounds, f"loss {np.mean(losses):.3f}")
        return noise.released()

    def distinguished(self, samples: Sequence[Sample], released: Sequence[Sample], world: DefenderWorld) -> str | None:
        """Noises of a class are on average nearer to each other than to those of others: CSD is below 1, and below what
        random signs of the same noise have by more than chance."""
        classes = torch.from_numpy(self._classes(samples, world.seed))
        size, generator = common_size(samples), world.torch_generator()
        noise = [torch.from_numpy(delta).permute(2, 0, 1) / 255 for delta in changes(samples, released)]
        found = float(discriminant(flat(noise, size), classes))
        random = [
            float(discriminant(flat([d * _signs(d.shape, generator) for d in noise], size), classes))
            for _ in range(DRAWS)
        ]
        mean, spread = float(np.mean(random)), float(np.std(random))
        if found < min(1, mean - DEVIATIONS * spread):
            return None
        return (
            f"the discriminant of the noise is {found:.6g}, and {mean:.6g} ± {spread:.2g} with random signs: it should "
            "be lower, and below 1"
        )

    def _classes(self, samples: Sequence[Sample], seed: int) -> np.ndarray:
        classes = picture_classes(samples, self.config.copies == "near", seed)
        if (classes == classes[0]).all():
            raise ArenaError("tue: all pictures have one answer, so there is nothing to tell apart; protect more kinds")
        return classes

    def _surrogate(
        self, lvlm: LVLM, samples: Sequence[Sample], classes: np.ndarray, generator: torch.Generator
    ) -> Surrogate:
        """A surrogate that learns to tell pictures apart, and on whose losses noise descends: L and w CSD."""
        c, size, tokens = self.config, common_size(samples), dict[tuple[int, int], int]()
        shown = shared(samples, near=False).picture
        modules = [name for part in (lvlm.vision_tower, lvlm.projector) for name in linear_modules(lvlm, part)]
        tuned = attach_lora(lvlm, c.rank, 2 * c.rank, 0.0, list(dict.fromkeys(modules)))
        tuned.model.train()
        with torch.no_grad():
            width = mean_features(tuned, tuned.encode(samples[:1]), tokens).shape[1]
        head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, OUTPUTS)).to(tuned.device)
        optimizer = torch.optim.AdamW([*trainable(tuned).values(), *head.parameters()], c.learning_rate, weight_decay=0)

        def losses(batch: Batch, numbers: Sequence[int]) -> Tensor:
            _, where, own = np.unique([shown[i] for i in numbers], return_index=True, return_inverse=True)
            images = [batch.images[place] for place in where]  # one that several samples show is there once

            def outputs() -> Tensor:
                seen = views(images, generator)
                found: Tensor = head(mean_features(tuned, tuned.with_images(batch, [seen[i] for i in own]), tokens))
                return found[where]

            values = contrast(outputs(), outputs(), c.temperature)
            clean = [as_rgb(planes(samples[numbers[place]].image)).to(tuned.device) for place in where]
            # The noise of a part of a picture counts with the whole one.
            whole = [i for i, x in enumerate(clean) if x.shape == images[i].shape]
            if whole and c.separability:
                kinds = torch.from_numpy(classes[[numbers[where[i]] for i in whole]])
                noise = flat([images[i] - clean[i] for i in whole], size)
                values = values + c.separability * discriminant(noise, kinds)
            return values[own]

        led = led_by(Surrogate(tuned, samples, optimizer, c.batch_size), losses)
        led.lvlm.loss = lambda batch: led.lvlm.losses(batch).mean()  # type: ignore[method-assign]
        return led


class DrawnAnew(Noise):
    """Noise whose batches are drawn anew, so that noises of a class meet all others in turn."""

    def __init__(self, samples: Sequence[Sample], epsilon: float, batch_size: int, near: bool) -> None:
        super().__init__(samples, epsilon, batch_size, near)
        self._batch_size = batch_size

    def draw(self, rng: np.random.Generator) -> None:
        """Other batches from now on."""
        order = [int(i) for i in rng.permutation(len(self._samples))]
        moved = Sharing(tuple(self._sharing.picture[i] for i in order), self._sharing.delta)
        sizes = [self._samples[i].image.width * self._samples[i].image.height for i in order]
        self._parts = [[order[place] for place in part] for part in moved.parts(sizes, self._batch_size, PIXELS)]


def discriminant(noise: Tensor, classes: Tensor) -> Tensor:
    """CSD, a scalar, of noise ``(n, d)`` and classes ``(n,)``; 0 where there is one class."""
    means, spreads = [], []
    for kind in classes.unique().tolist():
        own = noise[(classes == kind).to(noise.device)]
        means.append(own.mean(0))
        spreads.append((own - means[-1]).norm(dim=1).mean())
    if len(means) == 1:
        return noise.new_zeros(())
    first, second = torch.triu_indices(len(means), len(means), 1)
    middle, spread = torch.stack(means), torch.stack(spreads)
    apart = torch.cdist(middle, middle, compute_mode="donot_use_mm_for_euclid_dist")[first, second]
    return ((spread[first] + spread[second] + SMALL) / (apart + SMALL)).mean()


def contrast(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """SimCLR's loss of each picture, ``(n,)``, from outputs ``(n, d)`` of two views (Chen 2020, arXiv 2002.05709): the
    cross entropy of finding a view's other one among all views, by cosines, over both."""
    unit = F.normalize(torch.cat([one, other]), dim=1)
    alike = (unit @ unit.T / temperature).masked_fill(torch.eye(len(unit), device=unit.device).bool(), -torch.inf)
    found = torch.arange(len(unit), device=unit.device).roll(len(one))
    return F.cross_entropy(alike, found, reduction="none").view(2, -1).mean(0)


def views(images: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    """A random view of each picture ``(3, H, W)`` in [0, 1], at its size, differentiably."""
    made: dict[int, Tensor] = {}
    for places, stack in by_size(images):
        policy = nn.Sequential(
            augmentation.RandomResizedCrop(tuple(stack.shape[-2:])),
            augmentation.RandomHorizontalFlip(),
            augmentation.ColorJitter(*JITTER, p=0.8),
            augmentation.RandomGrayscale(p=0.2),
        )
        with torch.random.fork_rng(devices=[]):  # kornia draws from torch's global generator
            torch.default_generator.manual_seed(int(torch.randint(2**63 - 1, (), generator=generator)))
            made |= zip(places, policy(stack), strict=True)
    return [made[place] for place in range(len(images))]


def _signs(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    return 2 * torch.randint(2, tuple(shape), generator=generator) - 1
