"""The command: ``python -m tests.chaos [--kills N] [--inputs N] [--seed N] [--minutes M] [--only KINDS]``."""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
import tempfile
from fnmatch import fnmatch
from pathlib import Path

from rich.console import Console

from tests.chaos.campaign import Kind, campaign, counts, show
from tests.chaos.toy_runs import PLUGINS, ROOT


def main() -> int:
    """Run a campaign, or one trial again; 1 if something failed."""
    given = _options()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    folder = Path(tempfile.mkdtemp(prefix="arena-chaos-"))
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.path[1:1] = map(str, PLUGINS)
    logging.getLogger("arena").setLevel(logging.CRITICAL)
    try:
        kinds = _kinds(folder, given)
        if given.again:
            return _again(kinds, given.again, console)
        before = _source()
        try:
            campaign(kinds, given.seed, given.minutes, console, lambda: _source() == before)
        except KeyboardInterrupt:
            console.print("interrupted; what there was until now:")
        return 0 if counts(kinds, console) else 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="A crash campaign; prints counts.")
    parser.add_argument("--kills", type=int, default=30, help="kills and signals (default 30)")
    parser.add_argument("--inputs", type=int, default=1000, help="fuzzed inputs (default 1000)")
    parser.add_argument("--damages", type=int, help="damages to artifacts (default: as many as kills)")
    parser.add_argument("--disks", type=int, help="full disks (default: a tenth of the kills)")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn (default 0)")
    parser.add_argument("--minutes", type=float, default=60, help="begin no trial after so long (default 60)")
    parser.add_argument("--only", default="*", help="kinds by patterns, such as 'kill-*,sigint' (default all)")
    parser.add_argument("--again", metavar="KIND:SEED", help="one trial alone, as a failure names it")
    parser.add_argument("--kept", type=Path, default=ROOT / "build" / "chaos", help="where failures are kept")
    return parser.parse_args()


def _kinds(folder: Path, given: argparse.Namespace) -> list[Kind]:
    from tests.chaos import damage, disk, fuzz, kills
    from tests.chaos.bench import Bench

    bench = Bench(folder, given.kept)
    damages = given.kills if given.damages is None else given.damages
    disks = -(-given.kills // 10) if given.disks is None else given.disks
    every = [
        *(kills.kinds(bench, given.kills) if given.kills or given.again else []),
        *([disk.kind(bench, disks)] if disks or given.again else []),
        *([damage.kind(bench, damages)] if damages or given.again else []),
        *(fuzz.kinds(bench, given.inputs) if given.inputs or given.again else []),
    ]
    patterns = given.only.split(",")
    return [kind for kind in every if any(fnmatch(kind.name, pattern) for pattern in patterns)]


def _again(kinds: list[Kind], what: str, console: Console) -> int:
    name, _, seed = what.partition(":")
    for kind in kinds:
        if kind.name == name:
            trial = kind.attempt(seed)
            for failure in trial.failures:
                show(kind, failure, console)
            console.print(f"{name}: {trial.tried} tried, {len(trial.failures)} failed")
            return 1 if trial.failures else 0
    console.print(f"there is no kind {name!r}: {', '.join(kind.name for kind in kinds)}")
    return 2


def _source() -> list[tuple[str, int]]:
    """What would be noticed if the code changed meanwhile, which makes records stale."""
    packages = ("arena", "mmguard", "defenses", "attacks", "leaderboards", "tests/toys")
    return sorted((str(p), p.stat().st_mtime_ns) for name in packages for p in (ROOT / name).rglob("*.py"))


if __name__ == "__main__":
    sys.exit(main())
