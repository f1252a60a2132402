"""T2UE: noise that a network makes of a sample's text alone (Ma 2025, arXiv 2508.03091)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import ceil
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from arena.budget import Budget
from arena.data.copies import Sharing, shared
from arena.data.sample import Sample
from arena.lvlm.base import LVLM
from arena.lvlm.perturbation import as_rgb, batches, check_finite, pieces, planes, to_pixels
from arena.lvlm.tokens import plain_ids
from arena.plugins.base import DefenderWorld, Effort, Pixels, setting
from defenses import generators
from defenses.claims import noise_lowers_the_loss
from defenses.generators import Generated, GeneratorConfig, apart, under
from defenses.perturbations import shuffled

LATENT, FIRST, HIDDEN = 100, 4, 256
"""Random numbers that the generator is given, pixels a side that it begins with, and units of the networks that read
the text; the authors'."""

WEIGHT_DECAY = 1e-4
"""Of AdamW."""


class TextToUnlearnable(Generated):
    """min over G of the mean of CE(f(x + epsilon G(z, e(t))), y), where G is shown the text t and never the picture x.

    A generator makes the noise of a sample of the embedding e(t) of its text and of random numbers z. It is trained
    once through a frozen model f, pictures and texts together; from then on an owner needs nothing but the text of a
    picture for its noise, in one pass (`reuse`), and whoever makes the noise for them is shown no picture. It is the
    generator of SSA-GAN: z becomes a map of 4 x 4 pixels, blocks of two convolutions follow, each at twice the side of
    the one before, and every normalisation in them takes its scale and shift from two small networks that read e(t).
    The last layer is a tanh, and the radius times it is the noise; the authors' script has that too, and uses another
    that cuts off what is beyond the radius. As published, f and e are pretrained and frozen, the optimiser is Adam with
    decoupled weight decay, the learning rate falls by half a cosine, and the radius is 8/255. As in the authors' code,
    z is drawn anew in training and no longer afterwards, and noise is fitted to a picture by its nearest pixels.

    Adapted: the published loss is the contrastive one (InfoNCE) of CLIP, of pictures under noise and their texts. A
    model that answers has none, and the loss is that of the answer's tokens. There is no encoder of texts either: e(t)
    is the mean of what the language model of the first surrogate, without a picture, makes of the answer's tokens after
    the question. So noise is made of the question and the answer. A picture with several texts has the mean of their
    embeddings, and one noise. All that is released is made of one z, where the authors' script keeps one for each place
    in a batch. Of several surrogates the losses are added up. The paper's blocks are 7, up to 256 x 256 pixels, of 512
    channels at first, trained for 500 passes over MSCOCO in batches of 128 at a learning rate of 1e-4, which is for a
    graphics card: here `blocks`, `width`, `epochs`, `batch_size` and `learning_rate` are such that a few hundred small
    pictures take minutes on a processor. SSA-GAN also learns where in the picture the text matters, which the paper's
    formula of the normalisation leaves out, and so do we. The rate of the weight decay is ours.

    Budget: L∞ on pictures.
    """

    needs = frozenset({"seed", "surrogates"})

    class Config(GeneratorConfig):
        epochs: int = setting(
            40, dry_run=6, ge=1, description="passes over all samples; 500 over MSCOCO are the paper's"
        )
        learning_rate: float = Field(1e-2, gt=0, description="of the generator (AdamW), at first; 1e-4 is the paper's")
        blocks: int = setting(
            5,
            dry_run=3,
            ge=3,
            le=9,
            description="blocks of the generator: 5 make noise of 64 pixels a side; 7 is the paper's, of 256",
        )
        width: int = setting(
            8,
            dry_run=4,
            ge=1,
            description="channels of the generator's last block, an eighth of its first; 64 is the paper's",
        )
        batch_size: int = setting(8, ge=1, description="samples per step; 128 is the paper's")

    config: Config

    def effort(self, samples: int, budget: Budget) -> Effort:
        """The embeddings of all texts, and the training of the generator."""
        c = self.config
        return Effort(texts=1, gradients=0 if c.reuse else c.epochs)

    def perturb(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Pixels]:
        c, surrogates = self.config, world.surrogates()
        for lvlm in surrogates:
            lvlm.model.requires_grad_(False)
        sharing = shared(samples, c.copies == "near")
        texts = Texts(samples, sharing, surrogates[0], c.batch_size)
        torch.manual_seed(world.seed)
        network = Generator(texts.size, c.blocks, c.width)
        if c.reuse is None:
            latent = self._train(network, texts, samples, sharing, surrogates, world)
            generators.keep(world.workspace, network, {"latent": latent})
        else:
            latent = generators.read(Path(c.reuse), network, {"latent": (LATENT,)})["latent"]
        network.to(surrogates[0].device).eval()
        return (
            to_pixels(s.image, under(planes(s.image), made))
            for s, number in zip(samples, sharing.of_sample, strict=True)
            for made in self._released(network, texts, number, latent, world.budget.epsilon)
        )

    def _train(
        self,
        network: Generator,
        texts: Texts,
        samples: Sequence[Sample],
        sharing: Sharing,
        surrogates: Sequence[LVLM],
        world: DefenderWorld,
    ) -> Tensor:
        """Train the generator; returns the random numbers that all released noise is made of, ``(LATENT,)``."""
        c, epsilon, generator = self.config, world.budget.epsilon, world.torch_generator()
        device = surrogates[0].device
        network.to(device).train()
        optimizer = torch.optim.AdamW(network.parameters(), c.learning_rate, weight_decay=WEIGHT_DECAY)
        steps = ceil(len(samples) / c.batch_size)
        rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, c.epochs * steps)
        order = shuffled(len(samples), c.batch_size, world.rng())
        for epoch in range(c.epochs):
            total = 0.0
            for part in (next(order) for _ in range(steps)):
                numbers = sorted({sharing.of_sample[i] for i in part})
                latents = torch.randn(len(numbers), LATENT, generator=generator)
                made = epsilon * network(latents.to(device), texts[numbers].to(device))
                # The noise of the batch is made once, and its gradient comes from pieces of the batch.
                noise = made.detach().requires_grad_()
                places = {number: place for place, number in enumerate(numbers)}
                for piece in pieces(part, samples):
                    images = [under(planes(samples[i].image), noise[places[sharing.of_sample[i]]]) for i in piece]
                    loss = answer_losses(surrogates, [samples[i] for i in piece], images).sum() / len(part)
                    check_finite("the loss of the surrogates", [loss])
                    loss.backward()
                    total += loss.item() * len(part) / len(samples)
                optimizer.zero_grad()
                made.backward(noise.grad)
                optimizer.step()
                rates.step()
            check_finite("the generator", list(network.parameters()))
            world.progress((epoch + 1) / c.epochs, f"loss {total:.3f}")
        return torch.randn(LATENT, generator=generator)

    @staticmethod
    @torch.no_grad()
    def _released(network: Generator, texts: Texts, number: int, latent: Tensor, epsilon: float) -> list[Tensor]:
        """The noise of the text of this number, ``(3, side, side)``, alone in a list."""
        device = next(network.parameters()).device
        return list(epsilon * network(latent[None].to(device), texts[[number]].to(device)).cpu())

    def distinguished(self, samples: Sequence[Sample], released: Sequence[Sample], world: DefenderWorld) -> str | None:
        """Pictures of one size with one question and answer change the same way where no value is cut off, whatever is
        on them; and the surrogates' loss is lower than on the originals, and than with random signs of the noise."""
        numbers = shared(samples, self.config.copies == "near").of_sample
        groups = [
            (s.question, s.answer) if numbers.count(number) == 1 else number
            for s, number in zip(samples, numbers, strict=True)
        ]
        failed = apart(samples, released, groups)
        if failed is not None:
            return f"{failed}: both have one question and answer, and noise should be made of these alone"
        return noise_lowers_the_loss(samples, released, world, samples)


