"""Kills and signals: of a run, of its server of stage processes, of a stage's process, and beside other runs."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections.abc import Callable
from functools import partial
from operator import attrgetter

import psutil

from tests.chaos.bench import Bench
from tests.chaos.campaign import Kind, Trial
from tests.chaos.toy_runs import Place, Run


def kinds(bench: Bench, kills: int) -> list[Kind]:
    """The kinds, so many kills and signals altogether."""
    shares = {
        "kill-run": (0.3, partial(_kill_run, bench)),
        "kill-server": (0.2, partial(_kill_server, bench)),
        "kill-stage": (0.2, partial(_kill_stage, bench)),
        "sigint": (0.1, partial(_stop, bench, signal.SIGINT)),
        "sigterm": (0.1, partial(_stop, bench, signal.SIGTERM)),
        "several-runs": (0.1, partial(_several, bench)),
    }

    def trial(name: str, seed: str) -> Trial:
        return bench.trial(name, seed, shares[name][1])

    return [Kind(name, max(1, round(kills * share)), partial(trial, name)) for name, (share, _) in shares.items()]


def _kill_run(bench: Bench, rng: random.Random, place: Place) -> tuple[int, list[str]]:
    """kill -9 of the main process, also of runs that go on after one that was killed; then one that is not."""
    killed, problems = 0, []
    for number in range(rng.randint(1, 3)):
        run, moment = place.start(), bench.reference.moment(rng)
        if moment.come(run):
            run.process.kill()
            killed += 1
        run.wait()
        found = [*place.quiet(), *place.recorded(bench.reference)]
        problems += [f"kill {number + 1} ({moment}): {problem}" for problem in found]
    return killed, [*problems, *place.finish(bench.reference)]


def _kill_server(bench: Bench, rng: random.Random, place: Place) -> tuple[int, list[str]]:
    """kill -9 of the server or of its guardian, which are started again; stages that go with them twice may fail."""
    return _kill_inside(bench, rng, place, rng.choice([Run.server, Run.guardian]))


def _kill_stage(bench: Bench, rng: random.Random, place: Place) -> tuple[int, list[str]]:
    """kill -9 of a stage's process, as by a kernel out of memory: its cells fail, and say so."""
    return _kill_inside(bench, rng, place, Run.stage)


Find = Callable[[Run], psutil.Process | None]


def _kill_inside(bench: Bench, rng: random.Random, place: Place, find: Find) -> tuple[int, list[str]]:
    run, killed, when = place.start(), 0, []
    for moment in sorted((bench.reference.moment(rng) for _ in range(rng.randint(1, 2))), key=attrgetter("artifacts")):
        if moment.come(run) and (found := run.seek(find)) is not None:
            try:
                found.kill()
            except psutil.Error:
                continue
            killed += 1
            when.append(str(moment))
    stage = find is Run.stage
    may_fail = stage or killed > 1
    problems = run.ends_with(0, 1) if may_fail and killed else run.ends_with(0)
    problems += [*place.quiet(), *place.tidy()]
    problems += place.recorded(bench.reference, "SIGKILL" if stage else "killed" if may_fail else None)
    if run.process.returncode == 1 and not re.search("SIGKILL|killed", run.text()):
        problems.append(f"it does not say what was killed: {run.tail()}")
    problems = [f"{killed} kills ({', '.join(when)}): {problem}" for problem in problems]
    return killed, [*problems, *place.finish(bench.reference, "--force-failed")]


def _stop(bench: Bench, number: signal.Signals, rng: random.Random, place: Place) -> tuple[int, list[str]]:
    """A signal to the run, or as a terminal does to its whole group, sometimes a second one soon after."""
    run, moment = place.start(), bench.reference.moment(rng)
    group, again = rng.random() < 0.5, rng.random() < 0.3
    pause = rng.random()
    if not (moment.come(run) and _heeds(run, signal.SIGTERM)):
        run.wait()
        return 0, place.finish(bench.reference)
    _send(run, number, group)
    if again:
        time.sleep(pause)
        _send(run, number, group)
    code = run.wait(60)
    problems = []
    if code != 0:  # else it came when everything was done
        codes = (128 + number, -number) if again else (128 + number,)  # a shell says 128 + number of both
        problems = run.ends_with(*codes, says=("interrupted", "kept", "run again"))
    problems += [*place.quiet(), *place.recorded(bench.reference), *place.tidy()]
    twice = f", again after {pause:.2f} s" if again else ""
    problems = [f"{number.name} {moment}{twice}{', to the group' if group else ''}: {p}" for p in problems]
    return 1, [*problems, *place.finish(bench.reference)]


def _heeds(run: Run, number: signal.Signals) -> bool:
    """Wait until a run has a handler for a signal: before, Python itself is being started."""
    while not run.ended():
        try:
            with open(f"/proc/{run.process.pid}/status", encoding="ascii") as status:  # noqa: PTH123
                caught = next(line for line in status if line.startswith("SigCgt"))
        except (OSError, StopIteration):
            return False
        if int(caught.split()[1], 16) >> (number - 1) & 1:
            return True
        time.sleep(0.01)
    return False


def _send(run: Run, number: signal.Signals, group: bool) -> None:
    if not run.ended():
        (os.killpg if group else os.kill)(run.process.pid, number)


def _several(bench: Bench, rng: random.Random, place: Place) -> tuple[int, list[str]]:
    """Two or three runs on one store and one file of results, one of them killed."""
    runs: list[Run] = []
    for _ in range(rng.randint(2, 3)):
        runs.append(place.start())
        time.sleep(rng.random())
    victim, moment = rng.choice(runs), bench.reference.moment(rng)
    if killed := moment.come(victim):
        victim.process.kill()
    victim.wait()
    problems = []
    for run in runs:
        problems += run.ends_with(0) if run is not victim or not killed else []
    problems += [*place.quiet(), *place.recorded(bench.reference), *place.complete(bench.reference)]
    problems = [f"{len(runs)} runs, number {runs.index(victim) + 1} killed {moment}: {p}" for p in problems]
    return int(killed), [*problems, *place.finish(bench.reference)]
