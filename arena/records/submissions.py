"""What others submitted: a line each in ``submissions.jsonl`` beside the records, their cells in the folder
``submissions`` there.

No suite asks for these cells, so a suite, its digest and what `arena run` computes of it stay what they are, also where
a submitted plugin is not installed. Boards show them beside the suite's own cells, see `shown`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from arena.errors import ArenaError
from arena.plugins.identity import CONTROL
from arena.records.accept import problem
from arena.records.files import append_line, read_records
from arena.records.schema import Asked, BudgetRef, PluginRef, Record, SuiteRef
from arena.records.select import by_cell
from arena.records.verify import AGREES, Check

SUBMISSIONS = "submissions.jsonl"

Kind = Literal["defense", "attack"]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Part(_Part):
    """Which code an entry is: a plugin; of a sequence of attacks there are several."""

    id: str
    version: str
    package: str
    package_version: str
    source_digest: str


class Entry(_Part):
    """What was submitted: its label on boards, how a suite names it (`use`, fields of a defense or an attack there),
    and the code behind it."""

    kind: Kind
    label: Annotated[str, Field(min_length=1, max_length=200)]
    use: dict[str, Any]
    parts: Annotated[list[Part], Field(min_length=1)]


class Checked(_Part):
    """What computing cells of a bundle again showed: `of` cells, those that a random `seed` chose, and `problems`
    beyond single cells."""

    bundle: Digest
    of: Annotated[int, Field(ge=1)]
    seed: int
    checks: Annotated[list[Check], Field(min_length=1)]
    problems: list[str]
    machine: str
    packages: dict[str, str]
    engine_digest: str
    created: str

    @property
    def agreeing(self) -> int:
        """How many of the cells agree."""
        return sum(check.verdict in AGREES for check in self.checks)

    @property
    def passed(self) -> bool:
        """Whether every cell agrees and there is no other problem."""
        return self.agreeing == len(self.checks) and not self.problems


class Number(_Part):
    """A score with its 95 % interval; without a value the reason in `undefined`."""

    value: float | None
    low: float | None
    high: float | None
    undefined: str | None


class Change(_Part):
    """The robust protection of an entry before and after a submission, and the attack that is best on it now; `before`
    is None of an entry that came with it."""

    dataset: str
    model: str
    budget: BudgetRef
    auxiliary: float
    in_domain: bool = False
    defense: str
    surrogates: str
    before: Number | None
    after: Number
    attack: str | None


class Submission(_Part):
    """One line of ``submissions.jsonl``: who submitted what to which suite, the cells, what verifying them showed, and
    whose robust protection it changed."""

    suite: str
    suite_digest: str
    protocol_version: int
    bundle: Digest
    entry: Entry
    statement: dict[str, str]
    code: str
    cells: Annotated[list[Digest], Field(min_length=1)]
    checked: Checked
    changes: list[Change]
    created: str

    @property
    def author(self) -> str:
        """Who submitted it."""
        return self.statement["author"]


@dataclass(frozen=True)
class Shown:
    """A submission and those of its cells that a board of the suite as it is now can show, under the suite's labels."""

    submission: Submission
    records: tuple[Record, ...]


def records_file(folder: Path, suite: str) -> Path:
    """Where the submitted cells of a suite lie, in a folder of records."""
    return folder / "submissions" / f"{suite}.jsonl"


def append(folder: Path, line: Submission) -> None:
    """Add a line to ``submissions.jsonl``."""
    append_line(folder / SUBMISSIONS, line.model_dump_json(), f"the submission of {line.entry.label}")


def read(folder: Path) -> list[Submission]:
    """All lines of ``submissions.jsonl``, in the order in which they were accepted. Raises `ArenaError` naming one that
    cannot be read."""
    path = folder / SUBMISSIONS
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ArenaError(f"{path} cannot be read as text ({error}): restore the file from a copy") from error
    found = []
    for number, text in enumerate(lines, start=1):
        if text.strip():
            try:
                found.append(Submission.model_validate_json(text))
            except ValidationError as error:
                raise ArenaError(
                    f"{path}, line {number}: {problem(error)}; remove the line, then accept the bundle again"
                ) from error
    return found


