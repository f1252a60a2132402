"""What reaches the console: text as it is, nothing that steers, a paragraph an error, progress without a terminal."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
from commands import run_here
from owner_folder import write_owner_folder
from rich.table import Table
from suites import toy_suite
from synthetic import record

import arena.cli.app
import arena.engine.progress
from arena.cli.displays import show_cut, show_failures
from arena.console import PlainConsole
from arena.engine.progress import Display
from arena.errors import ArenaError
from arena.records.schema import Record

ROOT = Path(__file__).parents[3]
MAIN = "import toys; toys.install(); from arena.cli.app import main; main()"
EVIL = "[/red] :smile: \x1b]8;;http://x\x07link \u202e [/8]"
SHOWN = "[/red] :smile: \\x1b]8;;http://x\\x07link \\u202e [/8]"


def environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
    return os.environ | {"COLUMNS": "200", "PYTHONPATH": path} | more


def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """The command in this process: exit code and what it said on standard error."""
    ran = run_here(monkeypatch, capsys, *words)
    return ran.returncode, ran.stderr


def test_text_is_printed_as_it_is_and_steers_nothing() -> None:
    file = io.StringIO()
    console = PlainConsole(file=file, width=200)
    table = Table(EVIL, title=EVIL)
    table.add_row(EVIL)
    for shown in (EVIL, table):
        console.print(shown)
    console.print("half \ud800")
    assert file.getvalue().count(SHOWN) == 4 and "half \\ud800" in file.getvalue()
    assert not {"\x1b", "\x07", "\u202e"} & set(file.getvalue())


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal_reads_no_markup() -> None:
    file = Terminal()
    with Display(PlainConsole(file=file, width=200, force_terminal=True), 8, "stages", EVIL) as display:
        display(3, EVIL)
    assert SHOWN in file.getvalue() and "3/8" in file.getvalue()
    assert "\x1b]8" not in file.getvalue() and "\u202e" not in file.getvalue()


@pytest.mark.parametrize("options", [{}, {"force_terminal": True}])
def test_without_a_terminal_there_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, bool]
) -> None:
    monkeypatch.setattr(arena.engine.progress, "EVERY", 0.05)
    file = io.StringIO()
    with Display(PlainConsole(file=file, width=40, **options), 1.0, note="reading the samples") as display:
        assert file.getvalue() == "0 s · 0% · reading the samples\n"
        for number in range(50):  # what reports often is not printed as often
            display(0.25, f"note {number} {EVIL} " + "x" * 100)
        deadline = time.monotonic() + 20
        while file.getvalue().count("\n") < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        count = file.getvalue().count("\n")
        assert 4 <= count < 40
    lines = file.getvalue().splitlines()
    assert f"25% · note 49 {SHOWN} {'x' * 100}" in lines[-1]  # at a standstill nothing is said of the time left
    assert not {"\x1b", "\x07", "\r", "\u202e"} & set(file.getvalue())


def test_lines_say_how_long_the_rest_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(arena.engine.progress.time, "monotonic", lambda: clock[0])
    file = io.StringIO()
    with Display(PlainConsole(file=file, width=80), 1.0, note="reading") as display:
        for seconds, done in ((60, 0.5), (70, 0.6), (80, 0.75)):  # a run that goes on begins at a half
            clock[0] = 100.0 + seconds
            display(done, f"at {done}")
            display._say()
    lines = file.getvalue().splitlines()
    assert lines[1:] == ["60 s · 50% · at 0.5", "70 s · 60% · 40 s left · at 0.6", "80 s · 75% · 20 s left · at 0.75"]


def test_labels_that_look_like_markup_cost_no_run(
    tmp_path: Path, toys: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    labels = ["random [/8]", "[/red]", "[bold]"]
    defenses = [
        "none",
        *({"id": "toy-noise", "label": name, "config": {"strength": i / 4}} for i, name in enumerate(labels)),
    ]
    suite = tmp_path / "toy.yaml"
    made = toy_suite(defenses=[*defenses, {"id": "toy-raising", "label": EVIL}], attacks=["none"], seeds=[0])
    suite.write_text(made.model_dump_json(exclude={"limits"}), encoding="utf-8")
    for _ in range(2):  # a run that goes on prints them again
        ran = run_here(monkeypatch, capsys, "run", str(suite), "--store", "s", "--scheduler", "sync")
        assert ran.returncode == 1 and "Traceback" not in ran.stderr, ran.stderr
        assert all(label in ran.stdout for label in labels)
        assert f"failed: 1 cell ({SHOWN} / none / toy-recipe, seed 0): release" in ran.stderr
        assert "1 of 5 cells failed" in ran.stderr
        assert not {"\x1b", "\x07", "\u202e"} & {*ran.stdout, *ran.stderr}
    planned = run_here(monkeypatch, capsys, "plan", str(suite), "--store", "s", "--why")
    assert planned.returncode == 0, planned.stderr


def said(records: Sequence[Record]) -> list[str]:
    file = io.StringIO()
    show_failures(records, Path("r.jsonl"), PlainConsole(file=file, width=80))
    return file.getvalue().splitlines()


def test_failures_of_one_cause_are_one_paragraph() -> None:
    def failed(defense: str, attack: str, seed: int, error: str) -> Record:
        return record(0, defense, attack, seed, error=error)

    product = [
        failed(defense, attack, seed, f"the disk of seed {seed} is gone")
        for defense in ("em", "mem")
        for attack in ("none", "jpeg", "case")
        for seed in (0, 1)
    ]
    first, *rest = said([record(), *product])
    assert first == (
        "failed: 12 cells (em, mem / none, jpeg, case / lora, seed 0, seed 1): release: the disk of seed 0 is gone"
    )
    assert rest == ["12 of 13 cells failed; tracebacks are in r.jsonl, --force-failed tries them again"]
    some = [*product[:5], failed("lsp", "none", 0, "x" * 50_000), failed("lsp", "none", 1, " ")]
    lines = said(some)
    assert lines[0].startswith("failed: 5 cells (em / none / lora, seed 0; em / none / lora, seed 1; em / jpeg / lora")
    assert "and 2 more): release: the disk" in lines[0]
    assert len(lines[1]) < 1200 and "left out" in lines[1] and "seed 1): release: without a message" in lines[2]
    models = [record(0, "em", model=model, error="the same") for model in ("tiny-llava", "tiny-qwen")]
    assert said(models)[0].startswith("failed: 2 cells (tiny-llava, tiny-qwen / em / none / lora, seed 0): release")
    many = said([record(0, "em", seed=i, error=chr(65 + i) * 9) for i in range(14)])
    assert len(many) == 12 and many[10] == "failed: 4 cells more, of other causes"


@pytest.mark.parametrize("width", [40, 80, 200])
def test_names_of_settings_are_never_cut_off(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from arena.plugins.registry import Registry

    names = [*Registry().get("defense", "mmguard-bph").load().Config.model_fields]
    shown = run_here(monkeypatch, capsys, "show", "mmguard-bph", COLUMNS=str(width))
    assert shown.returncode == 0, shown.stderr
    words = shown.stdout.split()
    assert len(names) > 10 and all(name in words for name in names) and "…" not in shown.stdout
    assert width == 200 or max(map(len, shown.stdout.splitlines())) <= max(width, 7 + 64)  # the digest of the source


LONG = "x" * 300
CONFIGS = {
    "x=2001-01-01": "no setting 'x'",
    "x=2001-13-45": "no setting 'x'",
    "x=!!int x": "'x' is not a whole number",
    "x=!!timestamp x": "!!timestamp is not used here",
    "x=!!binary aGk=": "!!binary is not used here",
    "x=" + "1" * 5000: "is not a whole number of up to 64 bits",
    "x=0x" + "f" * 5000: "is not a whole number of up to 64 bits",
    "x=" + "[" * 3000: "more than 64 levels deep",
    "x=&a [*a]": "aliases are not used",
    'x="\\ud800"': "not a text of whole characters",
    "x={a: 1, a: 2}": "the key is already in line 1",
    "x": "give KEY=VALUE",
}


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config[:20])
def test_a_setting_that_is_no_plain_data_is_a_paragraph(
    config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("protect", str(tmp_path / "in"), "--defense", "random", "--out", str(tmp_path / "out"), "--config", config)
    code, text = here(monkeypatch, capsys, *words)
    assert code == 2 and text.splitlines()[-1].startswith("error: ") and CONFIGS[config] in text
    assert len(text) < 1000


@pytest.mark.parametrize(
    "words",
    [
        ("run", LONG),
        ("run", f"{LONG}.yaml"),
        ("run", "loop"),
        ("run", "loop.yaml"),
        ("plan", f"{LONG}/suite.yaml"),
        ("run", "quick", "--results", LONG),
        ("board", "quick", "--results", f"{LONG}/r.jsonl"),
        ("protect", LONG, "--defense", "none", "--out", "out"),
        ("protect", "in", "--defense", "none", "--out", LONG),
        ("protect", "loop", "--defense", "none", "--out", "out"),
        ("protect", "in", "--defense", "none", "--out", "loop/out"),
        ("protect", "in", "--defense", "none", "--out", "out", "--split", LONG),
        ("protect", "in", "--defense", "none", "--out", "out", "--surrogate", f"llava={LONG}"),
    ],
    ids=lambda words: " ".join(words).replace(LONG, "LONG"),
)
def test_names_that_no_file_can_have_are_a_paragraph(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_owner_folder(tmp_path / "in")
    for name in ("loop", "loop.yaml"):
        (tmp_path / name).symlink_to(name)
    code, text = here(monkeypatch, capsys, *words)
    assert code == 2 and len(text.strip().splitlines()) <= 2, text
    assert (LONG in text or "loop" in text) and ("too long" in text or "symbolic links" in text)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ArenaError(""), "error: ArenaError\n"),
        (ArenaError(f"{EVIL} \ud800"), f"error: {SHOWN} \\ud800\n"),
        (
            PermissionError(13, "Permission denied", "/x"),
            "error: PermissionError: [Errno 13] Permission denied: '/x'\n",
        ),
    ],
)
def test_every_error_is_a_paragraph(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(arena.cli.app, "app", fail)
    assert here(monkeypatch, capsys) == (1, said)


@pytest.mark.parametrize(
    ("deed", "note", "said"),
    [
        ("exit-with", "0", "its process left with exit code 0 before it was done"),
        ("raise", "SystemExit", "SystemExit"),
        ("raise", "KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise", "Unprintable", "Unprintable: its message cannot be shown, __str__ raised SystemExit"),
    ],
)
def test_a_defense_that_leaves_releases_nothing_and_fails(
    deed: str,
    note: str,
    said: str,
    tmp_path: Path,
    toys: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "tests/villains"))
    write_owner_folder(tmp_path / "in")
    words = ["protect", "in", "--defense", "villain", "--out", "out", "--config", f"deed={deed}"]
    ran = run_here(monkeypatch, capsys, *words, "--config", f'note="{note}"')
    assert ran.returncode == 1 and "Traceback" not in ran.stderr, ran.stderr
    assert f"error: defense 'villain': {said}. --debug shows where; --resume goes on" in ran.stderr
    assert [p.name for p in (tmp_path / "out").iterdir()] == [".work"]


def interrupted(tmp_path: Path, words: Sequence[str], begun: Path, number: signal.Signals) -> tuple[int, str]:
    """Exit code and standard error of a command that gets a signal once a file is there."""
    heeding = partial(signal.signal, signal.SIGINT, signal.default_int_handler)  # background jobs start without
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, *words],
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        preexec_fn=heeding,
    )
    deadline = time.monotonic() + 60
    while not begun.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    _, text = process.communicate(timeout=60)
    return process.returncode, text


SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_stopped_protection_says_how_to_go_on(number: signal.Signals, code: int, tmp_path: Path, toys: Path) -> None:
    write_owner_folder(tmp_path / "in")
    words = ["protect", "in", "--defense", "toy-talking", "--out", "out"]
    left, text = interrupted(tmp_path, words, tmp_path / "out" / ".work" / "crafting", number)
    assert left == code and "Traceback" not in text
    assert text.splitlines()[0] == "0 s · 0% · reading the samples"
    assert text.splitlines()[-1] == "interrupted: what is finished is kept in out; --resume goes on with it"
    assert [p.name for p in (tmp_path / "out").iterdir()] == [".work"]


def test_a_run_that_is_told_to_end_says_how_to_go_on(
    tmp_path: Path, toys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_SLEEP", "0.5")
    (tmp_path / "toy.yaml").write_text(toy_suite().model_dump_json(exclude={"limits"}), encoding="utf-8")
    results = tmp_path / "results" / "toy.jsonl"
    words = ["run", "toy.yaml", "--store", "s", "--scheduler", "sync"]
    left, text = interrupted(tmp_path, words, results, signal.SIGTERM)
    assert left == 143 and "Traceback" not in text and results.exists()
    assert "interrupted: " in text and "run again to go on" in text


def test_answers_that_were_cut_off_are_said() -> None:
    def cut(record: Record, count: int | None) -> Record:
        assert record.outcome is not None
        return record.model_copy(update={"outcome": record.outcome.model_copy(update={"cut": count})})

    ended = [cut(record(), None), cut(record(seed=1), 0)]
    rest = [cut(record(0.5, "em", "jpeg", seed), 3 * seed) for seed in (1, 2)]
    said = []
    for records in (ended, [*ended, *rest]):
        file = io.StringIO()
        show_cut(records, PlainConsole(file=file, width=80))
        said.append(file.getvalue())
    assert said[0] == ""
    assert said[1] == (
        "cut off: in 2 cells (em / jpeg / lora, seed 1, seed 2) the model did not end some of its answers, which were "
        "cut off at the limit of tokens: 6 of 120 in em / jpeg / lora, seed 2\n"
    )


def test_a_console_of_few_characters_is_no_failure(tmp_path: Path, toys: Path) -> None:
    """As on Windows, in an old locale, or where output goes into a file there: what it lacks is replaced."""
    label = "noise \u221e \u6f22"
    made = toy_suite(defenses=["none", {"id": "toy-noise", "label": label}], attacks=["none"], seeds=[0])
    (tmp_path / "toy.yaml").write_text(made.model_dump_json(exclude={"limits"}), encoding="utf-8")
    run = ["run", "toy.yaml", "--store", "s", "--scheduler", "sync"]
    for coding, words in (
        ("cp1252", run),
        ("ascii", ["board", "results/toy.jsonl", "--out", "boards"]),
        ("iso8859-1:strict", ["show", "mmguard-crs"]),
        ("ascii", ["plan", "toy.yaml", "--why", "--store", "other", "--results", "none.jsonl"]),
    ):
        with (tmp_path / "log.txt").open("w+b") as log:
            command = [sys.executable, "-c", MAIN, *words]
            done = subprocess.run(
                command, cwd=tmp_path, env=environment(PYTHONIOENCODING=coding), stdout=log, stderr=log, check=False
            )
            log.seek(0)
            text = log.read().decode(coding.partition(":")[0])
        assert done.returncode == 0, text
        assert "Traceback" not in text and text.count("\n") > 2
        if "toy" in words[1]:
            assert "noise ? ?" in text or "noise \\u221e \\u6f22" in text
    assert label in (tmp_path / "boards" / "toy.md").read_text(encoding="utf-8")
