"""Audits of the public seed: ``audits.jsonl`` beside the records.

An audit draws data and seeds that are in no suite, from a secret. Before anything is computed a line commits to the
secret, by its digest, and to what will be run; a later line reveals it, with what came out. So nobody can choose the
secret by its result, or drop an audit without a trace: a commitment without a result stays visible.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from arena.errors import ArenaError
from arena.records.accept import problem
from arena.records.files import append_line
from arena.records.schema import BudgetRef

AUDITS = "audits.jsonl"

Verdict = Literal["agrees", "differs", "undecided"]

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Place(_Part):
    """Where an entry meets its control, by the labels of the suite."""

    dataset: str
    model: str
    recipe: str
    budget: BudgetRef
    defense: str
    attack: str


class Audited(_Part):
    """The entry: its labels in the suite, and which code it was."""

    kind: Literal["defense", "attack"]
    label: str
    id: str
    version: str
    source_digest: str


class Seeds(_Part):
    """One secret draw: the seed of the data, and that of the cell."""

    data: int
    cell: int


class Side(_Part):
    """An effect, a paired difference of accuracies: its mean, and its value for every seed."""

    effect: float
    seeds: list[float]


class Compared(_Part):
    """One place: the effect there in public and with the secret, their difference with its interval, and what follows,
    with the reason where it is not plain. A ``control`` has nothing of the entry in it."""

    role: Literal["entry", "control"]
    place: Place
    public: Side | None = None
    secret: Side | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    verdict: Verdict
    why: str = ""


class Reproduced(_Part):
    """How many samples an attack left whose pictures are those of the public data rather than of what it was given."""

    place: Place
    samples: int
    public: int


class Committed(_Part):
    """What will be run, before it is: so many `draws` at every place."""

    status: Literal["committed"] = "committed"
    commitment: Digest
    suite: str
    suite_digest: str
    protocol_version: int
    entry: Audited
    places: Annotated[list[Place], Field(min_length=1)]
    draws: Annotated[int, Field(ge=2)]
    machine: str
    packages: dict[str, str]
    engine_digest: str
    created: str


class Revealed(_Part):
    """The secret of a commitment, and what came out."""

    status: Literal["revealed"] = "revealed"
    commitment: Digest
    secret: Annotated[str, Field(pattern=r"^[0-9]+$")]
    salt: Annotated[str, Field(pattern=r"^[0-9a-f]{32,}$")]
    seeds: list[Seeds]
    results: list[Compared]
    reproduced: list[Reproduced] = []
    notes: list[str] = []
    verdict: Verdict
    created: str


@dataclass(frozen=True)
class Audit:
    """A commitment, with its result where there is one."""

    committed: Committed
    revealed: Revealed | None


def commit(secret: int, salt: str) -> str:
    """What commits to a secret: SHA-256 (hex) of the secret's digits and a salt. The salt keeps a small secret from
    being guessed."""
    return _digest(f"{secret}:{salt}")


def seeds_of(secret: int, salt: str, draws: int) -> list[Seeds]:
    """The seeds of every draw, in [2^31, 2^32), where no suite has any. The salt is in them: who knows or guesses the
    secret alone cannot draw the data."""

    def one(what: str, number: int) -> int:
        return 2**31 + int(_digest(f"{secret}:{salt}:{what}:{number}"), 16) % 2**31

    return [Seeds(data=one("data", number), cell=one("cell", number)) for number in range(draws)]


def choice(secret: int, salt: str) -> random.Random:
    """What chooses an audit's places."""
    return random.Random(int(_digest(f"{secret}:{salt}:places:0"), 16))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def append(folder: Path, line: Committed | Revealed) -> None:
    """Add a line to ``audits.jsonl``."""
    append_line(folder / AUDITS, line.model_dump_json(), f"the audit {line.commitment[:12]}")


_LINE: TypeAdapter[Committed | Revealed] = TypeAdapter(Annotated[Committed | Revealed, Field(discriminator="status")])


def read(path: Path) -> list[Audit]:
    """All audits of a file, in the order in which they were committed; none where there is no such file. A torn last
    line, left by a writer that was killed, is skipped.

    Raises `ArenaError` naming a line that cannot be read, or whose secret is not the one that was committed to.
    """
    if not path.exists():
        return []
    found: dict[str, Audit] = {}
    lines = path.read_bytes().split(b"\n")
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        where = f"{path}, line {number}"
        try:
            line = _LINE.validate_json(text)
        except ValidationError as error:
            if number == len(lines) and error.errors()[0]["type"] == "json_invalid":
                continue
            raise ArenaError(f"{where}: {problem(error)}; take the line from where it was written") from error
        if isinstance(line, Committed):
            if line.commitment in found:
                raise ArenaError(f"{where}: it commits to {line.commitment[:12]} once more: remove the line")
            found[line.commitment] = Audit(line, None)
        else:
            known = found.get(line.commitment)
            if wrong := _wrong(line, known):
                raise ArenaError(f"{where}: {wrong}; do not trust its result, and audit anew")
            assert known is not None
            found[line.commitment] = Audit(known.committed, line)
    return list(found.values())


def _wrong(line: Revealed, known: Audit | None) -> str | None:
    """What of a result does not belong to its commitment."""
    name, secret = line.commitment[:12], int(line.secret)
    if known is None:
        return f"nothing before it commits to {name}"
    if known.revealed is not None:
        return f"the secret of {name} was revealed before"
    if commit(secret, line.salt) != line.commitment:
        return f"the secret that it reveals is not the one that {name} commits to"
    if seeds_of(secret, line.salt, known.committed.draws) != line.seeds:
        return f"its seeds do not follow from the secret of {name}"
    if [one.place for one in line.results if one.role == "entry"] != known.committed.places:
        return f"its results are not of what {name} said would be run"
    return None
