"""Many endings of one beginning: the keys and values of the tokens that all endings share are computed once.

For trying many versions of a text about one picture: the vision tower and the common tokens run once a sample, each
version costs the tokens after its first changed one.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from arena.errors import ArenaError
from arena.lvlm.base import LVLM, kept_positions, mean_losses
from arena.lvlm.batch import Batch, Encoding, Role
from arena.lvlm.probe import Probe, probing
from arena.lvlm.shortcuts import FEWEST_ROWS, answer_rows, at_rows
from arena.lvlm.tokens import Part, tokenize

Version = tuple[str, tuple[int, int]]
"""A question and the character span of the trigger in it."""


@dataclass(frozen=True)
class Beginnings:
    """Right-padded beginnings of a batch of sequences, run once.

    `layers` holds keys and values ``(B, heads, P, d)`` by layer, `lengths` ``(B,)`` the tokens without padding,
    `roles` is ``(B, P)``, `attention` by layer ``(B, heads, R, P)`` at the rows that were asked for.
    """

    layers: tuple[tuple[Tensor, Tensor], ...]
    lengths: Tensor
    roles: Tensor
    attention: dict[int, Tensor]


@dataclass(frozen=True)
class Endings:
    """What N endings give: mean answer losses ``(N,)``, and attention by layer ``(N, heads, R, P + T)``."""

    losses: Tensor
    attention: dict[int, Tensor]


def encode_versions(lvlm: LVLM, size: tuple[int, int], versions: Sequence[Version], answer: str) -> list[Encoding]:
    """`lvlm.encode_text` of many versions of a question about one picture of `size` (height, width), in order.

    Placeholders are special tokens, at which tokenizers cut a text before anything else; so only what follows the
    picture is tokenised again. Where the first version shows that a tokenizer does otherwise, every text is tokenised
    whole.
    """
    question, span = versions[0]
    whole = lvlm.encode_text(size, question, answer, span)
    cut = len(whole.roles) - whole.roles[::-1].index(Role.IMAGE)
    placeholder = str(lvlm.tokenizer.convert_ids_to_tokens(lvlm.image_token_id))
    closing = lvlm.image_text(*size).rpartition(placeholder)[2]
    rows = []
    for text, (start, stop) in versions:
        _, between, after = lvlm.template(text)
        rows.append(
            [
                Part(closing + between, Role.TEMPLATE),
                Part(text[:start], Role.TEXT, said=True),
                Part(text[start:stop], Role.TRIGGER, said=True),
                Part(text[stop:], Role.TEXT, said=True),
                Part(after, Role.TEMPLATE),
                *lvlm.answer_parts(answer),
            ]
        )
    tails = tokenize(lvlm.tokenizer, rows, special=False)
    if tails[0] != Encoding(whole.ids[cut:], whole.roles[cut:]):
        return [lvlm.encode_text(size, text, answer, span) for text, span in versions]
    return [Encoding(whole.ids[:cut] + t.ids, whole.roles[:cut] + t.roles) for t in tails]


def common_length(encodings: Sequence[Encoding]) -> int:
    """Tokens that all versions of one sequence begin with, short of the token that predicts the first answer token.

    Raises `ArenaError` where a picture comes after the first changed token: it would have to be run again.
    """
    first = encodings[0]
    last = min(e.roles.index(Role.ANSWER) - 1 for e in encodings)
    ids = [e.ids[:last] for e in encodings]
    length = next((i for i, column in enumerate(zip(*ids, strict=False)) if len(set(column)) > 1), min(map(len, ids)))
    if Role.IMAGE in first.roles[length:]:
        raise ArenaError(
            "the chat template puts text before the picture, so versions of the text cannot share its keys and values; "
            "use a model whose template starts with the picture"
        )
    return length


@torch.no_grad()
def begin(
    lvlm: LVLM, batch: Batch, attention_layers: Sequence[int] = (), attention_rows: Tensor | None = None
) -> Beginnings:
    """Run beginnings with their pictures; attention at `attention_rows` ``(B, R)`` as in `LVLM.forward`."""
    probe = Probe(frozenset(attention_layers), attention_rows)
    arguments = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, **batch.pixels}
    with ExitStack() as stack:
        stack.enter_context(at_rows(lvlm, torch.zeros_like(batch.input_ids, dtype=torch.bool)))
        if probe.layers:
            stack.enter_context(probing(lvlm.module(lvlm.language_model), probe))
        output = lvlm.model(**arguments, use_cache=True, logits_to_keep=1)
    layers = tuple((layer.keys, layer.values) for layer in output.cache.layers)
    return Beginnings(layers, batch.attention_mask.sum(1), batch.roles, probe.weights)


@torch.no_grad()
def finish(
    lvlm: LVLM,
    beginnings: Beginnings,
    of: Tensor,
    endings: Batch,
    attention_layers: Sequence[int] = (),
    attention_rows: Tensor | None = None,
) -> Endings:
    """Run endings ``(N, T)`` after the beginnings ``of`` ``(N,)``; `attention_rows` are positions within the endings.

    Keys are laid out as P slots of the beginning, padding included, and then T of the ending. The layout has gaps,
    positions have none: rotary angles come from `position_ids`, gaps are masked.
    """
    cache = DynamicCache([(k[of.to(k.device)], v[of.to(v.device)]) for k, v in beginnings.layers])
    mask = torch.cat([(beginnings.roles[of] != Role.PADDING).long(), endings.attention_mask], 1)
    positions = beginnings.lengths[of, None] + torch.arange(endings.input_ids.shape[1], device=of.device)
    keep = kept_positions(endings)
    arguments = {
        "input_ids": endings.input_ids,
        "attention_mask": mask,
        "position_ids": positions,
        "cache": cache,
    }
    probe = Probe(frozenset(attention_layers), attention_rows)
    rows = answer_rows(endings.labels)
    fewer = min(keep, int(rows.sum())) >= FEWEST_ROWS
    with ExitStack() as stack:
        if probe.layers:
            stack.enter_context(probing(lvlm.module(lvlm.language_model), probe))
        if fewer:
            stack.enter_context(at_rows(lvlm, rows))
        output = lvlm.model(**arguments, use_cache=True, logits_to_keep=keep)
    logits = output.logits if fewer else output.logits[:, :-1]
    return Endings(mean_losses(logits, endings.labels[:, -keep:][:, 1:]), probe.weights)
