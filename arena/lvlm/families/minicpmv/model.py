"""MiniCPM-V 4.6 (Yao 2024, arXiv 2408.01800): SigLIP at about the picture's own resolution, a large picture also in
slices, two merges of 2 x 2 patches, Qwen3.5."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import MiniCPMV4_6ForConditionalGeneration, MiniCPMV4_6ImageProcessorPil

from arena.lvlm import pixels
from arena.lvlm.base import LVLM
from arena.lvlm.families import patch_lists
from arena.lvlm.families.minicpmv import hybrid

_QUESTION = "QUESTION"


class MiniCPMV(LVLM):
    """A picture is seen whole, at about the area of one slice, and where it is larger again in a grid of slices; an
    image token is a block of 4 x 4 patches of one of these views. The chat template is the checkpoint's own."""

    family = "minicpm-v"
    model_class = MiniCPMV4_6ForConditionalGeneration
    processor_class = MiniCPMV4_6ImageProcessorPil
    vision_tower = "model.vision_tower"
    projector = "model.merger"
    language_model = "model.language_model"

    def __init__(self, model: Any, tokenizer: Any, processor: MiniCPMV4_6ImageProcessorPil) -> None:
        super().__init__(model, tokenizer, processor)
        model.__class__ = hybrid.HybridMiniCPMV  # once loaded: transformers maps a checkpoint's names by its own class

    def template(self, question: str) -> tuple[str, str, str]:
        return self._template

    @cached_property
    def _template(self) -> tuple[str, str, str]:
        content = [{"type": "image"}, {"type": "text", "text": _QUESTION}]
        turns: list[Any] = [{"role": "user", "content": content}]
        prompt = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        before, _, rest = str(prompt).partition(self._token("image"))
        between, _, after = rest.partition(_QUESTION)
        return before, between, after

    def around_answer(self) -> tuple[str, str]:
        return "", "<|im_end|>"

    def image_text(self, height: int, width: int) -> str:
        whole, grid, part = self._layout(height, width)
        view = self._view("image", whole)
        if grid is not None:
            view += "\n".join([self._view("slice", part) * grid[1]] * grid[0])
        number = f"{self._token('image_id_start')}0{self._token('image_id_end')}"
        return number + view if self.processor.use_image_id else view

    def pixel_inputs(self, images: Sequence[Tensor]) -> dict[str, Tensor]:
        """`pixel_values` as in `patch_lists`, the patches of an image token one after the other, and `target_sizes`,
        int ``(B, most views, 2)``: rows and columns of patches of the whole picture and its slices, zero where there
        is none."""
        p = self.processor
        patches: dict[int, Tensor] = {}
        sizes: dict[int, Tensor] = {}
        for places, stack in pixels.by_size(images):
            whole, grid, part = self._layout(stack.shape[-2], stack.shape[-1])
            x = pixels.to_bytes(stack)
            views = [pixels.resize(x, *whole, p.resample)]
            if grid is not None:
                large = pixels.resize(x, part[0] * grid[0], part[1] * grid[1], p.resample)
                views += [cell for row in large.split(part[0], 2) for cell in row.split(part[1], 3)]
            rows = [hybrid.blocks(pixels.normalize(v, p.image_mean, p.image_std), p.patch_size) for v in views]
            patches.update(zip(places, torch.cat(rows, 1), strict=True))
            shapes = torch.tensor([v.shape[2:] for v in views], dtype=torch.int32) // p.patch_size
            sizes.update(dict.fromkeys(places, shapes))
        order = range(len(images))
        return {
            "pixel_values": patch_lists.pad([patches[i] for i in order]).to(self.device, self.model.dtype),
            "target_sizes": torch.nn.utils.rnn.pad_sequence([sizes[i] for i in order], True).to(self.device),
        }

    def token_means(self, change: dict[str, Tensor]) -> list[Tensor]:
        rows = change["pixel_values"].float()
        scale = rows.new_tensor(self.processor.image_std).view(3, 1)
        block = hybrid.BLOCK**2
        return [(x.abs().view(-1, block, 3, x.shape[1] // 3) * scale).mean((1, 2, 3)) for x in patch_lists.unpad(rows)]

    def _layout(self, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int] | None, tuple[int, int]]:
        """The size at which a picture is seen whole, its grid of slices (None without), and the size of a slice."""
        p, size = self.processor, (height, width)
        grid = p.get_sliced_grid(size, p.max_slice_nums, p.scale_resolution) if p.slice_mode else None
        rules = (p.scale_resolution, p.patch_size, p.downsample_mode)
        whole = p.find_best_resize(size, *rules, allow_upscale=grid is None)
        if grid is None:
            return whole, None, (0, 0)
        rows, columns = grid
        large = p.get_refine_size(size, grid, *rules, allow_upscale=True)
        return whole, (rows, columns), (large[0] // rows, large[1] // columns)

    def _view(self, kind: str, size: tuple[int, int]) -> str:
        side = int(self.processor.patch_size) * hybrid.BLOCK
        tokens = self._token("image") * (size[0] // side * (size[1] // side))
        return self._token(f"{kind}_start") + tokens + self._token(f"{kind}_end")

    def _token(self, name: str) -> str:
        return str(getattr(self.tokenizer, f"{name}_token"))
