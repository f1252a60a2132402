"""What a forward or backward pass can leave out, or do another way, without changing what is asked of it.

On most processors rows of a matrix product do not depend on how many other rows there are, from `FEWEST_ROWS` on: fewer
take another route through BLAS, with other rounding. On the others what is left out changes rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arena.lvlm.batch import IGNORE

if TYPE_CHECKING:
    from arena.lvlm.base import LVLM

FEWEST_ROWS = 4
MOST_KEPT = 2**29
"""Bytes of pictures and features that are remembered where several batches take turns."""


def answer_rows(labels: Tensor) -> Tensor:
    """Bool ``(B, L)``: the positions whose output predicts an answer token, those just before one."""
    return F.pad(labels[:, 1:] != IGNORE, (0, 1))


@contextmanager
def at_rows(lvlm: LVLM, rows: Tensor) -> Iterator[None]:
    """Within the block, logits are computed at the marked positions alone, ``(N, V)``.

    `rows` is bool ``(B, L)``. The MLP of the last layer is left out elsewhere too: nothing reads what becomes of the
    other positions after it. Sums over positions, which gradients of weights are, have fewer terms and may round
    otherwise. A family that gives its layers other sequences than the batch's keeps the whole MLP.
    """
    layers = getattr(lvlm.module(lvlm.language_model), "layers", None)
    last = layers[-1] if layers is not None else None
    again = getattr(last, "gradient_checkpointing", False)  # in the backward pass, which is after the block
    mlp = None if again else getattr(last, "mlp", None)
    head = lvlm.model.get_output_embeddings()

    def chosen(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden, *others = args
        return (hidden.flatten(0, 1)[_places(rows[:, -hidden.shape[1] :])], *others)

    hook = head.register_forward_pre_hook(chosen)
    try:
        if mlp is not None:
            mlp.forward = _Elsewhere(mlp.forward, rows)
        yield
    finally:
        hook.remove()
        if mlp is not None:
            del mlp.forward


def _places(rows: Tensor) -> Tensor:
    return rows.flatten().nonzero()[:, 0]


class _Elsewhere:
    """A module's forward that gives zero at the positions that `rows` does not mark."""

    def __init__(self, forward: Any, rows: Tensor) -> None:
        self._forward, self._rows = forward, rows

    def __call__(self, x: Tensor) -> Any:
        if x.shape[:-1] != self._rows.shape:
            return self._forward(x)
        places, flat = _places(self._rows), x.flatten(0, 1)
        if not len(places):
            return torch.zeros_like(x)
        some = self._forward(flat.index_select(0, places)[None])
        return torch.zeros_like(flat).index_copy(0, places, some[0]).view_as(x)


@contextmanager
def same_pictures(lvlm: LVLM, several: bool = False) -> Iterator[None]:
    """Within the block, the vision tower runs once for pictures that come again and again.

    It keeps what it last gave, and gives it again for equal input without gradient: for passes about the same pictures
    between which only texts or adapters of the language model change. Other pictures are run. Weights of the tower must
    not change within the block. With `several`, batches of pictures may take turns, as far as all that is kept of them
    fits into `MOST_KEPT`.
    """
    tower = lvlm.module(lvlm.vision_tower)
    tower.forward = _Remembering(tower.forward, several)
    try:
        yield
    finally:
        del tower.forward


class _Remembering:
    """A module's forward that keeps its last input and output, or its first ones."""

    def __init__(self, forward: Any, several: bool) -> None:
        self._forward, self._several = forward, several
        self._known: list[tuple[tuple[Any, ...], dict[str, Any], Any]] = []
        self._size = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if any(isinstance(x, Tensor) and x.requires_grad for x in (*args, *kwargs.values())):
            return self._forward(*args, **kwargs)
        asked = {k: v for k, v in kwargs.items() if k != "use_cache"}  # meant for the language model; a tower has none
        found = next((made for a, k, made in self._known if _same(a, args) and _same(k, asked)), None)
        if found is None:
            found = self._forward(*args, **kwargs)
            self._keep((args, asked, found))
        return copy.copy(found)  # models of transformers put what comes next into a tower's output

    def _keep(self, made: tuple[tuple[Any, ...], dict[str, Any], Any]) -> None:
        if not self._several:
            self._known = [made]
        elif self._size + (size := _bytes(made)) <= MOST_KEPT:
            self._known.append(made)
            self._size += size


def _bytes(value: Any) -> int:
    """Bytes of the tensors in arguments or in an output."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, Mapping):
        value = value.values()
    return sum(map(_bytes, value)) if isinstance(value, Iterable) and not isinstance(value, str) else 0


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and (a is b or (a.dtype == b.dtype and torch.equal(a, b)))
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, tuple | list):
        return type(a) is type(b) and len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return a is b or bool(a == b)


def tower_rests(lvlm: LVLM) -> bool:
    """Whether nothing learns in the vision tower."""
    return not any(p.requires_grad for p in lvlm.module(lvlm.vision_tower).parameters())


def patches_by_products(tower: nn.Module) -> None:
    """Give the convolutions of a vision tower whose patches do not overlap a gradient by a matrix product.

    It is what the convolution's own gradient to its input is, an order of magnitude sooner on a CPU. Convolutions that
    learn, and those of other types, are left to torch.
    """
    for module in tower.modules():
        if type(module) is nn.Conv2d and _cuts_patches(module):
            module.__class__ = PatchConv2d


def _cuts_patches(conv: nn.Conv2d) -> bool:
    return (
        conv.stride == conv.kernel_size
        and conv.padding in ((0, 0), "valid")
        and conv.dilation == (1, 1)
        and conv.groups == 1
    )


class PatchConv2d(nn.Conv2d):
    """A convolution whose stride is its kernel's size."""

    def forward(self, input: Tensor) -> Tensor:
        learns = self.weight.requires_grad or (self.bias is not None and self.bias.requires_grad)
        cast = torch.is_autocast_enabled(input.device.type)  # which computes in another type than the weight's
        if learns or cast or not (input.requires_grad and torch.is_grad_enabled()):
            return super().forward(input)
        output: Tensor = _Patches.apply(input, self.weight, self.bias, self.stride)  # type: ignore[no-untyped-call]
        return output


class _Patches(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.size = x.shape
        return F.conv2d(x, weight, bias, stride)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (weight,) = ctx.saved_tensors
        batch, channels, height, width = ctx.size
        rows, columns = gradient.shape[-2:]
        tall, wide = weight.shape[-2:]
        patches = gradient.permute(0, 2, 3, 1).reshape(-1, gradient.shape[1]) @ weight.flatten(1)
        patches = patches.view(batch, rows, columns, channels, tall, wide).permute(0, 3, 1, 4, 2, 5)
        image = patches.reshape(batch, channels, rows * tall, columns * wide)
        return F.pad(image, (0, width - columns * wide, 0, height - rows * tall)), None, None, None
