"""Loading of a hub-format checkpoint's parts, with an error that says what to do, and what its tokenizer leaves out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from arena.errors import ArenaError


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
    `from_pretrained` of the model. Raises `ArenaError` where a part cannot be read."""
    try:
        model = model_class.from_pretrained(checkpoint, dtype=dtype, revision=revision, **loading)
        tokenizer = AutoTokenizer.from_pretrained(checkpoint, revision=revision)
        processor = processor_class.from_pretrained(checkpoint, revision=revision)
    except (OSError, ValueError) as error:
        raise ArenaError(
            f"model {str(checkpoint)!r} cannot be loaded as {family}: {error}. Give a folder or hub id of a "
            f"{model_class.__name__} checkpoint that you have access to"
        ) from error
    return model.to(device).eval(), tokenizer, processor


def beginning(tokenizer: Any) -> str:
    """The begin-of-text token where a chat template has to write it, nothing where the tokenizer does so by itself."""
    begins_itself = tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]
    return "" if begins_itself else str(tokenizer.bos_token)
