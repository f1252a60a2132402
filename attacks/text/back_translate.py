"""Back-translation: questions through another language and back (arXiv 2307.12520 measures what text attacks lose)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from arena.data.sample import Sample
from arena.plugins.base import Attack, AttackerWorld, setting
from attacks.checkpoints import fingerprint, pinned
from attacks.text.pretrained import CHECKPOINT
from attacks.text.seq2seq import Decoding, Seq2Seq, rewrite_questions


class BackTranslate(Attack):
    """Each question is translated into another language and back; question mark and multiple-choice options stay.

    The models are MarianMT's, whose tokenizers need the extra `translation`, or any sequence-to-sequence models that
    need no language codes.
    """

    packages = ("sentencepiece", "tokenizers")

    class Config(Decoding):
        forth: str = setting(
            "Helsinki-NLP/opus-mt-en-de",
            runtime=True,
            min_length=1,
            description=f"model into the other language: {CHECKPOINT}",
        )
        back: str = setting(
            "Helsinki-NLP/opus-mt-de-en", runtime=True, min_length=1, description=f"model back: {CHECKPOINT}"
        )

    config: Config

    def purify(self, samples: Sequence[Sample], world: AttackerWorld) -> Iterable[Sample]:
        forth, back = Seq2Seq(self.config.forth, self.config), Seq2Seq(self.config.back, self.config)
        return rewrite_questions(samples, lambda texts: back.rewrite(forth.rewrite(texts)))

    def fingerprint(self) -> str:
        """What identifies the weights of both models."""
        return f"{fingerprint(self.config.forth)} {fingerprint(self.config.back)}"

    def pinned(self) -> Mapping[str, Any]:
        return {"forth": pinned(self.config.forth), "back": pinned(self.config.back)}
