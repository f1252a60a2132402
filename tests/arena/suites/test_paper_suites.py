"""The paper's experiments: their cells, what they will take, and their dry run."""

from __future__ import annotations

import json
import re
import socket
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from arena.cli.app import app
from arena.controls import CONTROLS
from arena.engine.cost import CostModel, Costs
from arena.engine.graph import Plan
from arena.engine.plan import plan
from arena.lvlm.checkpoints import HubCheckpoint
from arena.lvlm.zoo import random_checkpoints
from arena.plugins.registry import Registry
from arena.records.files import read_records
from arena.store.local import Store
from arena.suites import dry_run as dry
from arena.suites.schema import Suite, digest
from arena.suites.shipped import find_suite
from arena.suites.validation import validate

CELLS = {
    "paper-table2": 9 * 6 * (4 + 7) * 3,  # models, data sets, controls and variants, seeds
    "paper-recipes": 3 * (8 + 3 + 4 + 2) * (4 + 4) * 3,  # data sets; recipes, rates, epochs, batches; seeds
    "paper-transforms": 3 * (1 + 6 + 3) * (4 + 4) * 3,
    "paper-mixing": 3 * (7 * (4 + 4) + 6) * 3,  # data sets, points, and those with clean samples alone
}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def planned(suite: Suite, root: Path) -> Plan:
    registry = Registry()
    validate(suite, registry)
    return plan(suite, registry, Store(root), estimate=True)


@pytest.mark.parametrize("name", CELLS)
def test_a_suite_of_the_paper_is_planned_offline(name: str, tmp_path: Path) -> None:
    p = planned(find_suite(name), tmp_path)
    assert len(p.cells) == len({c.key for c in p.cells}) == CELLS[name]
    assert not any(c.asked.budget.forbid_answer_words for c in p.cells)
    assert sum(s.kind == "fine-tuned" for s in p.stages.values()) == CELLS[name]
    costs = CostModel(p).costs(p.stages.values())
    assert costs.unknown == () and 10 < costs.gpu_hours() < 10_000 and costs.downloads > 8e9


def test_who_knows_what_in_table_2(tmp_path: Path) -> None:
    found = Counter(
        (c.asked.model.id, c.asked.knowledge, len(c.asked.defense.surrogates))
        for c in planned(find_suite("paper-table2"), tmp_path).cells
        if c.asked.knowledge != "none" and c.asked.defense.id not in CONTROLS
    )
    black = ("llama-3-2-11b-vision", "llava", "internvl3-5-8b", "gemma3-4b", "glm-4-1v-9b")
    wanted = [
        ("qwen3-vl-4b", "white-box", 1),
        *((f"qwen{name}", "gray-box", 1) for name in ("3-vl-2b", "3-vl-8b", "2-5-vl-7b")),
        *((name, "black-box", 2) for name in black),
    ]
    assert found == Counter(dict.fromkeys(wanted, 7 * 6 * 3))


def test_all_recipes_and_transforms_of_the_paper_are_there() -> None:
    recipes = find_suite("paper-recipes").recipes
    assert {r.id for r in recipes} == {"lora", "qlora", "dora", "projector", "projector-lora", "full"}
    lora = [r.config for r in recipes if r.id == "lora"]
    for setting, values in {
        "rank": {8, 16, 64},
        "learning_rate": {1e-5, 4e-5, 1e-4, 3e-4},
        "epochs": {1, 2, 4, 8, 10},
        "batch_size": {1, 2, 4},
    }.items():
        assert {c.get(setting, 16) for c in lora} == values
    assert {a.id for a in find_suite("paper-transforms").attacks} == {
        *("none", "crop-pad", "jpeg", "blur", "punct", "case", "whitespace"),
        *("crop-pad+punct", "jpeg+case", "blur+whitespace"),
    }


