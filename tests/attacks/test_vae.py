"""Autoencoders as purifiers: what they keep of pictures, what of perturbations, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DModel
from PIL import Image

from arena.data.embedded.glyphs import Glyphs
from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.plugins.base import AttackerWorld
from arena.plugins.registry import Registry

Pictures = list[Image.Image]


def glyphs(count: int) -> list[Sample]:
    return list(Glyphs().load(count, 0, 0, seed=77).train)


def purified(id: str, samples: list[Sample], seed: int = 0, **config: object) -> Pictures:
    attack = Registry().create("attack", id, config)
    after = list(attack.purify(samples, AttackerWorld(seed=seed)))
    assert [(s.id, s.question, s.answer) for s in after] == [(s.id, s.question, s.answer) for s in samples]
    return [s.image for s in after]


def pixels(images: Pictures) -> np.ndarray:
    return np.stack([np.asarray(image, float) for image in images])


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(a - b).mean()))


def mixed() -> list[Sample]:
    """All modes, odd sizes, some smaller than a block and one larger than a crop."""
    rng = np.random.default_rng(0)
    shapes: list[tuple[int, ...]] = [(21, 34, 3), (21, 34), (9, 70, 4), (7, 5, 2), (1, 2, 3), (21, 34, 3)]
    pictures = [Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)) for shape in shapes]
    return [Sample(str(i), image, "which clan?", ("fox", "owl")[i % 2]) for i, image in enumerate(pictures)]


def same_frames(before: list[Sample], after: Pictures) -> None:
    for sample, image in zip(before, after, strict=True):
        assert (image.size, image.mode) == (sample.image.size, sample.image.mode)
        if image.mode in ("LA", "RGBA"):
            assert image.getchannel("A").tobytes() == sample.image.getchannel("A").tobytes()


# vae


def test_pictures_survive_and_noise_is_reduced() -> None:
    clean = glyphs(32)
    x = pixels([s.image for s in clean])
    noise = np.random.default_rng(1).choice([-8.0, 8.0], x.shape)
    noisy = [
        s.with_content(Image.fromarray(y.clip(0, 255).astype(np.uint8)), s.question)
        for s, y in zip(clean, x + noise, strict=True)
    ]
    noise = pixels([s.image for s in noisy]) - x
    kept, cleaned = (pixels(purified("vae", part, steps=60)) for part in (clean, noisy))
    assert psnr(kept, x) > 28

    def correlation(a: np.ndarray) -> float:
        return float((a * noise).sum() / np.sqrt(np.square(a).sum() * np.square(noise).sum()))

    assert correlation(cleaned - x) < 0.9
    assert ((cleaned - x) * noise).sum() < 0.85 * np.square(noise).sum()


def test_a_lower_rate_keeps_less() -> None:
    samples = glyphs(16)
    x = pixels([s.image for s in samples])
    rates = ({"low_rate": 0.05, "high_rate": 0.05}, {"low_rate": 8.0, "high_rate": 8.0})
    low, high = (psnr(pixels(purified("vae", samples, steps=40, **rate)), x) for rate in rates)
    assert low < high - 3


def test_modes_sizes_and_determinism() -> None:
    before = mixed()
    after = purified("vae", before, steps=6)
    same_frames(before, after)
    assert [i.tobytes() for i in after] != [s.image.tobytes() for s in before]
    state = torch.get_rng_state()
    assert [i.tobytes() for i in purified("vae", before, steps=6)] == [i.tobytes() for i in after]
    assert torch.equal(torch.get_rng_state(), state)
    assert [i.tobytes() for i in purified("vae", before, 1, steps=6)] != [i.tobytes() for i in after]


# vae-trans


def test_a_checkpoint_is_identified(tmp_path: Path) -> None:
    def fingerprint(checkpoint: object) -> str:
        return Registry().create("attack", "vae-trans", {"checkpoint": str(checkpoint)}).fingerprint()

    for name, content in (("a", "{}"), ("b", "{}"), ("c", "[]")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(content, encoding="utf-8")
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b") != fingerprint(tmp_path / "c")


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small AutoencoderKL of factor 2, briefly fitted on glyphs."""
    torch.manual_seed(0)
    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        latent_channels=4,
        mid_block_add_attention=False,
    )
    x = torch.from_numpy(pixels([s.image for s in glyphs(8)])).float().permute(0, 3, 1, 2) / 127.5 - 1
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(40):
        loss = (model.decode(model.encode(x).latent_dist.mode()).sample - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    folder = tmp_path_factory.mktemp("autoencoder")
    model.save_pretrained(folder)
    return str(folder)


def test_projection_is_what_the_autoencoder_makes_of_a_picture(autoencoder: str) -> None:
    samples = glyphs(24)[-4:]
    x = pixels([s.image for s in samples])
    after = pixels(purified("vae-trans", samples, checkpoint=autoencoder))
    assert psnr(after, x) > psnr(x.mean((1, 2), keepdims=True), x)
    model = AutoencoderKL.from_pretrained(autoencoder)
    with torch.no_grad():
        z = model.encode(torch.from_numpy(x).float().permute(0, 3, 1, 2) / 127.5 - 1).latent_dist.mode()
        expected = ((model.decode(z).sample + 1) * 127.5).clamp(0, 255).permute(0, 2, 3, 1).numpy()
    assert np.abs(after - expected).max() <= 0.6


def test_projection_of_any_mode_and_size(autoencoder: str) -> None:
    before = mixed()
    after = purified("vae-trans", before, checkpoint=autoencoder)
    same_frames(before, after)
    assert [i.tobytes() for i in purified("vae-trans", before, checkpoint=autoencoder)] == [i.tobytes() for i in after]


def test_autoencoders_that_cannot_be_loaded_are_named_with_a_remedy(
    autoencoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def refusal(checkpoint: Path | str) -> str:
        with pytest.raises(ArenaError) as error:
            purified("vae-trans", glyphs(1), checkpoint=str(checkpoint))
        assert str(checkpoint) in str(error.value) and "of a diffusers AutoencoderKL in safetensors" in str(error.value)
        return str(error.value)

    refusal("no-such-owner/no-such-model@main")
    refusal(tmp_path / "nowhere")
    small = UNet2DModel(
        8, block_out_channels=(4,), down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), norm_num_groups=2
    )
    small.save_pretrained(tmp_path / "unet")
    assert "that of UNet2DModel" in refusal(tmp_path / "unet")
    AutoencoderKL.from_pretrained(autoencoder).save_pretrained(tmp_path / "pickled", safe_serialization=False)
    refusal(tmp_path / "pickled")
    broken = tmp_path / "broken"
    AutoencoderKL.from_pretrained(autoencoder).save_pretrained(broken)
    (broken / "diffusion_pytorch_model.safetensors").write_bytes(b"nothing")
    refusal(broken)
