"""`arena submit`: what it asks for before it computes anything, and what it writes."""

from __future__ import annotations

import json
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from submission_tools import CODE, DOUBTFUL, STATEMENT, command, snapshot, submit, succeed, unpacked

from arena.errors import ArenaError, UsageError
from arena.submissions import make
from arena.submissions.bundle import Manifest, described, read_bundle, write_bundle
from arena.submissions.statement import Statement, read_statement


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def compute(*arguments: Any, **named: Any) -> None:
        raise AssertionError("it was computed")

    monkeypatch.setattr(make, "compute", compute)


def refused(*words: str) -> str:
    """What `arena submit` says to what it does not take; it computes and writes nothing."""
    before = snapshot(Path())
    done = command("submit", *words)
    assert isinstance(done.exception, UsageError), (done.output, done.exception)
    assert snapshot(Path()) == before
    return str(done.exception)


WORDS = ("s.yaml", "--entry", "remember", "--statement", "said.yaml")

# The statement


def test_the_template_is_to_be_filled_in(nothing_runs: None) -> None:
    assert "fill in t.yaml" in succeed("submit", "--template", "t.yaml")
    said = refused("s.yaml", "--entry", "remember", "--statement", "t.yaml", *CODE)
    assert said.startswith("t.yaml, line 4, author: it is empty: fill it in") and "and 6 more" in said
    assert "t.yaml is there" in refused("--template", "t.yaml")
    empty = yaml.safe_load(Path("t.yaml").read_text(encoding="utf-8"))
    assert list(empty) == list(Statement.model_fields) and set(empty.values()) == {None}


@pytest.mark.parametrize("field", STATEMENT)
def test_every_field_is_needed(field: str, nothing_runs: None) -> None:
    Path("said.yaml").write_text(yaml.safe_dump({k: v for k, v in STATEMENT.items() if k != field}), encoding="utf-8")
    assert f"said.yaml, line 1, {field}: the field is missing" in refused(*WORDS, *CODE)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("test_data_seen", "maybe", "'maybe' is not in the form asked for: Were test data"),
        ("test_data_seen", "yes", "'yes' is not in the form asked for"),
        ("signed_off_by", "Ann", "'Ann' is not in the form asked for: `Name <mail>`"),
        ("licence", 2, "it must be a text, in quotes"),
        ("author", "A" * 201, "at most 200 characters"),
        ("authro", "Ann", "there is no such field; did you mean 'author'?"),
    ],
)
def test_what_a_statement_says_is_checked(field: str, value: object, message: str, nothing_runs: None) -> None:
    Path("said.yaml").write_text(yaml.safe_dump({**STATEMENT, field: value}, sort_keys=False), encoding="utf-8")
    line = [*STATEMENT, field].index(field) + 1
    said = refused(*WORDS, *CODE)
    assert f"said.yaml, line {line}, {field}: " in said and message in said


def test_a_bare_no_is_an_answer() -> None:
    text = Path("said.yaml").read_text(encoding="utf-8")
    Path("said.yaml").write_text(text.replace("test_data_seen: 'no'", "test_data_seen: no"), encoding="utf-8")
    assert read_statement(Path("said.yaml"))[0].test_data_seen == "no"


# What else it asks for


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "name a suite, an entry and its statement"),
        (WORDS, "name the --wheel of doubtful"),
        ((*WORDS, "--repository", "https://x.org"), "--repository and --commit belong together"),
        ((*WORDS, "--repository", "x.org", "--commit", "c" * 40), "a repository is an https address"),
        ((*WORDS, *CODE, "--wheel", "x.whl"), "one of them is the code"),
        ((*WORDS, "--wheel", "x.whl"), "there is no file x.whl"),
        (("s.yaml", "--entry", "remembr", *WORDS[3:], *CODE), "is called 'remembr'; did you mean 'remember'"),
        (("s.yaml", "--entry", "flatten", *WORDS[3:], *CODE), "suite 's' asks for defense 'flatten' itself"),
        (("s.yaml", "--entry", "none", *WORDS[3:], *CODE), "'none' is a defense and an attack"),
        (("s.yaml", "--entry", "attack none", *WORDS[3:], *CODE), "asks for attack 'none' itself"),
        ((*WORDS, *CODE, "--against", "flatten"), "'remember' is a defense, which meets all attacks"),
        ((*WORDS, *CODE, "--label", "none"), "--label none is what boards call the control"),
        ((*WORDS, *CODE, "--config", "x=1"), "there is no setting 'x'"),
        (
            ("s.yaml", "--entry", "regenerate", *WORDS[3:], *CODE, "--against", "flaten"),
            "has no defense of this label; did you mean 'flatten'?",
        ),
        (
            ("s.yaml", "--entry", "regenerate", *WORDS[3:], *CODE, "--auxiliary", "0.5"),
            "attackers of suite 's' have 0 of the training size",
        ),
    ],
)
def test_what_it_does_not_take(words: tuple[str, ...], message: str, nothing_runs: None) -> None:
    assert message in refused(*words)


