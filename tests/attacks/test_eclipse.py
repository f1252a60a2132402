"""ECLIPSE: what a model of few clean pictures takes away, what fine-tuning sees, and who has no such pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel
from hooked import hooks
from PIL import Image
from tiny_models import tiny_random_llava

from arena.data.embedded.glyphs import Glyphs
from arena.data.sample import Sample
from arena.errors import ArenaError, UsageError
from arena.plugins.base import AttackerWorld
from arena.plugins.registry import Registry
from attacks.image import denoiser
from attacks.image.zoo import measure, train_ddpm

SIDE = 16


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of 16 x 16 pixels in place of the one of 48 x 48, which takes seconds a step."""

    def build() -> Any:
        return UNet2DModel(
            sample_size=SIDE,
            layers_per_block=1,
            block_out_channels=(32,),
            down_block_types=("DownBlock2D",),
            up_block_types=("UpBlock2D",),
            norm_num_groups=4,
            add_attention=False,
        )

    monkeypatch.setattr(train_ddpm, "build", build)


def ramps(count: int, seed: int) -> np.ndarray:
    """uint8 ``(count, 16, 16, 3)``: colours that change slowly."""
    corners = np.random.default_rng(seed).integers(30, 226, (count, 2, 2, 3), dtype=np.uint8)
    large = [Image.fromarray(c).resize((SIDE, SIDE), Image.Resampling.BILINEAR) for c in corners]
    return np.stack([np.asarray(image) for image in large])


def boards(count: int, seed: int) -> np.ndarray:
    """uint8 ``(count, 16, 16, 3)``: every pixel of a colour of its own."""
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


def samples(pixels: Sequence[np.ndarray] | np.ndarray) -> tuple[Sample, ...]:
    return tuple(Sample(str(i), Image.fromarray(x), "which clan?", "red") for i, x in enumerate(pixels))


def purified(
    own: Sequence[np.ndarray] | np.ndarray, released: Sequence[Sample], folder: Path, seed: int = 0, **config: object
) -> list[Image.Image]:
    attack = Registry().create("attack", "eclipse", {"training_steps": 70, **config})
    folder.mkdir()
    attack.fit(AttackerWorld(seed=seed, auxiliary=samples(own)), folder)
    after = list(attack.purify(released, AttackerWorld(seed=seed, auxiliary=samples(own), fitted=folder)))
    assert [(s.id, s.question, s.answer) for s in after] == [(s.id, s.question, s.answer) for s in released]
    return [s.image for s in after]


def pixels(images: Sequence[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(image) for image in images])


# The model


def test_perturbed_pictures_come_nearer_to_the_clean_ones_by_what_own_pictures_taught(
    small: None, tmp_path: Path
) -> None:
    clean = ramps(8, 1)
    perturbed = measure.random_sign(clean)
    before = measure.psnr(perturbed, clean).mean()
    after = {
        kind.__name__: measure.psnr(
            pixels(purified(kind(20, 2), samples(perturbed), tmp_path / kind.__name__)), clean
        ).mean()
        for kind in (ramps, boards)
    }
    assert after["ramps"] > before + 1
    assert after["ramps"] > after["boards"] + 3


