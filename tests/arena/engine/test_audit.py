"""An entry that knows the public data is found out on data that nobody knew; an honest one is not blamed."""

from __future__ import annotations

import io
import itertools
import json
import secrets as randomness
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from learner import answer, learn
from rich.console import Console
from suites import toy_suite
from typer.testing import CliRunner

import arena.engine.audit
from arena.cli.app import app
from arena.engine import audit as engine
from arena.engine.audit import Report, audit
from arena.engine.execute import run
from arena.engine.job import Desk
from arena.engine.stages import FineTune, Score
from arena.errors import ArenaError, UsageError
from arena.plugins.registry import Registry
from arena.records.audits import AUDITS, commit, read, seeds_of
from arena.records.files import read_records
from arena.suites.schema import Suite, digest

QUIET = Console(file=io.StringIO())
DOUBTFUL = Path(__file__).parents[2] / "doubtful"
SECRET = 20_260_514


@pytest.fixture(autouse=True)
def doubtful(toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second package of plugins is installed, and a toy learner for its pictures, in this process alone."""
    monkeypatch.syspath_prepend(str(DOUBTFUL))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(FineTune, "run", learn)
    monkeypatch.setattr(Score, "run", answer)
    salts = itertools.count()
    monkeypatch.setattr(randomness, "token_hex", lambda size: f"{next(salts):0{2 * size}x}")


def suite(**changes: Any) -> Suite:
    fields: dict[str, Any] = {
        "id": "doubtful",
        "datasets": [{"id": "shaded", "train": 40, "test": 60}],
        "defenses": ["none", "random", "flatten"],
        "attacks": ["none"],
        "seeds": [0, 1, 2],
    }
    return toy_suite(**fields | changes)


SMALL: dict[str, Any] = {"datasets": [{"id": "shaded", "train": 16, "test": 12}], "seeds": [0, 1]}
"""For what has nothing to do with verdicts."""

_RECORDS: dict[str, bytes] = {}


def published(**changes: Any) -> Suite:
    """A suite with its public records, which are computed once."""
    made, results = suite(**changes), Path("results/r.jsonl")
    if (known := digest(made)) not in _RECORDS:
        done = run(made, store="store", results=results, scheduler="sync", isolated=False, console=QUIET)
        assert not done.failed
        _RECORDS[known] = results.read_bytes()
    results.parent.mkdir(exist_ok=True)
    results.write_bytes(_RECORDS[known])
    return made


def audited(entry: str, made: Suite, **options: Any) -> Report:
    options = {"secret": SECRET, **options}
    return audit(entry, made, Registry(), Path("results/r.jsonl"), QUIET, isolated=False, **options)


def verdicts(report: Report) -> dict[tuple[str, str, str], str]:
    assert report.revealed is not None
    return {(r.role, r.place.defense, r.place.attack): r.verdict for r in report.revealed.results}


# Verdicts


@pytest.mark.parametrize("entry", ["flatten", "random"])
def test_an_honest_defense_does_in_secret_what_it_does_in_public(entry: str) -> None:
    report = audited(entry, published())
    assert report.verdict == "agrees" and report.revealed is not None
    found = verdicts(report)
    assert found[("entry", entry, "none")] == "agrees"
    assert (("control", "random", "none") in found) == (entry == "flatten")
    row = report.revealed.results[0]
    assert row.public is not None and row.secret is not None and row.low is not None and row.high is not None
    assert row.difference == pytest.approx(row.secret.effect - row.public.effect) and row.low <= 0 <= row.high
    assert len(row.secret.seeds) == len(row.public.seeds) == 3
    if entry == "flatten":
        assert row.public.effect > 0.2 and row.secret.effect > 0.2
    assert report.revealed.notes == [] and report.revealed.reproduced == []


def test_a_defense_that_remembers_the_public_samples_is_found_out() -> None:
    report = audited("remember", published(defenses=["none", "random", "remember"]))
    assert report.verdict == "differs" and report.revealed is not None
    assert verdicts(report) == {("entry", "remember", "none"): "differs", ("control", "random", "none"): "agrees"}
    row = report.revealed.results[0]
    assert row.public is not None and row.secret is not None and row.high is not None
    assert row.public.effect > 0.2 and row.secret.effect < 0.1 and row.high < 0


@pytest.fixture
def attacked() -> Suite:
    return published(attacks=["none", "crispen", "regenerate", "search", "give-up"], defenses=["none", "flatten"])


def test_attacks_that_draw_the_public_data_again_are_found_out_and_an_honest_one_is_not(attacked: Suite) -> None:
    public = {(r.defense.id, r.attack.id, r.seed): r.outcome for r in read_records(Path("results/r.jsonl"))}
    for attack in ("regenerate", "search", "give-up"):
        for seed in range(3):
            assert public["flatten", attack, seed] == public["none", "none", seed], "all is given back, in public"
    honest = audited("crispen", attacked)
    assert honest.verdict == "agrees" and honest.revealed is not None
    (counted, *_) = honest.revealed.reproduced
    assert counted.samples == 120 and counted.public == 0
    seeking = audited("search", attacked, draws=2)
    assert seeking.verdict == "differs"
    assert verdicts(seeking)["entry", "flatten", "search"] == "differs"
    assert verdicts(seeking)["control", "flatten", "none"] == "agrees"
    raising = audited("give-up", attacked, draws=2)
    assert raising.verdict == "differs" and raising.revealed is not None
    assert "it fails on 2 of 2 secret draws" in raising.revealed.results[0].why
    assert "these data are not known" in raising.revealed.results[0].why
    blind = audited("regenerate", attacked, draws=2)
    assert blind.verdict == "differs" and blind.revealed is not None
    assert all(found.public == found.samples == 80 for found in blind.revealed.reproduced)
    assert len(blind.revealed.reproduced) == 2


def test_places_and_draws_are_as_many_as_asked_for() -> None:
    made = published(**SMALL | {"attacks": ["none", "crispen", "regenerate"], "defenses": ["none", "flatten"]})
    report = audited("flatten", made, count=2)
    assert report.committed is not None and len(report.committed.places) == 2
    assert {place.defense for place in report.committed.places} == {"flatten"}
    more = audited("crispen", made, count=1, draws=4)
    assert more.committed is not None and more.revealed is not None
    assert len(more.committed.places) == 1 and more.committed.draws == 4 == len(more.revealed.seeds)
    counts = [(len(r.public.seeds), len(r.secret.seeds)) for r in more.revealed.results if r.public and r.secret]
    assert counts and set(counts) == {(2, 4)}


def test_a_dataset_that_ignores_its_seed_cannot_be_audited() -> None:
    report = audited("flatten", published(**SMALL | {"datasets": [{"id": "stubborn", "train": 16, "test": 12}]}))
    assert report.verdict == "undecided" and report.revealed is not None
    assert "public samples whatever the seed" in report.revealed.results[0].why
    assert "56 of 56 samples of the secret draws of stubborn are public as well" in report.revealed.notes


def test_a_failing_control_blames_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    made = published(**SMALL)
    monkeypatch.setattr(Score, "run", broken)
    report = audited("flatten", made)
    assert report.verdict == "undecided" and report.revealed is not None
    assert "fewer than two draws are done" in report.revealed.results[0].why


def broken(stage: Score, desk: Desk) -> None:
    raise ValueError("the scorer is broken")


def test_too_little_to_judge_by_is_said_and_commits_to_nothing() -> None:
    report = audited("flatten", suite())
    assert report.verdict == "undecided" and report.revealed is None
    assert report.missing[0].startswith(
        "0 of 3 seeds of shaded · toy-model · toy-recipe · flatten · none have a record"
    )
    assert "`arena run doubtful`" in report.missing[0] and not report.file.exists()
    one = audited("flatten", suite(seeds=[0]))
    assert one.verdict == "undecided" and "an interval takes two" in one.missing[0]


# The commitment


def test_the_commitment_is_written_before_anything_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    made = published(**SMALL)

    def stopped(*arguments: Any, **named: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(engine, "compute", stopped)
        audited("flatten", made)
    file = Path("results") / AUDITS
    text = file.read_text(encoding="utf-8")
    assert text.count("\n") == 1 and json.loads(text)["status"] == "committed"
    assert str(SECRET) not in text
    (open_,) = read(file)
    assert open_.revealed is None and open_.committed.entry.label == "flatten"
    assert [place.attack for place in open_.committed.places] == ["none"]
    other = audited("random", made)
    assert other.committed is not None and other.committed.commitment != open_.committed.commitment
    again = audited("flatten", made, secret=None)
    assert again.committed == open_.committed and again.revealed is not None
    assert again.revealed.secret == str(SECRET), "the audit that was interrupted went on, whatever was to be drawn now"
    assert [a.revealed is not None for a in read(file)] == [True, True]
    assert not list(Path("cache").rglob("secret.json"))


def test_a_drawn_secret_is_another_every_time() -> None:
    made = published(**SMALL)
    secrets = {audited("random", made, secret=None).revealed.secret for _ in range(2)}  # type: ignore[union-attr]
    assert len(secrets) == 2 and all(int(secret) > 2**64 for secret in secrets)


def test_what_does_not_belong_to_its_commitment_is_named() -> None:
    made = published(**SMALL)
    audited("random", made)
    file = Path("results") / AUDITS
    first, second = file.read_text(encoding="utf-8").splitlines()
    (known,) = read(file)
    assert known.revealed is not None
    assert known.committed.commitment == commit(SECRET, known.revealed.salt)
    assert known.revealed.seeds == seeds_of(SECRET, known.revealed.salt, 2)

    def told(*lines: Any) -> None:
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        file.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")

    line = json.loads(second)
    for changed, problem in (
        ({"secret": "5"}, "the secret that it reveals is not the one"),
        ({"salt": "1" * 32}, "the secret that it reveals is not the one"),
        ({"commitment": "0" * 64}, "nothing before it commits to 000000000000"),
        ({"seeds": line["seeds"][::-1]}, "its seeds do not follow from the secret"),
        ({"results": []}, "its results are not of what"),
    ):
        told(first, line | changed)
        with pytest.raises(ArenaError, match=f"audits.jsonl, line 2: {problem}"):
            read(file)
    told(first, second, second)
    with pytest.raises(ArenaError, match=r"line 3: the secret of .* was revealed before"):
        read(file)
    told(first, "{}")
    with pytest.raises(ArenaError, match="line 2: "):
        read(file)
    file.write_text(first + "\n" + second[:40], encoding="utf-8")  # a writer was killed
    assert [a.revealed for a in read(file)] == [None]


def test_a_secret_that_is_a_seed_of_a_suite_is_refused() -> None:
    made = published(**SMALL)
    for secret in (0, 7):  # of this suite, and of a shipped dataset
        with pytest.raises(UsageError, match=f"{secret} is a seed of suite .*: give another, or none"):
            audited("flatten", made, secret=secret)


def test_an_entry_that_is_not_there_is_refused() -> None:
    jpegs: list[Any] = [{"id": "toy-invert", "label": "one"}, {"id": "toy-invert", "label": "two"}]
    made = suite(attacks=["none", *jpegs])
    with pytest.raises(UsageError, match="no defense or attack 'flaten'; did you mean 'flatten'"):
        audited("flaten", made)
    with pytest.raises(UsageError, match="'none' is the control"):
        audited("none", made)
    with pytest.raises(UsageError, match=r"several entries 'toy-invert' \(attack 'one', attack 'two'\)"):
        audited("toy-invert", made)


# The command


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(engine, "audit", partial(arena.engine.audit.audit, isolated=False))
    Path("doubtful.yaml").write_text(
        published(defenses=["none", "random", "flatten", "remember"]).model_dump_json(), encoding="utf-8"
    )

    def invoke(*words: str) -> Result:
        return CliRunner().invoke(app, ["audit", *words], env={"COLUMNS": "300"})

    return invoke


def test_the_command_shows_effects_and_exits_by_its_verdict(command: Any) -> None:
    options = ["--suite", "doubtful.yaml", "--results", "results/r.jsonl"]
    honest = command("flatten", *options, "--secret-seed", "99")
    assert honest.exit_code == 0, honest.output
    assert "agrees: defense flatten does on secret data what it does on the public ones" in honest.stdout
    assert "(control)" in honest.stdout and f"written to results/{AUDITS}" in honest.stdout
    cheat = command("remember", *options, "--secret-seed", "98")
    assert cheat.exit_code == 1 and "differs: defense remember" in cheat.stdout
    lacking = command("flatten", "--suite", "doubtful.yaml", "--results", "results/other.jsonl")
    assert lacking.exit_code == 3 and "missing: 0 of 3 seeds of" in lacking.stdout
    checked = command("--check", f"results/{AUDITS}")
    assert checked.exit_code == 0 and "2 audits, 0 of them without a result" in checked.stdout
    assert "defense remember in doubtful: differs; the secret is the one committed to" in checked.stdout


def test_the_command_refuses_what_makes_no_sense(command: Any) -> None:
    for words, problem in (
        ([], "name an entry and its suite"),
        (["flatten"], "name an entry and its suite"),
        (["flatten", "--check", "a"], "--check reads a file and runs nothing"),
        (["--check", "a"], "there is no file a"),
    ):
        done = command(*words)
        assert isinstance(done.exception, UsageError) and problem in str(done.exception)
