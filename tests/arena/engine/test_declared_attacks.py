"""What an attack declares of itself is in what its cells ask, and moves no cell's name."""

from __future__ import annotations

from typing import Any

import pytest

from arena.engine.execute import labelled
from arena.engine.plan import planned_cells
from arena.plugins.card import Card
from arena.plugins.registry import Registry
from arena.records.schema import Asked, Record, SuiteRef
from arena.suites.schema import Suite
from attacks.image.jpeg import Jpeg


def asked(*attacks: Any) -> dict[str, Asked]:
    """By the attack's label."""
    suite = {"id": "declared", "models": ["tiny-llava"], "datasets": [{"id": "glyphs", "train": 8, "test": 4}]}
    suite |= {"defenses": ["none"], "attacks": ["none", *attacks], "recipes": ["lora"], "seeds": [0]}
    cells = planned_cells(Suite.model_validate(suite), Registry())
    return {cell.asked.attack.label: cell.asked for cell in cells}


def test_attacks_with_weights_made_of_clean_data_of_this_kind_say_so() -> None:
    found = asked("jpeg", "diffpure", "paraphrase", "diffpure+paraphrase")
    said = {label: cell.attack.in_domain for label, cell in found.items()}
    assert said["none"] is said["jpeg"] is None
    assert said["diffpure"] == "its diffusion model was trained on clean pictures of this kind"
    assert said["paraphrase"] == "its paraphraser was trained on clean questions of this kind"
    assert said["diffpure+paraphrase"] == f"{said['diffpure']}; {said['paraphrase']}"


def test_weights_of_others_are_not_of_this_kind(tmp_path: Any) -> None:
    registry = Registry()
    for id in ("diffpure", "paraphrase"):
        plugin: Any = registry.create("attack", id, {"checkpoint": str(tmp_path)})
        assert plugin.in_domain == ""
        assert registry.create("attack", id, {}).in_domain  # type: ignore[attr-defined]


def test_a_card_has_what_the_plugin_declares(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry()
    assert not Card.here(registry, "attack", "jpeg", {}).chooses
    assert Card.here(registry, "attack", "diffpure", {}).in_domain
    before = asked("jpeg")["jpeg"]
    monkeypatch.setattr(Jpeg, "chooses", True)
    assert Card.here(registry, "attack", "jpeg", {}).chooses
    now = asked("jpeg", "jpeg+case")
    assert now["jpeg"].attack.chooses and now["jpeg+case"].attack.chooses and not now["none"].attack.chooses
    assert now["jpeg"].identity == before.identity


def test_a_record_is_shown_with_what_is_declared_now() -> None:
    """Records that were made before a plugin declared anything are booked as those made since."""
    from synthetic import record

    made: Record = record(attack="diffpure")
    own = asked("diffpure")["diffpure"]
    shown = labelled(made, SuiteRef(id="s", digest="d"), own)
    assert made.attack.in_domain is None and shown.attack.in_domain == own.attack.in_domain
