"""Diffusion models of pictures by hub id or folder, in the diffusers format, or an error that says what to do.

Nothing of diffusers is imported before a model is loaded: that alone takes seconds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arena.errors import ArenaError

CHECKPOINT = "hub id, with @revision where not main, or folder"
"""How settings describe what `load` takes."""
SHIPPED = Path(__file__).parent / "zoo" / "tiny_ddpm_48"
SCHEDULERS = ("DDPMScheduler", "DDIMScheduler", "PNDMScheduler")
"""Those of one and the same forward process, whose configurations can be read as DDPM's."""

_FILES = ("config.json", "scheduler_config.json", "diffusion_pytorch_model*.safetensors*")


@dataclass(frozen=True)
class Denoiser:
    """An unconditional pixel diffusion model with its scheduler; `size` is the (height, width) it was trained on."""

    name: str
    unet: Any
    scheduler: Any
    size: tuple[int, int]

    @property
    def levels(self) -> int:
        """Noise levels of the scheduler; 1,000 as a rule."""
        return int(self.scheduler.config.num_train_timesteps)


def load(checkpoint: str | None, device: str) -> Denoiser:
    """The model in float32 on `device`, in evaluation mode; without `checkpoint`, the one that comes with the arena.

    `checkpoint` is a folder or a hub id, which may end in ``@`` and a branch, tag or commit. Weights are read from
    safetensors only. Raises `ArenaError` if they cannot be reached or read, or are those of another kind of model.
    """
    name = "tiny-ddpm-48" if checkpoint is None else checkpoint
    place = str(SHIPPED) if checkpoint is None else checkpoint
    _check_kind(name, _read(name, _index(place)))
    folder = _fetch(place)
    unet, scheduler = _load_unet(name, _part(folder, "unet")), _load_scheduler(name, _part(folder, "scheduler"))
    return Denoiser(name, unet.to(device).eval(), scheduler, _size(name, unet.config))


def _index(checkpoint: str) -> Path:
    """The file that says what the pipeline is made of: it comes first, so that nothing is downloaded to be refused."""
    if Path(checkpoint).is_dir():
        return Path(checkpoint) / "model_index.json"
    from huggingface_hub import hf_hub_download

    name, _, revision = checkpoint.partition("@")
    try:
        return Path(hf_hub_download(name, "model_index.json", revision=revision or "main"))
    except (OSError, ValueError) as error:
        raise _refusal(checkpoint, str(error)) from error


def _fetch(checkpoint: str) -> Path:
    """The folder with the checkpoint's files, downloaded where it is neither a folder nor in the hub's cache."""
    if Path(checkpoint).is_dir():
        return Path(checkpoint)
    from huggingface_hub import snapshot_download

    name, _, revision = checkpoint.partition("@")
    files = [place + file for place in ("", "unet/", "scheduler/") for file in _FILES]
    try:
        return Path(snapshot_download(name, revision=revision or "main", allow_patterns=files))
    except (OSError, ValueError) as error:
        raise _refusal(checkpoint, str(error)) from error


def _check_kind(name: str, index: dict[str, Any]) -> None:
    parts = {part: made_of[-1] for part, made_of in index.items() if isinstance(made_of, list) and made_of[-1]}
    if set(parts) != {"unet", "scheduler"} or parts["unet"] != "UNet2DModel":
        found = ", ".join(f"{part} ({kind})" for part, kind in parts.items())
        raise _another_kind(name, f"a {index.get('_class_name', 'pipeline')} made of {found or 'nothing'}")
    if parts["scheduler"] not in SCHEDULERS:
        raise _another_kind(name, f"one whose noise is scheduled by {parts['scheduler']}, not by DDPM")


def _part(folder: Path, part: str) -> Path:
    """The folder of a part of the pipeline; early checkpoints have all files in one."""
    return folder / part if (folder / part).is_dir() else folder


def _read(name: str, path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise _refusal(name, f"it has no {path.name}: it is no checkpoint of a diffusers pipeline") from error
    except (OSError, ValueError) as error:
        raise _refusal(name, f"its {path.name} cannot be read ({error})") from error
    if not isinstance(document, dict):
        raise _refusal(name, f"its {path.name} is no JSON object")
    return document


def _load_unet(name: str, folder: Path) -> Any:
    from diffusers import UNet2DModel
    from safetensors import SafetensorError

    try:
        unet, report = UNet2DModel.from_pretrained(folder, use_safetensors=True, output_loading_info=True)
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        raise _refusal(name, str(error)) from error
    for problem in ("missing_keys", "unexpected_keys"):
        if report[problem]:
            raise _refusal(name, f"its weights do not fit its configuration ({problem}: {min(report[problem])!r})")
    return unet


def _load_scheduler(name: str, folder: Path) -> Any:
    from diffusers import DDPMScheduler

    try:
        return DDPMScheduler.from_pretrained(folder)
    except (OSError, ValueError, TypeError, NotImplementedError) as error:
        raise _refusal(name, str(error)) from error


def _size(name: str, config: Any) -> tuple[int, int]:
    """(height, width) that an unconditional model of RGB pictures was trained on; others are refused."""
    if config.class_embed_type is not None or config.num_class_embeds is not None:
        raise _another_kind(name, "one that must be told the class of a picture")
    if config.in_channels != 3 or config.out_channels not in (3, 6):
        channels = f"{config.in_channels} channels in and {config.out_channels} out"
        raise _another_kind(name, f"one with {channels}, where RGB needs 3 and 3, or 6 with learned variances")
    if config.sample_size is None:
        raise _refusal(name, "its configuration does not state the `sample_size` that it was trained on")
    sides = [config.sample_size] * 2 if isinstance(config.sample_size, int) else config.sample_size
    return int(sides[0]), int(sides[1])


def _another_kind(name: str, kind: str) -> ArenaError:
    return _refusal(name, f"it is a model of another kind, {kind}")


def _refusal(name: str, problem: str) -> ArenaError:
    return ArenaError(
        f"diffusion model {name!r} cannot be loaded: {' '.join(problem.split()).rstrip('.')}. Give a folder, or a hub "
        "id that this machine can reach or has in its cache, of an unconditional diffusion model of RGB pictures, as "
        "DDPMPipeline saves it (unet/ and scheduler/), in safetensors"
    )