def submitted(folder: Path, suite: str) -> dict[str, Record]:
    """The records of a suite's submitted cells, by cell. Raises `ArenaError` where they cannot be read."""
    path = records_file(folder, suite)
    return by_cell(read_records(path)) if path.exists() else {}


def shown(
    lines: Iterable[Submission], records: dict[str, Record], suite: SuiteRef, own: Sequence[Asked]
) -> list[Shown]:
    """The submissions to a suite with the cells that fit the suite as it is now, whose `own` cells are all it asks for.

    A cell fits where the suite has its dataset, model, recipe and seed; of a submitted defense, where the suite also
    has the attack; of a submitted attack, where the suite, or an earlier submission, has the defense. An attack counts
    on a defense where it is done for every seed, so that nobody's number is withheld for it. A cell that the suite asks
    for by now is the suite's.

    The records are without zero-shot answers, since those of the suite's own cells count.
    """
    frame = _Frame(own)
    found = []
    for line in lines:
        if line.suite != suite.id:
            continue
        kept = [records[cell] for cell in line.cells if cell in records and cell not in frame.cells]
        kept = frame.fitting(kept, line.entry.kind)
        if line.entry.kind == "defense":
            frame.defenses |= {_protection(r): line.entry.label for r in kept}
        found.append(Shown(line, tuple(frame.labelled(r, line.entry, suite) for r in kept)))
    return found


class _Frame:
    """What a suite has, by what identifies it, with its labels."""

    def __init__(self, own: Iterable[Asked]) -> None:
        self.cells = {asked.identity for asked in own}
        self.defenses = {_protection(asked): asked.defense.label for asked in own}
        self.attacks = {_attack(asked): asked.attack.label for asked in own}
        self.recipes = {_plugin(asked.recipe): asked.recipe.label for asked in own}
        self.levels = {asked.auxiliary for asked in own}
        self.budgets = {_budget(asked) for asked in own}
        self.seeds: dict[Hashable, set[int]] = defaultdict(set)
        for asked in own:
            self.seeds[_column(asked)].add(asked.seed)

    def fitting(self, records: Sequence[Record], kind: Kind) -> list[Record]:
        """Those that fit."""
        done = [r for r in records if r.status == "done" and r.seed in self.seeds.get(_column(r), ())]
        if kind == "defense":
            return [r for r in done if _attack(r) in self.attacks and _budget(r) in self.budgets]
        seeds: dict[Hashable, set[int]] = defaultdict(set)
        for r in done:
            seeds[_column(r), _protection(r)].add(r.seed)
        return [
            r
            for r in done
            if _protection(r) in self.defenses
            and r.auxiliary in self.levels
            and seeds[_column(r), _protection(r)] == self.seeds[_column(r)]
        ]

    def labelled(self, record: Record, entry: Entry, suite: SuiteRef) -> Record:
        """A record under the suite's labels and its entry's own."""
        own = {"defense": self.defenses.get(_protection(record)), "attack": self.attacks.get(_attack(record))}
        names = {**own, "recipe": self.recipes[_plugin(record.recipe)], entry.kind: entry.label}
        parts = {kind: getattr(record, kind).model_copy(update={"label": label}) for kind, label in names.items()}
        return record.model_copy(update={**parts, "suite": suite, "zero_shot": None})


def _column(asked: Asked) -> Hashable:
    d = asked.dataset
    return _plugin(d), d.train, d.auxiliary, d.test, d.seed, _plugin(asked.model), _plugin(asked.recipe)


def _protection(asked: Asked) -> Hashable:
    surrogates = tuple(_plugin(surrogate) for surrogate in asked.defense.surrogates)
    return _plugin(asked.defense), surrogates, None if asked.defense.id == CONTROL else _budget(asked)


def _attack(asked: Asked) -> Hashable:
    return tuple(_plugin(part) for part in asked.attack.parts), asked.auxiliary


def _budget(asked: Asked) -> Hashable:
    return asked.budget.asked


def _plugin(reference: PluginRef) -> Hashable:
    return reference.id, reference.version, json.dumps(reference.config, sort_keys=True), reference.fingerprint
