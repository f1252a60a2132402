"""What changes the name of a stage and of a cell, and what is shared."""

from __future__ import annotations

import os
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
from arena.store.manifest import content_of

pytestmark = pytest.mark.usefixtures("toys")


def planned(tmp_path: Path, **changes: Any) -> Plan:
    return plan(toy_suite(**changes), Registry(), Store(tmp_path / "store"))


def names(p: Plan, kind: str) -> set[str]:
    return {s.name for s in p.stages.values() if s.kind == kind}


def counts(p: Plan) -> dict[str, int]:
    return dict(Counter(s.kind for s in p.stages.values()))


def test_the_same_suite_has_the_same_plan(tmp_path: Path) -> None:
    first, second = planned(tmp_path), planned(tmp_path)
    assert list(first.stages) == list(second.stages)
    assert [c.key for c in first.cells] == [c.key for c in second.cells]
    assert len({c.key for c in first.cells}) == 8
    assert all(name == stage.name for name, stage in first.stages.items())


def test_another_process_makes_the_same_plan(tmp_path: Path) -> None:
    """Whatever the seed of its hashes."""
    code = (
        "from arena.engine.plan import plan\nfrom arena.plugins.registry import Registry\n"
        "from arena.store.local import Store\nfrom suites import toy_suite\n"
        f"p = plan(toy_suite(), Registry(), Store({str(tmp_path / 'store')!r}))\n"
        "print(*p.stages, *[c.key for c in p.cells])"
    )
    here = planned(tmp_path)
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[3],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == [*here.stages, *[c.key for c in here.cells]]


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
        assert {link.stage for link in stage.inputs.values()} <= seen
        seen.add(stage.name)
    assert {"fit", "purified", "scored"} <= {stage.kind for stage in p.stages.values()}


def test_no_attack_is_no_stage(tmp_path: Path) -> None:
    for cell in planned(tmp_path, attacks=["none"]).cells:
        assert cell.stages["purified"] == cell.stages["release"]


def test_a_chain_shares_its_beginning(tmp_path: Path) -> None:
    alone = planned(tmp_path, attacks=["none", "toy-invert"])
    chained = planned(tmp_path, attacks=["none", "toy-invert", "toy-invert+toy-shout"])
    assert names(alone, "purified") < names(chained, "purified")
    assert len(names(chained, "purified")) == 2 * len(names(alone, "purified"))


def test_a_purifier_is_fitted_once_for_all_releases(tmp_path: Path) -> None:
    p = planned(tmp_path, attacks=["none", {"id": "toy-fitted", "auxiliary": 0.5}])
    assert counts(p)["fit"] == 1 and counts(p)["data"] == 3
    assert counts(p)["purified"] == 3


def test_clean_release_and_cells_serve_every_budget(tmp_path: Path) -> None:
    p = planned(tmp_path, budgets=[{"image": 4}, {"image": 8}])
    assert len(p.cells) == 4 + 2 * 4
    assert len(names(p, "release")) == 1 + 2 * 2


def test_what_needs_no_seed_or_model_is_computed_once(tmp_path: Path) -> None:
    p = planned(tmp_path, defenses=["none", "toy-fixed"], models=["toy-model", "toy-stranger"])
    assert len(names(p, "release")) == 2
    assert len(names(p, "purified")) == 2
    drawn = planned(tmp_path, attacks=["none", "toy-drawn"], defenses=["none"], models=["toy-model", "toy-stranger"])
    assert len(names(drawn, "purified")) == 4


DATA = {"id": "toy-data", "train": 8, "auxiliary": 4, "test": 6}
CHANGES: list[tuple[dict[str, Any], set[str], int]] = [
    ({"datasets": [DATA | {"seed": 1}]}, {"data", "release"}, 0),
    ({"datasets": [DATA | {"train": 9}]}, {"data", "release"}, 0),
    (
        {"datasets": [DATA | {"config": {"size": 9}}]},
        {"data", "release", "purified", "fine-tuned", "scored", "zero-shot", "stealth"},
        0,
    ),
    ({"models": ["toy-relative"]}, {"zero-shot", "fine-tuned", "scored", "stealth"}, 0),
    ({"models": [{"id": "toy-model", "config": {"threshold": 1.0}}]}, {"zero-shot", "fine-tuned", "scored"}, 0),
    ({"recipes": [{"id": "toy-recipe", "config": {"rate": 0.2}}]}, {"fine-tuned", "scored"}, 0),
    ({"budgets": [{"image": 4}]}, {"release", "purified", "fine-tuned", "scored"}, 4),  # the control has no budget
    ({"seeds": [0, 2]}, {"release", "purified", "fine-tuned", "scored"}, 4),
    (
        {"defenses": ["none", {"id": "toy-noise", "config": {"strength": 0.5}}]},
        {"release", "purified", "fine-tuned", "scored", "stealth"},
        4,
    ),
    ({"attacks": ["none", "toy-shout"]}, {"purified", "fine-tuned", "scored"}, 4),
    ({"attacks": ["none", "toy-trained"]}, {"fine-tuned", "scored"}, 4),
]
"""A change of the suite, the kinds of stages that it moves, and how many of the eight cells stay what they are."""
KINDS = {"data", "zero-shot", "release", "stealth", "purified", "fine-tuned", "scored"}


@pytest.mark.parametrize(("change", "moved", "stay"), CHANGES, ids=[str(c) for c, _, _ in CHANGES])
def test_a_change_moves_what_is_behind_it(tmp_path: Path, change: dict[str, Any], moved: set[str], stay: int) -> None:
    before, after = planned(tmp_path), planned(tmp_path, **change)
    for kind in moved:
        assert names(after, kind) - names(before, kind), kind
    if not change.keys() & {"datasets"}:
        assert names(before, "data") == names(after, "data")
    if change.keys() & {"recipes"}:
        for kind in KINDS - moved:
            assert names(before, kind) == names(after, kind), kind
    assert len({c.key for c in before.cells} & {c.key for c in after.cells}) == stay
    assert len({c.key for c in after.cells}) == 8


