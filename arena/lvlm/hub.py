"""Models of the hub by name: which checkpoint, which family file loads it. Importing this loads no torch."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from arena.errors import ArenaError
from arena.lvlm.sources import LlavaCheckpoint

if TYPE_CHECKING:
    from arena.lvlm.base import LVLM


class HubCheckpoint(LlavaCheckpoint):
    """A checkpoint of the hub, with the settings of LLaVA's, of which it is made sure that its architecture fits."""

    architecture: ClassVar[str]
    """The `model_type` that a fitting checkpoint's configuration states."""
    billions: ClassVar[float | None] = None
    """Parameters of the checkpoint that is registered, in 1e9, for estimates; None where nobody counted."""
    tiny: ClassVar[str] = ""
    """Its stand-in among `arena.lvlm.zoo.random_checkpoints`, of the same architecture."""

    @abstractmethod
    def lvlm_class(self) -> Any:
        """The class of the family's file, whose `from_pretrained` loads it."""

    def load(self) -> LVLM:
        import torch

        c = self.config
        check_architecture(c.checkpoint, c.revision, self.architecture)
        try:
            return self.opened(
                checkpoint=c.checkpoint,
                dtype=getattr(torch, c.dtype),
                device=c.device,
                revision=c.revision,
                attn_implementation=c.attention,
            )
        except ImportError as error:  # of the attention that was asked for
            raise ArenaError(
                f"model {c.checkpoint!r} cannot be loaded with attention {c.attention!r}: {error}. Install what is "
                "missing, or set attention: sdpa"
            ) from error

    def opened(self, **settings: Any) -> LVLM:
        """The model by the arguments of the family's `from_pretrained`."""
        lvlm: LVLM = self.lvlm_class().from_pretrained(**settings)
        return lvlm


class QwenCheckpoint(HubCheckpoint):
    """A checkpoint of any Qwen-VL generation: like the paper, the arena counts them as one family, so that one of them
    against another is a gray-box cell."""

    family = "qwen-vl"


class Qwen2_5VL7B(QwenCheckpoint):
    """Qwen2.5-VL-7B-Instruct (Bai 2025, arXiv 2502.13923)."""

    architecture = "qwen2_5_vl"
    tiny = "qwen2.5-vl"
    billions = 8.29

    class Config(LlavaCheckpoint.Config):
        checkpoint: str = Field("Qwen/Qwen2.5-VL-7B-Instruct", description="hub id or folder")

    def lvlm_class(self) -> Any:
        from arena.lvlm.families.qwen_vl.qwen2_5 import Qwen2_5VL

        return Qwen2_5VL


class Qwen3VL2B(QwenCheckpoint):
    """Qwen3-VL-2B-Instruct (Bai 2025, arXiv 2511.21631)."""

    architecture = "qwen3_vl"
    tiny = "qwen3-vl"
    billions = 2.13

    class Config(LlavaCheckpoint.Config):
        checkpoint: str = Field("Qwen/Qwen3-VL-2B-Instruct", description="hub id or folder")

    def lvlm_class(self) -> Any:
        from arena.lvlm.families.qwen_vl.qwen3 import Qwen3VL

        return Qwen3VL


class Qwen3VL4B(Qwen3VL2B):
    """Qwen3-VL-4B-Instruct, the surrogate and white-box target of MMGuard (Bai 2025, arXiv 2511.21631)."""

    billions = 4.44

    class Config(LlavaCheckpoint.Config):
        checkpoint: str = Field("Qwen/Qwen3-VL-4B-Instruct", description="hub id or folder")


class Qwen3VL8B(Qwen3VL2B):
    """Qwen3-VL-8B-Instruct (Bai 2025, arXiv 2511.21631)."""

    billions = 8.77

    class Config(LlavaCheckpoint.Config):
        checkpoint: str = Field("Qwen/Qwen3-VL-8B-Instruct", description="hub id or folder")


