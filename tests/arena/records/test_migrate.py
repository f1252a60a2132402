"""Records of schema 1 become records of schema 2, and nothing about them is believed that their key does not prove."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from arena.cli.app import app
from arena.errors import ArenaError
from arena.lvlm.checkpoints import ShippedModel
from arena.lvlm.families.llava.checkpoints import TinyLlava
from arena.plugins.identity import identity
from arena.plugins.registry import Registry
from arena.records.files import read_records
from arena.records.migrate import ENGINE, migrate
from arena.records.schema import Record
from arena.suites.schema import Suite
from arena.suites.shipped import find_suite

SCHEMA_1 = Path(__file__).parent / "schema-1"
OLD = SCHEMA_1 / "records.jsonl"
"""Of the suites quick, attacks and transfer, as they were: a sequence of attacks with its parts, and a surrogate."""

SUITES = {name: SCHEMA_1 / f"{name}.yaml" for name in ("quick", "attacks", "transfer")}
"""The suites that made them. The rule about answer words is off, since there was none."""


def lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in OLD.read_text(encoding="utf-8").splitlines()]


def placed(words: list[Any]) -> dict[str, Any]:
    return {f"old.jsonl, line {number}": word for number, word in enumerate(words, start=1)}


def suites(**changes: Any) -> list[Suite]:
    """The suites of the records, with fields changed."""
    texts = [path.read_text(encoding="utf-8") for path in SUITES.values()]
    return [Suite.model_validate(yaml.safe_load(text) | changes) for text in texts]


@pytest.fixture(autouse=True)
def weights_of_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights that made the records, whose digests the records state: the tiny models were others."""
    digests = {line["model"]["id"].replace("-", "_"): line["model"]["fingerprint"] for line in lines()}
    monkeypatch.setattr(ShippedModel, "version", "1")
    monkeypatch.setattr(ShippedModel, "fingerprint", lambda model: digests.get(model.folder, "0" * 64))


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copy(OLD, tmp_path / "old.jsonl")
    return tmp_path / "old.jsonl"


def arena(*words: str) -> Result:
    given = [word for path in SUITES.values() for word in ("--suite", str(path))] if words[0] == "migrate" else []
    return CliRunner().invoke(app, [*words, *given])


def test_records_migrate(file: Path) -> None:
    done = arena("migrate", "old.jsonl")
    assert done.exit_code == 0 and "6 records, 6 cells" in done.stdout
    assert Path("old.jsonl.schema-1").read_bytes() == OLD.read_bytes()
    later = {"environment": {"isolation"}, "zero_shot": {"cut"}, "outcome": {"cut"}, "epochs": {"__all__": {"cut"}}}
    for old, new in zip(lines(), read_records(file), strict=True):
        assert new.cell == identity(new.model_dump(mode="json")) != old["cell"]
        assert new.schema_version == 2 and new.engine_digest == ENGINE and new.protocol_version == 1
        kept = (
            "suite",
            "status",
            "zero_shot",
            "outcome",
            "epochs",
            "stealth",
            "cost",
            "lineage",
            "environment",
            "created",
        )
        assert new.budget.model_dump(exclude={"forbid_answer_words"}) == old["budget"]
        assert not new.budget.forbid_answer_words
        for name in (*kept, "knowledge", "auxiliary", "seed", "diagnostics", "peak_accuracy", "chosen_epoch"):
            assert json.loads(new.model_dump_json(exclude=later))[name] == old[name], name
        drawn = find_suite(str(SUITES[old["suite"]["id"]])).datasets[0].seed
        assert new.dataset.samples == old["dataset"]["fingerprint"] and new.dataset.seed == drawn
        assert new.attack.id == old["attack"]["id"] and new.attack.label == old["attack"]["label"]
        for name in ("dataset", "model", "defense", "recipe"):
            made = getattr(new, name)
            assert (made.id, made.source_digest) == (old[name]["id"], old[name]["source_digest"])
            assert made.settings == old[name]["config"]
        assert [s.id for s in new.defense.surrogates] == old["defense"]["surrogates"]
    chain = next(r for r in read_records(file) if r.attack.id == "jpeg+case")
    alone = {r.attack.id: r.attack.parts[0].source_digest for r in read_records(file) if len(r.attack.parts) == 1}
    assert [part.source_digest for part in chain.attack.parts] == [alone["jpeg"], alone["case"]]
    transferred = next(r for r in read_records(file) if r.suite.id == "transfer")
    (surrogate,) = transferred.defense.surrogates
    assert (surrogate.id, surrogate.family, transferred.model.id) == ("tiny-llava", "llava", "tiny-llava-48")
    assert surrogate.fingerprint == Registry().create("model", "tiny-llava").fingerprint()


