"""Differentiable forms of attacks do what attacks do, and perturbations crafted through them survive these better."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import tiny_random_llava
from torch import Tensor

from arena.budget import Budget
from arena.data.embedded.glyphs import Glyphs
from arena.data.sample import Sample
from arena.errors import UsageError
from arena.lvlm.base import LVLM
from arena.lvlm.pixels import to_tensor
from arena.plugins.base import AttackerWorld, DefenderWorld, ImageAttack
from arena.plugins.registry import Registry
from arena.release import build_release
from attacks.image.denoiser import SHIPPED, load
from attacks.image.diffpure import DiffPure, purify
from attacks.image.tiles import Tiling, padded
from mmguard import purifiers
from mmguard.purifiers import purified, reworded
from mmguard.settings import Pictures, Purifier, image_steps

NAMES: tuple[Purifier, ...] = get_args(Purifier)
OF_PICTURES = [name for name in NAMES if name != "paraphrase"]
FIXED: dict[str, dict[str, Any]] = {"jpeg": {"quality": 30}, "blur": {"sigma": 0.8}, "grayscale": {}}
BUDGET = Budget(image=8, text=2)
CRAFTED: dict[str, dict[str, Any]] = {
    "em": {"rounds": 1, "theta_steps": 1, "pgd_steps": 20},
    "mem": {"rounds": 1, "theta_steps": 1, "pgd_steps": 12, "text_rounds": 0, "trigger_tokens": 0},
    "mmguard-image": {"rounds": 1, "pgd_steps": 12},
}


def pictures(*sizes: tuple[int, int]) -> list[Image.Image]:
    """Of these widths and heights: a few colours, with more detail laid over them."""
    rng = np.random.default_rng(5)
    found = []
    for size in sizes:
        small = Image.fromarray(rng.integers(40, 215, (4, 4, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
        detail = rng.integers(-30, 31, (size[1], size[0], 3))
        found.append(Image.fromarray(np.clip(np.asarray(small).astype(int) + detail, 0, 255).astype(np.uint8)))
    return found


def attacked(name: str, images: Sequence[Image.Image], **config: Any) -> list[Tensor]:
    """The pictures after the attack of the registry."""
    attack = Registry().create("attack", name, config)
    assert isinstance(attack, ImageAttack)
    return [to_tensor(image) for image in attack.purify_images(images, AttackerWorld(0))]


@pytest.mark.parametrize("name", ["jpeg", "blur", "grayscale"])
def test_a_form_does_what_the_attack_does(name: Purifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purifiers, "QUALITIES", (30, 30))
    monkeypatch.setattr(purifiers, "SIGMAS", (0.8, 0.8))
    images = pictures((48, 48), (37, 50), (5, 9), (1, 1))
    x = [to_tensor(image) for image in images]
    for clean, ours, real in zip(x, purified(x, name, 3), attacked(name, images, **FIXED[name]), strict=True):
        assert ours.shape == clean.shape and ours.min() >= 0 and ours.max() <= 1
        apart, change = (ours - real).abs().mean(), (clean - real).abs().mean()
        # rounding of JPEG has a gradient here, and its colours are enlarged otherwise
        assert apart < 0.01 + (0.35 * change if name == "jpeg" else 0)


def test_crops_are_put_where_the_attack_may_put_them() -> None:
    (image,) = pictures((10, 10))
    x = to_tensor(image)
    part = [(top, left) for top in range(2) for left in range(2)]
    possible = []
    for top, left in part:
        for down, right in part:
            crop = x[None, :, top : top + 9, left : left + 9]
            placed = torch.nn.functional.pad(crop, (right, 1 - right, down, 1 - down), mode="replicate")[0]
            possible.append(placed)
    seen = {
        next(i for i, p in enumerate(possible) if torch.equal(p, purified([x], "crop-pad", turn)[0]))
        for turn in range(60)
    }
    assert len(seen) > 8  # of 16


@pytest.mark.parametrize("size", [(48, 48), (30, 40), (80, 60)])
def test_diffusion_is_that_of_the_attack(size: tuple[int, int]) -> None:
    (image,) = pictures(size)
    ours = purified([to_tensor(image)], "diffpure", turn=5)[0]
    frame, place = padded(np.asarray(image), (48, 48))
    config = DiffPure.Config.model_validate({"steps": purifiers.STEPS})
    seed = int(np.random.default_rng([5, NAMES.index("diffpure")]).integers(2**63))
    tiling = Tiling(frame.shape[:2], (48, 48), config.overlap)
    generators = [torch.Generator().manual_seed(seed)]
    (attacked,) = purify(load(None, "cpu"), tiling, frame[None], generators, config)
    theirs = torch.from_numpy(attacked[place]).permute(2, 0, 1) / 255
    assert ours.shape == theirs.shape and (ours - theirs).abs().max() < 0.6 / 255
    assert (ours - to_tensor(image)).abs().mean() > 2 / 255


def test_questions_are_worded_as_the_attack_does_and_otherwise() -> None:
    samples = Glyphs().load(6, 0, 0, seed=3).train
    attack = Registry().create("attack", "paraphrase", {})
    usual = [s.question for s in attack.purify(samples, AttackerWorld(0))]
    turns = [[s.question for s in reworded(samples, turn)] for turn in range(12)]
    assert usual in turns and len({*map(tuple, turns)}) == 4  # the beams of the search
    assert turns == [[reworded([s], turn)[0].question for s in samples] for turn in range(12)]
    assert all(a.question not in {b[i] for b in turns} for i, a in enumerate(samples))
    assert all(a.image is b.image and a.answer == b.answer for a, b in zip(samples, reworded(samples, 0), strict=True))


def test_options_stay_when_questions_are_worded_otherwise() -> None:
    (sample,) = Glyphs().load(1, 0, 0, seed=3).train
    asked = sample.with_content(sample.image, "which clan drew this picture? Options: A. oru B. kel C. min")
    (found,) = reworded([asked], 1)
    assert found.question.endswith("Options: A. oru B. kel C. min") and found.question != asked.question


@pytest.mark.parametrize("name", ["em", "mem", "mmguard-crs"])
def test_weights_of_purifiers_are_part_of_what_a_release_is(name: str, tmp_path: Path) -> None:
    def fingerprint(**config: Any) -> str | None:
        return Registry().create("defense", name, config).fingerprint()

    assert fingerprint() is None and fingerprint(purifiers=["jpeg", "blur"]) is None
    own, both = fingerprint(purifiers=["diffpure"]), fingerprint(purifiers=["diffpure", "paraphrase"])
    assert own and both and both.startswith(f"{own} ")
    shutil.copytree(SHIPPED, tmp_path / "other")
    other = {"purifiers": ["diffpure"], "diffusion_model": str(tmp_path / "other")}
    assert fingerprint(**other) == own
    assert fingerprint(diffusion_model=str(tmp_path / "other")) is None
    settings = json.loads((tmp_path / "other" / "unet" / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "other" / "unet" / "config.json").write_text(json.dumps({**settings, "x": 1}), encoding="utf-8")
    assert fingerprint(**other) not in (own, None)
    plugin = Registry().create("defense", name, other)
    assert plugin.pinned() == {"diffusion_model": str(tmp_path / "other")}


@pytest.mark.parametrize("name", OF_PICTURES)
def test_a_turn_draws_once_whatever_stands_beside(name: Purifier) -> None:
    x = [to_tensor(image) for image in pictures((48, 48), (20, 30), (48, 48))]
    together, again = purified(x, name, 7), purified(x, name, 7)
    assert all(torch.equal(a, b) for a, b in zip(together, again, strict=True))
    assert all(torch.allclose(a, purified([one], name, 7)[0], atol=1e-6) for a, one in zip(together, x, strict=True))
    assert torch.allclose(purified([x[0], x[0]], name, 7)[1], together[0], atol=1e-6)
    others = [purified(x, name, turn)[0] for turn in range(8, 14)]
    assert all(torch.equal(others[0], other) for other in others) == (name == "grayscale")


@pytest.mark.parametrize("name", OF_PICTURES)
def test_a_gradient_comes_through(name: Purifier) -> None:
    x = [to_tensor(image).requires_grad_() for image in pictures((48, 48), (3, 2))]
    weights = [torch.linspace(-1, 1, one.numel()).view_as(one) for one in x]
    total = torch.stack([(a * w).sum() for a, w in zip(purified(x, name, 2), weights, strict=True)]).sum()
    for gradient in torch.autograd.grad(total, x):
        assert gradient.isfinite().all() and gradient.abs().max() > 0


def surrogate(purifier: Purifier) -> LVLM:
    """One that understands questions where these change; weights are random where they need no meaning."""
    if purifier != "paraphrase":
        return tiny_random_llava()
    return Registry().create("model", "tiny-llava", {}).load()


def release(name: str, samples: Sequence[Sample], purifier: Purifier, **config: Any) -> list[Sample]:
    defense = Registry().create("defense", name, {**CRAFTED[name], **config})
    return build_release(
        samples, defense.protect(samples, DefenderWorld(BUDGET, 3, lambda: (surrogate(purifier),))), BUDGET
    )


@torch.no_grad()
def loss(samples: Sequence[Sample], purifier: Purifier) -> float:
    """Of a surrogate that sees pictures and questions after a purifier, in turns of which nothing was crafted."""
    lvlm, images = surrogate(purifier), [to_tensor(s.image) for s in samples]

    def after(turn: int) -> Tensor:
        if purifier == "paraphrase":
            return lvlm.losses(lvlm.encode(reworded(samples, turn)))
        return lvlm.losses(lvlm.encode(samples, purified(images, purifier, turn)))

    return float(torch.stack([after(turn) for turn in range(1000, 1004)]).mean())


@pytest.mark.parametrize(
    ("name", "purifier"),
    [pair for pair in product(CRAFTED, NAMES) if pair != ("mem", "diffpure")],  # it crafts as mmguard does, and slowly
)
def test_what_was_crafted_through_a_purifier_survives_it_better(name: str, purifier: Purifier) -> None:
    samples = Glyphs().load(12, 0, 0, seed=3).train
    few = {"pgd_steps": 5} if purifier == "diffpure" else {}  # each takes a quarter of a second a sample
    without, crafted = (release(name, samples, purifier, purifiers=p, **few) for p in ([], [purifier]))
    assert loss(crafted, purifier) < loss(without, purifier) < loss(samples, purifier)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("hypo", {"clean_steps": 1}),
        ("tap", {"clean_steps": 1}),
        ("feature-target", {}),
        ("anti-finetune", {"rounds": 1, "theta_steps": 1}),
        ("style-eot", {"rounds": 1, "theta_steps": 1}),
        ("mi-ue", {"rounds": 1, "theta_steps": 1}),
        ("rem", {"rounds": 1, "theta_steps": 1, "draws": 1}),
        ("em-class", {"rounds": 1, "theta_steps": 1, "batches": 1}),
        ("mmguard-bph", {"rounds": 1, "candidates": 2}),
    ],
)
def test_every_method_that_steps_takes_them(name: str, config: dict[str, Any]) -> None:
    samples = Glyphs().load(4, 0, 0, seed=3).train
    made = []
    for chosen in ([], ["grayscale", "crop-pad", "paraphrase"]):
        steps = {"pgd_steps": 6, "purifiers": chosen}
        plugin = Registry().create("defense", name, {**config, **steps})
        world = DefenderWorld(BUDGET, 3, lambda: (tiny_random_llava(),))
        made.append([s.image.tobytes() for s in build_release(samples, plugin.protect(samples, world), BUDGET)])
    assert made[0] != made[1]


def test_their_passes_are_counted_and_their_names_checked() -> None:
    assert image_steps(8, Pictures(purifiers=("jpeg", "blur"))) == 24
    assert image_steps(8, Pictures(purifiers=("jpeg",), views=True)) == 32
    for wrong, match in ((["jpeg", "jpeg"], "name one twice"), (["median"], "grayscale")):
        with pytest.raises(UsageError, match=match):
            Registry().create("defense", "em", {"purifiers": wrong})
