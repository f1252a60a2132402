"""An entry on a suite that does not ask for it: the suite with the entry added, and which cells are the entry's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from arena.controls import CONTROLS
from arena.engine.graph import Cell
from arena.errors import UsageError
from arena.plugins.identity import CONTROL
from arena.plugins.registry import Registry, near_misses
from arena.records.accept import problem
from arena.records.schema import Asked, PluginRef
from arena.records.submissions import Kind, Part, Submission
from arena.suites.parts import AttackUse, DefenseUse
from arena.suites.schema import Suite


@dataclass(frozen=True)
class Entered:
    """A suite with an entry in it. A submitted attack is run on `defenses`, the controls among them; these may be
    submissions themselves."""

    board: Suite
    kind: Kind
    use: DefenseUse | AttackUse
    defenses: tuple[DefenseUse, ...] = ()

    @property
    def suite(self) -> Suite:
        """The suite to plan and run. It is not the board's: the board's stays as it is."""
        known = {use.label for use in self.board.defenses}
        entry: dict[Kind, list[DefenseUse | AttackUse]] = {"defense": [], "attack": []}
        entry[self.kind].append(self.use)
        others = [use for use in self.defenses if use.label not in known]
        return self.board.model_copy(
            update={
                "defenses": (*self.board.defenses, *others, *entry["defense"]),
                "attacks": (*self.board.attacks, *entry["attack"]),
            }
        )

    def cells(self, every: Iterable[Cell]) -> list[Cell]:
        """The entry's own, of all cells of `suite`."""
        attacks = {use.label for use in self.board.attacks}
        defenses = {use.label for use in self.defenses}
        if self.kind == "defense":
            own = [c for c in every if c.asked.defense.label == self.use.label and c.asked.attack.label in attacks]
        else:
            own = [c for c in every if c.asked.attack.label == self.use.label and c.asked.defense.label in defenses]
        if not own:
            raise UsageError(
                f"suite {self.board.id!r} leaves out every combination with {self.kind} {self.use.label!r} by `skip`: "
                "submit to another suite"
            )
        return own


def enter(
    board: Suite,
    name: str,
    registry: Registry,
    config: dict[str, Any] | None = None,
    label: str | None = None,
    auxiliary: float | None = None,
    against: Sequence[str] = (),
    submissions: Sequence[Submission] = (),
) -> Entered:
    """A plugin, or a sequence of attacks such as ``jpeg+case``, as an entry on a board's suite; `name` is its id, where
    that is not clear with its kind before it, as in ``attack mix``.

    An attack is run on the controls and all defenses of the suite, or on the controls and the defenses that `against`
    has labels of, which may be those of `submissions`. `auxiliary` is its share of clean data, one that the suite
    grants already.

    Raises `UsageError` for what is not there, or what the suite asks for itself.
    """
    kind, id = _kind(name, registry)
    fields: dict[str, Any] = {"id": id, "config": config or {}, **({} if label is None else {"label": label})}
    if kind == "attack":
        shares = sorted({board.share(use) for use in board.attacks})
        if auxiliary is not None and auxiliary not in shares:
            have = " or ".join(f"{share:g}" for share in shares)
            raise UsageError(
                f"--auxiliary {auxiliary:g}: attackers of suite {board.id!r} have {have} of the training size, and "
                "with another share they would not be compared with these: take one of them"
            )
        fields |= {} if auxiliary is None else {"auxiliary": auxiliary}
    elif against or auxiliary is not None:
        raise UsageError(
            f"{id!r} is a defense, which meets all attacks of the suite: leave out --against and --auxiliary"
        )
    try:
        use = AttackUse.model_validate(fields) if kind == "attack" else DefenseUse.model_validate(fields)
    except ValidationError as error:
        raise UsageError(f"--entry {name}: {problem(error)}") from error
    taken = {u.label for u in (board.defenses if kind == "defense" else board.attacks)}
    if use.label == CONTROL != id:
        raise UsageError(f"--label {CONTROL} is what boards call the control: take another")
    if use.label in taken or id == CONTROL:
        raise UsageError(
            f"suite {board.id!r} asks for {kind} {use.label!r} itself, and `arena run {board.id}` computes it: submit "
            "it with other settings (--config), or if it is another one under a --label of its own"
        )
    return Entered(board, kind, use, _against(board, against, submissions) if kind == "attack" else ())


def parts_of(asked: Asked, kind: Kind) -> list[Part]:
    """The code of the defense or of the attack in a cell."""
    references: Sequence[PluginRef] = [asked.defense] if kind == "defense" else asked.attack.parts
    return [
        Part(
            id=reference.id,
            version=reference.version,
            package=reference.origin.package,
            package_version=reference.origin.version,
            source_digest=reference.source_digest,
        )
        for reference in references
    ]


def _kind(name: str, registry: Registry) -> tuple[Kind, str]:
    first, _, rest = name.partition(" ")
    if first in ("defense", "attack") and rest:
        name = rest
    ids = {kind: {entry.id for entry in registry.entries(kind)} for kind in ("defense", "attack")}
    found: list[Kind] = []
    if first != "attack" and name in ids["defense"]:
        found.append("defense")
    if first != "defense" and all(part in ids["attack"] for part in name.split("+")):
        found.append("attack")
    if not found:
        hint = near_misses(name, ids["defense"] | ids["attack"])
        raise UsageError(f"no defense or attack is called {name!r}{hint}; `arena list` shows what is installed")
    if len(found) > 1:
        raise UsageError(f"{name!r} is a defense and an attack: say --entry 'defense {name}' or 'attack {name}'")
    return found[0], name


def _against(board: Suite, labels: Sequence[str], submissions: Sequence[Submission]) -> tuple[DefenseUse, ...]:
    """The defenses that an attack is run on: the controls always, since its cost on clean data is theirs to show."""
    if not labels:
        return board.defenses
    others = {
        line.entry.label: DefenseUse.model_validate(line.entry.use)
        for line in submissions
        if line.suite == board.id and line.entry.kind == "defense"
    }
    known = {**others, **{use.label: use for use in board.defenses}}
    for label in labels:
        if label not in known:
            raise UsageError(
                f"--against {label}: suite {board.id!r} has no defense of this label{near_misses(label, known)} (there "
                f"are {', '.join(known)})"
            )
    controls = [use.label for use in board.defenses if use.id in CONTROLS]
    return tuple(known[label] for label in dict.fromkeys([*controls, *labels]))
