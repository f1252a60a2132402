"""Recipes on transformers' Trainer: what learns, what is kept, what hooks see."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from tiny_models import tiny_random_llava
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from arena.data.embedded.glyphs import Glyphs
from arena.data.sample import Sample
from arena.engine.stages.fine_tune import check_history
from arena.errors import ArenaError
from arena.lvlm.adapters import trainable, trainable_state
from arena.lvlm.base import LVLM
from arena.lvlm.batch import Batch
from arena.lvlm.quantization import restored
from arena.plugins.base import Recipe, TrainingHooks
from arena.plugins.registry import Registry
from arena.recipes.training import (
    _accumulation,
    _Collator,
    _state,
    evaluate,
    fine_tune,
    held_out_split,
    kept_epochs,
    load_epoch,
    read_history,
    tuned_model,
)


def adapter(name: str) -> bool:
    return "lora_" in name and "language_model" in name


def projector(name: str) -> bool:
    return "multi_modal_projector" in name


TRAINABLE = {
    "lora": adapter,
    "dora": adapter,
    "qlora": adapter,
    "projector": projector,
    "projector-lora": lambda name: adapter(name) or projector(name),
    "full": lambda name: True,
}
"""Which parameters a recipe trains, by name."""

ADAPTERS = [name for name in TRAINABLE if name.endswith("lora") or name == "dora"]


@pytest.fixture(scope="module")
def samples() -> tuple[Sample, ...]:
    return Glyphs().load(24, 0, 0, seed=3).train


def recipe(name: str, **config: object) -> Recipe:
    return Registry().create("recipe", name, {"epochs": 2, "batch_size": 4, **config})


def loss(lvlm: LVLM, samples: tuple[Sample, ...]) -> float:
    lvlm.model.eval()
    with torch.no_grad():
        return float(lvlm.loss(lvlm.encode(samples)))


@pytest.mark.parametrize("name", TRAINABLE)
def test_a_recipe_learns_with_its_own_parameters_only(name: str, samples: tuple[Sample, ...], tmp_path: Path) -> None:
    lvlm = tiny_random_llava()
    before = {k: v.clone() for k, v in lvlm.model.state_dict().items()}
    start = loss(lvlm, samples)
    chosen = recipe(name)
    history = fine_tune(lvlm, chosen, samples, 0, tmp_path)
    tuned = tuned_model(tiny_random_llava(), chosen, 0)
    trainable = [n for n, p in tuned.model.named_parameters() if p.requires_grad]
    assert trainable and all(map(TRAINABLE[name], trainable))
    load_epoch(tuned, tmp_path, history.chosen)
    assert loss(tuned, samples) < start - 0.05
    changed = {
        k.replace(".base_layer", "").replace("base_model.model.", "")
        for k, v in tuned.model.state_dict().items()
        if v.dtype != torch.uint8  # rounded, not trained
        if (plain := k.replace(".base_layer", "").replace("base_model.model.", "")) in before
        and not torch.equal(v, before[plain])
    }
    assert all(map(TRAINABLE[name], changed))


@pytest.mark.parametrize("name", TRAINABLE)
def test_an_epoch_on_disk_is_the_model_that_was_judged(name: str, samples: tuple[Sample, ...], tmp_path: Path) -> None:
    chosen = recipe(name)
    history = fine_tune(tiny_random_llava(), chosen, samples, 5, tmp_path)
    held_out = held_out_split(samples, 5)[1]
    tuned = tuned_model(tiny_random_llava(), chosen, 5)
    trained = {n: p for n, p in tuned.model.named_parameters() if p.requires_grad}
    for epoch in (1, 0):  # in any order: nothing of another epoch stays
        load_epoch(tuned, tmp_path, epoch)
        assert evaluate(tuned, _Collator(tuned, held_out))[0] == pytest.approx(
            history.epochs[epoch].held_out_loss, abs=1e-5
        )
        saved = load_file(tmp_path / f"epoch-{epoch}.safetensors")
        assert {n: v.shape for n, v in saved.items()} == {n: p.shape for n, p in trained.items()}
        assert all(torch.equal(saved[n], p) for n, p in trained.items())


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize("rank", [8, 64])
def test_the_rank_is_a_setting(name: str, rank: int) -> None:
    tuned = recipe(name, rank=rank, alpha=rank).prepare(tiny_random_llava())
    down = [p for n, p in tuned.model.named_parameters() if "lora_A" in n]
    up = [p for n, p in tuned.model.named_parameters() if "lora_B" in n]
    assert len(down) == len(up) == 14
    assert {len(p) for p in down} == {p.shape[1] for p in up} == {rank}
    module = next(m for m in tuned.model.modules() if isinstance(m, LoraLayer))
    assert module.scaling == {"default": 1.0}


def test_adapters_on_the_whole_model_learn_in_each_of_its_parts(samples: tuple[Sample, ...], tmp_path: Path) -> None:
    chosen = recipe("lora", modules="all", epochs=1)
    tuned = tuned_model(tiny_random_llava(), chosen, 0)
    before = trainable_state(tuned)
    for part in ("vision_tower", "multi_modal_projector", "language_model"):
        assert any(part in name for name in before)
    assert all("lora_" in name for name in before)
    fine_tune(tiny_random_llava(), chosen, samples, 0, tmp_path)
    load_epoch(tuned, tmp_path, 0)
    assert not any(torch.equal(p, before[n]) for n, p in trainable(tuned).items() if "lora_B" in n)


@pytest.mark.parametrize(("name", "packs"), [("lora", True), ("dora", False), ("qlora", False), ("full", False)])
def test_only_adapters_of_the_language_model_are_trained_together(name: str, packs: bool) -> None:
    assert recipe(name).packs is packs
    assert name == "full" or recipe(name, modules="all").packs is False


def test_a_projector_that_learns_in_full_has_no_adapters(samples: tuple[Sample, ...]) -> None:
    found = trainable(recipe("projector-lora", modules="all").prepare(tiny_random_llava()))
    assert {"lora_" in name for name in found if projector(name)} == {False}
    assert any("vision_tower" in name for name in found)


def test_where_adapters_are_by_default_is_no_part_of_a_cell() -> None:
    assert "modules" not in recipe("lora").config.identity()
    assert recipe("lora", modules="all").config.identity()["modules"] == "all"


@pytest.mark.parametrize("name", TRAINABLE)
def test_a_recipe_says_what_it_trains(name: str) -> None:
    chosen = recipe(name)
    found = trainable(chosen.prepare(tiny_random_llava()))
    parts = {"adapters" if adapter(n) else "projector" if projector(n) else "all" for n in found}
    assert chosen.parts == ({"all"} if "all" in parts else parts)
    assert {min(p.shape) for n, p in found.items() if "lora_A" in n} == ({chosen.rank} if chosen.rank else set())


@pytest.mark.parametrize("name", TRAINABLE)
def test_a_dry_run_is_one_short_epoch(name: str) -> None:
    asked = {"epochs": 9, "gradient_accumulation": 4, "precision": "bfloat16", "gradient_checkpointing": True}
    small = recipe(name, **{**asked, **type(recipe(name).config).small()}).config.model_dump()
    wanted = {"epochs": 1, "batch_size": 8, "gradient_accumulation": 1, "precision": "float32", "checkpoints": "best"}
    assert wanted.items() <= small.items() and not small["gradient_checkpointing"]
    assert small.get("rank", 2) == 2


def test_dora_learns_magnitudes_and_begins_at_the_base_model(samples: tuple[Sample, ...], tmp_path: Path) -> None:
    chosen = recipe("dora", epochs=1, dropout=0.0)
    tuned = tuned_model(tiny_random_llava(), chosen, 0)
    assert loss(tuned, samples) == pytest.approx(loss(tiny_random_llava(), samples), abs=1e-4)
    before = {n: p.clone() for n, p in tuned.model.named_parameters() if "magnitude" in n}
    fine_tune(tiny_random_llava(), chosen, samples, 0, tmp_path)
    load_epoch(tuned, tmp_path, 0)
    assert len(before) == 14
    assert all(not torch.equal(p, before[n]) for n, p in tuned.model.named_parameters() if n in before)


@pytest.mark.parametrize("double", [True, False])
def test_qlora_rounds_the_language_model_to_16_values_a_block(double: bool) -> None:
    plain = tiny_random_llava()
    name = "model.language_model.layers.0.mlp.down_proj"
    weight = plain.model.get_submodule(name).weight.detach().clone()
    elsewhere = plain.model.model.vision_tower.state_dict()
    tuned = recipe("qlora", double_quantization=double).prepare(tiny_random_llava())
    layer = tuned.module(name).base_layer
    assert layer.weight.dtype == torch.uint8 and layer.weight.numel() == weight.numel() / 2
    assert layer.weight.quant_state.nested is double and layer.weight.quant_state.quant_type == "nf4"
    blocks, values = weight.view(-1, 64), restored(layer.weight).view(-1, 64)
    error = (values - blocks).abs() / blocks.abs().amax(1, keepdim=True)
    assert 0.1 < error.max() < 0.16  # half of the widest gap between two of NF4's values, and what double rounding adds
    assert all(len(block.unique()) <= 16 for block in values)
    x = torch.randn(5, weight.shape[1], generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(layer(x), x @ restored(layer.weight).T)
    linear = [m for n, m in tuned.module("model.language_model").named_modules() if n.endswith("_proj.base_layer")]
    assert len(linear) == 14 and all(isinstance(m, Linear4bit) for m in linear)
    tower = tuned.module("model.vision_tower").state_dict()
    assert all(torch.equal(tower[n], v) for n, v in elsewhere.items())


def test_qlora_without_bitsandbytes_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.nn.modules", None)
    with pytest.raises(ArenaError, match=r"pip install 'mmguard-arena\[qlora\]'"):
        recipe("qlora").prepare(tiny_random_llava())


class Types(TrainingHooks):
    """Plain training that notes in which type the language model computes, and how often its first layer runs."""

    def __init__(self) -> None:
        self.types: set[torch.dtype] = set()
        self.steps = self.runs = 0

    def loss(self, lvlm: LVLM, batch: Batch, progress: float) -> torch.Tensor:
        if not self.steps:
            layer = lvlm.module(lvlm.language_model).layers[0]
            layer.self_attn.q_proj.register_forward_hook(self.note)
        self.steps += 1
        return lvlm.loss(batch)

    def note(self, module: torch.nn.Module, args: object, output: torch.Tensor) -> None:
        if module.training:
            self.types.add(output.dtype)
            self.runs += 1


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_precision_is_the_type_of_training(
    precision: str, dtype: torch.dtype, samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    hooks = Types()
    history = fine_tune(
        tiny_random_llava(), recipe("projector-lora", epochs=1, precision=precision), samples, 0, tmp_path, hooks
    )
    assert hooks.types == {dtype}
    saved = load_file(tmp_path / "epoch-0.safetensors")
    assert {v.dtype for v in saved.values()} == {torch.float32} and history.epochs[0].held_out_loss > 0


@pytest.mark.parametrize("name", ["lora", "qlora", "projector", "full"])
def test_checkpointing_runs_layers_again_and_learns_the_same(
    name: str, samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    runs, weights = [], []
    for again in (False, True):
        hooks = Types()
        chosen = recipe(name, epochs=1, gradient_checkpointing=again, **({"dropout": 0.0} if "lora" in name else {}))
        fine_tune(tiny_random_llava(), chosen, samples, 0, tmp_path / str(again), hooks)
        runs.append(hooks.runs / hooks.steps)
        weights.append(load_file(tmp_path / str(again) / "epoch-0.safetensors"))
    assert runs == [1, 2]
    assert all(torch.allclose(v, weights[1][n], atol=1e-5) for n, v in weights[0].items())


def test_history_and_best_epoch(samples: tuple[Sample, ...], tmp_path: Path) -> None:
    history = fine_tune(tiny_random_llava(), recipe("full", epochs=3), samples, 0, tmp_path)
    assert len(history.epochs) == 3
    assert kept_epochs(tmp_path) == [0, 1, 2]
    best = history.epochs[history.chosen]
    assert all(
        (best.held_out_accuracy, -best.held_out_loss) >= (e.held_out_accuracy, -e.held_out_loss) for e in history.epochs
    )
    assert read_history(tmp_path) == history
    assert history.epochs[2].loss < history.epochs[0].loss


def test_only_the_best_epoch_is_kept_when_asked(samples: tuple[Sample, ...], tmp_path: Path) -> None:
    history = fine_tune(tiny_random_llava(), recipe("lora", checkpoints="best"), samples, 0, tmp_path)
    assert kept_epochs(tmp_path) == [history.chosen]


def test_same_seed_same_weights(samples: tuple[Sample, ...], tmp_path: Path) -> None:
    def weights(folder: str, seed: int) -> bytes:
        fine_tune(tiny_random_llava(), recipe("lora", epochs=1), samples, seed, tmp_path / folder)
        return (tmp_path / folder / "epoch-0.safetensors").read_bytes()

    assert weights("a", 0) == weights("b", 0)
    assert weights("a", 0) != weights("c", 1)


def test_a_checkpoint_of_another_recipe_is_refused(samples: tuple[Sample, ...], tmp_path: Path) -> None:
    fine_tune(tiny_random_llava(), recipe("projector", epochs=1), samples, 0, tmp_path)
    with pytest.raises(ArenaError, match="checkpoint does not fit the recipe"):
        load_epoch(tuned_model(tiny_random_llava(), recipe("lora"), 0), tmp_path, 0)


class Recording(TrainingHooks):
    """Plain training that remembers what it saw."""

    def __init__(self) -> None:
        self.indices: list[int] = []
        self.progress: list[float] = []

    def loss(self, lvlm: LVLM, batch: Batch, progress: float) -> torch.Tensor:
        self.indices += batch.indices.tolist()
        self.progress.append(progress)
        assert all(x.shape == (3, 48, 48) and x.min() >= 0 and x.max() <= 1 for x in batch.images)
        return lvlm.loss(batch)


def test_hooks_replace_the_loss_and_see_every_sample(samples: tuple[Sample, ...], tmp_path: Path) -> None:
    hooks = Recording()
    fine_tune(tiny_random_llava(), recipe("full"), samples, 0, tmp_path / "hooked", hooks)
    training, _ = held_out_split(samples, 0)
    assert sorted(hooks.indices) == sorted([*range(len(training))] * 2)
    assert hooks.progress == sorted(hooks.progress) and hooks.progress[0] >= 0 and hooks.progress[-1] < 1
    fine_tune(tiny_random_llava(), recipe("full"), samples, 0, tmp_path / "plain")
    for epoch in ("epoch-0.safetensors", "epoch-1.safetensors"):
        assert (tmp_path / "hooked" / epoch).read_bytes() == (tmp_path / "plain" / epoch).read_bytes()


class Backwards(TrainingHooks):
    """Climbs instead of descending."""

    def loss(self, lvlm: LVLM, batch: Batch, progress: float) -> torch.Tensor:
        return -lvlm.loss(batch)


def test_a_hook_decides_what_is_learned(samples: tuple[Sample, ...], tmp_path: Path) -> None:
    up = fine_tune(tiny_random_llava(), recipe("full"), samples, 0, tmp_path / "up", Backwards())
    down = fine_tune(tiny_random_llava(), recipe("full"), samples, 0, tmp_path / "down")
    assert up.epochs[-1].held_out_loss > down.epochs[-1].held_out_loss + 0.1


def test_a_diverged_training_does_not_look_like_a_perfect_one(samples: tuple[Sample, ...], tmp_path: Path) -> None:
    history = fine_tune(tiny_random_llava(), recipe("full", learning_rate=1e30, epochs=2), samples, 0, tmp_path)
    assert not math.isfinite(history.epochs[-1].loss)


def test_weights_that_are_no_numbers_are_a_diverged_training(samples: tuple[Sample, ...], tmp_path: Path) -> None:
    """Also where they took no part in the loss."""

    class Spoils(TrainingHooks):
        def loss(self, lvlm: LVLM, batch: Batch, progress: float) -> torch.Tensor:
            with torch.no_grad():
                lvlm.model.spare.fill_(float("inf"))
            return lvlm.loss(batch)

    lvlm = tiny_random_llava()
    lvlm.model.spare = torch.nn.Parameter(torch.zeros(3))
    history = fine_tune(lvlm, recipe("full", epochs=1), samples, 0, tmp_path, Spoils())
    assert math.isfinite(history.epochs[0].loss) and math.isnan(history.epochs[0].held_out_loss)
    kept = [path.name for path in tmp_path.glob("epoch-*.safetensors")]
    written = json.loads((tmp_path / "history.json").read_text(encoding="utf-8"))
    with pytest.raises(
        ArenaError, match=r"the training diverged: its loss is [\d.]+ in epoch 1 of 1, and on held-out samples NaN"
    ):
        check_history(written, kept)


def test_accumulation_is_the_larger_batch(samples: tuple[Sample, ...], tmp_path: Path) -> None:
    one = fine_tune(tiny_random_llava(), recipe("projector", batch_size=8, epochs=1), samples, 0, tmp_path / "a")
    two = fine_tune(
        tiny_random_llava(),
        recipe("projector", batch_size=4, gradient_accumulation=2, epochs=1),
        samples,
        0,
        tmp_path / "b",
    )
    assert two.epochs[0].held_out_loss == pytest.approx(one.epochs[0].held_out_loss, rel=1e-3)


def test_the_split_is_disjoint_and_complete(samples: tuple[Sample, ...]) -> None:
    training, held_out = held_out_split(samples, 5)
    assert len(held_out) == 3
    assert {s.id for s in training} | {s.id for s in held_out} == {s.id for s in samples}
    assert not {s.id for s in training} & {s.id for s in held_out}
    with pytest.raises(ArenaError, match="at least 2 samples"):
        held_out_split(samples[:1], 0)


@pytest.mark.parametrize(("different", "total"), [(2, 3), (5, 24), (6, 47), (23, 24)])
def test_what_stands_several_times_stands_on_one_side(samples: tuple[Sample, ...], different: int, total: int) -> None:
    """And as many are trained on as where all differ, since steps are counted in samples."""
    few = samples[:different]
    repeated = [replace(few[i % different], id=str(i)) for i in range(total)]
    training, held_out = held_out_split(repeated, 5)
    trained, judged = ([(s.image.tobytes(), s.question) for s in part] for part in (training, held_out))
    assert not set(trained) & set(judged)
    assert set(trained) | set(judged) == {(s.image.tobytes(), s.question) for s in few}
    assert len(training) == total - max(1, round(total / 8))
    assert len(judged) == len(set(judged)) == max(1, round(different / 8))


def test_a_sample_that_is_all_there_is_is_split_anyhow(samples: tuple[Sample, ...]) -> None:
    training, held_out = held_out_split([replace(samples[0], id=str(i)) for i in range(4)], 0)
    assert (len(training), len(held_out)) == (3, 1)


def test_parameters_in_shards_are_put_together(tmp_path: Path) -> None:
    tuned = recipe("full").prepare(tiny_random_llava())
    before = trainable_state(tuned)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        fully_shard(tuned.model, mesh=init_device_mesh("cpu", (1,)))
        assert all(isinstance(p, DTensor) for p in tuned.model.parameters())
        after = _state(tuned)
        assert not any(isinstance(v, DTensor) for v in after.values())
        assert before.keys() == after.keys() and all(torch.equal(v, after[n]) for n, v in before.items())
    finally:
        torch.distributed.destroy_process_group()


def test_processes_share_the_steps_of_an_update(
    samples: tuple[Sample, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ArenaError, match=r"2 processes cannot share the 3 steps of an update.*a multiple of 2"):
        fine_tune(tiny_random_llava(), recipe("full", gradient_accumulation=3), samples, 0, tmp_path)
    assert _accumulation(recipe("full", gradient_accumulation=4).config, 16) == 2


def test_no_process_sees_a_sample_twice_to_fill_its_last_step(monkeypatch: pytest.MonkeyPatch) -> None:
    config = recipe("full", batch_size=4, gradient_accumulation=2).config
    assert _accumulation(config, 28) == 2
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert _accumulation(config, 32) == 1
    with pytest.raises(ArenaError, match=r"2 processes cannot share 28 training samples evenly in steps of 4: choose"):
        _accumulation(config, 28)


def test_what_a_hook_does_to_the_model_does_not_last(samples: tuple[Sample, ...], tmp_path: Path) -> None:
    """It may look at the model in evaluation mode and clear gradients: the next step trains as before."""
    modes: list[bool] = []

    class Looking(TrainingHooks):
        def loss(self, lvlm: LVLM, batch: Batch, progress: float) -> torch.Tensor:
            modes.append(lvlm.model.training)
            lvlm.model.zero_grad(set_to_none=True)
            loss = lvlm.loss(batch)
            lvlm.model.eval()
            return loss

    tuned = tiny_random_llava()
    fine_tune(tuned, recipe("full"), samples, 0, tmp_path / "hooked", Looking())
    fine_tune(tiny_random_llava(), recipe("full"), samples, 0, tmp_path / "plain")
    assert modes and all(modes)
    assert "zero_grad" not in vars(tuned.model)
    for path in (tmp_path / "plain").iterdir():
        assert path.read_bytes() == (tmp_path / "hooked" / path.name).read_bytes()
