"""What attacks that rewrite questions cost in meaning: who is measured, on what, and what becomes of it in records."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from suites import toy_suite
from text_encoder import write_text_encoder

from arena.engine.execute import run
from arena.engine.job import Job
from arena.engine.plan import plan, planned_cells
from arena.engine.stages import Meaning, Similarity
from arena.engine.worker import run_task
from arena.kit import material
from arena.kit.behaviour import contract
from arena.kit.bench import Failed
from arena.lvlm.checkpoints import folder_digest
from arena.plugins.card import Card
from arena.plugins.registry import Registry
from arena.records.files import read_records
from arena.records.schema import Record
from arena.store.local import Store
from arena.suites.dry_run import tiny
from arena.suites.schema import digest

ATTACKS = ["none", "toy-invert", "toy-keep", "toy-shout", "toy-mute", "toy-half", "toy-invert+toy-mute"]
READER = {"models": ["toy-reader"], "attacks": ATTACKS, "seeds": [0]}


def go(tmp_path: Path, **changes: Any) -> dict[str, Record]:
    """The records of the control `none`, by the attack's label."""
    report = run(
        toy_suite(**{**READER, **changes}),
        store=tmp_path / "store",
        results=tmp_path / "r.jsonl",
        console=Console(file=io.StringIO()),
        scheduler="sync",
        isolated=False,
    )
    return {r.attack.label: r for r in report.records if r.defense.id == "none"}


def test_what_keeps_questions_costs_nothing_and_what_destroys_them_costs_all(tmp_path: Path, toys: Path) -> None:
    found = {label: record.meaning for label, record in go(tmp_path).items()}
    assert found["none"] is None and found["toy-invert"] is None
    kept, shouted, muted = (found[f"toy-{name}"] for name in ("keep", "shout", "mute"))
    assert kept is not None and shouted is not None and muted is not None
    assert kept.samples == muted.samples == 8 and kept.accuracy_before > 0.2
    assert (kept.changed, kept.accuracy) == (0, kept.accuracy_before)
    assert (shouted.changed, shouted.accuracy) == (1, kept.accuracy_before)
    assert (muted.changed, muted.accuracy, muted.accuracy_before) == (1, 0, kept.accuracy_before)
    assert {one.similarity for one in (kept, shouted, muted)} == {one.embedding for one in (kept, muted)} == {None}


def test_pictures_are_the_clean_ones_and_samples_are_matched_by_their_ids(tmp_path: Path, toys: Path) -> None:
    found = go(tmp_path)
    half, both, muted = (found[a].meaning for a in ("toy-half", "toy-invert+toy-mute", "toy-mute"))
    assert half is not None and both == muted
    assert (half.samples, half.changed) == (4, 0.25)
    lost = half.accuracy_before - half.accuracy
    assert lost in (0, 0.25)  # the muted one, if it was right at all; of inverted pictures others would be wrong


def test_only_clean_data_is_measured_and_no_cell_is_another_one(toys: Path) -> None:
    registry, suite = Registry(), toy_suite(**{**READER, "defenses": ["none", "toy-noise", "toy-fixed"]})
    embedded = toy_suite(
        **{**READER, "defenses": ["none", "toy-noise", "toy-fixed"], "meaning": {"embedding": "no/such"}}
    )
    cells, others = planned_cells(suite, registry), planned_cells(embedded, registry)
    measured = {(c.asked.defense.id, c.asked.attack.label) for c in cells if "meaning" in c.stages}
    assert measured == {("none", attack) for attack in ATTACKS if attack not in ("none", "toy-invert")}
    assert [c.key for c in cells] == [c.key for c in others]
    assert not any("similarity" in c.stages for c in cells)
    assert {c.key for c in others if "similarity" in c.stages} == {c.key for c in cells if "meaning" in c.stages}
    assert digest(suite) == digest(toy_suite(**suite.model_dump(exclude={"meaning"}))) != digest(embedded)


def test_it_is_measured_once_for_all_seeds_and_recipes(toys: Path, tmp_path: Path) -> None:
    recipes = ["toy-recipe", {"id": "toy-recipe", "config": {"rate": 0.2}}]
    whole = plan(toy_suite(**{**READER, "seeds": [0, 1], "recipes": recipes}), Registry(), Store(tmp_path / "s"))
    assert sum(isinstance(stage, Meaning) for stage in whole.stages.values()) == 5
    assert sum(stage.kind == "zero-shot" for stage in whole.stages.values()) == 2  # of test, and of training samples


