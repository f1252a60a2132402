"""BridgePure: the bridge's formulas, what it learns of pairs, and pairs that are none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_samples import mixed_samples
from torch import Tensor

from arena.data.colours import colours, recoloured
from arena.data.embedded.glyphs import Glyphs
from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.plugins.base import AttackerWorld
from arena.plugins.registry import Registry
from attacks.image.bridgepure import Bridge, BridgePure, karras, moments, paired
from attacks.image.tiles import Tiling

QUICK = {"training_steps": 10, "steps": 2}


def purified(released: list[Sample], originals: list[Sample], seed: int = 0, **config: Any) -> list[Sample]:
    attack = Registry().create("attack", "bridgepure", {**QUICK, **config})
    return list(attack.purify(released, AttackerWorld(seed, originals=tuple(originals))))


def shifted(sample: Sample) -> Sample:
    """A sample whose colours all lie 16 levels higher."""
    values = np.minimum(colours(sample.image).astype(int) + 16, 255).astype(np.uint8)
    return sample.with_content(Image.fromarray(recoloured(sample.image, values)), sample.question)


@pytest.mark.parametrize("share", [0.05, 0.4, 0.8, 0.99])
def test_the_preconditioning_fits_the_pairs(share: float) -> None:
    rng = np.random.default_rng(0)
    start = rng.normal(0.2, 0.5, 400_000)
    end = start + rng.normal(0.05, 0.1, start.size)
    top = 2.0
    bridge = Bridge(None, top, (start**2).mean(), (end**2).mean(), (start * end).mean())
    t = share * top
    x = share**2 * end + (1 - share**2) * start + t * np.sqrt(1 - share**2) * rng.standard_normal(start.size)
    skip, out, c_in = (float(s) for s in bridge.scalings(torch.tensor(t, dtype=torch.float64)))
    assert c_in == pytest.approx((x**2).mean() ** -0.5, rel=0.01)
    assert skip == pytest.approx((start * x).mean() / (x**2).mean(), rel=0.01, abs=0.005)  # the best linear guess
    assert out == pytest.approx(((start - skip * x) ** 2).mean() ** 0.5, rel=0.01)


@dataclass(frozen=True)
class Knowing(Bridge):
    """A bridge that knows the original."""

    start: Tensor | None = None
    side = 16  # type: ignore[assignment]

    def original(self, both: Tensor, t: float) -> Tensor:
        assert self.start is not None
        return self.start


@pytest.mark.parametrize("churn", [0.0, 0.33])
@pytest.mark.parametrize("guidance", [0.0, 0.5])
def test_who_knows_the_original_is_led_to_it(churn: float, guidance: float) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.rand(1, 3, 16, 16, generator=generator) * 2 - 1
    end = (start + 0.1 * torch.randn(start.shape, generator=generator)).clamp(-1, 1)
    config = BridgePure.Config.model_validate({"churn": churn, "guidance": guidance, "steps": 12})
    bridge = Knowing(None, config.sigma_max, 0.3, 0.3, 0.29, start)
    found = bridge.crossed(end, Tiling((16, 16), (16, 16), 0.25), config, generator)
    assert (found - start).abs().max() < 1e-4 < 0.1 < (end - start).abs().max()


def test_guidance_leads_from_the_straight_way_to_the_mean_of_the_bridge() -> None:
    start, end = torch.zeros(1, 3, 16, 16), torch.full((1, 3, 16, 16), 0.1)

    def visited(guidance: float) -> list[tuple[float, float]]:
        config = BridgePure.Config.model_validate({"churn": 0, "guidance": guidance, "steps": 60})
        found: list[tuple[float, float]] = []

        class Noting(Knowing):
            def original(self, both: Tensor, t: float) -> Tensor:
                found.append((t / config.sigma_max, float(both[:, :3].mean())))
                return start

        bridge = Noting(None, config.sigma_max, 0.3, 0.3, 0.29, start)
        bridge.crossed(end, Tiling((16, 16), (16, 16), 0.25), config, torch.Generator())
        return [(t, x) for t, x in found if 0.2 < t < 0.8]

    for (t, straight), (_, half), (_, full) in zip(visited(0), visited(0.5), visited(1), strict=True):
        assert straight == pytest.approx(0.1 * t, rel=0.01)  # the solution without guidance
        assert 0.1 * t**2 < full < half < straight  # full guidance would be the mean, were the first step exact


def test_levels_fall_to_nothing() -> None:
    levels = karras(1.0, 8)
    assert len(levels) == 9 and levels == sorted(levels, reverse=True)
    assert levels[0] < 1 and levels[0] == pytest.approx(1, rel=1e-3) and levels[-2:] == [pytest.approx(0.002), 0]


def test_pictures_come_nearer_to_their_originals() -> None:
    """Of those that no pair was of."""
    samples = list(Glyphs().load(16, 0, 0, seed=3).train)
    released = [shifted(s) for s in samples]
    after = purified(released, samples[:8], training_steps=60, steps=3)
    apart = [
        np.mean(
            [
                np.abs(colours(a.image).astype(int) - colours(b.image)).mean()
                for a, b in list(zip(samples, some, strict=True))[8:]
            ]
        )
        for some in (released, after)
    ]
    assert apart[1] < 0.75 * apart[0]
    assert [(s.id, s.question, s.answer) for s in after] == [(s.id, s.question, s.answer) for s in samples]


def test_the_same_seed_gives_the_same_bytes_whatever_torch_drew_before() -> None:
    samples = list(Glyphs().load(3, 0, 0, seed=3).train)
    released = [shifted(s) for s in samples]
    runs = []
    for seed in (0, 0, 1):
        torch.rand(3)
        before = torch.random.get_rng_state()
        runs.append([s.image.tobytes() for s in purified(released, samples, seed)])
        assert torch.equal(before, torch.random.get_rng_state())
    assert runs[0] == runs[1] != runs[2]


def test_pictures_keep_size_mode_and_alpha() -> None:
    samples = mixed_samples(6)
    for before, after in zip(samples, purified([shifted(s) for s in samples], samples[:3]), strict=True):
        assert (after.image.size, after.image.mode) == (before.image.size, before.image.mode)
        if "A" in before.image.mode:
            assert after.image.getchannel("A").tobytes() == before.image.getchannel("A").tobytes()


def test_pairs_are_of_one_sample_and_one_size() -> None:
    samples = list(Glyphs().load(4, 0, 0, seed=3).train)
    released = [
        shifted(samples[3]),
        shifted(samples[1]),
        samples[0].with_content(samples[0].image.resize((20, 20)), "?"),
    ]
    ((start, end),) = paired(samples[:2], released)
    assert np.array_equal(start, np.asarray(samples[1].image)) and np.array_equal(end, np.asarray(released[1].image))
    variance, variance_end, covariance = moments([(start, end)])
    assert 0 < covariance**2 < variance * variance_end
    with pytest.raises(ArenaError, match="none of the originals has a released picture of its size"):
        purified(released, samples[:1])
    with pytest.raises(ArenaError, match=r"'originals', which it was not granted: .* a share of the released samples"):
        list(Registry().create("attack", "bridgepure", QUICK).purify(released, AttackerWorld(0)))
