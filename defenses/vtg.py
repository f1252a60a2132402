"""VTG: noise of a generator that keeps to labels, also on data that it has not seen (Li 2025, NeurIPS 2025)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import overload

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from arena.budget import Budget
from arena.data.sample import Sample
from arena.lvlm.adapters import fused
from arena.lvlm.base import LVLM
from arena.lvlm.batch import Batch
from arena.lvlm.perturbation import batches, check_finite, pieces, planes, to_pixels
from arena.lvlm.tokens import plain_ids
from arena.plugins.base import DefenderWorld, Effort, Pixels, setting
from defenses import generators
from defenses.claims import changes, noise_lowers_the_loss
from defenses.classes import picture_classes
from defenses.features import by_other_losses
from defenses.generators import Generated, GeneratorConfig, apart, batch_means, class_means, seen, under
from defenses.perturbations import shuffled
from defenses.surrogate import LearnerConfig, Surrogate
from defenses.t2ue import answer_losses
from defenses.uc import Block, Seeing

GREY = 0.5
"""What noise is put on where it is shown alone."""

BLOCKS, STYLE_BLOCKS = 4, 6
"""Residual blocks of the generator, and of the one of other styles; the authors'."""

STYLE_RATE, STYLE_BETAS = 1e-3, (0.5, 0.999)
"""Of Adam for the generator of other styles; the authors'."""

ITERATIONS = 50
"""Of Sinkhorn's algorithm: costs of at most 2 at a regularisation of 1 need fewer."""


