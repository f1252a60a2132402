"""The model as an attack sees it that looks for the pictures of a training step: nothing is dropped, nothing learns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch.distributed.tensor import DTensor

from arena.lvlm.adapters import fused, trainable
from arena.lvlm.base import LVLM


@contextmanager
def at_rest(lvlm: LVLM) -> Iterator[None]:
    """For the block, the model is in evaluation mode, no weight has a gradient, and adapters are added into weights.

    What is looked for is then the worst for the model, not for one draw of its dropout, and takes none of the random
    numbers of training. Layers that recompute activations to save memory go on doing so.
    """
    modes = [(module, module.training) for module in lvlm.model.modules()]
    learning = [
        p for p in trainable(lvlm).values() if not isinstance(p, DTensor)
    ]  # FSDP keeps its own account of those
    lvlm.model.eval()
    for module, was in modes:
        if getattr(module, "gradient_checkpointing", False):  # which layers of transformers do in training alone
            module.training = was
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        with fused(lvlm):
            yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
        for module, was in modes:
            module.training = was
