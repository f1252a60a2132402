"""Runs of toy suites: resume, failures, sharing. Training is a toy's, everything between is the arena's."""

from __future__ import annotations

import importlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from suites import toy_suite

from arena.data.sample import Sample
from arena.engine.execute import RunReport, run
from arena.engine.job import Job
from arena.engine.stages import FineTune
from arena.errors import UsageError
from arena.plugins.registry import Registry
from arena.records.files import append_record, read_records
from arena.records.schema import Record
from arena.store.local import Store, StoreError


def go(tmp_path: Path, name: str = "r", store: str = "store", **changes: Any) -> RunReport:
    options = {k: changes.pop(k) for k in ("scheduler", "workers", "force_failed", "only", "isolated") if k in changes}
    options = {"scheduler": "sync", **options}
    return run(
        toy_suite(**changes),
        store=tmp_path / store,
        results=tmp_path / f"{name}.jsonl",
        console=Console(file=io.StringIO()),
        **{"isolated": options["scheduler"] != "sync", **options},
    )


def essence(records: list[Record] | tuple[Record, ...]) -> dict[str, Any]:
    """Records by cell without what differs between runs: cost and time."""
    return {r.cell: r.model_dump(exclude={"cost", "created"}) for r in records}


def logged(log: Path) -> Counter[str]:
    return Counter(log.read_text(encoding="utf-8").split("\n")[:-1]) if log.exists() else Counter()


def test_a_run_records_every_cell_once(tmp_path: Path, toys: Path) -> None:
    report = go(tmp_path)
    assert len(report.records) == len(report.plan.cells) == 8 and not report.failed
    assert [r.cell for r in report.records] == [c.key for c in report.plan.cells]
    assert Counter(r.cell for r in read_records(report.results)) == Counter(c.key for c in report.plan.cells)
    assert set(report.computed) == set(report.plan.stages) and max(logged(toys).values()) == 1
    record = next(r for r in report.records if r.defense.id == "toy-noise" and r.attack.id == "toy-invert")
    assert record.stealth is not None and 0 < (record.stealth["max_delta"] or 0) <= 8
    assert record.cost.protect is not None and record.cost.purify is not None and record.cost.finetune is not None
    assert None not in record.lineage.model_dump().values()
    clean = next(r for r in report.records if r.defense.id == "none" and r.attack.id == "none")
    assert clean.cost.purify is None and clean.lineage.purified == clean.lineage.release
    assert len({r.dataset.samples for r in report.records}) == 1


def test_a_second_run_computes_and_records_nothing(tmp_path: Path, toys: Path) -> None:
    first = go(tmp_path)
    before, lines = logged(toys), first.results.read_bytes()
    second = go(tmp_path)
    assert second.computed == () and logged(toys) == before
    assert second.results.read_bytes() == lines and second.records == first.records


def test_an_attack_without_the_samples_it_needs_costs_its_own_cells(tmp_path: Path, toys: Path) -> None:
    report = go(tmp_path, attacks=["none", "toy-fitted"])
    failed = [r for r in report.records if r.failure is not None]
    assert len(failed) == 4 and {r.attack.id for r in failed} == {"toy-fitted"}
    assert all("asked for 'auxiliary'" in r.failure.error for r in failed if r.failure)


