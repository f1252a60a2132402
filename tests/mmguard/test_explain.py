"""The mechanism picture: the masses are the model's own attention, and it shows what it claims."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from owner_folder import QUICK, write_owner_folder
from PIL import Image
from tiny_models import tiny_random_llava

from arena.budget import Budget
from arena.data.colours import colours
from arena.data.sample import Sample
from arena.errors import UsageError
from arena.lvlm.base import LVLM
from arena.lvlm.batch import Role
from arena.release import build_release, read_imagefolder
from mmguard.explain import Explanation, explain
from mmguard.picture import draw
from mmguard.protect import Settings, protect

PATCH, SIDE = 8, 6
TAU = 0.2


class Crafted(NamedTuple):
    lvlm: LVLM
    clean: list[Sample]
    released: list[Sample]

    def trigger(self, number: int) -> tuple[int, int]:
        """A suffix: all that was added, without the space before it."""
        return len(self.clean[number].question) + 1, len(self.released[number].question)

    def explain(self, number: int, layer: int = 1) -> Explanation:
        return explain(
            self.lvlm, self.clean[number], self.released[number], self.trigger(number), layer, TAU, "tiny-random"
        )


@pytest.fixture(scope="module")
def crafted(tmp_path_factory: pytest.TempPathFactory) -> Crafted:
    clean = read_imagefolder(write_owner_folder(tmp_path_factory.mktemp("owner")))
    lvlm, budget = tiny_random_llava(), Budget(image=4, text=3)
    settings = Settings.model_validate({**QUICK, "pgd_steps": 3, "tau_delta": TAU})
    drafts = protect(clean, [lvlm], budget, settings, seed=0).drafts
    return Crafted(lvlm, clean, build_release(clean, drafts, budget))


def _blocks(values: torch.Tensor) -> np.ndarray:
    """Values of the 6 x 6 image tokens of a 48 x 48 picture, on its pixels."""
    return np.kron(values.reshape(SIDE, SIDE).numpy(), np.ones((PATCH, PATCH)))


@pytest.mark.parametrize("layer", [1, 2])
def test_masses_are_the_models_attention(crafted: Crafted, layer: int) -> None:
    found = crafted.explain(0, layer)
    original, released, lvlm, trigger = crafted.clean[0], crafted.released[0], crafted.lvlm, crafted.trigger(0)

    def attention(sample: Sample, span: tuple[int, int] | None) -> tuple[torch.Tensor, torch.Tensor]:
        batch = lvlm.encode([sample], triggers=[span])
        with torch.no_grad():
            weights = lvlm.attention(batch, [0, 1])
        return torch.stack([weights[k][0].mean(0) for k in (0, 1)]), batch.roles[0]

    (before, clean_roles), (after, roles) = attention(original, None), attention(released, trigger)

    # Omega_delta from the pixels themselves: at 48 x 48 a patch is an image token
    change = np.abs(colours(released.image).astype(float) - colours(original.image)).mean(2)
    rho = change.reshape(SIDE, PATCH, SIDE, PATCH).mean((1, 3)).flatten()
    chosen = np.zeros(SIDE**2, bool)
    chosen[np.argsort(-rho.round(6), kind="stable")[:8]] = True
    assert found.tokens == 8
    assert np.array_equal(found.omega, _blocks(torch.from_numpy(chosen)) > 0)

    def mass(weights: torch.Tensor, at: torch.Tensor, source_: Role, target: Role | None) -> list[float]:
        rows = weights[:, at == source_].mean(1)
        if target is not None:
            return rows[:, at == target].sum(1).tolist()
        return rows[:, at == Role.IMAGE][:, torch.from_numpy(chosen)].sum(1).tolist()

    pairs = {pair.name: pair for pair in found.pairs}
    assert list(pairs) == ["trigger → Ω_δ", "answer → trigger", "answer → Ω_δ"]
    near = {"rel": 1e-4}
    assert pairs["trigger → Ω_δ"].protected == pytest.approx(mass(after, roles, Role.TRIGGER, None), **near)
    assert pairs["answer → trigger"].protected == pytest.approx(mass(after, roles, Role.ANSWER, Role.TRIGGER), **near)
    assert pairs["answer → Ω_δ"].protected == pytest.approx(mass(after, roles, Role.ANSWER, None), **near)
    assert pairs["answer → Ω_δ"].clean == pytest.approx(mass(before, clean_roles, Role.ANSWER, None), **near)
    assert pairs["trigger → Ω_δ"].clean is None and pairs["answer → trigger"].clean is None

    for shown, weights, at in ((found.clean_map, before, clean_roles), (found.protected_map, after, roles)):
        row = weights[layer - 1][at == Role.ANSWER].mean(0)[at == Role.IMAGE]
        assert np.allclose(shown, _blocks(row), rtol=1e-2)  # the processor's gradients are bfloat16
    for bound in found.bounds:
        assert bound.bound == pytest.approx(1 - np.sqrt(bound.eta / 2), abs=1e-6)
    assert found.bounds[0].measured >= found.bounds[0].bound


def test_a_map_covers_what_the_model_sees(crafted: Crafted) -> None:
    found = crafted.explain(4)  # 40 x 64: its upright centre is what the processor keeps
    assert found.clean_map.shape == (64, 40) == found.omega.shape
    seen = found.clean_map.max(1) > 0
    assert seen[14:50].all() and not seen[:10].any() and not seen[54:].any()
    assert found.omega.any() and not found.omega[~seen].any()


def test_a_layer_that_the_model_has_not_is_refused(crafted: Crafted) -> None:
    with pytest.raises(UsageError, match="the language model of tiny-random has layers 1 to 2: there is no 3"):
        crafted.explain(0, layer=3)


def test_the_picture_shows_what_was_measured(crafted: Crafted, tmp_path: Path) -> None:
    found = crafted.explain(0)

    def picture(name: str, explanation: object) -> np.ndarray:
        draw(explanation, tmp_path / name)  # type: ignore[arg-type]
        with Image.open(tmp_path / name) as image:
            assert image.format == "PNG"
            return np.asarray(image.convert("RGB")).astype(int)

    whole = picture("a.png", found)
    height, width = whole.shape[:2]
    assert np.array_equal(whole, picture("b.png", found))
    for changes, rows, columns in (
        ({"clean_map": found.clean_map[::-1]}, (0.1, 0.6), (0.45, 0.7)),
        ({"protected_map": found.protected_map[:, ::-1]}, (0.1, 0.6), (0.65, 0.95)),
        ({"omega": found.omega[::-1, ::-1]}, (0.1, 0.6), (0.2, 0.95)),
        ({"pairs": (*found.pairs[:2], dataclasses.replace(found.pairs[2], clean=[0.0, 0.0]))}, (0.6, 1), (0.67, 1)),
    ):
        other = picture("c.png", dataclasses.replace(found, **changes))  # type: ignore[arg-type]
        y, x = (whole != other).any(2).nonzero()
        assert len(y) > 100, changes.keys()
        assert rows[0] * height <= y.min() and y.max() <= rows[1] * height, changes.keys()
        assert columns[0] * width <= x.min() and x.max() <= columns[1] * width, changes.keys()