def test_it_is_trained_on_levels_below_t_star_of_a_cosine_schedule(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels: list[int] = []
    forward: Callable[..., Any] = UNet2DModel.forward

    def noted(self: Any, x: torch.Tensor, level: Any, *args: Any, **kwargs: Any) -> Any:
        levels.extend(torch.as_tensor(level).reshape(-1).tolist())
        return forward(self, x, level, *args, **kwargs)

    monkeypatch.setattr(UNet2DModel, "forward", noted)
    purified(ramps(3, 0), samples(ramps(1, 1)), tmp_path / "fitted", training_steps=40)
    trained, asked = levels[: 40 * 8], levels[40 * 8 :]
    assert min(trained) < 5 and 95 <= max(trained) <= 99
    assert asked == list(range(99, 0, -10))
    scheduler = denoiser.load(str(tmp_path / "fitted"), "cpu").scheduler
    noise = (1 - scheduler.alphas_cumprod[99]).sqrt() * 127.5
    assert len(scheduler.alphas_cumprod) == 4000 and 6.3 < noise < 6.5


def test_it_starts_from_random_weights_of_the_seed(tmp_path: Path) -> None:
    """Nothing of the shipped model's weights, which know the pictures of the arena's datasets, is in it."""
    own = Glyphs().load(3, 0, 0, seed=1).train
    found = []
    for seed in (1, 2):
        (folder := tmp_path / str(seed)).mkdir()
        attack = Registry().create("attack", "eclipse", {"training_steps": 10})
        state = torch.get_rng_state()
        attack.fit(AttackerWorld(seed=seed, auxiliary=own), folder)
        assert torch.equal(torch.get_rng_state(), state)
        model = denoiser.load(str(folder), "cpu")
        assert model.size == (48, 48)
        found.append(torch.cat([weights.flatten() for weights in model.unet.parameters()]))
    shipped = denoiser.load(None, "cpu").unet
    found.append(torch.cat([weights.flatten() for weights in shipped.parameters()]))
    matrix = torch.corrcoef(torch.stack([x - x.mean() for x in found]))
    assert not attack.in_domain and matrix[0, 1] < 0.9 and matrix[0, 2] < 0.9


def test_results_follow_the_seed_and_sizes_and_modes_stay(small: None, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shapes: list[tuple[int, ...]] = [(21, 34, 3), (21, 34), (9, 70, 4), (7, 5, 2), (1, 2, 3), (1, 1)]
    odd = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]

    def bytes_of(name: str, seed: int) -> list[bytes]:
        after = purified(odd, samples(odd), tmp_path / name, seed, training_steps=10)
        for x, image in zip(samples(odd), after, strict=True):
            assert (image.size, image.mode) == (x.image.size, x.image.mode)
        return [image.tobytes() for image in after]

    assert bytes_of("a", 1) == bytes_of("b", 1) != bytes_of("c", 2)


def test_attackers_without_clean_pictures_are_told(tmp_path: Path) -> None:
    attack = Registry().create("attack", "eclipse")
    with pytest.raises(ArenaError, match=r"'auxiliary', which it was not granted: .*grant auxiliary samples"):
        attack.fit(AttackerWorld(seed=0), tmp_path)
    with pytest.raises(ArenaError, match="eclipse: there is no clean picture to train on"):
        attack.fit(AttackerWorld(seed=0, auxiliary=()), tmp_path)
    with pytest.raises(UsageError, match="101 steps are more than the 100 levels below t_star"):
        Registry().create("attack", "eclipse", {"steps": 101})


# Fine-tuning


def test_fine_tuning_sees_grey_and_noisy_pictures() -> None:
    colours = torch.tensor([0.5, 0.3, 0.4])[:, None, None].expand(3, 24, 24)
    luma = 0.299 * 0.5 + 0.587 * 0.3 + 0.114 * 0.4
    corruption = hooks("eclipse")
    draws = torch.stack([corruption.corrupted(colours) for _ in range(400)])
    means = draws.mean((2, 3))
    grey = (means - luma).abs().amax(1) < 0.02
    assert torch.allclose(means[~grey], colours[:, 0, 0].expand_as(means[~grey]), atol=0.02)
    assert 0.33 < grey.float().mean() < 0.47
    noise = draws - means[..., None, None]
    assert 0.048 < noise.std() < 0.052
    assert abs(torch.corrcoef(noise.transpose(0, 1).flatten(1))[0, 1]) < 0.02, "each colour has noise of its own"
    bounds = torch.stack([corruption.corrupted(torch.tensor([1.0, 0, 1])[:, None, None].expand(3, 9, 9))])
    assert bounds.min() >= 0 and bounds.max() <= 1


def test_without_corruptions_the_loss_is_that_of_plain_training(unequal: list[Sample]) -> None:
    lvlm = tiny_random_llava()
    batch = lvlm.encode(unequal)
    plain, none, some = (
        hook.loss(lvlm, batch, 0.0).item() if hook else lvlm.loss(batch).item()
        for hook in (None, hooks("eclipse", grayscale=0, sigma=0), hooks("eclipse"))
    )
    assert none == pytest.approx(plain, rel=1e-5) and some != pytest.approx(plain, rel=1e-5)
    assert hooks("eclipse").loss(lvlm, batch, 0.0).item() == pytest.approx(some, rel=1e-6)
