"""What is fuzzed: by name, the inputs and the functions of the library that must take or refuse them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from tests.chaos import pictures
from tests.chaos.strategies import altered, edited, json_bytes, leaves, texts, values
from tests.chaos.toy_runs import ROOT

RECORDS = ROOT / "leaderboards" / "records" / "v1"
SUITES = ROOT / "leaderboards" / "suites"


@dataclass(frozen=True)
class Input:
    """Files by their relative paths, and what else a function is given."""

    files: Mapping[str, bytes]
    given: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """Inputs, and the check that gets their folder: an `ArenaError` is an answer, everything else is not."""

    share: float
    inputs: Callable[[], st.SearchStrategy[Input]]
    check: Callable[[Path, Mapping[str, Any]], object]
    loads: bool = False
    """Whether it loads plugins, which takes a while the first time."""


# Suites

_FIELDS = (
    *("id", "title", "description", "models", "datasets", "surrogates", "defenses", "attacks", "recipes", "budgets"),
    *(
        "auxiliary",
        "seeds",
        "skip",
        "limits",
        "tiny",
        "config",
        "label",
        "train",
        "test",
        "seed",
        "image",
        "text",
        "norm",
        "forbid_answer_words",
    ),
    *("stage_minutes", "stage_memory_gb", "stage_output_gb", "samples", "settings", "cover", "rounds", "epsilon", "1"),
)
_IDS = (
    "none",
    "random",
    "em",
    "lsp",
    "mem",
    "jpeg",
    "jpeg+case",
    "mix",
    "lora",
    "full",
    "glyphs",
    "digits",
    "tiny-llava",
)


def _suite_inputs() -> st.SearchStrategy[Input]:
    shipped = [path.read_bytes() for path in sorted(SUITES.glob("*.yaml"))]
    shipped.sort(key=len)
    small = shipped[:6]
    data = [yaml.safe_load(content) for content in small]
    wild = st.fixed_dictionaries(
        {},
        optional={
            name: st.one_of(st.lists(st.sampled_from(_IDS), max_size=3), values(_FIELDS)) for name in _FIELDS[:15]
        },
    )
    content = st.one_of(
        edited(shipped[:8]),
        edited([_dumped(one) for one in data]),
        altered(data, _FIELDS).map(_dumped),
        altered(data, _FIELDS).map(_dumped),
        altered(data, _FIELDS).map(json_bytes),
        wild.map(_dumped),
        values(_FIELDS).map(_dumped),
    )
    return st.builds(lambda content: Input({"suite.yaml": content}), content)


def _dumped(data: Any) -> bytes:
    try:
        text = yaml.dump(data, Dumper=_DUMPER, allow_unicode=True, sort_keys=False)
    except (ValueError, RecursionError):
        return json_bytes(data)
    return str(text).encode("utf-8", "surrogatepass")


_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def _check_suite(folder: Path, given: Mapping[str, Any]) -> object:
    from arena.plugins.registry import installed
    from arena.suites.schema import digest, load_suite
    from arena.suites.validation import validate

    suite = load_suite(folder / "suite.yaml")
    digest(suite)
    list(islice(suite.combinations(), 1000))
    validate(suite, installed())
    return suite


# Settings on the command line

_PLUGINS = (
    *(("defense", "em"), ("defense", "mmguard-bph"), ("attack", "jpeg"), ("attack", "onion"), ("recipe", "lora")),
    *(("dataset", "imagefolder"), ("dataset", "realworldqa"), ("model", "qwen3-vl-2b"), ("model", "tiny-llava")),
)


def _setting_inputs() -> st.SearchStrategy[Input]:
    words = [b"5", b"0.1", b"[1, 2]", b"{a: 1}", b"true", b"'x'", b"2001-01-01", b"!!int 5", b"folder/x"]
    value = st.one_of(edited(words), values().map(_dumped), leaves.map(_dumped))
    return st.builds(
        lambda value, plugin, number: Input({"value": value}, {"plugin": plugin, "number": number}),
        *(value, st.sampled_from(_PLUGINS), st.integers(0, 40)),
    )


def _check_setting(folder: Path, given: Mapping[str, Any]) -> object:
    from arena.plugins.registry import installed
    from arena.suites.yaml_lines import read_value

    kind, id = given["plugin"]
    word = (folder / "value").read_bytes().decode(errors="surrogateescape").replace("\0", "")  # as from a shell
    names = list(installed().get(kind, id).load().Config.model_fields) or ["x"]
    name = names[given["number"] % len(names)]
    return installed().configure(kind, id, {name: read_value(word)})


# Metadata of folders

_COLUMNS = ("file_name", "id", "question", "answer", "aliases", "choices", "prompt", "label", "source", "scoring", "1")
_ROWS = [
    {
        "file_name": "a.png",
        "id": "one",
        "question": "what is it?",
        "answer": "a",
        "aliases": ["A"],
        "choices": ["a", "b"],
    },
    {"file_name": "b.jpg", "id": "two", "question": "what is it?", "answer": "b", "aliases": [], "choices": []},
    {"file_name": "sub/c.webp", "id": "three", "question": "und dies, bitte, \u00fc?", "answer": "c"},
]


def _pictures() -> dict[str, bytes]:
    known = pictures.samples()
    named = {"a.png": ".png", "b.jpg": ".jpg", "sub/c.webp": ".webp"}
    return {name: next(content for s, content in known if s == suffix) for name, suffix in named.items()}


def _lines(rows: Any) -> bytes:
    rows = rows if isinstance(rows, list) else [rows]
    return b"\n".join(json_bytes(row) for row in rows) + b"\n"


def _table(rows: Any) -> bytes:
    rows = [row for row in (rows if isinstance(rows, list) else [rows]) if isinstance(row, dict)]
    names = list(dict.fromkeys(str(name) for row in rows for name in row))
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(names)
    for row in rows:
        cells = (row.get(name) for name in names)
        writer.writerow([json.dumps(c) if isinstance(c, list | dict) else c for c in cells])
    return buffer.getvalue().encode("utf-8", "surrogatepass")


def _metadata_inputs() -> st.SearchStrategy[Input]:
    files = _pictures()
    rows = altered([_ROWS], _COLUMNS)
    mapping = st.one_of(
        st.just({}),
        st.just({}),
        st.dictionaries(st.sampled_from(_COLUMNS), st.one_of(st.sampled_from(_COLUMNS), texts)),
    )

    def build(name: str, content: bytes, columns: Mapping[str, str], scoring: str) -> Input:
        return Input({**files, name: content}, {"columns": columns, "scoring": scoring})

    scorings = st.sampled_from(("normalized", "normalized", "normalized", "exact", "choice"))
    return st.one_of(
        st.builds(
            build, st.just("metadata.jsonl"), st.one_of(rows.map(_lines), edited([_lines(_ROWS)])), mapping, scorings
        ),
        st.builds(
            build, st.just("metadata.csv"), st.one_of(rows.map(_table), edited([_table(_ROWS)])), mapping, scorings
        ),
    )


def _check_folder(folder: Path, given: Mapping[str, Any]) -> object:
    from arena.data.folder import read_imagefolder
    from arena.data.imagefolder import ImageFolder
    from arena.plugins.registry import installed

    config = {"source": str(folder), "columns": given.get("columns", {}), "scoring": given.get("scoring", "normalized")}
    dataset = ImageFolder(installed().configure("dataset", "imagefolder", config))
    dataset.fingerprint()
    read_imagefolder(folder, given.get("columns") or None)
    return dataset.load(1, 0, 1, 0)


# Picture files

_SIZES = st.one_of(st.integers(0, 20), st.sampled_from((4096, 8192, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1)))
_BOMBS = (
    *((8192, 8192, 6, 8), (8192, 8192, 2, 8), (8192, 8192, 0, 16), (8192, 8192, 3, 1), (8192, 8192, 4, 16)),
    *((8193, 8192, 6, 8), (30000, 30000, 0, 1), (2**26, 1, 0, 8), (1, 2**20, 6, 16), (8192, 8192, 6, 16)),
)


def _picture_inputs() -> st.SearchStrategy[Input]:
    known = pictures.samples()
    suffixes = [suffix for suffix, _ in known]
    contents = [content for _, content in known]

    def build(suffix: str, content: bytes, mend: bool, size: tuple[int, int] | None) -> Input:
        content = content if size is None else pictures.sized(content, *size)
        return Input({f"picture{suffix}": pictures.mended(content) if mend else content})

    size = st.one_of(st.none(), st.none(), st.none(), st.tuples(_SIZES, _SIZES))
    plain = st.builds(build, st.sampled_from(suffixes), edited(contents, most=4), st.booleans(), size)
    large = st.one_of(
        st.sampled_from(_BOMBS).map(lambda shape: Input({"picture.png": pictures.bomb(*shape)})),
        st.sampled_from((b"zTXt", b"iTXt", b"iCCP")).map(lambda name: Input({"picture.png": pictures.text_bomb(name)})),
    )
    return st.integers(0, 199).flatmap(lambda number: large if number == 199 else plain)


def _check_picture(folder: Path, given: Mapping[str, Any]) -> object:
    from arena.data.folder import read_imagefolder
    from arena.data.pictures.decode import decode
    from arena.errors import ArenaError

    path = next(path for path in folder.iterdir() if path.stem == "picture")
    row = {"file_name": path.name, "question": "?", "answer": "!"}
    (folder / "metadata.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    try:
        decode(io.BytesIO(path.read_bytes()), "the picture", (16, 12))
    except ArenaError as error:
        str(error).encode()
    return read_imagefolder(folder)


# Records, and what is said of them

_RECORD_FIELDS = ("status", "failure", "outcome", "zero_shot", "cell", "accuracy", "items", "correct", "schema_version")


def _record_inputs() -> st.SearchStrategy[Input]:
    lines: list[bytes] = []
    for path in sorted(RECORDS.glob("*.jsonl")):
        found = path.read_bytes().splitlines()
        if path.name not in ("accepted.jsonl", "verifications.jsonl"):
            lines += found[:: max(1, len(found) // 3)][:3]
    accepted = (RECORDS / "accepted.jsonl").read_bytes().splitlines()[:3]
    verified = (RECORDS / "verifications.jsonl").read_bytes().splitlines()[:3]

    def several(known: list[bytes], keys: tuple[str, ...]) -> st.SearchStrategy[bytes]:
        data = [json.loads(line) for line in known]
        changed = st.one_of(altered(data, keys).map(json_bytes), edited(known))
        end = st.sampled_from((b"\n", b"\n", b"", b"\r\n", b"\n\n", b" "))
        return st.builds(
            lambda line, other, end: (other + b"\n" if other else b"") + line + end,
            *(changed, st.sampled_from([b"", *known]), end),
        )

    records = several(lines, _RECORD_FIELDS)
    board = st.integers(0, 19).map(lambda number: number == 0)
    return st.one_of(
        *[st.builds(lambda c, b: Input({"toy.jsonl": c}, {"board": b}), records, board)] * 3,
        st.builds(lambda content: Input({"accepted.jsonl": content}), several(accepted, ("digests", "proof"))),
        st.builds(lambda content: Input({"verifications.jsonl": content}), several(verified, ("cell", "agrees"))),
    )


def _check_records(folder: Path, given: Mapping[str, Any]) -> object:
    from arena.records import verify
    from arena.records.accept import Standing
    from arena.records.files import read_records
    from arena.records.select import by_cell, latest
    from leaderboards.tables.board import board

    Standing.read(folder)
    verify.read(folder, protocol_version=1)
    if not (folder / "toy.jsonl").exists():
        return None
    records = read_records(folder / "toy.jsonl")
    by_cell(records)
    if given["board"] and records:
        board(latest(records))
    return records


# Releases, and the drafts that a defense leaves


@cache
def _release() -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    known = [content for suffix, content in pictures.samples() if suffix == ".png"][:3]
    rows = [
        {
            "file_name": f"{i:06d}.png",
            "id": f"s{i}",
            "question": "what?",
            "answer": "a",
            "aliases": ["b"],
            "choices": [],
        }
        for i in range(len(known))
    ]
    files = {f"{i:06d}.png": content for i, content in enumerate(known)}
    return files, rows


def _release_inputs() -> st.SearchStrategy[Input]:
    files, rows = _release()
    whole = {**files, "metadata.jsonl": _lines(rows), "questions.json": json_bytes(["what?", "why?", "who?"])}
    names = sorted(whole)

    def build(name: str, content: bytes | None, other: str) -> Input:
        changed = {k: v for k, v in whole.items() if k != name}
        if content is None:  # gone, or another's
            return Input(changed if other == name else {**changed, name: whole[other]})
        return Input({**changed, name: content})

    per_file = st.sampled_from(names).flatmap(
        lambda name: st.builds(
            build, st.just(name), st.one_of(edited([whole[name]]), st.none()), st.sampled_from(names)
        )
    )
    rows_altered = altered([rows], _COLUMNS).map(lambda data: Input({**whole, "metadata.jsonl": _lines(data)}))
    asked = altered([["what?", "why?", "who?"]], ()).map(lambda d: Input({**whole, "questions.json": json_bytes(d)}))
    return st.one_of(per_file, rows_altered, asked)


def _check_release(folder: Path, given: Mapping[str, Any]) -> object:
    from PIL import Image

    from arena.data.sample import Sample
    from arena.errors import ArenaError
    from arena.release import read_drafts, read_release

    originals = [Sample(f"s{i}", Image.new("RGB", (16, 12)), "what?", "a") for i in range(3)]
    try:
        read_drafts(folder, originals)
    except ArenaError as error:
        str(error).encode()
    return read_release(folder)


# A store's manifests

_KEY = "ab" * 32


def _store_inputs() -> st.SearchStrategy[Input]:
    manifest = {
        "schema_version": 1,
        "key": _KEY,
        "kind": "release",
        "document": {"seed": 0},
        "files": {"x.json": {"size": 2, "sha256": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}},
        "digest": "0" * 64,
        "seconds": 1.0,
        "peak_memory_mb": 1.0,
        "environment": {},
        "created": "2026-01-01T00:00:00+00:00",
    }
    place = f"{_KEY[:2]}/{_KEY}"
    whole = {
        f"{place}/manifest.json": json_bytes(manifest),
        f"{place}/x.json": b"{}",
        "store.json": b'{"schema_version": 1}',
    }
    keys = tuple(manifest)
    changed = {
        f"{place}/manifest.json": st.one_of(altered([manifest], keys).map(json_bytes), edited([json_bytes(manifest)])),
        "store.json": st.one_of(values(("schema_version",)).map(json_bytes), edited([whole["store.json"]])),
    }
    return st.one_of(
        *[made.map(lambda content, name=name: Input({**whole, name: content})) for name, made in changed.items()]
    )


def _check_store(folder: Path, given: Mapping[str, Any]) -> object:
    from arena.store.local import Store

    store = Store(folder)
    list(store.manifests())
    store.look(_KEY)
    store.verify(_KEY)
    return store.get(_KEY)


TARGETS: dict[str, Target] = {
    "fuzz-suites": Target(0.2, _suite_inputs, _check_suite, loads=True),
    "fuzz-settings": Target(0.1, _setting_inputs, _check_setting, loads=True),
    "fuzz-metadata": Target(0.2, _metadata_inputs, _check_folder),
    "fuzz-pictures": Target(0.2, _picture_inputs, _check_picture),
    "fuzz-records": Target(0.15, _record_inputs, _check_records),
    "fuzz-releases": Target(0.1, _release_inputs, _check_release),
    "fuzz-stores": Target(0.05, _store_inputs, _check_store),
}
