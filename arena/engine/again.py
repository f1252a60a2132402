"""Cells computed anew, in a store of their own, for whoever compares them with their records."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from arena.engine.execute import compute
from arena.engine.plan import plan
from arena.errors import ArenaError
from arena.plugins.registry import Registry
from arena.records.files import read_records
from arena.records.schema import Record
from arena.records.select import by_cell
from arena.store.local import Store
from arena.suites.schema import Suite


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for a fresh store, which is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="arena-again-") as folder:
        yield Path(folder)


def compute_again(
    suite: Suite, cells: Collection[str], registry: Registry, folder: Path, console: Console, workers: int | None = None
) -> dict[str, Record]:
    """The records of some cells of a suite, by name, from a store in `folder` that has nothing else in it."""
    whole = plan(suite, registry, Store(folder / "store"), apart=True)
    todo = [cell for cell in whole.cells if cell.key in cells]
    return compute(whole, todo, folder / f"{suite.id}.jsonl", console, workers=workers).records


def compute_at(
    revision: str, suite: Path, cells: Sequence[str], folder: Path, console: Console, workers: int | None = None
) -> dict[str, Record]:
    """The records of some cells of a suite's file, by name, computed by the code of a git revision of this checkout, on
    this machine. Raises `ArenaError` where there is no such revision, or its run fails."""
    code = folder / "code"
    if not code.exists():
        unpack(revision, code)
    results = folder / f"{suite.stem}.jsonl"
    words = ["run", str(suite.absolute()), "--store", str(folder / "store"), "--results", str(results)]
    words += [word for cell in cells for word in ("--cell", cell)]
    words += [] if workers is None else ["--workers", str(workers)]
    program = "from arena.cli.app import main; main()"
    console.print(f"the reference: {len(cells)} cells of {suite.stem} by the code of {revision}", markup=False)
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": _paths(code)},
        capture_output=True,
        text=True,
        check=False,
    )
    if not results.exists():
        raise ArenaError(
            f"the code of revision {revision} could not run suite {suite.stem}:\n{done.stderr.strip()[-2000:]}\n"
            "name another revision with --against, or a file of records made here by the code as it was"
        )
    return by_cell(read_records(results))


def _paths(code: Path) -> str:
    """The path of modules with that code before all else."""
    return os.pathsep.join(filter(None, [str(code), os.environ.get("PYTHONPATH")]))


def unpack(revision: str, folder: Path) -> None:
    """The checkout's files as of a git revision. Raises `ArenaError`."""
    root = Path(__file__).parents[2]
    try:
        packed = subprocess.run(
            ["git", "-C", str(root), "archive", "--format=tar", revision], capture_output=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", b"") or b""
        raise ArenaError(
            f"there is no git revision {revision!r} of this code here ({said.decode(errors='replace').strip()}): name "
            "one with --against, or a file of records made here by the code as it was"
        ) from error
    folder.mkdir(parents=True)
    archive = folder.with_suffix(".tar")
    archive.write_bytes(packed)
    with tarfile.open(archive) as files:
        files.extractall(folder, filter="data")
    archive.unlink()


def digests_at(revision: str, folder: Path) -> dict[str, str]:
    """Source digests of all plugins and of the engine, by name, in the code of a git revision; unpacks it to
    `folder`."""
    unpack(revision, folder / "code")
    program = """
import json
from contextlib import suppress
from arena.errors import ArenaError
from arena.plugins.registry import BASES, Registry
from arena.plugins.source import engine_digest
registry, found = Registry(), {"engine": engine_digest()}
for entry in [entry for kind in BASES for entry in registry.entries(kind) if entry.defect is None]:
    with suppress(ArenaError):  # it is installed now, and that revision has no such module
        found[f"{entry.kind} {entry.id}"] = entry.source_digest()
print(json.dumps(found))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": _paths(folder / "code")},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return {}
    found: dict[str, str] = json.loads(done.stdout)
    return found
