"""Rewriting of questions by sequence-to-sequence models: what paraphrase and back-translation share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from pydantic import Field
from transformers import AutoModelForSeq2SeqLM

from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.lvlm.perturbation import batches
from arena.lvlm.tokens import plain_ids
from arena.plugins.base import PluginConfig, setting
from arena.shares import at_least
from attacks.text.multiple_choice import divide
from attacks.text.pretrained import load

Rewriting = Callable[[Sequence[str]], Sequence[str]]


class Decoding(PluginConfig):
    """Beam search, and its limits on length and repetition."""

    beams: int = Field(4, ge=1, le=64, description="beams of the search; 1 is greedy")
    length_ratio: float = Field(2.0, ge=1, le=16, description="tokens of a rewriting at most, per token of its text")
    no_repeat_ngram: int = Field(3, ge=0, description="length of token runs that may not occur twice; 0: no limit")
    batch_size: int = setting(32, dry_run=8, ge=1, description="texts that are rewritten together")
    device: str = setting("cpu", runtime=True, description="torch device, such as cpu or cuda:0")


class Seq2Seq:
    """A sequence-to-sequence model by hub id or folder, see `attacks.text.pretrained.load`."""

    def __init__(self, checkpoint: str, decoding: Decoding) -> None:
        self.checkpoint = checkpoint
        self.decoding = decoding
        self.model, self.tokenizer = load(AutoModelForSeq2SeqLM, checkpoint, decoding.device)

    @torch.no_grad()
    def rewrite(self, texts: Sequence[str]) -> list[str]:
        """The likeliest output found for each text, decoded and stripped, in order; it may be empty. Empty texts stay.

        Equal texts are rewritten once. Texts of as many tokens share a batch: without padding, and with one limit of
        length for all, a text's output does not depend on the others. Raises `ArenaError` for a text that is longer
        than the model takes.
        """
        distinct = list(dict.fromkeys(filter(None, texts)))
        rows = self._rows(distinct)
        lengths: dict[int, list[int]] = {}
        for i, row in enumerate(rows):
            lengths.setdefault(len(row), []).append(i)
        outputs = {"": ""}
        for places in lengths.values():
            for part in batches(len(places), self.decoding.batch_size):
                chosen = [places[i] for i in part]
                ids = torch.tensor([rows[i] for i in chosen], device=self.model.device)
                outputs.update(zip((distinct[i] for i in chosen), self._generate(ids), strict=True))
        return [outputs[text] for text in texts]

    @torch.no_grad()
    def wordings(self, text: str) -> list[str]:
        """The outputs of all beams for a text that is not empty, likeliest first, each once and none empty; limits and
        errors are those of `rewrite`."""
        ids = torch.tensor(self._rows([text]), device=self.model.device)
        return list(dict.fromkeys(filter(None, self._generate(ids, self.decoding.beams))))

    @property
    def _limit(self) -> int:
        positions = getattr(self.model.config, "max_position_embeddings", None)
        return min(int(self.tokenizer.model_max_length), positions or int(self.tokenizer.model_max_length))

    def _rows(self, texts: Sequence[str]) -> list[list[int]]:
        rows = plain_ids(self.tokenizer, texts, special=True)
        for text, row in zip(texts, rows, strict=True):
            if len(row) > self._limit:
                raise ArenaError(
                    f"{self.checkpoint!r} takes at most {self._limit} tokens, and this text has {len(row)}: "
                    f"{text[:80]!r}...: use another model"
                )
        return rows

    def _generate(self, ids: torch.Tensor, outputs: int = 1) -> list[str]:
        output = self.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            num_beams=self.decoding.beams,
            num_return_sequences=outputs,
            do_sample=False,
            max_new_tokens=min(at_least(self.decoding.length_ratio, ids.shape[1]), self._limit - 1),
            no_repeat_ngram_size=self.decoding.no_repeat_ngram,
        )
        return [text.strip() for text in self.tokenizer.batch_decode(output, skip_special_tokens=True)]


def rewrite_questions(samples: Sequence[Sample], rewriting: Rewriting) -> Iterator[Sample]:
    """The samples with what stands before and after their options rewritten; all texts are handed over together.

    Options and the white space around them stay, a question mark that a text had and its rewriting has not is put at
    its end, and a text whose rewriting is empty stays as it was.
    """
    parts = [divide(sample) for sample in samples]
    texts = list(dict.fromkeys(t for p in parts for side in (p.before, p.after) if (t := side.strip())))
    rewritten = dict(zip(texts, rewriting(texts), strict=True))

    def replaced(side: str) -> str:
        text = side.strip()
        return side.replace(text, _restored(text, rewritten[text])) if text else side

    for sample, part in zip(samples, parts, strict=True):
        yield sample.with_content(sample.image, replaced(part.before) + part.options + replaced(part.after))


def _restored(text: str, rewriting: str) -> str:
    if not rewriting:
        return text
    if "?" in text and "?" not in rewriting:
        return rewriting.rstrip(" .,;:!") + "?"
    return rewriting
