"""Paraphrase: questions in other words, so that the words a protection chose are not those a model is trained on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from arena.data.sample import Sample
from arena.plugins.base import Attack, AttackerWorld, setting
from attacks.checkpoints import fingerprint, pinned
from attacks.text.pretrained import CHECKPOINT
from attacks.text.seq2seq import Decoding, Seq2Seq, rewrite_questions

EMBEDDED = "embedded"
SHIPPED = Path(__file__).parent / "zoo" / "paraphraser"


class Paraphrase(Attack):
    """Each question is rewritten by a sequence-to-sequence model; question mark and multiple-choice options stay.

    The embedded model knows the questions of the embedded datasets and was taught to leave out words that it cannot
    place; see its model card in `attacks/text/zoo/paraphraser`. Other datasets want another model.
    """

    packages = ("tokenizers",)

    class Config(Decoding):
        checkpoint: str = setting(
            EMBEDDED,
            runtime=True,
            min_length=1,
            description=f"paraphrasing model: {EMBEDDED!r}, the small one that comes with the package; or {CHECKPOINT}",
        )
        prefix: str = Field("", description="what the model wants before a text, such as 'paraphrase: '")

    config: Config

    def purify(self, samples: Sequence[Sample], world: AttackerWorld) -> Iterable[Sample]:
        model = Seq2Seq(self._checkpoint, self.config)
        return rewrite_questions(samples, lambda texts: model.rewrite([self.config.prefix + text for text in texts]))

    @property
    def in_domain(self) -> str:
        """The paraphraser that comes with the arena knows the questions of its datasets."""
        known = "its paraphraser was trained on clean questions of this kind"
        return known if self.config.checkpoint == EMBEDDED else ""

    def fingerprint(self) -> str:
        """What identifies the model's weights."""
        return fingerprint(self._checkpoint)

    def pinned(self) -> Mapping[str, Any]:
        return {} if self.config.checkpoint == EMBEDDED else {"checkpoint": pinned(self.config.checkpoint)}

    @property
    def _checkpoint(self) -> str:
        return str(SHIPPED) if self.config.checkpoint == EMBEDDED else self.config.checkpoint