def test_originals_are_granted_by_share_and_only_to_what_needs_them(
    tmp_path: Path, toys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[Any] = []
    monkeypatch.setitem(importlib.import_module("toys").HANDED, "attack", handed)
    train = Registry().create("dataset", "toy-data").load(8, 4, 6, 0).train
    leaked = [{"id": "toy-leaked", "label": "half", "auxiliary": 0.5}, {"id": "toy-leaked", "label": "of nothing"}]
    report = go(tmp_path, defenses=["none", "toy-noise"], attacks=["none", *leaked], seeds=[0])
    assert {r.attack.label for r in report.failed} == {"of nothing"} and len(report.failed) == 2
    assert all("grant a share of the released samples" in r.failure.error for r in report.failed if r.failure)
    releases, originals = handed[0::3], handed[2::3]
    assert len(originals) == 2 and all(pixels(some) == pixels(train[:4]) for some in originals)
    assert all([s.id for s in a[:4]] == [s.id for s in b] for a, b in zip(releases, originals, strict=True))
    assert sorted(pixels(some[:4]) == pixels(train[:4]) for some in releases) == [False, True]
    assert {r.auxiliary for r in report.records if r.attack.label == "half"} == {0.5}


def pixels(samples: Sequence[Sample]) -> list[bytes]:
    return [sample.image.tobytes() for sample in samples]


def test_what_an_attack_notes_while_purifying_its_training_finds(
    tmp_path: Path, toys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[Any] = []
    monkeypatch.setitem(importlib.import_module("toys").HANDED, "attack", handed)
    chains = ["none", "toy-noting", "toy-invert+toy-noting+toy-shout"]
    report = go(tmp_path, defenses=["none"], attacks=chains, seeds=[0])
    assert not report.failed and len(report.records) == 3
    (one, other) = (notes for notes in handed if isinstance(notes, dict))
    assert one == other and [type(id) for id in one["seen"]] == [str]


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"times": 20_000}, "world.notes takes .* bytes, at most 65,536: note less"),
        ({"kind": "no dict"}, "is a list"),
        ({"kind": "set"}, "world.notes holds what JSON cannot .*: note text"),
    ],
)
def test_notes_that_cannot_be_kept_cost_their_own_cells(
    tmp_path: Path, toys: Path, config: dict[str, Any], says: str
) -> None:
    report = go(tmp_path, defenses=["none"], attacks=["none", {"id": "toy-noting", "config": config}], seeds=[0])
    (failed,) = report.failed
    assert failed.attack.id == "toy-noting" and failed.failure is not None
    assert re.search(says, failed.failure.error)


def test_lost_records_are_made_again_from_the_store(tmp_path: Path, toys: Path) -> None:
    first = go(tmp_path)
    again = go(tmp_path, name="other")
    assert again.computed == () and essence(again.records) == essence(first.records)


def test_a_larger_suite_reuses_what_is_there(tmp_path: Path, toys: Path) -> None:
    first = go(tmp_path)
    larger = go(tmp_path, attacks=["none", "toy-invert", "toy-invert+toy-shout"])
    assert not set(first.computed) & set(larger.computed)
    kinds = {larger.plan.stages[name].kind for name in larger.computed}
    assert kinds == {"purified", "fine-tuned", "scored", "meaning", "zero-shot"}  # the latter two: what is rewritten


@pytest.mark.parametrize(
    ("defense", "error"),
    [
        ("toy-raising", "ValueError: the toy is broken"),
        ("toy-loud", r"budget: sample 0 ('toy-00000'): |delta| = 30/255"),
    ],
)
def test_a_failing_plugin_costs_its_own_cells(tmp_path: Path, toys: Path, defense: str, error: str) -> None:
    report = go(tmp_path, defenses=["none", defense, "toy-noise"])
    assert {r.defense.id for r in report.failed} == {defense}
    assert len(report.failed) == 4 and len(report.records) == 12
    failure = report.failed[0].failure
    assert failure is not None and failure.stage.startswith("release toy-") and error in failure.error
    assert "Traceback" in failure.traceback and str(Path.home()) + "/" not in failure.traceback


