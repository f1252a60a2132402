"""Files of records as people have them: with lines of others, torn ones, several writers, no room; nothing is lost."""

from __future__ import annotations

import errno
import io
import multiprocessing
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import synthetic
from rich.console import Console
from suites import toy_suite
from test_record import FAILURE, raw
from typer.testing import CliRunner

from arena.cli.app import app
from arena.engine.execute import RunReport, run
from arena.errors import ArenaError
from arena.records.files import append_line, append_record, end_of, read_records, record_files, try_appending
from arena.records.schema import Record
from arena.records.select import latest
from arena.store.local import Store

FOREIGN = (
    b"Dear diary, today I measured nothing",
    b"cell,accuracy\n1,0.5",
    b"{not json",
    b"{}",
    b'{"name": "a package"}',
    b"[1, 2, 3]",
    b"[[[" * 9999,
    b"0",
    b"\xff\xfe\x00",
    b"\x1b[31mred",
    b'{"cell": "beg',
)


def record(seed: int = 0, **changes: Any) -> Record:
    return Record.model_validate(raw(seed=seed, **changes))


def failed(seed: int = 0, **changes: Any) -> Record:
    return record(seed, status="failed", outcome=None, failure=FAILURE, **changes)


def line(record: Record) -> bytes:
    return record.model_dump_json().encode()


def go(results: Path, **changes: Any) -> RunReport:
    return run(
        toy_suite(seeds=[0], attacks=["none"]),
        store=results.parent / "store",
        results=results,
        console=Console(file=io.StringIO()),
        scheduler="sync",
        **changes,
    )


# Lines of others, and torn ones


@pytest.mark.parametrize("text", FOREIGN)
@pytest.mark.parametrize("before", [b"", b"a line\n", b"\n\n"])
def test_a_file_that_is_not_records_is_refused_and_kept(tmp_path: Path, text: bytes, before: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(before + text)
    attempts = (
        lambda: append_record(path, record()),
        lambda: append_line(path, '{"plugin": "x"}', "what was accepted"),
        lambda: try_appending(path),
        lambda: read_records(path),
    )
    for attempt in attempts:
        with pytest.raises(ArenaError, match=r"notes\.txt") as caught:
            attempt()
        assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value) and len(str(caught.value)) < 600
        assert path.read_bytes() == before + text


