"""Linear layers of a loaded model in 4 bits, by bitsandbytes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from arena.errors import ArenaError
from arena.lvlm.base import LVLM


def quantize(lvlm: LVLM, modules: Sequence[str], double: bool) -> None:
    """Replace the linear layers `modules` in place by frozen ones in NF4 (Dettmers 2023, arXiv 2305.14314).

    Blocks of 64 weights share a scale; `double` rounds the scales too. Products are computed in the type that the
    weights had. Raises `ArenaError` where bitsandbytes is not installed.
    """
    try:
        from bitsandbytes.nn import Linear4bit, Params4bit
    except ImportError as error:
        raise ArenaError(
            f"4-bit weights need bitsandbytes, which cannot be imported ({error}): pip install 'mmguard-arena[qlora]'"
        ) from error
    for name in modules:
        parent, _, own = name.rpartition(".")
        linear = lvlm.model.get_submodule(name)
        device = linear.weight.device
        quantized = Linear4bit(
            linear.in_features,
            linear.out_features,
            linear.bias is not None,
            compute_dtype=linear.weight.dtype,
            compress_statistics=double,
            quant_type="nf4",
            device="meta",
        )
        quantized.weight = Params4bit(
            linear.weight.detach(), requires_grad=False, compress_statistics=double, quant_type="nf4", module=quantized
        )
        if linear.bias is not None:
            quantized.bias = nn.Parameter(linear.bias.detach(), requires_grad=False)
        # Another CPU kernel for inference would round the scales once more, on some machines, and wants sizes of 64 n.
        quantized.support_avx512bf16_for_cpu = False
        quantized.train(linear.training)
        setattr(lvlm.model.get_submodule(parent), own, quantized.to(device))  # rounds on the way
    lvlm.model.is_loaded_in_4bit = True  # peft's sign to use its own adapters for such layers
