"""Methods that craft nothing do not go stale with what crafts."""

from __future__ import annotations

import pytest

from arena.plugins.registry import FIRST_PARTY, Registry
from arena.plugins.source import imported

CRAFTS = {"defenses.noise", "defenses.surrogate", "mmguard.craft", "mmguard.purifiers"}


def closure(defense: str) -> set[str]:
    """The modules that a defense imports, and those that these do."""
    found, waiting = set[str](), [Registry().get("defense", defense).point.module]
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += imported(module, FIRST_PARTY)
    return found


@pytest.mark.parametrize(
    "defense",
    ["none", "random", "random-words", "answer-word", "ar", "lsp", "ops", "cuda", "pil", "ntga", "regtext", "released"],
)
def test_without_a_loop_that_crafts(defense: str) -> None:
    assert CRAFTS.isdisjoint(closure(defense))


def test_what_crafts_is_found() -> None:
    assert closure("em") >= {"defenses.noise", "defenses.surrogate", "mmguard.purifiers"}
    assert {"mmguard.craft", "mmguard.purifiers"} <= closure("mmguard-bph")
