"""The table that drives the tests of families: one row a family."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from PIL import Image
from skimage import data as photographs
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    CLIPImageProcessorPil,
    Gemma3ImageProcessorPil,
    Glm4vImageProcessorPil,
    GotOcr2ImageProcessorPil,
    Idefics3ImageProcessorPil,
    MiniCPMV4_6ImageProcessorPil,
    MllamaImageProcessorPil,
    Qwen2VLImageProcessorPil,
    SmolVLMImageProcessorPil,
)
from transformers.models.mllama.processing_mllama import (
    convert_sparse_cross_attention_mask_to_dense,
    get_cross_attention_token_mask,
)

from arena.lvlm.base import LVLM
from arena.lvlm.batch import IGNORE, Batch
from arena.lvlm.families.gemma3 import checkpoints as gemma3
from arena.lvlm.families.gemma3.model import Gemma3
from arena.lvlm.families.glm4v import checkpoints as glm4v
from arena.lvlm.families.glm4v.model import Glm4v
from arena.lvlm.families.idefics3 import checkpoints as idefics3
from arena.lvlm.families.idefics3.model import Idefics3, SmolVLM
from arena.lvlm.families.internvl import checkpoints as internvl
from arena.lvlm.families.internvl.model import InternVL
from arena.lvlm.families.llava import checkpoints as llava
from arena.lvlm.families.llava.model import Llava
from arena.lvlm.families.minicpmv import checkpoints as minicpmv
from arena.lvlm.families.minicpmv.hybrid import packed
from arena.lvlm.families.minicpmv.model import MiniCPMV
from arena.lvlm.families.mllama import checkpoints as mllama
from arena.lvlm.families.mllama.model import Mllama
from arena.lvlm.families.qwen_vl import checkpoints as qwen_vl
from arena.lvlm.families.qwen_vl.qwen2_5 import Qwen2_5VL
from arena.lvlm.families.qwen_vl.qwen3 import Qwen3VL


def as_is(lvlm: LVLM, given: Any) -> Any:
    return given


@dataclass(frozen=True)
class Family:
    """`block` is the side in pixels of an image token where nothing is resized, `tokens` counts what the processor's
    own output makes, `extra` gives what transformers' model takes beside ids, mask and the processor's output, `hub`
    the preprocessing values of the registered checkpoints, `large` those of them that make so big pictures that fewer
    are tested, `from_torchvision` how far 8-bit values may be from those of the processor on torchvision where it is
    more than 2, and `asked` what transformers' `Processor` of the family asks of its picture processor whatever those
    say. `pictures` hands the processor one picture a sample, `place` is the token of the second row and fourth column
    of 6 x 6 blocks, `overview` counts the tokens that show all of them once more.

    Where our inputs are not those of transformers' own model, `native` and `native_pixels` make them so, and
    `attention` makes of its attentions what a layer's should be here.
    """

    lvlm: Any
    processor: Any
    block: int
    tokens: Callable[[dict[str, Tensor]], list[int]]
    hub: dict[str, Mapping[str, Any]]
    trained_by_projector: tuple[str, ...]
    extra: Callable[[LVLM, Tensor], dict[str, Tensor]] = field(default=lambda lvlm, ids: {})
    asked: dict[str, Any] = field(default_factory=dict)
    native: Callable[[LVLM, Batch], Batch] = as_is
    native_pixels: Callable[[LVLM, dict[str, Tensor]], dict[str, Tensor]] = as_is
    attention: Callable[[LVLM, Batch, tuple[Tensor, ...]], Sequence[Tensor]] = lambda lvlm, batch, theirs: theirs
    layers: int = 2
    projections: int = 7
    pictures: Callable[[list[Any]], Any] = list
    place: int = 6 + 3
    overview: int = 0
    large: tuple[str, ...] = ()
    from_torchvision: dict[str, float] = field(default_factory=dict)

    def processed(self, lvlm: LVLM, images: list[Image.Image]) -> Any:
        """What transformers makes of pictures."""
        return lvlm.processor(self.pictures(images), return_tensors="pt", **self.asked)


def photograph(height: int, width: int, seed: int = 0) -> Image.Image:
    """A resize of one of the photographs that come with scikit-image."""
    source = [photographs.astronaut(), photographs.coffee(), photographs.chelsea()][seed % 3]
    return Image.fromarray(source).resize((width, height), Image.Resampling.BILINEAR)


def token_change(lvlm: LVLM, clean: list[Tensor], released: list[Tensor]) -> list[Tensor]:
    """The mean change of the region of each image token, one ``(tokens,)`` per picture."""
    before, after = lvlm.pixel_inputs(clean), lvlm.pixel_inputs(released)
    return lvlm.token_means({k: after[k] - before[k] for k in after if after[k].is_floating_point()})


def grid_tokens(output: dict[str, Tensor]) -> list[int]:
    return (output["image_grid_thw"].prod(1) // 4).tolist()


def tile_tokens(output: dict[str, Tensor]) -> list[int]:
    """Of tiles of 2 x 2 tokens."""
    return (4 * output["pixel_attention_mask"].any(-1).any(-1).sum(1)).tolist()


def token_types(lvlm: LVLM, ids: Tensor) -> dict[str, Tensor]:
    return {"mm_token_type_ids": (ids == lvlm.image_token_id).int()}


def view_tokens(output: Any) -> list[int]:
    """Image tokens of MiniCPM-V's pictures, each seen in several views."""
    views = (output["target_sizes"].prod(1) // 16).split(output["num_patches_per_image"])
    return [int(counts.sum()) for counts in views]


def strip(lvlm: LVLM, given: dict[str, Tensor]) -> dict[str, Tensor]:
    patch = lvlm.processor.patch_size
    return dict(zip(given, packed(given["pixel_values"], given["target_sizes"], patch), strict=True))


TILE = 37
"""Keys of a tile of the random Llama-3.2-Vision: a class token and 6 x 6 patches."""


def seen_tokens(output: dict[str, Tensor]) -> list[int]:
    return (output["aspect_ratio_mask"].sum(2).flatten() * (TILE - 1)).tolist()


def tokens_and_keys(lvlm: LVLM, ids: Tensor) -> tuple[list[int], list[int]]:
    """Places of tokens, and of the picture's keys, in a sequence with places for both."""
    image = (ids == lvlm.image_token_id).nonzero().flatten().tolist()
    return [i for i in range(len(ids)) if i not in image[1:]], image[1:]


def without_keys(lvlm: LVLM, batch: Batch) -> Batch:
    kept = [tokens_and_keys(lvlm, ids)[0] for ids in batch.input_ids]

    def cut(rows: Tensor, padding: int) -> Tensor:
        return pad_sequence([row[k] for row, k in zip(rows, kept, strict=True)], True, padding)

    ids, mask = cut(batch.input_ids, lvlm.tokenizer.pad_token_id), cut(batch.attention_mask, 0)
    return replace(batch, input_ids=ids, attention_mask=mask, labels=cut(batch.labels, IGNORE))


def tiles_seen(lvlm: LVLM, ids: Tensor) -> dict[str, Tensor]:
    """As transformers' processor says it, from the tokens of each sequence."""
    parts = [tokens_and_keys(lvlm, row) for row in ids]
    masks = [
        get_cross_attention_token_mask(row[tokens].tolist(), lvlm.image_token_id)
        for row, (tokens, _) in zip(ids, parts, strict=True)
    ]
    counts = [[len(keys) // TILE] for _, keys in parts]
    length = max(len(tokens) for tokens, _ in parts)
    return {
        "cross_attention_mask": torch.tensor(convert_sparse_cross_attention_mask_to_dense(masks, counts, 4, length))
    }


def all_tiles(lvlm: LVLM, given: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**given, "pixel_values": lvlm.model._tiles(given["pixel_values"])}


def half_and_half(lvlm: LVLM, batch: Batch, theirs: tuple[Tensor, ...]) -> list[Tensor]:
    """Half of a cross-attention layer's weights at the picture's keys, half of the next layer's at the tokens."""
    joined = []
    for cross, text in ((theirs[1], theirs[2]), (theirs[4], theirs[5])):
        rows = torch.zeros(*text.shape[:2], *[batch.input_ids.shape[1]] * 2)
        for i, ids in enumerate(batch.input_ids):
            tokens, keys = tokens_and_keys(lvlm, ids)
            here = torch.tensor(tokens)[:, None]
            rows[i][:, here, tokens] = text[i, :, : len(tokens), : len(tokens)] / 2
            rows[i][:, here, keys] = cross[i, :, : len(tokens), : len(keys)] / 2
        joined.append(rows)
    return joined


FAMILIES: dict[str, Family] = {
    "llava": Family(
        Llava,
        CLIPImageProcessorPil,
        block=8,
        tokens=lambda output: [36] * len(output["pixel_values"]),
        hub={"llava-1.5": llava.Llava15_7B.preprocessing},
        trained_by_projector=("multi_modal_projector",),
    ),
    "qwen2.5-vl": Family(
        Qwen2_5VL,
        Qwen2VLImageProcessorPil,
        block=28,
        tokens=grid_tokens,
        hub={
            "qwen2.5-vl-7b-instruct": qwen_vl.Qwen2_5VL7B.preprocessing,
            "few pixels allowed": {"patch_size": 14, "merge_size": 2, "min_pixels": 3136, "max_pixels": 40000},
        },
        trained_by_projector=("visual.merger.",),
        extra=token_types,
    ),
    "qwen3-vl": Family(
        Qwen3VL,
        Qwen2VLImageProcessorPil,
        block=32,
        tokens=grid_tokens,
        hub={"qwen3-vl-instruct": qwen_vl.Qwen3VL2B.preprocessing},
        trained_by_projector=("visual.merger.", "visual.deepstack_merger_list."),
        extra=token_types,
    ),
    "internvl": Family(
        InternVL,
        GotOcr2ImageProcessorPil,
        block=8,
        tokens=lambda output: (36 * output["num_patches"]).tolist(),
        hub={
            "internvl3-8b and internvl3.5-8b": internvl.InternVL3_8B.preprocessing,
            "three tiles allowed": {**internvl.InternVL3_8B.preprocessing, "max_patches": 3},
            "one tile allowed": {**internvl.InternVL3_8B.preprocessing, "max_patches": 1},
        },
        trained_by_projector=("multi_modal_projector.",),
        asked={"crop_to_patches": True},
    ),
    "glm4v": Family(
        Glm4v,
        Glm4vImageProcessorPil,
        block=28,
        tokens=grid_tokens,
        hub={
            "glm-4.1v-9b": glm4v.Glm4_1V9B.preprocessing,
            "few pixels in two frames": {
                **glm4v.Glm4_1V9B.preprocessing,
                "size": {"shortest_edge": 12544, "longest_edge": 90000},
            },
        },
        trained_by_projector=("visual.merger.",),
        extra=token_types,
        projections=6,
    ),
    "idefics3": Family(
        Idefics3,
        Idefics3ImageProcessorPil,
        block=16,
        tokens=tile_tokens,
        hub={
            "idefics3-8b-llama3": idefics3.Idefics3_8B.preprocessing,
            "smolvlm-instruct": idefics3.SmolVLM2B.preprocessing,
            "smolvlm-256m-instruct": idefics3.SmolVLM256M.preprocessing,
        },
        trained_by_projector=("connector.",),
        pictures=lambda images: [[image] for image in images],
        place=4 + 3,
        overview=4,
        large=("smolvlm-instruct", "smolvlm-256m-instruct"),
        from_torchvision={"idefics3-8b-llama3": 3.01, "smolvlm-instruct": 3.01, "smolvlm-256m-instruct": 3.01},
    ),
    "smolvlm": Family(
        SmolVLM,
        SmolVLMImageProcessorPil,
        block=16,
        tokens=tile_tokens,
        hub={
            "smolvlm2-2.2b-instruct": idefics3.SmolVLM2_2B.preprocessing,
            "uncut": {
                **idefics3.SmolVLM2_2B.preprocessing,
                "do_resize": False,
                "do_image_splitting": False,
            },
        },
        trained_by_projector=("connector.",),
        pictures=lambda images: [[image] for image in images],
        place=4 + 3,
        overview=4,
        large=("smolvlm2-2.2b-instruct",),
        from_torchvision={"smolvlm2-2.2b-instruct": 3.01, "uncut": 4.01},
    ),
    "gemma3": Family(
        Gemma3,
        Gemma3ImageProcessorPil,
        block=16,
        tokens=lambda output: [36] * len(output["pixel_values"]),
        hub={"gemma-3-it": gemma3.Gemma3_4B.preprocessing},
        trained_by_projector=("multi_modal_projector",),
        extra=lambda lvlm, ids: {"token_type_ids": (ids == lvlm.image_token_id).int()},
    ),
    "minicpm-v": Family(
        MiniCPMV,
        MiniCPMV4_6ImageProcessorPil,
        block=16,
        tokens=view_tokens,
        hub={
            "minicpm-v-4.6": minicpmv.MiniCPMV4_6.preprocessing,
            "small slices": {"image_processor_type": "MiniCPMV4_6ImageProcessor", "scale_resolution": 112},
        },
        trained_by_projector=("model.merger.",),
        native_pixels=strip,
        projections=15,
    ),
    "llama-3.2-vision": Family(
        Mllama,
        MllamaImageProcessorPil,
        block=8,
        tokens=seen_tokens,
        hub={
            "llama-3.2-11b-vision-instruct": mllama.Llama3_2Vision11B.preprocessing,
            "small tiles": {"image_processor_type": "MllamaImageProcessor", "size": {"height": 112, "width": 112}},
        },
        trained_by_projector=("multi_modal_projector",),
        extra=tiles_seen,
        pictures=lambda images: [[image] for image in images],
        native=without_keys,
        native_pixels=all_tiles,
        attention=half_and_half,
        projections=21,
    ),
}
