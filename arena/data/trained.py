"""What a defense trained on some samples, kept so that it can be applied to others: `arena protect --reuse`.

A defense that can do so has a setting `reuse`, and leaves what it trained in the folder `FOLDER` of its workspace.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from arena.errors import ArenaError, UsageError
from arena.files import write_atomically
from arena.paths import is_file, unreadable

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = "trained"
FILE = "tensors.safetensors"


def keep(workspace: Path | None, tensors: Mapping[str, Tensor]) -> None:
    """Leave tensors in a workspace for later, where there is one."""
    if workspace is None:
        return
    from safetensors.torch import save

    (workspace / FOLDER).mkdir(exist_ok=True)
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(workspace / FOLDER / FILE, save(contiguous))


def read(folder: Path, shapes: Mapping[str, tuple[int | None, ...]]) -> dict[str, Tensor]:
    """The tensors that `keep` left in `folder`, on the CPU: those named in `shapes`, floats of just these sizes, any
    where None.

    Raises `UsageError` where there are none, `ArenaError` for others.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        found = load(_content(folder))
    except SafetensorError as error:
        raise ArenaError(f"{folder / FILE} is damaged ({error}): protect anew, without reuse") from error
    for name, shape in shapes.items():
        tensor = found.get(name)
        if tensor is None:
            raise ArenaError(f"{folder / FILE} has no {name!r}: it is of another defense or version, protect anew")
        fits = len(tensor.shape) == len(shape) and all(
            want in (None, size) for want, size in zip(shape, tensor.shape, strict=True)
        )
        if not fits or not tensor.is_floating_point() or not tensor.isfinite().all():
            wanted = " x ".join("any" if size is None else str(size) for size in shape)
            raise ArenaError(
                f"{folder / FILE}: {name!r} is {tensor.dtype} {tuple(tensor.shape)} and must be finite numbers, "
                f"{wanted}: it was made with other settings or surrogates, repeat those or protect anew"
            )
    return {name: found[name].float() for name in shapes}


def fingerprint(folder: Path) -> str:
    """SHA-256 (hex) of what `keep` left in `folder`. Raises `UsageError` where there is nothing."""
    return hashlib.sha256(_content(folder)).hexdigest()


def _content(folder: Path) -> bytes:
    path = folder / FILE
    if not is_file(path):
        raise UsageError(
            f"{folder} has no {FILE}: name the folder {FOLDER!r} that a defense left beside the report of a protection"
        )
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error
