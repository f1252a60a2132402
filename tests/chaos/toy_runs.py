"""Runs of a toy suite by the command line, to be disturbed, and what must hold of them afterwards."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from arena.errors import ArenaError
from arena.records.files import read_records
from arena.records.schema import Record

ROOT = Path(__file__).parents[2]
PLUGINS = (ROOT / "tests" / "toys", Path(__file__).parent / "plugins")
_PROGRAM = "import toys; from arena.cli.app import main; main()"
"""The toys are imported so that no stage waits for torch, which toys have no use for."""
_MARK = "LC_CHAOS"
"""Locale variables are passed on to the processes of stages, so that by this one all processes of a run are found."""
GRACE = 5.0
"""Seconds that processes have to end after what started them."""
PATIENCE = 300.0
"""Seconds after which a run hangs."""

SUITE = """\
id: toy
models: [toy-model]
datasets: [{id: toy-data, train: 8, auxiliary: 4, test: 6}]
defenses: [none, chaos-litter]
attacks: [none, toy-invert]
recipes: [toy-recipe]
seeds: [0]
"""


class Hung(Exception):
    """A run did not end in time."""


def essence(record: Record) -> dict[str, Any]:
    """A record without what differs between runs: cost, time, and the commit that the code is at."""
    said = record.model_dump(exclude={"cost", "created"})
    del said["environment"]["git_commit"], said["environment"]["git_dirty"]
    return said


@dataclass(frozen=True)
class Reference:
    """An undisturbed run: its records by cell, when each artifact was there and when it ended (seconds), and the bytes
    and files of its store."""

    records: dict[str, dict[str, Any]]
    times: tuple[float, ...]
    end: float
    size: int
    files: int

    def moment(self, rng: random.Random) -> Moment:
        """A random moment: each time between two artifacts is as likely as any other."""
        after = rng.randrange(len(self.times) + 1)
        marks = (0.0, *self.times, self.end)
        return Moment(after, rng.random() * (marks[after + 1] - marks[after]))


@dataclass(frozen=True)
class Moment:
    """So many seconds after a store has so many artifacts."""

    artifacts: int
    delay: float

    def come(self, run: Run) -> bool:
        """Wait for it; whether the run is still there."""
        while run.place.artifacts() < self.artifacts:
            if run.ended():
                return False
            time.sleep(0.01)
        until = time.monotonic() + self.delay
        while time.monotonic() < until:
            if run.ended():
                return False
            time.sleep(0.005)
        return not run.ended()

    def __str__(self) -> str:
        return f"{self.delay:.2f} s after artifact {self.artifacts}"


@dataclass
class Place:
    """A folder with a suite, a store and a file of results."""

    folder: Path
    store: Path = field(default=Path())
    results: Path = field(default=Path())
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.store == Path():
            self.store = self.folder / "store"
        if self.results == Path():
            self.results = self.folder / "results" / "toy.jsonl"
        (self.folder / "toy.yaml").write_text(SUITE, encoding="utf-8")
        self._started = 0

    def start(self, *options: str) -> Run:
        """Start a run, in a session of its own."""
        self._started += 1
        said = self.folder / f"run-{self._started}.txt"
        paths = os.pathsep.join(map(str, (ROOT, *PLUGINS)))
        with said.open("wb") as file:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-c", _PROGRAM, "run", "toy.yaml", "--workers", "2"),
                    *("--store", str(self.store), "--results", str(self.results), *options),
                ],
                cwd=self.folder,
                env={
                    **{k: v for k, v in os.environ.items() if k not in ("ARENA_STORE", "TOY_LOG")},
                    **{"PYTHONPATH": paths, "XDG_CACHE_HOME": str(self.folder / "cache"), _MARK: self.mark},
                    **{"COLUMNS": "500", "OMP_NUM_THREADS": "1"},
                },
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # the board
                stderr=file,
                start_new_session=True,
            )
        return Run(self, process, said)

    def artifacts(self) -> int:
        """How many the store has."""
        return sum(1 for _ in self.store.glob("??/*/manifest.json"))

    def processes(self) -> list[psutil.Process]:
        """All that runs here have started and that is still there."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(_MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def clear(self) -> None:
        """Kill what is left."""
        for process in self.processes():
            try:
                process.kill()
            except psutil.Error:
                continue

    # What must hold

    def quiet(self) -> list[str]:
        """Processes that are left after the time of grace; they are killed then."""
        until = time.monotonic() + GRACE
        while (left := self.processes()) and time.monotonic() < until:
            time.sleep(0.1)
        named = []
        for process in left:
            try:
                named.append(f"{process.pid} {' '.join(process.cmdline())[:80]!r}")
            except psutil.Error:
                continue
        self.clear()
        return [f"processes left: {', '.join(named)}"] if named else []

    def recorded(self, reference: Reference, may_fail: str | None = None) -> list[str]:
        """What is wrong with what is recorded so far; cells may have failed where `may_fail` is in what is said."""
        records = self.read()
        if isinstance(records, str):
            return [records]
        problems = []
        for record in records:
            if record.failure is not None:
                if may_fail is None or not re.search(may_fail, record.failure.error):
                    problems.append(f"recorded as failed: {record.failure.error[:300]}")
            elif (wanted := reference.records.get(record.cell)) != (found := essence(record)):
                fields = [name for name in found if wanted is None or wanted[name] != found[name]]
                problems.append(f"the record of cell {record.cell[:12]} differs in {', '.join(fields)}")
        return problems

    def complete(self, reference: Reference) -> list[str]:
        """Whether each cell has one record that is done."""
        records = self.read()
        if isinstance(records, str):
            return [records]
        done = Counter(r.cell for r in records if r.status == "done")
        wrong = [f"{cell[:12]} has {done[cell]}" for cell in {*reference.records, *done} if done[cell] != 1]
        return [f"records of cells: {', '.join(sorted(wrong))}"] if wrong else []

    def tidy(self, aside: bool = False) -> list[str]:
        """Files that should not be there once a run has ended by itself; with `aside`, damaged artifacts may be. Locks
        stay, for a lock that is removed can be held twice."""
        left = []
        for name in ("partial", "stages", *(() if aside else ("corrupt",))):
            left += [str(path.relative_to(self.store)) for path in (self.store / name).glob("*")]
        left += [path.name for path in self.results.parent.glob(".*") if path.name != f".{self.results.name}.lock"]
        left += [path.name for path in self.store.glob(".*")]
        left += [f"workspaces/{path.name}" for path in self.folder.glob("cache/mmguard-arena/workspaces/*")]
        left += [f"{path.parent.name}/{path.name}" for path in self.store.glob("??/*") if not path.is_dir()]
        more = f" and {len(left) - 4} more" if len(left) > 4 else ""
        return [f"files left: {', '.join(left[:4])}{more}"] if left else []

    def read(self) -> list[Record] | str:
        """The records, or why they cannot be read."""
        try:
            return read_records(self.results) if self.results.exists() else []
        except ArenaError as error:
            return str(error)

    def finish(self, reference: Reference, *options: str, aside: bool = False) -> list[str]:
        """Let a run go on to the end, and everything that is then wrong."""
        run = self.start(*options)
        problems = run.ends_with(0)
        for check in (
            self.quiet(),
            self.recorded(reference, ".*" if "--force-failed" in options else None),
            self.complete(reference),
            self.tidy(aside),
        ):
            problems += check
        return [f"after the last run: {problem}" for problem in problems]


