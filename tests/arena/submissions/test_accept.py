"""From a bundle to a board: it verifies elsewhere, forgeries are found, and a stronger attack lowers an entry."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from submission_tools import command, forged, published, snapshot, submit, succeed

from arena.errors import UsageError
from arena.records.schema import Outcome
from arena.records.submissions import SUBMISSIONS, read, records_file

RESULTS = Path("results")
FILES = ("s.md", "s.html", "s.csv", "s.parquet")


def page(suffix: str = ".md") -> str:
    return RESULTS.joinpath(f"s{suffix}").read_text(encoding="utf-8").replace("\\", "")


def accept(bundle: Path, share: str = "0.3") -> str:
    succeed("verify", str(bundle), "--share", share, "--seed", "1")
    return succeed("accept-submission", str(bundle), "--suite", "s.yaml", "--records", "results")


def refused(*words: str) -> str:
    """What a command says that exits with 2, and changes no file."""
    before = snapshot(Path())
    done = command(*words)
    assert isinstance(done.exception, UsageError), done.output
    assert snapshot(Path()) == before
    return str(done.exception)


def test_a_bundle_made_here_verifies_elsewhere(
    board: Path, toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = submit("regenerate", "--against", "flatten")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    toys.write_text("", encoding="utf-8")
    said = succeed("verify", str(board / bundle), "--share", "0.3", "--out", "seen.json")
    assert "passed: 3 of 3 cells of attack regenerate" in said and "of 9; written to seen.json" in said
    assert "fine-tuned" in toys.read_text(encoding="utf-8"), "in a store that has nothing of it"
    assert [path.name for path in elsewhere.iterdir()] == ["seen.json"]


def test_a_stronger_attack_lowers_an_entry_and_the_board_says_whose_it_is() -> None:
    before = {name: RESULTS.joinpath(name).read_bytes() for name in (*FILES, "s.jsonl")}
    assert "flatten denies" in page() and "Ann" not in page()
    said = accept(submit("regenerate", "--against", "flatten"))
    assert "flatten on shaded, toy-model: robust protection" in said and "best attack regenerate" in said
    assert RESULTS.joinpath("s.jsonl").read_bytes() == before["s.jsonl"], "the suite's own records stay as they are"
    (line,) = read(RESULTS)
    (change,) = line.changes
    assert change.before is not None and change.before.value is not None and change.after.value is not None
    assert change.before.value > 0.3 > 0.1 > change.after.value and change.attack == "regenerate"
    for suffix, begins in ((".md", "| "), (".html", "<td>")):
        text = page(suffix)
        assert "regenerate by Ann Example, toy-recipe" in text and "3 of 9 cells" in text
        assert "History of robust protection" in text and "attack regenerate by Ann Example" in text
        for number in (change.before, change.after):
            assert f"{begins}{100 * number.value:.1f} (".replace("-", "\N{MINUS SIGN}") in text
    board = succeed("board", "s.yaml")
    assert "regenerate by Ann Example" in board and "withheld" not in page()


def test_an_attack_against_one_entry_withholds_and_improves_nobody_else() -> None:
    accept(submit("remember"))
    before = ranking()
    accept(submit("regenerate", "--against", "flatten", out="a.zip"))
    after = ranking()
    assert before.keys() == after.keys() == {"none", "random", "flatten", "remember"}
    for name in ("remember", "none"):
        assert after[name] == before[name], name
    assert after["flatten"] < before["flatten"] and after["random"] <= before["random"]
    assert "| remember | no surrogate | " in page() and "not run" in page()
    assert "among 2 attacks, and on some entries also among attacks that were submitted" in page()


def ranking() -> dict[str, float]:
    """Robust protection by defense."""
    import pandas as pd

    cells = pd.read_parquet(RESULTS / "s.parquet")
    assert cells["robust_protection"].notna().all(), "nothing is withheld"
    return dict(cells.groupby("defense")["robust_protection"].first())


def test_a_defense_is_ranked_among_the_suites_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = accept(submit("remember"))
    assert "remember on shaded, toy-model: robust protection" in said and "(new)" in said
    assert "| remember | no surrogate | " in page() and "defense remember | Ann Example | 6 cells | 2 of 6" in page()
    assert "6 cells" in page() and "https://example.org/doubtful at ccc" in page()
    assert "| Cells | 24, of which 0 failed |" in page()


def test_an_attack_on_somebody_elses_submission() -> None:
    accept(submit("remember"))
    bundle = Path("r.zip")
    succeed(
        *("submit", "s.yaml", "--entry", "regenerate", "--against", "remember", "--statement", "said.yaml"),
        *("--repository", "https://example.org/r", "--commit", "d" * 40, "--out", str(bundle)),
    )
    accept(bundle)
    changed = {(change.defense, change.attack) for change in read(RESULTS)[1].changes}
    assert changed == {("remember", "regenerate")}


def test_boards_need_no_submitted_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    accept(submit("regenerate", "--against", "flatten"))
    shown = page()
    from arena.plugins.registry import Registry

    real = Registry.entries
    kept = Registry.get

    def get(self: Registry, kind: Any, id: str) -> Any:
        if id == "regenerate":
            raise UsageError("not installed")
        return kept(self, kind, id)

    monkeypatch.setattr(Registry, "get", get)
    monkeypatch.setattr(Registry, "entries", lambda self, kind: [e for e in real(self, kind) if e.id != "regenerate"])
    succeed("board", "s.yaml")
    assert page() == shown
    assert succeed("run", "s.yaml", "--store", "store", "--scheduler", "sync") and page() == shown


def test_a_suite_that_has_changed_shows_only_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    accept(submit("regenerate", "--against", "flatten"))
    suite = json.loads(Path("s.yaml").read_text(encoding="utf-8"))
    Path("s.yaml").write_text(json.dumps(suite | {"title": "Another", "seeds": [0, 1]}), encoding="utf-8")
    succeed("board", "s.yaml")
    assert "regenerate by Ann Example, toy-recipe" in page(), "all seeds that there are now are done"
    Path("s.yaml").write_text(json.dumps(suite | {"seeds": [0, 1, 2, 3]}), encoding="utf-8")
    succeed("board", "s.yaml")
    assert "none of its cells: the suite has changed" in page() and "regenerate by Ann Example, toy" not in page()


# Forgeries


def test_a_forged_record_is_found() -> None:
    """Consistently: its accuracy is the mean of its items, its digest that of the manifest."""

    def better(record: dict[str, Any]) -> None:
        record["outcome"] = Outcome.pack(np.zeros(60, dtype=bool)).model_dump()

    bundle = submit("remember")
    forged(bundle, better)
    done = command("verify", str(bundle), "--share", "0.5", "--seed", "0")
    assert done.exit_code == 1 and "did not pass: 0 of 3 cells" in done.output and "contents differ" in done.output
    said = refused("accept-submission", str(bundle), "--suite", "s.yaml", "--records", "results")
    assert "did not pass (0 of 3 cells agree)" in said


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("stealth", 99.0, "psnr is"),
        ("zero_shot", Outcome.pack(np.ones(60, dtype=bool)).model_dump(), "other zero-shot answers"),
    ],
)
def test_what_is_forged_beside_the_outcome_is_found(field: str, value: Any, problem: str) -> None:
    def change(record: dict[str, Any]) -> None:
        record[field] = {**record[field], "psnr": value} if field == "stealth" else value

    bundle = submit("remember")
    forged(bundle, change)
    done = command("verify", str(bundle), "--share", "0.2", "--seed", "0")
    assert done.exit_code == 1 and problem in done.output


def test_zero_shot_answers_of_a_submission_count_on_no_board() -> None:
    bundle = submit("remember")
    accept(bundle)
    honest = page()
    path = records_file(RESULTS, "s")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        line["zero_shot"] = Outcome.pack(np.ones(60, dtype=bool)).model_dump()
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    succeed("board", "s.yaml")
    assert page() == honest


# What is not accepted


def test_only_what_was_verified_is_accepted() -> None:
    bundle = submit("remember")
    words = ("accept-submission", str(bundle), "--suite", "s.yaml", "--records", "results")
    assert "b.zip.verified.json is not there" in refused(*words)
    succeed("verify", str(bundle), "--share", "0.1")
    forged(bundle, lambda record: None, created="2020-01-01T00:00:00+00:00")
    assert "is of another bundle" in refused(*words)
    Path("b.zip.verified.json").write_text("{}", encoding="utf-8")
    assert "b.zip.verified.json: bundle: Field required" in refused(*words)


def test_a_bundle_is_accepted_once() -> None:
    bundle = submit("remember")
    accept(bundle)
    words = ("accept-submission", str(bundle), "--suite", "s.yaml", "--records", "results")
    assert "was accepted before" in refused(*words)
    forged(bundle, lambda record: None, created="2020-01-01T00:00:00+00:00")
    succeed("verify", str(bundle), "--share", "0.1")
    assert "no cell beyond that" in refused(*words)


def test_what_was_interrupted_is_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from arena.records import submissions

    bundle, before = submit("remember"), page()
    succeed("verify", str(bundle), "--share", "0.1")
    words = ("accept-submission", str(bundle), "--suite", "s.yaml", "--records", "results")

    def stopped(*arguments: Any) -> None:
        raise OSError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(submissions, "append", stopped)
        assert command(*words).exit_code != 0
    assert records_file(RESULTS, "s").exists() and succeed("board", "s.yaml") and page() == before
    assert "accepted defense remember by Ann Example: 6 cells" in succeed(*words)
    assert len(records_file(RESULTS, "s").read_text(encoding="utf-8").splitlines()) == 6


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"package": "thief"}, "taken by package doubtful"),
        ({"source_digest": "5" * 64}, "version 1 is taken by other code"),
    ],
)
def test_an_id_that_is_taken_is_refused(part: dict[str, str], message: str) -> None:
    accept(submit("remember"))
    bundle = submit("remember", "--label", "mine", out="c.zip")
    succeed("verify", str(bundle), "--share", "0.1")

    def taken(record: dict[str, Any]) -> None:
        record["defense"]["source_digest"] = part.get("source_digest", record["defense"]["source_digest"])

    manifest = json.loads(unpacked_manifest(bundle))
    manifest["entry"]["parts"][0] |= part
    forged(bundle, taken, entry=manifest["entry"])
    checked = json.loads(Path("c.zip.verified.json").read_text(encoding="utf-8"))
    from arena.submissions.bundle import read_bundle

    checked["bundle"] = read_bundle(bundle).digest
    Path("c.zip.verified.json").write_text(json.dumps(checked), encoding="utf-8")
    assert message in refused("accept-submission", str(bundle), "--suite", "s.yaml", "--records", "results")


def unpacked_manifest(bundle: Path) -> bytes:
    from submission_tools import unpacked

    return unpacked(bundle)["manifest.json"]


def test_a_label_that_is_taken_is_refused() -> None:
    accept(submit("remember", "--label", "mine"))
    bundle = submit("unsorted", "--label", "mine", out="c.zip")
    succeed("verify", str(bundle), "--share", "0.1")
    said = refused("accept-submission", str(bundle), "--suite", "s.yaml", "--records", "results")
    assert "the label 'mine' is taken by another defense (from Ann Example)" in said


def test_a_bundle_of_another_suite_is_refused() -> None:
    bundle = submit("remember")
    succeed("verify", str(bundle), "--share", "0.1")
    suite = json.loads(Path("s.yaml").read_text(encoding="utf-8"))
    Path("s.yaml").write_text(json.dumps(suite | {"seeds": [0]}), encoding="utf-8")
    said = refused("accept-submission", str(bundle), "--suite", "s.yaml", "--records", "results")
    assert "the bundle is of suite 's'" in said and "submit the entry to this one" in said
    assert not RESULTS.joinpath(SUBMISSIONS).exists()


def test_records_of_other_data_are_on_no_board() -> None:
    bundle = submit("remember")
    succeed("verify", str(bundle), "--share", "0.1")
    forged(bundle, lambda record: record["dataset"].update(samples="other"))
    checked = json.loads(Path("b.zip.verified.json").read_text(encoding="utf-8"))
    from arena.submissions.bundle import read_bundle

    Path("b.zip.verified.json").write_text(
        json.dumps(checked | {"bundle": read_bundle(bundle).digest}), encoding="utf-8"
    )
    said = refused("accept-submission", str(bundle), "--suite", "s.yaml", "--records", "results")
    assert "does not belong on this board" in said and "mixed dataset fingerprints" in said


def test_published_folders_are_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, board: Path) -> None:
    other = published(tmp_path / "other", monkeypatch)
    assert snapshot(other / "results") == snapshot(board / "results")


# Auditing


def test_an_entry_that_remembers_the_public_data_verifies_and_does_not_pass_its_audit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from arena.engine import audit

    monkeypatch.setattr(audit, "audit", partial(audit.audit, isolated=False))
    monkeypatch.setattr(audit.randomness, "token_hex", lambda size: "0" * 2 * size)
    bundle = submit("remember")
    succeed("verify", str(bundle), "--share", "0.2")
    before = snapshot(Path("results"))
    words = ("audit", "--bundle", str(bundle), "--results", "results/s.jsonl", "--secret-seed", "20260514")
    done = command(*words)
    assert done.exit_code == 1 and "defense remember does otherwise on secret data" in done.output, done.output
    assert snapshot(Path("results")) == before
    (folder,) = Path("build/audits").iterdir()
    assert {path.name for path in folder.iterdir() if path.suffix == ".jsonl"} == {"s.jsonl", "audits.jsonl"}
    done = command("audit", "remember", "--bundle", str(bundle))
    assert isinstance(done.exception, UsageError) and "leave out ENTRY and --suite" in str(done.exception)
