"""BridgePure: a diffusion bridge leads protected pictures back to what they were, learned from a few pairs that leaked
(Wang 2024, arXiv 2412.21061; settings from the authors' public code).

The bridge is a denoising diffusion bridge with exploding variance (Zhou 2023, arXiv 2309.16948). Between an original
x_0 and its protected picture x_T, with r = t^2 / T^2,

    x_t = r x_T + (1 - r) x_0 + t sqrt(1 - r) e,    e normal,

a network D(x_t, t, x_T) is trained to give x_0, with the preconditioning and the weights of the authors. From x_T the
way back takes Heun steps on the levels of Karras (2022, arXiv 2206.00364, rho = 7) from T to 0,

    dx/dt = -t ((D - x) / t^2 - w (x_T - x) / (T^2 - t^2)),

with w the guidance, each after a part of the way (churn) on the reverse process that has noise in it.

Adapted are:

* the network: the small one that `diffpure` comes with, without its weights, which also sees x_T; it takes 300 steps of
  8 pairs, where the authors take 100,000 of 256, and the decay of the average of its weights is 0.98, not 0.9999;
* T: 0.1, for pictures in [-1, 1], where perturbations of 8/255 are 0.06, and the authors have 80. Their noise hides the
  picture, which is then painted anew after x_T; the small network learns to correct it instead;
* the variances and the covariance of both ends, which the preconditioning is made of: those of the pairs, where the
  authors have numbers for all data; originals and protected pictures are nearly the same here;
* steps: 8 of Heun's instead of 40, each with two passes of the network;
* crops and mirrored pictures, as in `eclipse`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor, nn

from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.plugins.base import Attack, AttackerWorld, PluginConfig, setting
from attacks.image.colour import on_colours
from attacks.image.eclipse import crop
from attacks.image.tiles import Tiling, padded
from attacks.image.zoo import train_ddpm

BATCH, RATE, AVERAGE = 8, 2e-3, 0.98
"""Pairs and peak learning rate of a training step, and the decay of the average of the weights, which purifies."""
LAST, RHO = 0.002, 7
"""The lowest level but 0, and how much denser levels are near it."""
OVERLAP = 0.25
"""Of the tiles that larger pictures are seen in."""


class BridgePure(Attack):
    """A diffusion bridge from protected pictures to originals, learned from pairs that leaked.

    Needs originals of released samples: a suite grants so many as the attack's `auxiliary` share of them. What was
    learned from these pairs purifies all pictures, those of the pairs too, whose originals the attacker has: what these
    are worth by themselves `mix` and `auxiliary-alone` tell. Training takes the same time for few pairs as for many,
    once for each release; it sees crops of 48 x 48 pixels, and smaller pictures mirrored beyond their borders.
    """

    needs = frozenset({"seed", "originals"})
    packages = ("diffusers", "numpy")
    in_domain = "it learned from originals of released samples"

    class Config(PluginConfig):
        sigma_max: float = Field(0.1, gt=LAST, description="T, the level at the protected end; the authors' is 80")
        steps: int = setting(8, dry_run=2, ge=1, description="Heun steps; 40 are the authors'")
        churn: float = Field(
            0.33, ge=0, lt=1, description="part of each step that has noise in it; the authors' are 0.33 and 0.8"
        )
        guidance: float = Field(
            0.5, ge=0, le=1, description="w, the pull of the protected picture; 0.5 is the authors'"
        )
        training_steps: int = setting(300, dry_run=10, ge=10, description="training steps of the network, of 8 pairs")
        batch_size: int = setting(16, dry_run=8, ge=1, description="tiles that the network sees together in purifying")
        device: str = setting("cpu", runtime=True, description="torch device, such as cpu or cuda:0")

    config: Config

    def purify(self, samples: Sequence[Sample], world: AttackerWorld) -> Iterator[Sample]:
        pairs = paired(world.originals, samples)
        if not pairs:
            raise ArenaError(
                "bridgepure: none of the originals has a released picture of its size: grant a larger share, and "
                "resize pictures after this attack, not before it"
            )
        bridge = fitted(pairs, self.config, world)
        generators = [torch.Generator().manual_seed(int(g.integers(2**63))) for g in world.rng().spawn(len(samples))]
        for number, (sample, generator) in enumerate(zip(samples, generators, strict=True)):
            image = on_colours(sample.image, partial(self._purified, bridge, generator))
            world.progress((number + 1) / len(samples), "")
            yield sample.with_content(image, sample.question)

    def _purified(self, bridge: Bridge, generator: torch.Generator, image: Image.Image) -> Image.Image:
        c, side = self.config, bridge.side
        frame, place = padded(np.asarray(image.convert("RGB")), (side, side))
        tiling = Tiling((frame.shape[0], frame.shape[1]), (side, side), OVERLAP)
        x = bridge.crossed(train_ddpm.as_tensor(frame[None]).to(c.device), tiling, c, generator)
        levels = ((x[0] + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
        return Image.fromarray(np.ascontiguousarray(levels[place])).convert(image.mode)


Pair = tuple[np.ndarray, np.ndarray]
"""An original and its protected picture, uint8 ``(H, W, 3)``."""


def paired(originals: Sequence[Sample], released: Sequence[Sample]) -> list[Pair]:
    """The pictures of the originals that have a released one of their size, by their ids."""
    known = {sample.id: sample.image for sample in released}
    found = [(s.image, known[s.id]) for s in originals if s.id in known and known[s.id].size == s.image.size]
    return [(np.asarray(a.convert("RGB")), np.asarray(b.convert("RGB"))) for a, b in found]


@dataclass(frozen=True)
class Bridge:
    """A network and what its preconditioning is made of: T, the variances of originals and of protected pictures, and
    their covariance, all of values in [-1, 1]."""

    unet: Any
    sigma_max: float
    variance: float
    variance_end: float
    covariance: float

    @property
    def side(self) -> int:
        """Pixels a side of what the network sees."""
        return int(self.unet.config.sample_size)

    def scalings(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """c_skip, c_out and c_in of levels t, each of t's shape (equation 14 of arXiv 2309.16948)."""
        r = (t / self.sigma_max).square()
        noise = t.square() * (1 - r)
        total = r.square() * self.variance_end + (1 - r).square() * self.variance
        total = total + 2 * r * (1 - r) * self.covariance + noise
        left = r.square() * (self.variance_end * self.variance - self.covariance**2) + self.variance * noise
        skip = ((1 - r) * self.variance + r * self.covariance) / total
        return skip, left.clamp(min=1e-12).sqrt() / total.sqrt(), 1 / total.sqrt()

    def raw(self, x: Tensor, end: Tensor, t: Tensor) -> Tensor:
        """What the network itself says of ``(B, 3, h, w)`` at levels t, ``(B,)``."""
        c_in = self.scalings(t)[2][:, None, None, None]
        found: Tensor = self.unet(torch.cat([c_in * x, end], 1), 250 * t.log()).sample
        return found

    def original(self, both: Tensor, t: float) -> Tensor:
        """D of tiles ``(N, 6, h, w)``, of x_t and of x_T, at one level."""
        x, end = both.chunk(2, 1)
        levels = torch.full((len(x),), t, device=x.device)
        skip, out, _ = (s[:, None, None, None] for s in self.scalings(levels))
        return skip * x + out * self.raw(x, end, levels)

    @torch.inference_mode()
    def crossed(self, end: Tensor, tiling: Tiling, config: BridgePure.Config, generator: torch.Generator) -> Tensor:
        """The way back from protected pictures ``(B, 3, H, W)`` in [-1, 1]."""

        def slope(x: Tensor, t: float, noisy: bool) -> Tensor:
            found = tiling.map(torch.cat([x, end], 1), partial(self.original, t=t), config.batch_size)
            toward = (found - x) / t**2
            if noisy:
                return -2 * t * toward
            return -t * (toward - config.guidance * (end - x) / (self.sigma_max**2 - t**2))

        x, levels = end, karras(self.sigma_max, config.steps)
        for t, following in pairwise(levels):
            if config.churn:
                reached = t + config.churn * (following - t)
                noise = torch.randn(x.shape, generator=generator).to(x)
                x = x + (reached - t) * slope(x, t, True) + (2 * t * (t - reached)) ** 0.5 * noise
                t = reached
            first = slope(x, t, False)
            ahead = x + (following - t) * first
            x = ahead if following == 0 else x + (following - t) * (first + slope(ahead, following, False)) / 2
        return x


