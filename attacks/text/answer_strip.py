"""The words of the answer, taken out of the question: what undoes an answer that is spelled out there, and nothing
else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pydantic import Field

from arena.data.sample import Sample
from arena.leak import ARTICLES, Spelling, spellings
from arena.leak import words as compared
from arena.plugins.base import Attack, AttackerWorld, PluginConfig
from attacks.text.multiple_choice import divide
from attacks.text.words import Piece, pieces, without


class AnswerStrip(Attack):
    """Removes the words of a sample's answer and of its aliases from its question.

    Words are compared as `arena.leak` compares them: folded, number words as digits, runs of neighbours also written
    together, so that ``wo lf`` goes where the answer is wolf. Articles written small are no words of an answer. The
    options of a multiple-choice question stay; outside of them the right option's letter goes, and its text where all
    words of it are there. A question of which nothing would be left stays as it is. Words within longer ones stay, and
    so does the answer in other words.
    """

    class Config(PluginConfig):
        partial: bool = Field(
            True, description="remove single words of an answer of several too, not only where all of them are there"
        )

    config: Config

    def purify(self, samples: Sequence[Sample], world: AttackerWorld) -> Iterable[Sample]:
        return (sample.with_content(sample.image, self._stripped(sample)) for sample in samples)

    def _stripped(self, sample: Sample) -> str:
        parts = divide(sample)
        every = spellings(sample)
        said = {word for text in (sample.answer, *sample.aliases) for word in compared(text)}
        before, after = pieces(parts.before), pieces(parts.after)
        there = {piece.word for piece in before + after}
        gone = {
            word
            for spelling in every
            if there.issuperset(spelling) or (self.config.partial and said.issuperset(spelling))
            for word in spelling
        }
        found = [_places(text, gone, every) for text in (before, after)]
        if not any(found):
            return sample.question
        return (without(before, found[0]) + parts.options + without(after, found[1])).strip() or sample.question


def _places(text: Sequence[Piece], gone: set[str], every: Sequence[Spelling]) -> set[int]:
    """Where the words `gone` stand, and runs of neighbours that written together make a spelling."""
    found = {place for place, piece in enumerate(text) if piece.word in gone and piece.text not in ARTICLES}
    return found.union(*_runs(text, {"".join(spelling) for spelling in every}))


def _runs(text: Sequence[Piece], wanted: set[str]) -> Iterator[range]:
    """The places of words, and of what is between neighbours, that written together make one of the texts `wanted`."""
    longest = max(map(len, wanted), default=0)
    spelled = [place for place, piece in enumerate(text) if _is_word(piece)]
    for start in range(len(spelled)):
        joined = ""
        for stop in range(start, len(spelled)):
            joined += text[spelled[stop]].word
            if len(joined) > longest:
                break
            if joined in wanted and text[spelled[stop]].text not in ARTICLES:
                yield range(spelled[start], spelled[stop] + 1)


def _is_word(piece: Piece) -> bool:
    return any(character.isalnum() for character in piece.text)