class Versatile(Generated):
    """min over G and theta of the mean of CE(f_theta(x + delta_y), y) + CE(F(delta_y) e^T, y), theta also on D(x).

    A generator G makes noise of pictures, and all pictures of class y have the mean delta_y of what it makes of each of
    them. It is trained in turns with the model, as of `em`, and two things are for data that it has not seen. Domain
    augmentation: a second generator D repaints pictures in another style, and before each step of the model takes one
    of its own that moves D(x) away from x, by the entropic transport distance of their features (Sinkhorn, cost 1 -
    cos, regularisation 1); the model learns both x and D(x) under the noise. Coupling of noise and label: the noise
    alone, without a picture, shall be nearest to the embedding e_y of its label's text among all labels, so that it
    follows the label rather than what is on a picture. As in the authors' code there are 30 rounds of 10 steps of the
    model and one pass of G over the data, by Adam with a learning rate of 1e-3; G has three reductions of 8, 16 and 32
    channels, four residual blocks and as many enlargements; D is StarGAN's generator; and noise is made at 32 x 32
    pixels. The radius is 8/255. For other data (`reuse`) the mean is that of their own pictures of a class, and no
    model is asked.

    Adapted: a class is an answer, see `defenses.classes`, of a picture with several the first one's, and CE is that of
    the answer's tokens. What learns are LoRA adapters of the language model, by AdamW, as of `em`, where the authors
    train a classifier from nothing. F are the mean features of a picture, see `defenses.features`, of noise on uniform
    grey, which is about what a model's normalisation maps to the zeros that the authors have around it. CLIP's
    embedding of "a photo of a ..." becomes the mean input embedding of the answer's tokens, in whose space the
    projector writes; it is divided by the root of its mean square. The authors bound noise softly, by twice what the
    mean of its largest values is beyond the radius, and release what is still beyond; the budget allows none, so the
    radius times the generator's tanh is the noise, and that term is always zero. D's tanh is mapped to [0, 1], and its
    pictures are enlarged to those they are made of. Their surrogate learns half of the data, here all. Of several
    surrogates the losses, and the distances, are added up. Of D's 64 first channels fewer spare a processor minutes.

    Budget: L∞ on pictures.
    """

    needs = frozenset({"seed", "surrogates"})
    packages = ("scikit-learn",)

    class Config(GeneratorConfig):
        rounds: int = setting(30, dry_run=4, ge=1, description="rounds, each over all samples; 30 is the authors'")
        theta_steps: int = setting(
            10, dry_run=1, ge=1, description="training steps of the surrogate per round; 10 is the authors'"
        )
        learning_rate: float = setting(
            1e-3, dry_run=1e-2, gt=0, description="of the generator (Adam); 1e-3 is the authors'"
        )
        side: int = setting(
            32,
            dry_run=16,
            ge=16,
            multiple_of=4,
            description="pixels a side of the noise, and of pictures in other styles, a multiple of 4; 32 is the "
            "authors'",
        )
        width: int = setting(8, ge=1, description="channels of the generator's first layer; 8 is the authors'")
        style_width: int = setting(
            16,
            dry_run=2,
            ge=1,
            description="channels of the first layer of what paints other styles; 64 is the authors'",
        )
        rank: int = setting(16, dry_run=2, ge=1, description="rank of the surrogate's LoRA adapters")
        theta_rate: float = Field(2e-3, gt=0, description="learning rate of the surrogate's adapters (AdamW)")
        batch_size: int = setting(
            32,
            dry_run=4,
            ge=1,
            description="samples per step of the generator; the surrogate learns each in two styles",
        )

    config: Config

    def effort(self, samples: int, budget: Budget) -> Effort:
        """All rounds: a step of the generator for all samples, and minibatches of training in two styles, before each
        of which features are compared, as if the language model ran too."""
        c = self.config
        if c.reuse is not None:
            return Effort()
        minibatches = c.theta_steps * min(c.batch_size, samples) / samples
        return Effort(forwards=c.rounds * minibatches, gradients=c.rounds * (1 + 3 * minibatches))

    def perturb(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Pixels]:
        c = self.config
        classes = np.unique(picture_classes(samples, c.copies == "near", world.seed), return_inverse=True)[1]
        torch.manual_seed(world.seed)
        network = noise_network(c.width)
        if c.reuse is None:
            self._train(network, samples, classes, world)
            generators.keep(world.workspace, network, {})
        else:
            generators.read(Path(c.reuse), network, {})
        noise = world.budget.epsilon * class_means(network, samples, classes, c.side, c.batch_size)
        return (to_pixels(s.image, under(planes(s.image), noise[k])) for s, k in zip(samples, classes, strict=True))

    def distinguished(self, samples: Sequence[Sample], released: Sequence[Sample], world: DefenderWorld) -> str | None:
        """Pictures of a class and a size change the same way where no value is cut off; the surrogates' loss is lower
        than on the originals, and than with random signs of the noise; and where there are several classes, noise alone
        is nearer to its label than uniform grey is, and than its random signs are."""
        classes = np.unique(picture_classes(samples, self.config.copies == "near", world.seed), return_inverse=True)[1]
        failed = apart(samples, released, classes.tolist())
        if failed is not None:
            return f"{failed}: both are of one class, and have its mean noise"
        failed = noise_lowers_the_loss(samples, released, world, samples)
        if failed is not None or classes.max() == 0:
            return failed
        grey = [_on_grey(sample, np.zeros(1, int)) for sample in samples]
        noise = [_on_grey(*pair) for pair in zip(samples, changes(samples, released), strict=True)]
        models = [
            self._by_contrast(Coupled.of(lvlm, samples, classes), samples, classes) for lvlm in world.surrogates()
        ]
        failed = noise_lowers_the_loss(grey, noise, world, grey, models)
        return failed and f"of noise alone, told apart by labels, {failed}"

    def _by_contrast(self, model: Coupled, samples: Sequence[Sample], classes: np.ndarray) -> LVLM:
        def losses(batch: Batch, numbers: Sequence[int]) -> Tensor:
            return model.contrast(model.seeing.mean(batch), [int(classes[i]) for i in numbers])

        return by_other_losses(model.seeing.lvlm, samples, losses, self.config.batch_size).lvlm

    def _train(self, network: nn.Module, samples: Sequence[Sample], classes: np.ndarray, world: DefenderWorld) -> None:
        """Train the generator, and beside it the surrogates and what paints other styles."""
        c, epsilon = self.config, world.budget.epsilon
        learner = LearnerConfig(rank=c.rank, learning_rate=c.theta_rate, batch_size=2 * c.batch_size)
        surrogates = [Surrogate.start(lvlm, Twice(samples), learner) for lvlm in world.surrogates()]
        models = [Coupled.of(s.lvlm, samples, classes) for s in surrogates]
        device = surrogates[0].lvlm.device
        styles = style_network(c.style_width).to(device)
        stylist = torch.optim.Adam(styles.parameters(), STYLE_RATE, STYLE_BETAS)
        optimizer = torch.optim.Adam(network.to(device).parameters(), c.learning_rate)
        order = shuffled(len(samples), c.batch_size, world.rng())
        several = shuffled(len(samples), c.batch_size, np.random.default_rng([world.seed, 1]))
        noise = torch.zeros(int(classes.max()) + 1, 3, c.side, c.side)
        for number in range(c.rounds):
            for part in (next(order) for _ in range(c.theta_steps)):
                pictures = seen([samples[i] for i in part], c.side).to(device)
                estrange(styles, stylist, pictures, [model.seeing for model in models])
                with torch.no_grad():
                    painted = dict(zip(part, painting(styles, pictures).cpu(), strict=True))
                shown = partial(_shown, samples, classes, noise, painted)
                for surrogate in surrogates:
                    surrogate.train_step([*part, *(len(samples) + i for i in part)], shown)
            network.train()
            losses = [
                self._step(network, optimizer, part, samples, classes, models, epsilon)
                for part in (next(several) for _ in batches(len(samples), c.batch_size))
            ]
            check_finite("the generator", list(network.parameters()))
            noise = epsilon * class_means(network, samples, classes, c.side, c.batch_size)
            answered, told = np.mean(losses, axis=0)
            world.progress((number + 1) / c.rounds, f"loss {answered:.3f}, of noise by label {told:.3f}")

    def _step(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        part: Sequence[int],
        samples: Sequence[Sample],
        classes: np.ndarray,
        models: Sequence[Coupled],
        epsilon: float,
    ) -> tuple[float, float]:
        """A step of the generator on a batch; returns the loss of the answers and that of the noise by its label. The
        noise of a class is the mean over its pictures in the batch."""
        lvlms, device = [model.seeing.lvlm for model in models], next(network.parameters()).device
        own = classes[list(part)]
        kinds, counts = np.unique(own, return_counts=True)
        made = epsilon * network(seen([samples[i] for i in part], self.config.side).to(device))
        of_class = batch_means(made, own, kinds.tolist())
        # The noise of the batch is made once, and its gradient comes from pieces of the batch.
        noise, answered = of_class.detach().requires_grad_(), 0.0
        place = {int(kind): number for number, kind in enumerate(kinds)}
        with ExitStack() as stack:
            for lvlm in lvlms:
                stack.enter_context(fused(lvlm))
            for piece in pieces(part, samples):
                images = [under(planes(samples[i].image), noise[place[int(classes[i])]]) for i in piece]
                loss = answer_losses(lvlms, [samples[i] for i in piece], images).sum() / len(part)
                check_finite("the loss of the surrogates", [loss])
                loss.backward()
                answered += loss.item()
            shares = torch.from_numpy(counts / len(part)).to(device, torch.float32)
            alone = list(GREY + noise)
            contrasts = [
                (model.contrast(model.seeing.pictures(alone), kinds.tolist()).to(device) * shares).sum()
                for model in models
            ]
            told = torch.stack(contrasts).sum()
            check_finite("the loss of noise by its label", [told])
            told.backward()
        optimizer.zero_grad()
        of_class.backward(noise.grad)
        optimizer.step()
        return answered, told.item()


