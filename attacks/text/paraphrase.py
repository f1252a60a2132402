"""Paraphrase: questions in other words, so that the words a protection chose are not those a model is trained on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import Field

from arena.data.sample import Sample
from arena.plugin import Attack, AttackerWorld
from attacks.text.pretrained import CHECKPOINT
from attacks.text.seq2seq import Decoding, Seq2Seq, rewrite_questions


class Paraphrase(Attack):
    """Each question is rewritten by a sequence-to-sequence model; question mark and multiple-choice options stay."""

    class Config(Decoding):
        checkpoint: str = Field(min_length=1, description=f"paraphrasing model: {CHECKPOINT}")
        prefix: str = Field("", description="what the model wants before a text, such as 'paraphrase: '")

    config: Config

    def purify(self, samples: Sequence[Sample], world: AttackerWorld) -> Iterable[Sample]:
        model = Seq2Seq(self.config.checkpoint, self.config)
        return rewrite_questions(samples, lambda texts: model.rewrite([self.config.prefix + text for text in texts]))