def test_failed_cells_are_tried_again_only_when_asked(
    tmp_path: Path, toys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import toys as module

    failed = go(tmp_path, defenses=["none", "toy-raising"])
    lines = failed.results.read_bytes()
    monkeypatch.setattr(module.ToyRaising, "perturb", lambda self, samples, world: [s.image for s in samples])
    assert len(go(tmp_path, defenses=["none", "toy-raising"]).failed) == 4
    assert failed.results.read_bytes() == lines
    repaired = go(tmp_path, defenses=["none", "toy-raising"], force_failed=True)
    assert not repaired.failed and len(repaired.records) == 8
    assert len(read_records(repaired.results)) == 12


def test_hanging_and_dying_plugins_cost_their_own_cells(tmp_path: Path, toys: Path) -> None:
    start = time.monotonic()
    report = go(
        tmp_path,
        scheduler="processes",
        workers=2,
        defenses=["none", "toy-noise", "toy-hanging", "toy-dying"],
        attacks=["none"],
        seeds=[0],
        limits={"stage_minutes": 0.1},
    )
    assert time.monotonic() - start < 90
    failures = {r.defense.id: r.failure for r in report.failed}
    assert set(failures) == {"toy-hanging", "toy-dying"} and len(report.records) == 4
    hanging, dying = failures["toy-hanging"], failures["toy-dying"]
    assert hanging is not None and "past its time limit of 0.1 minutes" in hanging.error
    assert "in perturb" in hanging.traceback
    assert dying is not None and "ended by signal SIGKILL" in dying.error
    here = go(tmp_path, name="here", store="other", attacks=["none"], seeds=[0], limits={"stage_minutes": 0.1})
    outcomes = {r.defense.id: r.outcome for r in here.records}
    assert outcomes == {r.defense.id: r.outcome for r in report.records if r.status == "done"}


OTHER = """
import sys
sys.path[:0] = [{root!r}]
import toys; toys.install()
from pathlib import Path
from test_run import go
go(Path({folder!r}), name={name!r})
"""


def test_killed_run_resumes_to_the_same_records(tmp_path: Path, toys: Path) -> None:
    code = OTHER.format(root=str(Path(__file__).parent), folder=str(tmp_path), name="r")
    process = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"TOY_SLEEP": "0.2"})
    deadline = time.monotonic() + 60
    results = tmp_path / "r.jsonl"
    while not (results.exists() and results.read_bytes().count(b"\n") >= 2) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = read_records(results)
    assert 2 <= len(kept) < 8
    before = logged(toys)
    resumed = go(tmp_path)
    after = logged(toys) - before
    assert sum((before & after).values()) <= 1  # at most the one in flight was computed again
    assert 0 < len(resumed.computed) < len(resumed.plan.stages)
    assert Counter(r.cell for r in read_records(results)) == Counter(c.key for c in resumed.plan.cells)
    undisturbed = go(tmp_path, name="undisturbed", store="other")
    assert essence(resumed.records) == essence(undisturbed.records)


