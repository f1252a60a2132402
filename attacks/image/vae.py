"""Purification by a rate-limited autoencoder, after D-VAE (Yu 2024, arXiv 2405.01460).

Little rate carries what is common to pictures, and a perturbation that fine-tuning picks up is told by the class. So an
autoencoder is fitted on the release itself, in two stages:

1. at a low rate, with an auxiliary decoder that sees the latent and an embedding of the sample's class and predicts
   what the reconstruction leaves out; its prediction is subtracted from the pictures;
2. anew, on these pictures and at a higher rate; its reconstructions are the result.

What is kept of the paper is this course. Not the paper's, or not its public code's, are:

* the network: some 0.1 M weights around a cosine transform of 4 x 4 blocks, instead of a residual network;
* the limits of the rate, in nats a pixel instead of nats a place of the latent (1 and 3 there), and what is above them
  costing as much in both stages;
* the length of training: 250 steps of 16 crops a stage, instead of 60 epochs;
* the class, which is the sample's answer, or a cluster of answers where there are more than 64;
* the auxiliary decoder being trained beside the autoencoder, without a gradient into it, and without a penalty on the
  size of what it predicts;
* the end: the second stage's reconstructions are the result, whereas the authors subtract the prediction of its
  auxiliary decoder too, and reconstruct what is left.

The paper's separation is not reproduced on the embedded scenes: what the auxiliary decoder predicts hardly correlates
with the perturbation, so what acts is the limit of the rate. It reduces noise without a pattern more than class-wise
patches, which a low rate reproduces; `leaderboards/findings` has what it gives back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from PIL import Image
from pydantic import Field

from arena.data.sample import Sample
from arena.plugins.base import Attack, AttackerWorld, PluginConfig, setting
from attacks.image.colour import repaint
from attacks.image.rate_limited import fit, padded
from defenses.classes import answer_classes


class Vae(Attack):
    """Pictures as a rate-limited autoencoder reconstructs them that was fitted on the release itself.

    Uses the released answers as classes. Fitting takes the same time for few pictures as for many; it sees crops of at
    most 64 x 64 pixels. Pictures are reconstructed whole and one by one.
    """

    needs = frozenset({"seed"})
    packages = ("numpy", "scikit-learn", "scipy")

    class Config(PluginConfig):
        low_rate: float = Field(
            0.3, gt=0, description="most nats a pixel of the first stage, after which is subtracted"
        )
        high_rate: float = Field(1.0, gt=0, description="most nats a pixel of the second stage, which reconstructs")
        steps: int = Field(250, ge=2, description="training steps of each stage, of 16 crops")
        device: str = setting("cpu", runtime=True, description="torch device, such as cpu or cuda:0")

    config: Config

    def purify(self, samples: Sequence[Sample], world: AttackerWorld) -> Iterable[Sample]:
        classes = answer_classes(samples, world.seed)
        images = [s.image for s in samples]
        subtracted = list(self._subtracted(images, classes, world.seed))
        reconstructed = self._reconstructed(subtracted, classes, world.seed)
        return (s.with_content(image, s.question) for s, image in zip(samples, reconstructed, strict=True))

    @torch.no_grad()
    def _subtracted(self, images: Sequence[Image.Image], classes: np.ndarray, seed: int) -> Iterator[Image.Image]:
        """The pictures less what the first stage's auxiliary decoder predicts."""
        c = self.config
        model = fit(images, classes, c.low_rate, c.steps, seed, c.device)
        for image, label in zip(images, torch.from_numpy(classes), strict=True):
            x = padded(image).to(c.device)
            residual = model.residual(model.latent(x)[0], label[None].to(c.device))
            yield repaint(image, (x - residual)[0, :, : image.height, : image.width])

    @torch.no_grad()
    def _reconstructed(self, images: Sequence[Image.Image], classes: np.ndarray, seed: int) -> Iterator[Image.Image]:
        """What the second stage makes of the mean of each picture's latent."""
        c = self.config
        model = fit(images, classes, c.high_rate, c.steps, seed + 1, c.device)
        for image in images:
            x = model.reconstruction(model.latent(padded(image).to(c.device))[0])
            yield repaint(image, x[0, :, : image.height, : image.width])
