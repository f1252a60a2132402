"""What re-running committed cells showed: ``verifications.jsonl`` beside the records, which boards show.

Contents are compared by their digests. On a machine like the one that made a record they are the same, or something is
wrong; another processor, or another version of torch, rounds differently, so there item bits are compared, and
accuracies against what chance would do.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from arena.errors import ArenaError
from arena.plugins.identity import PROTOCOL_VERSION
from arena.records.accept import problem
from arena.records.files import append_line
from arena.records.schema import Record
from arena.shares import at_least

VERIFICATIONS = "verifications.jsonl"

Verdict = Literal["contents equal", "contents differ", "items equal", "within chance", "beyond chance", "failed"]
"""How a cell came out: all contents as before; on a like machine other contents; elsewhere all items as before, an
accuracy that chance explains (95 %), one that it does not; or not at all."""

AGREES: frozenset[Verdict] = frozenset({"contents equal", "items equal", "within chance"})

_SAME = ("torch", "transformers", "peft", "accelerate", "tokenizers", "numpy", "pillow", "scipy", "kornia", "diffusers")
"""Packages whose versions make machines alike."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Check(_Part):
    """One cell that was computed again: whether on a like machine, what came out, how many of its items are answered
    otherwise, and its accuracy before and now."""

    cell: str
    like_machine: bool
    verdict: Verdict
    items: int
    other_items: int | None
    recorded: float | None
    again: float | None


class Verification(_Part):
    """One line of ``verifications.jsonl``: a random share of the cells that one suite has records of."""

    suite: str
    suite_digest: str
    protocol_version: int
    of: Annotated[int, Field(ge=1)]
    seed: int
    checks: Annotated[list[Check], Field(min_length=1)]
    machine: str
    packages: dict[str, str]
    engine_digest: str
    created: str


def draw(cells: Sequence[str], share: float, seed: int) -> list[str]:
    """A random share of cells, at least one, in their order."""
    count = max(1, at_least(share, len(cells)))
    chosen = set(random.Random(seed).sample(sorted(cells), min(count, len(cells))))
    return [cell for cell in cells if cell in chosen]


def alike(one: Record, other: Record) -> bool:
    """Whether two records were made on machines that compute the same: processor, device, threads and packages."""
    a, b = one.environment, other.environment
    same = one.cost.machine == other.cost.machine and a.device == b.device and a.threads == b.threads
    return same and all(a.packages.get(name) == b.packages.get(name) for name in _SAME)


def spread(record: Record, others: Iterable[Record]) -> float:
    """Standard deviation of accuracy over the seeds of a record's cell, among other records; 0 of fewer than two."""

    def place(r: Record) -> object:
        parts = (r.dataset, r.model, r.recipe, r.defense, *r.defense.surrogates, *r.attack.parts)
        return [(p.id, p.version, p.config, p.fingerprint) for p in parts], r.dataset.samples, r.budget, r.auxiliary

    seeds = [r.outcome.accuracy for r in others if r.outcome is not None and place(r) == place(record)]
    return float(np.std(seeds, ddof=1)) if len(seeds) > 1 else 0.0


def compare(before: Record, again: Record, over_seeds: float = 0.0) -> Check:
    """How a cell that was computed again came out. Crafting anew on another machine is as good as another seed, so
    chance is that of the items and, twice, of the seeds, whose standard deviation is `over_seeds`."""
    like = alike(before, again)
    if before.outcome is None or again.outcome is None:
        verdict: Verdict = "contents equal" if before.status == again.status else "failed"
        return Check(
            cell=before.cell,
            like_machine=like,
            verdict=verdict,
            items=before.dataset.test,
            other_items=None,
            recorded=None,
            again=None,
        )
    old, new = before.outcome.unpack(), again.outcome.unpack()
    other = int(np.count_nonzero(old != new))
    if before.lineage == again.lineage and other == 0:
        verdict = "contents equal"
    elif like:
        verdict = "contents differ"
    elif other == 0:
        verdict = "items equal"
    else:
        difference = old.astype(float) - new
        bound = 1.96 * math.sqrt(float(difference.var(ddof=1)) / len(old) + 2 * over_seeds**2)
        verdict = "within chance" if abs(float(difference.mean())) <= bound else "beyond chance"
    return Check(
        cell=before.cell,
        like_machine=like,
        verdict=verdict,
        items=len(old),
        other_items=other,
        recorded=before.outcome.accuracy,
        again=again.outcome.accuracy,
    )


def append(folder: Path, line: Verification) -> None:
    """Add a line to ``verifications.jsonl``."""
    append_line(folder / VERIFICATIONS, line.model_dump_json(), f"the verification of suite {line.suite}")


def read(folder: Path, protocol_version: int = PROTOCOL_VERSION) -> list[Verification]:
    """All lines of ``verifications.jsonl``. Raises `ArenaError` naming one that cannot be read, or that is of another
    version of the protocol than the records that it is asked about."""
    path = folder / VERIFICATIONS
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ArenaError(f"{path} cannot be read as text ({error}): restore the file from a copy") from error
    found = []
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            line = Verification.model_validate_json(text)
        except ValidationError as error:
            raise ArenaError(f"{path}, line {number}: {problem(error)}; remove the line and verify again") from error
        if line.protocol_version != protocol_version:
            raise ArenaError(
                f"{path}, line {number}: it verifies protocol version {line.protocol_version}, and the records are of "
                f"{protocol_version}: move the line to the records of that version, and verify these anew"
            )
        found.append(line)
    return found


def facts(lines: Iterable[Verification], suite: str, cells: Iterable[str]) -> list[tuple[str, str]]:
    """What a board says: for each verification of a suite, of those cells that are on it still, a date and a
    sentence."""
    present = set(cells)
    said = []
    for line in lines:
        checks = [check for check in line.checks if check.cell in present]
        if line.suite != suite or not checks:
            continue
        counts = {verdict: sum(c.verdict == verdict for c in checks) for verdict in get_args(Verdict)}
        listed = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
        agree = sum(c.verdict in AGREES for c in checks)
        said.append(
            (
                line.created[:10],
                f"{len(checks)} of {line.of} cells computed again on {line.machine}: {agree} agree ({listed})",
            )
        )
    return said
