"""Perplexity of many texts under one causal language model: a checkpoint, or the language model inside an LVLM."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from arena.errors import ArenaError
from arena.lvlm.base import IGNORE, LVLM
from attacks.text.pretrained import load

TOKENS = 2048
"""Tokens of a batch, padding included: enough to keep a machine busy, few enough for logits over a large vocabulary."""

Row = tuple[list[int], list[int]]
"""Token ids of context and text, and the labels: the text's ids, `IGNORE` elsewhere."""


class Reader:
    """A causal language model that reads texts, each behind the same `context`, which is not judged.

    `logits` maps ids and mask, long ``(B, L)``, to logits ``(B, L, V)``; `special` says whether the tokenizer puts its
    own special tokens around context and text.
    """

    def __init__(
        self,
        tokenizer: Any,
        logits: Callable[[Tensor, Tensor], Tensor],
        device: torch.device,
        context: str,
        special: bool,
    ) -> None:
        self.tokenizer = tokenizer
        self.logits = logits
        self.device = device
        self.context = context
        self.special = special

    @classmethod
    def of_lvlm(cls, lvlm: LVLM) -> Reader:
        """The language model inside an LVLM. It reads a question where it is used to find one: in its chat template,
        though without a picture."""
        language, head = lvlm.module(lvlm.language_model), lvlm.model.get_output_embeddings()

        def logits(ids: Tensor, mask: Tensor) -> Tensor:
            output: Tensor = head(language(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state)
            return output

        before, between, _ = lvlm.template("")
        return cls(lvlm.tokenizer, logits, lvlm.device, before + between, special=True)

    @classmethod
    def from_pretrained(cls, checkpoint: str, device: str) -> Reader:
        """Any causal language model, see `attacks.text.pretrained.load`. Texts follow its start token (its end token
        where it has no other), so that their first words are judged too."""
        model, tokenizer = load(AutoModelForCausalLM, checkpoint, device)

        def logits(ids: Tensor, mask: Tensor) -> Tensor:
            output: Tensor = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
            return output

        if not tokenizer.is_fast:
            raise ArenaError(
                f"CausalLM model {checkpoint!r} has a tokenizer that does not say where its tokens are in a text: use "
                "another model, or one with a tokenizer.json"
            )
        start = tokenizer.bos_token or tokenizer.eos_token or ""
        return cls(tokenizer, logits, model.device, start, special=False)

    def perplexities(self, texts: Sequence[str]) -> np.ndarray:
        """exp of the mean negative log-likelihood of each text's tokens, float64 ``(N,)``, in order.

        Texts of similar length share a forward pass, whatever they are versions of, and equal texts are read once. NaN
        where there is nothing to predict.
        """
        rows = {text: self._encode(text) for text in dict.fromkeys(texts)}
        values: dict[str, float] = {}
        for batch in _batches(sorted(rows, key=lambda text: len(rows[text][0])), lambda text: len(rows[text][0])):
            values.update(zip(batch, self._read([rows[text] for text in batch]), strict=True))
        return np.array([values[text] for text in texts])

    def _encode(self, text: str) -> Row:
        encoded = self.tokenizer(
            self.context + text, add_special_tokens=self.special, return_offsets_mapping=True, verbose=False
        )
        ids = list(encoded["input_ids"])
        judged = [end > start and end > len(self.context) for start, end in encoded["offset_mapping"]]
        return ids, [i if judge else IGNORE for i, judge in zip(ids, judged, strict=True)]

    @torch.no_grad()
    def _read(self, rows: Sequence[Row]) -> list[float]:
        shape = (len(rows), max(len(ids) for ids, _ in rows))
        ids, mask = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
        labels = torch.full(shape, IGNORE)
        for i, (tokens, targets) in enumerate(rows):
            ids[i, : len(tokens)], labels[i, : len(tokens)] = torch.tensor(tokens), torch.tensor(targets)
            mask[i, : len(tokens)] = 1
        wanted = labels[:, 1:].to(self.device)
        logits = self.logits(ids.to(self.device), mask.to(self.device))[:, :-1].float()
        losses = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORE, reduction="none")
        means = losses.double().view(wanted.shape).sum(1) / (wanted != IGNORE).sum(1)
        values: list[float] = means.exp().tolist()
        return values


def _batches(texts: Sequence[str], length: Callable[[str], int]) -> Iterator[list[str]]:
    """Runs of texts, which come shortest first, of at most `TOKENS` tokens once padded; a longer text is on its own."""
    batch: list[str] = []
    for text in texts:
        if batch and (len(batch) + 1) * length(text) > TOKENS:
            yield batch
            batch = []
        batch.append(text)
    if batch:
        yield batch