def test_migrated_cells_are_those_that_the_suites_plan(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from arena.engine.plan import planned_cells

    monkeypatch.setattr("arena.engine.plan.PROTOCOL_VERSION", 1)  # that of all records of schema 1
    records = migrate(placed(lines()), suites(), Registry())
    planned = {cell.key for suite in suites() for cell in planned_cells(suite, Registry())}
    assert {record.cell for record in records} <= planned


def test_what_is_migrated_stays_what_it_is(file: Path) -> None:
    arena("migrate", "old.jsonl")
    once = file.read_bytes()
    half = once.splitlines(keepends=True)[:3] + OLD.read_bytes().splitlines(keepends=True)[3:]
    file.write_bytes(b"".join(half))
    assert arena("migrate", "old.jsonl").exit_code == 0
    assert file.read_bytes() == once
    assert arena("migrate", "old.jsonl").exit_code == 0 and file.read_bytes() == once
    assert Path("old.jsonl.schema-1").read_bytes() == b"".join(half)  # where nothing was migrated, it is kept


def refused(words: list[Any], known: list[Suite], match: str) -> None:
    with pytest.raises(ArenaError, match=match):
        migrate(placed(words), known, Registry())


def test_a_suite_that_is_not_known_is_asked_for() -> None:
    refused(lines(), suites()[:2], "was made by a suite 'transfer' that none of the given files is.*--suite")


def test_what_the_suite_says_must_give_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A suite that passes for the one that made the record, but draws its data by another seed."""
    from arena.records import migrate as module

    digests = {suite.id: module.suite_digest(suite) for suite in suites()}
    dataset = suites()[0].datasets[0].model_dump() | {"seed": 12}
    edited = suites(datasets=[dataset])
    refused(lines(), edited, "none of the given files is")
    monkeypatch.setattr(module, "suite_digest", lambda suite: digests[suite.id])
    refused(lines(), edited, "what it lacks cannot be known: no combination of suite 'quick'")


def test_weights_of_a_surrogate_that_changed_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = [line for line in lines() if line["suite"]["id"] == "transfer"]
    rest = [line for line in lines() if line["suite"]["id"] != "transfer"]
    monkeypatch.setattr(TinyLlava, "fingerprint", lambda self: "f" * 64)
    refused([*rest, line], suites(), rf"record {line['cell'][:12]} .* cannot be known.*their weights that made it")


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"auxiliary": 0.5},
        {"budget": {"norm": "linf", "image": 4.0, "text": 5}},
        {"knowledge": "black-box"},
        {"defense": lambda d: {**d, "source_digest": "0" * 64}},
        {"recipe": lambda d: {**d, "config": {**d["config"], "epochs": 9}}},
        {"model": lambda d: {**d, "fingerprint": "0" * 64}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_record_that_was_edited_is_refused(change: dict[str, Any]) -> None:
    old = lines()[1]
    edited = old | {name: to(old[name]) if callable(to) else to for name, to in change.items()}
    refused([edited], suites(), "cannot be known")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda old: {k: v for k, v in old.items() if k != "defense"}, "is damaged: it lacks the field 'defense'; "),
        (lambda old: {k: v for k, v in old.items() if k != "suite"}, "is damaged: it lacks the field 'suite'; "),
        (lambda old: {k: v for k, v in old.items() if k != "seed"}, "is damaged: it lacks the field 'seed'; "),
        (lambda old: old | {"suite": None}, "is damaged: a field holds a value of another type; "),
        (lambda old: old | {"model": old["model"] | {"id": []}}, "what it lacks cannot be known"),
        (lambda old: old | {"outcome": None}, "is damaged"),
        (lambda old: old | {"lineage": {}}, "is damaged"),
        (lambda old: old | {"schema_version": 3}, "schema version 3: this migrates version 1"),
        (lambda old: [old], "is damaged: it is not a JSON object; restore the file from a copy"),
    ],
)
def test_a_damaged_line_leaves_the_file_as_it_was(file: Path, damage: Any, said: str) -> None:
    before = OLD.read_bytes() + b"\n" + json.dumps(damage(lines()[0])).encode() + b"\n"
    file.write_bytes(before)
    done = arena("migrate", "old.jsonl")
    assert done.exit_code != 0 and isinstance(done.exception, ArenaError), done.exception
    assert str(done.exception).startswith("old.jsonl, line 8") and said in str(done.exception)
    assert file.read_bytes() == before and [p.name for p in file.parent.glob("*.schema-1")] == []


def test_a_file_that_is_not_json_is_named(file: Path) -> None:
    file.write_bytes(b"\n" + OLD.read_bytes() + b"{oops\n")
    done = arena("migrate", "old.jsonl")
    assert isinstance(done.exception, ArenaError)
    assert str(done.exception).startswith("old.jsonl, line 8 is damaged: it is not JSON; restore the file")
    done = arena("migrate", "older.jsonl")
    assert isinstance(done.exception, ArenaError)
    assert str(done.exception) == (
        "older.jsonl cannot be read (No such file or directory): name a JSONL file of records"
    )


def test_boards_of_old_records_say_what_to_do(file: Path) -> None:
    done = arena("board", "old.jsonl")
    assert isinstance(done.exception, ArenaError)
    assert "old.jsonl, line 1: schema version 1" in str(done.exception)
    assert "`arena migrate old.jsonl`" in str(done.exception)
    arena("migrate", "old.jsonl")
    assert all(isinstance(record, Record) for record in read_records(file))
