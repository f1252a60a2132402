"""BAIT: noise that binds wrong answers, against what a pretrained model knows (Li 2026, arXiv 2603.04731)."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor, nn

from arena.budget import Budget
from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.lvlm.adapters import fused, load_trainable, trainable_state
from arena.lvlm.perturbation import as_rgb, batches, check_finite, pieces, planes, to_pixels
from arena.lvlm.shortcuts import same_pictures
from arena.plugins.base import DefenderWorld, Effort, Pixels, setting
from defenses import generators
from defenses.claims import changes, noise_lowers_the_loss
from defenses.classes import picture_classes
from defenses.generators import Generated, GeneratorConfig, batch_means, class_means, seen, under
from defenses.perturbations import shuffled
from defenses.surrogate import Images, LearnerConfig, Surrogate
from defenses.t2ue import answer_losses
from defenses.uc import Block

LIKELY, RANDOM, UNLIKELY = range(3)
"""Which wrong class is aimed at in each third of the rounds."""


class Bait(Generated):
    """min over G of the mean of CE(f'(x + delta_w), w) over wrong classes w, where f' is f after a step on
    (x + delta_y, y).

    A pretrained model knows what is on a picture, and finds it beside noise that only agrees with it. So noise is
    crafted to win against that knowledge: put on a picture of another class, it shall lead to its own class. delta_y is
    the mean over the pictures x of class y of what a generator G makes of each, and all of the class have it. In a
    round a copy of the model first learns the right answers under the noise, as whoever trains on the release will;
    under this copy the generator takes a step for each batch; then the model itself learns a batch under the new noise.
    The wrong class w becomes harder by thirds of the rounds: the most likely one for the copy, a random one, the least
    likely one. As in the authors' code there are 90 rounds, a single step in each, Adam with a learning rate of 1e-3,
    and a generator of three reductions, eight blocks and three enlargements that ends with a tanh, which the radius is
    multiplied by; noise is made at their 32 x 32 pixels; and no gradient is led through the copy's step, whose noise is
    that of the round before: zero in the first. The radius is 8/255.

    Adapted: a class is an answer, see `defenses.classes`, of a picture with several the first one's, and CE is that of
    the answer's tokens: of w those of a sample of w in the batch. A model that answers has no output for each class,
    but has to read an answer to tell how likely it is. So w is one of at most `candidates` classes of the batch, which
    are drawn, and likely is what has a low loss. The authors train all of a classifier by stochastic gradient descent
    with a rate of 0.1; what learns here, also in the copy, are LoRA adapters of the language model, by AdamW, as of
    `em`. A round goes over the data once, in 97 batches of 512 of CIFAR-10 for them; here batches are smaller. They
    keep the mean noise of the last batch with a class, where we take that of all pictures, as both do for the release.
    A picture is reduced or enlarged to the generator's side, and noise to the picture by its nearest pixels; a grey
    picture gets the mean of the noise's colours. Of several surrogates the losses are added up. The generator's
    channels are 16 at first, and 512, in the authors' code; fewer here spare a processor hours. What is kept (`reuse`)
    is the generator: noise of other pictures is made of them, class by class, and no model is asked.

    Budget: L∞ on pictures.
    """

    needs = frozenset({"seed", "surrogates"})
    packages = ("scikit-learn",)

    class Config(GeneratorConfig):
        rounds: int = setting(90, dry_run=2, ge=1, description="rounds, each over all samples; 90 is the authors'")
        learning_rate: float = setting(
            1e-3, dry_run=1e-2, gt=0, description="of the generator (Adam); 1e-3 is the authors'"
        )
        candidates: int = setting(
            10,
            dry_run=2,
            ge=2,
            description="most classes of a batch that are aimed at; each costs a forward pass in two rounds of three",
        )
        side: int = setting(
            32,
            dry_run=16,
            ge=16,
            multiple_of=8,
            description="pixels a side of the noise, a multiple of 8; 32 is the authors'",
        )
        width: int = setting(
            2,
            ge=1,
            description="channels of the generator's first layer, a 32nd of its blocks'; 16 is the authors'",
        )
        blocks: int = setting(8, dry_run=2, ge=1, description="residual blocks of the generator; 8 is the authors'")
        rank: int = setting(16, dry_run=2, ge=1, description="rank of the surrogate's LoRA adapters")
        theta_rate: float = Field(2e-3, gt=0, description="learning rate of the surrogate's adapters (AdamW)")
        batch_size: int = setting(
            32, dry_run=4, ge=2, description="samples per step, for the surrogate and for the generator"
        )

    config: Config

    def effort(self, samples: int, budget: Budget) -> Effort:
        """All rounds: what asks how likely answers are, a step of the generator, and both minibatches of training."""
        c = self.config
        if c.reuse is not None:
            return Effort()
        asked = sum(third(number, c.rounds) != RANDOM for number in range(c.rounds))
        minibatches = 2 * min(c.batch_size, samples) / samples
        return Effort(forwards=asked * c.candidates, gradients=c.rounds * (1 + minibatches))

    def perturb(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Pixels]:
        c = self.config
        classes = np.unique(picture_classes(samples, c.copies == "near", world.seed), return_inverse=True)[1]
        torch.manual_seed(world.seed)
        network = encoder_decoder(c.width, c.blocks)
        if c.reuse is None:
            self._train(network, samples, classes, world)
            generators.keep(world.workspace, network, {})
        else:
            generators.read(Path(c.reuse), network, {})
        noise = world.budget.epsilon * class_means(network, samples, classes, c.side, c.batch_size)
        return (to_pixels(s.image, under(planes(s.image), noise[k])) for s, k in zip(samples, classes, strict=True))

    def distinguished(self, samples: Sequence[Sample], released: Sequence[Sample], world: DefenderWorld) -> str | None:
        """The noise of another class on a picture lowers the loss of that class's answer: it is lower than on the
        original picture, and than with random signs of the noise."""
        classes = picture_classes(samples, self.config.copies == "near", world.seed)
        found = changes(samples, released)
        clean, bound = [], []
        for i, sample in enumerate(samples):
            other = next((j for j in [*range(i, len(samples)), *range(i)] if classes[j] != classes[i]), i)
            delta = torch.from_numpy(found[other]).permute(2, 0, 1).float() / 255
            values = to_pixels(sample.image, under(planes(sample.image), as_rgb(delta)))
            picture = Image.fromarray((values * 255).round().astype(np.uint8), sample.image.mode)
            asked = replace(sample, answer=samples[other].answer)
            clean.append(asked)
            bound.append(asked.with_content(picture, sample.question))
        return noise_lowers_the_loss(clean, bound, world, clean)

    def _train(self, network: nn.Module, samples: Sequence[Sample], classes: np.ndarray, world: DefenderWorld) -> None:
        """Train the generator, and the surrogates beside it. Raises `ArenaError` where there is no wrong class."""
        c, epsilon = self.config, world.budget.epsilon
        if classes.max() == 0:
            raise ArenaError("bait: all pictures have one answer, so there is no wrong one to bind; protect more kinds")
        learner = LearnerConfig(rank=c.rank, learning_rate=c.theta_rate, batch_size=c.batch_size)
        surrogates = [Surrogate.start(lvlm, samples, learner) for lvlm in world.surrogates()]
        network.to(surrogates[0].lvlm.device)
        optimizer = torch.optim.Adam(network.parameters(), c.learning_rate)
        order = shuffled(len(samples), c.batch_size, world.rng())
        rng = np.random.default_rng([world.seed, 1])
        several = shuffled(len(samples), c.batch_size, rng)
        noise = torch.zeros(int(classes.max()) + 1, 3, c.side, c.side)

        def noisy(indices: Sequence[int]) -> list[Tensor]:
            return [under(planes(samples[i].image), noise[classes[i]]) for i in indices]

        for number in range(c.rounds):
            losses, part = [], next(order)
            network.train()
            with ahead(surrogates, part, noisy):
                for many in (next(several) for _ in batches(len(samples), c.batch_size)):
                    aims = self._aims(third(number, c.rounds), many, samples, classes, surrogates, rng)
                    if aims is not None:
                        losses.append(self._step(network, optimizer, many, aims, samples, classes, surrogates, epsilon))
            check_finite("the generator", list(network.parameters()))
            noise = epsilon * class_means(network, samples, classes, c.side, c.batch_size)
            for surrogate in surrogates:
                surrogate.train_step(part, noisy)
            world.progress((number + 1) / c.rounds, f"loss {np.mean(losses or [np.nan]):.3f}")

    def _aims(
        self,
        stage: int,
        part: Sequence[int],
        samples: Sequence[Sample],
        classes: np.ndarray,
        surrogates: Sequence[Surrogate],
        rng: np.random.Generator,
    ) -> list[int] | None:
        """For each sample of a batch another one of the batch, whose class is the wrong one that it is led to; None
        where all are of one class."""
        own = classes[list(part)]
        kinds, first = np.unique(own, return_index=True)
        if len(kinds) < 2:
            return None
        if len(kinds) > self.config.candidates:
            first = first[np.sort(rng.choice(len(kinds), self.config.candidates, replace=False))]
        members = [part[place] for place in first]
        wrong = own[:, None] != classes[members][None]
        if stage == RANDOM:
            values = rng.random(wrong.shape)
        else:
            answers = [samples[i].answer for i in members]
            values = likelihoods(surrogates, [samples[i] for i in part], answers).numpy()
            values = -values if stage == UNLIKELY else values
        return [members[k] for k in np.where(wrong, values, -np.inf).argmax(1)]

    def _step(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        part: Sequence[int],
        aims: Sequence[int],
        samples: Sequence[Sample],
        classes: np.ndarray,
        surrogates: Sequence[Surrogate],
        epsilon: float,
    ) -> float:
        """A step of the generator towards noise that leads the samples of a batch to those that they aim at; returns
        the loss. The noise of a class is the mean over its pictures in the batch."""
        device = next(network.parameters()).device
        kinds = sorted({int(classes[i]) for i in aims})
        own = [i for i in part if classes[i] in kinds]
        made = epsilon * network(seen([samples[i] for i in own], self.config.side).to(device))
        of_class = batch_means(made, classes[own], kinds)
        # The noise of the batch is made once, and its gradient comes from pieces of the batch.
        noise, gradient, total = of_class.detach().requires_grad_(), torch.zeros_like(of_class), 0.0
        led = dict(zip(part, aims, strict=True))
        with ExitStack() as stack:
            for surrogate in surrogates:
                stack.enter_context(fused(surrogate.lvlm))
            for piece in pieces(part, samples):
                asked = [replace(samples[i], answer=samples[led[i]].answer) for i in piece]
                images = [under(planes(samples[i].image), noise[kinds.index(int(classes[led[i]]))]) for i in piece]
                loss = answer_losses([s.lvlm for s in surrogates], asked, images).sum() / len(part)
                check_finite("the loss of the surrogates", [loss])
                gradient += torch.autograd.grad(loss, noise)[0]
                total += loss.item()
        optimizer.zero_grad()
        of_class.backward(gradient)
        optimizer.step()
        return total


def third(number: int, rounds: int) -> int:
    """Which third of the rounds one is in."""
    return 3 * number // rounds


@contextmanager
def ahead(surrogates: Sequence[Surrogate], part: Sequence[int], images: Images) -> Iterator[None]:
    """Within the block, surrogates have learned one step more, on these pictures of a batch; exactly undone afterwards,
    also in their optimisers."""
    kept = [(trainable_state(s.lvlm), copy.deepcopy(s.optimizer.state_dict())) for s in surrogates]
    for surrogate in surrogates:
        surrogate.train_step(part, images)
    try:
        yield
    finally:
        for surrogate, (weights, state) in zip(surrogates, kept, strict=True):
            load_trainable(surrogate.lvlm, weights)
            surrogate.optimizer.load_state_dict(state)


@torch.no_grad()
def likelihoods(surrogates: Sequence[Surrogate], samples: Sequence[Sample], answers: Sequence[str]) -> Tensor:
    """How likely each answer is for each sample's picture and question, ``(B, K)`` on the CPU: its mean log probability
    a token, added up over surrogates."""
    rows = []
    for piece in pieces(range(len(samples)), samples):
        total = torch.zeros(len(piece), len(answers))
        for lvlm in (s.lvlm for s in surrogates):
            images = [as_rgb(planes(samples[i].image)).to(lvlm.device) for i in piece]
            pixels, numbers = lvlm.inputs_of(images), torch.arange(len(piece))
            with fused(lvlm), same_pictures(lvlm):
                for k, answer in enumerate(answers):
                    texts = [
                        lvlm.encode_sample(samples[i], (x.shape[-2], x.shape[-1]), answer)
                        for i, x in zip(piece, images, strict=True)
                    ]
                    batch = lvlm.collate(texts, pixels, images, numbers)
                    total[:, k] -= lvlm.forward(batch, answers_only=True).losses.cpu()
        rows.append(total)
    return torch.cat(rows)


def encoder_decoder(width: int, blocks: int) -> nn.Sequential:
    """G, from ``(B, 3, side, side)`` in [0, 1] to the same in [-1, 1]; sides are multiples of 8."""
    channels = [3, *(width * 2**i for i in range(6))]
    layers: list[nn.Module] = []
    for number, (before, after) in enumerate(pairwise(channels)):
        smaller = nn.Conv2d(before, after, 3, stride=1 + number % 2, padding=1)
        layers += [smaller, nn.InstanceNorm2d(after), nn.ReLU()]
    layers += [Block(channels[-1], nn.BatchNorm2d) for _ in range(blocks)]
    for number, (before, after) in enumerate(pairwise(channels[::-1])):
        doubled = (number + 1) % 2
        larger = nn.ConvTranspose2d(before, after, 3, stride=1 + doubled, padding=1, output_padding=doubled, bias=False)
        layers += [larger, nn.Tanh()] if number == len(channels) - 2 else [larger, nn.InstanceNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers)
