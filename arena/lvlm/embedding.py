"""Sentence embeddings: what identifies one, and how near rewritten questions are to what they were.

Importing this loads no torch. The engine calls it by name, see `arena.engine.stages.meaning.EMBEDDING`.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arena.errors import ArenaError
from arena.hub_commit import fetching, refusal, resolve
from arena.lvlm.checkpoints import folder_digest

if TYPE_CHECKING:
    from torch import Tensor

_BATCH = 64


def fingerprint(id: str, revision: str) -> str:
    """A digest of a folder's files, or hub id and commit, as ``id@commit``.

    Raises `ArenaError` for a folder without a checkpoint and a hub id that is refused or out of reach.
    """
    folder = Path(id)
    return folder_digest(folder) if folder.exists() else f"{id}@{resolve(id, revision)}"


def copy(folder: Path, target: Path) -> None:
    """Copy the files of a checkpoint, but for those in folders, to `target`, which is made."""
    target.mkdir()
    for file in filter(Path.is_file, folder.iterdir()):
        shutil.copyfile(file, target / file.name)


def similarities(pairs: Sequence[Sequence[str]], checkpoint: str, revision: str = "main") -> list[float]:
    """The cosine of the embeddings of both texts of each pair, in [-1, 1]; 1 of equal ones.

    A text's embedding is the mean of the last layer's vectors of its tokens, special ones too and padding not, as
    sentence-transformers pools by default (Reimers and Gurevych 2019, arXiv 1908.10084). What is longer than the model
    takes is cut. `checkpoint` is a folder, or a hub id, of a text encoder in safetensors.

    Raises `ArenaError` if it cannot be reached or read, or is another kind of model.
    """
    from torch.nn.functional import cosine_similarity

    model, tokenizer = _load(checkpoint, revision)
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    vectors = dict(zip(texts, _embedded(model, tokenizer, texts), strict=True))
    return [
        1.0 if one == other else float(cosine_similarity(vectors[one], vectors[other], dim=0)) for one, other in pairs
    ]


def _embedded(model: Any, tokenizer: Any, texts: Sequence[str]) -> Tensor:
    """Mean vectors, shape ``(texts, width)``."""
    import torch

    positions = getattr(model.config, "max_position_embeddings", None) or tokenizer.model_max_length
    longest = min(int(tokenizer.model_max_length), int(positions))
    found = []
    for start in range(0, len(texts), _BATCH):
        batch = tokenizer(
            list(texts[start : start + _BATCH]), padding=True, truncation=True, max_length=longest, return_tensors="pt"
        )
        with torch.no_grad():
            states = model(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1).to(states.dtype)
        found.append((states * mask).sum(1) / mask.sum(1).clamp(min=1))
    return torch.cat(found)


def _load(checkpoint: str, revision: str) -> tuple[Any, Any]:
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModel, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint, revision=revision)
        model, report = AutoModel.from_pretrained(
            checkpoint, revision=revision, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
    except (ImportError, OSError, ValueError, KeyError, SafetensorError) as error:
        problem = refusal(error, checkpoint, revision) or " ".join(str(error).split()).rstrip(".")
        raise ArenaError(
            f"the sentence embedding cannot be loaded: {problem}. Give a folder with a text encoder in safetensors, or "
            f"a hub id that this machine can reach, or fetch it with {fetching(checkpoint, revision)}"
        ) from error
    if missing := [name for name in report["missing_keys"] if "pooler" not in name]:
        raise ArenaError(
            f"the sentence embedding is a checkpoint of another kind of model, without {min(missing)!r}: give a text "
            "encoder in safetensors"
        )
    if getattr(model.config, "is_encoder_decoder", False):
        raise ArenaError("the sentence embedding is an encoder with a decoder: give a text encoder alone")
    return model.eval(), tokenizer
