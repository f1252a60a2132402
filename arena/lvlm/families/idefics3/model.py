"""Idefics3 (Laurençon 2024, arXiv 2408.12637) and SmolVLM (Marafioti 2025, arXiv 2504.05299): a picture is cut into
square tiles that the tower sees one by one, followed by the whole picture at the size of a tile."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessorPil,
)

from arena.data.sample import Sample
from arena.lvlm import pixels
from arena.lvlm.base import LVLM
from arena.lvlm.generation import Answer
from arena.lvlm.loading import beginning

LONGEST = 4096
"""No picture is made longer than this many pixels, whatever the processor's size."""


class Idefics3(LVLM):
    """`Idefics3ForConditionalGeneration`; an image token is a square block of a tile's patches (pixel shuffle)."""

    family = "idefics3"
    model_class: ClassVar[Any] = Idefics3ForConditionalGeneration
    processor_class: ClassVar[Any] = Idefics3ImageProcessorPil
    vision_tower = "model.vision_model"
    projector = "model.connector"
    language_model = "model.text_model"

    def __init__(self, model: Any, tokenizer: Any, processor: Any) -> None:
        super().__init__(model, tokenizer, processor)
        self._missing = float("nan")
        self.module("model").register_forward_pre_hook(_empty_missing_tiles, with_kwargs=True)

    def template(self, question: str) -> tuple[str, str, str]:
        """Llama's tokenizer begins a text by itself, SmolLM's leaves that to the chat template."""
        return f"{beginning(self.tokenizer)}User:", "", "<end_of_utterance>\nAssistant:"

    def around_answer(self) -> tuple[str, str]:
        return " ", "<end_of_utterance>"

    def image_text(self, height: int, width: int) -> str:
        """Each tile under its row and column, a line of text a row of tiles; then the whole picture."""
        around = "<fake_token_around_image>"
        one = str(self.tokenizer.convert_ids_to_tokens(self.image_token_id)) * self._tokens_per_tile
        rows, columns = self._grid(height, width)
        whole = f"{around}<global-img>{one}{around}"
        if rows == columns == 1:
            return whole
        lines = [
            "".join(f"{around}<row_{row}_col_{column}>{one}" for column in range(1, columns + 1)) + "\n"
            for row in range(1, rows + 1)
        ]
        return "".join(lines) + "\n" + whole

    def pixel_inputs(self, images: Sequence[Tensor]) -> dict[str, Tensor]:
        """`pixel_values`, float ``(B, most tiles, 3, edge, edge)``, and `pixel_attention_mask`, bool without the
        channels: tiles row by row, the whole picture last. Tiles that a picture does not have are NaN, which is still
        NaN in a difference, and become 0 at the door of the model."""
        p = self.processor
        rows: dict[int, Tensor] = {}
        for places, stack in pixels.by_size(images):
            tiles = pixels.normalize(self._tiles(pixels.to_bytes(stack)), p.image_mean, p.image_std)
            rows.update(zip(places, tiles, strict=True))
        counts = torch.tensor([len(rows[i]) for i in range(len(images))], device=self.device)
        padded = nn.utils.rnn.pad_sequence(
            [rows[i] for i in range(len(images))], batch_first=True, padding_value=self._missing
        ).to(self.device, self.model.dtype)
        there = torch.arange(padded.shape[1], device=self.device) < counts[:, None]
        mask = there[:, :, None, None].expand(-1, -1, self._edge, self._edge)
        return {"pixel_values": padded, "pixel_attention_mask": mask}

    def token_means(self, change: dict[str, Tensor]) -> list[Tensor]:
        """Pixels of a tile beyond its last whole block are in no token; the tower does not see them."""
        scale = change["pixel_values"].new_tensor(self.processor.image_std).view(3, 1, 1)
        config = self.model.config
        block = config.vision_config.patch_size * config.scale_factor
        return [
            F.avg_pool2d((tiles[~tiles[:, 0, 0, 0].isnan()] * scale).abs().mean(1, keepdim=True), block).flatten()
            for tiles in change["pixel_values"]
        ]

    def answers(self, samples: Sequence[Sample], max_new_tokens: int = 16, batch_size: int = 64) -> list[Answer]:
        """As the base class's; transformers' `generate` takes pictures in by another door than `forward`."""
        emptied = copy.copy(self)
        emptied._missing = 0.0
        return LVLM.answers(emptied, samples, max_new_tokens, batch_size)

    @property
    def _edge(self) -> int:
        """Side of a tile in pixels."""
        return int(self.processor.max_image_size["longest_edge"])

    @property
    def _tokens_per_tile(self) -> int:
        config = self.model.config
        return int((config.vision_config.image_size // config.vision_config.patch_size // config.scale_factor) ** 2)

    def _sizes(self, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Height and width after each of the processor's two resizes: of the longer side to its size, then of both to
        whole tiles."""
        edge = self._edge
        longest = self.processor.size["longest_edge"] if self.processor.do_resize else None
        first = (height, width) if longest is None else longest_edge(height, width, longest)
        if not self.processor.do_image_splitting:
            return first, (edge, edge)
        return first, whole_tiles(*first, edge)

    def _grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of tiles; one of each where a picture is not cut."""
        _, (tall, wide) = self._sizes(height, width)
        return tall // self._edge, wide // self._edge

    def _tiles(self, x: Tensor) -> Tensor:
        """8-bit pictures of one size ``(n, 3, H, W)`` as ``(n, tiles, 3, edge, edge)``."""
        edge, resample = self._edge, self.processor.resample
        for size in self._sizes(x.shape[-2], x.shape[-1]):
            x = pixels.resize(x, *size, resample)
        tiles: Tensor = x.unflatten(3, (-1, edge)).unflatten(2, (-1, edge)).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
        if tiles.shape[1] == 1:
            return tiles
        return torch.cat([tiles, pixels.resize(x, edge, edge, resample).unsqueeze(1)], 1)


class SmolVLM(Idefics3):
    """`SmolVLMForConditionalGeneration`, the second generation: Idefics3 that also takes films, of which the arena
    uses none. The first generation's checkpoints are `Idefics3ForConditionalGeneration`."""

    family = "smolvlm"
    model_class = SmolVLMForConditionalGeneration
    processor_class = SmolVLMImageProcessorPil


def longest_edge(height: int, width: int, edge: int) -> tuple[int, int]:
    """The size whose longer side is `edge`, the other truncated and made even; both at most `LONGEST`."""
    ratio = width / height
    if width >= height:
        height, width = _even(int(edge / ratio)), edge
    else:
        height, width = edge, _even(int(edge * ratio))
    height, width = max(height, 1), max(width, 1)
    ratio = width / height
    if width >= height and width > LONGEST:
        height, width = int(LONGEST / ratio), LONGEST
    elif height > width and height > LONGEST:
        height, width = LONGEST, int(LONGEST * ratio)
    return max(height, 1), max(width, 1)


def whole_tiles(height: int, width: int, edge: int) -> tuple[int, int]:
    """The size in whole tiles of `edge`: the longer side is rounded up first, the other follows it, rounded up too."""
    ratio = width / height
    if width >= height:
        width = math.ceil(width / edge) * edge
        return math.ceil(int(width / ratio) / edge) * edge, width
    height = math.ceil(height / edge) * edge
    return height, math.ceil(int(height * ratio) / edge) * edge


def _even(length: int) -> int:
    return length + length % 2


def _empty_missing_tiles(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The model leaves out tiles that are all 0, by which the processor marks those that a picture does not have."""
    values, mask = kwargs.get("pixel_values"), kwargs.get("pixel_attention_mask")
    if values is None or mask is None:
        return args, kwargs
    return args, {**kwargs, "pixel_values": values.masked_fill(~mask.bool().unsqueeze(2), 0.0)}
