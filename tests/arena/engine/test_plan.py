"""What changes a key and what is shared."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from suites import toy_suite

from arena.engine.graph import Plan
from arena.engine.plan import plan
from arena.errors import UsageError
from arena.plugins.registry import Entry, Registry
from arena.store.local import Store

pytestmark = pytest.mark.usefixtures("toys")


def planned(tmp_path: Path, **changes: Any) -> Plan:
    return plan(toy_suite(**changes), Registry(), Store(tmp_path / "store"))


def keys(p: Plan, kind: str) -> set[str]:
    return {s.key for s in p.stages.values() if s.kind == kind}


def counts(p: Plan) -> dict[str, int]:
    return dict(Counter(s.kind for s in p.stages.values()))


def test_the_same_suite_has_the_same_plan(tmp_path: Path) -> None:
    first, second = planned(tmp_path), planned(tmp_path)
    assert list(first.stages) == list(second.stages)
    assert [c.key for c in first.cells] == [c.key for c in second.cells]
    assert len({c.key for c in first.cells}) == 8


def test_what_is_printed_tells_models_and_data_apart(tmp_path: Path) -> None:
    models = [{"id": "toy-model", "label": f"toy {name}"} for name in ("one", "two")]
    p = planned(tmp_path, models=models, defenses=["none"], attacks=["none"], seeds=[0])
    assert [" · toy one · " in c.label for c in p.cells] == [True, False]
    assert [" · toy two · " in c.label for c in p.cells] == [False, True]


def test_stages_are_shared(tmp_path: Path) -> None:
    assert counts(planned(tmp_path)) == {
        "data": 2,  # train and test; nobody asked for auxiliary samples
        "release": 3,  # clean once; noise of each seed
        "purified": 3,  # inversion of each; "none" is the release itself
        "fine-tuned": 8,
        "zero-shot": 1,
        "stealth": 3,
        "scored": 8,
    }


def test_inputs_come_before_those_who_read_them(tmp_path: Path) -> None:
    p = planned(tmp_path, attacks=["none", "toy-invert+toy-shout", {"id": "toy-fitted", "auxiliary": 0.5}])
    seen: set[str] = set()
    for stage in p.stages.values():
        assert set(stage.inputs) <= seen
        seen.add(stage.key)


def test_no_attack_is_no_stage(tmp_path: Path) -> None:
    for cell in planned(tmp_path, attacks=["none"]).cells:
        assert cell.stages["purified"] == cell.stages["release"]


def test_a_chain_shares_its_beginning(tmp_path: Path) -> None:
    alone = planned(tmp_path, attacks=["none", "toy-invert"])
    chained = planned(tmp_path, attacks=["none", "toy-invert", "toy-invert+toy-shout"])
    assert keys(alone, "purified") < keys(chained, "purified")
    assert len(keys(chained, "purified")) == 2 * len(keys(alone, "purified"))


def test_a_purifier_is_fitted_once_for_all_releases(tmp_path: Path) -> None:
    p = planned(tmp_path, attacks=["none", {"id": "toy-fitted", "auxiliary": 0.5}])
    assert counts(p)["fit"] == 1 and counts(p)["data"] == 3
    assert counts(p)["purified"] == 3


def test_clean_release_and_cells_serve_every_budget(tmp_path: Path) -> None:
    p = planned(tmp_path, budgets=[{"image": 4}, {"image": 8}])
    assert len(p.cells) == 4 + 2 * 4
    assert len(keys(p, "release")) == 1 + 2 * 2


def test_what_needs_no_seed_or_model_is_computed_once(tmp_path: Path) -> None:
    p = planned(tmp_path, defenses=["none", "toy-fixed"], models=["toy-model", "toy-stranger"])
    assert len(keys(p, "release")) == 2
    assert len(keys(p, "purified")) == 2
    drawn = planned(tmp_path, attacks=["none", "toy-drawn"], defenses=["none"], models=["toy-model", "toy-stranger"])
    assert len(keys(drawn, "purified")) == 4


CHANGES: list[tuple[dict[str, Any], set[str]]] = [
    ({"datasets": [{"id": "toy-data", "train": 8, "auxiliary": 4, "test": 6, "seed": 1}]}, {"data", "release"}),
    ({"datasets": [{"id": "toy-data", "train": 9, "auxiliary": 4, "test": 6}]}, {"data", "release"}),
    (
        {"datasets": [{"id": "toy-data", "train": 8, "auxiliary": 4, "test": 6, "config": {"size": 9}}]},
        {"data", "release", "purified", "fine-tuned", "scored", "zero-shot", "stealth"},
    ),
    ({"models": ["toy-relative"]}, {"zero-shot", "fine-tuned", "scored", "stealth"}),
    ({"models": [{"id": "toy-model", "config": {"threshold": 1.0}}]}, {"zero-shot", "fine-tuned", "scored"}),
    ({"recipes": [{"id": "toy-recipe", "config": {"rate": 0.2}}]}, {"fine-tuned", "scored"}),
    ({"budgets": [{"image": 4}]}, {"release", "purified", "fine-tuned", "scored"}),
    ({"seeds": [0, 2]}, {"release", "purified", "fine-tuned", "scored"}),
    (
        {"defenses": ["none", {"id": "toy-noise", "config": {"strength": 0.5}}]},
        {"release", "purified", "fine-tuned", "scored", "stealth"},
    ),
    ({"attacks": ["none", "toy-shout"]}, {"purified", "fine-tuned", "scored"}),
    ({"attacks": ["none", "toy-trained"]}, {"fine-tuned", "scored"}),
]
KINDS = {"data", "zero-shot", "release", "stealth", "purified", "fine-tuned", "scored"}


@pytest.mark.parametrize(("change", "moved"), CHANGES, ids=[str(c) for c, _ in CHANGES])
def test_a_change_moves_the_keys_behind_it(tmp_path: Path, change: dict[str, Any], moved: set[str]) -> None:
    before, after = planned(tmp_path), planned(tmp_path, **change)
    for kind in moved:
        assert keys(after, kind) - keys(before, kind), kind
    if not change.keys() & {"datasets"}:
        assert keys(before, "data") == keys(after, "data")
    if change.keys() & {"recipes"}:
        for kind in KINDS - moved:
            assert keys(before, kind) == keys(after, kind), kind
    assert {c.key for c in before.cells} != {c.key for c in after.cells}


def test_titles_and_labels_move_no_stage(tmp_path: Path) -> None:
    before = planned(tmp_path)
    after = planned(tmp_path, title="Other", defenses=["none", {"id": "toy-noise", "label": "my noise"}])
    assert list(before.stages) == list(after.stages)


def test_default_settings_said_or_not_are_the_same(tmp_path: Path) -> None:
    said = planned(tmp_path, defenses=["none", {"id": "toy-noise", "config": {"strength": 1.0}}])
    assert list(said.stages) == list(planned(tmp_path).stages)


@pytest.mark.parametrize("module", ["version", "source"])
def test_another_source_or_version_moves_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    import toys

    before = planned(tmp_path)
    if module == "version":
        monkeypatch.setattr(toys.ToyNoise, "version", "2")
    else:
        real = Entry.source_digest
        monkeypatch.setattr(Entry, "source_digest", lambda e: "changed" if e.id == "toy-noise" else real(e))
    after = planned(tmp_path)
    assert len(keys(before, "release") & keys(after, "release")) == 1  # the clean one
    assert keys(before, "zero-shot") == keys(after, "zero-shot")


def test_other_content_of_a_file_that_a_plugin_reads_moves_keys(tmp_path: Path) -> None:
    file = tmp_path / "word.txt"
    attack = {"id": "toy-dictionary", "config": {"file": str(file)}}
    file.write_text("one", encoding="utf-8")
    before, again = (planned(tmp_path, attacks=["none", attack]) for _ in range(2))
    file.write_text("two", encoding="utf-8")
    after = planned(tmp_path, attacks=["none", attack])
    assert list(before.stages) == list(again.stages)
    assert not keys(before, "purified") & keys(after, "purified")
    assert keys(before, "release") == keys(after, "release")


@pytest.mark.parametrize(
    ("surrogates", "level"),
    [
        (["target"], "white-box"),
        (["toy-model"], "white-box"),
        (["toy-stranger", "toy-model"], "white-box"),
        (["toy-relative"], "gray-box"),
        (["toy-stranger"], "black-box"),
    ],
)
def test_knowledge(tmp_path: Path, surrogates: list[str], level: str) -> None:
    p = planned(tmp_path, defenses=["none", "toy-crafted"], surrogates=surrogates)
    assert {c.facts["knowledge"] for c in p.cells if c.facts["defense"]["id"] == "toy-crafted"} == {level}
    assert {c.facts["knowledge"] for c in p.cells if c.facts["defense"]["id"] == "none"} == {"none"}


def test_targets_as_surrogates_are_each_cells_own_model(tmp_path: Path) -> None:
    models = ["toy-model", "toy-stranger"]
    white = planned(tmp_path, defenses=["none", "toy-crafted"], models=models)
    fixed = planned(tmp_path, defenses=["none", "toy-crafted"], models=models, surrogates=["toy-model"])
    assert len(keys(white, "release")) == 1 + 2 * 2
    assert len(keys(fixed, "release")) == 1 + 2


def test_more_samples_than_the_dataset_has_cannot_be_granted(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'toy-fitted' is granted 8 clean samples.* 'toy-data' has 4"):
        planned(tmp_path, attacks=["none", {"id": "toy-fitted", "auxiliary": 1}])


def test_two_training_parts_in_a_chain_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'toy-trained' and 'toy-trained' both replace the training loss"):
        planned(tmp_path, attacks=["none", "toy-trained+toy-trained"])


def test_a_party_cannot_ask_for_what_is_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import toys

    monkeypatch.setattr(toys.ToyNoise, "needs", frozenset({"model"}))
    with pytest.raises(UsageError, match="'model', which is the attacker's"):
        planned(tmp_path)
    monkeypatch.setattr(toys.ToyNoise, "needs", frozenset())
    monkeypatch.setattr(toys.ToyInvert, "needs", frozenset({"surrogates"}))
    with pytest.raises(UsageError, match="'surrogates', which are the defender's"):
        planned(tmp_path)


def test_estimates_follow_what_was_measured(tmp_path: Path) -> None:
    p = planned(tmp_path)
    stage = next(s for s in p.stages.values() if s.kind == "fine-tuned")
    default = p.seconds[stage.key]
    with p.store.put(stage.key, stage.kind, stage.document):
        pass
    again = planned(tmp_path)
    assert again.seconds[stage.key] < default
    assert stage.key in again.cached
    assert stage.key not in {s.key for s in again.missing()}


def test_planning_loads_no_torch() -> None:
    code = (
        "import sys\nfrom arena.engine.plan import plan\nfrom arena.plugins.registry import Registry\nfrom arena.store.local import Store\n"
        "from suites import toy_suite\nplan(toy_suite(), Registry(), Store('/nonexistent/store'))\n"
        "assert 'torch' not in sys.modules and 'distributed' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


def test_skipped_combinations_have_no_cell_and_no_stage(tmp_path: Path) -> None:
    skip = [{"defenses": ["toy-noise"], "attacks": ["toy-invert"]}]
    whole, part = planned(tmp_path), planned(tmp_path, skip=skip)
    left_out = {c.label for c in whole.cells} - {c.label for c in part.cells}
    assert left_out == {c.label for c in whole.cells if "toy-noise" in c.label and "toy-invert" in c.label}
    assert counts(part)["fine-tuned"] == 6
    assert counts(part)["purified"] == 1
