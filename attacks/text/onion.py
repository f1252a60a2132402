"""ONION: outlier words by leave-one-out perplexity (Qi 2021, arXiv 2011.10369).

The suspicion score of word i of a text is ``f_i = p_0 - p_i``: the text's perplexity under a causal language model
minus its perplexity without the word. Words with ``f_i > t`` are removed, all at once.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.plugins.base import Attack, AttackerWorld, Need, PluginConfig, setting
from attacks.checkpoints import fingerprint, pinned
from attacks.text.multiple_choice import divide
from attacks.text.perplexity import Reader
from attacks.text.pretrained import CHECKPOINT


@dataclass(frozen=True)
class Word:
    """A piece of text between white space: the space before it, and the word between its punctuation marks, which stay
    when the word goes."""

    space: str
    opening: str
    core: str
    closing: str

    @property
    def whole(self) -> str:
        return self.space + self.opening + self.core + self.closing

    @property
    def removed(self) -> str:
        """What is left without the word: its marks, a closing one at the end of the word before."""
        return (self.space if self.opening else "") + self.opening + self.closing


class Onion(Attack):
    """Removes words that make a question less likely under a language model, by default the base model's own.

    The base model reads questions as text, in its chat template and without pictures. A question keeps at least its
    least suspicious word, its punctuation and, if it is a multiple-choice one, its options, which are not read either.
    With `quantile` the threshold is tuned on the attacker's own clean samples. Without such it is 0: every word goes
    whose removal lowers the perplexity.
    """

    needs = frozenset({"model"})
    packages = ("tokenizers",)

    class Config(PluginConfig):
        threshold: float = Field(0, allow_inf_nan=False, description="largest suspicion score of a word that stays")
        quantile: float | None = Field(
            None,
            ge=0,
            le=1,
            description="tune the threshold: the share of the words of auxiliary samples that would stay, such as 0.95",
        )
        language_model: str | None = setting(
            None,
            runtime=True,
            min_length=1,
            description=f"causal language model instead of the base model: {CHECKPOINT}",
        )
        device: str = setting("cpu", runtime=True, description="torch device of that model, such as cpu or cuda:0")

    config: Config

    def __init__(self, config: PluginConfig | None = None) -> None:
        super().__init__(config)
        base: set[Need] = {"model"} if self.config.language_model is None else set()
        clean: set[Need] = {"auxiliary"} if self.config.quantile is not None else set()
        # What is read depends on the settings: with a model of its own one result serves the cells of all base models.
        self.needs = frozenset(base | clean)  # type: ignore[misc]

    def purify(self, samples: Sequence[Sample], world: AttackerWorld) -> Iterable[Sample]:
        reader = self._reader(world)
        threshold = self._threshold(reader, world)
        parts = [divide(sample) for sample in samples]
        words = [(split(part.before), split(part.after)) for part in parts]
        scores = suspicion(reader, [before + after for before, after in words])
        for sample, part, (before, after), score in zip(samples, parts, words, scores, strict=True):
            removed = outliers(score, threshold)
            first, second = join(before, removed), join(after, {i - len(before) for i in removed})
            question = (first + part.options + second).strip() if removed else sample.question
            yield sample.with_content(sample.image, question)

    def fingerprint(self) -> str:
        """What identifies the weights of a language model of its own; the base model is in the key anyway."""
        return "" if self.config.language_model is None else fingerprint(self.config.language_model)

    def pinned(self) -> Mapping[str, Any]:
        return {} if self.config.language_model is None else {"language_model": pinned(self.config.language_model)}

    def _reader(self, world: AttackerWorld) -> Reader:
        if self.config.language_model is None:
            return Reader.of_lvlm(world.model())
        return Reader.from_pretrained(self.config.language_model, self.config.device)

    def _threshold(self, reader: Reader, world: AttackerWorld) -> float:
        if self.config.quantile is None:
            return self.config.threshold
        parts = [divide(sample) for sample in world.auxiliary]
        scores = np.concatenate(suspicion(reader, [split(p.before) + split(p.after) for p in parts]))
        scores = scores[~np.isnan(scores)]
        if not len(scores):
            raise ArenaError(
                "onion: no auxiliary question has two words to tune the threshold on: set `threshold` instead"
            )
        return float(np.quantile(scores, self.config.quantile))


def split(text: str) -> list[Word]:
    """A text's words; `join` with nothing removed gives the text back, but for white space at its end."""
    return [Word(space, *_peel(piece)) for space, piece in re.findall(r"(\s*)(\S+)", text)]


def _peel(piece: str) -> tuple[str, str, str]:
    marks = [unicodedata.category(c).startswith("P") for c in piece]
    if all(marks):
        return piece, "", ""
    start, stop = marks.index(False), len(piece) - marks[::-1].index(False)
    return piece[:start], piece[start:stop], piece[stop:]


def join(words: Sequence[Word], removed: Iterable[int] = ()) -> str:
    """The text of the words without those at the places `removed`."""
    gone = frozenset(removed)
    return "".join(word.removed if i in gone else word.whole for i, word in enumerate(words))


def suspicion(reader: Reader, texts: Sequence[Sequence[Word]]) -> list[np.ndarray]:
    """f of every word of every text, one array a text; NaN for punctuation, and where a word stands alone.

    The texts and all their deletions go through the model together.
    """
    versions = [[join(words).strip(), *_deletions(words)] for words in texts]
    perplexities = iter(reader.perplexities([text for rows in versions for text in rows if text]))
    scores = []
    for words, rows in zip(texts, versions, strict=True):
        values = np.array([next(perplexities) if text else np.nan for text in rows])
        judged = np.array([bool(word.core) for word in words], dtype=bool)
        scores.append(np.where(judged & (judged.sum() > 1), values[0] - values[1:], np.nan))
    return scores


def _deletions(words: Sequence[Word]) -> Iterator[str]:
    """The text without its first word, without its second and so on; empty for what is no word."""
    for i, word in enumerate(words):
        yield join(words, (i,)).strip() if word.core else ""


def outliers(scores: np.ndarray, threshold: float) -> set[int]:
    """Places of the words with a score above the threshold; if these are all, the least suspicious one stays."""
    found = set(np.flatnonzero(scores > threshold).tolist())
    if found and len(found) == np.count_nonzero(~np.isnan(scores)):
        found.remove(int(np.nanargmin(scores)))
    return found
