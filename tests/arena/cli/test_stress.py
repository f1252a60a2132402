"""`arena stress` from the command line, on toys: exit codes, files, what is computed and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from stress_toys import write_suite

from arena.records.files import read_records

ROOT = Path(__file__).parents[3]


class Ended(NamedTuple):
    """How the command ended; standard error is on one line."""

    returncode: int
    stdout: str
    stderr: str


Stress = Callable[..., Ended]


@pytest.fixture
def place(tmp_path: Path, toys: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the suite of toys."""
    write_suite(tmp_path / "bright.yaml")
    # The arena before the tests of the same name, in processes that are started from here.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]]))
    for name in ("GITHUB_STEP_SUMMARY", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all tests: what several of them ask is computed once."""
    return tmp_path_factory.mktemp("stress") / "store"


@pytest.fixture
def stress(place: Path, store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Stress:
    """Runs the command in this process, in the folder of the suite."""
    from arena.cli.app import main

    monkeypatch.chdir(place)

    def run(*words: str, **environment: str) -> Ended:
        kept = () if "--budget-only" in words else ("--store", str(store))
        with monkeypatch.context() as here, pytest.raises(SystemExit) as left:
            here.setattr(sys, "argv", ["arena", "stress", *words, *kept])
            for name, value in environment.items():
                here.setenv(name, value)
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return Ended(int(left.value.code or 0), out, " ".join(err.split()))

    return run


SUITE = ("--suite", "bright.yaml")


def test_met_failed_and_undecided_in_every_form(place: Path, toys: Path, stress: Stress) -> None:
    files = ("--json", "o.json", "--junit", "j.xml", "--markdown", "m.md")
    toys.touch()
    met = stress("toy-shift", *SUITE, "--require", "protection>=0.5", "--require", "retention[*]>=0.9", *files)
    assert met.returncode == 0, met.stderr
    assert "met: protection>=0.5@low: 0.727 [" in met.stdout and "met: 3 met" in met.stdout
    assert "met: budget: every release is within its budget" in met.stdout
    assert "measured: answer-leak 0.000 (" in met.stdout
    content = json.loads((place / "o.json").read_text(encoding="utf-8"))
    assert content["status"] == "met" and content["suite"]["id"] == "bright" and content["entry"] == "toy-shift"
    assert content["records"] == "build/stress/bright-toy-shift.jsonl"
    records = read_records(place / content["records"])
    assert len(records) == 12 and {r.defense.id for r in records} == {"none", "toy-shift"}
    assert ElementTree.parse(place / "j.xml").find("testsuite").get("tests") == "3"  # type: ignore[union-attr]
    computed = toys.read_text(encoding="utf-8")
    again = stress(
        "toy-shift", *SUITE, "--require", "protection>=0.8", "--require", "accuracy<=0.7@value", *files,
        GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY="summary.md",
    )  # fmt: skip
    assert again.returncode == 1 and toys.read_text(encoding="utf-8") == computed  # nothing is computed again
    assert read_records(place / content["records"]) == records
    assert "failed: protection>=0.8@low: 0.727" in again.stdout
    assert "::error title=arena stress%3A protection>=0.8@low::failed: 0.727" in again.stdout
    page = (place / "m.md").read_text(encoding="utf-8")
    assert page in (place / "summary.md").read_text(encoding="utf-8") and "❌ failed" in page
    few = write_suite(place / "few.yaml", seeds=[0, 1])
    undecided = stress("toy-shift", "--suite", few.name, "--require", "protection>=0.1")
    assert undecided.returncode == 3 and "undecided: protection>=0.1@low: too few seeds: 2" in undecided.stdout
    both = stress("toy-shift", "--suite", few.name, "--require", "protection>=0.1", "--require", "psnr>=99")
    assert both.returncode == 1  # what has failed has


def test_a_step_beyond_the_budget_fails(place: Path, stress: Stress) -> None:
    found = stress("toy-shift", *SUITE, "--config", "step=9", "--require", "protection>=0.1")
    assert found.returncode == 1
    assert "failed: budget: " in found.stdout and "|delta| = 9/255 > 8/255" in found.stdout
    assert "undecided: protection>=0.1@low" in found.stdout
    raised = stress("toy-shift", *SUITE, "--config", "step=9", "--budget-image", "9")
    assert raised.returncode == 0, raised.stderr


@pytest.mark.parametrize("defense", ["toy-raising", "toy-dying"])
def test_a_defense_that_fails_is_undecided(stress: Stress, defense: str) -> None:
    found = stress(defense, *SUITE, "--require", "robust-protection>=0.1")
    assert found.returncode == 3
    assert "6 cells failed: release" in found.stdout and "undecided: budget" in found.stdout
    assert "undecided: robust-protection>=0.1@low: withheld" in found.stdout


def test_a_baseline_of_records(place: Path, stress: Stress) -> None:
    assert stress("toy-shift", *SUITE, "--results", "old.jsonl").returncode == 0
    weaker = stress("toy-shift", *SUITE, "--config", "step=2", "--compare", "old.jsonl", "--json", "o.json")
    assert weaker.returncode == 1, weaker.stderr
    assert "failed: compare: 2 of 2 cells against old.jsonl lost protection" in weaker.stdout
    assert "lost: toy-model · toy-bright · toy-recipe · none · 8/255: drop 0.333 before, 0.083 now" in weaker.stdout
    cells = json.loads((place / "o.json").read_text(encoding="utf-8"))["compare"]["cells"]
    assert [cell["status"] for cell in cells] == ["lost", "lost"] and cells[0]["lost"] == pytest.approx(0.25)
    same = stress("toy-shift", *SUITE, "--compare", "old.jsonl")
    assert same.returncode == 0 and "met: compare: none of 2 cells" in same.stdout
    assert "the baseline was made by the same source, settings and files" in same.stdout
    other = write_suite(place / "other.yaml", recipes=[{"id": "toy-recipe", "config": {"rate": 0.2}}])
    refused = stress("toy-shift", "--suite", other.name, "--compare", "old.jsonl", "--results", "new.jsonl")
    assert refused.returncode == 2 and "one whose recipe is another" in refused.stderr
    assert not (place / "new.jsonl").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "name a target, or a file that does with --file: there is no arena-stress.yaml here"),
        (("toy-shft", *SUITE), "there is no folder and no defense 'toy-shft'; did you mean 'toy-shift'"),
        (("toy-shift", "--suite", "bright"), "no suite is called 'bright'"),
        (("toy-shift", *SUITE, "--require", "protecton>=1"), "did you mean 'protection'"),
        (("toy-shift", *SUITE, "--require", "retention[toy-kep]>=1"), "did you mean 'toy-keep'?"),
        (("toy-shift", *SUITE, "--config", "stepp=1"), "there is no setting 'stepp'; did you mean 'step'?"),
        (("toy-shift", *SUITE, "--config", "step"), "--config 'step': give KEY=VALUE"),
        (("toy-shift", *SUITE, "--budget-image", "-1"), "--budget-image -1.0"),
        (("toy-shift", *SUITE, "--compare", "gone.jsonl"), "baseline gone.jsonl does not exist"),
        (
            ("toy-shift", *SUITE, "--compare", "no-such-branch"),
            "baseline 'no-such-branch' is no file and no git revision",
        ),
        (("toy-shift", *SUITE, "--budget-only"), "target 'toy-shift' is a defense: its budget is checked when a suite"),
        (("toy-shift", "--file", "gone.yaml"), "gone.yaml"),
        (("toy-shift", *SUITE, "--originals", "x"), "`originals` is about folders"),
    ],
)
def test_what_cannot_be_asked(place: Path, stress: Stress, words: tuple[str, ...], says: str) -> None:
    before = sorted(place.iterdir())
    found = stress(*words)
    assert found.returncode == 2 and says in found.stderr
    assert {*place.iterdir()} - {*before} <= {place / "cache"}


def test_a_file_says_all(place: Path, stress: Stress) -> None:
    text = (
        "target: toy-shift\nconfig: {step: 4}\nsuite: bright.yaml\nrequirements:\n  - protection>=0.1\n  - psnr>=99\n"
    )
    (place / "arena-stress.yaml").write_text(text, encoding="utf-8")
    found = stress(GITHUB_ACTIONS="true")
    assert found.returncode == 1 and "toy-shift(step=4) on suite bright" in found.stdout
    assert "::error file=arena-stress.yaml,line=6,title=arena stress%3A psnr>=99::failed: " in found.stdout
    above = stress("--file", "arena-stress.yaml", "--config", "step=8", "--require", "protection>=0.5")
    assert "toy-shift(step=8) on suite bright" in above.stdout and "met: protection>=0.5@low" in above.stdout
    assert above.returncode == 1  # what the file requires is required still


# Folders


def write_bright(folder: Path, shift: int = 0, suffix: str = "png", count: int = 96) -> Path:
    """The pictures of the dataset `toy-bright`, as files."""
    from toys import ToyBright

    folder.mkdir()
    with (folder / "metadata.jsonl").open("w", encoding="utf-8") as rows:
        for number, sample in enumerate(ToyBright().load(count, 0, 0, 0).train):
            file = f"{number:03d}.{suffix}"
            Image.fromarray(np.asarray(sample.image) + np.uint8(shift)).save(folder / file)
            row = {"file_name": file, "question": sample.question, "answer": sample.answer}
            rows.write(json.dumps(row) + "\n")
    return folder


def test_a_folder_of_another_tool(place: Path, stress: Stress) -> None:
    write_bright(place / "photos", suffix="bmp")
    write_bright(place / "safe", shift=8)
    words = ("safe", *SUITE, "--originals", "photos", "--budget-image", "8", "--test", "48")
    found = stress(*words, "--require", "protection>=0.3", "--require", "max-delta<=8")
    assert found.returncode == 0, found.stdout + found.stderr
    assert "48 released samples train, 48 originals are held out to score on" in found.stdout
    assert "met: budget: all 96 released samples are within 8/255 (linf) and 5 words" in found.stdout
    records = read_records(place / "build" / "stress" / "bright-safe.jsonl")
    assert {(r.defense.id, r.dataset.id) for r in records} == {("none", "imagefolder"), ("released", "imagefolder")}
    assert all(str(place) not in json.dumps(r.defense.config) for r in records)
    write_bright(place / "weak", shift=1)
    weak = stress("weak", *words[1:], "--compare", "build/stress/bright-safe.jsonl")
    assert weak.returncode == 1 and "lost protection" in weak.stdout, weak.stdout + weak.stderr
    write_bright(place / "loud", shift=9)
    loud = stress("loud", *words[1:], "--require", "protection>=0.3")
    assert loud.returncode == 1 and "(and 95 more)" in loud.stdout and "nothing was computed" in loud.stdout
    assert not (place / "build" / "stress" / "bright-loud.jsonl").exists()
    write_bright(place / "few", count=90)
    refused = stress("few", *words[1:])
    assert refused.returncode == 2 and "6 of 96 originals in photos do not match" in refused.stderr


def test_a_folder_against_what_was_released_before(place: Path, stress: Stress) -> None:
    """The baseline is the folder of the git revision, held against the same originals."""

    def git(*words: str) -> None:
        who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
        subprocess.run(["git", *who, *words], cwd=place, check=True, capture_output=True)

    write_bright(place / "photos")
    write_bright(place / "safe", shift=8)
    words = ("safe", *SUITE, "--originals", "photos", "--budget-image", "8", "--test", "48", "--compare", "HEAD")
    git("init", "--quiet")
    git("add", "bright.yaml", "photos")
    git("commit", "--quiet", "--message", "originals")
    refused = stress(*words)
    assert refused.returncode == 2 and "safe is not among the files of 'HEAD'" in refused.stderr
    git("add", "safe")
    git("commit", "--quiet", "--message", "released")
    for path in (place / "safe").glob("*.png"):
        Image.fromarray(np.asarray(Image.open(path)) - np.uint8(6)).save(path)
    found = stress(*words)
    assert found.returncode == 1, found.stdout + found.stderr
    assert "failed: compare: 2 of 2 cells against HEAD lost protection" in found.stdout
    git("add", "safe")
    git("commit", "--quiet", "--message", "released anew")
    assert stress(*words).returncode == 0


def test_the_budget_alone_needs_no_model(place: Path, stress: Stress) -> None:
    """As the hook of pre-commit runs it."""
    import yaml

    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    assert hook["id"] == "arena-budget"
    program, *entry = hook["entry"].split()
    assert program == "arena" and entry[0] == "stress"
    write_bright(place / "photos")
    write_bright(place / "safe", shift=8)
    write_bright(place / "loud", shift=9)
    words = ("--originals", "photos", "--budget-image", "8")
    assert stress(*entry[1:], "safe", *words).returncode == 0
    found = stress(*entry[1:], "loud", *words, "--junit", "j.xml")
    assert found.returncode == 1 and "failed: budget: sample 0 ('000.png'): |delta| = 9/255" in found.stdout
    rows = [json.loads(line) for line in (place / "photos" / "metadata.jsonl").read_text("utf-8").splitlines()]
    told = [{**row, "question": f"{row['question']} {row['answer']}"} for row in rows]
    shutil.copytree(place / "safe", place / "told")
    (place / "told" / "metadata.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in told), encoding="utf-8")
    leaking = stress(*entry[1:], "told", *words)
    assert leaking.returncode == 1 and "sample 0 ('000.png'): the word 'zero' was inserted" in leaking.stdout
    assert stress(*entry[1:], "told", *words, "--allow-answer-words").returncode == 0
    shutil.rmtree(place / "told")
    assert stress(*entry[1:], "safe").returncode == 2
    (place / "safe" / "000.png").write_bytes(b"no picture")
    damaged = stress(*entry[1:], "safe", *words, "--junit", "j.xml")
    assert damaged.returncode == 2 and "000.png" in damaged.stderr and not (place / "j.xml").exists()
    shutil.rmtree(place / "safe")
    write_bright(place / "safe", shift=8)
    assert sorted(path.name for path in place.iterdir() if path.is_dir()) == ["loud", "photos", "safe"]
    light = (
        f"import sys; sys.argv[1:] = {['stress', *entry[1:], 'safe', *words]!r}\n"
        "from arena.cli.app import main\n"
        "try: main()\n"
        "finally: print('loaded:', sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", light],
        cwd=place,
        check=True,
        capture_output=True,
        text=True,
    )
    assert "loaded: []" in done.stdout
