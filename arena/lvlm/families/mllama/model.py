"""Llama-3.2-Vision (Grattafiori 2024, arXiv 2407.21783): a tower with tiles and cross-attention layers between those
of Llama 3.

What attention binding means where pictures enter by cross-attention is said in `cross_attention`. Of the keys of a
tile, the class token is template: it stands for no region of the picture. The patches are image tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import MllamaForConditionalGeneration, MllamaImageProcessorPil
from transformers.models.mllama.image_processing_pil_mllama import (
    get_all_supported_aspect_ratios,
    get_image_size_fit_to_canvas,
    get_optimal_tiled_canvas,
)

from arena.lvlm import pixels
from arena.lvlm.base import LVLM
from arena.lvlm.batch import Encoding, Role
from arena.lvlm.families.mllama.cross_attention import CrossMllama
from arena.lvlm.loading import beginning


class Mllama(LVLM):
    """Pictures resized to fit the canvas of up to four tiles that suits them best, padded at the bottom right."""

    family = "llama-3.2-vision"
    model_class = MllamaForConditionalGeneration
    processor_class = MllamaImageProcessorPil
    vision_tower = "model.vision_model"
    projector = "model.multi_modal_projector"
    language_model = "model.language_model"

    def __init__(self, model: Any, tokenizer: Any, processor: MllamaImageProcessorPil) -> None:
        super().__init__(model, tokenizer, processor)
        model.__class__ = CrossMllama  # once loaded: transformers maps a checkpoint's names by its own class

    def template(self, question: str) -> tuple[str, str, str]:
        head = "<|start_header_id|>{}<|end_header_id|>\n\n"
        return f"{beginning(self.tokenizer)}{head.format('user')}", "", f"<|eot_id|>{head.format('assistant')}"

    def around_answer(self) -> tuple[str, str]:
        return "", "<|eot_id|>"

    def image_text(self, height: int, width: int) -> str:
        """The picture's token, and again for each key of its tiles."""
        rows, columns = self._grid(height, width)
        keys = rows * columns * (self._side**2 + 1)
        return str(self.tokenizer.convert_ids_to_tokens(self.image_token_id)) * (1 + keys)

    def encode_text(
        self, size: tuple[int, int], question: str, answer: str | None, trigger: tuple[int, int] | None = None
    ) -> Encoding:
        """As the base class's; the picture's token and the class tokens of tiles are template."""
        encoding = super().encode_text(size, question, answer, trigger)
        roles, start = list(encoding.roles), encoding.roles.index(Role.IMAGE)
        rows, columns = self._grid(*size)
        keys = self._side**2 + 1
        for place in (start, *range(start + 1, start + 1 + rows * columns * keys, keys)):
            roles[place] = int(Role.TEMPLATE)
        return Encoding(encoding.ids, roles)

    def pixel_inputs(self, images: Sequence[Tensor]) -> dict[str, Tensor]:
        """`pixel_values` ``(B, most tiles, 3, H, W)``, tiles by row, NaN where a picture has none, and as the processor
        gives them `aspect_ratio_ids` ``(B, 1)`` and `aspect_ratio_mask` ``(B, 1, tiles)``."""
        p, edge = self.processor, self.processor.size["height"]
        tiles: dict[int, Tensor] = {}
        ids = torch.zeros(len(images), 1, dtype=torch.long)
        mask = torch.zeros(len(images), 1, p.max_image_tiles, dtype=torch.long)
        for places, stack in pixels.by_size(images):
            height, width = stack.shape[-2:]
            rows, columns = self._grid(height, width)
            fit = get_image_size_fit_to_canvas(height, width, rows * edge, columns * edge, edge)
            x = pixels.resize(pixels.to_bytes(stack), int(fit[0]), int(fit[1]), p.resample)
            x = F.pad(x, (0, columns * edge - x.shape[-1], 0, rows * edge - x.shape[-2]))
            x = pixels.normalize(x, p.image_mean, p.image_std).unflatten(3, (columns, edge)).unflatten(2, (rows, edge))
            tiles.update(zip(places, x.permute(0, 2, 4, 1, 3, 5).flatten(1, 2), strict=True))
            ids[places] = get_all_supported_aspect_ratios(p.max_image_tiles).index((rows, columns)) + 1
            mask[places, :, : rows * columns] = 1
        padded = torch.nn.utils.rnn.pad_sequence([tiles[i] for i in range(len(images))], True, float("nan"))
        return {
            "pixel_values": padded.to(self.device, self.model.dtype),
            "aspect_ratio_ids": ids.to(self.device),
            "aspect_ratio_mask": mask.to(self.device),
        }

    def token_means(self, change: dict[str, Tensor]) -> list[Tensor]:
        rows = change["pixel_values"].float()
        scale = rows.new_tensor(self.processor.image_std).view(3, 1, 1)
        patch = self.model.config.vision_config.patch_size
        present = [tiles[~tiles[:, 0, 0, 0].isnan()] for tiles in rows]
        return [F.avg_pool2d((x * scale).abs().mean(1, keepdim=True), patch).flatten() for x in present]

    def _grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of tiles of a picture of that size."""
        edge = self.processor.size["height"]
        canvas = get_optimal_tiled_canvas(height, width, self.processor.max_image_tiles, edge)
        return int(canvas[0]) // edge, int(canvas[1]) // edge

    @property
    def _side(self) -> int:
        vision = self.model.config.vision_config
        return int(vision.image_size // vision.patch_size)
