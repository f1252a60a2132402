"""Registered models by hub id: the same code path for a folder, and errors that say what to do."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi, errors
from safetensors.torch import load_file, save_file

from arena.errors import ArenaError, UnresolvedRevision
from arena.lvlm.checkpoints import HubCheckpoint
from arena.lvlm.zoo import random_checkpoints
from arena.plugins.registry import Registry

MODELS = {
    "llava": ("llava", "llava-hf/llava-1.5-7b-hf"),
    "qwen2-5-vl-7b": ("qwen2.5-vl", "Qwen/Qwen2.5-VL-7B-Instruct"),
    "qwen3-vl-2b": ("qwen3-vl", "Qwen/Qwen3-VL-2B-Instruct"),
    "qwen3-vl-4b": ("qwen3-vl", "Qwen/Qwen3-VL-4B-Instruct"),
    "qwen3-vl-8b": ("qwen3-vl", "Qwen/Qwen3-VL-8B-Instruct"),
    "internvl3-8b": ("internvl", "OpenGVLab/InternVL3-8B-hf"),
    "internvl3-5-8b": ("internvl3.5", "OpenGVLab/InternVL3_5-8B-HF"),
    "glm-4-1v-9b": ("glm4v", "zai-org/GLM-4.1V-9B-Base"),
    "idefics3-8b": ("idefics3", "HuggingFaceM4/Idefics3-8B-Llama3"),
    "smolvlm-2b": ("idefics3", "HuggingFaceTB/SmolVLM-Instruct"),
    "smolvlm-256m": ("idefics3", "HuggingFaceTB/SmolVLM-256M-Instruct"),
    "gemma3-4b": ("gemma3", "google/gemma-3-4b-it"),
    "smolvlm2-2b": ("smolvlm", "HuggingFaceTB/SmolVLM2-2.2B-Instruct"),
    "minicpm-v-4-6": ("minicpm-v", "openbmb/MiniCPM-V-4.6"),
    "llama-3-2-11b-vision": ("llama-3.2-vision", "meta-llama/Llama-3.2-11B-Vision-Instruct"),
}


COMMIT = "0123456789" * 4


def source(id: str, **config: Any) -> Any:
    return Registry().create("model", id, config)


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub is out of reach, and nothing is cached."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.parametrize("id", MODELS)
def test_a_registered_model_loads_its_family(id: str, tmp_path: Path) -> None:
    family, checkpoint = MODELS[id]
    assert source(id).config.checkpoint == checkpoint
    assert source(id, revision=COMMIT).fingerprint() == f"{checkpoint}@{COMMIT}"
    random_checkpoints.write(family, tmp_path)
    model = source(id, checkpoint=str(tmp_path), dtype="bfloat16", attention="eager")
    lvlm = model.load()
    assert family.startswith(lvlm.family) and not lvlm.model.training
    assert next(lvlm.model.parameters()).dtype == torch.bfloat16
    assert lvlm.model.config._attn_implementation == "eager"
    assert len(model.fingerprint()) == 64


def test_every_model_of_the_hub_is_in_the_table() -> None:
    models = {entry.id: entry.load() for entry in Registry().entries("model")}
    assert {id for id, model in models.items() if issubclass(model, HubCheckpoint)} == MODELS.keys()


@pytest.mark.parametrize("id", MODELS)
def test_a_dry_run_is_the_familys_random_checkpoint(id: str, tmp_path: Path) -> None:
    settings = source(id, device="cuda:3", revision="v2").dry_run(tmp_path / "dry", 5)
    assert settings == {
        "checkpoint": str(tmp_path / "dry"),
        "dtype": "float32",
        "device": "cpu",
        "revision": "main",
        "attention": "sdpa",
    }
    random_checkpoints.write(MODELS[id][0], tmp_path / "written", 5)
    dry, written = ({p.name: p.read_bytes() for p in (tmp_path / f).iterdir()} for f in ("dry", "written"))
    assert dry == written


def test_what_changes_no_result_identifies_no_cell(tmp_path: Path) -> None:
    here, there = source("llava", device="cpu"), source("llava", device="cuda:0", checkpoint="x/y", revision="v2")
    assert here.config.identity() == there.config.identity() == {"dtype": "bfloat16", "attention": "sdpa"}
    assert source("llava", attention="eager").config.identity() != here.config.identity()


def test_parameters_are_of_the_registered_checkpoint() -> None:
    assert source("qwen3-vl-4b", revision=COMMIT).parameters() == 4.44e9
    assert source("qwen3-vl-4b", checkpoint="Qwen/Qwen3-VL-2B-Instruct").parameters() is None


def test_a_fingerprint_follows_the_files(tmp_path: Path) -> None:
    prints = []
    for seed in (0, 1, 0):
        random_checkpoints.write("llava", tmp_path / "model", seed)
        prints.append(source("llava", checkpoint=str(tmp_path / "model")).fingerprint())
    assert prints[0] == prints[2] != prints[1]


def refusal(model: Any) -> str:
    with pytest.raises(ArenaError) as caught:
        model.load()
    return str(caught.value)


NOWHERE = r"model 'who/what', revision 'v9', is neither a folder nor in the local cache.*hf download who/what"
REFUSED = {
    errors.GatedRepoError: r"model 'who/what' is gated: accept its terms.*hf auth login",
    errors.RepositoryNotFoundError: r"model 'who/what' is neither a folder nor a model on the hub.*check the spelling",
    errors.RevisionNotFoundError: r"model 'who/what' has no revision 'v9'",
    errors.LocalEntryNotFoundError: NOWHERE,
    errors.OfflineModeIsEnabled: NOWHERE,
}


@pytest.mark.parametrize("door", ["revision", "files"])
@pytest.mark.parametrize("kind", REFUSED)
def test_the_hub_refuses(kind: Any, door: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """When it is asked for the commit of a revision, or later for a file of a known commit."""

    def refuse(*args: Any, **options: Any) -> Any:
        answer = {"response": SimpleNamespace(headers={}, request=None)}
        raise kind("no", **answer if issubclass(kind, errors.HfHubHTTPError) else {})

    monkeypatch.setattr("arena.hub_commit._Reach.failure", "")
    if door == "revision":
        monkeypatch.setattr(HfApi, "model_info", refuse)
        model = source("qwen3-vl-4b", checkpoint="who/what", revision="v9")
        assert re.search(REFUSED[kind], refusal(model))
    else:
        monkeypatch.setattr("transformers.utils.hub.hf_hub_download", refuse)
        model = source("qwen3-vl-4b", checkpoint="who/what", revision=COMMIT)
        assert re.search(REFUSED[kind].replace("v9", COMMIT), refusal(model))


def test_an_unknown_commit_has_no_fingerprint() -> None:
    with pytest.raises(UnresolvedRevision) as caught:
        source("qwen3-vl-4b").fingerprint()
    assert (caught.value.id, caught.value.revision) == ("Qwen/Qwen3-VL-4B-Instruct", "main")


def test_what_is_no_hub_id() -> None:
    assert "check the spelling" in refusal(source("qwen3-vl-4b", checkpoint="no//such///model"))


@pytest.mark.parametrize("found", ["llava", "an-architecture-of-tomorrow", "qwen2_5_vl"])
def test_another_architecture_is_not_filled_with_random_weights(found: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": found}), encoding="utf-8")
    text = refusal(source("qwen3-vl-8b", checkpoint=str(tmp_path)))
    assert f"architecture '{found}', where 'qwen3_vl' is needed" in text and str(tmp_path) in text


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    model = source("qwen3-vl-8b", checkpoint=str(tmp_path))
    assert "has no config.json that states a model_type: give a folder" in refusal(model)
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    assert "has no readable config.json: give a folder" in refusal(model)
    random_checkpoints.write("qwen3-vl", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    assert "cannot be loaded as qwen3-vl" in refusal(model)


def test_attention_that_is_not_installed(tmp_path: Path) -> None:
    random_checkpoints.write("qwen3-vl", tmp_path)
    text = refusal(source("qwen3-vl-2b", checkpoint=str(tmp_path), attention="flash_attention_2"))
    assert "set attention: sdpa" in text


def test_a_generation_against_another_is_gray_box() -> None:
    families = {id: type(source(id)).family for id in MODELS}
    for kin in (("qwen",), ("internvl",), ("smolvlm", "idefics3")):
        assert len({families[id] for id in MODELS if id.startswith(kin)}) == 1
    assert len(set(families.values())) == 8


@pytest.fixture
def hub(tmp_path: Path) -> Callable[..., Path]:
    """Puts a checkpoint into the hub's cache on this machine, as if a revision of it had been fetched."""

    def put(commit: str, revision: str, seed: int, family: str = "llava") -> Path:
        root = tmp_path / "hub" / "models--who--what"
        folder = root / "snapshots" / commit
        random_checkpoints.write(family, folder, seed)
        (root / "refs").mkdir(exist_ok=True)
        (root / "refs" / revision).write_text(commit, encoding="utf-8")
        return folder

    return put


