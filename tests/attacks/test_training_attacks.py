"""Attacks inside fine-tuning: what holds for all of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hooked import hooks, train

from arena.data.sample import Sample
from arena.engine.plan import plan
from arena.engine.worker import run_task
from arena.errors import ArenaError, UsageError
from arena.plugins.registry import Registry
from arena.store.local import Store
from arena.suites.schema import Suite

QUICK: dict[str, dict[str, object]] = {
    "adv-train": {"steps": 2},
    "ueraser": {"draws": 2, "share": 0.5},
    "augment": {"operations": ["shift", "colour", "cutout", "mixup"]},
    "loss-filter": {"watch": 0.5},
    "eclipse": {},
}


@pytest.mark.parametrize("name", QUICK)
def test_same_seed_same_weights_and_others_than_plain(name: str, glyphs: tuple[Sample, ...], tmp_path: Path) -> None:
    def weights(folder: str, seed: int) -> bytes:
        return train(glyphs, tmp_path / folder, hooks(name, seed, **QUICK[name]))

    first = weights("a", 0)
    assert first == weights("b", 0)
    assert first != train(glyphs, tmp_path / "plain", None)
    if name != "loss-filter":  # it draws nothing
        assert first != weights("c", 1)


@pytest.mark.parametrize("name", QUICK)
def test_pictures_of_any_size_and_mode_are_trained_on(name: str, unequal: list[Sample], tmp_path: Path) -> None:
    attack = hooks(name, **QUICK[name])
    assert train(unequal, tmp_path / "a", attack, batch_size=4) != train(unequal, tmp_path / "b", None, epochs=1)


@pytest.mark.parametrize("settings", [{"gradient_checkpointing": True}, {"precision": "bfloat16"}], ids=str)
@pytest.mark.parametrize("name", QUICK)
def test_how_a_recipe_computes_does_not_matter(
    name: str, settings: dict[str, object], glyphs: tuple[Sample, ...], tmp_path: Path
) -> None:
    attack = hooks(name, **QUICK[name])
    assert train(glyphs, tmp_path / "a", attack, **settings) != train(glyphs, tmp_path / "b", None, **settings)


@pytest.mark.parametrize("name", ["ueraser", "augment"])
def test_a_picture_too_small_for_the_policy_is_named(name: str) -> None:
    attack = hooks(name, **({"operations": ["trivial-augment"]} if name == "augment" else {}))
    with pytest.raises(ArenaError, match=f"{name}: a picture of 7 x 2 pixels"):
        attack.augment([torch.zeros(3, 2, 7)])


def suite(*attacks: object) -> Suite:
    return Suite.model_validate(
        {
            "id": "training",
            "models": ["tiny-llava"],
            "datasets": [{"id": "glyphs", "train": 9, "test": 2}],
            "defenses": ["none"],
            "attacks": ["none", *attacks],
            "recipes": [{"id": "lora", "config": {"epochs": 1, "batch_size": 4}}],
            "seeds": [0],
        }
    )


def test_a_purifier_and_adversarial_training_in_a_chain(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    chain = {"id": "jpeg+adv-train", "config": {"jpeg": {"quality": 30}, "adv-train": {"epsilon": 8, "steps": 1}}}
    p = plan(suite({"id": "jpeg", "config": {"quality": 30}}, chain, "adv-train"), Registry(), store)
    none, jpeg, both, alone = (cell.stages for cell in p.cells)
    assert both["purified"] == jpeg["purified"] != alone["purified"] == none["purified"]
    assert len({cell["fine-tuned"] for cell in (none, jpeg, both, alone)}) == 4
    made = p.artifacts()
    for stage in p.stages.values():
        if stage.kind in ("data", "release", "purified") or stage.name in (jpeg["fine-tuned"], both["fine-tuned"]):
            task = made.task(stage)
            assert run_task(task, store.url).status == "done"
            made.keys[stage.name] = task.key
    adapters = [store.require(made.keys[cell["fine-tuned"]]) / "epoch-0.safetensors" for cell in (jpeg, both)]
    assert adapters[0].read_bytes() != adapters[1].read_bytes()


def test_two_attacks_on_the_loss_of_training_cannot_be_chained(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'adv-train' and 'ueraser' both replace the training loss"):
        plan(suite("adv-train+ueraser"), Registry(), Store(tmp_path / "store"))
