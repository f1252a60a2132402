"""InternVL 3 and 3.5 (Zhu 2025, arXiv 2504.10479; Wang 2025, arXiv 2508.18265)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GotOcr2ImageProcessorPil, InternVLForConditionalGeneration
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

from arena.lvlm import pixels
from arena.lvlm.base import LVLM
from arena.lvlm.families import patch_lists


class InternVL(LVLM):
    """`InternVLForConditionalGeneration`: a picture is cut into square tiles, as many as fit its aspect ratio, and a
    thumbnail of the whole where there is more than one; an image token is a block of a tile's patches.

    The `crop_to_patches` of a checkpoint's file is not read: it says no on the hub, and transformers' own
    `InternVLProcessor` says yes on every call. `max_patches` is how many tiles are allowed.
    """

    family = "internvl"
    model_class = InternVLForConditionalGeneration
    processor_class = GotOcr2ImageProcessorPil
    vision_tower = "model.vision_tower"
    projector = "model.multi_modal_projector"
    language_model = "model.language_model"

    def __init__(self, model: Any, tokenizer: Any, processor: GotOcr2ImageProcessorPil) -> None:
        super().__init__(model, tokenizer, processor)
        self.module(self.vision_tower).register_forward_pre_hook(_list_tiles, with_kwargs=True)

    def template(self, question: str) -> tuple[str, str, str]:
        return "<|im_start|>user\n", "\n", "<|im_end|>\n<|im_start|>assistant\n"

    def around_answer(self) -> tuple[str, str]:
        return "", "<|im_end|>"

    def image_text(self, height: int, width: int) -> str:
        rows, columns = self._grid(height, width)
        tiles = rows * columns + (rows * columns > 1)
        placeholder = str(self.tokenizer.convert_ids_to_tokens(self.image_token_id))
        vision = self.model.config.vision_config
        side = vision.image_size[0] // self._block
        return f"<img>{placeholder * (tiles * side**2)}</img>"

    def pixel_inputs(self, images: Sequence[Tensor]) -> dict[str, Tensor]:
        """`pixel_values`, float ``(B, most tiles, 3, side, side)``: a picture's tiles row by row, then its thumbnail,
        padded as in `patch_lists`."""
        p = self.processor
        side = (p.size["height"], p.size["width"])
        tiles: dict[int, Tensor] = {}
        for places, stack in pixels.by_size(images):
            rows, columns = self._grid(stack.shape[-2], stack.shape[-1])
            x = pixels.to_bytes(stack)
            whole = pixels.resize(x, rows * side[0], columns * side[1], p.resample)
            cut = whole.unflatten(3, (columns, -1)).unflatten(2, (rows, -1)).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
            if rows * columns > 1:
                cut = torch.cat([cut, pixels.resize(x, *side, p.resample)[:, None]], 1)
            tiles.update(zip(places, pixels.normalize(cut, p.image_mean, p.image_std), strict=True))
        padded = patch_lists.pad([tiles[i] for i in range(len(images))])
        return {"pixel_values": padded.to(self.device, self.model.dtype)}

    def token_means(self, change: dict[str, Tensor]) -> list[Tensor]:
        rows = change["pixel_values"].float()
        scale = rows.new_tensor(self.processor.image_std).view(3, 1, 1)
        tiles = [(x * scale).abs().mean(1, keepdim=True) for x in patch_lists.unpad(rows)]
        return [F.avg_pool2d(x, self._block).flatten() for x in tiles]

    @property
    def _block(self) -> int:
        """Side in pixels of an image token: pixel shuffle makes a token of neighbouring patches."""
        config = self.model.config
        return int(config.vision_config.patch_size[0] / config.downsample_ratio)

    def _grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of tiles of a picture of that size."""
        p = self.processor
        if p.max_patches == 1:
            return 1, 1
        tile = (p.size["height"], p.size["width"])
        columns, rows = get_optimal_tiled_canvas((height, width), tile, p.min_patches, p.max_patches)
        return rows, columns


def _list_tiles(tower: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
    """Tiles of all pictures in one list, at the door of the vision tower; tiles that are a list already stay so."""
    rows = kwargs["pixel_values"]
    if rows.ndim == 5:
        kwargs = {**kwargs, "pixel_values": torch.cat(patch_lists.unpad(rows))}
    return args, kwargs
