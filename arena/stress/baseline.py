"""What a protection is compared with: a file of records, or what the code of a git revision makes of the same suite."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from rich.console import Console

from arena.errors import ArenaError, UsageError
from arena.paths import is_file
from arena.records.files import read_records
from arena.records.schema import Record
from arena.records.select import latest
from arena.suites.schema import Suite
from arena.text import shortened


def is_records(named: str) -> bool:
    """Whether a baseline's name is that of a file, there or not, and no git revision."""
    return named.endswith(".jsonl") or is_file(named)


def read_baseline(named: str) -> list[Record]:
    """The records that count of a file. Raises `UsageError` where there is none, `ArenaError` where one is damaged."""
    if not is_file(named):
        raise UsageError(
            f"baseline {shortened(named, 400)} does not exist: name a JSONL file of records, or a git revision"
        )
    found = latest(read_records(Path(named)))
    if not found:
        raise UsageError(f"baseline {shortened(named, 400)} holds no record: name a file that a run wrote")
    return found


class Revision:
    """A git revision of the checkout that lies around the current folder. Raises `UsageError` where there is none."""

    def __init__(self, named: str) -> None:
        self.named = named
        top = _git("rev-parse", "--show-toplevel")
        commit = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{named}^{{commit}}")
        if top is None or commit is None:
            where = "in the checkout here" if top else ", for there is no git checkout here"
            raise UsageError(
                f"baseline {shortened(named, 200)!r} is no file and no git revision{' ' if top else ''}{where}: name a "
                "JSONL file of records, or a branch, tag or commit (a shallow clone has few: fetch it first)"
            )
        self.top, self.commit = Path(top), commit

    def unpack(self, folder: Path) -> None:
        """The files as they were, in a new folder. Raises `ArenaError`."""
        archive = folder.with_suffix(".tar")
        done = subprocess.run(
            ["git", "-C", str(self.top), "archive", "--format=tar", "--output", str(archive), self.commit],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ArenaError(f"git cannot give the files of {self.named!r}: {done.stderr.strip()}")
        folder.mkdir()
        with tarfile.open(archive) as files:
            files.extractall(folder, filter="data")
        archive.unlink()

    def within(self, path: str | Path, folder: Path) -> Path | None:
        """Where a path of the checkout is among the unpacked files; None where it is not."""
        real = Path(path).resolve()
        if not real.is_relative_to(self.top.resolve()):
            return None
        found = folder / real.relative_to(self.top.resolve())
        return found if found.exists() else None


def run_at(
    revision: Revision,
    code: Path,
    suite: Suite,
    results: Path,
    store: str,
    console: Console,
    workers: int | None = None,
) -> list[Record]:
    """The records of a suite by the code of a revision, which is unpacked in `code`: what of it can be imported stands
    before what is installed. They are kept in `results`, so that asking again computes nothing. Raises `ArenaError`
    where it cannot run."""
    with tempfile.TemporaryDirectory(prefix="arena-baseline-") as folder:
        file = Path(folder) / f"{suite.id}.yaml"
        file.write_text(json.dumps(suite.model_dump(mode="json")), encoding="utf-8")  # JSON is YAML
        words = ["run", str(file), "--store", store, "--results", str(results.absolute())]
        words += [] if workers is None else ["--workers", str(workers)]
        console.print(f"the baseline: suite {suite.id} by the code of {revision.named} ({revision.commit[:12]})")
        done = subprocess.run(
            [sys.executable, "-c", "from arena.cli.app import main; main()", *words],
            cwd=revision.within(Path.cwd(), code) or code,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(_importable(revision, code))},
            capture_output=True,
            text=True,
            check=False,
        )
    if not results.exists():
        raise ArenaError(
            f"the code of {revision.named!r} could not run suite {suite.id!r}: {shortened(done.stderr.strip(), 2000)}\n"
            "name another revision with --compare, or a file of records"
        )
    return latest(read_records(results))


def _importable(revision: Revision, code: Path) -> list[str]:
    """Where modules are looked for: in the unpacked files, in `src` among them and wherever that is done in the
    checkout, then as usual."""
    here = [found for entry in sys.path if entry and (found := revision.within(entry, code)) is not None]
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return list(dict.fromkeys(map(str, filter(None, (code, code / "src", *here, *given)))))


def _git(*words: str) -> str | None:
    """What git says in the current folder; None where it fails or is not there."""
    try:
        done = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
