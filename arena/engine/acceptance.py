"""Showing that changed code computes what the code of the records did: what `arena accept` does."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from rich.console import Console

from arena.engine.again import compute_again, compute_at, digests_at, scratch
from arena.engine.execute import recorded
from arena.engine.graph import Cell
from arena.engine.plan import planned_cells
from arena.errors import ArenaError, UnresolvedRevision, UsageError
from arena.plugins.registry import Registry, near_misses
from arena.records.accept import ENGINE, Accepted, Proof, Standing, append, current_sources, plugin_name, versions
from arena.records.files import read_all, record_files
from arena.records.schema import Record
from arena.records.select import by_cell
from arena.records.verify import Check, compare
from arena.suites.schema import Suite

_REVISIONS = 50
"""How many commits back the code of the records is looked for."""


@dataclass(frozen=True)
class Evidence:
    """A suite with records, and its cells."""

    path: Path
    suite: Suite
    cells: dict[str, Cell]
    records: dict[str, Record]


@dataclass
class Outcome:
    """What came out for one plugin: the checks of its cells, by name, and what they were compared with."""

    plugin: str
    before: set[str]
    checks: dict[str, Check] = field(default_factory=dict)
    against: set[str] = field(default_factory=set)
    lacking: dict[str, str] = field(default_factory=dict)
    """Cells that came out otherwise than their records and that the reference has nothing of, with its name."""

    @property
    def differing(self) -> list[Check]:
        """Cells that came out otherwise."""
        return [check for check in self.checks.values() if check.verdict != "contents equal"]


def gather(suites: Iterable[tuple[Path, Suite]], registry: Registry, results: Callable[[str], Path]) -> list[Evidence]:
    """The suites that have records, with them; `results` says where those of a suite are. A suite without records may
    name hub ids whose commit cannot be found out.

    Raises `UnresolvedRevision` where one that has records does.
    """
    found = []
    for path, suite in suites:
        try:
            cells = planned_cells(suite, registry)
        except UnresolvedRevision:
            if any(record.suite.id == suite.id for record in read_all(record_files(results(suite.id)))):
                raise
            continue
        if records := recorded(suite, cells, results(suite.id)):
            found.append(Evidence(path, suite, {cell.key: cell for cell in cells}, records))
    return found


def stale(evidence: Sequence[Evidence], standing: Standing) -> dict[str, set[str]]:
    """By plugin, the source digests in records that are neither its present one nor accepted as alike."""
    sources = current_sources(cell.asked for e in evidence for cell in e.cells.values())
    found: dict[str, set[str]] = {}
    for e in evidence:
        for record in e.records.values():
            for plugin, digest in made_by(record).items():
                if not standing.alike(plugin, digest, sources[plugin]):
                    found.setdefault(plugin, set()).add(digest)
    return found


def made_by(record: Record) -> dict[str, str]:
    """The source digests that made a record, by plugin."""
    plugins = {plugin_name(kind, reference.id): reference.source_digest for kind, reference in record.plugins()}
    return {ENGINE: record.engine_digest, **plugins}


def asked_for(ids: Sequence[str], known: Mapping[str, set[str]], evidence: Sequence[Evidence]) -> dict[str, set[str]]:
    """Of what is stale, the plugins of some ids (``em``, ``engine``, or with the kind, ``"defense em"``), all where
    there is none. Raises `UsageError` for an id that no record has."""
    if not ids:
        return dict(known)
    every = {name for e in evidence for r in e.records.values() for name in made_by(r)}
    chosen: dict[str, set[str]] = {}
    for id in ids:
        names = {name for name in every if id in (name, name.rpartition(" ")[2])}
        if not names:
            short = {name.rpartition(" ")[2] for name in every}
            raise UsageError(f"no record has a plugin {id!r}: name one of a committed suite{near_misses(id, short)}")
        chosen |= {name: known[name] for name in names if name in known}
    return chosen


def choose(
    evidence: Evidence, plugins: Collection[str], count: int, seed: int, among: Collection[str] = ()
) -> list[str]:
    """Random cells of a suite, done, so that each of some plugins is in `count` of them where it can be; few, and of
    few releases, since these take longest. Cells that are `among` those of a reference are preferred to all others."""
    cells = [key for key in evidence.cells if key in evidence.records and evidence.records[key].status == "done"]
    random.Random(seed).shuffle(cells)
    within = {key: {p for p in made_by(evidence.records[key]) if p in plugins} for key in cells}
    open_ = Counter({p: min(count, sum(p in own for own in within.values())) for p in plugins})
    chosen: list[str] = []
    releases: set[str] = set()
    while any(open_.values()):
        rest = [key for key in cells if key not in chosen]
        wanted = {key: sum(open_[p] > 0 for p in within[key]) for key in rest}
        best = max(rest, key=partial(_worth, evidence, wanted, among, releases))
        chosen.append(best)
        releases.add(evidence.cells[best].stages["release"])
        open_.subtract({p: 1 for p in within[best] if open_[p] > 0})
    return chosen


def _worth(
    evidence: Evidence, wanted: Mapping[str, int], among: Collection[str], releases: Collection[str], key: str
) -> tuple[bool, int, bool]:
    """How good a cell is to compute next."""
    return wanted[key] > 0 and key in among, wanted[key], evidence.cells[key].stages["release"] in releases


def accept(
    ids: Sequence[str],
    evidence: Sequence[Evidence],
    folder: Path,
    registry: Registry,
    console: Console,
    count: int = 2,
    against: str | None = None,
    seed: int = 0,
    workers: int | None = None,
) -> list[Outcome]:
    """Compute `count` random cells of every suite that a changed plugin is in anew, and append to ``accepted.jsonl`` in
    `folder` what came out with equal contents and item bits.

    The cells are compared with their records. Those that come out otherwise, as on another machine, are compared with
    what the code of a git revision computes here: `against`, by default the last whose source the records have.
    `against` may also be a file of records that the code as it was made here.

    Raises `UsageError` for an unknown id, `ArenaError` where nothing can be compared.
    """
    standing = Standing.read(folder)
    wanted = asked_for(ids, stale(evidence, standing), evidence)
    outcomes = {plugin: Outcome(plugin, before) for plugin, before in wanted.items()}
    with scratch() as place:
        reference = _Reference(against, wanted, standing, place, console, workers)
        for e in evidence if wanted else ():
            chosen = choose(e, wanted, count, seed, reference.cells)
            console.print(f"{e.suite.id}: {len(chosen)} cells", markup=False)
            fresh = compute_again(e.suite, chosen, registry, place / f"now-{e.suite.id}", console, workers)
            checks = {key: compare(e.records[key], fresh[key]) for key in chosen}
            compared = dict.fromkeys(chosen, "the records")
            other = [key for key, check in checks.items() if check.verdict != "contents equal"]
            found: Mapping[str, Record] = {}
            if other:  # the code, or the machine, of which a name may not say all: the code as it was knows
                found = reference.records(e, other)
                checks |= {key: compare(found[key], fresh[key]) for key in other if key in found}
                compared |= dict.fromkeys(other, reference.name)
            for key in chosen:
                for plugin in made_by(e.records[key]):
                    if plugin not in outcomes:
                        continue
                    if key in other and key not in found:
                        outcomes[plugin].lacking[key] = reference.name
                    else:
                        outcomes[plugin].checks[key] = checks[key]
                        outcomes[plugin].against.add(compared[key])
    cells = [cell.asked for e in evidence for cell in e.cells.values()]
    sources, declared = current_sources(cells), versions(cells)
    for plugin, outcome in outcomes.items():
        if outcome.checks and not outcome.differing and not outcome.lacking:
            append(folder, _line(outcome, sources[plugin], declared[plugin]))
    return list(outcomes.values())


def _line(outcome: Outcome, now: str, version: str) -> Accepted:
    from arena.engine.harvest import packages_here
    from arena.environment import machine

    return Accepted(
        plugin=outcome.plugin,
        version=version,
        digests=[*sorted(outcome.before), now],
        proof=Proof(
            cells=sorted(outcome.checks),
            against=" and ".join(sorted(outcome.against)),
            machine=machine(),
            packages=packages_here(),
        ),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


class _Reference:
    """What the code of the records computes on this machine."""

    def __init__(
        self,
        against: str | None,
        wanted: Mapping[str, set[str]],
        standing: Standing,
        place: Path,
        console: Console,
        workers: int | None,
    ) -> None:
        self._against, self._wanted, self._standing, self._place = against, wanted, standing, place
        self._console, self._workers = console, workers
        self.name = ""
        self._given = by_cell(read_all([Path(against)])) if against is not None and Path(against).exists() else {}

    @property
    def cells(self) -> Collection[str]:
        """The cells of a file that was named; none where it is a revision."""
        return self._given.keys()

    def records(self, evidence: Evidence, cells: Sequence[str]) -> dict[str, Record]:
        """The reference of some cells of a suite, of those that it has."""
        if self._given:
            self.name = Path(str(self._against)).name
            return self._given
        self._against = self._against or self._revision()
        self.name = f"commit {self._against}"
        folder = self._place / f"then-{evidence.suite.id}"
        folder.mkdir(exist_ok=True)
        return compute_at(self._against, evidence.path, cells, folder, self._console, self._workers)

    def _made(self, plugin: str, digest: str) -> bool:
        """Whether a source is what made the records, or was accepted as alike."""
        return all(self._standing.alike(plugin, digest, one) for one in self._wanted[plugin])

    def _revision(self) -> str:
        """The last commit whose code has the source that the records have."""
        for back in range(_REVISIONS):
            revision = f"HEAD~{back}" if back else "HEAD"
            found = digests_at(revision, self._place / f"digests-{back}")
            if all(self._made(plugin, found.get(plugin, "")) for plugin in self._wanted):
                return revision
        raise ArenaError(
            "some cells come out otherwise than their records, and none of the last commits has the code that made "
            "these, which would tell the machine from the code: name a revision, or a file of records that this code "
            "made here, with --against"
        )
