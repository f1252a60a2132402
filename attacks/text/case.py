"""Case folding (MMGuard, arXiv 2605.14291, adaptive attacks)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from arena.plugins.base import AttackerWorld, TextAttack


class FoldCase(TextAttack):
    """Unicode case folding of the whole question."""

    def purify_texts(self, texts: Sequence[str], world: AttackerWorld) -> Iterable[str]:
        return (text.casefold() for text in texts)
