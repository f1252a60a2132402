"""LightShed: what it takes away and from which pictures, how it tells them, and who has no pictures to learn from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from arena.data.sample import Sample
from arena.errors import ArenaError, UsageError
from arena.plugins.base import AttackerWorld
from arena.plugins.registry import Registry
from attacks.image import lightshed
from attacks.image.perturbation_autoencoder import UNIT, PerturbationAutoencoder, entropy
from attacks.image.zoo import measure

SIDE = 16


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Crops of 16 x 16 pixels in place of 48 x 48, on which a step takes a tenth of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lightshed, "SIDE", SIDE)
        yield


def ramps(count: int, seed: int) -> np.ndarray:
    """uint8 ``(count, 16, 16, 3)``: colours that change evenly from one side to the other, with grain."""
    rng = np.random.default_rng(seed)
    ends = rng.uniform(20, 235, (2, count, 1, 1, 3))
    along = np.linspace(0, 1, SIDE)[:, None]
    pictures = ends[0] * (1 - along[..., None]) + ends[1] * along[..., None]
    across = rng.random(count) < 0.5
    pictures = np.where(across[:, None, None, None], pictures, pictures.swapaxes(1, 2))
    return (pictures + rng.normal(0, 1, (count, SIDE, SIDE, 3))).clip(0, 255).round().astype(np.uint8)


def samples(pixels: Sequence[np.ndarray] | np.ndarray) -> tuple[Sample, ...]:
    return tuple(Sample(str(i), Image.fromarray(x), "which clan?", "red") for i, x in enumerate(pixels))


def attack(**config: object) -> Any:
    return Registry().create("attack", "lightshed", {"training_steps": 10, **config})


def fitted(own: Sequence[np.ndarray] | np.ndarray, folder: Path, seed: int = 0, **config: object) -> Path:
    folder.mkdir()
    attack(**config).fit(AttackerWorld(seed=seed, auxiliary=samples(own)), folder)
    return folder


def purified(released: Sequence[np.ndarray] | np.ndarray, folder: Path) -> list[Image.Image]:
    before = samples(released)
    after = list(attack().purify(before, AttackerWorld(seed=0, fitted=folder)))
    assert [(s.id, s.question, s.answer) for s in after] == [(s.id, s.question, s.answer) for s in before]
    return [s.image for s in after]


def pixels(images: Sequence[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(image) for image in images])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, small: None) -> Path:
    """What own pictures under random signs have taught."""
    folder = tmp_path_factory.mktemp("lightshed") / "fitted"
    return fitted(ramps(40, 1), folder, protections=["signs"], training_steps=110)


def test_noise_of_a_kind_that_it_knows_is_found_and_taken_away_and_clean_pictures_stay(trained: Path) -> None:
    clean = ramps(24, 2)
    protected = measure.random_sign(clean)
    after, kept = (pixels(purified(x, trained)) for x in (protected, clean))
    assert measure.psnr(after, clean).mean() > measure.psnr(protected, clean).mean() + 2
    assert (after != protected).any((1, 2, 3)).mean() > 0.9
    assert (kept != clean).any((1, 2, 3)).mean() < 0.2 and np.abs(kept.astype(int) - clean).max() <= 3


def test_it_says_how_well_it_tells_protected_pictures(trained: Path) -> None:
    found = json.loads((trained / "detection.json").read_text())
    assert found["auc"] > 0.95 and found["auc_by_protection"] == {"signs": found["auc"]}
    model = PerturbationAutoencoder().eval()
    model.load_state_dict(load_file(trained / "autoencoder.safetensors"))
    clean = ramps(24, 3)
    with torch.inference_mode():
        low, high = (
            [float(entropy(lightshed.perturbation(model, Image.fromarray(x), "cpu")[None])) for x in part]
            for part in (clean, measure.random_sign(clean))
        )
    assert np.quantile(low, 0.8) < found["threshold"] < np.quantile(high, 0.2)


def test_nothing_is_taken_from_a_picture_below_the_threshold(trained: Path, tmp_path: Path) -> None:
    protected = measure.random_sign(ramps(6, 5))
    shutil.copytree(trained, tmp_path / "other")
    for threshold, changed in ((10.0, False), (0.0, True)):
        (tmp_path / "other" / "detection.json").write_text(json.dumps({"threshold": threshold}))
        after = pixels(purified(protected, tmp_path / "other"))
        assert ((after != protected).any((1, 2, 3)) == changed).all()


def test_larger_pictures_are_seen_in_tiles_and_every_size_and_mode_stays(trained: Path) -> None:
    grain = np.random.default_rng(4).normal(0, 1, (48, 61, 3))
    slope = np.linspace(30, 200, 61)[:, None] + np.linspace(0, 30, 48)[:, None, None]
    large = (slope + grain).round().astype(np.uint8)
    noisy = measure.random_sign(large[None])[0]
    after = np.asarray(purified([noisy], trained)[0])
    assert np.square(after.astype(float) - large).mean() < 0.5 * np.square(noisy.astype(float) - large).mean()
    rng = np.random.default_rng(0)
    shapes: list[tuple[int, ...]] = [(21, 34, 3), (21, 34), (9, 70, 4), (7, 5, 2), (1, 2, 3), (1, 1)]
    odd = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
    for before, image in zip(samples(odd), purified(odd, trained), strict=True):
        assert (image.size, image.mode) == (before.image.size, before.image.mode)
        if image.mode in ("LA", "RGBA"):
            assert image.getchannel("A").tobytes() == before.image.getchannel("A").tobytes()


def test_entropy_is_that_of_the_histogram_of_levels() -> None:
    levels = torch.tensor([[0.0] * 8, [5.0] * 8, [0, 1] * 4, [-9, -3, 0, 200] * 2, list(range(-4, 4)), [0.5] * 8])
    assert entropy(levels / 255).tolist() == pytest.approx([0, 0, 1, 2, 3, 1], abs=1e-3)
    x = torch.tensor([[0.2, -0.1, 3.7, 2.2]]).div(255).requires_grad_()
    (gradient,) = torch.autograd.grad(entropy(x).sum(), x)
    step = entropy((x + 1e-4 * gradient / gradient.norm()).detach())
    assert gradient.isfinite().all() and float(step) > float(entropy(x.detach()))
    assert entropy(torch.tensor([[-1.0, 1.0, 2.0, -7.0]])).isfinite().all()


def test_the_loss_weighs_similarity_error_and_what_is_beyond_what_is_tolerated() -> None:
    actual = torch.zeros(2, 3, SIDE, SIDE)
    found = actual.clone()
    assert lightshed.deviation(found, actual).tolist() == pytest.approx([0, 0], abs=1e-4)
    found[0] += 0.05 * UNIT
    found[1] += 0.5 * UNIT
    similar = [1e-4 / ((size * UNIT) ** 2 + 1e-4) for size in (0.05, 0.5)]  # of flat pictures: luminance alone
    wanted = [
        0.7 * (1 - similar[0]) + 0.1 * 0.05,  # 0.05^2 is below 0.01
        0.7 * (1 - similar[1]) + 0.2 * (0.25 - 0.01) + 0.1 * 0.5,
    ]
    assert lightshed.deviation(found, actual).tolist() == pytest.approx(wanted, rel=1e-3)


def test_entropy_counts_late_against_clean_pictures_and_for_protected_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss of entropy alone: where the models of two trainings part, and to which side they drift."""
    monkeypatch.setattr(lightshed, "deviation", lambda found, actual: 0 * found.sum((1, 2, 3)))
    calls: list[int] = []

    def counted(found: Tensor) -> Tensor:
        calls.append(len(found))
        return entropy(found)

    monkeypatch.setattr(lightshed, "entropy", counted)
    monkeypatch.setattr(lightshed, "detection", lambda *_: calls.append(0) or {})
    fitted(ramps(3, 0), tmp_path / "late")
    assert calls == [*[16] * 6, 0], "4 of 10 steps are plain"
    signs = {}
    for name, share in (("clean", 1.0), ("protected", 0.0)):
        losses: list[float] = []
        monkeypatch.setattr(lightshed, "entropy", lambda found: 8 + 0 * found.sum((1, 2, 3)))
        world = AttackerWorld(
            seed=0, auxiliary=samples(ramps(3, 0)), progress=lambda _, note, kept=losses: kept.append(float(note[5:]))
        )
        rng = Fixed(share)
        lightshed.fitted(world.auxiliary, attack(plain=0).config, rng, world)
        signs[name] = losses
    assert signs == {"clean": [0.3] * 10, "protected": [-0.3] * 10}