def test_llava_loads_all_its_parts_from_one_revision(hub: Callable[..., Path]) -> None:
    for commit, revision, seed in (("a" * 40, "main", 0), ("b" * 40, "v2", 1)):
        folder = hub(commit, revision, seed)
        for name, key in (("preprocessor_config.json", "image_mean"), ("tokenizer_config.json", "model_max_length")):
            document = json.loads((folder / name).read_text(encoding="utf-8"))
            document[key] = [seed / 4] * 3 if key == "image_mean" else 1000 + seed
            (folder / name).write_text(json.dumps(document), encoding="utf-8")
    first, second = (source("llava", checkpoint="who/what", revision=r, dtype="float32") for r in ("main", "v2"))
    weights = [next(m.load().model.parameters()) for m in (first, second)]
    assert not torch.equal(*weights)
    for seed, model in enumerate((first, second)):
        lvlm = model.load()
        assert list(lvlm.processor.image_mean) == [seed / 4] * 3
        assert lvlm.tokenizer.model_max_length == 1000 + seed
        assert model.fingerprint() == f"who/what@{'ab'[seed] * 40}"


def test_llava_is_refused_what_is_not_llava(tmp_path: Path, hub: Callable[..., Path]) -> None:
    hub("c" * 40, "main", 0, "qwen3-vl")
    text = refusal(source("llava", checkpoint="who/what"))
    assert "architecture 'qwen3_vl', where 'llava' is needed" in text
    assert "is neither a folder nor in the local cache" in refusal(source("llava", checkpoint="who/else"))
    (tmp_path / "empty").mkdir()
    assert "has no config.json that states a model_type" in refusal(source("llava", checkpoint=str(tmp_path / "empty")))