def test_attacks_that_may_rewrite_say_so_by_themselves(toys: Path) -> None:
    registry = Registry()
    text = ("punct", "case", "onion", "paraphrase", "back-translate", "answer-strip", "trigger-strip", "autopurify")
    for id, rewrites in {**dict.fromkeys(text, True), "jpeg": False, "none": False, "ueraser": False}.items():
        assert Card.here(registry, "attack", id, {}).rewrites is rewrites, id


def test_the_model_is_handed_no_answers_and_only_what_changed(toys: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    whole = plan(toy_suite(**READER), Registry(), store)
    (cell,) = (c for c in whole.cells if c.asked.attack.label == "toy-half" and c.asked.defense.id == "none")
    keys = computed(whole, whole.closure([cell.stages["meaning"]]), store)
    stage = whole.stages[cell.stages["meaning"]]
    given = tmp_path / "given"
    given.mkdir()
    stage.hand_over(Job({role: keys[link.stage] for role, link in stage.inputs.items()}, store, given, ""), given)
    assert {path.name for path in given.iterdir()} == {"limit.json", "test"}
    (row,) = map(json.loads, (given / "test" / "metadata.jsonl").read_text(encoding="utf-8").splitlines())
    assert (row["id"], row["question"], row["answer"], row["aliases"]) == ("000000", "hm", "?", [])


def computed(whole: Any, names: Any, store: Store) -> dict[str, str]:
    artifacts = whole.artifacts()
    for stage in whole.stages.values():
        if stage.name in names and stage.name not in artifacts.keys:
            task = artifacts.task(stage)
            result = run_task(task, store.url, isolated=False)
            assert result.status == "done", result.message
            artifacts.keys[stage.name] = task.key
    return dict(artifacts.keys)


def test_similarity_is_one_of_what_stays(tmp_path: Path, toys: Path) -> None:
    folder = write_text_encoder(tmp_path / "encoder")
    attacks = ["none", "toy-keep", "toy-mute"]
    found = go(tmp_path, attacks=attacks, defenses=["none"], meaning={"embedding": str(folder)})
    kept, muted = (found[a].meaning for a in attacks[1:])
    assert kept is not None and muted is not None and found["none"].meaning is None
    assert kept.similarity == 1 and muted.similarity is not None and muted.similarity < 0.99
    assert kept.embedding == muted.embedding == folder_digest(folder)
    assert str(tmp_path) not in found["toy-mute"].model_dump_json()  # records are published
    again = {r.attack.label: r for r in read_records(tmp_path / "r.jsonl")}
    assert {label: r.meaning for label, r in again.items()} == {label: r.meaning for label, r in found.items()}


def test_behind_the_firewall_the_similarity_finds_its_embedding(tmp_path: Path, toys: Path) -> None:
    folder, store = write_text_encoder(tmp_path / "encoder"), Store(tmp_path / "s")
    suite = toy_suite(attacks=["none", "toy-mute"], defenses=["none"], seeds=[0], meaning={"embedding": str(folder)})
    whole = plan(suite, Registry(), store)
    (stage,) = (stage for stage in whole.stages.values() if isinstance(stage, Similarity))
    computed(whole, whole.closure([stage.name]) - {stage.name}, store)
    result = run_task(task := whole.artifacts().task(stage), store.url)
    assert result.status == "done", result.message
    assert -1 <= json.loads((store.require(task.key) / "similarity.json").read_text(encoding="utf-8")) < 0.99


@pytest.mark.parametrize("what", ["missing", "damaged", "no folder of a checkpoint"])
def test_an_embedding_that_is_not_there_costs_its_own_cells(
    tmp_path: Path, toys: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    named, said = "no/such-embedding", "neither a folder nor"
    if what == "damaged":
        named, said = str(write_text_encoder(tmp_path / "encoder")), "cannot be loaded"
        (tmp_path / "encoder" / "model.safetensors").write_bytes(b"no weights")
    elif what != "missing":
        named, said = str(tmp_path), "no checkpoint files"
    found = go(tmp_path, attacks=["none", "toy-invert", "toy-mute"], meaning={"embedding": named})
    assert {label: r.status for label, r in found.items()} == {
        "none": "done",
        "toy-invert": "done",
        "toy-mute": "failed",
    }
    failure = found["toy-mute"].failure
    assert failure is not None and failure.stage.startswith("similarity")
    assert f"embedding {named!r}" in failure.error and said in failure.error
    released = [r for r in read_records(tmp_path / "r.jsonl") if r.defense.id == "toy-noise"]
    assert len(released) == 3 and {r.status for r in released} == {"done"}


def test_the_process_of_the_similarity_holds_texts_and_no_plugin(toys: Path, tmp_path: Path) -> None:
    folder = write_text_encoder(tmp_path / "encoder")
    whole = plan(toy_suite(**READER, meaning={"embedding": str(folder)}), Registry(), Store(tmp_path / "s"))
    stages = [stage for stage in whole.stages.values() if isinstance(stage, Similarity)]
    assert len(stages) == 5 and all(stage.network and not stage.plugins() for stage in stages)


def test_a_record_from_before_is_one_without_meaning() -> None:
    from synthetic import record

    made = record(attack="case")
    old = {name: value for name, value in made.model_dump(mode="json").items() if name != "meaning"}
    assert Record.model_validate(old) == made and made.meaning is None


def test_of_samples_that_are_all_others_nothing_is_said(tmp_path: Path, toys: Path) -> None:
    own = [{"id": "toy-data", "train": 8, "auxiliary": 8, "test": 6}]
    alone = [{"id": "auxiliary-alone", "auxiliary": 1}]
    folder = str(write_text_encoder(tmp_path / "encoder"))
    found = go(tmp_path, attacks=["none", *alone], datasets=own, defenses=["none"], meaning={"embedding": folder})
    (record,) = (r for label, r in found.items() if label != "none")
    assert record.status == "done" and record.meaning is None


def test_a_model_that_reads_loses_what_it_knew_without_the_question(tmp_path: Path, toys: Path) -> None:
    """`tiny-llava` on emojis, whose questions it knows from its training."""
    store, data = Store(tmp_path / "s"), [{"id": "emoji", "train": 48, "test": 4}]
    suite = toy_suite(
        models=["tiny-llava"], datasets=data, defenses=["none"], attacks=["none", "toy-keep", "toy-mute"], seeds=[0]
    )
    whole = plan(suite, Registry(), store)
    names = {c.asked.attack.label: c.stages["meaning"] for c in whole.cells if "meaning" in c.stages}
    keys = computed(whole, whole.closure(names.values()), store)
    kept, muted = (
        json.loads((store.require(keys[names[label]]) / "meaning.json").read_text(encoding="utf-8"))
        for label in ("toy-keep", "toy-mute")
    )
    assert kept["accuracy"] == kept["accuracy_before"] == muted["accuracy_before"] > 0.3
    assert muted["accuracy"] < 0.15


def test_arena_check_finds_an_attack_that_rewrites_and_denies_it(toys: Path) -> None:
    samples = material.plain(12)
    shouted = [sample.with_content(sample.image, sample.question.upper()) for sample in samples]

    def bench(rewrites: bool, made: Any) -> Any:
        source = SimpleNamespace(line=lambda *names: ":".join(names), work="purify")
        card, plain = SimpleNamespace(rewrites=rewrites), lambda: SimpleNamespace(samples=made)
        return SimpleNamespace(kind="attack", card=card, plain=plain, source=source)

    assert contract(bench(True, shouted)) == contract(bench(False, samples)) == "12 samples to train on"
    with pytest.raises(Failed, match="it leaves questions alone") as failed:
        contract(bench(False, shouted))
    assert failed.value.where == "rewrites"


def test_a_dry_run_has_no_embedding_and_says_so(toys: Path, tmp_path: Path) -> None:
    dry = tiny(toy_suite(**READER, meaning={"embedding": {"id": "no/such", "revision": "v1"}}), Registry(), tmp_path)
    assert dry.suite.meaning.embedding is None and any("no sentence embedding" in note for note in dry.notes)