class InternVL3_8B(HubCheckpoint):
    """InternVL3-8B in the format of transformers (Zhu 2025, arXiv 2504.10479)."""

    family = "internvl"
    architecture = "internvl"
    tiny = "internvl"
    billions = 7.94

    class Config(LlavaCheckpoint.Config):
        checkpoint: str = Field("OpenGVLab/InternVL3-8B-hf", description="hub id or folder")

    def lvlm_class(self) -> Any:
        from arena.lvlm.families.internvl.model import InternVL

        return InternVL


class InternVL3_5_8B(InternVL3_8B):
    """InternVL3.5-8B in the format of transformers (Wang 2025, arXiv 2508.18265)."""

    tiny = "internvl3.5"
    billions = 8.53

    class Config(LlavaCheckpoint.Config):
        checkpoint: str = Field("OpenGVLab/InternVL3_5-8B-HF", description="hub id or folder")


class Glm4_1V9B(HubCheckpoint):
    """GLM-4.1V-9B-Base (GLM-V Team 2025, arXiv 2507.01006)."""

    family = "glm-v"
    architecture = "glm4v"
    tiny = "glm4v"
    billions = 10.29

    class Config(LlavaCheckpoint.Config):
        checkpoint: str = Field("zai-org/GLM-4.1V-9B-Base", description="hub id or folder")

    def lvlm_class(self) -> Any:
        from arena.lvlm.families.glm4v.model import Glm4v

        return Glm4v


class Llava15_7B(HubCheckpoint):
    """LLaVA-1.5-7B (Liu 2023, arXiv 2310.03744)."""

    architecture = "llava"
    tiny = "llava"
    billions = 7.06

    def lvlm_class(self) -> Any:
        from arena.lvlm.families.llava.model import Llava

        return Llava

    def opened(self, **settings: Any) -> LVLM:
        """All parts of one revision; `Llava.from_pretrained`, by which the shipped models are loaded, knows it for the
        weights only."""
        from transformers import CLIPImageProcessorPil, LlavaForConditionalGeneration

        from arena.lvlm.loading import load_parts

        parts = load_parts(self.family, LlavaForConditionalGeneration, CLIPImageProcessorPil, **settings)
        lvlm: LVLM = self.lvlm_class()(*parts)
        return lvlm


class Idefics3_8B(HubCheckpoint):
    """Idefics3-8B-Llama3 (Laurençon 2024, arXiv 2408.12637)."""

    family = "idefics3"
    architecture = "idefics3"
    tiny = "idefics3"
    billions = 8.46

    class Config(LlavaCheckpoint.Config):
        checkpoint: str = Field("HuggingFaceM4/Idefics3-8B-Llama3", description="hub id or folder")

    def lvlm_class(self) -> Any:
        from arena.lvlm.families.idefics3.model import Idefics3

        return Idefics3


class SmolVLM2B(Idefics3_8B):
    """SmolVLM-Instruct, 2.2 B parameters, of Idefics3's architecture (Marafioti 2025, arXiv 2504.05299)."""

    billions = 2.25

    class Config(LlavaCheckpoint.Config):
        checkpoint: str = Field("HuggingFaceTB/SmolVLM-Instruct", description="hub id or folder")


class SmolVLM256M(Idefics3_8B):
    """SmolVLM-256M-Instruct, the smallest of Idefics3's architecture (Marafioti 2025, arXiv 2504.05299)."""

    billions = 0.26

    class Config(LlavaCheckpoint.Config):
        checkpoint: str = Field("HuggingFaceTB/SmolVLM-256M-Instruct", description="hub id or folder")


class SmolVLM2_2B(Idefics3_8B):
    """SmolVLM2-2.2B-Instruct, which also takes films (Marafioti 2025, arXiv 2504.05299)."""

    architecture = "smolvlm"
    tiny = "smolvlm"
    billions = 2.25

    class Config(LlavaCheckpoint.Config):
        checkpoint: str = Field("HuggingFaceTB/SmolVLM2-2.2B-Instruct", description="hub id or folder")

    def lvlm_class(self) -> Any:
        from arena.lvlm.families.idefics3.model import SmolVLM

        return SmolVLM


