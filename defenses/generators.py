"""Networks that make noise in one pass: how their noise is put on pictures, and how they are kept for other data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from arena.data import trained


def fitting(noise: Tensor, clean: Tensor) -> Tensor:
    """Noise ``(3, side, side)`` at the size of a picture ``(1 or 3, H, W)``, nearest pixels; of grey the mean."""
    sized = F.interpolate(noise[None], clean.shape[-2:])[0]
    return sized if len(clean) == 3 else sized.mean(0, keepdim=True)


def keep(workspace: Path | None, network: nn.Module, other: Mapping[str, Tensor]) -> None:
    """Leave a network, and other tensors by name, in a workspace for later, where there is one."""
    trained.keep(workspace, {**_weights(network), **other})


def read(folder: Path, network: nn.Module, other: Mapping[str, tuple[int | None, ...]]) -> dict[str, Tensor]:
    """Give a network the weights that `keep` left in `folder`; returns the other tensors, of these shapes, on the CPU.

    Raises `UsageError` where there are none, `ArenaError` where they are of another network.
    """
    own = {name: tuple(weights.shape) for name, weights in _weights(network).items()}
    found = trained.read(folder, {**own, **other})
    network.load_state_dict({name: found[name] for name in own}, strict=False)
    return {name: found[name] for name in other}


def _weights(network: nn.Module) -> dict[str, Tensor]:
    """The floating-point state of a network: all but the counts of batches that normalisation keeps."""
    return {name: weights for name, weights in network.state_dict().items() if weights.is_floating_point()}