def cut(folder: Path, *names: str, rename: str = "") -> None:
    """Take weights out of a checkpoint by parts of their names, or rename all of them."""
    tensors = load_file(folder / "model.safetensors")
    kept = {rename + k: v for k, v in tensors.items() if not any(name in k for name in names)}
    assert rename or len(kept) < len(tensors)
    save_file(kept, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("id", MODELS)
def test_missing_weights_are_not_drawn_at_random(id: str, tmp_path: Path) -> None:
    random_checkpoints.write(MODELS[id][0], tmp_path)
    cut(tmp_path, "layers.0.mlp.down_proj.weight")
    text = refusal(source(id, checkpoint=str(tmp_path), dtype="float32"))
    assert re.search(r"lacks \d+ weights of a \w+, such as \S*layers.0.mlp.down_proj.weight", text)


@pytest.mark.parametrize("id", MODELS)
def test_weights_of_another_shape_are_refused(id: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    random_checkpoints.write(MODELS[id][0], tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    name = next(n for n in sorted(tensors) if n.endswith("mlp.down_proj.weight"))
    rows, columns = tensors[name].shape
    tensors[name] = torch.zeros(rows, columns + 3)
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    text = refusal(source(id, checkpoint=str(tmp_path), dtype="float32"))
    assert re.search(r"has 1 weights of another shape.*such as \S*mlp.down_proj.weight", text)
    assert f"({rows}, {columns + 3}) in its files, ({rows}, {columns}) by its config.json" in text


def test_broken_files_of_a_checkpoint_are_named_with_a_remedy(tmp_path: Path) -> None:
    def broken(name: str) -> Path:
        random_checkpoints.write("qwen3-vl", tmp_path / name)
        return tmp_path / name

    cut(broken("renamed"), rename="old.")
    weights = broken("truncated") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    (broken("tokens") / "tokenizer.json").write_text("{}", encoding="utf-8")
    for file in broken("no tokens").glob("tokenizer*"):
        file.unlink()
    (broken("list") / "config.json").write_text("[]", encoding="utf-8")
    tensors = load_file(broken("pickle") / "model.safetensors")
    torch.save(tensors, tmp_path / "pickle" / "pytorch_model.bin")
    (tmp_path / "pickle" / "model.safetensors").unlink()
    for folder in tmp_path.iterdir():
        text = refusal(source("qwen3-vl-2b", checkpoint=str(folder), dtype="float32"))
        assert str(folder) in text and re.search(
            "give a folder|Give a folder|fetch or save it again|tokenizer files", text
        ), text


def test_a_device_that_is_not_there(tmp_path: Path) -> None:
    random_checkpoints.write("qwen3-vl", tmp_path)
    text = refusal(source("qwen3-vl-2b", checkpoint=str(tmp_path), device="cuda:77"))
    assert "cannot be put on device 'cuda:77'" in text
