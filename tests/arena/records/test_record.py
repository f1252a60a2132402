"""Records: validated both ways, appended whole, read with errors that name the line."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from arena.errors import ArenaError
from arena.plugins.identity import identity
from arena.records.files import append_record, read_records
from arena.records.schema import Epoch, Outcome, Record


def plugin(name: str, **fields: Any) -> dict[str, Any]:
    origin = {"package": "mmguard-arena", "version": "0.1.0"}
    return {
        **{"id": name, "version": "1", "config": {"q": 10}, "runtime": {}, "fingerprint": None},
        **{"source_digest": "aa", "origin": origin, **fields},
    }


def raw(**changes: Any) -> dict[str, Any]:
    correct = Outcome.pack([True, False, True]).model_dump()
    model = plugin("tiny-llava", fingerprint="m", family="llava")
    made = {
        "schema_version": 2,
        "identity_version": 1,
        "protocol_version": 1,
        "suite": {"id": "quick", "digest": "00"},
        "status": "done",
        "failure": None,
        "dataset": plugin("glyphs", train=4, auxiliary=0, test=3, seed=1, convention="exact", samples="f"),
        "model": model,
        "defense": plugin("em", label="em", surrogates=[model]),
        "attack": {"label": "jpeg+case", "parts": [plugin("jpeg"), plugin("case", config={})]},
        "recipe": plugin("lora", label="lora"),
        "knowledge": "white-box",
        "budget": {"norm": "linf", "image": 8, "text": 5},
        "auxiliary": 0,
        "seed": 0,
        "zero_shot": correct,
        "outcome": correct,
        "peak_accuracy": 1.0,
        "chosen_epoch": 1,
        "epochs": [],
        "stealth": {"psnr": 31.0},
        "cost": {"protect": None, "purify": None, "finetune": None, "machine": "2 cores"},
        "diagnostics": {},
        "lineage": dict.fromkeys(("clean", "release", "purified", "checkpoint", "score")),
        "environment": {
            "packages": {"numpy": "2"},
            "git_commit": None,
            "git_dirty": None,
            "device": "cpu",
            "threads": 2,
            "nondeterminism": [],
        },
        "engine_digest": "ee",
        "created": "2026-01-01T00:00:00+00:00",
        **changes,
    }
    return {"cell": identity(made), **made}


FAILURE = {"stage": "release", "error": "boom", "traceback": "..."}


@pytest.mark.parametrize("items", [1, 7, 8, 9, 300])
def test_bits_survive_packing(items: int) -> None:
    bits = np.random.default_rng(items).random(items) < 0.4
    outcome = Outcome.model_validate_json(Outcome.pack(bits, {"exact": 0.5}).model_dump_json())
    assert np.array_equal(outcome.unpack(), bits)
    assert outcome.accuracy == bits.mean()
    assert outcome.metrics == {"exact": 0.5}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"accuracy": 0.5}, "not the mean"),
        ({"items": 9}, "exactly 9 items"),
        ({"correct": "?"}, "base64"),
        ({"correct": base64.b64encode(b"\xa1").decode()}, "exactly 3 items"),
    ],
)
def test_bits_that_disagree_are_refused(change: dict[str, Any], message: str) -> None:
    good = Outcome.pack([True, False, True]).model_dump()
    with pytest.raises(ValidationError, match=message):
        Outcome.model_validate({**good, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"surprise": 1},
        {"seed": "0"},
        {"seed": -1},
        {"cell": "not hex"},
        {"cell": "ab" * 32},
        {"knowledge": "grey-box"},
        {"outcome": None},
        {"failure": FAILURE},
        {"status": "failed"},
        {"status": "failed", "outcome": None},
        {"outcome": Outcome.pack([True]).model_dump()},
        {"schema_version": 1},
        {"identity_version": 2},
        {"attack": {"label": "none", "parts": []}},
        {"budget": {"norm": "linf", "image": float("inf"), "text": 5}},
    ],
)
def test_wrong_records_are_refused(change: dict[str, Any]) -> None:
    Record.model_validate(raw())
    with pytest.raises(ValidationError):
        Record.model_validate(raw(**change))


def test_infinite_measurements_become_null_and_survive() -> None:
    record = Record.model_validate(raw(stealth={"psnr": float("inf")}, diagnostics={"eta": float("nan"), "tv": 0.5}))
    again = Record.model_validate_json(record.model_dump_json())
    assert again == record
    assert again.stealth == {"psnr": None}
    assert again.diagnostics == {"eta": None, "tv": 0.5}
    epoch = Epoch(loss=float("nan"), held_out_accuracy=0.0, held_out_loss=1.0, test_accuracy=None)
    assert epoch.loss is None


def test_append_and_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "results" / "quick.jsonl"
    records = [
        Record.model_validate(raw(seed=0)),
        Record.model_validate(raw(seed=1, status="failed", outcome=None, failure=FAILURE)),
    ]
    for record in records:
        append_record(path, record)
    assert read_records(path) == records
    assert path.read_bytes().count(b"\n") == 2


def test_torn_last_line_is_skipped_then_replaced(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    first, second = (Record.model_validate(raw(seed=seed)) for seed in (0, 1))
    append_record(path, first)
    with path.open("ab") as file:
        file.write(second.model_dump_json().encode()[:500])
    assert read_records(path) == [first]
    append_record(path, second)
    assert read_records(path) == [first, second]


def test_file_that_is_one_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{"schema_ver')
    assert read_records(path) == []
    append_record(path, Record.model_validate(raw()))
    assert len(read_records(path)) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{oops", "line 2: not JSON.*run the suite again"),
        ("\udcff", "line 2: not JSON"),
        (json.dumps(raw(schema_version=7)), "line 2: schema version 7, but this arena reads version 2"),
        (json.dumps(raw(schema_version=1)), r"line 2: schema version 1, .*`arena migrate .*r\.jsonl` rewrites"),
        ("[]", "line 2: it is no record, or a damaged one; name another file"),
        ("{}", "line 2: it is no record, or a damaged one"),
        ('{"a": 1}', "line 2: it is no record, or a damaged one"),
        ("Dear diary,", "line 2: not JSON, so no record, or a damaged one; name another file"),
        ("[" * 100_000, "line 2: not JSON"),
        (json.dumps(raw(schema_version={"a": "\x1b[31m"})), "line 2: schema version of another kind"),
        (json.dumps(raw(**{"\x1b[31m": 1})), r"line 2: \\x1b\[31m: "),
        (json.dumps(raw(auxiliary=-1)), "line 2: auxiliary: .*greater than or equal to 0"),
        (json.dumps(raw(surprise=1)), "line 2: surprise: "),
    ],
)
def test_unreadable_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "r.jsonl"
    good = Record.model_validate(raw()).model_dump_json()
    path.write_bytes(f"{good}\n{line}\n{good}\n".encode(errors="surrogateescape"))
    with pytest.raises(ArenaError, match=rf"(?s)r\.jsonl, {message}"):
        read_records(path)


def test_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ArenaError, match="run the suite first"):
        read_records(tmp_path / "none.jsonl")


def test_full_disk_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.jsonl"
    record = Record.model_validate(raw())
    append_record(path, record)
    before = path.read_bytes()

    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("arena.records.files.os.fsync", full)
    with pytest.raises(ArenaError, match=rf"{record.cell[:12]}.*No space left.*has space"):
        append_record(path, record)
    assert path.read_bytes() == before
