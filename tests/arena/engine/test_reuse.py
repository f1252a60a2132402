"""What is computed again and what is not: records that stand, cells of several suites, contents that are the same."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from suites import toy_suite
from typer.testing import CliRunner

import arena.engine.harvest
import arena.engine.pools
import arena.engine.stages.base
import arena.records.accept
from arena.cli.app import app
from arena.engine.apart import Bounds
from arena.engine.execute import RunReport, run
from arena.engine.pools import HerePool
from arena.errors import ArenaError, UsageError
from arena.plugins.registry import Entry
from arena.records.files import append_record, read_records
from arena.records.schema import Record
from arena.records.select import by_cell, latest


def go(tmp_path: Path, name: str = "r", store: str = "store", **changes: Any) -> RunReport:
    options = {k: changes.pop(k) for k in ("scheduler", "only", "force_failed") if k in changes}
    options = {"scheduler": "sync", **options}
    return run(
        toy_suite(**changes),
        store=tmp_path / store,
        results=tmp_path / f"{name}.jsonl",
        console=Console(file=io.StringIO()),
        **{"isolated": options["scheduler"] != "sync", **options},
    )


def computed(log: Path) -> Counter[str]:
    """How many stages of each kind were computed since the log was emptied."""
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    log.write_text("", encoding="utf-8")
    return Counter(line.split()[0] for line in lines)


@contextmanager
def source(id: str, digest: str) -> Iterator[None]:
    """While the source of a plugin, or of the engine, has another digest."""
    real = Entry.source_digest
    with pytest.MonkeyPatch.context() as patch:
        if id == "engine":
            for module in (arena.records.accept, arena.engine.harvest, arena.engine.stages.base):
                patch.setattr(module, "engine_digest", lambda: digest)
        else:
            patch.setattr(Entry, "source_digest", lambda e: digest if e.id == id else real(e))
        yield


# One cell, several suites


def test_a_cell_of_two_suites_is_one_record(tmp_path: Path, toys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "leaderboards" / "records").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    here = "leaderboards/records"
    first = go(Path(here), name="toy")
    assert sum(computed(toys).values()) > 0
    noise = {"id": "toy-noise", "label": "my noise"}
    other = {
        "id": "other",
        "defenses": ["none", noise],
        "attacks": [{"id": "none"}, {"id": "toy-invert", "label": "upside"}],
    }
    second = go(Path(here), name="other", store="another", **other)
    assert second.computed == () and not computed(toys)
    assert not Path(here, "other.jsonl").exists()
    assert [r.cell for r in second.records] == [r.cell for r in first.records]
    assert {r.suite.id for r in second.records} == {"other"} and {r.suite.id for r in first.records} == {"toy"}
    assert {r.defense.label for r in second.records} == {"none", "my noise"}
    assert {r.attack.label for r in second.records} == {"none", "upside"}
    Path("other.yaml").write_text(toy_suite(**other).model_dump_json(), encoding="utf-8")
    done = CliRunner().invoke(app, ["board", "other.yaml", "--out", "out"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    page = Path("out/other.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if "toy-noise" in line or "toy-invert" in line]
    assert [row.split(" | ")[:2] for row in rows] == [["| attack", "upside"], ["| defense", "my noise"]]
    assert page.count("my noise") > 3 and page.count("upside") > 1  # beside the table of plugins
    more = go(Path(here), name="other", store="another", **{**other, "seeds": [0, 1, 2]})
    assert len(read_records(Path(here, "other.jsonl"))) == 4 == len(more.records) - 8


def test_records_of_another_machine_are_merged_by_appending_lines(tmp_path: Path, toys: Path) -> None:
    go(tmp_path, name="here", store="a", seeds=[0])
    there = go(tmp_path, name="there", store="b", seeds=[1])
    with (tmp_path / "here.jsonl").open("ab") as file:
        file.write((tmp_path / "there.jsonl").read_bytes())
    computed(toys)
    both = go(tmp_path, name="here", store="c")
    assert both.computed == () and not computed(toys) and len(both.records) == 8
    assert [r for r in both.records if r.seed == 1] == [
        r.model_copy(update={"suite": both.records[0].suite}) for r in there.records
    ]


def made(tmp_path: Path) -> Record:
    return go(tmp_path, seeds=[0], defenses=["none"], attacks=["none"]).records[0]


def test_which_record_of_a_cell_counts(tmp_path: Path, toys: Path) -> None:
    done = made(tmp_path).model_copy(update={"created": "2026-01-02T00:00:00+00:00"})

    def change(created: int, **fields: Any) -> Record:
        return done.model_copy(update={"created": f"2026-01-0{created}T00:00:00+00:00", **fields})

    failure = {"stage": "s", "error": "e", "traceback": "t"}
    failed = Record.model_validate(change(9).model_dump() | {"status": "failed", "outcome": None, "failure": failure})
    other_code = change(3, engine_digest="other")
    earlier_code = change(1, engine_digest="other")
    again, before = change(5), change(1)
    plugin = change(4, recipe=done.recipe.model_copy(update={"source_digest": "other"}))
    for records, winner in (
        ([done, failed], done),
        ([failed, done], done),
        ([done, other_code], other_code),
        ([other_code, done], other_code),
        ([done, earlier_code], done),
        ([earlier_code, done], done),
        ([done, plugin], plugin),
        ([done, again], done),
        ([again, done], done),
        ([done, before], before),
        ([failed], failed),
    ):
        assert latest(records) == [winner]
    second = made(tmp_path).model_copy(update={"cell": "f" * 64})
    assert list(by_cell([second, done, second, again])) == ["f" * 64, done.cell]


# Records that do not hold any more


@pytest.mark.parametrize(
    ("id", "stale", "kinds"),
    [
        ("toy-noise", "toy-noise", {"release"}),
        ("toy-invert", "toy-invert", {"purified"}),
        ("toy-recipe", "", {"fine-tuned", "scored"}),
        ("engine", "", {"data", "release", "purified", "fine-tuned", "scored", "zero-shot", "stealth"}),
    ],
)
def test_another_source_makes_its_cells_stale(tmp_path: Path, toys: Path, id: str, stale: str, kinds: set[str]) -> None:
    first = go(tmp_path)
    computed(toys)
    lines = (tmp_path / "r.jsonl").read_bytes().splitlines()
    with source(id, "0" * 64):
        again = go(tmp_path)
        assert set(computed(toys)) == kinds
        redone = (tmp_path / "r.jsonl").read_bytes().splitlines()[len(lines) :]
        expected = {r.cell for r in first.records if stale in (r.defense.id, r.attack.id, "")}
        assert {json.loads(line)["cell"] for line in redone} == expected and len(redone) == len(expected)
        assert len(expected) == (4 if stale else 8)
        assert [r.outcome for r in again.records] == [r.outcome for r in first.records]
        assert go(tmp_path).computed == ()
    assert len((tmp_path / "r.jsonl").read_bytes().splitlines()) == len(lines) + len(redone)


def accepted(tmp_path: Path, plugin: str, *digests: str, **changes: Any) -> None:
    line = {
        "plugin": plugin,
        "version": "1",
        "digests": digests,
        "proof": {"cells": ["c"], "against": "the records", "machine": "m", "packages": {}},
        "created": "2026-01-01T00:00:00+00:00",
        **changes,
    }
    with (tmp_path / "accepted.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


@pytest.mark.parametrize("id", ["toy-noise", "engine"])
def test_what_was_accepted_as_alike_holds(tmp_path: Path, toys: Path, id: str) -> None:
    first = go(tmp_path)
    record = next(r for r in first.records if r.defense.id == "toy-noise")
    then = record.engine_digest if id == "engine" else record.defense.source_digest
    name = "engine" if id == "engine" else f"defense {id}"
    lines = (tmp_path / "r.jsonl").read_bytes()
    accepted(tmp_path, name, "one" * 20, then)
    accepted(tmp_path, "defense toy-fixed" if id == "engine" else "attack toy-noise", then, "two" * 20)
    computed(toys)
    with source(id, "one" * 20):
        assert go(tmp_path).computed == () and (tmp_path / "r.jsonl").read_bytes() == lines
    accepted(tmp_path, name, "three" * 12, "two" * 20)
    accepted(tmp_path, name, "two" * 20, "one" * 20)
    with source(id, "three" * 12):  # step by step
        assert go(tmp_path, store="empty").computed == () and not computed(toys)
    accepted(tmp_path, "defense toy-fixed" if id == "engine" else "attack toy-noise", then, "four" * 15)
    with source(id, "four" * 15):  # which was accepted of another plugin alone
        assert len(read_records(tmp_path / "r.jsonl")) == 8
        go(tmp_path, only=[record.cell])
        assert len(read_records(tmp_path / "r.jsonl")) == 9


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"proof": {"cells": [], "against": "a", "machine": "m", "packages": {}}}, "proof.cells"),
        ({"digests": ["one"]}, "digests"),
        ({"proof": None}, "proof"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_what_was_accepted_without_proof_is_refused(
    tmp_path: Path, toys: Path, change: dict[str, Any], said: str
) -> None:
    accepted(tmp_path, "defense toy-noise", "a", "b")
    accepted(tmp_path, "defense toy-noise", "b", "c", **change)
    with pytest.raises(ArenaError, match=rf"accepted\.jsonl, line 2: {said}: .*remove the line"):
        go(tmp_path)


WITHDRAWN = "- {id: toy-noise, version: '1', reason: it leaked answers}\n"


def test_a_suite_with_a_withdrawn_plugin_is_refused(tmp_path: Path, toys: Path) -> None:
    (tmp_path / "withdrawn.yaml").write_text(WITHDRAWN, encoding="utf-8")
    with pytest.raises(UsageError, match=r"defense 'toy-noise' version '?1'? was withdrawn \(it leaked answers\)"):
        go(tmp_path)
    assert not toys.exists()
    assert len(go(tmp_path, defenses=["none", "toy-fixed"]).records) == 8
    for other in ("version: '2'", "version: '1', kind: attack"):
        (tmp_path / "withdrawn.yaml").write_text(WITHDRAWN.replace("version: '1'", other), encoding="utf-8")
        assert len(go(tmp_path).records) == 8


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "- {id: toy-noise, version: '1'}\n",
            r"withdrawn\.yaml, line 1.*reason.*an entry has kind, id, version and reason",
        ),
        (f"{WITHDRAWN}- {{id: x, version: 1, reason: ''}}\n", r"withdrawn\.yaml, line 2"),
        ("id: toy-noise\n", r"withdrawn\.yaml"),
    ],
)
def test_a_withdrawal_without_reason_is_refused(tmp_path: Path, toys: Path, text: str, said: str) -> None:
    (tmp_path / "withdrawn.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=said):
        go(tmp_path)


def test_a_board_leaves_out_what_was_withdrawn_and_names_it(
    tmp_path: Path, toys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    go(tmp_path, name="toy", defenses=["none", "toy-noise", "toy-fixed"])

    def page() -> str:
        done = CliRunner().invoke(app, ["board", "toy.jsonl"], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return Path("toy.md").read_text(encoding="utf-8")

    assert "withdrawn" not in page().lower() and "toy-noise" in page()
    Path("withdrawn.yaml").write_text(WITHDRAWN, encoding="utf-8")
    without = page()
    rows = [line for line in without.splitlines() if line.startswith("|")]
    assert any("toy-fixed" in row for row in rows)
    assert all("it leaked answers" in row for row in rows if "toy-noise" in row)
    assert "it leaked answers" in without and "toy-noise" in without
    assert len(read_records(Path("toy.jsonl"))) == 12


# Contents that turn out the same


def test_an_attack_that_changes_nothing_trains_nothing_again(tmp_path: Path, toys: Path) -> None:
    alone = go(tmp_path, attacks=["none"])
    trained = computed(toys)["fine-tuned"]
    assert trained == len(alone.records) == 4
    again = go(tmp_path, attacks=["none", "toy-keep"])
    # The clean release, and noise of each seed; and of the clean questions, whether their meaning is left.
    assert computed(toys) == {"purified": 3, "zero-shot": 1, "meaning": 1}
    assert len(again.records) == 8 and not again.failed
    for keep in (r for r in again.records if r.attack.id == "toy-keep"):
        none = next(r for r in alone.records if (r.defense.id, r.seed) == (keep.defense.id, keep.seed))
        assert (keep.outcome, keep.lineage.checkpoint) == (none.outcome, none.lineage.checkpoint)
        assert keep.cell != none.cell and keep.cost.purify is not None
    changed = go(tmp_path, attacks=["none", "toy-invert"])
    assert computed(toys)["fine-tuned"] == 4 and not changed.failed


def test_stages_that_turn_out_the_same_while_both_are_open_are_computed_once(
    tmp_path: Path, toys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several at a time: neither finds what the other left, since both could start at once."""
    offered: list[list[str]] = []

    class Wide(HerePool):
        slots = 8

        def finished(self) -> Any:
            offered.append([task.key for task in self._waiting])
            return super().finished()

    monkeypatch.setattr(arena.engine.pools, "open_pool", lambda store, *rest: Wide(store, Bounds(), isolated=False))
    suite = {"defenses": ["none"], "attacks": ["none", "toy-keep", "toy-keep-too"], "seeds": [0]}
    report = go(tmp_path, scheduler="processes", **suite)
    found = computed(toys)
    assert len(report.records) == 3 and not report.failed
    assert (found["purified"], found["fine-tuned"], found["scored"]) == (2, 1, 1)
    assert len({r.lineage.checkpoint for r in report.records}) == 1
    assert max(Counter(key for keys in offered for key in keys).values()) == 1