class Gemma3_4B(HubCheckpoint):
    """Gemma 3 4B, instruction-tuned; gated (Gemma Team 2025, arXiv 2503.19786)."""

    family = "gemma3"
    architecture = "gemma3"
    tiny = "gemma3"
    billions = 4.3

    class Config(LlavaCheckpoint.Config):
        checkpoint: str = Field("google/gemma-3-4b-it", description="hub id or folder")

    def lvlm_class(self) -> Any:
        from arena.lvlm.families.gemma3.model import Gemma3

        return Gemma3


class MiniCPMV4_6(HubCheckpoint):
    """MiniCPM-V-4.6 (Yao 2024, arXiv 2408.01800)."""

    family = "minicpm-v"
    architecture = "minicpmv4_6"
    tiny = "minicpm-v"
    billions = 1.3

    class Config(LlavaCheckpoint.Config):
        checkpoint: str = Field("openbmb/MiniCPM-V-4.6", description="hub id or folder")

    def lvlm_class(self) -> Any:
        from arena.lvlm.families.minicpmv.model import MiniCPMV

        return MiniCPMV


class Llama3_2Vision11B(HubCheckpoint):
    """Llama-3.2-11B-Vision-Instruct (Grattafiori 2024, arXiv 2407.21783)."""

    family = "llama-3.2-vision"
    architecture = "mllama"
    tiny = "llama-3.2-vision"
    billions = 10.67

    class Config(LlavaCheckpoint.Config):
        checkpoint: str = Field("meta-llama/Llama-3.2-11B-Vision-Instruct", description="hub id or folder")

    def lvlm_class(self) -> Any:
        from arena.lvlm.families.mllama.model import Mllama

        return Mllama


def check_architecture(checkpoint: str, revision: str, architecture: str) -> None:
    """Raise `ArenaError` unless the checkpoint can be reached and its configuration states `architecture`.

    transformers itself would go on with a warning, and random weights where names do not fit.
    """
    from transformers import PreTrainedConfig

    try:
        document, _ = PreTrainedConfig.get_config_dict(checkpoint, revision=revision)
    except (OSError, ValueError) as error:
        raise ArenaError(_remedy(checkpoint, revision, error)) from error
    found = document.get("model_type") if isinstance(document, dict) else None
    if found is None:
        raise ArenaError(f"model {checkpoint!r} has no config.json that states a model_type: {_FOLDER}")
    if found != architecture:
        raise ArenaError(
            f"model {checkpoint!r} is of architecture {found!r}, where {architecture!r} is needed: name it under a "
            "model of its own family (`arena list` shows them), or give another checkpoint"
        )


_FOLDER = "give a folder that save_pretrained wrote, or a hub id"


def _remedy(checkpoint: str, revision: str, error: BaseException) -> str:
    from huggingface_hub import errors

    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)

    def caused(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    model = f"model {checkpoint!r}"
    if Path(checkpoint).exists():
        return f"{model} has no readable config.json: {_FOLDER}"
    if caused(errors.GatedRepoError):
        return f"{model} is gated: accept its terms on its hub page, then log in with `hf auth login` or set HF_TOKEN"
    if caused(errors.RevisionNotFoundError):
        return f"{model} has no revision {revision!r}: give a branch, tag or commit of it, such as main"
    if caused(errors.RepositoryNotFoundError, errors.HFValidationError):
        return (
            f"{model} is neither a folder nor a model on the hub that you may see: check the spelling; if it is "
            "private, log in with `hf auth login` or set HF_TOKEN"
        )
    if caused(errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        return (
            f"{model} is neither a folder nor in the local cache, and the hub cannot be reached: fetch it with "
            f"`hf download {checkpoint}` on a machine that can, or give a folder"
        )
    return f"{model} cannot be read: {error}"
