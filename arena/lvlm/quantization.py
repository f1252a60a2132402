"""Linear layers of a loaded model in 4 bits, by bitsandbytes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arena.errors import ArenaError
from arena.lvlm.base import LVLM

BLOCK = 64
"""Weights that share a scale, as in the paper."""


def quantize(lvlm: LVLM, modules: Sequence[str], double: bool) -> None:
    """Replace the linear layers `modules` in place by frozen ones in NF4 (Dettmers 2023, arXiv 2305.14314).

    `double` rounds the scales of the blocks too. Products are computed in the type that the weights had. Raises
    `ArenaError` where bitsandbytes is not installed.
    """
    try:
        from bitsandbytes.nn.modules import Params4bit
    except ImportError as error:
        raise ArenaError(
            f"4-bit weights need bitsandbytes, which cannot be imported ({error}): pip install 'mmguard-arena[qlora]'"
        ) from error
    for name in modules:
        parent, _, own = name.rpartition(".")
        linear = lvlm.model.get_submodule(name)
        device = linear.weight.device
        layer = _layer_class()(
            linear.in_features,
            linear.out_features,
            linear.bias is not None,
            compute_dtype=linear.weight.dtype,
            compress_statistics=double,
            quant_type="nf4",
            device="meta",
        )
        layer.weight = Params4bit(
            linear.weight.detach(),
            requires_grad=False,
            blocksize=BLOCK,
            compress_statistics=double,
            quant_type="nf4",
            module=layer,
        )
        if linear.bias is not None:
            layer.bias = nn.Parameter(linear.bias.detach(), requires_grad=False)
        # A CPU kernel for inference, on some machines, would round the scales once more and wants whole blocks a row.
        layer.support_avx512bf16_for_cpu = False
        layer.train(linear.training)
        setattr(lvlm.model.get_submodule(parent), own, layer.to(device))  # rounds on the way
    lvlm.model.is_loaded_in_4bit = True  # peft's sign to use its own adapters for such layers


def restored(weight: Any) -> Tensor:
    """The float weight ``(out, in)`` that a 4-bit one stands for.

    bitsandbytes 0.50 takes blocks to end with a row on a CPU, which gives wrong weights where they do not; as a single
    row they are right.
    """
    from bitsandbytes.functional import dequantize_4bit

    row = copy.copy(weight.quant_state)
    shape, row.shape = row.shape, torch.Size([1, weight.quant_state.shape.numel()])
    flat: Tensor = dequantize_4bit(weight.data, row)
    return flat.view(shape)


@cache
def _layer_class() -> Any:
    """bitsandbytes' layer, made when the library is there, and right for any size on a CPU."""
    from bitsandbytes.nn.modules import Linear4bit

    class Linear(Linear4bit):
        def forward(self, x: Tensor) -> Tensor:
            if x.device.type != "cpu" or self.in_features % BLOCK == 0:
                product: Tensor = super().forward(x)
                return product
            bias = None if self.bias is None else self.bias.to(self.compute_dtype)
            return F.linear(x.to(self.compute_dtype), restored(self.weight), bias).to(x.dtype)

    return Linear
