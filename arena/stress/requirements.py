"""Requirements as people write them, such as ``retention[jpeg]>=0.5@low``, held against what a suite measures."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from arena.errors import UsageError
from arena.plugins.identity import CONTROL
from arena.plugins.registry import near_misses
from arena.stress.scores import Score, find_score
from arena.suites.schema import Suite
from arena.text import shortened

Bound = Literal["low", "value", "high"]

EVERY = "*"
"""As an attack: each of the suite's."""

SELECTORS = {"model": "model", "dataset": "dataset", "recipe": "recipe", "budget": "image_budget"}
"""What rows can be chosen by beside the attack, with the board's column."""

_FORM = re.compile(r"(?P<name>[^\[\]<>=!@]+)(\[(?P<where>.*)\])?\s*(?P<sign>[<>=!]+)\s*(?P<rest>[^<>=!]*)", re.DOTALL)
_EXAMPLE = "write SCORE>=NUMBER or SCORE<=NUMBER, such as protection>=0.3, retention[jpeg]>=0.5@value or psnr>=32"


@dataclass(frozen=True)
class Requirement:
    """A score, the rows of the board that it is about, and what it must be.

    `bound` is what is held against `number`: the lower or upper end of the 95 % interval, or the estimate itself.
    """

    text: str
    score: Score
    attack: str | None
    where: Mapping[str, str]
    sign: Literal[">=", "<="]
    number: float
    bound: Bound

    @property
    def name(self) -> str:
        """The requirement in full: what `text` leaves open is said."""
        brackets = ",".join([*([self.attack] if self.attack else []), *(f"{k}={v}" for k, v in self.where.items())])
        at = f"@{self.bound}" if self.score.interval else ""
        return f"{self.score.name}{f'[{brackets}]' if brackets else ''}{self.sign}{self.number:g}{at}"

    def met_by(self, value: float) -> bool:
        """Whether a measured number is good enough."""
        return value >= self.number if self.sign == ">=" else value <= self.number

    def margin(self, value: float) -> float:
        """By how much a measured number is better than it must be; negative where it is not met."""
        return value - self.number if self.sign == ">=" else self.number - value

    def check(self, suite: Suite) -> None:
        """Raises `UsageError` where the suite does not measure this."""
        attacks = [use.label for use in suite.attacks]
        real = [use.label for use in suite.attacks if use.id != CONTROL]
        about = f"requirement {shortened(self.text, 200)!r}"
        if (self.score.robust or self.attack == EVERY) and not real:
            raise UsageError(f"{about}: suite {suite.id!r} has no attack, so it does not measure this: add one to it")
        if self.attack not in (None, EVERY, *attacks):
            raise UsageError(
                f"{about}: suite {suite.id!r} has no attack {shortened(str(self.attack), 100)!r}"
                f"{near_misses(str(self.attack), attacks)} (there are {', '.join(attacks)})"
            )
        if self.score.attack == "needed" and self.attack is not None and self.attack not in (EVERY, *real):
            raise UsageError(f"{about}: {self.score.name} is about an attack, and this is the control: name one")
        known = {
            "model": [use.id for use in suite.models],
            "dataset": [use.id for use in suite.datasets],
            "recipe": [use.label for use in suite.recipes],
            "budget": [f"{budget.image:g}" for budget in suite.budgets],
        }
        for field, value in self.where.items():
            if value not in known[field]:
                raise UsageError(
                    f"{about}: suite {suite.id!r} has no {field} {shortened(value, 100)!r}"
                    f"{near_misses(value, known[field])} (there are {', '.join(known[field])})"
                )


def parse(text: str) -> Requirement:
    """``SCORE[ATTACK,model=ID,...]>=NUMBER@BOUND`` as a requirement; all but score, sign and number may be left out.

    Without a bound it is the end of the interval that is harder to reach: ``low`` for ``>=``, ``high`` for ``<=``.
    Raises `UsageError` in one paragraph.
    """
    about = f"requirement '{shortened(text.strip(), 200)}'"
    if (found := _FORM.fullmatch(text.strip())) is None:
        raise UsageError(f"{about} cannot be read: {_EXAMPLE}")
    try:
        score = find_score(found["name"])
    except UsageError as error:
        raise UsageError(f"{about}: {error}") from None
    if found["sign"] not in (">=", "<="):
        raise UsageError(f"{about}: '{found['sign']}' is no sign that can be used: write >= or <=")
    sign: Literal[">=", "<="] = ">=" if found["sign"] == ">=" else "<="
    given, at, bound = found["rest"].strip().partition("@")
    try:
        number = float(given)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"{about}: '{shortened(given, 60)}' is no number: {_EXAMPLE}")
    attack, where = _brackets(found["where"], score, about)
    return Requirement(text.strip(), score, attack, where, sign, number, _bound(bound, bool(at), score, sign, about))


def _bound(word: str, given: bool, score: Score, sign: str, about: str) -> Bound:
    word = word.strip()
    if given and word not in ("low", "value", "high"):
        raise UsageError(f"{about}: '@{shortened(word, 60)}' is none of @low, @value, @high")
    if not score.interval:
        if given and word != "value":
            raise UsageError(f"{about}: {score.name} is measured without an interval: leave out '@{word}'")
        return "value"
    if word == "low" or (not given and sign == ">="):
        return "low"
    return "high" if word == "high" or not given else "value"


def _brackets(inner: str | None, score: Score, about: str) -> tuple[str | None, dict[str, str]]:
    """The attack and the selectors in brackets."""
    attack: str | None = None
    where: dict[str, str] = {}
    for part in _parts(inner or ""):
        key, sign, value = part.partition("=")
        if sign and key.strip() in SELECTORS:
            if key.strip() in where:
                raise UsageError(f"{about}: {key.strip()} is there twice: remove one")
            where[key.strip()] = value.strip()
        elif attack is None:
            attack = part
        else:
            raise UsageError(
                f"{about}: {attack!r} and {shortened(part, 60)!r} are two attacks: write a requirement for each, or "
                f"[{EVERY}] for all (rows are chosen by {', '.join(f'{name}=' for name in SELECTORS)})"
            )
    if score.robust and "recipe" in where:
        raise UsageError(f"{about}: the attacker chooses the recipe for {score.name}: leave recipe= out")
    if attack is not None and score.attack == "never":
        why = "is about all attacks together" if score.robust else "does not depend on an attack"
        raise UsageError(f"{about}: {score.name} {why}: leave the attack out")
    if attack is None and score.attack == "needed":
        raise UsageError(
            f"{about}: {score.name} is about an attack: name one, such as {score.name}[jpeg], or all with "
            f"{score.name}[{EVERY}]"
        )
    return attack, where


def _parts(inner: str) -> Iterator[str]:
    """What stands between commas, other than those within the parentheses of a label such as
    ``jpeg(quality=30, rounds=2)``."""
    depth, part = 0, ""
    for character in f"{inner},":
        depth += (character == "(") - (character == ")")
        if character == "," and depth <= 0:
            if part.strip():
                yield part.strip()
            part = ""
        else:
            part += character


def parse_all(texts: Sequence[str]) -> list[Requirement]:
    """All requirements. Raises `UsageError`, also where one is there twice."""
    found: list[Requirement] = []
    for text in texts:
        requirement = parse(text)
        if any(requirement.name == other.name for other in found):
            raise UsageError(f"requirement {shortened(text, 200)!r} is there twice: remove one")
        found.append(requirement)
    return found
