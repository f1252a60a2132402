"""A board of the doubtful plugins, whose records are computed once, and bundles for it."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from learner import answer, learn
from pydantic import ValidationError
from rich.console import Console
from suites import toy_suite
from typer.testing import CliRunner

from arena.cli.app import app
from arena.engine import again
from arena.engine.execute import compute, run
from arena.engine.stages import FineTune, Score
from arena.plugins import card
from arena.plugins.registry import Kind, Registry
from arena.records.schema import Record
from arena.submissions import make
from arena.submissions.bundle import Manifest, described, means_of, write_bundle

DOUBTFUL = Path(__file__).parent / "doubtful"
CODE = ("--repository", "https://example.org/doubtful", "--commit", "c" * 40)
STATEMENT = {
    "author": "Ann Example",
    "contact": "ann@example.org",
    "method": "Draws the public data again.",
    "paper": "none",
    "threat_model": "A fine-tuner who knows where the data come from.",
    "knowledge": "The generator of the data and its seed.",
    "tuning_data": "none",
    "test_data_seen": "no",
    "licence": "Apache-2.0",
    "signed_off_by": "Ann Example <ann@example.org>",
}

_MADE: dict[tuple[str, ...], Mapping[str, bytes]] = {}
"""Files that a command left, by its words: the same commands are run once."""


_CARDS: dict[str, Any] = {}
_ASKED = card._asked


def remembered(registry: Registry, kind: Kind, id: str, config: Mapping[str, Any]) -> Any:
    """What a plugin says of itself in a process of its own, which takes one start of a process in all tests."""
    key = repr((kind, id, sorted(config.items())))
    if key not in _CARDS:
        _CARDS[key] = _ASKED(registry, kind, id, config)
    return _CARDS[key]


def command(*words: str) -> Result:
    return CliRunner().invoke(app, list(words), env={"COLUMNS": "300"})


def succeed(*words: str) -> str:
    done = command(*words)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def submit(entry: str, *words: str, out: str = "b.zip") -> Path:
    """A bundle of an entry, signed off by Ann."""
    key = ("submit", entry, *words)
    if key not in _MADE:
        succeed("submit", "s.yaml", "--entry", entry, *CODE, "--statement", "said.yaml", "--out", out, *words)
        _MADE[key] = {"": Path(out).read_bytes()}
    Path(out).write_bytes(_MADE[key][""])
    return Path(out)


@pytest.fixture(autouse=True)
def board(toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the suite's file, its records and board, and a statement; commands run there, in this process."""
    monkeypatch.syspath_prepend(str(DOUBTFUL))
    monkeypatch.setattr(card, "_asked", remembered)
    monkeypatch.setattr(FineTune, "run", learn)
    monkeypatch.setattr(Score, "run", answer)
    for module in (make, again):
        monkeypatch.setattr(module, "compute", partial(compute, scheduler="sync", isolated=False))
    return published(tmp_path / "here", monkeypatch)


def published(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Such a folder, which becomes the working directory."""
    folder.mkdir()
    monkeypatch.chdir(folder)
    fields: dict[str, Any] = {
        "id": "s",
        "datasets": [{"id": "shaded", "train": 40, "test": 60}],
        "defenses": ["none", "random", "flatten"],
        "attacks": ["none", "crispen"],
        "seeds": [0, 1, 2],
    }
    Path("s.yaml").write_text(toy_suite(**fields).model_dump_json(), encoding="utf-8")
    Path("said.yaml").write_text(yaml.safe_dump(STATEMENT), encoding="utf-8")
    if ("run",) not in _MADE:
        quiet = Console(file=io.StringIO())
        done = run("s.yaml", store="store", results="results/s.jsonl", scheduler="sync", isolated=False, console=quiet)
        assert not done.failed
        succeed("board", "s.yaml", "--results", "results/s.jsonl")
        _MADE["run",] = {path.name: path.read_bytes() for path in Path("results").iterdir()}
    Path("results").mkdir(exist_ok=True)
    for name, content in _MADE["run",].items():
        Path("results", name).write_bytes(content)
    return folder


def unpacked(bundle: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(bundle) as packed:
        return {name: packed.read(name) for name in packed.namelist()}


def forged(
    bundle: Path, change: Callable[[dict[str, Any]], None], name: str = "records.jsonl", **manifest: Any
) -> None:
    """Change every line of a file, and the digests with it, so that only computing again can tell."""
    files = unpacked(bundle)
    said = json.loads(files.pop("manifest.json")) | manifest
    lines = [json.loads(line) for line in files[name].splitlines()]
    for line in lines:
        change(line)
    files[name] = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
    with suppress(ValidationError):  # what is no record has no means
        said["stealth"], said["cost"] = means_of([Record.model_validate(line) for line in lines])
    said["files"] = {name: file.model_dump() for name, file in described(files).items()}
    write_bundle(bundle, Manifest.model_validate(said), files)


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but for locks."""
    paths = (path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".lock"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}
