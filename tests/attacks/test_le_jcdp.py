"""LE-JCDP: many small rounds of diffusion, and two distances that hold pictures to what they were."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from kornia.metrics import ssim
from PIL import Image

from arena.errors import UsageError
from arena.plugins.base import AttackerWorld
from arena.plugins.registry import Registry
from attacks.image import denoiser
from attacks.image.le_jcdp import WINDOW, JointConditional, reverse_step, slope
from attacks.image.zoo import measure

COUNT = 3
QUICK = {"t_star": 4, "rounds": 2, "turn": 2}


@pytest.fixture(scope="module")
def clean() -> np.ndarray:
    return measure.held_out(COUNT)


def purified(pictures: np.ndarray, seed: int = 0, **settings: object) -> np.ndarray:
    attack = Registry().create("attack", "le-jcdp", settings)
    assert isinstance(attack, JointConditional)
    images = [Image.fromarray(x) for x in pictures]
    return np.stack([np.asarray(x) for x in attack.purify_images(images, AttackerWorld(seed=seed))])


def test_noise_goes_and_guidance_keeps_what_pictures_show(clean: np.ndarray) -> None:
    """Over the rounds a picture that nothing guides drifts off."""
    noisy = measure.random_sign(clean)
    before, after = (measure.psnr(x, clean).mean() for x in (noisy, purified(noisy)))
    assert after > before + 1.5
    guided, alone = (measure.psnr(purified(clean, **config), clean).mean() for config in ({}, {"guidance": 0}))
    assert guided > alone + 5


@pytest.mark.parametrize("turn", [0, 20])
def test_each_of_the_distances_guides(turn: int, clean: np.ndarray) -> None:
    """Squared errors at all levels, or looks at all levels."""
    guided, alone = (purified(clean, rounds=1, turn=turn, guidance=g) for g in (70_000, 0))
    assert measure.psnr(guided, clean).mean() > measure.psnr(alone, clean).mean() + 1


def test_slopes_are_those_of_the_distances() -> None:
    generator = torch.Generator().manual_seed(0)
    x, to = (2 * torch.rand(2, 3, 24, 20, generator=generator) - 1 for _ in range(2))
    assert torch.allclose(slope(x, to, squared=True), 2 * (x - to) / x[0].numel(), atol=1e-7)

    def alike(values: torch.Tensor) -> torch.Tensor:
        return ssim((values + 1) / 2, (to + 1) / 2, WINDOW).mean((1, 2, 3))

    uphill = slope(x, to, squared=False)
    assert (alike(x - 0.1 * uphill / uphill.abs().max()) > alike(x)).all()
    assert slope(x[..., :4, :6], to[..., :4, :6], squared=False).isfinite().all()
    assert torch.allclose(slope(x[:1], to[:1], squared=False), uphill[:1], atol=1e-7)  # of each picture alone


@pytest.mark.parametrize("level", [0, 1, 7, 19])
def test_the_reverse_step_is_ddpms(level: int) -> None:
    """As diffusers takes it, with the larger variance."""
    scheduler = DDPMScheduler(1000, variance_type="fixed_large")
    scheduler.set_timesteps(timesteps=list(range(19, -1, -1)))
    drawn = torch.Generator().manual_seed(1)
    x, predicted = (torch.randn(2, 3, 8, 8, generator=drawn) for _ in range(2))
    taken = scheduler.step(predicted, level, x, torch.Generator().manual_seed(2))
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    mean, variance = reverse_step(scheduler, level, x, taken.pred_original_sample)
    assert torch.allclose(mean + variance.sqrt() * noise * (level > 0), taken.prev_sample, atol=1e-5)
    assert variance > 0


def test_results_follow_the_seed_and_no_other_picture(clean: np.ndarray) -> None:
    first, same, other = (purified(clean, seed, **QUICK) for seed in (1, 1, 2))
    assert (first == same).all() and all((first[i] != other[i]).any() for i in range(COUNT))
    for others in (purified(clean, 1, batch_size=2, **QUICK), purified(clean[:1], 1, **QUICK)):
        apart = np.abs(others.astype(int) - first[: len(others)])
        assert apart.max() <= 1 and apart.mean() < 0.01  # sums are rounded otherwise


@pytest.mark.parametrize("mode", ["L", "RGBA"])
@pytest.mark.parametrize("size", [(1, 1), (40, 61)])
def test_sizes_and_modes_stay(mode: str, size: tuple[int, int], clean: np.ndarray) -> None:
    before = Image.fromarray(clean[0]).resize(size).convert(mode)
    attack = JointConditional(JointConditional.Config.model_validate(QUICK))
    (after,) = attack.purify_images([before], AttackerWorld(seed=0))
    assert (after.size, after.mode) == (size, mode)
    x, y = (np.asarray(picture.convert("RGB"), float) for picture in (before, after))
    assert np.abs(x - y).mean() < 12
    if mode == "RGBA":
        assert after.getchannel("A").tobytes() == before.getchannel("A").tobytes()


def test_its_model_counts_as_clean_data_and_is_part_of_what_a_cell_is() -> None:
    attack = JointConditional()
    assert attack.in_domain and attack.fingerprint() == Registry().create("attack", "diffpure").fingerprint()
    assert denoiser.load(None, "cpu").levels >= attack.config.t_star
    with pytest.raises(UsageError, match="guidance"):
        Registry().create("attack", "le-jcdp", {"guidance": -1})
