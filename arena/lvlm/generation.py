"""Greedy answers, and whether each came to an end of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.lvlm.pixels import to_tensor

if TYPE_CHECKING:
    from arena.lvlm.base import LVLM


class Answer(NamedTuple):
    """What a model says, decoded without special tokens and stripped, and whether the limit of tokens cut it off."""

    text: str
    cut: bool


@torch.no_grad()
def greedy(lvlm: LVLM, samples: Sequence[Sample], max_new_tokens: int, batch_size: int) -> list[Answer]:
    """Answers of at most `max_new_tokens`, in order; padding is on the left.

    Raises `ArenaError` where the model's logits are no numbers: what it said would be its first token, again and again.
    """
    found: list[Answer] = []
    pad = int(lvlm.tokenizer.pad_token_id or 0)
    ends = lvlm.model.generation_config.eos_token_id
    stops = torch.tensor(ends if isinstance(ends, list) else [] if ends is None else [ends], device=lvlm.device)
    was_training = lvlm.model.training
    lvlm.model.eval()
    try:
        for at in range(0, len(samples), batch_size):
            part = samples[at : at + batch_size]
            images = [to_tensor(s.image).to(lvlm.device) for s in part]
            rows = [
                lvlm.encode_sample(s, (x.shape[-2], x.shape[-1]), None).ids for s, x in zip(part, images, strict=True)
            ]
            longest = max(map(len, rows))
            ids = torch.tensor([[pad] * (longest - len(r)) + r for r in rows], device=lvlm.device)
            mask = torch.tensor([[0] * (longest - len(r)) + [1] * len(r) for r in rows], device=lvlm.device)
            output = lvlm.model.generate(
                input_ids=ids,
                attention_mask=mask,
                **lvlm.pixel_inputs(images),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                pad_token_id=pad,
                logits_processor=[_only_numbers],
            )
            said = output[:, longest:]
            texts = lvlm.tokenizer.batch_decode(said, skip_special_tokens=True)
            ended = torch.isin(said, stops.to(said.device)).any(1).tolist()
            found += [Answer(text.strip(), not end) for text, end in zip(texts, ended, strict=True)]
    finally:
        lvlm.model.train(was_training)
    return found


def _only_numbers(ids: Tensor, logits: Tensor) -> Tensor:
    """Logits as they are, of which some may be minus infinity."""
    if logits.isnan().any():
        raise ArenaError(
            "the model's logits are NaN: its weights are damaged or have diverged, or its numbers do not fit their "
            "type; load it in dtype bfloat16 or float32, or train it with a lower learning rate"
        )
    return logits