class Texts:
    """The mean embedding of the texts of each picture, float ``(pictures, d)``, in a temporary file: memory does not
    grow with the data. Copies of a picture count as the picture."""

    def __init__(self, samples: Sequence[Sample], sharing: Sharing, lvlm: LVLM, batch_size: int) -> None:
        counts = np.bincount(sharing.of_sample)
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - gone with this object
        self._rows: np.memmap[tuple[int, ...], np.dtype[np.float32]] | None = None
        for part in batches(len(samples), batch_size):
            rows = embeddings(lvlm, [samples[i] for i in part]).cpu().numpy()
            if self._rows is None:
                self.size = rows.shape[1]
                self._rows = np.memmap(self._file, np.float32, "w+", shape=(len(counts), self.size))
            for i, row in zip(part, rows, strict=True):
                number = sharing.of_sample[i]
                self._rows[number] += row / counts[number]

    def __getitem__(self, numbers: Sequence[int]) -> Tensor:
        """Of the pictures of these numbers, float ``(n, d)``."""
        assert self._rows is not None
        return torch.from_numpy(np.array(self._rows[list(numbers)]))


@torch.no_grad()
def embeddings(lvlm: LVLM, samples: Sequence[Sample]) -> Tensor:
    """e(t), float32 ``(B, d)``: the mean of the language model's last hidden states at the tokens of the answer, after
    those of the question, divided by the root of its mean square. No picture and no template is read."""
    questions = plain_ids(lvlm.tokenizer, [s.question for s in samples], special=True)
    answers = plain_ids(lvlm.tokenizer, [f" {s.answer}" for s in samples], special=False)
    longest = max(len(q) + len(a) for q, a in zip(questions, answers, strict=True))
    ids = torch.full((len(samples), longest), int(lvlm.tokenizer.pad_token_id or 0))
    known, answered = torch.zeros_like(ids), torch.zeros_like(ids)
    for row, (q, a) in enumerate(zip(questions, answers, strict=True)):
        ids[row, : len(q) + len(a)] = torch.tensor(q + a)
        known[row, : len(q) + len(a)] = 1
        answered[row, len(q) : len(q) + len(a)] = 1
    language = lvlm.module(lvlm.language_model)
    inputs = {"input_ids": ids.to(lvlm.device), "attention_mask": known.to(lvlm.device)}
    hidden = language(**inputs, use_cache=False).last_hidden_state.float()
    weights = answered.to(hidden.device, hidden.dtype)[..., None]
    mean: Tensor = (hidden * weights).sum(1) / weights.sum(1)
    return mean / mean.square().mean(1, keepdim=True).sqrt().clamp(min=1e-6)