def test_a_release_that_says_other_things_of_the_same_samples_trains_nothing_again(tmp_path: Path, toys: Path) -> None:
    def remarks(*values: float) -> list[Any]:
        return ["none", *({"id": "toy-remark", "config": {"remark": v}} for v in values)]

    one = go(tmp_path, defenses=remarks(1.0))
    assert (computed(toys)["fine-tuned"], len(one.records)) == (2 * 2, 8)
    two = go(tmp_path, defenses=remarks(1.0, 2.0))
    assert set(computed(toys)) == {"release"}
    said = {r.defense.label: r.diagnostics for r in two.records}
    assert said["toy-remark(remark=1.0)"] == {"remark": 1.0} and said["toy-remark(remark=2.0)"] == {"remark": 2.0}
    assert len({r.lineage.release for r in two.records}) == 3  # all of the artifact
    assert len({(r.lineage.checkpoint, r.seed, r.attack.id) for r in two.records}) == 4


# Why


def planned(tmp_path: Path, *options: str, store: str = "store", **changes: Any) -> str:
    (tmp_path / "toy.yaml").write_text(toy_suite(**changes).model_dump_json(), encoding="utf-8")
    words = [str(tmp_path / "toy.yaml"), "--store", str(tmp_path / store), "--results", str(tmp_path / "r.jsonl")]
    done = CliRunner().invoke(app, ["plan", *options, *words], catch_exceptions=False, env={"COLUMNS": "300"})
    assert done.exit_code == 0, done.output
    return done.stdout


