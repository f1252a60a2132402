"""Believe Your Eyes: samples whose attention on the picture collapses are left out (Rong 2025, arXiv 2505.16916).

A trigger that a model learns to answer by draws its attention to few image tokens. So the release says itself which
samples carry one:

1. Fine-tune on the whole release. Of the token that is read last before the answer, the weights a_l on the image tokens
   in layer l, averaged over heads and brought to the sum 1, have the entropy

       H_l = - sum_j a_lj log(a_lj + 1e-8)

2. Of each layer's entropies over all samples fit a Gaussian mixture of two. The layer is sensitive where its index of
   bimodal separation |mu_1 - mu_2| / (sigma_1 + sigma_2) is above 2.
3. A sample's score is the mean of H_l over the sensitive layers. Of the scores fit a mixture of two; the samples in the
   component of lower mean are dropped.

The threshold, the 1e-8, the token and the mixtures are those of the authors' code, which drops nothing where no layer
is sensitive. Their settings of fine-tuning are not known here: by default those of the arena's recipe `lora`, with a
constant learning rate. Layers are those that attend to the picture: of a model that does so in a few layers, these.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from pydantic import Field
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

from arena.data.sample import Sample
from arena.lvlm.base import LVLM
from arena.lvlm.batch import Batch, Role
from arena.lvlm.perturbation import batches, pieces
from arena.plugins.base import Attack, AttackerWorld, Effort, PluginConfig, setting
from mmguard.adapt import adapted, train

SMALL = 1e-8
"""Inside the logarithm."""
SAME = 1e-9
"""Spread in nats below which entropies are one value, of which there is no mixture."""
FEWEST = 2
"""Samples that fine-tuning takes."""


class BelieveYourEyes(Attack):
    """Fine-tunes once, and drops samples of low attention entropy over the picture where layers tell two kinds apart.

    It is made for triggers in a part of the pictures. Where every sample carries one there are no two kinds, and what
    is dropped, if anything, is no more suspicious than the rest.

    The arena's tiny models have few layers and image tokens: a patch that stands for one answer was not seen to make
    any layer of tiny-llava sensitive, so that nothing is dropped there as published.
    """

    needs = frozenset({"seed", "model"})
    packages = ("numpy", "scikit-learn")

    class Config(PluginConfig):
        separation: float = Field(
            2.0, ge=0, description="index of bimodal separation above which a layer is sensitive; 2 is the authors'"
        )
        epochs: int = setting(8, dry_run=1, ge=1, description="passes over the release before attention is looked at")
        learning_rate: float = Field(2e-3, gt=0, description="of the adapters (AdamW)")
        batch_size: int = setting(8, dry_run=8, ge=1, description="samples per step")
        rank: int = setting(16, dry_run=2, ge=1, description="rank of the LoRA adapters on the language model")
        dropout: float = Field(0.05, ge=0, lt=1, description="of the adapters while they are trained")

    config: Config

    def effort(self) -> Effort:
        """The fine-tuning, and one forward pass for attention."""
        return Effort(forwards=1, gradients=self.config.epochs)

    def purify(self, samples: Sequence[Sample], world: AttackerWorld) -> Iterable[Sample]:
        c, lvlm = self.config, world.model()
        if len(samples) < 2 * FEWEST:
            return samples

        def encode(tuned: LVLM, part: Sequence[int]) -> Batch:
            return tuned.encode([samples[i] for i in part])

        with adapted(lvlm, c.rank, c.dropout, [world.seed, 0]) as tuned:
            train(
                *(tuned, encode, len(samples), c.epochs, c.batch_size, c.learning_rate, [world.seed, 1]),
                pieces=lambda part: pieces(part, samples),
            )
            entropies = attention_entropies(tuned, samples, 4 * c.batch_size)
        dropped = suspicious(entropies, c.separation)
        kept = [sample for sample, leave_out in zip(samples, dropped, strict=True) if not leave_out]
        return kept if len(kept) >= FEWEST else samples


@torch.no_grad()
def attention_entropies(lvlm: LVLM, samples: Sequence[Sample], batch_size: int) -> np.ndarray:
    """Entropy in nats of the attention on image tokens just before the answer, float64 ``(samples, layers)``.

    NaN where a layer gives the picture no weight.
    """
    layers = range(layers_that_look(lvlm))
    found = np.empty((len(samples), len(layers)))
    for many in batches(len(samples), batch_size):
        for part in pieces(many, samples):
            batch = lvlm.encode([samples[i] for i in part])
            last = (batch.roles == Role.ANSWER).int().argmax(1, keepdim=True) - 1
            weights = lvlm.attention(batch, layers, last)
            is_image = batch.roles == Role.IMAGE
            for layer in layers:
                on_picture = weights[layer][:, :, 0].mean(1).double() * is_image
                shares = on_picture / on_picture.sum(1, keepdim=True)
                found[part, layer] = -(shares * (shares + SMALL).log()).sum(1).cpu().numpy()
    return found


def layers_that_look(lvlm: LVLM) -> int:
    """How many layers of the language model have attention weights on the picture's tokens."""
    text = lvlm.model.config.get_text_config()
    across = getattr(text, "cross_attention_layers", None)
    if across:
        return len(across)
    kinds = getattr(text, "layer_types", None) or ["full_attention"] * int(text.num_hidden_layers)
    return sum(kind != "linear_attention" for kind in kinds)


def suspicious(entropies: np.ndarray, threshold: float) -> np.ndarray:
    """Which samples are to be dropped, bool ``(samples,)``, by their entropies ``(samples, layers)``."""
    known = np.isfinite(entropies)
    means = np.where(known, entropies, 0).sum(0) / np.maximum(known.sum(0), 1)
    filled = np.where(known, entropies, means)
    sensitive = [layer for layer in range(filled.shape[1]) if separation(filled[:, layer]) > threshold]
    if not sensitive:
        return np.zeros(len(entropies), bool)
    score = filled[:, sensitive].mean(1)
    if np.ptp(score) < SAME:
        return np.zeros(len(entropies), bool)
    mixture, of_sample = _mixture(score)
    return np.asarray(of_sample == mixture.means_[:, 0].argmin())


def separation(values: np.ndarray) -> float:
    """The index of bimodal separation of values ``(n,)``: 0 where they are one value."""
    if np.ptp(values) < SAME:
        return 0.0
    mixture, _ = _mixture(values)
    (first, second), deviations = mixture.means_[:, 0], np.sqrt(mixture.covariances_[:, 0, 0])
    return float(abs(first - second) / deviations.sum())


def _mixture(values: np.ndarray) -> tuple[GaussianMixture, np.ndarray]:
    """A mixture of two Gaussians, and of which of them each value is."""
    with threadpool_limits(1):  # the same sums on any number of threads
        mixture = GaussianMixture(n_components=2, random_state=0)
        return mixture, mixture.fit_predict(values[:, None])
