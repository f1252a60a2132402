"""White space normalisation (MMGuard, arXiv 2605.14291, adaptive attacks)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from arena.plugins.base import AttackerWorld, TextAttack

ZERO_WIDTH = dict.fromkeys(map(ord, "\u180e\u200b\u200c\u200d\u2060\ufeff"))
"""Characters that take no room: separators and joiners, the word joiner, the byte order mark."""


class NormalizeWhitespace(TextAttack):
    """Zero-width characters go, every run of Unicode's spaces becomes one plain space, and none is left at the ends.

    A run with a line break in it becomes one line break: lines set the options of a question apart.
    """

    def purify_texts(self, texts: Sequence[str], world: AttackerWorld) -> Iterable[str]:
        return (self._normal(text) for text in texts)

    @staticmethod
    def _normal(text: str) -> str:
        lines = (" ".join(line.split()) for line in text.translate(ZERO_WIDTH).splitlines())
        return "\n".join(filter(None, lines)) or text
