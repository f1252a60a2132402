"""Full disks: store, results or workspaces on a file system of a few kilobytes, or of a few files, that grows later.

A trial runs in namespaces of its own, where it may mount a file system: ``python -m tests.chaos.disk``, see `main`.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

from tests.chaos.bench import Bench
from tests.chaos.campaign import Kind, Trial, Unable
from tests.chaos.toy_runs import PATIENCE, ROOT, Hung, Place, Reference

_UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")
_ROOMY = "size=64m,nr_inodes=100000"


def kind(bench: Bench, disks: int) -> Kind:
    """The kind: so many full disks."""

    def attempt(seed: str) -> Trial:
        if (reason := _unable()) is not None:
            raise Unable(f"skipped: {reason}")
        return bench.trial("full-disk", seed, lambda rng, place: _apart(bench.reference, rng, place))

    return Kind("full-disk", disks, attempt)


def _unable() -> str | None:
    try:
        tried = subprocess.run(
            [*_UNSHARE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, text=True, timeout=60
        )
    except OSError as error:
        return str(error)
    return tried.stderr.strip() or None if tried.returncode else None


def _apart(reference: Reference, rng: random.Random, place: Place) -> tuple[int, list[str]]:
    """Hand a trial to a process that may mount."""
    order = place.folder / "order.json"
    order.write_text(
        json.dumps(
            {"seed": rng.random(), "folder": str(place.folder), "mark": place.mark, "reference": vars(reference)}
        ),
        encoding="utf-8",
    )
    try:
        ended = subprocess.run(
            [*_UNSHARE, sys.executable, "-m", "tests.chaos.disk", str(order)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=4 * PATIENCE,
        )
    except subprocess.TimeoutExpired:
        raise Hung("a trial with a full disk does not end") from None
    if ended.returncode:
        return 1, [f"the trial itself failed: {ended.stderr[-2000:]}"]
    return 1, json.loads(ended.stdout)


def main() -> None:
    """Do the trial that a file describes and print what is wrong as a JSON list."""
    order = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    rng, reference = random.Random(order["seed"]), Reference(**order["reference"])
    disk = Path(order["folder"]) / "disk"
    disk.mkdir()
    what = rng.choice(("store", "store", "store", "results", "both"))
    if rng.random() < 0.25:
        limits = f"size=64m,nr_inodes={rng.randint(2, 2 * reference.files)}"
    else:
        pages = rng.randint(2, 1 + reference.files + reference.size // 4096)
        limits = f"size={4 * pages if what != 'results' else rng.randint(1, 8) * 4}k"
    _mount(limits, disk)
    place = Place(
        Path(order["folder"]),
        store=disk / "store" if what != "results" else Path(),
        results=disk / "results" / "toy.jsonl" if what != "store" else Path(),
        mark=order["mark"],
    )
    try:
        problems = _full(place, reference)
        _mount(f"remount,{_ROOMY}", disk)
        problems = [f"{what} on a disk of {limits}: {p}" for p in [*problems, *place.finish(reference)]]
    except Hung as hung:
        problems = [f"{what} on a disk of {limits}: {hung}"]
    finally:
        place.clear()
    sys.stdout.write(json.dumps(problems))


def _full(place: Place, reference: Reference) -> list[str]:
    """A run that finds the disk full, or just not."""
    run = place.start()
    problems = run.ends_with(0, 1)
    if run.process.returncode == 1:
        problems += run.ends_with(1, says=("full|No space left|has space",))
    return [*problems, *place.quiet(), *place.recorded(reference), *place.tidy()]


def _mount(options: str, folder: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)


if __name__ == "__main__":
    main()
