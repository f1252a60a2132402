"""What stands: which source digests are known to behave alike, with proof, and which entries were withdrawn.

A record holds while the source of its plugins and of the engine, which counts as one more plugin, is what made it, or
was accepted as alike. Beside the records lie ``accepted.jsonl``, which `arena accept` writes, and in the folder above a
checkout's records ``withdrawn.yaml``, which people write.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from arena.errors import ArenaError, UsageError
from arena.plugins.source import engine_digest
from arena.records.files import append_line, version_of
from arena.records.schema import Asked, Record
from arena.suites.yaml_lines import read_yaml

ENGINE = "engine"
"""The engine's name among the plugins, which are called by kind and id, such as ``defense em``."""

ACCEPTED, WITHDRAWN = "accepted.jsonl", "withdrawn.yaml"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)


class Proof(_Part):
    """Cells that were computed with both sources, with equal contents and item bits: their names, what the present
    source was compared with, on which machine, with which versions of packages."""

    cells: Annotated[list[str], Field(min_length=1)]
    against: str
    machine: str
    packages: dict[str, str]


class Accepted(_Part):
    """One line of ``accepted.jsonl``: source digests of a plugin of one version that behave alike."""

    plugin: str
    version: str
    digests: Annotated[list[str], Field(min_length=2)]
    proof: Proof
    created: str


class Withdrawn(_Part):
    """One entry of ``withdrawn.yaml``: a plugin of one version that is taken off boards; its records stay."""

    kind: Literal["defense", "attack", "recipe", "dataset", "model"] = "defense"
    id: str
    version: str
    reason: Annotated[str, Field(min_length=1)]


@dataclass(frozen=True)
class Standing:
    """What was accepted and withdrawn, beside some records."""

    accepted: tuple[Accepted, ...] = ()
    withdrawn: tuple[Withdrawn, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> Standing:
        """That of the folder of records. Raises `ArenaError` naming the file and the line that cannot be read."""
        return cls(_read_accepted(folder / ACCEPTED), _read_withdrawn(withdrawn_file(folder)))

    def alike(self, plugin: str, one: str, other: str) -> bool:
        """Whether two source digests of a plugin are the same or, step by step, accepted as alike."""
        if one == other:
            return True
        if (plugin, one) not in self._alike:
            known = {one}
            lines = [set(line.digests) for line in self.accepted if line.plugin == plugin]
            while grown := [digests for digests in lines if digests & known and not digests <= known]:
                known.update(*grown)
            self._alike[plugin, one] = known
        return other in self._alike[plugin, one]

    @cached_property
    def _alike(self) -> dict[tuple[str, str], set[str]]:
        """What was found to behave alike, by plugin and digest."""
        return {}

    def changed(self, record: Record, sources: Mapping[str, str]) -> dict[str, str]:
        """The plugins whose source is neither what made a record nor accepted as alike, with the digest that it was;
        `sources` are those of `current_sources`."""
        made = {plugin_name(kind, reference.id): reference.source_digest for kind, reference in record.plugins()}
        return {
            plugin: digest
            for plugin, digest in {ENGINE: record.engine_digest, **made}.items()
            if not self.alike(plugin, digest, sources[plugin])
        }

    def stale(self, record: Record, sources: Mapping[str, str]) -> str | None:
        """Why a record does not hold any more; None where it does."""
        changed = self.changed(record, sources)
        if not changed:
            return None
        listed = ", ".join(
            f"{plugin} (was {digest[:8]}, is {sources[plugin][:8]})" for plugin, digest in changed.items()
        )
        ids = " ".join(dict.fromkeys(plugin.rpartition(" ")[2] for plugin in changed))
        return f"the source of {listed} has changed; if it computes the same, `arena accept {ids}` shows it"

    def withdrawal(self, asked: Asked) -> Withdrawn | None:
        """The entry of ``withdrawn.yaml`` that takes a cell off boards."""
        taking_part = {(kind, reference.id, reference.version) for kind, reference in asked.plugins()}
        return next((w for w in self.withdrawn if (w.kind, w.id, w.version) in taking_part), None)

    def without_withdrawn(self, records: Iterable[Record]) -> tuple[list[Record], list[Withdrawn]]:
        """The records that stay on boards, and the entries of ``withdrawn.yaml`` that took others off."""
        kept, found = [], dict[Withdrawn, None]()
        for record in records:
            if (entry := self.withdrawal(record)) is None:
                kept.append(record)
            else:
                found[entry] = None
        return kept, list(found)

    def refuse_withdrawn(self, cells: Iterable[Asked]) -> None:
        """Raise `UsageError` where a cell has a plugin that was withdrawn."""
        for asked in cells if self.withdrawn else ():
            if (found := self.withdrawal(asked)) is not None:
                raise UsageError(
                    f"{found.kind} {found.id!r} version {found.version} was withdrawn ({found.reason}): take it out of "
                    "the suite, or use a later version of it"
                )


def plugin_name(kind: str, id: str) -> str:
    """A plugin's name in ``accepted.jsonl``."""
    return f"{kind} {id}"


def current_sources(cells: Iterable[Asked]) -> dict[str, str]:
    """The present source digests of all plugins of planned cells, by name, and of the engine."""
    found = {ENGINE: engine_digest()}
    for asked in cells:
        found |= {plugin_name(kind, reference.id): reference.source_digest for kind, reference in asked.plugins()}
    return found


def versions(cells: Iterable[Asked]) -> dict[str, str]:
    """The declared versions of all plugins of planned cells, by name; that of the engine is the protocol's."""
    found: dict[str, str] = {}
    for asked in cells:
        found[ENGINE] = str(asked.protocol_version)
        found |= {plugin_name(kind, reference.id): reference.version for kind, reference in asked.plugins()}
    return found


def append(folder: Path, line: Accepted) -> None:
    """Add a line to ``accepted.jsonl``."""
    append_line(folder / ACCEPTED, line.model_dump_json(), f"what was accepted of {line.plugin}")


def withdrawn_file(folder: Path) -> Path:
    """``withdrawn.yaml`` of a folder of records: above it where it is called ``records``, or is that of an earlier
    protocol version in such a folder, else in it."""
    here = folder.absolute()
    records = here.parent if version_of(here) is not None else here
    return (records.parent if records.name == "records" else folder) / WITHDRAWN


def _read_accepted(path: Path) -> tuple[Accepted, ...]:
    if not path.exists():
        return ()
    found = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ArenaError(f"{path} cannot be read as text ({error}): restore the file from a copy") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            found.append(Accepted.model_validate_json(line))
        except ValidationError as error:
            raise ArenaError(
                f"{path}, line {number}: {problem(error)}; remove the line, then run `arena accept`, which writes such "
                "lines with their proof"
            ) from error
    return tuple(found)


def problem(error: ValidationError) -> str:
    """The first thing that is wrong, by its place."""
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the line'}: {first['msg']}"


def _read_withdrawn(path: Path) -> tuple[Withdrawn, ...]:
    if not path.exists():
        return ()
    document = read_yaml(path)
    try:
        return tuple(TypeAdapter(list[Withdrawn]).validate_python(document.data or []))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UsageError(
            f"{document.where(first['loc'])}: {first['msg']}; an entry has kind, id, version and reason"
        ) from error