def karras(sigma_max: float, steps: int) -> list[float]:
    """So many levels from just below T to `LAST`, and 0."""
    ends = (sigma_max * (1 - 1e-4)) ** (1 / RHO), LAST ** (1 / RHO)
    return [*(np.linspace(*ends, steps) ** RHO).tolist(), 0.0]


def fitted(pairs: Sequence[Pair], config: BridgePure.Config, world: AttackerWorld) -> Bridge:
    """The bridge that is learned from pairs: descends on E |D - x_0|^2 / c_out^2 over crops, levels and noise, all
    even; the weights are their exponential moving average."""
    from diffusers import UNet2DModel
    from diffusers.training_utils import EMAModel

    rng = world.rng()
    with torch.random.fork_rng(devices=[]):
        architecture = train_ddpm.build().config
        torch.manual_seed(world.seed)
        unet = UNet2DModel.from_config({**architecture, "in_channels": 6}).to(config.device).train()
    bridge = Bridge(unet, config.sigma_max, *moments(pairs))
    parameters = list(unet.parameters())
    optimizer = torch.optim.AdamW(parameters, RATE, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=config.training_steps, pct_start=0.2)
    average = EMAModel(parameters, decay=AVERAGE)
    with torch.enable_grad():
        for step in range(config.training_steps):
            chosen = rng.integers(len(pairs), size=BATCH)
            crops = np.stack([crop(np.concatenate(pairs[i], 2), bridge.side, rng) for i in chosen])
            start, end = (train_ddpm.as_tensor(x).to(config.device) for x in (crops[..., :3], crops[..., 3:]))
            t = torch.from_numpy(rng.uniform(LAST, config.sigma_max * (1 - 1e-4), BATCH).astype(np.float32))
            noise = torch.from_numpy(rng.standard_normal(start.shape, np.float32)).to(start)
            t = t.to(start)
            r = (t / config.sigma_max).square()[:, None, None, None]
            x = r * end + (1 - r) * start + t[:, None, None, None] * (1 - r).sqrt() * noise
            skip, out, _ = (s[:, None, None, None] for s in bridge.scalings(t))
            loss = nn.functional.mse_loss(bridge.raw(x, end, t), (start - skip * x) / out)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            average.step(parameters)
            world.progress((step + 1) / config.training_steps, f"loss {loss.item():.3f}")
    average.copy_to(parameters)
    unet.eval()
    return bridge


def moments(pairs: Sequence[Pair]) -> tuple[float, float, float]:
    """The variances of originals and protected pictures, and their covariance, of values in [-1, 1] about 0."""
    start, end = (np.concatenate([pair[k].ravel() for pair in pairs]) / 127.5 - 1 for k in (0, 1))
    return float(np.mean(start**2)), float(np.mean(end**2)), float(np.mean(start * end))
