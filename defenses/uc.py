"""UC: unlearnable clusters, noise of a generator for each cluster of pictures (Zhang 2023, arXiv 2301.01217)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor, nn
from torch.nn import functional as F

from arena.budget import Budget
from arena.data import trained
from arena.data.copies import shared
from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.lvlm.base import LVLM
from arena.lvlm.batch import Batch
from arena.lvlm.perturbation import as_rgb, batches, check_finite, pieces, planes, to_pixels
from arena.plugins.base import DefenderWorld, Effort, Pixels, setting
from defenses.augmentation import shifted
from defenses.claims import noise_lowers_the_loss
from defenses.features import PLAIN, by_other_losses, mean_features
from defenses.generators import Generated, GeneratorConfig, under

SHIFT = 16 / 224
"""Largest shift of the augmentation, as a share of the sides: the authors cut 224 pixels out of 256."""

WEIGHT_DECAY, LAST_RATE = 5e-4, 1e-6
"""Of Adam, and the learning rate that it ends with; the authors'."""


STARTS, ITERATIONS = 10, 100
"""Of k-means."""


class UnlearnableClusters(Generated):
    """min over G_k of the mean of KL(softmax c_(k+1) || softmax F(x + G_k(z_k))) over all pictures x.

    F are the features of surrogates, c_1 to c_K the centres of their clusters by k-means. A generator G_k makes one
    noise of a fixed z_k that leads whatever picture it is put on to the centre of the next cluster, and all pictures of
    cluster k have it: what pictures have in common is led elsewhere, and the same way in each cluster. Answers are not
    read, so that the noise is met by whoever learns other labels than the owner knows of.

    As in the authors' code, generators are residual networks of two reductions, six blocks and two enlargements, whose
    output is clipped to the ball; they are trained by Adam for 50 passes over all pictures, with a learning rate that
    falls from 1e-4 by half a cosine, K is 10, and noise is made at 224 x 224 pixels, and enlarged or reduced to a
    picture's size by its nearest pixels. The published radius is 16/255; ours is the budget's.

    Adapted: F is the mean over image tokens of what the projector gives, see `defenses.features`, where the authors
    have the input of a classifier's last layer. Clusters are those of the first surrogate; of several, each has its own
    centres of them, and losses are added up. Pictures are shifted by up to a fourteenth of their sides under the noise,
    and other than the authors' not mirrored. A grey picture gets the mean of the noise's colours. Batches have 32
    pictures instead of 256, and a copy of a picture is in its cluster. What is kept for other pictures (`reuse`) is the
    noise of each generator, which has a single input, and the centres of the first surrogate: another picture gets the
    noise of the nearest one.

    Budget: L∞ on pictures.
    """

    needs = frozenset({"seed", "surrogates"})
    packages = ("scipy",)

    class Config(GeneratorConfig):
        clusters: int = setting(10, dry_run=3, ge=2, description="K, clusters of pictures; 10 is the paper's")
        epochs: int = setting(
            50, dry_run=2, ge=1, description="passes of each generator over all pictures; 50 is the paper's"
        )
        learning_rate: float = setting(1e-4, dry_run=1e-2, gt=0, description="of the generators (Adam), at first")
        side: int = setting(
            224, dry_run=16, ge=8, description="pixels a side of the noise, a multiple of 4", multiple_of=4
        )
        width: int = setting(
            64, dry_run=4, ge=1, description="channels of a generator's first layer; 64 is the authors'"
        )
        batch_size: int = setting(32, dry_run=8, ge=1, description="pictures per step")

    config: Config

    def effort(self, samples: int, budget: Budget) -> Effort:
        """Features of all pictures, and the training of every generator, as if the language model ran too."""
        c = self.config
        return Effort(forwards=1, gradients=0 if c.reuse else c.clusters * c.epochs)

    def perturb(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Pixels]:
        surrogates = self._surrogates(world)
        clusters = self._clusters(samples, surrogates, world.seed)
        noise = (
            self._trained(samples, surrogates, clusters, world)
            if self.config.reuse is None
            else self._kept(clusters, world)
        )

        return (
            to_pixels(s.image, under(planes(s.image), noise[kind]))
            for s, kind in zip(samples, clusters.of_sample, strict=True)
        )

    def _trained(
        self, samples: Sequence[Sample], surrogates: Sequence[Seeing], clusters: Clusters, world: DefenderWorld
    ) -> Tensor:
        """The noise of each cluster, ``(K, 3, side, side)``; it is kept for other pictures."""
        c, epsilon, generator = self.config, world.budget.epsilon, world.torch_generator()
        torch.manual_seed(world.seed)
        made = []
        for kind in range(clusters.count):
            seen = torch.rand(1, 3, c.side, c.side, generator=generator).to(surrogates[0].lvlm.device)
            network = residual_network(c.width).to(seen.device)
            self._train(network, seen, clusters, (kind + 1) % clusters.count, samples, surrogates, epsilon, generator)
            with torch.no_grad():
                made.append(network(seen)[0].clamp(-epsilon, epsilon).cpu())
            world.progress((kind + 1) / clusters.count)
        noise = torch.stack(made)
        trained.keep(world.workspace, {"noise": noise, "centres": clusters.centres[0]})
        return noise

    def _kept(self, clusters: Clusters, world: DefenderWorld) -> Tensor:
        """The noise of an earlier protection. Raises `ArenaError` where it is beyond the budget."""
        assert self.config.reuse is not None
        side, folder = self.config.side, Path(self.config.reuse)
        noise = trained.read(folder, {"noise": (clusters.count, 3, side, side)})["noise"]
        if float(noise.abs().max()) > world.budget.epsilon * (1 + 1e-6):
            most = float(noise.abs().max()) * 255
            raise ArenaError(
                f"uc: the noise in {folder} reaches {most:.3g}/255, beyond the budget of {world.budget.image:g}/255: "
                "give it the budget it was made for, or protect anew"
            )
        return noise

    def distinguished(self, samples: Sequence[Sample], released: Sequence[Sample], world: DefenderWorld) -> str | None:
        """Features are nearer to the centre of the next cluster than on the original pictures, and than with random
        signs of the same noise; the loss is the divergence from it."""
        surrogates = self._surrogates(world)
        clusters = self._clusters(samples, surrogates, world.seed)
        aims = [(kind + 1) % clusters.count for kind in clusters.of_sample]

        def aimed(number: int, one: Seeing) -> LVLM:
            def losses(batch: Batch, numbers: Sequence[int]) -> Tensor:
                return divergence(one.mean(batch), clusters.centres[number][[aims[i] for i in numbers]])

            return by_other_losses(one.lvlm, samples, losses, self.config.batch_size).lvlm

        models = [aimed(number, one) for number, one in enumerate(surrogates[: len(clusters.centres)])]
        return noise_lowers_the_loss(samples, released, world, samples, models)

    def _surrogates(self, world: DefenderWorld) -> list[Seeing]:
        found = [Seeing(lvlm) for lvlm in world.surrogates()]
        for one in found:
            one.lvlm.model.requires_grad_(False)
        return found

    @torch.no_grad()
    def _clusters(self, samples: Sequence[Sample], surrogates: Sequence[Seeing], seed: int) -> Clusters:
        """Clusters of the pictures by k-means on the features of the first surrogate, or those of the centres that are
        reused. Raises `ArenaError` where there are not two."""
        sharing = shared(samples, self.config.copies == "near")
        parts = [
            pieces([sharing.first[i] for i in part], samples)
            for part in batches(len(sharing.first), self.config.batch_size)
        ]
        rows = [
            torch.cat([one.pictures([planes(samples[i].image) for i in p]).cpu() for part in parts for p in part])
            for one in (surrogates if self.config.reuse is None else surrogates[:1])
        ]
        if self.config.reuse is not None:
            kept = trained.read(Path(self.config.reuse), {"centres": (None, rows[0].shape[1])})["centres"]
            nearest = torch.cdist(rows[0], kept).argmin(1).tolist()
            of_sample = [nearest[d] for d in sharing.of_sample]
            return Clusters(len(kept), of_sample, list(sharing.first), [kept.to(surrogates[0].lvlm.device)])
        labels = k_means(rows[0].numpy(), self.config.clusters, seed)
        count = int(labels.max()) + 1
        if count < 2:
            raise ArenaError(
                "uc: all pictures look alike to the surrogate, so there is no other cluster to aim at; protect more"
            )
        centres = [
            torch.stack([own[torch.from_numpy(labels == kind)].mean(0) for kind in range(count)]).to(one.lvlm.device)
            for own, one in zip(rows, surrogates, strict=True)
        ]
        of_sample = [int(labels[d]) for d in sharing.of_sample]
        return Clusters(count, of_sample, list(sharing.first), centres)

    def _train(
        self,
        network: nn.Module,
        seen: Tensor,
        clusters: Clusters,
        aim: int,
        samples: Sequence[Sample],
        surrogates: Sequence[Seeing],
        epsilon: float,
        generator: torch.Generator,
    ) -> None:
        """Train the generator of a noise that leads all pictures to the centre number `aim`."""
        c = self.config
        parts = batches(len(clusters.pictures), c.batch_size)
        optimizer = torch.optim.Adam(network.parameters(), c.learning_rate, weight_decay=WEIGHT_DECAY)
        rates = torch.optim.lr_scheduler.CosineAnnealingLR(
            optimizer, c.epochs * len(parts), min(LAST_RATE, c.learning_rate)
        )
        for part in [part for _ in range(c.epochs) for part in parts]:
            optimizer.zero_grad()
            for piece in pieces([clusters.pictures[i] for i in part], samples):
                noise = network(seen)[0].clamp(-epsilon, epsilon)
                images = [under(shifted(planes(samples[i].image), SHIFT, generator), noise) for i in piece]
                losses = [
                    divergence(one.pictures(images), centres[[aim] * len(piece)]).to(noise.device)
                    for one, centres in zip(surrogates, clusters.centres, strict=True)
                ]
                loss = torch.stack(losses).sum() / len(part)
                check_finite("the divergence of features from a cluster", [loss])
                loss.backward()
            optimizer.step()
            rates.step()


