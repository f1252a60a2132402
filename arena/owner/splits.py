"""What `--split` names: a split, or a part of its rows, in the words of `datasets`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from arena.errors import UsageError


@dataclass(frozen=True)
class Split:
    """One split by its name, and which of its rows; such as ``train``, ``train[:100]`` or ``test[10%:20%]``."""

    asked: str

    def __post_init__(self) -> None:
        if "+" in self.asked or not re.fullmatch(r"[^\[\]]+(\[[^\[\]]*:[^\[\]]*\])?", self.asked):
            raise UsageError(
                f"the split {self.asked!r} is not one split, or a part of one such as train[:100]: name one"
            )

    @property
    def name(self) -> str:
        return self.asked.partition("[")[0]

    @property
    def whole(self) -> bool:
        """Whether all of its rows are meant."""
        return self.name == self.asked

    def rows(self, count: int) -> range:
        """The rows that are meant of `count`, from 0. Raises `UsageError` where there are not so many."""
        if self.whole:
            return range(count)
        from datasets import ReadInstruction

        try:
            (part,) = ReadInstruction.from_spec(self.asked).to_absolute({self.name: count})
        except (AssertionError, ValueError) as error:
            raise UsageError(f"{self.asked!r} is no part of a split ({error}): name one such as train[:100]") from error
        if part.from_ >= part.to:
            raise UsageError(f"{self.asked!r} has no rows, as {self.name!r} has {count}: name others")
        return range(part.from_, part.to)
