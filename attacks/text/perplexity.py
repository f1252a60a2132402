"""Perplexity of many texts under one causal language model: a checkpoint, or the language model inside an LVLM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from arena.errors import ArenaError
from arena.lvlm.base import LVLM
from arena.lvlm.batch import Role
from arena.lvlm.perturbation import batches
from arena.lvlm.tokens import Part, tokenize
from attacks.text.pretrained import load

TOKENS = 1024
"""Tokens of a batch: enough to keep a machine busy, few enough for logits over a large vocabulary."""


class Reader:
    """A causal language model that reads texts, each behind the same `context`, which is not judged.

    `logits` maps ids, long ``(B, L)``, and positions, bool ``(B, L)`` with N true ones, to the logits there ``(N, V)``;
    `special` says whether the tokenizer puts its own special tokens around context and text.
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

        def logits(ids: Tensor, positions: Tensor) -> Tensor:
            output: Tensor = head(language(input_ids=ids, use_cache=False).last_hidden_state[positions])
            return output

        before, between, _ = lvlm.template("")
        return cls(lvlm.tokenizer, logits, lvlm.device, before + between, special=True)

    @classmethod
    def from_pretrained(cls, checkpoint: str, device: str) -> Reader:
        """Any causal language model, see `attacks.text.pretrained.load`. Texts follow its start token (its end token
        where it has no other), so that their first words are judged too."""
        model, tokenizer = load(AutoModelForCausalLM, checkpoint, device)
        if not tokenizer.is_fast:
            raise ArenaError(
                f"CausalLM model {checkpoint!r} has a tokenizer that does not say where its tokens are in a text: use "
                "another model, or one with a tokenizer.json"
            )

        def logits(ids: Tensor, positions: Tensor) -> Tensor:
            output: Tensor = model(input_ids=ids, use_cache=False).logits[positions]
            return output

        start = tokenizer.bos_token or tokenizer.eos_token or ""
        return cls(tokenizer, logits, model.device, start, special=False)

    def perplexities(self, texts: Sequence[str]) -> np.ndarray:
        """exp of the mean negative log-likelihood of each text's tokens, float64 ``(N,)``, in order.

        Texts of as many tokens share forward passes, whatever they are versions of: without padding one does not depend
        on the others. Equal texts are read once. NaN where there is nothing to predict.
        """
        distinct = list(dict.fromkeys(texts))
        if not distinct:
            return np.empty(0)
        rows = [[Part(self.context, Role.TEMPLATE), Part(text, Role.TEXT, said=True)] for text in distinct]
        encoded = tokenize(self.tokenizer, rows, self.special)
        lengths: dict[int, list[int]] = {}
        for place, row in enumerate(encoded):
            lengths.setdefault(len(row.ids), []).append(place)
        values: dict[str, float] = {}
        for length, places in lengths.items():
            for part in batches(len(places), max(1, TOKENS // max(1, length))):
                chosen = [places[i] for i in part]
                ids = torch.tensor([encoded[i].ids for i in chosen], dtype=torch.long)
                use = torch.tensor([encoded[i].roles for i in chosen], dtype=torch.long) == Role.TEXT
                values.update(zip((distinct[i] for i in chosen), self._read(ids, use), strict=True))
        return np.array([values[text] for text in texts])

    @torch.no_grad()
    def _read(self, ids: Tensor, judged: Tensor) -> list[float]:
        """Perplexities of the `judged` ones of tokens ``(B, L)``."""
        wanted = F.pad(judged[:, 1:], (0, 1))  # the logits that predict a token stand one place before it
        losses = torch.zeros(judged.shape, dtype=torch.float64)
        if wanted.any():
            logits = self.logits(ids.to(self.device), wanted.to(self.device)).float()
            targets = ids.roll(-1, 1)[wanted].to(self.device)
            losses[wanted] = F.cross_entropy(logits, targets, reduction="none").double().cpu()
        values: list[float] = (losses.sum(1) / wanted.sum(1)).exp().tolist()
        return values
