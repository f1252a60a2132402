"""A process that fuzzes one target: ``python -m tests.chaos.fuzz_worker NAME FOLDER``; a line of JSON asks for a block
of inputs, and a line answers what came of them.

What kills or stops this process is found out by the one that waits for it; the files of the input are in FOLDER then.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from types import FrameType
from typing import get_args

import hypothesis
import psutil
from hypothesis import Phase

from arena.errors import ArenaError, describe_error
from arena.plugins.registry import Kind, installed
from arena.text import printable
from tests.chaos.targets import TARGETS, Input
from tests.chaos.toy_runs import ROOT

SECONDS = 10.0
"""Longer than this no input may take."""
MEMORY = 2**30
"""More bytes than this no input may take."""
_SHRINK = 20.0
"""Seconds for making an input that fails smaller."""


def _load_plugins() -> None:
    for kind in get_args(Kind):
        for entry in installed().entries(kind):
            with contextlib.suppress(ArenaError):
                entry.load()


class _Slow(BaseException):
    """An input took too long."""


@dataclass
class Found:
    """One way to fail: what happened, how often in a block, and an input that does it, as small as was found."""

    signature: str
    problem: str
    count: int = 0
    files: dict[str, str] = field(default_factory=dict)
    given: str = ""


def main() -> None:
    name, folder = sys.argv[1], Path(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGALRM, _slow)
    fuzz = Fuzz(name, folder)
    for line in sys.stdin:
        order = json.loads(line)
        answers.write(json.dumps(fuzz.block(order["seed"], order["count"])) + "\n")


def _slow(number: int, frame: FrameType | None) -> None:
    raise _Slow


class Fuzz:
    """Fuzzes a target, in a folder that is emptied for each input."""

    def __init__(self, name: str, folder: Path) -> None:
        self.target, self.name, self.folder = TARGETS[name], name, folder
        self.strategy = self.target.inputs()
        if self.target.loads:
            _load_plugins()
        self._attempt(Input({}))  # imports what it needs
        self.shown: set[str] = set()

    def block(self, seed: str, count: int) -> dict[str, object]:
        """Try `count` inputs; what a way to fail is first found with is made smaller."""
        tried, accepted, found = 0, 0, dict[str, Found]()

        def each(given: Input) -> None:
            nonlocal tried, accepted
            tried += 1
            signature, problem, taken = self._attempt(given)
            accepted += taken
            if signature is not None:
                one = found.setdefault(signature, Found(signature, problem))
                one.count += 1
                if not one.files:
                    self._note(one, given)

        self._drive(seed, count, each, (Phase.generate,))
        for signature in set(found) - self.shown:
            self.shown.add(signature)
            if signature.startswith("E"):
                self._shrink(seed, count, signature, found[signature])
        return {"tried": tried, "accepted": accepted, "found": [asdict(one) for one in found.values()]}

    def _shrink(self, seed: str, count: int, signature: str, one: Found) -> None:
        until = time.monotonic() + _SHRINK

        def each(given: Input) -> None:
            if time.monotonic() > until:
                return
            again, problem, _ = self._attempt(given)
            if again == signature:
                one.problem = problem
                self._note(one, given)
                raise AssertionError

        try:
            self._drive(seed, count, each, (Phase.generate, Phase.shrink))
        except (Exception, hypothesis.errors.Flaky):  # what is left is the smallest that was found in time
            return

    @staticmethod
    def _note(one: Found, given: Input) -> None:
        one.files = {name: content[:200_000].hex() for name, content in given.files.items()}
        one.given = repr(given.given)[:500]

    def _drive(self, seed: str, count: int, each: Callable[[Input], None], phases: tuple[Phase, ...]) -> None:
        @hypothesis.seed(int.from_bytes(sha256(f"{self.name}:{seed}".encode()).digest()[:8]))
        @hypothesis.settings(
            max_examples=count,
            phases=phases,
            database=None,
            deadline=None,
            print_blob=False,
            report_multiple_bugs=False,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(self.strategy)
        def drive(given: Input) -> None:
            each(given)

        drive()

    def _attempt(self, given: Input) -> tuple[str | None, str, bool]:
        """A signature of what is wrong with an input and the words for it, and whether the input was taken."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for name, content in given.files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        self.folder.mkdir(parents=True, exist_ok=True)
        before, started, taken = _reset_peak(), time.monotonic(), False
        wrong: tuple[str | None, str] = (None, "")
        signal.setitimer(signal.ITIMER_REAL, SECONDS + 1)
        try:
            self.target.check(self.folder, given.given)
            taken = True
        except ArenaError as error:
            wrong = _complaint(error)
        except _Slow as error:
            wrong = "hang", f"not done after {SECONDS:.0f} s, at {_place(error)}"
        except BaseException as error:
            where = _place(error)
            wrong = f"E {type(error).__name__} {where}", f"{type(error).__name__}: {_said(error)} at {where}"
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        took, grown = time.monotonic() - started, _peak() - before
        if wrong[0] is None and took > SECONDS:
            wrong = "slow", f"took {took:.1f} s"
        if wrong[0] is None and grown > MEMORY:
            wrong = "memory", f"took {grown / 2**20:.0f} MB of memory"
        return *wrong, taken


def _complaint(error: ArenaError) -> tuple[str | None, str]:
    """What is wrong with a message: it must be one paragraph, printable, of a length that somebody reads."""
    try:
        text = describe_error(error)
        text.encode()
    except Exception as broken:
        return f"E message {_place(error)}", f"its message cannot be said: {type(broken).__name__} at {_place(error)}"
    reasons = {
        "is empty": not str(error).strip(),
        "has blank lines": any(not line.strip() for line in text.split("\n")),
        "is too long": len(text) > 2500,
        "has control characters": printable(text) != text,
        "is a traceback": "Traceback (most recent" in text,
        "is that of pydantic": "errors.pydantic.dev" in text or "validation error for" in text,
    }
    wrong = [reason for reason, holds in reasons.items() if holds]
    if not wrong:
        return None, ""
    return f"E message {wrong[0]} {_place(error)}", f"the message {', '.join(wrong)}: {text[:300]!r} at {_place(error)}"


def _said(error: BaseException) -> str:
    try:
        return repr(str(error)[:300])
    except Exception:
        return "which cannot be said"


def _place(error: BaseException) -> str:
    """The innermost place in the project's own code."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename.startswith(str(ROOT)) and "/.venv/" not in f.filename]
    own = [f for f in own if f.filename != __file__] or own
    inner = (own or frames)[-1]
    return f"{inner.filename.removeprefix(f'{ROOT}/')}:{inner.lineno}"


def _reset_peak() -> int:
    """Resident bytes now, from where on the peak is counted."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return int(psutil.Process().memory_info().rss)


def _peak() -> int:
    """The peak of resident bytes; where the system does not say, what they are now."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123
            return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) * 1024
    except (OSError, StopIteration):
        return int(psutil.Process().memory_info().rss)


if __name__ == "__main__":
    main()