@dataclass(frozen=True)
class Clusters:
    """Of each sample the number of its cluster; of each different picture the number of the first sample with it; of
    each surrogate the clusters' centres, ``(count, d)``."""

    count: int
    of_sample: list[int]
    pictures: list[int]
    centres: list[Tensor]


@dataclass(frozen=True)
class Seeing:
    """A surrogate, and how many features its pictures have."""

    lvlm: LVLM
    tokens: dict[tuple[int, int], int] = field(default_factory=dict)

    def mean(self, batch: Batch) -> Tensor:
        """The mean features of a batch's pictures, ``(B, d)``."""
        return mean_features(self.lvlm, batch, self.tokens)

    def pictures(self, images: Sequence[Tensor]) -> Tensor:
        """The mean features of pictures, float planes in [0, 1], without any text."""
        shown = [as_rgb(x).to(self.lvlm.device) for x in images]
        return self.mean(self.lvlm.encode([PLAIN] * len(shown), shown))


def k_means(rows: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Cluster numbers, int ``(n,)``, of rows ``(n, d)`` in at most so many clusters, none of them empty.

    Of `STARTS` starts (k-means++) the one of the least squared distances from centres.
    """
    count, rng = min(count, len(np.unique(rows, axis=0))), np.random.default_rng(seed)
    best, least = np.zeros(len(rows), int), np.inf
    for _ in range(STARTS if count > 1 else 0):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an empty cluster, which is left out
            _, labels = kmeans2(rows, count, iter=ITERATIONS, minit="++", rng=rng)
        labels = np.unique(labels, return_inverse=True)[1]
        centres = np.stack([rows[labels == kind].mean(0) for kind in range(int(labels.max()) + 1)])
        spread = float(np.square(rows - centres[labels]).sum())
        if spread < least:
            best, least = labels, spread
    return np.asarray(best)


def divergence(found: Tensor, wanted: Tensor) -> Tensor:
    """KL(softmax of what is wanted || softmax of what is found), ``(B,)``, of features ``(B, d)``."""
    return F.kl_div(found.log_softmax(-1), wanted.softmax(-1), reduction="none").sum(1)


def residual_network(width: int) -> nn.Sequential:
    """The generator, from ``(1, 3, side, side)`` to the same in [-1, 1]; normalised by the batch that it sees."""

    def normal(channels: int) -> nn.Module:
        return nn.BatchNorm2d(channels, track_running_stats=False)

    def wide(before: int, after: int, bias: bool) -> nn.Module:
        return nn.Conv2d(before, after, 7, padding=3, padding_mode="reflect", bias=bias)

    layers: list[nn.Module] = [wide(3, width, False), normal(width), nn.ReLU()]
    for channels in (width, 2 * width):
        half = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1, bias=False)
        layers += [half, normal(2 * channels), nn.ReLU()]
    layers += [Block(4 * width, normal) for _ in range(6)]
    for channels in (4 * width, 2 * width):
        double = nn.ConvTranspose2d(channels, channels // 2, 3, stride=2, padding=1, output_padding=1, bias=False)
        layers += [double, normal(channels // 2), nn.ReLU()]
    return nn.Sequential(*layers, wide(width, 3, True), nn.Tanh())


class Block(nn.Module):
    """A residual block of two convolutions."""

    def __init__(self, channels: int, normal: Callable[[int], nn.Module]) -> None:
        super().__init__()
        first, second = (
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect", bias=False) for _ in range(2)
        )
        self.layers = nn.Sequential(first, normal(channels), nn.ReLU(), second, normal(channels))

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = x + self.layers(x)
        return added
