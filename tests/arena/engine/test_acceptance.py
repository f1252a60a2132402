"""Changed code keeps its records where it computes the same, and only there."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from suites import toy_suite

from arena.engine import acceptance, again
from arena.engine.acceptance import Outcome
from arena.engine.execute import RunReport, compute, run
from arena.errors import ArenaError, UsageError
from arena.plugins.registry import Entry, Registry
from arena.records.accept import ACCEPTED, Standing
from arena.records.files import read_records
from arena.records.schema import Record

QUIET = Console(file=io.StringIO())


@pytest.fixture(autouse=True)
def in_this_process(toys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Toys are installed here alone."""
    monkeypatch.setattr(again, "compute", partial(compute, scheduler="sync", isolated=False))


def go(folder: Path) -> RunReport:
    return run(
        toy_suite(), store=folder / "store", results=folder / "r.jsonl", scheduler="sync", isolated=False, console=QUIET
    )


def evidence(folder: Path) -> list[acceptance.Evidence]:
    return acceptance.gather([(folder / "toy.yaml", toy_suite())], Registry(), lambda id: folder / "r.jsonl")


def accepting(folder: Path, *ids: str, **options: Any) -> dict[str, Outcome]:
    outcomes = acceptance.accept(ids, evidence(folder), folder, Registry(), QUIET, **options)
    return {outcome.plugin: outcome for outcome in outcomes}


def changed(monkeypatch: pytest.MonkeyPatch, digest: str = "5" * 64) -> None:
    """The source of `toy-noise` has another digest."""
    real = Entry.source_digest
    monkeypatch.setattr(Entry, "source_digest", lambda e: digest if e.id == "toy-noise" else real(e))


def otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """It also makes other releases."""
    import toys

    monkeypatch.setattr(toys.ToyNoise, "perturb", lambda self, samples, world: [s.image for s in samples])


def as_elsewhere(file: Path) -> None:
    """The records as another machine would have them, where every checkpoint came out otherwise."""
    elsewhere = []
    for record in read_records(file):
        lineage = record.lineage.model_copy(update={"checkpoint": "e" * 64})
        cost = record.cost.model_copy(update={"machine": "Another CPU, 8 cores"})
        elsewhere.append(record.model_copy(update={"lineage": lineage, "cost": cost}))
    file.write_text("".join(f"{record.model_dump_json()}\n" for record in elsewhere), encoding="utf-8")


def test_there_is_nothing_to_accept_where_nothing_changed(tmp_path: Path) -> None:
    go(tmp_path)
    assert accepting(tmp_path) == {} and not (tmp_path / ACCEPTED).exists()


def test_a_refactoring_is_accepted_with_its_proof_and_costs_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = go(tmp_path)
    changed(monkeypatch)
    (outcome,) = accepting(tmp_path, "toy-noise").values()
    assert outcome.plugin == "defense toy-noise" and not outcome.differing and len(outcome.checks) == 2
    (line,) = Standing.read(tmp_path).accepted
    then = next(r.defense.source_digest for r in before.records if r.defense.id == "toy-noise")
    assert (line.plugin, line.version, set(line.digests)) == ("defense toy-noise", "1", {then, "5" * 64})
    assert set(line.proof.cells) == outcome.checks.keys() <= {r.cell for r in before.records}
    assert line.proof.against == "the records" and line.proof.machine
    lines = (tmp_path / "r.jsonl").read_bytes()
    assert go(tmp_path).computed == () and (tmp_path / "r.jsonl").read_bytes() == lines


def test_what_computes_otherwise_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go(tmp_path)
    known = tmp_path / "known.jsonl"
    known.write_bytes((tmp_path / "r.jsonl").read_bytes())
    changed(monkeypatch)
    otherwise(monkeypatch)
    (outcome,) = accepting(tmp_path, "toy-noise", against=str(known)).values()
    assert len(outcome.differing) == 2 and not (tmp_path / ACCEPTED).exists()
    assert sum(r.defense.id == "toy-noise" for r in read_records(tmp_path / "r.jsonl")) == 4
    assert len(go(tmp_path).computed) > 0


