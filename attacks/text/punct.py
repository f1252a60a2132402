"""Punctuation removal (MMGuard, arXiv 2605.14291, adaptive attacks)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from arena.plugins.base import AttackerWorld, TextAttack


class RemovePunctuation(TextAttack):
    """Every character of a Unicode punctuation category becomes a space; runs of spaces that this leaves become one."""

    def purify_texts(self, texts: Sequence[str], world: AttackerWorld) -> Iterable[str]:
        return (self._clean(text) for text in texts)

    @staticmethod
    def _clean(text: str) -> str:
        spaced = "".join(" " if unicodedata.category(c).startswith("P") else c for c in text)
        return re.sub(r" {2,}", " ", spaced).strip() or text
