"""LightShed: what protections add to pictures is predicted and subtracted (Foerster 2025, USENIX Security).

Protections are public, so an attacker makes pairs of own clean pictures and protected ones x, and trains an autoencoder
f on both kinds to say what was added: P = x - clean, which is nothing for a clean picture. Of a released x:

    P' = f(x),   protected where H(P') > T,   x - P' there and x elsewhere

with H the Shannon entropy of the values of P', which is near zero where nothing is found, and T a threshold at which
pairs that the training has not seen are told apart best. The loss of a picture is

    0.7 (1 - SSIM(P', P)) + 0.2 mean(max(0, (P' - P)^2 - 0.01)) + 0.1 mean|P' - P|

and, after the first part of training, 0.3 H(P') for clean pictures and -0.3 H(P') for protected ones.

What stands here follows the abstract and two accounts of the paper: a summary, which has residual and attention blocks,
the terms of the loss, the first three weights and 100 epochs without entropy, and a reimplementation by others, which
also has the 0.01, the 0.3 and the choice of T, where true less false positive rate is largest; the signs of 0.3 are
those that make H(P') > T likely for protected pictures alone. How the authors measure entropy, in which units
perturbations are, and how long they train is in none of them. Adapted are:

* protections: those of the arena that need no model, at their published strength, and random signs, which stand for
  noise by sign steps; the paper has Nightshade, Glaze and others that attack image generators;
* units: perturbations count in 16/255, since they are far smaller here; SSIM has the range of pictures;
* entropy: of the histogram of 8-bit levels, as a share of the 8 bits that there can be, so that it does not outweigh
  the other terms; for the gradient, a value between two levels counts for both;
* the network: some 0.16 M weights, features at the picture's own size, and a second view of the picture; see
  `attacks.image.perturbation_autoencoder`;
* training: 600 steps of 16 crops, which are drawn and protected anew all the time, since own pictures may be few.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from kornia.metrics import ssim
from PIL import Image
from pydantic import AfterValidator, Field
from safetensors.torch import load_file, save_file
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor, nn
from torch.nn import functional as F

from arena.budget import Budget
from arena.data.colours import colours
from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.lvlm.perturbation import planes, to_pixels
from arena.lvlm.pixels import to_tensor
from arena.plugins.base import (
    AttackerWorld,
    DefenderWorld,
    Defense,
    ImageAttack,
    ImageDefense,
    Pixels,
    PluginConfig,
    setting,
)
from arena.release import build_release
from attacks.image.colour import repaint
from attacks.image.perturbation_autoencoder import SIDE, UNIT, PerturbationAutoencoder, entropy
from attacks.image.tiles import Tiling, padded
from defenses.ar import AutoregressiveNoise
from defenses.lsp import LinearlySeparablePatches
from defenses.ops import OnePixelShortcut

BATCH, RATE = 16, 4e-3
"""Pictures and peak learning rate of a training step."""
CROPS, ROUND = 64, 25
"""Crops that are protected together, and training steps on them until others are."""
TOLERATED = 0.01
"""Squared error, in units, that the second term of the loss leaves out."""
BITS = 8
"""Entropy of levels that are all as frequent, which is what entropies in the loss are shares of."""
HELD_OUT = 0.2
"""Share of own pictures that the threshold is chosen on, and that training does not see."""
OVERLAP = 0.25
"""Of the tiles that larger pictures are seen in."""
MODEL, DETECTION = "autoencoder.safetensors", "detection.json"
"""What `LightShed.fit` writes."""


class RandomSigns(ImageDefense):
    """Every value moves by the whole budget, up or down: noise by sign steps, as it looks from pixel to pixel."""

    def perturb(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Pixels]:
        generator = world.torch_generator()
        for sample in samples:
            x = planes(sample.image)
            signs = 2 * torch.randint(2, x.shape, generator=generator) - 1
            yield to_pixels(sample.image, x + world.budget.epsilon * signs)


Protection = Literal["lsp", "ar", "ops", "signs"]

PROTECTIONS: Mapping[Protection, Callable[[], Defense]] = {
    "lsp": LinearlySeparablePatches,
    "ar": AutoregressiveNoise,
    "ops": OnePixelShortcut,
    "signs": RandomSigns,
}
"""What own pictures can be protected by: none needs a model, and each is made in no time."""


def _once(protections: tuple[Protection, ...]) -> tuple[Protection, ...]:
    if len(set(protections)) < len(protections):
        raise ValueError("a protection is named twice")
    return protections


class LightShed(ImageAttack):
    """Subtracts what an autoencoder takes for a protection, from the pictures in which it finds one.

    Needs clean samples of the attacker's own, which it protects itself to train on; their questions do not matter.
    Training takes the same time for few pictures as for many. How well held-out own pictures are told from their
    protected copies is in ``detection.json`` of the fitted artifact: the threshold in bits, and areas under the ROC
    curve, of all copies and by protection.

    Noise that is like nothing it was trained on stays, mostly.
    """

    needs = frozenset({"seed", "auxiliary"})
    packages = ("kornia", "numpy", "scikit-learn", "safetensors")

    class Config(PluginConfig):
        protections: Annotated[tuple[Protection, ...], Field(min_length=1), AfterValidator(_once)] = Field(
            ("lsp", "ar", "ops", "signs"), description="what own pictures are protected by"
        )
        epsilon: float = Field(8, gt=0, le=255, description="by how much `signs` moves values, in 1/255")
        training_steps: int = setting(600, dry_run=10, ge=10, description="training steps of the model, of 16 pictures")
        plain: float = Field(0.4, ge=0, le=1, description="first part of training, in which entropy does not count")
        device: str = setting("cpu", runtime=True, description="torch device, such as cpu or cuda:0")

    config: Config

    def fit(self, world: AttackerWorld, folder: Path) -> None:
        """Writes the model and how it detects to `folder`."""
        c, own = self.config, world.auxiliary
        if not own:
            raise ArenaError("lightshed: there is no clean picture to protect: grant auxiliary samples in the suite")
        rng = world.rng()
        order = rng.permutation(len(own))
        held_out = max(1, int(HELD_OUT * len(own)))
        known = order[held_out:] if len(own) > 1 else order
        model = fitted([own[i] for i in known], c, rng, world)
        found = detection(model, [own[i] for i in order[:held_out]], c, rng)
        save_file(model.state_dict(), folder / MODEL)
        (folder / DETECTION).write_text(json.dumps(found), encoding="utf-8")

    def purify_images(self, images: Sequence[Image.Image], world: AttackerWorld) -> Iterator[Image.Image]:
        device = self.config.device
        model = PerturbationAutoencoder().to(device).eval()
        model.load_state_dict(load_file(world.fitted / MODEL))
        threshold = json.loads((world.fitted / DETECTION).read_text(encoding="utf-8"))["threshold"]
        protected = 0
        for number, image in enumerate(images):
            found = perturbation(model, image, device)
            is_protected = float(entropy(found[None])) >= threshold
            protected += is_protected
            world.progress((number + 1) / len(images), f"{protected} of {number + 1} pictures are protected")
            yield repaint(image, to_tensor(image) - found) if is_protected else image


def fitted(
    own: Sequence[Sample], config: LightShed.Config, rng: np.random.Generator, world: AttackerWorld
) -> PerturbationAutoencoder:
    """The autoencoder of own pictures and their protected copies, as many of the one as of the other."""
    c = config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(world.seed)
        model = PerturbationAutoencoder().to(c.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), RATE, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=c.training_steps, pct_start=0.2)
    with torch.enable_grad():
        for step in range(c.training_steps):
            if step % ROUND == 0:
                clean, copies = pairs(own, c, rng)
            chosen, by = rng.integers(len(clean), size=BATCH), rng.integers(len(copies), size=BATCH)
            is_protected = torch.from_numpy(rng.random(BATCH) < 0.5)
            x = torch.where(is_protected[:, None, None, None], copies[by, chosen], clean[chosen])
            found = model(x.to(c.device))
            losses = deviation(found, (x - clean[chosen]).to(c.device))
            if step >= c.plain * c.training_steps:
                sign = 1 - 2 * is_protected.to(losses)
                losses = losses + 0.3 * sign * entropy(found) / BITS
            optimizer.zero_grad(set_to_none=True)
            losses.mean().backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            world.progress((step + 1) / c.training_steps, f"loss {losses.mean().item():.3f}")
    return model.eval()


def deviation(found: Tensor, actual: Tensor) -> Tensor:
    """The loss of perturbations ``(B, 3, H, W)`` of pictures in [0, 1], without entropy, ``(B,)``."""
    similarity = ssim(found, actual, 11).mean((1, 2, 3))
    off = (found - actual) / UNIT
    beyond = F.relu(off.square() - TOLERATED).mean((1, 2, 3))
    return 0.7 * (1 - similarity) + 0.2 * beyond + 0.1 * off.abs().mean((1, 2, 3))


def pairs(own: Sequence[Sample], config: LightShed.Config, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Crops of own pictures, ``(64, 3, 48, 48)`` in [0, 1], and their protected copies, ``(K, 64, 3, 48, 48)``, by each
    of K protections."""
    chosen = np.resize(rng.permutation(len(own)), CROPS).tolist()
    clean = [own[i].with_content(_crop(own[i].image, rng), own[i].question) for i in chosen]
    world = DefenderWorld(Budget(norm="unbounded", image=config.epsilon), int(rng.integers(2**31)))
    copies = []
    for name in config.protections:
        released = build_release(clean, PROTECTIONS[name]().protect(clean, world), world.budget)
        copies.append(torch.stack([to_tensor(s.image) for s in released]))
    return torch.stack([to_tensor(s.image) for s in clean]), torch.stack(copies)


