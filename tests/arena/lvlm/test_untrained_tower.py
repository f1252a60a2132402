"""The tiny LLaVA whose tower has learned nothing: the tower and nothing else is another one, drawn from a seed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from arena.data.embedded.digits import Digits
from arena.engine.plan import planned_cells
from arena.errors import ArenaError, UsageError
from arena.lvlm.base import LVLM
from arena.lvlm.zoo.models import TINY
from arena.plugins.registry import Registry
from arena.suites.schema import Suite

ID = "tiny-llava-untrained-tower"
TOWER = "model.vision_tower."


def source(id: str = ID, **config: Any) -> Any:
    return Registry().create("model", id, config)


def state(lvlm: LVLM) -> dict[str, Tensor]:
    found: dict[str, Tensor] = lvlm.model.state_dict()
    return found


@pytest.fixture(scope="module")
def drawn() -> LVLM:
    lvlm: LVLM = source(tower_seed=5).load()
    return lvlm


def test_the_same_seed_gives_the_same_weights_and_another_other_ones(drawn: LVLM) -> None:
    torch.manual_seed(99)
    again, other = (state(source(tower_seed=seed).load()) for seed in (5, 6))
    own = state(drawn)
    assert all(torch.equal(own[name], again[name]) for name in own)
    different = {name for name in own if not torch.equal(own[name], other[name])}
    assert different and all(name.startswith(TOWER) for name in different)


def test_nothing_but_the_tower_is_another_one_than_that_of_the_trained_model(drawn: LVLM) -> None:
    trained, own = state(source("tiny-llava").load()), state(drawn)
    assert trained.keys() == own.keys()
    same = {name for name in own if torch.equal(own[name], trained[name])}
    assert {name for name in own if not name.startswith(TOWER)} <= same
    matrices = {name for name in own if name.startswith(TOWER) and own[name].ndim > 1 and own[name].is_floating_point()}
    assert len(matrices) > 10 and not matrices & same
    assert {own[name].dtype for name in matrices} == {torch.float32}


def test_the_tower_is_the_one_that_training_begins_with() -> None:
    untrained, own = state(TINY["tiny-llava"].untrained()), state(source(tower_seed=TINY["tiny-llava"].seed).load())
    assert all(torch.equal(own[name], untrained[name]) for name in own if name.startswith(TOWER))


def test_drawing_leaves_the_generator_of_the_process_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    source().load()
    assert torch.equal(torch.rand(3), expected)


def test_full_fine_tuning_trains_the_tower_and_lora_does_not() -> None:
    for recipe, learns in (("full", True), ("lora", False)):
        lvlm = Registry().create("recipe", recipe, {}).prepare(source().load())
        lvlm.loss(lvlm.encode(list(Digits().load(4, 0, 1, 0).train))).backward()
        weights = [p for _, p in lvlm.module(lvlm.vision_tower).named_parameters() if p.ndim == 2]
        moved = [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in weights]
        assert (sum(moved) > 10) if learns else not any(moved), recipe


def test_it_is_another_model_than_the_trained_one() -> None:
    prints = {
        source(id, **config).fingerprint() for id, config in ((ID, {}), (ID, {"tower_seed": 1}), ("tiny-llava", {}))
    }
    assert len(prints) == 3 and source().fingerprint() == source(tower_seed=0).fingerprint()
    models = ["tiny-llava", ID, {"id": ID, "config": {"tower_seed": 1}}]
    suite = Suite.model_validate(
        {
            **{"id": "towers", "models": models, "defenses": ["em"], "surrogates": ["tiny-llava"], "attacks": ["none"]},
            "datasets": [{"id": "digits", "train": 8, "test": 4, "seed": 0}],
            "recipes": ["full"],
            "budgets": [{"image": 8, "text": 5}],
            "seeds": [0],
        }
    )
    cells = list(planned_cells(suite, Registry()))
    assert len({cell.key for cell in cells}) == 3
    assert [cell.asked.knowledge for cell in cells] == ["white-box", "gray-box", "gray-box"]


@pytest.mark.parametrize("config", [{"tower_seed": -1}, {"tower_seed": 0.5}, {"tower": "random"}])
def test_a_wrong_setting_is_refused_by_name(config: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"{ID}.*{next(iter(config))}"):
        source(**config)


def test_weights_of_another_tower_are_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = TINY["tiny-llava"]
    monkeypatch.setitem(TINY, "tiny-llava", replace(spec, vision={**spec.vision, "hidden_size": 64}))
    with pytest.raises(ArenaError, match=f"model '{ID}'.*another vision tower.*arena zoo train tiny-llava"):
        source().load()