def test_mixing_keeps_the_total(tmp_path: Path) -> None:
    shares = Counter[float]()
    for c in planned(find_suite("paper-mixing"), tmp_path).cells:
        train, share = c.asked.dataset.train, 0 if c.asked.attack.id == "none" else c.asked.auxiliary
        assert train + round(share * train) == 1000
        shares[train / 1000] += 1
    wanted = dict.fromkeys((0.05, 0.1, 0.2, 0.4, 0.6, 0.8), 3 * (8 + 1) * 3)  # with clean samples alone, of `none`
    assert shares == Counter({**wanted, 1.0: 3 * 8 * 3})


def paper_like(**changes: Any) -> Suite:
    fields: dict[str, Any] = {
        "id": "small",
        "models": ["qwen3-vl-4b"],
        "datasets": [{"id": "textvqa", "train": 80, "test": 20}],
        "surrogates": ["qwen3-vl-4b"],
        "defenses": ["none", "mmguard-bph"],
        "attacks": ["none"],
        "recipes": [{"id": "lora", "config": {"epochs": 2, "checkpoints": "best"}}],
        "seeds": [0],
    }
    return Suite.model_validate(fields | changes)


def costs(root: Path, **changes: Any) -> Costs:
    p = planned(paper_like(**changes), root)
    return CostModel(p).costs(p.stages.values())


def recipe(id: str, **config: Any) -> list[dict[str, Any]]:
    return [{"id": id, "config": {"epochs": 2, "checkpoints": "best", **config}}]


def test_the_estimate_counts_what_it_says(tmp_path: Path) -> None:
    found = costs(tmp_path)
    parameters, tokens = 4.44e9, 1152
    assert found.flops["fine-tuned"] == pytest.approx(2 * parameters * tokens * 2 * (70 * (2 + 2) + 10 * 2))
    text = 5 * (4 + 16 * 2 * 128 / 1152)
    assert found.flops["release"] == pytest.approx(parameters * tokens * 80 * 3 * ((1 + 8) * 4 + 4 + text))
    assert found.flops["scored"] == 2 * found.flops["zero-shot"] == pytest.approx(2 * parameters * 20 * 2 * 1168)
    assert found.flops["data"] == 0 and found.disk["data"] == (80 + 20) * 1.5e6
    assert found.disk["release"] == 2 * 80 * 1.5e6 and found.downloads == 2 * parameters
    assert found.gpu_hours() == pytest.approx(sum(found.flops.values()) / (0.4 * 989e12) / 3600)


def test_the_estimate_follows_the_settings(tmp_path: Path) -> None:
    lora, more = costs(tmp_path), costs(tmp_path, recipes=recipe("lora", epochs=4))
    assert more.flops["fine-tuned"] == 2 * lora.flops["fine-tuned"] and more.flops["release"] == lora.flops["release"]
    assert costs(tmp_path, recipes=recipe("lora", rank=64)).disk["fine-tuned"] == 4 * lora.disk["fine-tuned"]
    assert costs(tmp_path, recipes=recipe("lora", checkpoints="all")).disk["fine-tuned"] == 2 * lora.disk["fine-tuned"]
    full, projector = (costs(tmp_path, recipes=recipe(name)) for name in ("full", "projector"))
    assert projector.flops["fine-tuned"] < full.flops["fine-tuned"]
    assert full.disk["fine-tuned"] == pytest.approx(2 * 2 * 4.44e9)
    assert projector.disk["fine-tuned"] == pytest.approx(full.disk["fine-tuned"] / 100)
    both = costs(tmp_path, recipes=recipe("projector-lora"))
    assert both.disk["fine-tuned"] == pytest.approx(lora.disk["fine-tuned"] + projector.disk["fine-tuned"])
    crafted = [{"id": "mmguard-bph", "config": {"rounds": 6}}]
    assert costs(tmp_path, defenses=["none", *crafted]).flops["release"] == 2 * lora.flops["release"]
    two = costs(tmp_path, surrogates=["qwen3-vl-4b", "qwen3-vl-2b"])
    assert two.flops["release"] == pytest.approx(lora.flops["release"] * (4.44 + 2.13) / 4.44)
    assert two.downloads == 2 * (4.44e9 + 2.13e9)