def test_titles_and_labels_move_no_stage(tmp_path: Path) -> None:
    before = planned(tmp_path)
    after = planned(tmp_path, title="Other", defenses=["none", {"id": "toy-noise", "label": "my noise"}])
    assert list(before.stages) == list(after.stages)
    assert [c.key for c in before.cells] == [c.key for c in after.cells]


def test_default_settings_said_or_not_are_the_same(tmp_path: Path) -> None:
    said = planned(tmp_path, defenses=["none", {"id": "toy-noise", "config": {"strength": 1.0}}])
    assert list(said.stages) == list(planned(tmp_path).stages)


def test_another_version_moves_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import toys

    before = planned(tmp_path)
    monkeypatch.setattr(toys.ToyNoise, "version", "2")
    after = planned(tmp_path)
    assert len(names(before, "release") & names(after, "release")) == 1  # the clean one
    assert names(before, "zero-shot") == names(after, "zero-shot")
    moved = {c.asked.defense.id for b, c in zip(before.cells, after.cells, strict=True) if b.key != c.key}
    assert moved == {"toy-noise"} and len({c.key for c in before.cells} & {c.key for c in after.cells}) == 4


def test_another_source_moves_keys_in_the_store_and_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same question, since an artifact holds for the code that made it alone."""
    real = Entry.source_digest
    before = planned(tmp_path)
    monkeypatch.setattr(Entry, "source_digest", lambda e: "changed" if e.id == "toy-noise" else real(e))
    after = planned(tmp_path)
    assert list(before.stages) == list(after.stages)
    assert [c.key for c in before.cells] == [c.key for c in after.cells]

    def of(p: Plan, kind: str) -> set[str]:
        inputs = {"train": "0", "test": "1"}
        return {s.key(inputs) for s in p.stages.values() if s.kind == kind}

    assert len(of(before, "release") & of(after, "release")) == 1  # the clean one
    assert len(of(before, "release")) == len(of(after, "release")) == 3
    assert of(before, "zero-shot") == of(after, "zero-shot")


def test_other_content_of_a_file_that_a_plugin_reads_moves_keys(tmp_path: Path) -> None:
    file = tmp_path / "word.txt"
    attack = {"id": "toy-dictionary", "config": {"file": str(file)}}
    file.write_text("one", encoding="utf-8")
    before, again = (planned(tmp_path, attacks=["none", attack]) for _ in range(2))
    file.write_text("two", encoding="utf-8")
    after = planned(tmp_path, attacks=["none", attack])
    assert list(before.stages) == list(again.stages)
    assert not names(before, "purified") & names(after, "purified")
    assert names(before, "release") == names(after, "release")


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
    assert {c.asked.knowledge for c in p.cells if c.asked.defense.id == "toy-crafted"} == {level}
    assert {c.asked.knowledge for c in p.cells if c.asked.defense.id == "none"} == {"none"}


def test_targets_as_surrogates_are_each_cells_own_model(tmp_path: Path) -> None:
    models = ["toy-model", "toy-stranger"]
    white = planned(tmp_path, defenses=["none", "toy-crafted"], models=models)
    fixed = planned(tmp_path, defenses=["none", "toy-crafted"], models=models, surrogates=["toy-model"])
    assert len(names(white, "release")) == 1 + 2 * 2
    assert len(names(fixed, "release")) == 1 + 2


def test_more_samples_than_the_dataset_has_cannot_be_granted(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'toy-fitted' is granted 8 clean samples.* 'toy-data' has 4"):
        planned(tmp_path, attacks=["none", {"id": "toy-fitted", "auxiliary": 1}])


def test_own_samples_and_originals_are_not_granted_by_one_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import toys

    monkeypatch.setattr(toys.ToyFitted, "needs", frozenset({"auxiliary", "originals"}))
    with pytest.raises(UsageError, match="'auxiliary' and 'originals', and a suite grants one share"):
        planned(tmp_path, attacks=["none", {"id": "toy-fitted", "auxiliary": 0.5}])


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
    default = p.seconds[stage.name]
    with p.store.put("0" * 64, stage.kind, stage.describe()):
        pass
    assert planned(tmp_path).seconds[stage.name] < default


def test_what_the_store_has_is_known_by_the_contents_of_inputs(tmp_path: Path) -> None:
    p = planned(tmp_path)
    assert p.artifacts().keys == {} and p.missing() == list(p.stages.values())
    train = next(s for s in p.stages.values() if s.kind == "data" and s.label.endswith("train"))
    waiting = {s.name for s in p.stages.values() if s.kind == "release"}
    assert not any(p.artifacts().ready(p.stages[name]) for name in waiting)
    task = p.artifacts().task(train)
    with p.store.put(task.key, train.kind, train.describe()) as folder:
        (folder / "samples").mkdir()
        (folder / "samples" / "a").write_text("one", encoding="utf-8")
    found = p.artifacts()
    assert found.keys == {train.name: task.key}
    assert train.name not in {s.name for s in p.missing()} and len(p.missing()) == len(p.stages) - 1
    assert all(found.ready(p.stages[name]) for name in waiting)
    release = p.stages[min(waiting)]
    content = content_of(p.store.look(task.key), "samples")
    assert found.task(release).key == release.key({"train": content}) != release.key({"train": "other"})


def test_planning_loads_no_torch() -> None:
    code = (
        "import sys\nfrom arena.engine.plan import plan\nfrom arena.plugins.registry import Registry\n"
        "from arena.store.local import Store\n"
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
