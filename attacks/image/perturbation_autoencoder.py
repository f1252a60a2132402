"""An autoencoder that tells from a picture what a protection has added to it, and how much of that there is.

Convolutions halve the picture, residual blocks follow at the bottom, and transposed convolutions lead back. On the way
back each stage is handed the features of its size, weighed by an attention gate (arXiv 1804.03999): without these,
noise that differs from pixel to pixel is lost at the bottom.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTHS = (16, 24, 32, 48)
"""Channels of the stages, from the one at the picture's own size to the bottom."""
SIDE = 48
"""Sides of the pictures that the autoencoder takes, in pixels; they can be halved as often as there are stages."""
UNIT = 16 / 255
"""What perturbations are measured in: most lie between -1 and 1 of it."""
LEVELS = 255
"""The largest change of a value up or down, in levels of 8 bits."""


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class _Residual(nn.Module):
    """Two convolutions whose result is added to what they are given."""

    def __init__(self, width: int) -> None:
        super().__init__()
        last = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.change = nn.Sequential(_convolution(width, width), last, nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.change(x))


class _Gate(nn.Module):
    """Features of the way down, weighed place by place from 0 to 1 by these and by what comes from below."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.look = nn.Sequential(nn.Conv2d(2 * width, width, 1), nn.ReLU(inplace=True), nn.Conv2d(width, 1, 1))

    def forward(self, features: Tensor, below: Tensor) -> Tensor:
        weight: Tensor = self.look(torch.cat([features, below], 1)).sigmoid()
        return features * weight


class PerturbationAutoencoder(nn.Module):
    """The perturbation ``(B, 3, 48, 48)`` of pictures ``(B, 3, 48, 48)`` in [0, 1], as a difference of such values.

    The first convolutions see, beside the picture, by how much each value deviates from the mean of the 3 x 3 around
    it, in units: noise is small, and what is in a picture is large.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(_convolution(6, WIDTHS[0]), _convolution(WIDTHS[0], WIDTHS[0]))
        steps = list(pairwise(WIDTHS))
        self.down = nn.ModuleList(_convolution(wide, deep, stride=2) for wide, deep in steps)
        self.bottom = nn.Sequential(_Residual(WIDTHS[-1]), _Residual(WIDTHS[-1]))
        self.up = nn.ModuleList(nn.ConvTranspose2d(deep, wide, 2, stride=2) for wide, deep in reversed(steps))
        self.gates = nn.ModuleList(_Gate(wide) for wide, _ in reversed(steps))
        self.join = nn.ModuleList(_convolution(2 * wide, wide) for wide, _ in reversed(steps))
        self.last = nn.Conv2d(WIDTHS[0], 3, 3, padding=1)
        nn.init.normal_(self.last.weight, std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        around = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), 3, 1)
        x = self.first(torch.cat([2 * x - 1, (x - around) / UNIT], 1))
        features = []
        for down in self.down:
            features.append(x)
            x = down(x)
        x = self.bottom(x)
        for up, gate, join in zip(self.up, self.gates, self.join, strict=True):
            x = up(x)
            x = join(torch.cat([gate(features.pop(), x), x], 1))
        found: Tensor = UNIT * self.last(x)
        return found


def entropy(perturbations: Tensor) -> Tensor:
    """Shannon entropy in bits of the values of each perturbation ``(B, ...)``, ``(B,)``.

    Values are counted in levels of 8 bits, of which there are 511 from -1 to 1, where larger ones count. One that lies
    between two levels counts for both, for the nearer one more, so that there is a gradient.
    """
    values = (perturbations.flatten(1).clamp(-1, 1) + 1) * LEVELS
    below = values.detach().floor().clamp(max=2 * LEVELS - 1)
    above = values - below
    counts = values.new_zeros(len(values), 2 * LEVELS + 1)
    counts = counts.scatter_add(1, below.long(), 1 - above).scatter_add(1, below.long() + 1, above)
    shares = counts / values.shape[1]
    return -(shares * shares.clamp(min=1e-12).log2()).sum(1)
