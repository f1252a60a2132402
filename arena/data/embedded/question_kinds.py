"""Settings of a dataset whose questions are of several kinds: which are trained on, and which are tested."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, ClassVar, Self

from pydantic import model_validator

from arena.plugins.base import PluginConfig, setting


def trained_kinds(default: Sequence[str]) -> Any:
    """The setting `train_kinds` of a dataset, with its default."""
    return setting(tuple(default), later=True, description="kinds of questions that are trained on, in turn")


class KindsConfig(PluginConfig):
    """The kinds of questions of the two sides: the same, or in a cross-task split others altogether.

    A subclass says in `known` what there is, and gives `train_kinds` its default. The kinds of a side take turns, so
    that each has an equal share of it. Auxiliary samples ask what training samples ask.
    """

    known: ClassVar[tuple[str, ...]]
    """All kinds of questions that the dataset has."""

    train_kinds: tuple[str, ...] = trained_kinds(())
    test_kinds: tuple[str, ...] | None = setting(
        None,
        later=True,
        description="kinds of questions that are tested: those trained on, or none of them (cross-task)",
    )

    @property
    def tested(self) -> tuple[str, ...]:
        """The kinds of the test's questions."""
        return self.train_kinds if self.test_kinds is None else self.test_kinds

    @model_validator(mode="after")
    def _sides_fit(self) -> Self:
        for field, kinds in (("train_kinds", self.train_kinds), ("test_kinds", self.tested)):
            if not kinds:
                raise ValueError(f"{field} is empty: name some of {', '.join(self.known)}")
            for kind in kinds:
                if kind not in self.known:
                    near = get_close_matches(kind, self.known, 1)
                    hint = f"; did you mean {near[0]!r}?" if near else ""
                    raise ValueError(f"{field}: no kind of question is called {kind!r} ({', '.join(self.known)}){hint}")
            if len(set(kinds)) < len(kinds):
                raise ValueError(f"{field}: {', '.join(kinds)} has a kind twice")
        both = [kind for kind in self.known if kind in self.train_kinds and kind in self.tested]
        if both and set(self.tested) != set(self.train_kinds):
            raise ValueError(
                f"{', '.join(both)} is trained on and tested, other kinds are not: test what is trained on (leave out "
                "test_kinds), or none of it"
            )
        return self