def answer_losses(surrogates: Sequence[LVLM], samples: Sequence[Sample], images: Sequence[Tensor]) -> Tensor:
    """Of each sample the loss of its answer, of planes ``(1 or 3, H, W)`` in [0, 1] in the place of its picture, added
    up over surrogates, ``(B,)``, with gradient to the planes."""
    losses = []
    for lvlm in surrogates:
        batch = lvlm.encode(samples, [as_rgb(x).to(lvlm.device) for x in images])
        losses.append(lvlm.forward(batch, answers_only=True).losses.to(surrogates[0].device))
    return torch.stack(losses).sum(0)


class Generator(nn.Module):
    """G, from random numbers ``(B, LATENT)`` and embeddings of texts ``(B, d)`` to ``(B, 3, side, side)`` in [-1, 1]:
    4 pixels a side in the first of the blocks, and twice as many in each that follows."""

    def __init__(self, text: int, blocks: int, width: int) -> None:
        super().__init__()
        channels = [8 * width] * (blocks - 2) + [4 * width, 2 * width, width]
        self.first = nn.Linear(LATENT, channels[0] * FIRST**2)
        self.blocks = nn.ModuleList(TextBlock(before, after, text) for before, after in pairwise(channels))
        self.last = nn.Sequential(
            nn.BatchNorm2d(width), nn.LeakyReLU(0.2), nn.Conv2d(width, 3, 3, padding=1), nn.Tanh()
        )

    def forward(self, latents: Tensor, texts: Tensor) -> Tensor:
        x = self.first(latents).unflatten(1, (-1, FIRST, FIRST))
        for number, block in enumerate(self.blocks):
            x = block(F.interpolate(x, scale_factor=2) if number else x, texts)
        noise: Tensor = self.last(x)
        return noise


class TextBlock(nn.Module):
    """A residual block whose two convolutions each follow a normalisation that the text scales and shifts. At first the
    weight of the residual is zero, as in the authors' code."""

    def __init__(self, before: int, after: int, text: int) -> None:
        super().__init__()
        self.normal = nn.ModuleList(TextNorm(channels, text) for channels in (before, after))
        self.convolution = nn.ModuleList(nn.Conv2d(channels, after, 3, padding=1) for channels in (before, after))
        self.straight = nn.Identity() if before == after else nn.Conv2d(before, after, 1)
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, texts: Tensor) -> Tensor:
        residual = x
        for normal, convolution in zip(self.normal, self.convolution, strict=True):
            residual = convolution(F.relu(normal(residual, texts)))
        found: Tensor = self.straight(x) + self.weight * residual
        return found


class TextNorm(nn.Module):
    """SSCBN: gamma(e) (h - mean) / deviation + beta(e), mean and deviation over batch and pixels; 1 and 0 at first."""

    def __init__(self, channels: int, text: int) -> None:
        super().__init__()
        self.normal = nn.BatchNorm2d(channels, affine=False)
        self.scale, self.shift = (_constant(text, channels, first) for first in (1, 0))

    def forward(self, x: Tensor, texts: Tensor) -> Tensor:
        scale, shift = (network(texts)[..., None, None] for network in (self.scale, self.shift))
        found: Tensor = scale * self.normal(x) + shift
        return found


def _constant(text: int, channels: int, first: float) -> nn.Sequential:
    """A network from ``(B, text)`` to ``(B, channels)`` that gives one value at first, whatever it reads."""
    last = nn.Linear(HIDDEN, channels)
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, first)
    return nn.Sequential(nn.Linear(text, HIDDEN), nn.ReLU(), last)
