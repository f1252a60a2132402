"""`arena accept` and `arena verify`: what they print, write and exit with."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from suites import toy_suite
from typer.testing import CliRunner

import arena.cli.proofs
from arena.cli.app import app
from arena.engine import acceptance, again
from arena.engine.execute import compute
from arena.errors import ArenaError, UnresolvedRevision, UsageError
from arena.plugins.identity import PROTOCOL_VERSION
from arena.plugins.registry import Entry, Registry
from arena.records.accept import ACCEPTED, Standing
from arena.records.files import read_records
from arena.records.schema import Outcome
from arena.records.verify import VERIFICATIONS
from arena.records.verify import read as read_verifications
from arena.suites.shipped import find_suite

RESULTS = Path("results")


def command(*words: str) -> Result:
    return CliRunner().invoke(app, list(words), env={"COLUMNS": "300"})


_RESULTS: dict[str, bytes] = {}
"""What the first run left, by file: it leaves the same for every test."""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, toys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with the records of a suite of toys, which are installed in this process alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(again, "compute", partial(compute, scheduler="sync", isolated=False))
    Path("toy.yaml").write_text(toy_suite().model_dump_json(), encoding="utf-8")
    monkeypatch.setattr(arena.cli.proofs, "_suites", lambda others: [(Path("toy.yaml"), find_suite("toy.yaml"))])
    if not _RESULTS:
        assert command("run", "toy.yaml", "--store", "store", "--scheduler", "sync").exit_code == 0
        _RESULTS.update({path.name: path.read_bytes() for path in RESULTS.iterdir()})
    RESULTS.mkdir(exist_ok=True)
    for name, content in _RESULTS.items():
        (RESULTS / name).write_bytes(content)


def changed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Entry.source_digest
    monkeypatch.setattr(Entry, "source_digest", lambda e: "5" * 64 if e.id == "toy-noise" else real(e))


def otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    import toys

    monkeypatch.setattr(toys.ToyNoise, "perturb", lambda self, samples, world: [s.image for s in samples])


def rewrite(**changes: Any) -> None:
    """Change every record in the same way; a value may be made of the record."""
    path = RESULTS / "toy.jsonl"
    made = [
        record.model_copy(update={name: to(record) if callable(to) else to for name, to in changes.items()})
        for record in read_records(path)
    ]
    path.write_text("".join(f"{record.model_dump_json()}\n" for record in made), encoding="utf-8")


def elsewhere(record: Any) -> Any:
    return record.cost.model_copy(update={"machine": "Another CPU, 8 cores"})


# accept


def test_a_refactoring_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "nothing to accept" in command("accept").stdout and not (RESULTS / ACCEPTED).exists()
    changed(monkeypatch)
    done = command("accept", "toy-noise")
    assert done.exit_code == 0, done.output
    assert "accepted defense toy-noise: 2 cells equal to the records" in done.stdout
    assert f"written to {RESULTS / ACCEPTED}" in done.stdout
    (line,) = Standing.read(RESULTS).accepted
    assert line.plugin == "defense toy-noise" and "5" * 64 in line.digests and len(line.proof.cells) == 2
    assert "nothing to accept" in command("accept").stdout


def test_a_change_of_behaviour_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("known.jsonl").write_bytes((RESULTS / "toy.jsonl").read_bytes())
    changed(monkeypatch)
    otherwise(monkeypatch)
    done = command("accept", "--against", "known.jsonl", "--cells", "1")
    assert done.exit_code == 1
    assert "refused defense toy-noise: 1 of 1 cells came out otherwise" in done.stdout
    assert "count up its `version`" in done.stdout and "written to" not in done.stdout
    assert not (RESULTS / ACCEPTED).exists()


def test_suites_of_hub_ids_out_of_reach_are_passed_over_unless_they_have_records(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unresolved(suite: Any, registry: Any) -> Any:
        raise UnresolvedRevision("the hub cannot be reached", "who/what", "main")

    monkeypatch.setattr(acceptance, "planned_cells", unresolved)
    gather = partial(acceptance.gather, registry=Registry(), results=lambda id: RESULTS / "toy.jsonl")
    assert gather([(Path("big.yaml"), toy_suite(id="big"))]) == []
    with pytest.raises(UnresolvedRevision):
        gather([(Path("toy.yaml"), toy_suite())])


# verify


def verdicts() -> list[str]:
    return [check.verdict for line in read_verifications(RESULTS) for check in line.checks]


def board() -> str:
    assert command("board", "toy.yaml").exit_code == 0
    return (RESULTS / "toy.md").read_text(encoding="utf-8")


def test_a_share_is_computed_again_and_boards_say_so(toys: Path) -> None:
    assert "computed again" not in board()
    before = (RESULTS / "toy.jsonl").read_bytes()
    toys.write_text("", encoding="utf-8")
    done = command("verify", "toy.yaml", "--share", "0.25", "--seed", "3")
    assert done.exit_code == 0, done.output
    assert "2 of 8 cells computed again" in done.stdout and "2 agree (2 contents equal)" in done.stdout
    assert toys.read_text(encoding="utf-8").count("fine-tuned") == 2
    (line,) = read_verifications(RESULTS)
    cells = {record.cell for record in read_records(RESULTS / "toy.jsonl")}
    assert (line.suite, line.of, line.seed, len(line.checks)) == ("toy", 8, 3, 2)
    assert {check.cell for check in line.checks} <= cells and verdicts() == ["contents equal"] * 2
    assert (RESULTS / "toy.jsonl").read_bytes() == before
    assert "2 of 8 cells computed again" in board() and "2 agree" in board()
    assert command("verify", "toy.yaml", "--share", "0.25", "--seed", "4").exit_code == 0
    assert len(read_verifications(RESULTS)) == 2


def test_a_record_that_was_tampered_with_is_found_on_a_like_machine() -> None:
    """Consistently: its accuracy is the mean of its items still."""
    rewrite(outcome=lambda record: Outcome.pack(~record.outcome.unpack()))
    done = command("verify", "toy.yaml", "--share", "0.5")
    assert done.exit_code == 1
    assert "4 cells do not agree" in done.stdout and verdicts() == ["contents differ"] * 4
    assert "0 agree (4 contents differ)" in board()


def test_records_of_another_machine_are_compared_by_their_items() -> None:
    rewrite(cost=elsewhere, lineage=lambda r: r.lineage.model_copy(update={"checkpoint": "e" * 64}))
    done = command("verify", "toy.yaml", "--share", "1")
    assert done.exit_code == 0, done.output
    assert verdicts() == ["items equal"] * 8
    rewrite(outcome=lambda record: Outcome.pack([True] * 6))
    for record in read_records(RESULTS / "toy.jsonl"):
        assert record.outcome is not None and record.outcome.accuracy == 1
    done = command("verify", "toy.yaml", "--share", "1")
    assert done.exit_code == 1 and "beyond chance" in verdicts()[8:]


def test_what_cannot_be_verified_is_said() -> None:
    Path("new.yaml").write_text(toy_suite(id="new", seeds=[7]).model_dump_json(), encoding="utf-8")
    done = command("verify", "new.yaml")
    assert isinstance(done.exception, UsageError) and "'new' has no records" in str(done.exception)
    failure = {"stage": "s", "error": "e", "traceback": "t"}
    path = RESULTS / "toy.jsonl"
    failed = [json.loads(line) | {"status": "failed", "outcome": None, "failure": failure} for line in path.open()]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in failed), encoding="utf-8")
    done = command("verify", "toy.yaml")
    assert done.exit_code == 0 and "no cell is done" in done.stdout and not (RESULTS / VERIFICATIONS).exists()


def test_a_verification_of_another_protocol_is_refused_by_boards() -> None:
    assert command("verify", "toy.yaml").exit_code == 0
    path = RESULTS / VERIFICATIONS
    line = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(line | {"protocol_version": PROTOCOL_VERSION + 1}) + "\n", encoding="utf-8")
    done = command("board", "toy.yaml")
    assert isinstance(done.exception, ArenaError)
    assert f"{VERIFICATIONS}, line 1: it verifies protocol version {PROTOCOL_VERSION + 1}" in str(done.exception)
