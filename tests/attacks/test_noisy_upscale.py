"""Noisy upscaling, with an upscaler whose weights are made by hand: what it is given, what it takes away, and what is
refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    StableDiffusionUpscalePipeline,
    UNet2DConditionModel,
    UNet2DModel,
)
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from arena.errors import ArenaError, UsageError
from arena.plugins.base import AttackerWorld
from arena.plugins.registry import Registry
from attacks.image.zoo import measure

ANCHOR = 1000.0
SCALE = 0.08333


def upscaled(images: list[Image.Image], checkpoint: object, seed: int = 0, **settings: object) -> list[Image.Image]:
    config = {"checkpoint": str(checkpoint), "steps": 2, **settings}
    attack = Registry().create("attack", "noisy-upscale", config)
    return list(attack.purify_images(images, AttackerWorld(seed=seed)))


def noised(images: list[Image.Image], seed: int = 0, **settings: object) -> list[Image.Image]:
    attack = Registry().create("attack", "gaussian-noise", {"sigma": 0.1, **settings})
    return list(attack.purify_images(images, AttackerWorld(seed=seed)))


def smooth(side: int = 48) -> Image.Image:
    """Colours that change slowly."""
    corners = np.random.default_rng(5).integers(40, 216, (3, 3, 3), dtype=np.uint8)
    return Image.fromarray(corners).resize((side, side), Image.Resampling.BILINEAR)


def error(image: Image.Image, clean: Image.Image) -> float:
    return float(np.square(np.asarray(image, float) - np.asarray(clean, float)).mean())


# An upscaler that averages 5 x 5 pixels, and enlarges what is left


def silence(model: nn.Module) -> None:
    """All weights 0: what is left of a network of residual blocks is its skips."""
    for name, weights in model.named_parameters():
        nn.init.constant_(weights, 1.0 if "norm" in name and name.endswith("weight") else 0.0)


def enter(layer: nn.Module, colours: int, kernel: Tensor) -> None:
    """Colours, the same negated, and two constants that leave nothing of the colours to a normalisation's mean and
    deviation; `colours` is the number of the first input channel."""
    with torch.no_grad():
        for i in range(3):
            layer.weight[i, colours + i] = kernel
            layer.weight[3 + i, colours + i] = -kernel
        layer.bias[6], layer.bias[7] = ANCHOR, -ANCHOR


def leave(layer: nn.Module, kernel: Tensor, gain: float) -> None:
    """The colours again: SiLU(v) - SiLU(-v) = v, and the deviation before it was half of the constants."""
    with torch.no_grad():
        for i in range(3):
            layer.weight[i, i] = kernel * gain * ANCHOR / 2
            layer.weight[i, 3 + i] = -kernel * gain * ANCHOR / 2


def same(layer: nn.Module) -> None:
    """The channels as they are, or the first of them."""
    with torch.no_grad():
        for i in range(len(layer.weight)):
            layer.weight[i, i, layer.weight.shape[2] // 2, layer.weight.shape[3] // 2] = 1


def write(folder: Path) -> Path:
    unet = UNet2DConditionModel(
        in_channels=7,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
        mid_block_type=None,
        norm_num_groups=1,
        cross_attention_dim=8,
        num_class_embeds=400,
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8,) * 3,
        norm_num_groups=1,
        latent_channels=4,
        scaling_factor=SCALE,
        mid_block_add_attention=False,
    )
    box, point = torch.full((3, 3), 1 / 9), torch.zeros(3, 3)
    point[1, 1] = 1
    for model in (unet, vae):
        silence(model)
    enter(unet.conv_in, 4, box)
    # The upper level adds what came down the skip, at full size; what went through the lower level is left out.
    resnet = unet.up_blocks[1].resnets
    with torch.no_grad():
        for i in range(8):
            resnet[0].conv_shortcut.weight[i, 8 + i] = 1
            resnet[1].conv_shortcut.weight[i, i] = 1
    leave(unet.conv_out, box, SCALE)
    same(vae.post_quant_conv)
    enter(vae.decoder.conv_in, 0, point)
    for block in vae.decoder.up_blocks[:2]:
        same(block.upsamplers[0].conv)
    leave(vae.decoder.conv_out, point, 1)
    text = CLIPTextConfig(
        vocab_size=4,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8,
        bos_token_id=2,
        eos_token_id=3,
    )
    words = folder / "words"
    words.mkdir(parents=True)
    vocabulary = {"a": 0, "a</w>": 1, "<|startoftext|>": 2, "<|endoftext|>": 3}
    (words / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (words / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    pipeline = StableDiffusionUpscalePipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=CLIPTokenizer.from_pretrained(words, model_max_length=8),
        unet=unet,
        low_res_scheduler=DDPMScheduler(beta_schedule="scaled_linear"),
        scheduler=DDIMScheduler(prediction_type="sample", clip_sample=False),
    )
    pipeline.save_pretrained(folder / "upscaler")
    return folder / "upscaler"


@pytest.fixture(scope="module")
def upscaler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("noisy-upscale"))


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, int]]:
    """The pictures in [-1, 1] that the upscaler is given, and the level it is told, at each of its steps."""
    steps: list[tuple[Tensor, int]] = []
    forward: Callable[..., Any] = UNet2DConditionModel.forward

    def noted(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        (level,) = set(kwargs["class_labels"].tolist())
        steps.append((x[:, 4:].clone(), level))
        return forward(self, x, *args, **kwargs)

    monkeypatch.setattr(UNet2DConditionModel, "forward", noted)
    return steps


def test_noise_and_what_it_covers_go(upscaler: Path) -> None:
    clean = smooth()
    perturbed = Image.fromarray(measure.random_sign(np.asarray(clean)[None])[0])
    (after,), (alone,) = upscaled([perturbed], upscaler), noised([perturbed])
    assert error(alone, clean) > 500
    assert error(after, clean) < 0.2 * error(alone, clean)
    x = np.asarray(perturbed, float) - np.asarray(clean, float)
    left = np.asarray(after, float) - np.asarray(clean, float)
    assert abs((x * left).sum()) < 0.2 * np.square(x).sum()


def test_the_noise_is_the_one_before_and_the_upscaler_is_told_of_more(
    upscaler: Path, seen: list[tuple[Tensor, int]]
) -> None:
    picture = smooth()
    upscaled([picture], upscaler)
    assert [level for _, level in seen] == [320, 320]
    (before,) = noised([picture])
    given = (seen[0][0][0].permute(1, 2, 0).numpy() + 1) / 2
    assert torch.equal(seen[0][0], seen[1][0])
    assert 0.085 < (given - np.asarray(picture) / 255).std() < 0.115
    own = given - np.asarray(before) / 255
    assert 0.002 < own.std() < 0.01, "the upscaler adds the noise of level 0"
    seen.clear()
    upscaled([picture], upscaler, noise_level=7, steps=3, sigma=0.3)
    assert [level for _, level in seen] == [7, 7, 7]
    assert (seen[0][0][0].permute(1, 2, 0).numpy() / 2 + 0.5 - np.asarray(picture) / 255).std() > 0.2


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA"])
@pytest.mark.parametrize("size", [(1, 1), (7, 30), (33, 20)])
def test_sizes_and_modes_stay(mode: str, size: tuple[int, int], upscaler: Path) -> None:
    before = smooth().resize(size).convert(mode)
    if mode in ("RGBA", "LA"):
        before.putalpha(Image.linear_gradient("L").resize(size))
    (after,) = upscaled([before], upscaler)
    assert (after.size, after.mode) == (size, mode)
    if mode in ("RGBA", "LA"):
        assert after.getchannel("A").tobytes() == before.getchannel("A").tobytes()


def test_results_follow_the_seed_and_no_other_picture(upscaler: Path) -> None:
    images = [smooth(), smooth(24), smooth()]
    state = torch.get_rng_state()
    together = [x.tobytes() for x in upscaled(images, upscaler)]
    assert torch.equal(torch.get_rng_state(), state)
    assert [x.tobytes() for x in upscaled(images, upscaler)] == together
    assert upscaled(images[:1], upscaler)[0].tobytes() == together[0]
    assert upscaled(images[:1], upscaler, seed=1)[0].tobytes() != together[0]


def test_levels_beyond_the_upscaler_are_refused(upscaler: Path) -> None:
    with pytest.raises(ArenaError, match=r"noise_level is 351, and .* knows levels up to 350 only: take a lower one"):
        upscaled([smooth()], upscaler, noise_level=351)
    with pytest.raises(UsageError, match="sigma"):
        Registry().create("attack", "noisy-upscale", {"sigma": 0})


def test_upscalers_that_cannot_be_loaded_are_named_with_a_remedy(
    upscaler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def refusal(checkpoint: object) -> str:
        with pytest.raises(ArenaError) as caught:
            upscaled([smooth(8)], checkpoint)
        assert repr(str(checkpoint)) in str(caught.value)
        assert "Give a folder, or a hub id that this machine can reach" in str(caught.value)
        return str(caught.value)

    def copied(name: str) -> Path:
        return Path(shutil.copytree(upscaler, tmp_path / name))

    refusal("no-such-owner/no-such-model@main")
    refusal(tmp_path / "nowhere")
    small = UNet2DModel(
        8, block_out_channels=(4,), down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), norm_num_groups=2
    )
    small.save_pretrained(tmp_path / "unet")
    refusal(tmp_path / "unet")
    other = copied("other")
    index = json.loads((other / "model_index.json").read_text(encoding="utf-8"))
    (other / "model_index.json").write_text(json.dumps(index | {"_class_name": "DDPMPipeline"}), encoding="utf-8")
    assert "that of DDPMPipeline" in refusal(other)
    pickled = copied("pickled")
    weights = pickled / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    refusal(pickled)
    for part, file in {"vae": "diffusion_pytorch_model", "text_encoder": "model"}.items():
        broken = copied(part)
        (broken / part / f"{file}.safetensors").write_bytes(b"nothing")
        refusal(broken)
    deeper = copied("deeper")
    config = deeper / "unet" / "config.json"
    text = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps(text | {"layers_per_block": 2}), encoding="utf-8")
    assert "the weights of its unet lack" in refusal(deeper)
    shutil.rmtree(copied("wordless") / "tokenizer")
    assert "its tokenizer knows " in refusal(tmp_path / "wordless")
    inpainting = UNet2DConditionModel.from_pretrained(upscaler, subfolder="unet").config
    UNet2DConditionModel.from_config({**inpainting, "in_channels": 9}).save_pretrained(copied("inpainting") / "unet")
    assert "its unet takes 9 channels, not 4 of a latent and 3 of a picture" in refusal(tmp_path / "inpainting")


def test_weights_are_identified(upscaler: Path, tmp_path: Path) -> None:
    def fingerprint(checkpoint: Path) -> str:
        return Registry().create("attack", "noisy-upscale", {"checkpoint": str(checkpoint)}).fingerprint()

    copy = Path(shutil.copytree(upscaler, tmp_path / "copy"))
    assert fingerprint(copy) == fingerprint(upscaler)
    (copy / "unet" / "config.json").write_text("{}", encoding="utf-8")
    assert fingerprint(copy) != fingerprint(upscaler)