def test_somebody_elses_file_is_not_written_over(nothing_runs: None) -> None:
    Path("thesis.pdf").write_text("my work", encoding="utf-8")
    done = command("submit", *WORDS, *CODE, "--out", "thesis.pdf")
    assert isinstance(done.exception, ArenaError) and "is there and is not a bundle" in str(done.exception)
    assert Path("thesis.pdf").read_text(encoding="utf-8") == "my work"


def test_an_entry_that_fails_is_not_submitted() -> None:
    done = command("submit", "s.yaml", "--entry", "toy-raising", *WORDS[3:], *CODE, "--out", "b.zip")
    assert isinstance(done.exception, ArenaError) and not isinstance(done.exception, UsageError)
    assert "6 of 6 cells failed, such as toy-raising / none, seed 0: defense 'toy-raising': ValueError: the toy" in str(
        done.exception
    )
    assert not Path("b.zip").exists()


# What it writes


def test_a_bundle_has_what_others_need_and_the_same_bytes_every_time() -> None:
    bundle = submit("remember")
    files = unpacked(bundle)
    assert set(files) == {"manifest.json", "records.jsonl", "suite.json", "statement.yaml", "packages.txt"}
    lines = files["packages.txt"].decode().splitlines()
    names = [line.partition("==")[0] for line in lines]
    assert names == sorted(names) and f"numpy=={version('numpy')}" in lines and "doubtful==1.0" in lines
    assert files["statement.yaml"] == Path("said.yaml").read_bytes()
    read = read_bundle(bundle)
    made = make.write_bundle(
        Path("again.zip"), read.manifest, {name: content for name, content in files.items() if name != "manifest.json"}
    )
    assert made == read.digest and Path("again.zip").read_bytes() == bundle.read_bytes()


def test_records_that_hold_are_reused_and_none_are_written(toys: Path) -> None:
    from arena.records.submissions import records_file

    before = snapshot(Path("results"))
    bundle = submit("remember")
    assert snapshot(Path("results")) == before
    path = records_file(Path("results"), "s")
    path.parent.mkdir()
    path.write_bytes(unpacked(bundle)["records.jsonl"])
    toys.write_text("", encoding="utf-8")
    said = succeed("submit", *WORDS, *CODE, "--store", "fresh")
    assert "6 cells, 6 of them have a record that holds" in said and toys.read_text(encoding="utf-8") == ""
    assert Path("s-remember.zip").read_bytes() == bundle.read_bytes()


def wheel(folder: Path, **changes: bytes) -> Path:
    """A wheel of the doubtful package."""
    files = {"doubtful.py": (DOUBTFUL / "doubtful.py").read_bytes()}
    for file in (DOUBTFUL / "doubtful-1.0.dist-info").iterdir():
        files[f"doubtful-1.0.dist-info/{file.name}"] = file.read_bytes()
    path = folder / "doubtful-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as packed:
        for name, content in {**files, **changes}.items():
            packed.writestr(name, content)
    return path


def test_a_wheel_travels_with_the_bundle() -> None:
    path = wheel(Path())
    succeed("submit", *WORDS, "--wheel", str(path), "--out", "w.zip")
    assert unpacked(Path("w.zip"))[path.name] == path.read_bytes()
    assert read_bundle(Path("w.zip")).manifest.code.wheel == path.name
    assert succeed("verify", "w.zip", "--code", "code").split() == [f"code/{path.name}"]
    assert Path("code", path.name).read_bytes() == path.read_bytes()
    files = unpacked(Path("w.zip"))
    said = json.loads(files.pop("manifest.json"))
    files[path.name] = b"PK junk"
    said["files"] = {name: file.model_dump() for name, file in described(files).items()}
    write_bundle(Path("w.zip"), Manifest.model_validate(said), files)
    done = command("verify", "w.zip")
    assert isinstance(done.exception, UsageError) and "is no whole wheel" in str(done.exception)


def test_where_the_code_of_a_repository_is() -> None:
    bundle = submit("remember")
    assert succeed("verify", str(bundle), "--code", "code").split() == [f"git+https://example.org/doubtful@{'c' * 40}"]
    assert not Path("code").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"doubtful.py": b"# other code"}, "doubtful.py is not what is installed here"),
        ({"evil.py": b""}, "evil.py is not what is installed here"),
        ({"doubtful-1.0.dist-info/entry_points.txt": b""}, "does not declare defense 'remember', as doubtful does"),
        (
            {"doubtful-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: doubtful\nVersion: 2.0\n"},
            "is of doubtful 2.0, and 'remember' runs here from doubtful 1.0",
        ),
    ],
)
def test_a_wheel_of_other_code_is_refused(changes: dict[str, bytes], message: str, nothing_runs: None) -> None:
    assert message in refused(*WORDS, "--wheel", str(wheel(Path(), **changes)))


def test_a_wheel_that_is_none_is_refused(nothing_runs: None) -> None:
    Path("x.whl").write_bytes(b"nothing")
    assert "x.whl is no whole wheel" in refused(*WORDS, "--wheel", "x.whl")


def test_a_sequence_of_attacks_is_one_entry() -> None:
    bundle = read_bundle(submit("crispen+toy-shout", "--against", "flatten"))
    assert [part.package for part in bundle.manifest.entry.parts] == ["doubtful", "toys"]
    assert {record.attack.label for record in bundle.records} == {"crispen+toy-shout"} and len(bundle.records) == 9
