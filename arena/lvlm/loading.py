"""Loading of a hub-format checkpoint's parts, with an error that says what to do, and what its tokenizer leaves out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from arena.errors import ArenaError

AUTO = "auto"
"""The device that stands for all GPUs there are, layer by layer, as accelerate shares a model out; the CPU without."""


def load_parts(
    family: str,
    model_class: Any,
    processor_class: Any,
    checkpoint: str | Path,
    dtype: torch.dtype,
    device: str,
    revision: str,
    **loading: Any,
) -> tuple[Any, Any, Any]:
    """Model in evaluation mode, tokenizer and picture processor of a checkpoint, by path or hub id; `loading` goes to
    `from_pretrained` of the model. Weights are read from safetensors alone. `device` is torch's name of one, or `AUTO`.

    Raises `ArenaError` where a part cannot be read, where weights are missing or of another shape, which transformers
    would draw at random, or where the device is not there.
    """
    name = f"model {str(checkpoint)!r}"
    spread = {"device_map": "auto"} if device == AUTO else {}
    try:
        model, found = model_class.from_pretrained(
            checkpoint,
            dtype=dtype,
            revision=revision,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name and shapes
            **spread,
            **loading,
        )
        tokenizer = AutoTokenizer.from_pretrained(checkpoint, revision=revision)
        processor = processor_class.from_pretrained(checkpoint, revision=revision)
    except ImportError:
        raise
    except Exception as error:  # whatever transformers makes of a broken file
        raise ArenaError(
            f"{name} cannot be loaded as {family}: {describe(error)}. Give a folder or hub id of a "
            f"{model_class.__name__} checkpoint, with weights in safetensors, that you have access to"
        ) from error
    if other := sorted(found["mismatched_keys"]):
        weight, there, wanted = other[0]
        raise ArenaError(
            f"{name} has {len(other)} weights of another shape than its configuration says, such as {weight}: "
            f"{tuple(there)} in its files, {tuple(wanted)} by its config.json; fetch or save both again, of one "
            "model"
        )
    if missing := sorted(found["missing_keys"]):
        raise ArenaError(
            f"{name} lacks {len(missing)} weights of a {model_class.__name__}, such as {missing[0]}: its files are "
            "incomplete, or their names are of another version of the model; fetch or save it again"
        )
    if len(tokenizer) <= model.config.image_token_id:
        raise ArenaError(
            f"{name} has a tokenizer of {len(tokenizer)} tokens, without that of pictures "
            f"({model.config.image_token_id}): its tokenizer files are missing or of another model"
        )
    if torch.cuda.is_available() and {"cpu", "disk"} & set(map(str, getattr(model, "hf_device_map", {}).values())):
        raise ArenaError(f"{name} does not fit on the GPUs that are free: give it more of them, or a dtype of 16 bits")
    try:
        model = model if spread else model.to(device)
    except (AssertionError, RuntimeError) as error:  # torch without CUDA, no such device, or no memory left on it
        raise ArenaError(f"{name} cannot be put on device {device!r}: {describe(error)}. Choose another") from error
    return model.eval(), tokenizer, processor


def describe(error: BaseException) -> str:
    """An error by its kind and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def beginning(tokenizer: Any) -> str:
    """The begin-of-text token where a chat template has to write it, nothing where the tokenizer does so by itself."""
    begins_itself = tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]
    return "" if begins_itself else str(tokenizer.bos_token)
