"""What came of trying a plugin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from arena.junit import Case, junit
from arena.plugins.registry import Kind


@dataclass(frozen=True)
class Outcome:
    """How one check ended: what was seen, or what is wrong with its remedy, or why it was left out; and where something
    is wrong ``file:line``, to look at."""

    check: str
    status: Literal["passed", "failed", "skipped"]
    said: str
    where: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        place = f" (look at {self.where})" if self.where else ""
        return f"{self.check} {self.status}: {self.said}{place}"


@dataclass(frozen=True)
class Report:
    """All checks of one plugin, in order."""

    kind: Kind
    id: str
    outcomes: Sequence[Outcome]

    @property
    def name(self) -> str:
        """``defense/em``."""
        return f"{self.kind}/{self.id}"

    @property
    def failures(self) -> list[Outcome]:
        """What did not pass; what was left out is not among it."""
        return [outcome for outcome in self.outcomes if outcome.status == "failed"]

    @property
    def passed(self) -> bool:
        """Whether nothing failed, and something was tried."""
        return not self.failures and any(outcome.status == "passed" for outcome in self.outcomes)

    def junit(self) -> bytes:
        """The report as a file that continuous integration shows."""
        cases = [
            Case(self.name, o.check, o.status, o.said, f"look at {o.where}" if o.where else "", o.seconds)
            for o in self.outcomes
        ]
        return junit(f"arena check {self.name}", cases)

    def __str__(self) -> str:
        failed = "\n".join(map(str, self.failures)) or "nothing failed"
        return f"{self.name}: {failed}"
