"""Placeholders as transformers' own processors write them into the hub's chat templates, and tokens that stand for the
pixels that they are said to."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from families import FAMILIES
from PIL import Image
from skimage import data as photographs
from torch import nn
from transformers import (
    Glm4vProcessor,
    InternVLConfig,
    InternVLProcessor,
    Qwen2_5_VLProcessor,
    Qwen3VLProcessor,
)

from arena.lvlm import pixels
from arena.lvlm.adapters import with_model
from arena.lvlm.base import LVLM
from arena.lvlm.families import patch_lists
from arena.lvlm.zoo import random_checkpoints

QUESTION = "where is the circle?"
QWEN = f"<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
PROMPTS: dict[str, tuple[Any, str]] = {
    "qwen2.5-vl": (Qwen2_5_VLProcessor, f"<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{QWEN}"),
    "qwen3-vl": (Qwen3VLProcessor, QWEN),
    "internvl": (
        InternVLProcessor,
        f"<|im_start|>user\n<IMG_CONTEXT>\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n",
    ),
    "glm4v": (
        Glm4vProcessor,
        f"[gMASK]<sop><|user|>\n<|begin_of_image|><|image|><|end_of_image|>{QUESTION}<|assistant|>\n",
    ),
}
"""Class of the processor, and what the hub's chat template makes of a picture and a question."""


def load(name: str, folder: Path) -> Any:
    random_checkpoints.write(name, folder)
    return FAMILIES[name].lvlm.from_pretrained(folder)


@pytest.mark.parametrize("name", PROMPTS)
def test_prompts_are_the_hubs(name: str, tmp_path: Path) -> None:
    lvlm, (processor, template) = load(name, tmp_path), PROMPTS[name]
    placeholder = str(lvlm.tokenizer.convert_ids_to_tokens(lvlm.image_token_id))
    without_tokenizer = SimpleNamespace(
        image_processor=lvlm.processor,
        image_token=placeholder,
        image_seq_length=getattr(lvlm.model.config, "image_seq_length", None),
        start_image_token="<img>",
        end_image_token="</img>",
    )
    for size in [(48, 48), (60, 150), (333, 500), (120, 50)]:
        output = FAMILIES[name].processed(lvlm, [Image.new("RGB", size[::-1])])
        text = template.replace(placeholder, processor.replace_image_token(without_tokenizer, output, 0))
        assert lvlm.encode_text(size, QUESTION, None).ids == lvlm.tokenizer(text)["input_ids"], size


def test_the_real_internvl_has_256_tokens_a_tile(tmp_path: Path) -> None:
    small = load("internvl", tmp_path)
    config = InternVLConfig(image_token_id=small.image_token_id)
    real = with_model(small, SimpleNamespace(config=config))
    real.processor = type(small.processor)(size={"height": 448, "width": 448})
    for size, tiles in {(448, 448): 1, (448, 896): 3, (480, 640): 13, (1344, 1344): 10}.items():
        assert real.image_text(*size).count("<IMG_CONTEXT>") == 256 * tiles
        assert real.processor.get_number_of_image_patches(*size, {"crop_to_patches": True}) == tiles


BLIND = {
    "internvl": lambda model: setattr(model.vision_tower.encoder, "layer", nn.ModuleList()),
    "glm4v": lambda model: setattr(model.visual, "blocks", nn.ModuleList()),
    "qwen2.5-vl": lambda model: setattr(model.visual, "blocks", nn.ModuleList()),
}
"""Takes out all layers in which tokens see each other."""


@pytest.mark.parametrize("name", BLIND)
def test_a_token_sees_the_pixels_of_its_place(name: str, tmp_path: Path) -> None:
    """Where it is the only one, the gradient of its features lies in the region whose change is its rho."""
    lvlm: LVLM = load(name, tmp_path)
    model: Any = lvlm.module("model")
    BLIND[name](model)
    picture = Image.fromarray(photographs.coffee()).resize((200, 90))
    inputs = lvlm.pixel_inputs([pixels.to_tensor(picture)])
    leaf = inputs["pixel_values"].requires_grad_()
    found = model.get_image_features(**inputs, return_dict=True).pooler_output
    features = torch.cat(list(found)) if isinstance(found, tuple) else found.flatten(0, 1)
    assert len(features) == len(lvlm.token_means({"pixel_values": leaf.detach()})[0])
    for token in (0, 1, len(features) // 2, len(features) - 2, len(features) - 1):
        (gradient,) = torch.autograd.grad(features[token].square().sum(), leaf, retain_graph=True)
        (seen,) = lvlm.token_means({"pixel_values": gradient})
        assert seen.nonzero().flatten().tolist() == [token]


def test_padding_is_what_holds_no_number_at_all() -> None:
    rows = patch_lists.pad([torch.rand(3, 2, 4), torch.rand(1, 2, 4)])
    assert rows.shape == (2, 3, 2, 4)
    rows[0, 1, 0, 0] = float("nan")  # of a diverged picture: it must not vanish
    assert [len(x) for x in patch_lists.unpad(rows)] == [3, 1]
