"""Where models come from: checkpoints of the hub or of a folder, and the tiny ones that come with the package.

A family's own are in its ``checkpoints.py``. Importing this loads no torch.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from arena.errors import ArenaError
from arena.hub_commit import fetching, refusal, resolve
from arena.plugins.base import ModelSource, PluginConfig, setting

if TYPE_CHECKING:
    from arena.lvlm.base import LVLM

ZOO = Path(__file__).parent / "zoo"


def folder_digest(folder: Path) -> str:
    """SHA-256 (hex) over the names and contents of a checkpoint's weights, configuration and tokenizer files.

    Raises `ArenaError` for a folder without any.
    """
    kinds = {".json", ".safetensors", ".model", ".txt", ".jinja"}
    files = sorted(p for p in folder.iterdir() if p.suffix in kinds) if folder.is_dir() else []
    if not files:
        raise ArenaError(f"model folder {folder} holds no checkpoint files; give a folder written by save_pretrained")
    return _digest(tuple((p.absolute(), p.stat().st_size, p.stat().st_mtime_ns) for p in files))


@cache
def _digest(files: tuple[tuple[Path, int, int], ...]) -> str:
    total = hashlib.sha256()
    for path, _, _ in files:
        with path.open("rb") as file:
            total.update(path.name.encode() + b"\0" + hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


class ShippedModel(ModelSource):
    """A tiny model that comes with the package, made by `arena zoo train`; of the second generation."""

    version = "2"
    folder: ClassVar[str]
    """Its folder in ``arena/lvlm/zoo``."""

    @abstractmethod
    def lvlm_class(self) -> type[LVLM]:
        """The class of the family, whose `from_pretrained` loads it."""

    def load(self) -> LVLM:
        return self.lvlm_class().from_pretrained(ZOO / self.folder)

    def fingerprint(self) -> str:
        return folder_digest(ZOO / self.folder)


def checkpoint_setting(id: str) -> Any:
    """The setting `checkpoint` with the hub id that a model stands for. Its fingerprint identifies the weights, so the
    name alone changes no result."""
    return setting(id, runtime=True, description="hub id or folder")


class HubCheckpoint(ModelSource):
    """A checkpoint of the hub, or of a folder, of which it is made sure that its architecture fits.

    A subclass names its default by a `Config` of its own with ``checkpoint: str = checkpoint_setting(ID)``.
    """

    architecture: ClassVar[str]
    """The `model_type` that a fitting checkpoint's configuration states."""
    stand_in: ClassVar[str] = ""
    """Where its small random checkpoint is drawn, ``module:function``; by name, so that it is no part of the source of
    what the real one computes. Empty where there is none."""
    preprocessing: ClassVar[Mapping[str, Any]] = {}
    """What the registered checkpoint's preprocessor_config.json says; the pixel pipeline is tested at these values."""

    class Config(PluginConfig):
        checkpoint: str = setting(runtime=True, description="hub id or folder")
        revision: str = setting("main", runtime=True, description="branch, tag or commit of a hub id")
        dtype: Literal["float32", "bfloat16", "float16"] = Field("bfloat16", description="type of the loaded weights")
        device: str = setting(
            "cpu", runtime=True, description="torch device, such as cpu or cuda:0; auto: layers shared out over GPUs"
        )
        attention: Literal["sdpa", "eager", "flash_attention_2"] = Field("sdpa", description="attention of all layers")

    config: Config

    @abstractmethod
    def lvlm_class(self) -> type[LVLM]:
        """The class of the family, whose `from_pretrained` loads it."""

    def commit(self) -> str:
        """The commit of the hub that is loaded; of a folder, which has none, the setting `revision`."""
        c = self.config
        return c.revision if Path(c.checkpoint).exists() else resolve(c.checkpoint, c.revision)

    def fetch(self) -> None:
        if not Path(self.config.checkpoint).exists():
            from huggingface_hub import snapshot_download

            files = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
            snapshot_download(self.config.checkpoint, revision=self.commit(), allow_patterns=files)

    def load(self) -> LVLM:
        import torch

        c, commit = self.config, self.commit()
        check_architecture(c.checkpoint, commit, self.architecture)
        try:
            return self.lvlm_class().from_pretrained(
                c.checkpoint,
                dtype=getattr(torch, c.dtype),
                device=c.device,
                revision=commit,
                attn_implementation=c.attention,
            )
        except ImportError as error:  # of the attention that was asked for
            raise ArenaError(
                f"model {c.checkpoint!r} cannot be loaded with attention {c.attention!r}: {error}. Install what is "
                "missing, or set attention: sdpa"
            ) from error

    def fingerprint(self) -> str:
        """A digest of a folder's files, or ``id@commit``. Raises `UnresolvedRevision` where the commit cannot be found
        out, see `arena.hub_commit`."""
        folder = Path(self.config.checkpoint)
        return folder_digest(folder) if folder.exists() else f"{self.config.checkpoint}@{self.commit()}"

    def pinned(self) -> Mapping[str, Any]:
        return {"revision": self.commit()}

    def parameters(self) -> float | None:
        own = type(self).Config.model_fields["checkpoint"].default
        return super().parameters() if self.config.checkpoint == own else None

    def dry_run(self, folder: Path, seed: int) -> Mapping[str, Any] | None:
        if not self.stand_in:
            return None
        module, _, function = self.stand_in.partition(":")
        for part in getattr(import_module(module), function)(seed):
            part.save_pretrained(folder)
        where = {"checkpoint": str(folder), "revision": "main", "device": "cpu"}
        return {**where, "dtype": "float32", "attention": "sdpa"}


def check_architecture(checkpoint: str, revision: str, architecture: str) -> None:
    """Raise `ArenaError` unless the checkpoint can be reached and its configuration states `architecture`.

    transformers itself would go on with a warning, and random weights where names do not fit.
    """
    from transformers import PreTrainedConfig

    try:
        document, _ = PreTrainedConfig.get_config_dict(checkpoint, revision=revision)
    except (OSError, ValueError) as error:
        raise ArenaError(_unreadable(checkpoint, revision, error)) from error
    found = document.get("model_type") if isinstance(document, dict) else None
    if found is None:
        raise ArenaError(f"model {checkpoint!r} has no config.json that states a model_type: {_FOLDER}")
    if found != architecture:
        raise ArenaError(
            f"model {checkpoint!r} is of architecture {found!r}, where {architecture!r} is needed: name it under a "
            "model of its own family (`arena list` shows them), or give another checkpoint"
        )


_FOLDER = "give a folder that save_pretrained wrote, or a hub id"


def _unreadable(checkpoint: str, revision: str, error: BaseException) -> str:
    if Path(checkpoint).exists():
        return f"model {checkpoint!r} has no readable config.json: {_FOLDER}"
    if (refused := refusal(error, checkpoint, revision)) is not None:
        return refused
    return (
        f"model {checkpoint!r}, revision {revision!r}, is neither a folder nor in the local cache, and cannot be "
        f"fetched ({type(error).__name__}): fetch it with {fetching(checkpoint, revision)} on a machine that can reach "
        "the hub, or give a folder"
    )
