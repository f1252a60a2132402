"""Auditing an entry of a suite on data and seeds that nobody could know: what `arena audit` does.

What regenerates or remembers the public data is good on these alone. So the entry meets its controls on draws of the
data that follow from a secret, a draw for every seed, and its effect there is held against its effect in the public
records; an attack's pictures are also held against the public ones.
"""

from __future__ import annotations

import json
import secrets as randomness
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from rich.console import Console

from arena.data.sample import Sample
from arena.engine.audited import (
    Entry,
    Public,
    Spot,
    choose,
    controls,
    find_entry,
    measured,
    name_of,
    only,
    places,
    refuse_known,
)
from arena.engine.determinism import compute_stages
from arena.engine.execute import compute
from arena.engine.graph import Plan
from arena.engine.harvest import packages_here
from arena.engine.plan import plan
from arena.engine.stages import Data
from arena.engine.stages.base import SAMPLES
from arena.environment import machine
from arena.errors import ArenaError
from arena.files import write_atomically
from arena.paths import cache_directory
from arena.plugins.identity import PROTOCOL_VERSION
from arena.plugins.registry import Registry
from arena.plugins.source import engine_digest
from arena.records import audits
from arena.records.audits import AUDITS, Audited, Committed, Compared, Reproduced, Revealed, Seeds, Side, Verdict
from arena.release import read_release
from arena.score.difference import Effect, difference
from arena.store.local import Store
from arena.suites.schema import Combination, Suite, digest

_NEAR = 3.0
"""Mean difference, in 1/255, up to which a picture counts as another one."""

_TOO_MANY = 0.05
"""Share of the samples that an attack left which may by accident look like public ones."""

_SECRET = "secret.json"


@dataclass(frozen=True)
class Report:
    """What an audit found: the lines that it appended, and where; without them nothing was computed. `missing` says
    what a verdict, or one on more places, would take."""

    verdict: Verdict
    file: Path
    committed: Committed | None = None
    revealed: Revealed | None = None
    missing: Sequence[str] = ()


def audit(
    name: str,
    suite: Suite,
    registry: Registry,
    results: Path,
    console: Console,
    secret: int | None = None,
    count: int | None = None,
    draws: int | None = None,
    workers: int | None = None,
    isolated: bool = True,
) -> Report:
    """Audit the defense or attack that a validated suite calls `name`, by its label or id, against the records that
    count where those of the suite are in `results`.

    `secret` is drawn where it is None. The entry is run at `count` random places, by default at a few without attack,
    or of an attack on a few defenses, on so many `draws`, at least two, by default as many as the suite has seeds.
    ``audits.jsonl`` beside `results` is written to before anything is computed, and when all is. An audit of the same
    entry that was interrupted on this machine goes on. With `isolated` off plugins run in this process, which is for
    debugging.

    Raises `UsageError` for an unknown entry, or a secret that is a seed of a suite.
    """
    entry = find_entry(suite, name)
    if secret is not None:
        refuse_known(secret, suite)
    file = results.parent / AUDITS
    if len(suite.seeds) < 2:
        few = f"suite {suite.id!r} has one seed, and an interval takes two: give it more `seeds`, and run it"
        return Report("undecided", file, missing=[few])
    public = Public(suite, registry, results, isolated)
    every = {spot.place: spot for spot in places(suite, entry)}
    open_, missing = public.decidable(every.values())
    if not open_:
        return Report("undecided", file, missing=missing)
    with _state(file, suite, entry, secret, count, draws) as state:
        if state.committed is None:
            chosen = choose(open_, entry.kind, audits.choice(state.secret, state.salt), count)
            state.committed = _commitment(suite, entry, chosen, public, state, draws or len(suite.seeds))
            state.keep()
            audits.append(file.parent, state.committed)
            said = f"committed in {file} to {state.committed.commitment}"
        else:
            said = f"going on with the audit {state.committed.commitment[:12]} of {state.committed.created}"
        console.print(said, markup=False, highlight=False, soft_wrap=True)
        spots = [every[place] for place in state.committed.places]
        revealed = _Audit(suite, registry, public, entry, state, spots, console, workers, isolated).run()
        audits.append(file.parent, revealed)
        state.done = True
        return Report(revealed.verdict, file, state.committed, revealed, missing)