@dataclass(frozen=True)
class Coupled:
    """A surrogate that sees pictures, and the embeddings of the classes' labels, ``(K, d)``."""

    seeing: Seeing
    labels: Tensor

    @classmethod
    def of(cls, lvlm: LVLM, samples: Sequence[Sample], classes: np.ndarray) -> Coupled:
        return cls(Seeing(lvlm), label_embeddings(lvlm, samples, classes))

    def contrast(self, features: Tensor, kinds: Sequence[int]) -> Tensor:
        """The cross-entropy of features ``(B, d)`` by their products with all labels, where these are right, ``(B,)``;
        of a projector of several modules each is compared alike."""
        modules = features.shape[1] // self.labels.shape[1]
        products = features @ self.labels.repeat(1, modules).T
        return F.cross_entropy(products, torch.tensor(kinds, device=products.device), reduction="none")


@torch.no_grad()
def label_embeddings(lvlm: LVLM, samples: Sequence[Sample], classes: np.ndarray) -> Tensor:
    """e, float32 ``(K, d)``: of each class the mean over its different answers of the mean input embedding of their
    tokens, divided by the root of its mean square."""
    table = lvlm.model.get_input_embeddings()
    answers: list[set[str]] = [set() for _ in range(int(classes.max()) + 1)]
    for sample, kind in zip(samples, classes, strict=True):
        answers[kind].add(sample.answer)
    rows = []
    for own in answers:
        each = plain_ids(lvlm.tokenizer, [f" {answer}" for answer in sorted(own)], special=False)
        embedded = [table(torch.tensor(ids, device=lvlm.device)).float().mean(0) for ids in each]
        rows.append(torch.stack(embedded).mean(0))
    found = torch.stack(rows)
    return found / found.square().mean(1, keepdim=True).sqrt().clamp(min=1e-6)


