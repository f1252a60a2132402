"""The command line: exit codes, one-paragraph errors, the outputs of a run."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from commands import run_here
from suites import toy_suite

from arena.records.files import read_records

ROOT = Path(__file__).parents[3]
MAIN = "import toys; toys.install(); from arena.cli.app import main; main()"


@pytest.fixture
def suite_file(tmp_path: Path, toys: Path) -> Path:
    path = tmp_path / "toy.yaml"
    # JSON is YAML
    path.write_text(toy_suite().model_dump_json(exclude={"limits"}), encoding="utf-8")
    return path


Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def arena(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command in this process and an empty folder."""
    monkeypatch.chdir(tmp_path)
    return partial(run_here, monkeypatch, capsys)


def apart(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    environment = os.environ | {"COLUMNS": "200", "PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-c", MAIN, *words]
    return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)


def test_run_plan_and_board(tmp_path: Path, suite_file: Path, arena: Command) -> None:
    store = ("--store", str(tmp_path / "store"))
    planned = arena("plan", str(suite_file), *store)
    assert planned.returncode == 0 and "8 cells" in planned.stdout and "fine-tuned" in planned.stdout
    ran = apart(tmp_path, "run", str(suite_file), *store, "--scheduler", "sync")
    assert ran.returncode == 0, ran.stderr
    assert len(read_records(tmp_path / "results" / "toy.jsonl")) == 8
    for suffix in ("md", "csv", "parquet", "html"):
        assert (tmp_path / "results" / f"toy.{suffix}").stat().st_size > 0
    assert "toy-noise" in ran.stdout and "toy.html" in ran.stdout
    before = (tmp_path / "results" / "toy.jsonl").read_bytes()
    again = arena("run", str(suite_file), *store)
    assert again.returncode == 0 and (tmp_path / "results" / "toy.jsonl").read_bytes() == before
    assert again.stdout == ran.stdout
    board = arena("board", str(suite_file), "--out", str(tmp_path / "out"))
    assert board.returncode == 0, board.stderr
    for suffix in ("md", "csv", "html"):
        name = f"toy.{suffix}"
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "results" / name).read_bytes()
    from_records = arena("board", "results/toy.jsonl", "--out", str(tmp_path / "third"))
    assert from_records.returncode == 0, from_records.stderr
    assert (tmp_path / "third" / "toy.md").read_bytes() == (tmp_path / "out" / "toy.md").read_bytes()


def test_failed_cells_exit_with_1_and_are_named(tmp_path: Path, toys: Path, arena: Command) -> None:
    suite = tmp_path / "toy.yaml"
    suite.write_text(toy_suite(defenses=["none", "toy-loud"]).model_dump_json(), encoding="utf-8")
    ran = arena("run", str(suite), "--store", str(tmp_path / "s"), "--scheduler", "sync")
    assert ran.returncode == 1
    assert "4 of 8 cells failed" in ran.stderr and "|delta| = 30/255 > 8/255" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert (tmp_path / "results" / "toy.html").exists()


def test_interrupt_exits_with_130_and_says_what_is_kept(
    tmp_path: Path, suite_file: Path, toys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_SLEEP", "0.5")
    environment = os.environ | {"PYTHONPATH": f"{os.environ['PYTHONPATH']}{os.pathsep}{ROOT}"}
    command = [
        sys.executable,
        "-c",
        MAIN,
        "run",
        str(suite_file),
        "--store",
        str(tmp_path / "s"),
        "--scheduler",
        "sync",
    ]
    heeding = partial(signal.signal, signal.SIGINT, signal.default_int_handler)  # background jobs start without
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=heeding
    )
    results = tmp_path / "results" / "toy.jsonl"
    deadline = time.monotonic() + 60
    while not results.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in said and "run again to go on" in said and "Traceback" not in said
    assert read_records(results)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["run", "no-such-suite"], 2, "no suite is called 'no-such-suite'"),
        (["run", "missing.yaml"], 2, "missing.yaml"),
        (["run", "quik"], 2, "by the path of their YAML file; did you mean 'quick'?\n"),
        (["show", "toy-nois"], 2, "see `arena list`; did you mean 'toy-noise'"),
        (["frobnicate"], 2, "No such command"),
        (["run"], 2, "Missing argument"),
        (["list", "defences"], 2, "Invalid value"),
        (["zoo", "train", "tiny-lava"], 2, "did you mean 'tiny-llava'"),
        (["board", "missing.jsonl"], 1, "missing.jsonl"),
        (
            ["board", "quick", "--results", "no/such.jsonl"],
            1,
            "no/such.jsonl does not exist: check the path, or make the records with `arena run quick --results "
            "no/such.jsonl`",
        ),
        (["board", "a.jsonl", "b"], 2, "one suite"),
    ],
)
def test_bad_requests(toys: Path, arena: Command, words: list[str], code: int, says: str) -> None:
    done = arena(*words)
    assert done.returncode == code, done.stderr
    assert says in done.stderr and "Traceback" not in done.stderr


