"""Networks that make noise in one pass: how their noise is put on pictures, and how they are kept for other data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arena.data import trained
from arena.data.sample import Sample
from arena.lvlm.perturbation import as_rgb, batches, planes
from arena.plugins.base import ImageDefense, PluginConfig, setting
from defenses.claims import changes, free


class GeneratorConfig(PluginConfig):
    """What all defenses are asked that train noise, or a network that makes it, which serves other data too."""

    copies: Literal["exact", "near"] = setting(
        "exact",
        later=True,
        description="which samples have one picture, and one noise: of equal pixels, or also near copies of one size",
    )
    reuse: str | None = setting(
        None,
        runtime=True,
        min_length=1,
        description="folder `trained` of an earlier protection, whose noise or generator serves these data; else it is "
        "trained on them",
    )


class Generated(ImageDefense):
    """A defense that keeps what it trains, for other data (`reuse`)."""

    config: GeneratorConfig

    def fingerprint(self) -> str | None:
        """What identifies what is reused. Raises `UsageError` where the folder has nothing."""
        return None if self.config.reuse is None else trained.fingerprint(Path(self.config.reuse))


def fitting(noise: Tensor, clean: Tensor) -> Tensor:
    """Noise ``(3, side, side)`` at the size of a picture ``(1 or 3, H, W)``, nearest pixels; of grey the mean."""
    sized = F.interpolate(noise[None], clean.shape[-2:])[0]
    return sized if len(clean) == 3 else sized.mean(0, keepdim=True)


def under(clean: Tensor, noise: Tensor) -> Tensor:
    """A picture ``(1 or 3, H, W)`` in [0, 1] under noise ``(3, h, w)`` of any size, on the noise's device."""
    shown = clean.to(noise.device)
    return (shown + fitting(noise, shown)).clamp(0, 1)


def seen(samples: Sequence[Sample], side: int) -> Tensor:
    """What a generator sees of pictures, float ``(B, 3, side, side)`` in [0, 1]."""
    size = (side, side)
    return torch.cat(
        [F.interpolate(as_rgb(planes(s.image))[None], size, mode="bilinear", antialias=True) for s in samples]
    )


@torch.no_grad()
def class_means(
    network: nn.Module, samples: Sequence[Sample], classes: np.ndarray, side: int, batch_size: int
) -> Tensor:
    """The mean over the pictures of each class of what a generator makes of them, float ``(K, 3, side, side)`` on the
    CPU; normalisation is by what it knows from training."""
    network.eval()
    device = next(network.parameters()).device
    total = torch.zeros(int(classes.max()) + 1, 3, side, side)
    for part in batches(len(samples), batch_size):
        made = network(seen([samples[i] for i in part], side).to(device)).cpu()
        total.index_add_(0, torch.from_numpy(classes[list(part)]), made)
    return total / torch.from_numpy(np.bincount(classes)).view(-1, 1, 1, 1)


def batch_means(made: Tensor, of_sample: np.ndarray, kinds: Sequence[int]) -> Tensor:
    """The mean of what was made of the pictures of each of these classes, ``(len(kinds), ...)``, with gradient."""
    return torch.stack([made[torch.from_numpy(of_sample == kind).to(made.device)].mean(0) for kind in kinds])


def apart(samples: Sequence[Sample], released: Sequence[Sample], groups: Sequence[object]) -> str | None:
    """None where pictures of one group and size change the same way, to a level, wherever no value is cut off; else
    which do not."""
    first: dict[object, int] = {}
    found = changes(samples, released)
    whole = [free(s, int(np.abs(delta).max(initial=0))) for s, delta in zip(samples, found, strict=True)]
    for i, (group, delta) in enumerate(zip(groups, found, strict=True)):
        j = first.setdefault((group, delta.shape), i)
        most = np.abs(delta - found[j])[whole[i] & whole[j]].max(initial=0)
        if most > 1:
            return f"the changes of {samples[j].id!r} and {samples[i].id!r} are up to {most}/255 apart"
    return None


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
