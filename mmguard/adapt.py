"""The inner problem of Algorithm 1: a surrogate with fresh LoRA adapters, trained on the current protected samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from arena.lvlm.adapters import attach_lora, detach_lora, linear_modules, trainable
from arena.lvlm.base import LVLM
from arena.lvlm.batch import Batch
from arena.lvlm.perturbation import batches, check_finite

Encode = Callable[[LVLM, Sequence[int]], Batch]
"""The protected samples at some indices as a batch of a surrogate."""


@contextmanager
def adapted(lvlm: LVLM, rank: int, dropout: float, seed: Sequence[int]) -> Iterator[LVLM]:
    """Fresh adapters on all attention and MLP projections of the language model, discarded after the block."""
    with torch.random.fork_rng():
        torch.manual_seed(int(np.random.default_rng(seed).integers(2**31)))
        tuned = attach_lora(lvlm, rank, 2 * rank, dropout, linear_modules(lvlm, lvlm.language_model))
    try:
        yield tuned
    finally:
        detach_lora(tuned)


def train(
    lvlm: LVLM,
    encode: Encode,
    size: int,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: Sequence[int],
    pieces: Callable[[Sequence[int]], Sequence[Sequence[int]]] = lambda part: [part],
) -> list[float]:
    """Q = `steps` inner steps; returns the mean training loss of each.

    A step is one pass over the protected samples in shuffled minibatches: the reading under which Algorithm 1 costs
    what the paper says, O(R n M (Q + 1)). Afterwards the model is in evaluation mode and nothing of it is trainable.
    A minibatch runs in the `pieces` that it is given, whose gradients are added up by their share of the samples.
    Raises `ArenaError` where the loss is no number.
    """
    rng = np.random.default_rng(seed)
    parameters = list(trainable(lvlm).values())
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0)
    means = []
    lvlm.model.train()
    with torch.random.fork_rng():
        torch.manual_seed(int(rng.integers(2**31)))
        for _ in range(steps):
            order, total = rng.permutation(size), 0.0
            for part in batches(size, batch_size):
                optimizer.zero_grad(set_to_none=True)
                for piece in pieces([int(order[i]) for i in part]):
                    loss = lvlm.loss(encode(lvlm, piece))
                    check_finite("the surrogate's loss", [loss])
                    (loss if len(piece) == len(part) else loss * (len(piece) / len(part))).backward()
                    total += loss.item() * len(piece)
                optimizer.step()
            means.append(total / size)
    lvlm.model.eval()
    for parameter in parameters:
        parameter.requires_grad_(False)
    return means