class Fixed:
    """A generator whose draws between 0 and 1 are all one number."""

    def __init__(self, share: float) -> None:
        self.share, self.rng = share, np.random.default_rng(0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rng, name)

    def random(self, size: int) -> np.ndarray:
        return np.full(size, self.share)


def test_own_pictures_are_protected_by_all_that_is_named_and_the_threshold_is_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    pairs = lightshed.pairs

    def noted(own: Sequence[Sample], *rest: Any) -> tuple[Tensor, Tensor]:
        asked.append([s.id for s in own])
        return pairs(own, *rest)

    monkeypatch.setattr(lightshed, "pairs", noted)
    fitted(ramps(10, 0), tmp_path / "ten")
    assert len(asked) == 2 and sorted(asked[0] + asked[1]) == sorted(map(str, range(10))) and len(asked[1]) == 2
    fitted(ramps(1, 0), tmp_path / "one")
    assert asked[2:] == [["0"], ["0"]]
    config = attack(epsilon=5).config
    clean, copies = pairs(samples(ramps(10, 0)), config, np.random.default_rng(0))
    levels = ((copies - clean) * 255).round()
    lsp, ar, ops, signs = levels
    middle = ((clean > 0.1) & (clean < 0.9)).all(1).all(1).all(1)
    assert middle.any() and set(signs[middle].unique().tolist()) == {-5, 5}
    assert ((lsp[middle][:, :, :8, :8] - lsp[middle][:, :, :1, :1]).abs() <= 1).all() and 5 < lsp[middle].std() < 7
    assert 4 < ar[middle].std() < 5
    assert ((ops != 0).any(1).sum((1, 2)) <= 1).all() and ops.any()


def test_results_follow_the_seed_and_leave_torch_alone(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    made = [
        (fitted(ramps(4, 0), tmp_path / name, seed) / "autoencoder.safetensors").read_bytes()
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert torch.equal(torch.get_rng_state(), state)
    assert made[0] == made[1] != made[2]


def test_own_pictures_of_any_size_and_mode_will_do(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shapes: list[tuple[int, ...]] = [(21, 34, 3), (21, 34), (9, 70, 4), (7, 5, 2), (1, 2, 3), (1, 1)]
    odd = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
    folder = fitted(odd, tmp_path / "odd")
    assert set(json.loads((folder / "detection.json").read_text())) == {"threshold", "auc", "auc_by_protection"}


def test_attackers_without_clean_pictures_are_told(tmp_path: Path) -> None:
    with pytest.raises(ArenaError, match=r"'auxiliary', which it was not granted: .*grant auxiliary samples"):
        attack().fit(AttackerWorld(seed=0), tmp_path)
    with pytest.raises(ArenaError, match="lightshed: there is no clean picture to protect"):
        attack().fit(AttackerWorld(seed=0, auxiliary=()), tmp_path)
    with pytest.raises(UsageError, match="a protection is named twice"):
        attack(protections=["ar", "ar"])
