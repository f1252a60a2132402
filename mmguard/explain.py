"""Where the answer of one released sample looks, against the clean one: the mechanism of MMGuard (section 5.3), for
any release."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from arena.data.sample import Sample
from arena.errors import UsageError
from arena.lvlm.base import LVLM, images_of
from arena.lvlm.batch import Role
from mmguard.attention import align, image_keys, mean_attention, theorem_5_1
from mmguard.objective import affected, attend, reference

WORDS = {"trigger": "added words", "answer": "answer", "Ω_δ": "changed parts"}
"""What is called how for them: Omega_delta are the parts of the picture that the perturbation changes most."""


@dataclass(frozen=True)
class Pair:
    """Attention mass from one set of tokens to another: by layer, in [0, 1], for the clean and the protected sample;
    None where the sample has no such tokens."""

    source: str
    target: str
    clean: list[float] | None
    protected: list[float] | None

    @property
    def name(self) -> str:
        return f"{self.source} → {self.target}"

    @property
    def words(self) -> str:
        """The same for people who have not read the paper."""
        return f"{WORDS[self.source]} → {WORDS[self.target]}"


@dataclass(frozen=True)
class Bound:
    """Theorem 5.1 over all layers: eta, the bound 1 - sqrt(eta / 2), the measured total variation distance."""

    target: str
    eta: float
    bound: float
    measured: float

    @property
    def words(self) -> str:
        """The target for people who have not read the paper."""
        return WORDS[self.target]


@dataclass(frozen=True)
class Explanation:
    """What `explain` measured of one sample at a base model without adapters.

    `clean_map` and `protected_map` are float ``(H, W)`` on the picture's own pixels: the attention of the answer,
    averaged over heads and answer tokens, to the image token that sees a pixel, in layer `layer` (from 1); zero where
    no token looks. `omega` bool ``(H, W)`` marks Omega_delta, the `tokens` image tokens the perturbation changes most.
    """

    surrogate: str
    original: Sample
    released: Sample
    trigger: tuple[int, int] | None
    layer: int
    tokens: int
    clean_map: np.ndarray
    protected_map: np.ndarray
    omega: np.ndarray
    pairs: tuple[Pair, ...]
    bounds: tuple[Bound, ...]


@torch.no_grad()
def explain(
    lvlm: LVLM,
    original: Sample,
    released: Sample,
    trigger: tuple[int, int] | None,
    layer: int,
    tau: float,
    name: str,
) -> Explanation:
    """Run clean and released sample through all layers of `lvlm`, which errors and pictures call `name`.

    `trigger` is the character span of the trigger in the released question, None where it has none; `layer`, from 1, is
    the one of the maps; `tau` is the share of image tokens in Omega_delta. Raises `UsageError` for a layer that the
    model does not have.
    """
    depth = int(lvlm.model.config.get_text_config().num_hidden_layers)
    if not 1 <= layer <= depth:
        raise UsageError(f"the language model of {name} has layers 1 to {depth}: there is no {layer}")
    clean = reference(lvlm, [original], range(depth))
    batch = lvlm.encode([released], images_of([released], lvlm.device), [trigger])
    _, attention = attend(lvlm, batch, range(depth), (Role.TRIGGER, Role.ANSWER))
    answer, asking = mean_attention(attention, Role.ANSWER), mean_attention(attention, Role.TRIGGER)
    before = align(*clean.attention, attention.keys)
    (chosen,) = affected(lvlm, clean.pixels, batch.pixels, tau)
    perturbed, triggers = image_keys(attention.keys, [chosen]), attention.keys == Role.TRIGGER
    has_trigger, has_change = bool(triggers.any()), bool(chosen.any())

    def mass(rows: Tensor, keys: Tensor, exists: bool) -> list[float] | None:
        return [float(x) for x in (rows * keys).sum(-1)[:, 0]] if exists else None

    def bound(target: str, keys: Tensor) -> Bound:
        shift = theorem_5_1(answer, before, keys)
        return Bound(target, float(shift.eta), float(shift.bound), float(shift.measured))

    is_image = attention.keys[0] == Role.IMAGE
    maps = [_on_pixels(lvlm, released, rows[layer - 1, 0, is_image]) for rows in (before, answer)]
    return Explanation(
        surrogate=name,
        original=original,
        released=released,
        trigger=trigger,
        layer=layer,
        tokens=int(chosen.sum()),
        clean_map=maps[0],
        protected_map=maps[1],
        omega=_on_pixels(lvlm, released, chosen.float()) > 0.5,
        pairs=(
            Pair("trigger", "Ω_δ", None, mass(asking, perturbed, has_trigger and has_change)),
            Pair("answer", "trigger", None, mass(answer, triggers, has_trigger)),
            Pair("answer", "Ω_δ", mass(before, perturbed, has_change), mass(answer, perturbed, has_change)),
        ),
        bounds=tuple(
            bound(target, keys)
            for target, keys, exists in (("trigger", triggers, has_trigger), ("Ω_δ", perturbed, has_change))
            if exists
        ),
    )


def _on_pixels(lvlm: LVLM, sample: Sample, values: Tensor) -> np.ndarray:
    """A value per image token, ``(tokens,)``, on the pixels the tokens see, float ``(H, W)``; zero where none looks.

    How much token b sees of a pixel is the gradient of rho_b (eq. 22) in that pixel, whatever the family's layout of
    crops, tiles and patches; a pixel gets the mean of the values, so weighted.
    """

    def seen(weights: Tensor) -> Tensor:
        with torch.enable_grad():
            black = [torch.zeros_like(x) for x in images_of([sample], lvlm.device)]
            grey = [(x + 0.5).requires_grad_() for x in black]
            start, stop = lvlm.pixel_inputs(black), lvlm.pixel_inputs(grey)
            change = {k: stop[k] - start[k].detach() for k in stop if stop[k].is_floating_point()}
            (rho,) = lvlm.token_means(change)
            (gradient,) = torch.autograd.grad((rho.float() * weights).sum(), grey)
        return gradient.sum(0).float()

    total = seen(torch.ones_like(values))
    # Filters with negative lobes leave specks of no weight at the edge of a crop.
    sees = total > 0.01 * total.max()
    return torch.where(sees, seen(values) / total.where(sees, 1), 0.0).cpu().numpy()