def test_records_of_another_machine_need_a_reference_made_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go(tmp_path)
    here = tmp_path / "here.jsonl"
    here.write_bytes((tmp_path / "r.jsonl").read_bytes())
    as_elsewhere(tmp_path / "r.jsonl")
    changed(monkeypatch)
    monkeypatch.setattr(acceptance, "digests_at", lambda revision, folder: {})
    with pytest.raises(ArenaError, match=r"none of the last commits has the code that made these.*--against"):
        accepting(tmp_path, "toy-noise")
    lacking = tmp_path / "lacking.jsonl"
    lacking.write_bytes(here.read_bytes().split(b"\n")[0] + b"\n")
    (outcome,) = accepting(tmp_path, "toy-noise", against=str(lacking)).values()
    assert set(outcome.lacking.values()) == {"lacking.jsonl"} and not outcome.differing
    assert not (tmp_path / ACCEPTED).exists()
    (outcome,) = accepting(tmp_path, "toy-noise", against=str(here)).values()
    assert not outcome.differing and outcome.against == {"here.jsonl"}
    otherwise(monkeypatch)
    (tmp_path / ACCEPTED).unlink()
    (outcome,) = accepting(tmp_path, "toy-noise", against=str(here)).values()
    assert outcome.differing and not (tmp_path / ACCEPTED).exists()


def test_the_reference_is_the_last_revision_that_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose source was itself accepted as alike serves as well."""
    before = go(tmp_path)
    changed(monkeypatch, "5" * 64)
    accepting(tmp_path, "toy-noise")
    changed(monkeypatch, "6" * 64)
    as_elsewhere(tmp_path / "r.jsonl")
    found = {"HEAD": "6" * 64, "HEAD~1": "5" * 64}
    monkeypatch.setattr(
        acceptance, "digests_at", lambda revision, folder: {"defense toy-noise": found.get(revision, "0" * 64)}
    )
    asked: list[str] = []

    def at(revision: str, suite: Path, cells: list[str], *rest: Any) -> dict[str, Record]:
        asked.append(revision)
        return {r.cell: r for r in before.records if r.cell in cells}

    monkeypatch.setattr(acceptance, "compute_at", at)
    (outcome,) = accepting(tmp_path, "toy-noise").values()
    assert asked == ["HEAD~1"] and outcome.against == {"commit HEAD~1"} and not outcome.differing


def test_an_id_that_no_record_has_is_refused(tmp_path: Path) -> None:
    go(tmp_path)
    with pytest.raises(
        UsageError, match=r"no record has a plugin 'toy-nose': name one of a committed suite; did you mean 'toy-noise'"
    ):
        accepting(tmp_path, "toy-nose")


def test_cells_are_few_and_every_plugin_is_in_some(tmp_path: Path) -> None:
    go(tmp_path)
    (one,) = evidence(tmp_path)
    every = {name for record in one.records.values() for name in acceptance.made_by(record)}
    for count in (1, 2):
        chosen = acceptance.choose(one, every, count, seed=3)
        for plugin in every:
            assert sum(plugin in acceptance.made_by(one.records[key]) for key in chosen) >= count
        assert len(chosen) <= 2 * count
    assert acceptance.choose(one, every, 1, 3, among=chosen[:1])[0] == chosen[0]


def test_a_plugin_that_a_revision_lacks_hides_none_of_its_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(again.__file__).parents[2]
    monkeypatch.setattr(again, "unpack", lambda revision, folder: folder.symlink_to(root))
    lost = tmp_path / "installed" / "lost-1.0.dist-info"
    lost.mkdir(parents=True)
    (lost / "METADATA").write_text("Metadata-Version: 2.1\nName: lost\nVersion: 1.0\n", encoding="utf-8")
    (lost / "entry_points.txt").write_text("[mmguard_arena.attacks]\nlost = lost_module:Lost\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(lost.parent))
    (tmp_path / "digests").mkdir()
    found = again.digests_at("HEAD", tmp_path / "digests")
    own = {f"{e.kind} {e.id}": e.source_digest() for e in Registry().entries("attack") if e.id in ("jpeg", "mix")}
    assert own.items() <= found.items() and "engine" in found and "attack lost" not in found
