"""What a cell is: what was asked moves its name, what made it and how it is called do not."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from rich.console import Console
from suites import toy_suite

import arena.engine.plan
from arena.engine.execute import run
from arena.engine.plan import plan, planned_cells
from arena.errors import ArenaError
from arena.plugins.base import PluginConfig, setting
from arena.plugins.identity import PROTOCOL_VERSION, canonical_json, digest_of, identity
from arena.plugins.registry import Entry, Origin, Registry
from arena.records.files import read_records
from arena.records.schema import Asked, Record
from arena.store.local import Store

pytestmark = pytest.mark.usefixtures("toys")

DATA = {"id": "toy-data", "train": 8, "auxiliary": 4, "test": 6}
BASE: dict[str, Any] = {
    "defenses": ["none", {"id": "toy-crafted", "label": "crafted"}],
    "attacks": ["none", {"id": "toy-fitted", "auxiliary": 0.5}],
    "surrogates": ["toy-relative"],
    "seeds": [3],
}


def cell(**changes: Any) -> Asked:
    """The last cell of a suite, which has everything that one can have."""
    suite = toy_suite(**(BASE | changes))
    return planned_cells(suite, Registry())[-1].asked


def test_a_plan_and_the_record_made_of_it_agree(tmp_path: Path) -> None:
    report = run(
        toy_suite(**BASE),
        store=tmp_path / "store",
        results=tmp_path / "r.jsonl",
        scheduler="sync",
        isolated=False,
        console=Console(file=io.StringIO()),
    )
    assert not report.failed and len(report.records) == 4
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text(encoding="utf-8").splitlines()]
    planned = {c.key for c in plan(toy_suite(**BASE), Registry(), Store(tmp_path / "other")).cells}
    assert {line["cell"] for line in lines} == {identity(line) for line in lines} == planned
    assert all(record.identity == record.cell for record in report.records)


SAME: dict[str, dict[str, Any]] = {
    "suite id": {"id": "another"},
    "title": {"title": "Another", "description": "words"},
    "labels": {
        "defenses": ["none", {"id": "toy-crafted", "label": "mine"}],
        "models": [{"id": "toy-model", "label": "m"}],
    },
    "order": {"defenses": [{"id": "toy-noise"}, "none", "toy-crafted"]},
    "limits": {"limits": {"stage_minutes": 7}},
    "a default that is said": {"recipes": [{"id": "toy-recipe", "config": {"rate": 0.1}}]},
    "a whole number": {"models": [{"id": "toy-model", "config": {"threshold": 120}}]},
    "a budget as a fraction": {"budgets": [{"image": 8.0}]},
    "other cells": {"seeds": [1, 2, 3]},
}


@pytest.mark.parametrize("what", SAME)
def test_what_is_not_asked_does_not_count(what: str) -> None:
    assert cell(**SAME[what]).identity == cell().identity


OTHER: dict[str, dict[str, Any]] = {
    "dataset's setting": {"datasets": [DATA | {"config": {"size": 9}}]},
    "dataset's seed": {"datasets": [DATA | {"seed": 1}]},
    "training size": {"datasets": [DATA | {"train": 6}]},
    "auxiliary size": {"datasets": [DATA | {"auxiliary": 5}]},
    "test size": {"datasets": [DATA | {"test": 7}]},
    "model": {"models": ["toy-stranger"]},
    "model's setting": {"models": [{"id": "toy-model", "config": {"threshold": 1.0}}]},
    "defense": {"defenses": ["none", "toy-noise"]},
    "surrogate": {"surrogates": ["toy-stranger"]},
    "surrogate's setting": {"surrogates": [{"id": "toy-relative", "config": {"threshold": 1.0}}]},
    "one surrogate more": {"surrogates": ["toy-relative", "toy-stranger"]},
    "image budget": {"budgets": [{"image": 4}]},
    "text budget": {"budgets": [{"text": 4}]},
    "answer words allowed": {"budgets": [{"forbid_answer_words": False}]},
    "attack": {"attacks": ["none", {"id": "toy-invert", "auxiliary": 0.5}]},
    "one attack more": {"attacks": ["none", {"id": "toy-fitted+toy-invert", "auxiliary": 0.5}]},
    "auxiliary share": {"attacks": ["none", {"id": "toy-fitted", "auxiliary": 0.25}]},
    "recipe's setting": {"recipes": [{"id": "toy-recipe", "config": {"rate": 0.2}}]},
    "seed": {"seeds": [4]},
}


@pytest.mark.parametrize("what", OTHER)
def test_what_is_asked_counts(what: str) -> None:
    assert cell(**OTHER[what]).identity != cell().identity


def test_every_change_is_another_cell() -> None:
    assert len({cell(**change).identity for change in OTHER.values()}) == len(OTHER)


def test_a_rule_that_is_off_is_asked_as_before_there_was_one() -> None:
    """So that records which do not know it keep their cells."""
    off = json.loads(cell(budgets=[{"forbid_answer_words": False}]).model_dump_json())
    before = {**off, "budget": {name: off["budget"][name] for name in ("norm", "image", "text")}}
    assert identity(off) == identity(before) != cell().identity
    assert not Asked.model_validate(before).budget.forbid_answer_words


def test_the_order_of_a_chain_counts() -> None:
    chains = [{"attacks": ["none", f"toy-{one}+toy-{two}"]} for one, two in (("shout", "invert"), ("invert", "shout"))]
    assert cell(**chains[0]).identity != cell(**chains[1]).identity


KINDS = {
    "defense": "ToyCrafted",
    "attack": "ToyFitted",
    "recipe": "ToyRecipe",
    "dataset": "ToyData",
    "model": "ToyModel",
}


@pytest.mark.parametrize("name", [*KINDS.values(), "ToyRelative"])
@pytest.mark.parametrize("what", ["version", "fingerprint"])
def test_version_and_fingerprint_of_every_plugin_count(name: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import toys

    before = cell().identity
    monkeypatch.setattr(getattr(toys, name), what, "2" if what == "version" else lambda self: "other files")
    assert cell().identity != before


def test_the_protocol_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = cell()
    assert before.protocol_version == PROTOCOL_VERSION
    monkeypatch.setattr(arena.engine.plan, "PROTOCOL_VERSION", PROTOCOL_VERSION + 1)
    assert cell().identity != before.identity


def test_source_and_package_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    before = cell()
    monkeypatch.setattr(Entry, "source_digest", lambda entry: "another")
    monkeypatch.setattr("arena.plugins.registry._origin", lambda point: Origin("fork", "9"))
    after = cell()
    assert after.identity == before.identity
    assert after.defense.source_digest == "another" != before.defense.source_digest
    assert (after.defense.origin.package, after.defense.origin.version) == ("fork", "9")


def test_runtime_settings_and_later_ones_at_their_default_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    import toys

    before = cell().identity

    class Config(toys.ToyRecipe.Config):  # type: ignore[name-defined, misc]
        device: str = setting("cpu", runtime=True)
        decay: float = setting(0.0, later=True)

    monkeypatch.setattr(toys.ToyRecipe, "Config", Config)
    assert cell().identity == before

    def said(**config: Any) -> Asked:
        return cell(recipes=[{"id": "toy-recipe", "config": config}])

    assert said(device="cuda").identity == before
    assert said(device="cuda").recipe.runtime == {"device": "cuda"} and "device" not in said().recipe.config
    assert said(decay=0.0).identity == before != said(decay=0.5).identity
    assert said(decay=0.5).recipe.settings == {"rate": 0.1, "decay": 0.5, "device": "cpu"}


def test_marks_of_settings_and_what_a_plugin_is_made_from_again() -> None:
    class Config(PluginConfig):
        rank: int = 4
        device: str = setting("cpu", runtime=True)
        decay: float = setting(0.0, later=True, ge=0)

    config = Config(device="cuda", decay=0.0)
    assert config.identity() == {"rank": 4} and config.runtime() == {"device": "cuda"}
    assert Config(**config.identity(), **config.runtime()) == config
    with pytest.raises(ValidationError):
        Config(decay=-1)


def test_the_control_is_one_cell_under_every_budget() -> None:
    def controls(**budget: float) -> set[str]:
        suite = toy_suite(**(BASE | {"budgets": [budget]}))
        return {c.key for c in planned_cells(suite, Registry()) if c.asked.defense.id == "none"}

    assert controls(image=4) == controls(image=8, text=2) and len(controls(image=4)) == 2


def test_numbers_are_what_they_are_worth() -> None:
    assert digest_of({"a": [8, {"b": 1.0}]}) == digest_of({"a": (8.0, {"b": 1})})
    assert digest_of({"a": 8}) != digest_of({"a": 8.5}) and digest_of({"a": 1}) != digest_of({"a": "1"})
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    assert digest_of({"a": [1, 2]}) != digest_of({"a": [2, 1]})
    assert digest_of({"a": True}) != digest_of({"a": 1})


def test_a_record_whose_cell_is_not_what_it_asks_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    run(
        toy_suite(seeds=[0], attacks=["none"]),
        store=tmp_path / "store",
        results=path,
        scheduler="sync",
        isolated=False,
        console=Console(file=io.StringIO()),
    )
    good = json.loads(path.read_text(encoding="utf-8").splitlines()[1])
    Record.model_validate(good)
    for change in (
        {"cell": "0" * 64},
        {"seed": 1},
        {"budget": {**good["budget"], "image": 4.0}},
        {"recipe": {**good["recipe"], "config": {"rate": 0.5}}},
    ):
        path.write_text(json.dumps(good | change) + "\n", encoding="utf-8")
        with pytest.raises(ArenaError, match=r"r\.jsonl, line 1: record: cell .* is not what its fields ask for"):
            read_records(path)
    renamed = good | {"recipe": {**good["recipe"], "source_digest": "x", "label": "mine", "runtime": {"device": "tpu"}}}
    path.write_text(json.dumps(renamed) + "\n", encoding="utf-8")
    assert read_records(path)[0].cell == good["cell"]


def test_prepared_parts_stand_for_themselves() -> None:
    part = {"b": [1.0, None, True, "\N{SNOWMAN}"], "a": {"x": 0.5}}
    assert canonical_json(part) == json.dumps({**part, "b": [1, *part["b"][1:]]}, sort_keys=True, separators=(",", ":"))
    assert digest_of({"part": canonical_json(part), "more": 1}) == digest_of({"part": part, "more": 1})