def test_two_runs_share_a_store(tmp_path: Path, toys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_SLEEP", "0.1")
    import torch  # noqa: F401 - or the other run would be done before this one has begun

    code = OTHER.format(root=str(Path(__file__).parent), folder=str(tmp_path), name="other")
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while not logged(toys) and time.monotonic() < deadline:
        time.sleep(0.02)
    mine = go(tmp_path, name="mine")
    assert process.wait(60) == 0
    assert len(mine.computed) < len(mine.plan.stages)
    assert set(logged(toys).values()) == {1} and len(logged(toys)) == len(mine.plan.stages)
    assert essence(mine.records) == essence(read_records(tmp_path / "other.jsonl"))


def test_artifact_found_corrupt_while_needed_is_computed_anew(tmp_path: Path, toys: Path) -> None:
    first = go(tmp_path)
    cell = next(c for c in first.plan.cells if c.stages["purified"] != c.stages["release"])
    store, keys = Store(tmp_path / "store"), first.plan.artifacts().keys
    path = store.get(keys[cell.stages["release"]])
    purified = store.get(keys[cell.stages["purified"]])
    assert path is not None and purified is not None
    shutil.rmtree(purified)
    picture = path / "samples" / "000000.png"
    picture.write_bytes(b"\0" * picture.stat().st_size)
    again = go(tmp_path, name="again")
    assert set(again.computed) == {cell.stages["release"], cell.stages["purified"]}
    assert essence(again.records) == essence(first.records)


def test_full_disk_ends_the_run_and_blames_no_cell(tmp_path: Path, toys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = FineTune.hand_over

    def full(stage: FineTune, job: Job, given: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FineTune, "hand_over", full)
    monkeypatch.setattr(
        Store, "unusable", lambda self, error=None: StoreError("the disk is full. What is finished is kept")
    )
    with pytest.raises(StoreError, match=r"disk is full.*What is finished is kept"):
        go(tmp_path)
    assert not (tmp_path / "r.jsonl").exists()
    monkeypatch.setattr(FineTune, "hand_over", real)
    report = go(tmp_path)
    assert not report.failed and len(report.computed) < len(report.plan.stages)


def test_interrupt_keeps_what_is_finished(tmp_path: Path, toys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    real = FineTune.hand_over

    def interrupted(stage: FineTune, job: Job, given: Path) -> None:
        calls.append(job.key)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(stage, job, given)

    monkeypatch.setattr(FineTune, "hand_over", interrupted)
    with pytest.raises(KeyboardInterrupt, match="2 of 8 cells are recorded"):
        run(
            toy_suite(),
            store=tmp_path / "store",
            results=tmp_path / "r.jsonl",
            scheduler="sync",
            isolated=False,
            console=Console(file=io.StringIO()),
        )
    assert len(read_records(tmp_path / "r.jsonl")) == 2
    assert not list((tmp_path / "store" / "partial").iterdir())
    assert len(go(tmp_path).records) == 8


def test_some_cells_alone_are_run_and_counted(tmp_path: Path, toys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(stage: FineTune, job: Job, given: Path) -> None:
        raise KeyboardInterrupt

    some = [cell.key[:12] for cell in go(tmp_path, store="other", name="other").plan.cells[2:4]]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match="0 of 2 cells are recorded"):
        patch.setattr(FineTune, "hand_over", interrupted)
        run(
            toy_suite(),
            store=tmp_path / "store",
            results=tmp_path / "r.jsonl",
            scheduler="sync",
            isolated=False,
            console=Console(file=io.StringIO()),
            only=some,
        )
    report = go(tmp_path, only=some)
    assert [r.cell[:12] for r in report.records] == some == [r.cell[:12] for r in read_records(tmp_path / "r.jsonl")]
    assert Counter(report.plan.stages[name].kind for name in report.computed)["fine-tuned"] == 2
    with pytest.raises(UsageError, match=r"suite 'toy' has no cell 'zz': .*field `cell`.*`arena plan toy --why`"):
        go(tmp_path, only=[*some, "zz"])
    with pytest.raises(UsageError, match=r"the name of a cell of suite 'toy' is empty: .*field `cell`"):
        go(tmp_path, only=[*some, ""])


def test_first_rows_come_early(tmp_path: Path, toys: Path) -> None:
    report = go(tmp_path)
    kinds = [report.plan.stages[name].kind for name in report.computed]
    assert kinds.index("scored") < len(kinds) / 2
    recorded = [r.cell for r in read_records(report.results)]
    assert recorded[:4] == [c.key for c in report.plan.cells[:4]]  # the whole row of the first defense


def test_torn_last_line_is_made_again(tmp_path: Path, toys: Path) -> None:
    first = go(tmp_path)
    first.results.write_bytes(first.results.read_bytes()[:-40])
    again = go(tmp_path)
    assert again.computed == () and len(read_records(again.results)) == 8
    append_record(again.results, again.records[0])
    assert len(go(tmp_path).records) == 8


def test_everything_cached_starts_no_workers(tmp_path: Path, toys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go(tmp_path)

    def refuse(*args: Any) -> None:
        raise AssertionError("a pool was opened")

    import arena.engine.pools

    monkeypatch.setattr(arena.engine.pools, "open_pool", refuse)
    assert go(tmp_path, scheduler="processes").computed == ()
