"""Registered models: the shipped tiny ones and checkpoints by path or hub id. Importing this loads no torch."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from arena.errors import ArenaError
from arena.plugins.base import ModelSource, PluginConfig

if TYPE_CHECKING:
    from arena.lvlm.base import LVLM

ZOO = Path(__file__).parent / "zoo"


@cache
def folder_digest(folder: Path) -> str:
    """SHA-256 over the names and contents of a checkpoint's weights, configuration and tokenizer files."""
    total = hashlib.sha256()
    kinds = {".json", ".safetensors", ".model", ".txt", ".jinja"}
    files = sorted(p for p in folder.iterdir() if p.suffix in kinds) if folder.is_dir() else []
    if not files:
        raise ArenaError(f"model folder {folder} holds no checkpoint files; give a folder written by save_pretrained")
    for path in files:
        total.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


class _Shipped(ModelSource):
    """A tiny model that comes with the package."""

    folder: str

    def load(self) -> LVLM:
        from arena.lvlm.families.llava.model import Llava

        return Llava.from_pretrained(ZOO / self.folder)

    def fingerprint(self) -> str:
        return folder_digest(ZOO / self.folder)


class TinyLlava(_Shipped):
    """LLaVA at 1.1 M parameters, trained on procedural scenes; see its model card in `arena/lvlm/zoo/tiny_llava`."""

    family = "llava"
    folder = "tiny_llava"


class TinyLlava48(_Shipped):
    """A second tiny LLaVA, of other sizes, tokenizer and picture size: what is crafted on one can be tried on the
    other; see its model card in `arena/lvlm/zoo/tiny_llava_48`."""

    family = "llava"
    folder = "tiny_llava_48"


class LlavaCheckpoint(ModelSource):
    """A LLaVA-1.5 checkpoint by hub id or folder (Liu 2023, arXiv 2310.03744)."""

    family = "llava"

    class Config(PluginConfig):
        checkpoint: str = Field("llava-hf/llava-1.5-7b-hf", description="hub id or folder")
        revision: str = Field("main", description="branch, tag or commit of a hub id")
        dtype: Literal["float32", "bfloat16", "float16"] = Field("bfloat16", description="type of the loaded weights")
        device: str = Field("cpu", description="torch device, such as cpu or cuda:0")
        attention: Literal["sdpa", "eager", "flash_attention_2"] = Field("sdpa", description="attention of all layers")

    config: Config

    def load(self) -> LVLM:
        import torch

        from arena.lvlm.families.llava.model import Llava

        c = self.config
        return Llava.from_pretrained(
            c.checkpoint,
            dtype=getattr(torch, c.dtype),
            device=c.device,
            revision=c.revision,
            attn_implementation=c.attention,
        )

    def fingerprint(self) -> str:
        folder = Path(self.config.checkpoint)
        return folder_digest(folder) if folder.is_dir() else f"{self.config.checkpoint}@{self.config.revision}"