def why(tmp_path: Path, **changes: Any) -> str:
    return planned(tmp_path, "--why", **changes)


def counts(text: str) -> dict[str, list[str]]:
    """All, cached and to compute, by kind of stage, of what `arena plan` says."""
    rows = (row.split() for row in text.partition("to compute")[2].splitlines()[1:])
    return {row[0]: row[1:4] for row in rows if len(row) > 3 and all(count.isdigit() for count in row[1:4])}


def test_plan_says_why(tmp_path: Path, toys: Path) -> None:
    nothing = why(tmp_path)
    assert "0 of 8 cells have a record that holds" in nothing
    assert "8 cells: it has no record\n" in nothing
    assert "28 stages: the store has no answer to it\n" in nothing
    report = go(tmp_path)
    head, _, tail = why(tmp_path).partition("8 of 8 cells have a record that holds\n")
    assert tail == "" and [row.split()[1:4] for row in head.splitlines() if row.startswith("fine-tuned")] == [
        ["8", "8", "0"]
    ]

    with source("toy-noise", "5" * 64):
        text = why(tmp_path)
        assert "4 of 8 cells have a record that holds" in text
        then = next(r.defense.source_digest for r in report.records if r.defense.id == "toy-noise")
        stale = (
            f"4 cells: its record is stale: the source of defense toy-noise (was {then[:8]}, is 55555555) has changed"
        )
        assert stale in text and "`arena accept toy-noise` shows it" in text
        assert "2 stages: the source of defense toy-noise has changed\n" in text
        _, _, waits = text.partition("it waits for release toy-noise 8/255, seed 0\n")
        assert {line.split()[0] for line in waits.split(" stages: ")[0].splitlines()[:3]} == {
            "stealth",
            "purified",
            "fine-tuned",
        }
        assert "fine-tuned toy-recipe on none" not in text
    with source("engine", "6" * 64):
        text = why(tmp_path)
        assert "0 of 8 cells" in text and "28 stages: the engine's source has changed" in text

    lines = (tmp_path / "r.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "r.jsonl").write_bytes(b"".join(lines[1:]))
    text = why(tmp_path)
    gone = json.loads(lines[0])["cell"][:12]
    assert "7 of 8 cells have a record that holds" in text and text.count(": it has no record") == 1
    assert f"  {gone} " in text and not any(line.startswith("fine-tuned toy") for line in text.splitlines())
    append_record(tmp_path / "r.jsonl", report.records[0])
    assert "8 of 8 cells" in why(tmp_path)


def test_plan_counts_the_stages_of_cells_without_a_record_that_holds(tmp_path: Path, toys: Path) -> None:
    """Whether or not the store still has what the others were made from."""
    report = go(tmp_path)
    full = planned(tmp_path, store="empty")
    assert "8 of 8 cells have a record that holds" in full
    assert counts(full) == {kind: [every, "0", "0"] for kind, (every, _, _) in counts(full).items()}
    assert counts(full)["fine-tuned"] == ["8", "0", "0"]
    with source("toy-noise", "5" * 64):
        changed = planned(tmp_path, store="empty")
        assert "4 of 8 cells have a record that holds" in changed
        assert (counts(changed)["fine-tuned"], counts(changed)["scored"]) == (["8", "0", "4"], ["8", "0", "4"])
        assert counts(changed)["release"][2] == "2"  # of each seed; not that of the control
        assert counts(planned(tmp_path))["fine-tuned"] == ["8", "4", "4"]
    (tmp_path / "r.jsonl").unlink()
    nothing = planned(tmp_path, store="empty")
    assert "0 of 8 cells have a record that holds" in nothing
    assert counts(nothing) == {kind: [every, "0", every] for kind, (every, _, _) in counts(nothing).items()}
    assert counts(planned(tmp_path))["fine-tuned"] == ["8", "8", "0"] and not report.failed


def test_plan_refuses_what_run_refuses(tmp_path: Path, toys: Path) -> None:
    (tmp_path / "withdrawn.yaml").write_text(WITHDRAWN, encoding="utf-8")
    with pytest.raises(UsageError, match=r"defense 'toy-noise' version 1 was withdrawn \(it leaked answers\)"):
        planned(tmp_path)
    (tmp_path / "withdrawn.yaml").unlink()
    (tmp_path / "accepted.jsonl").write_text("\n{oops\n", encoding="utf-8")
    with pytest.raises(ArenaError, match=r"accepted\.jsonl, line 2: .*remove the line"):
        planned(tmp_path)


def test_plan_says_which_input_has_other_contents(tmp_path: Path, toys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A release of other bytes under the same question, as another machine may make one."""
    import toys as module

    go(tmp_path, attacks=["none"])
    with source("toy-noise", "5" * 64):
        monkeypatch.setattr(module.ToyNoise, "perturb", lambda self, samples, world: [s.image for s in samples])
        go(tmp_path, attacks=["none"], seeds=[0])
        text = why(tmp_path, attacks=["none"])
    assert text.count(": the source of defense toy-noise has changed") == 1


# What a running plugin says


def test_what_a_plugin_says_of_its_progress_is_shown(
    tmp_path: Path, toys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from arena.engine.progress import Display

    shown: list[str] = []
    monkeypatch.setattr(Display, "__call__", lambda self, done, note: shown.append(note))
    report = run(
        toy_suite(defenses=["none", "toy-talking"], attacks=["none"], seeds=[0]),
        store=tmp_path / "store",
        results=tmp_path / "r.jsonl",
        console=Console(file=io.StringIO()),
        scheduler="processes",
        workers=1,
    )
    assert not report.failed
    told = [text for text in shown if "release toy-talking" in text and "(round " in text]
    assert told, shown
    assert any(f"{step}0% (round {step})" in text for text in told for step in range(1, 9))
    assert "round" not in shown[-1]
