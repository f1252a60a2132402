"""Fuzzed inputs, a process a target, which may die of one or hang."""

from __future__ import annotations

import atexit
import json
import os
import select
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from tests.chaos.bench import Bench
from tests.chaos.campaign import Failure, Kind, Trial
from tests.chaos.targets import TARGETS
from tests.chaos.toy_runs import ROOT

BLOCK = 50
"""Inputs of one seed."""
_SILENCE = 120.0
"""Seconds without an answer after which a process hangs where no signal reaches it."""


def kinds(bench: Bench, inputs: int) -> list[Kind]:
    """The kinds, so many inputs altogether."""
    return [
        Kind(name, max(1, round(inputs * target.share)), partial(Worker(bench, name).attempt, BLOCK))
        for name, target in TARGETS.items()
    ]


class Worker:
    """The process of one target, started when it is first asked and again when it ended."""

    def __init__(self, bench: Bench, name: str) -> None:
        self._bench, self._name = bench, name
        self._process: subprocess.Popen[str] | None = None
        self._known: set[str] = set()

    def attempt(self, count: int, seed: str) -> Trial:
        """Try a block of inputs."""
        folder = self._bench.folder / self._name
        process = self._started(folder)
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps({"seed": seed, "count": count}) + "\n")
            process.stdin.flush()
            # A block answers after all its inputs, each of which may take a while.
            ready, _, _ = select.select([process.stdout], [], [], _SILENCE + count)
            line = process.stdout.readline() if ready else ""
        except BrokenPipeError:
            line = ""
        if not line:
            return self._lost(process, folder, seed)
        answer = json.loads(line)
        failures = [self._failure(one, seed) for one in answer["found"]]
        return Trial(answer["tried"], failures, answer["accepted"])

    def _started(self, folder: Path) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.fuzz_worker", self._name, str(folder / "input")],
                cwd=ROOT,
                env={**os.environ, "HYPOTHESIS_STORAGE_DIRECTORY": str(folder / "hypothesis"), "HF_HUB_OFFLINE": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            atexit.register(self._process.kill)
        return self._process

    def _lost(self, process: subprocess.Popen[str], folder: Path, seed: str) -> Trial:
        """What is to be said of a process that did not answer; the input is what lies in its folder."""
        died = process.poll() is not None
        process.kill()
        code = process.wait()
        kept = self._bench.keep(folder / "input") if (folder / "input").exists() else ""
        return Trial(1, [Failure(seed, [f"it died of an input ({code})" if died else "it hangs"], kept)])

    def _failure(self, one: dict[str, Any], seed: str) -> Failure:
        """A way to fail; the input is kept where it is the first."""
        problems = [one["problem"], *([f"given {one['given']}"] if one["given"] != "{}" else [])]
        if one["signature"] in self._known:
            return Failure(seed, (), count=one["count"])
        self._known.add(one["signature"])
        target = self._bench.kept / f"{self._name}-{len(self._known)}"
        shutil.rmtree(target, ignore_errors=True)
        for file, content in one["files"].items():
            path = target / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes.fromhex(content))
        return Failure(seed, problems, str(target), one["count"])