def test_a_run_refuses_it_before_anything_is_computed(
    tmp_path: Path, toys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes.txt").write_bytes(FOREIGN[0])
    (tmp_path / "toy.yaml").write_text(toy_suite().model_dump_json(), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    words = ["run", "toy.yaml", "--results", "notes.txt", "--store", "store", "--scheduler", "sync"]
    ran = CliRunner().invoke(app, words)
    assert isinstance(ran.exception, ArenaError) and "notes.txt, line 1: not JSON" in str(ran.exception)
    assert (tmp_path / "notes.txt").read_bytes() == FOREIGN[0] and not toys.exists()


@pytest.mark.parametrize("damage", [b"{}", b'{"schema_version":2}', b"oops", b'{"protocol_version":1,"cell":"x"}'])
def test_a_damaged_line_is_named_when_a_run_starts(tmp_path: Path, toys: Path, damage: bytes) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(line(record(0)) + b"\n" + line(record(1)) + b"\n" + damage + b"\n" + line(record(2)) + b"\n")
    before = path.read_bytes()
    with pytest.raises(ArenaError, match=r"r\.jsonl, line 3: ") as caught:
        go(path)
    assert "None" not in str(caught.value) and not toys.exists() and path.read_bytes() == before


def test_a_torn_line_of_any_length_is_skipped_and_replaced(tmp_path: Path) -> None:
    path, whole = tmp_path / "r.jsonl", line(record(1))
    for length in [*range(1, 60), *range(60, len(whole), 97), len(whole) - 1]:
        for first in ([], [record(0)]):
            path.write_bytes(b"".join(line(r) + b"\n" for r in first) + whole[:length])
            try_appending(path)
            assert read_records(path) == first
            append_record(path, record(2))
            assert read_records(path) == [*first, record(2)]


def test_a_last_line_without_its_newline_is_a_line(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(line(record(0)) + b"\n" + line(record(1)))
    assert read_records(path) == [record(0), record(1)]
    try_appending(path)
    assert path.read_bytes().endswith(line(record(1)))
    append_record(path, record(2))
    assert read_records(path) == [record(0), record(1), record(2)]
    (tmp_path / "a.jsonl").write_text('{"plugin": "em"}', encoding="utf-8")
    append_line(tmp_path / "a.jsonl", '{"plugin": "lsp"}', "what was accepted")
    assert (tmp_path / "a.jsonl").read_text(encoding="utf-8") == '{"plugin": "em"}\n{"plugin": "lsp"}\n'
    path.write_bytes(line(record(0)) + b"\r\n" + line(record(1)) + b"\r\n")
    assert read_records(path) == [record(0), record(1)]


def test_a_board_reads_it_too(tmp_path: Path, toys: Path) -> None:
    path = tmp_path / "toy.jsonl"
    cells = len(go(path).records)
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    ran = CliRunner().invoke(app, ["board", str(path)], catch_exceptions=False)
    assert ran.exit_code == 0 and len(latest(read_records(path))) == cells == 2
    assert go(path).computed == () and len(read_records(path)) == 2


# Several writers


def test_a_cell_that_another_run_recorded_meanwhile_is_not_appended(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    append_record(path, record(0))
    since = end_of(path)
    later = record(0, created="2027-01-01T00:00:00+00:00")
    assert append_record(path, later, since) is later  # it was there before: this run was told to compute it anew
    other = record(0, created="2028-01-01T00:00:00+00:00")
    assert append_record(path, other, since) == later
    assert append_record(path, record(1), since) == record(1)
    assert append_record(path, record(0)) == record(0)  # nobody asked
    assert [r.created for r in read_records(path) if r.seed == 0] == [
        record(0).created,
        later.created,
        record(0).created,
    ]


@pytest.mark.parametrize(
    ("there", "mine", "needless"),
    [
        (record(), record(), True),
        (record(), failed(), True),
        (failed(), failed(), True),
        (failed(), record(), False),
        (record(engine_digest="another"), record(), False),
        (record(1), record(0), False),
    ],
)
def test_what_stands_as_another_does(tmp_path: Path, there: Record, mine: Record, needless: bool) -> None:
    path = tmp_path / "r.jsonl"
    append_record(path, there)
    assert (append_record(path, mine, 0) is not mine) == needless
    assert len(read_records(path)) == 2 - needless


def test_what_was_torn_when_the_run_began_hides_nothing(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(line(record(1))[:700])
    since = end_of(path)
    append_record(path, record(0))  # in its place, by another run
    append_record(path, record(0), since)
    assert read_records(path) == [record(0)]
    path.write_bytes(line(record(0)) + b"\n")  # somebody put another file there
    append_record(path, record(0), 10**9)
    assert read_records(path) == [record(0)]


def _append_all(path: Path, turn: int) -> None:
    for seed in range(40):
        append_record(path, record(seed, created=f"2026-01-01T00:00:0{turn}+00:00"), 0)


def test_three_writers_append_a_line_a_cell(tmp_path: Path) -> None:
    path, link = tmp_path / "r.jsonl", tmp_path / "link.jsonl"
    link.symlink_to(path.name)
    context = multiprocessing.get_context("fork")
    names = [path, path, link]
    processes = [context.Process(target=_append_all, args=(name, turn)) for turn, name in enumerate(names)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert Counter(r.seed for r in read_records(path)) == Counter(range(40))
    assert link.is_symlink()


ANOTHER = """
import sys
sys.path[:0] = {paths!r}
import toys; toys.install()
from pathlib import Path
import test_results
from arena.store.local import Store
report = test_results.run(
    test_results.toy_suite(), store=Store(Path({folder!r}, {name!r})), results=Path({folder!r}, "r.jsonl"),
    console=test_results.Console(file=test_results.io.StringIO()), scheduler="sync", **{changes!r}
)
print(len(report.records), len(report.failed), len(report.computed))
"""


def at_once(tmp_path: Path, **changes: Any) -> list[str]:
    """What three runs on one file of results, each with its own store, say at their end."""
    here = Path(__file__)
    paths = [str(here.parent), str(here.parents[2]), str(here.parents[2] / "toys"), str(here.parents[3])]
    codes = [
        ANOTHER.format(paths=paths, folder=str(tmp_path), name=f"store-{number}", changes=changes)
        for number in range(3)
    ]
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=os.environ)
        for code in codes
    ]
    return [process.communicate(timeout=300)[0].strip() for process in processes]


def test_three_runs_at_once_record_a_line_a_cell(tmp_path: Path, toys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_SLEEP", "0.3")
    said = at_once(tmp_path)
    assert [words.split()[:2] for words in said] == [["8", "0"]] * 3
    counts = Counter(r.cell for r in read_records(tmp_path / "r.jsonl"))
    assert len(counts) == 8 and set(counts.values()) == {1}
    assert sum(int(words.split()[2]) > 0 for words in said) >= 2  # they did meet


def test_the_report_has_the_record_that_is_in_the_file(
    tmp_path: Path, toys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real, others = tmp_path / "r.jsonl", append_record, list[Record]()

    def overtaken(path: Path, mine: Record, since: int | None = None) -> Record:
        other = mine.model_copy(update={"created": "2020-01-01T00:00:00+00:00"})
        others.append(other)
        real(path, other)
        return real(path, mine, since)

    monkeypatch.setattr("arena.engine.execute.append_record", overtaken)
    report = go(path)
    assert list(report.records) == others == read_records(path) and len(others) == 2


# Places that records cannot go to


def test_places_that_records_cannot_go_to(tmp_path: Path, toys: Path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "loop.jsonl").symlink_to("loop.jsonl")
    os.mkfifo(tmp_path / "pipe.jsonl")
    for name, said in {
        "file/r.jsonl": "(Not a directory|File exists)",
        "file/below/r.jsonl": "(Not a directory|File exists)",
        "folder.jsonl": "is no file",
        "pipe.jsonl": "is no file",
        "loop.jsonl": "symbolic links",
        "x" * 300 + ".jsonl": "File name too long",
    }.items():
        with pytest.raises(ArenaError, match=said) as caught:
            try_appending(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)
        with pytest.raises(ArenaError, match=said):
            run(
                toy_suite(),
                store=tmp_path / "store",
                results=tmp_path / name,
                scheduler="sync",
                console=Console(file=io.StringIO()),
            )
    assert not toys.exists() and (tmp_path / "file").read_text(encoding="utf-8") == "mine"
    for device in ("/dev/full", "/dev/null"):
        with pytest.raises(ArenaError, match="is no file"):
            record_files(Path(device))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_place_that_cannot_be_written_is_found_before_anything_is_computed(
    tmp_path: Path, toys: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = tmp_path / "new" / "r.jsonl"

    def refuse(*arguments: object, **named: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr("arena.records.files.tempfile.NamedTemporaryFile", refuse)
        with pytest.raises(ArenaError, match=rf"could not append records to .*{os.strerror(number)}.*choose another"):
            go(path)
    assert not toys.exists() and not path.exists()
    assert len(go(path).records) == 2


def test_nothing_is_tried_where_nothing_is_to_be_recorded(
    tmp_path: Path, toys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(tmp_path / "r.jsonl")
    monkeypatch.setattr("arena.engine.execute.try_appending", lambda path: pytest.fail("it was tried"))
    assert go(tmp_path / "r.jsonl").computed == ()


def test_trying_leaves_nothing(tmp_path: Path) -> None:
    try_appending(tmp_path / "new" / "r.jsonl")
    assert [path.name for path in (tmp_path / "new").iterdir() if path.suffix != ".lock"] == []
    append_record(tmp_path / "r.jsonl", record())
    before = (tmp_path / "r.jsonl").read_bytes()
    try_appending(tmp_path / "r.jsonl")
    assert (tmp_path / "r.jsonl").read_bytes() == before
    assert Store(tmp_path / "store").get("a" * 64) is None


def test_equal_parts_of_records_are_one_object_and_nothing_else_changes(tmp_path: Path) -> None:
    made = [synthetic.record(seed=0), synthetic.record(seed=1), synthetic.record(defense="em", dataset="other")]
    path = tmp_path / "records.jsonl"
    path.write_text("".join(record.model_dump_json() + "\n" for record in made), encoding="utf-8")
    one, two, three = read_records(path)
    assert [one, two, three] == made
    assert one.dataset is two.dataset and one.dataset is not three.dataset
    assert one.environment is three.environment and one.outcome is not two.outcome


def test_a_copy_of_a_record_is_named_by_its_own_fields() -> None:
    record = synthetic.record()
    assert record.identity == record.cell
    other = record.model_copy(update={"seed": 7})
    assert other.identity == synthetic.record(seed=7).cell != record.cell
    moved = record.recipe.model_copy(update={"id": "full"})
    assert moved.asked != record.recipe.asked
