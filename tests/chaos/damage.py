"""Artifacts damaged bit by bit in a filled store: whatever of them is needed is found out and computed anew."""

from __future__ import annotations

import io
import random
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from rich.console import Console

from arena.engine.execute import RunReport, run
from arena.errors import ArenaError, describe_error
from arena.store.local import Store
from arena.suites.schema import load_suite
from tests.chaos.bench import Bench
from tests.chaos.campaign import Failure, Kind, Trial
from tests.chaos.toy_runs import SUITE, essence


def kind(bench: Bench, damages: int) -> Kind:
    """The kind: so many damages. Runs are in this process, which is quick; what is read and checked is the same."""
    return Kind("damaged-artifacts", damages, lambda seed: _attempt(bench, seed))


def _attempt(bench: Bench, seed: str) -> Trial:
    rng = random.Random(f"damaged-artifacts:{seed}")
    filled, wanted = _filled(bench.folder / "filled")
    folder = bench.folder / f"damaged-artifacts-{seed}"
    shutil.copytree(filled / "store", folder / "store")
    done = [rng.choice(_WAYS)(rng, folder / "store") for _ in range(rng.randint(1, 4))]
    shutil.copytree(folder / "store", folder / "damaged")
    try:
        problems = _problems(folder, wanted)
    except Exception as error:
        problems = [f"{type(error).__name__}: {error}"]
    kept = bench.keep(folder) if problems else ""
    shutil.rmtree(folder)
    told = f"({'; '.join(done)})"
    return Trial(len(done), [Failure(seed, [f"{problem} {told}" for problem in problems], kept)] if problems else [])


def _problems(folder: Path, wanted: dict[str, dict[str, Any]]) -> list[str]:
    try:
        report = _run(folder)
    except ArenaError as error:  # of the store as a whole, which is put right then
        if not describe_error(error).startswith("store "):
            return [f"the run ends: {describe_error(error)}"]
        (folder / "store" / "store.json").unlink()
        report = _run(folder)
    found = {record.cell: essence(record) for record in report.records}
    problems = []
    if found != wanted:
        differ = [f"{c[:12]}: {[n for n in r if r[n] != found.get(c, r)[n]]}" for c, r in wanted.items()]
        problems.append(f"other records, fields {', '.join(differ)}")
    store = Store(folder / "store")
    keys = report.plan.artifacts().keys
    problems += [f"{name} is not in the store" for name, key in keys.items() if store.get(key) is None]
    again = _run(folder)
    if again.computed or again.records != report.records:
        problems.append("a second run does something again")
    return problems


@cache
def _filled(folder: Path) -> tuple[Path, dict[str, dict[str, Any]]]:
    return folder, {record.cell: essence(record) for record in _run(folder).records}


def _run(folder: Path) -> RunReport:
    folder.mkdir(parents=True, exist_ok=True)
    suite = folder / "toy.yaml"
    suite.write_text(SUITE.replace("chaos-litter", "toy-noise"), encoding="utf-8")
    return run(
        load_suite(suite),
        store=folder / "store",
        results=folder / "toy.jsonl",
        scheduler="sync",
        isolated=False,
        console=Console(file=io.StringIO()),
    )


# Ways to damage a store; each says what it did


def _artifact(rng: random.Random, store: Path) -> Path:
    return rng.choice(sorted(path.parent for path in store.glob("??/*/manifest.json")) or [store])


def _file(rng: random.Random, store: Path) -> Path:
    return rng.choice(sorted(p for p in _artifact(rng, store).rglob("*") if p.is_file()) or [store / "store.json"])


def _named(path: Path) -> str:
    return "/".join(part[:12] for part in path.parts[-3:])


def _flip(rng: random.Random, store: Path) -> str:
    path = _file(rng, store)
    content = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 3) if content else 0):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    return f"bits flipped in {_named(path)}"


def _digit(rng: random.Random, store: Path) -> str:
    """What looks as right as before."""
    path = _file(rng, store)
    content = bytearray(path.read_bytes())
    if digits := [at for at, byte in enumerate(content) if byte in b"0123456789"]:
        content[rng.choice(digits)] = rng.choice(b"0123456789")
    path.write_bytes(content)
    return f"a digit changed in {_named(path)}"


def _truncate(rng: random.Random, store: Path) -> str:
    path = _file(rng, store)
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content) + 1)])
    return f"{_named(path)} truncated"


def _grow(rng: random.Random, store: Path) -> str:
    path = _file(rng, store)
    path.write_bytes(path.read_bytes() + rng.choice((b"\n", b"\0", b" ", b"x" * 1000)))
    return f"{_named(path)} grew"


def _zero(rng: random.Random, store: Path) -> str:
    path = _file(rng, store)
    path.write_bytes(b"\0" * path.stat().st_size)
    return f"{_named(path)} zeroed"


def _delete(rng: random.Random, store: Path) -> str:
    path = _file(rng, store)
    path.unlink()
    return f"{_named(path)} deleted"


def _delete_artifact(rng: random.Random, store: Path) -> str:
    path = _artifact(rng, store)
    if path != store:
        shutil.rmtree(path)
    return f"artifact {_named(path)} deleted"


def _swap_artifacts(rng: random.Random, store: Path) -> str:
    one, other = _artifact(rng, store), _artifact(rng, store)
    if store not in (one, other):
        _swap(one, other)
    return f"artifacts {_named(one)} and {_named(other)} swapped"


def _swap_files(rng: random.Random, store: Path) -> str:
    """Files of one name, if there are, so that nothing but digests can tell."""
    one = _file(rng, store)
    other = rng.choice(sorted(store.glob(f"??/*/**/{one.name}")) or [one])
    _swap(one, other)
    return f"files {_named(one)} and {_named(other)} swapped"


def _swap(one: Path, other: Path) -> None:
    if one != other:
        aside = one.with_name("aside")
        one.rename(aside)
        other.rename(one)
        aside.rename(other)


def _stray(rng: random.Random, store: Path) -> str:
    path = rng.choice((store / "partial" / "stray", _artifact(rng, store) / "stray.txt", store / "ab" / ("ab" * 32)))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("stray", encoding="utf-8")
    return f"{_named(path)} put there"


def _folder(rng: random.Random, store: Path) -> str:
    path = _file(rng, store)
    path.unlink()
    path.mkdir()
    return f"a folder instead of {_named(path)}"


def _mark(rng: random.Random, store: Path) -> str:
    path = store / "store.json"
    path.write_bytes(rng.choice((b"", b"{}", b"\xff", b"[" * 5000, b"1", b'{"schema_version": 99}')))
    return "store.json damaged"


_WAYS: tuple[Callable[[random.Random, Path], str], ...] = (
    *(_flip, _flip, _flip, _digit, _digit, _truncate, _grow, _zero, _delete, _delete_artifact),
    *(_swap_artifacts, _swap_artifacts, _swap_files, _swap_files, _stray, _folder, _mark),
)