@torch.inference_mode()
def detection(
    model: PerturbationAutoencoder, own: Sequence[Sample], config: LightShed.Config, rng: np.random.Generator
) -> dict[str, float | dict[str, float]]:
    """The entropy in bits from which on a picture counts as protected, and how well entropies tell protected copies of
    `own` pictures from these: the areas under the ROC curve, of all and by protection."""
    clean, copies = pairs(own, config, rng)
    low = _entropies(model, clean, config.device)
    high = {name: _entropies(model, x, config.device) for name, x in zip(config.protections, copies, strict=True)}
    every = np.concatenate(list(high.values()))
    false, true, thresholds = roc_curve(*_told(low, every))
    best = 1 + int((true - false)[1:].argmax())  # the first one is infinite
    return {
        "threshold": float(thresholds[best]),
        "auc": float(roc_auc_score(*_told(low, every))),
        "auc_by_protection": {name: float(roc_auc_score(*_told(low, values))) for name, values in high.items()},
    }


def _entropies(model: PerturbationAutoencoder, x: Tensor, device: str) -> np.ndarray:
    return np.concatenate([entropy(model(part.to(device))).cpu().numpy() for part in x.split(BATCH)])


def _told(clean: np.ndarray, protected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether pictures are protected, and their entropies."""
    return np.repeat([0, 1], [len(clean), len(protected)]), np.concatenate([clean, protected])


@torch.inference_mode()
def perturbation(model: PerturbationAutoencoder, image: Image.Image, device: str) -> Tensor:
    """What the model finds in a picture of any size, float ``(3, H, W)`` on the CPU; larger ones are seen in tiles."""
    pixels, place = padded(np.asarray(image.convert("RGB")), (SIDE, SIDE))
    x = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None].float() / 255
    tiling = Tiling((x.shape[2], x.shape[3]), (SIDE, SIDE), OVERLAP)
    found = tiling.map(x, lambda tiles: model(tiles.to(device)).cpu(), BATCH)
    return found[0][:, place[0], place[1]]


def _crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The colours of a random place, 48 x 48; a smaller picture is mirrored beyond its borders."""
    left, top = (int(rng.integers(max(0, length - SIDE) + 1)) for length in image.size)
    part = image.crop((left, top, min(left + SIDE, image.width), min(top + SIDE, image.height)))
    values = padded(colours(part), (SIDE, SIDE))[0]
    return Image.fromarray(values if values.shape[2] == 3 else values[..., 0])