# The state of an audit


@dataclass
class _State:
    """An audit under way: the secret and its salt, which only a private folder knows, and the commitment once there is
    one."""

    folder: Path
    secret: int
    salt: str
    committed: Committed | None = None
    done: bool = False

    @property
    def commitment(self) -> str:
        """What is committed to."""
        return audits.commit(self.secret, self.salt)

    def keep(self) -> None:
        """Write the secret down, for its owner alone, so that an audit that is interrupted can go on."""
        path = self.folder / _SECRET
        write_atomically(path, json.dumps({"secret": str(self.secret), "salt": self.salt}).encode())
        path.chmod(0o600)


@contextmanager
def _state(
    file: Path, suite: Suite, entry: Entry, secret: int | None, count: int | None, draws: int | None
) -> Iterator[_State]:
    """The audit of an entry that was interrupted here, or a new one; its folder is removed once it is done."""
    root = cache_directory() / "private"  # whose name plugins may see
    state = None
    for known in audits.read(file):
        line = known.committed
        same = line.entry.kind, line.entry.label, line.suite, line.suite_digest
        if known.revealed is not None or same != (entry.kind, entry.use.label, suite.id, digest(suite)):
            continue
        asked = count in (None, len(line.places)) and draws in (None, line.draws)
        if asked and (kept := _kept(root / line.commitment)) is not None and secret in (None, kept[0]):
            state = _State(root / line.commitment, *kept, line)
    if state is None:
        secret, salt = randomness.randbits(128) if secret is None else secret, randomness.token_hex(16)
        state = _State(root / audits.commit(secret, salt), secret, salt)
    state.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = FileLock(state.folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ArenaError(f"another process is at the audit {state.commitment[:12]}: wait until it is done") from None
    try:
        yield state
    finally:
        lock.release()
        if state.done or state.committed is None:
            shutil.rmtree(state.folder, ignore_errors=True)


def _kept(folder: Path) -> tuple[int, str] | None:
    """The secret and salt of an audit that is under way here."""
    try:
        found = json.loads((folder / _SECRET).read_text(encoding="utf-8"))
        secret, salt = int(found["secret"]), str(found["salt"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (secret, salt) if audits.commit(secret, salt) == folder.name else None


def _commitment(
    suite: Suite, entry: Entry, chosen: Sequence[Spot], public: Public, state: _State, draws: int
) -> Committed:
    asked = public.cells(chosen[0].entry)[0].asked
    whole = asked.defense if entry.kind == "defense" else asked.attack.whole
    code = {"id": whole.id, "version": whole.version, "source_digest": whole.source_digest}
    return Committed(
        commitment=state.commitment,
        suite=suite.id,
        suite_digest=digest(suite),
        protocol_version=PROTOCOL_VERSION,
        entry=Audited(kind=entry.kind, label=entry.use.label, **code),
        places=[spot.place for spot in chosen],
        draws=draws,
        machine=machine(),
        packages=packages_here(),
        engine_digest=engine_digest(),
        created=_now(),
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


# Computing and judging it


@dataclass
class _Audit:
    suite: Suite
    registry: Registry
    public: Public
    entry: Entry
    state: _State
    spots: Sequence[Spot]
    console: Console
    workers: int | None
    isolated: bool
    notes: list[str] = field(default_factory=list)

    def run(self) -> Revealed:
        """Compute what was committed to, and judge it."""
        assert self.state.committed is not None
        seeds = audits.seeds_of(self.state.secret, self.state.salt, self.state.committed.draws)
        combinations = list(self.suite.combinations())
        beside = [list(controls(spot, self.entry.kind, combinations)) for spot in self.spots]
        apart = {spot.place: spot for found in beside for spot in found}
        self._compute([*self.spots, *apart.values()], seeds)
        self.notes += self.public.stale(self.spots)
        known = self._public_data()
        fresh = {label: self._fresh(label, parts) for label, parts in known.items()}
        drifts = {place: self._compare(spot) for place, spot in apart.items()}
        results = []
        for spot, own in zip(self.spots, beside, strict=True):
            found = self._compare(spot)
            if not fresh[spot.place.dataset]:
                found = _undecided(found, "the dataset gives its public samples whatever the seed")
            elif found.verdict == "differs" and any(drifts[control.place].verdict == "differs" for control in own):
                found = _undecided(found, "its control differs as well: it is the draws that do, not the entry")
            results.append(found)
        reproduced = [one for spot in self.spots if (one := self._reproduced(spot, known)) is not None]
        return Revealed(
            commitment=self.state.commitment,
            secret=str(self.state.secret),
            salt=self.state.salt,
            seeds=seeds,
            results=[*results, *drifts.values()],
            reproduced=reproduced,
            notes=self.notes,
            verdict=_verdict(results, reproduced),
            created=_now(),
        )

    def _compute(self, spots: Sequence[Spot], seeds: Sequence[Seeds]) -> None:
        """Compute all cells; their plans and records are kept by combination and draw."""
        self.store = Store(self.state.folder / "store")
        sides = {repr(side): side for spot in spots for side in (spot.more, spot.less)}
        self.plans = {key: [self._plan(side, draw) for draw in seeds] for key, side in sides.items()}
        every = [one for plans in self.plans.values() for one in plans]
        whole = replace(
            every[0],
            cells=tuple({cell.key: cell for one in every for cell in one.cells}.values()),
            stages={name: stage for one in every for name, stage in one.stages.items()},
        )
        results = self.state.folder / "cells.jsonl"
        results.unlink(missing_ok=True)  # of an audit that was interrupted; its stages are in the store
        self.console.print(f"{len(whole.cells)} cells on {len(seeds)} secret draws of the data", markup=False)
        scheduler = "processes" if self.isolated else "sync"
        made = compute(whole, whole.cells, results, self.console, scheduler, self.workers, self.isolated).records
        self.records = {
            key: {draw.cell: made[one.cells[0].key] for draw, one in zip(seeds, plans, strict=True)}
            for key, plans in self.plans.items()
        }
        self.keys = whole.artifacts().keys

    def _plan(self, found: Combination, draw: Seeds | None) -> Plan:
        made = plan(only(self.suite, found, draw), self.registry, self.store, apart=self.isolated)
        if made.broken:
            raise ArenaError(f"{name_of(found)}: {made.broken[0].problem}")
        return made

    def _compare(self, spot: Spot) -> Compared:
        """The effect at a place on the secret draws, and in the records."""
        more, less = self.records[repr(spot.more)], self.records[repr(spot.less)]
        public, secret = self.public.effect(spot), measured(more, less, one_draw=False)
        row = Compared(
            role=spot.role, place=spot.place, public=_side(public), secret=_side(secret), verdict="undecided"
        )
        own, bare = self.records[repr(spot.entry)], self.records[repr(spot.bare)]
        failures = [r.failure.error for seed, r in own.items() if r.failure is not None and bare[seed].status == "done"]
        if failures and spot.role == "entry":
            why = f"it fails on {len(failures)} of {len(own)} secret draws: {failures[0][:500]}"
            return row.model_copy(update={"verdict": "differs", "why": why})
        if secret is None:
            errors = [r.failure.error for r in (*own.values(), *bare.values()) if r.failure is not None]
            return _undecided(row, f"fewer than two draws are done: {errors[0][:500]}")
        if public is None:
            return _undecided(row, "fewer than two seeds have a public record")
        told = difference(public, secret, len(self.spots))
        numbers = {"difference": told.value, "low": told.low, "high": told.high}
        if not told.telling and spot.role == "entry":
            why = "the interval is so wide that it would not show if nothing of the effect were left: take more --draws"
            return _undecided(row.model_copy(update=numbers), why)
        return row.model_copy(update={**numbers, "verdict": "differs" if told.beyond else "agrees"})

    # The data themselves

    def _public_data(self) -> dict[str, list[Sample]]:
        """The public samples of every dataset, by its label."""
        found: dict[str, list[Sample]] = {}
        for spot in self.spots:
            if spot.place.dataset in found:
                continue
            stages = [s for s in self._plan(spot.entry, None).stages.values() if isinstance(s, Data)]
            drawn = compute_stages(stages, self.store, self.suite.limits, self.workers, self.isolated)
            if drawn.failed:
                raise ArenaError(f"the public data cannot be drawn: {next(iter(drawn.failed.values()))}")
            found[spot.place.dataset] = [sample for stage in stages for sample in drawn.samples(stage)]
        return found

    def _fresh(self, label: str, public: Sequence[Sample]) -> bool:
        """Whether the secret draws of a dataset have samples that are not public; notes how many are."""
        spot = next(spot for spot in self.spots if spot.place.dataset == label)
        known = {_picture(sample) for sample in public}
        drawn = [sample for one in self.plans[repr(spot.entry)] for sample in self._clean(one)]
        if shared := sum(_picture(sample) in known for sample in drawn):
            self.notes.append(f"{shared} of {len(drawn)} samples of the secret draws of {label} are public as well")
        return shared < len(drawn) or not drawn

    def _clean(self, drawn: Plan) -> list[Sample]:
        """All samples that were drawn for a cell."""
        stages = [s for s in drawn.stages.values() if isinstance(s, Data)]
        return [sample for stage in stages for sample in self._samples(stage.name)]

    def _samples(self, stage: str) -> list[Sample]:
        key = self.keys.get(stage)
        return [] if key is None else read_release(self.store.require(key) / SAMPLES)

    def _reproduced(self, spot: Spot, public: Mapping[str, Sequence[Sample]]) -> Reproduced | None:
        """What of the public data an attack shows; None of one that changes no samples."""
        total = count = 0
        for drawn in self.plans[repr(spot.entry)] if self.entry.kind == "attack" else ():
            (cell,) = drawn.cells
            left = self._samples(cell.stages["purified"]) if cell.chain else []
            total += len(left)
            count += reproduced(left, self._clean(drawn), public[spot.place.dataset])
        return Reproduced(place=spot.place, samples=total, public=count) if total else None


def _undecided(row: Compared, why: str) -> Compared:
    return row.model_copy(update={"verdict": "undecided", "why": why})


def _side(found: Effect | None) -> Side | None:
    return None if found is None else Side(effect=found.value, seeds=list(found.seeds))


def _verdict(results: Sequence[Compared], reproduced: Sequence[Reproduced]) -> Verdict:
    if any(one.verdict == "differs" for one in results) or any(map(too_many, reproduced)):
        return "differs"
    return "agrees" if any(one.verdict == "agrees" for one in results) else "undecided"


def too_many(found: Reproduced) -> bool:
    """Whether more pictures are public ones than accident explains."""
    return found.public > _TOO_MANY * found.samples


def reproduced(left: Sequence[Sample], clean: Sequence[Sample], public: Sequence[Sample]) -> int:
    """How many samples that an attack `left` show a picture of the `public` data: one that is within 3/255 of it on
    average, and nearer to it than to any of the `clean` ones that its data were made of; all of them at 32 x 32."""
    if not (left and clean and public):
        return 0
    own, theirs = np.stack([*map(_small, clean)]), np.stack([*map(_small, public)])
    count = 0
    for sample in left:
        picture = _small(sample)
        there = float(np.abs(theirs - picture).mean(axis=1).min())
        count += there <= _NEAR and there < float(np.abs(own - picture).mean(axis=1).min())
    return count


def _small(sample: Sample) -> NDArray[np.float32]:
    return np.asarray(sample.image.convert("RGB").resize((32, 32)), dtype=np.float32).ravel()


def _picture(sample: Sample) -> tuple[str, tuple[int, int], bytes]:
    return sample.image.mode, sample.image.size, sample.image.tobytes()
