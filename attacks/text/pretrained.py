"""Text models by hub id or folder, or an error that says what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import AutoTokenizer

from arena.errors import ArenaError

CHECKPOINT = "hub id, with @revision where not main, or folder"
"""How settings describe what `load` takes."""


def load(auto_class: Any, checkpoint: str, device: str) -> tuple[Any, Any]:
    """A model of one of transformers' auto classes in evaluation mode on `device`, and its fast tokenizer where it has
    one.

    `checkpoint` is a folder or a hub id, which may end in ``@`` and a branch, tag or commit. Weights are read from
    safetensors only. Raises `ArenaError` if they cannot be reached or read, or are those of another kind of model.
    """
    name, _, revision = (checkpoint, "", "") if Path(checkpoint).is_dir() else checkpoint.partition("@")
    kind = str(auto_class.__name__).removeprefix("AutoModelFor")

    def refuse(problem: str) -> ArenaError:
        return ArenaError(
            f"{kind} model {checkpoint!r} cannot be loaded: {' '.join(problem.split()).rstrip('.')}. Give a folder, or "
            f"a hub id that this machine can reach or has in its cache, of a {kind} model in safetensors"
        )

    try:
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision or "main")
        model, report = auto_class.from_pretrained(
            name, revision=revision or "main", use_safetensors=True, output_loading_info=True
        )
    except ImportError as error:  # SentencePiece, which only some tokenizers need
        raise refuse(
            "a package that it needs is not installed: MarianMT's tokenizers want the extra `translation`, "
            f"pip install 'mmguard-arena[translation]' ({error})"
        ) from error
    except (OSError, ValueError, SafetensorError) as error:
        raise refuse(str(error)) from error
    if report["missing_keys"]:
        raise refuse(f"it is a checkpoint of another kind of model, without {min(report['missing_keys'])!r}")
    return model.to(device).eval(), tokenizer