def test_bad_scheduler(tmp_path: Path, suite_file: Path, arena: Command) -> None:
    done = arena("run", str(suite_file), "--scheduler", "slurm", "--store", str(tmp_path / "s"))
    assert done.returncode == 2 and "'slurm'" in done.stderr and "tls://" in done.stderr


@pytest.mark.parametrize(
    ("cell", "says"),
    [("zzz", "suite 'toy' has no cell 'zzz': "), ("", "the name of a cell of suite 'toy' is empty: ")],
)
def test_bad_cell(tmp_path: Path, suite_file: Path, arena: Command, cell: str, says: str) -> None:
    done = arena("run", str(suite_file), "--cell", cell, "--store", str(tmp_path / "s"))
    assert done.returncode == 2 and says in done.stderr, done.stderr
    assert f"the field `cell` of records, and `arena plan {suite_file} --why` shows" in done.stderr
    assert not (tmp_path / "results").exists()


def test_store_of_another_version(tmp_path: Path, suite_file: Path, arena: Command) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "store.json").write_text('{"schema_version": 0}', encoding="utf-8")
    done = arena("plan", str(suite_file), "--store", str(tmp_path / "s"))
    assert done.returncode == 1 and "schema version 0" in done.stderr and "Traceback" not in done.stderr
    debug = apart(tmp_path, "--debug", "plan", str(suite_file), "--store", str(tmp_path / "s"))
    assert debug.returncode == 1 and "Traceback" in debug.stderr


def test_list_and_show(toys: Path, arena: Command) -> None:
    listed = arena("list", "defenses")
    assert listed.returncode == 0 and "toy-noise" in listed.stdout and "toys 1.0" in listed.stdout
    assert "toy-invert" not in listed.stdout
    _, named, after = re.sub(r"\s+", " ", listed.stdout).partition(" em mmguard-arena ")
    own = after.partition(" defense ")[0]
    assert named and "L∞ on pictures · needs seed, surrogates · Huang 2021, arXiv 2101.04898" in own
    shown = arena("show", "toy-noise")
    assert shown.returncode == 0 and "strength" in shown.stdout and "needs: seed" in shown.stdout
    version = arena("--version")
    assert version.returncode == 0 and version.stdout.startswith("arena ")


def test_show_lists_what_a_recipe_trains(toys: Path, arena: Command) -> None:
    hint = arena("show", "lora")
    assert hint.returncode == 0 and "arena show lora --model MODEL" in hint.stdout
    shown = arena("show", "projector-lora", "--model", "tiny-llava")
    assert shown.returncode == 0, shown.stderr
    lines = {
        line.split()[0]: line.split()[1:] for line in shown.stdout.split("trained in tiny-llava")[1].splitlines()[1:]
    }
    # Rank 16 on a square projection of 96 in each of the layers; both linear layers of the projector, with biases.
    layers = int(lines["model.language_model.layers.*.self_attn.q_proj"][1].replace(",", "")) / (2 * 16 * 96)
    assert layers == int(layers) >= 2
    assert lines["model.multi_modal_projector.linear_2"][:3] == ["all", "weights", f"{96 * 96 + 96:,}"]
    learning = sum(int(words[-2].replace(",", "")) for name, words in lines.items() if name != "all")
    assert int(lines["all"][2].replace(",", "")) == learning and not any("vision" in name for name in lines)
    refused = arena("show", "glyphs", "--model", "tiny-llava")
    assert refused.returncode == 2 and "'glyphs' is a dataset" in refused.stderr


def test_python_interface() -> None:
    import arena as package
    import arena.engine.execute

    assert callable(package.run) and callable(package.board) and package.Registry().entries("defense")
    assert package.load_suite.__name__ == "load_suite"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = package.nothing
    assert "run" in dir(package) and arena.engine.execute.run.__name__ == "run"