def test_clean_samples_that_are_mixed_in_are_trained_on(tmp_path: Path) -> None:
    mixed = costs(
        tmp_path,
        datasets=[{"id": "textvqa", "train": 20, "auxiliary": 60, "test": 20}],
        attacks=["none", {"id": "mix", "auxiliary": 3}],
        skip=[{"attacks": ["none"]}],
    )
    assert mixed.flops["fine-tuned"] == costs(tmp_path).flops["fine-tuned"]
    assert mixed.disk["purified"] == 2 * 80 * 1.5e6


def test_the_size_of_another_checkpoint_is_not_known(tmp_path: Path) -> None:
    other = [{"id": "qwen3-vl-4b", "config": {"checkpoint": "who/what"}}]
    found = costs(tmp_path, models=other, surrogates=other)
    assert found.unknown == ("qwen3-vl-4b",) and found.gpu_hours() == 0


def test_every_model_of_the_hub_has_a_size_and_a_stand_in() -> None:
    models = {entry.id: entry.load() for entry in Registry().entries("model")}
    hub = {id: model for id, model in models.items() if issubclass(model, HubCheckpoint)}
    assert len(hub) > 5
    for id, model in hub.items():
        module, _, function = model.stand_in.partition(":")
        assert getattr(import_module(module), function) in random_checkpoints.families().values() and model.billions, id
        stated = re.search(r"(\d+)(?=b(?:-|$))", id)  # the size in the name, rounded
        assert stated is None or abs(model.billions - float(stated[1])) < 1.5, id


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random checkpoints without weights, told apart by family and seed."""

    class Named:
        def __init__(self, family: str, seed: int) -> None:
            self.named = [family, seed]

        def save_pretrained(self, folder: Path) -> None:
            folder.mkdir(parents=True)
            (folder / "config.json").write_text(json.dumps(self.named), encoding="utf-8")

    class Drawing:
        def __init__(self, module: str) -> None:
            self.module = module

        def __getattr__(self, function: str) -> Callable[[int], list[Named]]:
            return lambda seed: [Named(f"{self.module}:{function}", seed)]

    monkeypatch.setattr("arena.lvlm.checkpoints.import_module", Drawing)


def labels(p: Plan, kind: str, name: str = "label") -> set[str]:
    return {getattr(getattr(c.asked, kind), name) for c in p.cells}


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("paper-table2", 9 * 11),  # a data set for each model
        ("paper-recipes", 17 * 8),
        ("paper-transforms", (3 + 9) * 8),  # without attack on each data set, and each attack on one
        ("paper-mixing", (3 * 7 - 6) * 8 + 6),  # 6 of the data sets are met by their clean samples alone
    ],
)
def test_everything_is_met_in_a_dry_run(name: str, cells: int, tmp_path: Path) -> None:
    suite, registry = find_suite(name), Registry()
    made = dry.tiny(suite, registry, tmp_path / "tiny")
    whole, p = planned(suite, tmp_path), planned(made.suite, tmp_path)
    assert len(p.cells) == cells and made.suite.id == f"{name}-tiny"
    every = len(whole.cells) // 3
    left = f"{cells} of {every}" if cells < every else f"all {every}"
    assert made.notes[-1].startswith(f"{left} combinations are left")
    for kind in ("defense", "attack", "recipe"):
        assert labels(p, kind) == labels(whole, kind)
    for kind in ("dataset", "model"):
        assert labels(p, kind, "id") == labels(whole, kind, "id")

    def levels(of: Plan) -> set[tuple[str, str, str]]:
        return {(c.asked.model.id, c.asked.defense.label, c.asked.knowledge) for c in of.cells}

    assert levels(p) <= levels(whole)
    assert {level for _, _, level in levels(p)} == {level for _, _, level in levels(whole)}
    for cell in p.cells:
        config, dataset = cell.asked.model.settings, cell.asked.dataset
        assert (config["dtype"], config["device"]) == ("float32", "cpu") and Path(config["checkpoint"]).is_dir()
        assert dataset.train + dataset.auxiliary in (8, 20) and cell.asked.seed == 0
        assert cell.asked.recipe.config["epochs"] == 1


@pytest.mark.usefixtures("no_weights")
def test_a_dry_run_is_written_once_and_the_same_again(tmp_path: Path) -> None:
    suite = paper_like(models=["qwen3-vl-4b", "qwen3-vl-2b"], datasets=[{"id": "vqa-rad", "train": 4, "test": 2}])
    one, two = (dry.tiny(suite, Registry(), tmp_path / "tiny").suite for _ in range(2))
    assert one == two
    places = [use.config["checkpoint"] for use in (*one.models, *one.surrogates)]
    assert places[0] == places[2] != places[1]
    assert len(list((tmp_path / "tiny").iterdir())) == 3
    kept = dry.tiny(paper_like(models=["tiny-llava"], surrogates=["target"]), Registry(), tmp_path / "tiny")
    assert kept.suite.models[0].config == {}
    assert "kept as they are, since nothing stands for them: tiny-llava" in kept.notes


def test_a_dry_run_is_no_part_of_a_suite(tmp_path: Path) -> None:
    plain, said = paper_like(), paper_like(tiny={"samples": 30, "seeds": [4], "settings": {"epochs": 3}})
    assert digest(plain) == digest(said)
    assert [c.key for c in planned(plain, tmp_path).cells] == [c.key for c in planned(said, tmp_path).cells]


@pytest.mark.usefixtures("no_weights")
def test_sizes_seeds_and_settings_can_be_said(tmp_path: Path) -> None:
    said = {"samples": 12, "test": 3, "seeds": [4, 5], "settings": {"epochs": 3, "quality": 50}}
    suite = paper_like(
        datasets=[{"id": "docvqa", "train": 60, "auxiliary": 30, "test": 20}],
        attacks=["none", "jpeg+case", {"id": "mix", "auxiliary": 0.5}],
        tiny=said,
    )
    made = dry.tiny(suite, Registry(), tmp_path / "tiny").suite
    use = made.datasets[0]
    assert (use.train, use.auxiliary, use.test, made.seeds) == (8, 4, 3, (4, 5))
    assert made.recipes[0].config["epochs"] == 3 and made.attacks[1].config["jpeg"] == {"quality": 50}
    assert [use.label for use in made.attacks] == [use.label for use in suite.attacks]
    planned(made, tmp_path)


def test_a_suite_of_the_paper_runs_dry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    suite = paper_like(models=[{"id": "qwen3-vl-2b", "config": {"device": "cuda:0", "dtype": "bfloat16"}}])
    Path("small.yaml").write_text(suite.model_dump_json(), encoding="utf-8")

    def arena(*words: str) -> Result:
        done = CliRunner().invoke(app, [*words, "--store", "store"], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done

    assert "qwen3-vl-2b by qwen-vl" in arena("run", "small.yaml", "--tiny", "--scheduler", "sync").stderr
    records = read_records(Path("build/tiny/small-tiny.jsonl"))
    assert [(r.defense.label, r.status, r.knowledge) for r in records] == [
        ("none", "done", "none"),
        ("mmguard-bph", "done", "gray-box"),
    ]
    assert Path("build/tiny/small-tiny.md").exists() and not Path("results").exists()
    shown = arena("plan", "small.yaml", "--tiny").stdout
    row = next(line.split() for line in shown.splitlines() if line.startswith("fine-tuned"))
    assert "GPU hours" not in shown and row[1:4] == ["2", "2", "0"]
    assert "2 of 2 cells have a record that holds" in shown
    big = arena("plan", "small.yaml").stdout
    assert "GPU hours" in big and "Stated, not measured" in big