@dataclass
class Run:
    """A run that was started."""

    place: Place
    process: subprocess.Popen[bytes]
    said: Path
    began: float = field(default_factory=time.monotonic)

    def ended(self) -> bool:
        if time.monotonic() - self.began > PATIENCE:
            raise Hung(f"{self.said.name} has not ended after {PATIENCE:.0f} s: {self.tail()}")
        return self.process.poll() is not None

    def wait(self, patience: float = PATIENCE) -> int:
        """Its exit code. Raises `Hung`."""
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            raise Hung(f"{self.said.name} has not ended after {patience:.0f} s: {self.tail()}") from None

    def ends_with(self, *codes: int, says: Sequence[str] = ()) -> list[str]:
        """What is wrong with how it ends: another exit code, a traceback, or not what it must say."""
        code, text = self.wait(), self.text()
        problems = []
        if code not in codes:
            problems.append(f"exit code {code} instead of {' or '.join(map(str, codes))}: {self.tail()}")
        if "Traceback (most recent" in text or "Exception ignored" in text:
            problems.append(f"a traceback: {self.tail()}")
        problems += [f"it does not say {p!r}: {self.tail()}" for p in says if not re.search(p, text)]
        return problems

    def text(self) -> str:
        return self.said.read_text(encoding="utf-8", errors="replace")

    def tail(self) -> str:
        """The end of what it said, in one line."""
        return " | ".join(self.text().split("\n")[-5:])[-500:].strip()

    def guardian(self) -> psutil.Process | None:
        """The process above the server of its stages."""
        return self._child(
            psutil.Process(self.process.pid), lambda p: "arena.isolation.server" in " ".join(p.cmdline())
        )

    def server(self) -> psutil.Process | None:
        """The server of its stages."""
        guardian = self.guardian()
        return None if guardian is None else self._child(guardian, lambda p: p.status() != psutil.STATUS_ZOMBIE)

    def stage(self) -> psutil.Process | None:
        """A process of one of its stages."""
        server = self.server()
        return None if server is None else self._child(server, lambda p: p.status() != psutil.STATUS_ZOMBIE)

    def seek(self, find: Callable[[Run], psutil.Process | None]) -> psutil.Process | None:
        """Wait for a process; None where the run ends before there is one."""
        while not self.ended():
            if (found := find(self)) is not None:
                return found
            time.sleep(0.002)
        return None

    @staticmethod
    def _child(of: psutil.Process, fits: Callable[[psutil.Process], bool]) -> psutil.Process | None:
        try:
            for child in of.children():
                try:
                    if fits(child):
                        return child
                except psutil.Error:
                    continue
        except psutil.Error:
            pass
        return None


def reference(folder: Path) -> Reference:
    """An undisturbed run. Raises `ArenaError` where even that fails."""
    place = Place(folder)
    run = place.start()
    times: list[float] = []
    while not run.ended():
        times += [time.monotonic() - run.began] * (place.artifacts() - len(times))
        time.sleep(0.02)
    end = time.monotonic() - run.began
    times += [end] * (place.artifacts() - len(times))
    problems = [*run.ends_with(0), *place.quiet()]
    records = place.read()
    if problems or isinstance(records, str):
        raise ArenaError(f"an undisturbed run fails: {'; '.join([*problems, str(records)])}")
    files = [path for path in place.store.rglob("*") if path.is_file()]
    made = Reference(
        {r.cell: essence(r) for r in records}, tuple(times), end, sum(p.stat().st_size for p in files), len(files)
    )
    if wrong := [*place.recorded(made), *place.complete(made)]:
        raise ArenaError(f"an undisturbed run fails: {'; '.join(wrong)}")
    return made