class Twice(Sequence[Sample]):
    """Samples, and again: those of the second time are shown in another style."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return 2 * len(self._samples)

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Sample]: ...

    def __getitem__(self, index: int | slice) -> Sample | Sequence[Sample]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._samples[range(len(self))[index] % len(self._samples)]


def _shown(
    samples: Sequence[Sample],
    classes: np.ndarray,
    noise: Tensor,
    painted: Mapping[int, Tensor],
    numbers: Sequence[int],
) -> list[Tensor]:
    """The pictures of samples of these numbers, of `Twice`, under the noise of their classes."""
    found = []
    for number in numbers:
        i = number % len(samples)
        clean = planes(samples[i].image)
        picture = clean if number == i else in_place_of(clean, painted[i])
        found.append(under(picture, noise[classes[i]]))
    return found


def estrange(
    styles: nn.Module, optimizer: torch.optim.Optimizer, pictures: Tensor, surrogates: Sequence[Seeing]
) -> float:
    """A step of what paints other styles that moves its pictures away from those given, ``(B, 3, side, side)``; returns
    by how much they were apart."""
    painted, shown = list(painting(styles, pictures)), list(pictures)
    distances = []
    for one in surrogates:
        with torch.no_grad():
            before = one.pictures(shown)
        distances.append(transport(before, one.pictures(painted)).to(pictures.device))
    distance = torch.stack(distances).sum()
    check_finite("the distance between styles", [distance])
    optimizer.zero_grad()
    (-distance).backward()
    optimizer.step()
    return distance.item()


def painting(styles: nn.Module, pictures: Tensor) -> Tensor:
    """Pictures in another style, in [0, 1], of pictures ``(B, 3, side, side)`` in [0, 1]."""
    painted: Tensor = (styles(pictures) + 1) / 2
    return painted


def in_place_of(clean: Tensor, painted: Tensor) -> Tensor:
    """What was painted, ``(3, side, side)``, at the size of a picture ``(1 or 3, H, W)``; of grey the mean."""
    sized = F.interpolate(painted[None], clean.shape[-2:], mode="bilinear")[0]
    return sized if len(clean) == 3 else sized.mean(0, keepdim=True)


def transport(one: Tensor, other: Tensor) -> Tensor:
    """The cost of the entropic optimal transport between two sets of features ``(B, d)``, at a cost of 1 - cos and a
    regularisation of 1 (Cuturi 2013, arXiv 1306.0895), with gradient."""
    cost = 1 - F.normalize(one, dim=1) @ F.normalize(other, dim=1).T
    u, v = torch.zeros_like(cost[:, 0]), torch.zeros_like(cost[0])
    for _ in range(ITERATIONS):
        v = -torch.logsumexp(u[:, None] - cost, 0) - np.log(cost.shape[1])
        u = -torch.logsumexp(v[None] - cost, 1) - np.log(cost.shape[0])
    return (torch.exp(u[:, None] + v[None] - cost) * cost).sum()


def _on_grey(sample: Sample, change: np.ndarray) -> Sample:
    """A sample with uniform grey in the place of its picture, and on it a change of colours ``(H, W, C)`` in 1/255."""
    shape = (sample.image.height, sample.image.width, 3)
    return sample.with_content(
        Image.fromarray((128 + np.broadcast_to(change, shape)).astype(np.uint8)), sample.question
    )


def noise_network(width: int) -> nn.Sequential:
    """G, from ``(B, 3, side, side)`` in [0, 1] to the same in [-1, 1]; sides are multiples of 4, of 16 or more."""
    layers: list[nn.Module] = []
    for number, (before, after) in enumerate(pairwise((3, width, 2 * width, 4 * width))):
        smaller = nn.Conv2d(before, after, 3, stride=1 if number == 0 else 2)
        layers += [smaller, nn.InstanceNorm2d(after), nn.ReLU()]
    layers += [Block(4 * width, nn.BatchNorm2d) for _ in range(BLOCKS)]
    for before, after in pairwise((4 * width, 2 * width, width)):
        layers += [nn.ConvTranspose2d(before, after, 3, stride=2, bias=False), nn.InstanceNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(width, 3, 6, bias=False), nn.Tanh())


def style_network(width: int) -> nn.Sequential:
    """D, from ``(B, 3, side, side)`` to the same in [-1, 1]: the generator of StarGAN (Choi 2018, arXiv 1711.09020)
    without its input of a domain, and with reflected borders in its blocks. Sides are multiples of 4."""

    def normal(channels: int) -> nn.Module:
        return nn.InstanceNorm2d(channels, affine=True)

    layers: list[nn.Module] = [nn.Conv2d(3, width, 7, padding=3, bias=False), normal(width), nn.ReLU()]
    for channels in (width, 2 * width):
        half = nn.Conv2d(channels, 2 * channels, 4, stride=2, padding=1, bias=False)
        layers += [half, normal(2 * channels), nn.ReLU()]
    layers += [Block(4 * width, normal) for _ in range(STYLE_BLOCKS)]
    for channels in (4 * width, 2 * width):
        double = nn.ConvTranspose2d(channels, channels // 2, 4, stride=2, padding=1, bias=False)
        layers += [double, normal(channels // 2), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(width, 3, 7, padding=3, bias=False), nn.Tanh())
