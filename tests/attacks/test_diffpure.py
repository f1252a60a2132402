"""Diffusion purification: what it restores and what it leaves, tiles without seams, and models that are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
from huggingface_hub import errors
from PIL import Image

from arena.data.embedded.glyphs import Glyphs
from arena.errors import ArenaError, UsageError
from arena.lvlm.base import LVLM
from arena.plugins.base import AttackerWorld
from arena.plugins.registry import Registry
from arena.suites.shipped import find_suite, shipped_suites
from attacks.image import denoiser
from attacks.image.denoiser import Denoiser
from attacks.image.diffpure import DiffPure, noise_levels, purify
from attacks.image.tiles import Tiling, padded
from attacks.image.zoo import measure, pictures, train_ddpm

COUNT = 6


@pytest.fixture(scope="module")
def lvlm() -> LVLM:
    return Registry().create("model", "tiny-llava", {}).load()


@pytest.fixture(scope="module")
def clean() -> np.ndarray:
    return measure.held_out(COUNT)


def purified(images: list[Image.Image], seed: int = 0, **settings: object) -> list[Image.Image]:
    return list(Registry().create("attack", "diffpure", settings).purify_images(images, AttackerWorld(seed=seed)))


def scene(width: int = 48, height: int = 48, mode: str = "RGB") -> Image.Image:
    return Image.fromarray(measure.held_out(1)[0]).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


# What it does with the model that comes with it


@pytest.mark.parametrize("kind", ["random sign", "adversarial"])
def test_perturbed_pictures_come_nearer_to_the_clean_ones(kind: str, clean: np.ndarray, lvlm: LVLM) -> None:
    perturbed = measure.random_sign(clean) if kind == "random sign" else measure.adversarial(clean, lvlm)
    assert 4 < np.abs(perturbed.astype(int) - clean).max() <= measure.EPSILON
    after = measure.purified(perturbed)
    assert measure.psnr(after, clean).mean() > measure.psnr(perturbed, clean).mean()
    if kind == "adversarial":  # the tower hardly sees random noise, and purification moves it further: see the card
        error = measure.feature_error(perturbed, clean, lvlm)
        assert measure.feature_error(after, clean, lvlm).mean() < error.mean()


def test_clean_pictures_are_not_ruined(clean: np.ndarray) -> None:
    after = measure.purified(clean)
    assert measure.psnr(after, clean).min() > 27


def test_more_noise_leaves_less(clean: np.ndarray) -> None:
    psnr = [measure.psnr(measure.purified(clean[:2], t_star=t, steps=4), clean[:2]).mean() for t in (10, 100, 500)]
    assert psnr[0] > psnr[1] + 1 > psnr[2] + 4


def test_results_follow_the_seed_and_the_sampler(clean: np.ndarray) -> None:
    image = [Image.fromarray(clean[0])]
    first, same, other = (purified(image, seed, steps=2)[0].tobytes() for seed in (1, 1, 2))
    ddpm = [purified(image, 1, steps=2, sampler="ddpm")[0].tobytes() for _ in range(2)]
    assert first == same != other and ddpm[0] == ddpm[1] != first


def test_a_picture_does_not_depend_on_its_batch(clean: np.ndarray) -> None:
    images = [Image.fromarray(x) for x in clean[:3]]
    together = [x.tobytes() for x in purified(images, steps=2)]
    assert [x.tobytes() for x in purified(images, steps=2, batch_size=2)] == together
    assert purified(images[:1], steps=2)[0].tobytes() == together[0]


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_a_picture_does_not_depend_on_pictures_of_other_sizes(sampler: str, tmp_path: Path) -> None:
    settings = {"checkpoint": write(tmp_path), "steps": 3, "t_star": 40, "sampler": sampler}
    images = [scene(16, 16), scene(16, 16, "L"), scene(30, 20), scene(9, 9), scene(30, 20), scene(30, 20)]
    together = purified(images, **settings)
    assert [x.size for x in together] == [x.size for x in images] and together[4].tobytes() != together[5].tobytes()
    for size in (1, 7):
        again = purified(images, batch_size=size, **settings)
        assert [x.tobytes() for x in again] == [x.tobytes() for x in together]
    changed = purified([*images[:2], scene(16, 16), *images[3:]], **settings)
    assert [i for i in range(6) if changed[i].tobytes() != together[i].tobytes()] == [2]


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA"])
@pytest.mark.parametrize("size", [(1, 1), (3, 50), (40, 40), (49, 48), (101, 61)])
def test_sizes_and_modes_stay(mode: str, size: tuple[int, int]) -> None:
    before = scene(*size, mode=mode)
    if mode in ("RGBA", "LA"):
        before.putalpha(Image.linear_gradient("L").resize(size))
    (after,) = purified([before], t_star=20, steps=1)
    assert (after.size, after.mode) == (size, mode) and after.tobytes() != before.tobytes()
    x, y = (np.asarray(picture.convert("RGB"), float) for picture in (before, after))
    assert np.abs(x - y).mean() < 12
    if mode in ("RGBA", "LA"):
        assert after.getchannel("A").tobytes() == before.getchannel("A").tobytes()


def test_tiles_leave_no_seams() -> None:
    """From pixel to pixel, the error changes no more where tiles begin and end than elsewhere."""
    large = np.asarray(scene(96, 96))

    def seams(after: np.ndarray, borders: list[int]) -> float:
        steps = np.abs(np.diff(after.astype(float) - large, axis=1)).mean((0, 2))
        places = np.array(borders) - 1
        return float(steps[places].mean() / np.delete(steps, places).mean())

    tiling = Tiling((96, 96), (48, 48), 0.25)
    borders = sorted({x + edge for _, x in tiling.places for edge in (0, 48)} - {0, 96})
    after = np.asarray(purified([Image.fromarray(large)])[0])
    assert len(tiling.places) == 9 and seams(after, borders) < 1.15
    quarters = measure.purified(np.stack([large[y : y + 48, x : x + 48] for y in (0, 48) for x in (0, 48)]))
    apart = np.concatenate([np.concatenate(list(quarters[i : i + 2]), 1) for i in (0, 2)])
    assert seams(apart, [48]) > 1.3 > seams(after, [48])


# The reverse process, with a model that knows the answer


class Oracle:
    """Predicts the very noise that separates its input from a known picture in [-1, 1]."""

    def __init__(self, clean: torch.Tensor, scheduler: Any) -> None:
        self.clean, self.scheduler = clean, scheduler
        self.levels: list[int] = []

    def __call__(self, x: torch.Tensor, level: int) -> Any:
        self.levels.append(level)
        a = self.scheduler.alphas_cumprod[level]
        noise = (x - a.sqrt() * self.clean) / (1 - a).sqrt()
        return type("Output", (), {"sample": noise})


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_a_perfect_model_restores_the_picture(sampler: str, variance: str, clean: np.ndarray) -> None:
    scheduler = DDPMScheduler(variance_type=variance)
    oracle = Oracle(train_ddpm.as_tensor(clean), scheduler)
    model = Denoiser("oracle", oracle, scheduler, (48, 48))
    settings = DiffPure.Config.model_validate({"t_star": 700, "steps": 7, "sampler": sampler})
    generators = [torch.Generator().manual_seed(i) for i in range(COUNT)]
    perturbed = measure.random_sign(clean)
    assert np.array_equal(purify(model, Tiling((48, 48), (48, 48), 0), perturbed, generators, settings), clean)
    assert oracle.levels == [699, 599, 499, 399, 299, 199, 99]


def test_ddim_is_that_of_diffusers(clean: np.ndarray) -> None:
    model = denoiser.load(None, "cpu")
    (after,) = purified([Image.fromarray(clean[0])], seed=3)
    (rng,) = np.random.default_rng(3).spawn(1)
    x = train_ddpm.as_tensor(clean[:1])
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(int(rng.integers(2**63))))
    scheduler = DDIMScheduler.from_config(model.scheduler.config)
    scheduler.set_timesteps(100)
    x = scheduler.add_noise(x, noise, torch.tensor([99]))
    with torch.inference_mode():
        for level in range(99, 0, -10):
            x = scheduler.step(model.unet(x, level).sample, level, x, use_clipped_model_output=True).prev_sample
    expected = ((x + 1) * 127.5).round().clamp(0, 255)[0].permute(1, 2, 0).numpy()
    assert np.abs(np.asarray(after, float) - expected).max() <= 1


@pytest.mark.parametrize(("t_star", "steps"), [(100, 10), (100, 100), (60, 7), (999, 998), (1, 1)])
def test_levels_go_down_evenly_from_t_star(t_star: int, steps: int) -> None:
    path = noise_levels(t_star, steps)
    levels = [level for level, _ in path]
    assert [following for _, following in path] == [*levels[1:], None]
    gaps = -np.diff(levels)
    assert levels[0] == t_star - 1 and levels[-1] >= 0 and len(levels) == steps
    assert gaps.size == 0 or (gaps.min() > 0 and np.ptp(gaps) <= 1)


# Tiles and padding


@pytest.mark.parametrize("sides", [(16, 16), (17, 40), (100, 33)])
@pytest.mark.parametrize("overlap", [0, 0.25, 0.5])
def test_tiles_cover_overlap_and_put_together_what_they_cut(sides: tuple[int, int], overlap: float) -> None:
    tiling = Tiling(sides, (16, 16), overlap)
    x = torch.rand(2, 3, *sides)
    sizes = []

    def noted(tiles: torch.Tensor) -> torch.Tensor:
        sizes.append(len(tiles))
        return tiles * 2

    assert torch.allclose(tiling.map(x, noted, batch=3), 2 * x, atol=1e-6)
    assert max(sizes) <= 3 and sum(sizes) == 2 * len(tiling.places)
    for axis in (0, 1):
        starts = np.unique([place[axis] for place in tiling.places])
        assert starts[0] == 0 and starts[-1] == sides[axis] - 16
        assert len(starts) == 1 or np.diff(starts).max() <= 16 * (1 - overlap)


@pytest.mark.parametrize("sides", [(1, 1), (5, 30), (16, 16), (20, 3)])
def test_padding_mirrors_and_is_cut_off(sides: tuple[int, int]) -> None:
    x = np.random.default_rng(0).integers(0, 256, (*sides, 3), dtype=np.uint8)
    frame, place = padded(x, (16, 18))
    assert frame.shape == (max(sides[0], 16), max(sides[1], 18), 3) and np.array_equal(frame[place], x)
    assert {tuple(v) for v in frame.reshape(-1, 3)} == {tuple(v) for v in x.reshape(-1, 3)}


# Checkpoints

INDEX = {
    "_class_name": "DDPMPipeline",
    "scheduler": ["diffusers", "DDPMScheduler"],
    "unet": ["diffusers", "UNet2DModel"],
}


def write(folder: Path, index: dict[str, Any] = INDEX, parts: bool = True, levels: int = 50, **unet: Any) -> str:
    """An untrained model of 16 x 16 pixels; with `parts` in folders of their own, as pipelines are saved today."""
    settings = {
        "sample_size": 16,
        "layers_per_block": 1,
        "block_out_channels": (8, 8),
        "down_block_types": ("DownBlock2D",) * 2,
        "up_block_types": ("UpBlock2D",) * 2,
        "norm_num_groups": 4,
        "add_attention": False,
    }
    torch.manual_seed(0)
    variance = "learned_range" if unet.get("out_channels") == 6 else "fixed_large"
    UNet2DModel(**(settings | unet)).save_pretrained(folder / "unet" if parts else folder)
    scheduler = DDPMScheduler(num_train_timesteps=levels, variance_type=variance)
    scheduler.save_pretrained(folder / "scheduler" if parts else folder)
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    return str(folder)


def refusal(checkpoint: str, **settings: object) -> str:
    with pytest.raises(ArenaError) as caught:
        purified([scene()], checkpoint=checkpoint, **settings)
    return str(caught.value)


@pytest.mark.parametrize("unet", [{}, {"out_channels": 6}, {"sample_size": (16, 24)}], ids=str)
@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_other_checkpoints_are_used_with_their_own_schedule(unet: dict[str, Any], sampler: str, tmp_path: Path) -> None:
    checkpoint = write(tmp_path / "new", **unet)
    early = write(tmp_path / "early", parts=False, **unet)
    settings = {"t_star": 50, "steps": 3, "sampler": sampler}
    (after,) = purified([scene(30, 20)], checkpoint=checkpoint, **settings)
    assert after.size == (30, 20)
    assert after.tobytes() == purified([scene(30, 20)], checkpoint=early, **settings)[0].tobytes()


def test_t_star_beyond_the_schedule_is_refused(tmp_path: Path) -> None:
    text = refusal(write(tmp_path), t_star=51)
    assert "t_star is 51" in text and str(tmp_path) in text and "noise levels 1 to 50 only: take a lower one" in text
    for settings in ({"t_star": 0}, {"t_star": 5, "steps": 6}):
        with pytest.raises(UsageError, match="t_star"):
            Registry().create("attack", "diffpure", settings)


def conditional(**parts: list[str | None]) -> dict[str, Any]:
    return {"_class_name": "SomePipeline", "scheduler": ["diffusers", "DDPMScheduler"], **parts}


KINDS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "text to image": (
        conditional(
            unet=["diffusers", "UNet2DConditionModel"],
            vae=["diffusers", "AutoencoderKL"],
            safety_checker=[None, None],
        ),
        {},
        "a SomePipeline made of scheduler (DDPMScheduler), unet (UNet2DConditionModel), vae (AutoencoderKL)",
    ),
    "latent": (conditional(unet=["diffusers", "UNet2DModel"], vqvae=["diffusers", "VQModel"]), {}, "vqvae (VQModel)"),
    "transformer": (conditional(transformer=["diffusers", "DiTTransformer2DModel"]), {}, "DiTTransformer2DModel"),
    "score": (INDEX | {"scheduler": ["diffusers", "ScoreSdeVeScheduler"]}, {}, "scheduled by ScoreSdeVeScheduler"),
    "of classes": (INDEX, {"num_class_embeds": 3}, "must be told the class"),
    "grey": (INDEX, {"in_channels": 1, "out_channels": 1}, "1 channels in and 1 out, where RGB needs 3"),
    "latents as pictures": (INDEX, {"in_channels": 4, "out_channels": 4}, "4 channels in and 4 out"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_models_of_another_kind_are_refused(kind: str, tmp_path: Path) -> None:
    index, unet, problem = KINDS[kind]
    text = refusal(write(tmp_path, index, **unet), t_star=20)
    assert "it is a model of another kind" in text and problem in text and "Give a folder, or a hub id" in text


def test_what_is_no_diffusion_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llava"}', encoding="utf-8")
    assert "has no model_index.json: it is no checkpoint of a diffusers pipeline" in refusal(str(tmp_path))
    (tmp_path / "model_index.json").write_text("[]", encoding="utf-8")
    assert "model_index.json is no JSON object" in refusal(str(tmp_path))
    (tmp_path / "model_index.json").write_text("{", encoding="utf-8")
    assert "model_index.json cannot be read" in refusal(str(tmp_path))


def test_weights_that_are_no_safetensors_or_do_not_fit_are_refused(tmp_path: Path) -> None:
    checkpoint = write(tmp_path)
    config, weights = (tmp_path / "unet" / name for name in ("config.json", "diffusion_pytorch_model.safetensors"))
    document = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps(document | {"layers_per_block": 2}), encoding="utf-8")
    assert "weights do not fit its configuration" in refusal(checkpoint)
    config.write_text(json.dumps(document | {"block_out_channels": [8, 16]}), encoding="utf-8")
    assert f"diffusion model {checkpoint!r} cannot be loaded" in refusal(checkpoint)
    config.write_text(json.dumps(document), encoding="utf-8")
    weights.write_bytes(weights.read_bytes()[:1000])
    assert f"diffusion model {checkpoint!r} cannot be loaded" in refusal(checkpoint)
    weights.rename(weights.with_suffix(".bin"))
    assert "diffusion_pytorch_model.safetensors" in refusal(checkpoint)
    (Path(write(tmp_path)) / "scheduler" / "scheduler_config.json").unlink()
    assert "scheduler_config.json" in refusal(checkpoint)


def test_weights_are_identified(tmp_path: Path) -> None:
    def fingerprint(**settings: object) -> str:
        return Registry().create("attack", "diffpure", settings).fingerprint()

    one, same, other = write(tmp_path / "one"), write(tmp_path / "same"), write(tmp_path / "other", levels=60)
    assert fingerprint(checkpoint=one) == fingerprint(checkpoint=same) != fingerprint(checkpoint=other)
    assert fingerprint() == fingerprint(checkpoint=str(denoiser.SHIPPED)) != fingerprint(checkpoint=one)


def test_a_hub_id_that_cannot_be_reached_is_named_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(name: str, file: str, revision: str) -> str:
        asked.append((name, file, revision))
        raise errors.LocalEntryNotFoundError("the hub cannot be reached")

    assert "diffusion model 'no//such///model' cannot be loaded" in refusal("no//such///model")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    text = refusal("who/what@v2")
    assert asked == [("who/what", "model_index.json", "v2")]
    assert "'who/what@v2' cannot be loaded: the hub cannot be reached. Give a folder, or a hub id that this" in text


def test_a_hub_id_is_fetched_without_what_is_not_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write(tmp_path)
    patterns: list[str] = []

    def fetch(name: str, revision: str, allow_patterns: list[str]) -> str:
        assert (name, revision) == ("who/what", "main")
        patterns.extend(allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda name, file, revision: str(tmp_path / file))
    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert purified([scene()], checkpoint="who/what", t_star=5, steps=1)[0].size == (48, 48)
    assert "unet/diffusion_pytorch_model*.safetensors*" in patterns and not any("bin" in p for p in patterns)


# How the model was trained


def test_training_goes_on_from_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"BATCH": 1, "CHECKPOINT_EVERY": 2, "WARM_UP": 2, "FALL": (2, 5)}.items():
        monkeypatch.setattr(train_ddpm, name, value)

    class Killed(Exception):
        pass

    def kill(line: str) -> None:
        raise Killed

    whole = train_ddpm.Training(tmp_path / "whole", lambda line: None, steps=4).run().state_dict()
    with pytest.raises(Killed):
        train_ddpm.Training(tmp_path / "killed", kill, steps=4).run()
    resumed = train_ddpm.Training(tmp_path / "killed", lambda line: None, steps=4)
    assert resumed.step == 2
    found = resumed.run().state_dict()
    assert all(torch.equal(found[name], weights) for name, weights in whole.items())


def test_trained_pictures_are_nobodys_test_pictures() -> None:
    used = {pictures.TRAINING, pictures.HELD_OUT}
    assert len(used) == 2
    for suite in map(find_suite, shipped_suites()):
        assert not used & set(suite.seeds)
    drawn = {pictures.picture(pictures.stream(pictures.TRAINING, step)).tobytes() for step in range(50)}
    assert len(drawn) == 50
    for seed in (*range(3), *used):
        splits = Glyphs().load(20, 20, 20, seed)
        assert not drawn & {s.image.tobytes() for part in (splits.train, splits.auxiliary, splits.test) for s in part}
