"""What families share that see a picture at about its own resolution: resized to whole blocks of patches within a range
of areas, an image token a block, tokens placed on several axes (Qwen2-VL, Wang 2024, arXiv 2409.12191)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from arena.data.sample import Sample
from arena.errors import Refused
from arena.lvlm import pixels
from arena.lvlm.adapters import with_model
from arena.lvlm.base import LVLM
from arena.lvlm.families import patch_lists
from arena.lvlm.generation import Answer


class NativeResolution(LVLM):
    """A family says its classes, how it resizes, and what stands around a picture's tokens, beside its template."""

    vision_tower = "model.visual"
    projector = "model.visual.merger"
    language_model = "model.language_model"
    brackets: ClassVar[tuple[str, str]]
    """What the prompt has before and after a picture's tokens."""

    def __init__(self, model: Any, tokenizer: Any, processor: Any) -> None:
        super().__init__(model, tokenizer, processor)
        patch_lists.adapt(self.module("model"), self.module(self.vision_tower))

    @abstractmethod
    def target_size(self, height: int, width: int) -> tuple[int, int]:
        """What the family's processor resizes a picture of that size to; `ValueError` where it would refuse."""

    def image_text(self, height: int, width: int) -> str:
        side = self.processor.patch_size * self.processor.merge_size
        rows, columns = (length // side for length in self._resized(height, width))
        placeholder = str(self.tokenizer.convert_ids_to_tokens(self.image_token_id))
        before, after = self.brackets
        return f"{before}{placeholder * (rows * columns)}{after}"

    def pixel_inputs(self, images: Sequence[Tensor]) -> dict[str, Tensor]:
        """`pixel_values` as in `patch_lists`, and `image_grid_thw`, long ``(B, 3)``: frames, rows and columns of
        patches."""
        p, patch = self.processor, self.processor.patch_size
        patches: dict[int, Tensor] = {}
        grids = torch.ones(len(images), 3, dtype=torch.long)
        for places, stack in pixels.by_size(images):
            height, width = self._resized(stack.shape[-2], stack.shape[-1])
            x = pixels.resize(pixels.to_bytes(stack), height, width, p.resample)
            x = pixels.normalize(x, p.image_mean, p.image_std)
            patches.update(zip(places, self._patches(x), strict=True))
            grids[places, 1:] = torch.tensor([height // patch, width // patch])
        padded = patch_lists.pad([patches[i] for i in range(len(images))])
        return {"pixel_values": padded.to(self.device, self.model.dtype), "image_grid_thw": grids.to(self.device)}

    def token_means(self, change: dict[str, Tensor]) -> list[Tensor]:
        rows = change["pixel_values"].float()
        scale = rows.new_tensor(self.processor.image_std).view(3, 1)
        block = self.processor.merge_size**2
        return [(x.abs().view(-1, block, 3, x.shape[1] // 3) * scale).mean((1, 2, 3)) for x in patch_lists.unpad(rows)]

    def answers(self, samples: Sequence[Sample], max_new_tokens: int = 16, batch_size: int = 64) -> list[Answer]:
        knowing = with_model(self, _KnowsImageTokens(self.model, self.image_token_id))
        return LVLM.answers(knowing, samples, max_new_tokens, batch_size)

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        try:
            return self.target_size(height, width)
        except ValueError as error:
            size = f"{width} x {height} pixels, one side of which is more than 200 times the other"
            raise Refused(self.family, f"cannot take a picture of {size}", "crop it or leave it out") from error

    def _patches(self, x: Tensor) -> Tensor:
        """Normalised pictures ``(n, 3, H, W)`` as ``(n, patches, values)`` in the processor's order.

        Patches of a block follow each other; a patch holds channels, frames, rows, columns, and a picture is a film
        that stands still.
        """
        p = self.processor
        x = x.unflatten(3, (-1, p.merge_size, p.patch_size)).unflatten(2, (-1, p.merge_size, p.patch_size))
        x = x.permute(0, 2, 5, 3, 6, 1, 4, 7).unsqueeze(6)
        return x.expand(*(-1,) * 6, p.temporal_patch_size, -1, -1).flatten(5).flatten(1, 4)


class _KnowsImageTokens:
    """A model whose `generate` is told which tokens stand for pictures: it places them before its first forward
    pass."""

    def __init__(self, model: Any, image_token_id: int) -> None:
        self._model, self._image_token_id = model, image_token_id

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def generate(self, input_ids: Tensor, **inputs: Any) -> Any:
        types = (input_ids == self._image_token_id).int()
        return self._model.generate(input_ids=input_ids, mm_token_type_ids=types, **inputs)
