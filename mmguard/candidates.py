"""Verification (eq. 20): the exact l_joint of many candidate texts, each paying only for the tokens after its
first change."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from arena.data.sample import Sample
from arena.lvlm.base import LVLM
from arena.lvlm.batch import Encoding
from arena.lvlm.continuation import Beginnings, Version, begin, common_length, encode_versions, finish
from mmguard.attention import Attention, asking, query_rows
from mmguard.objective import Objective, Reference, affected, combine, compared, layers_of, query_roles


@torch.no_grad()
def candidate_losses(
    objective: Objective,
    lvlm: LVLM,
    samples: Sequence[Sample],
    sizes: Sequence[tuple[int, int]],
    versions: Sequence[Sequence[Version]],
    clean: Reference,
    batch_size: int,
    pixels: dict[str, Tensor],
) -> list[Tensor]:
    """Exact joint losses of `versions` of each sample's question about its picture, ``(versions,)`` per sample, on
    the CPU.

    `sizes` are height and width of each sample's picture, `pixels` the pictures' `LVLM.pixel_inputs`. Every text is
    tokenised anew; what all versions of a sample begin with, picture included, runs once; `batch_size` versions, of
    whichever samples, run at a time.
    """
    encodings = [
        encode_versions(lvlm, size, texts, sample.answer)
        for size, sample, texts in zip(sizes, samples, versions, strict=True)
    ]
    cuts = [common_length(rows) for rows in encodings]
    heads = [Encoding(rows[0].ids[:cut], rows[0].roles[:cut]) for rows, cut in zip(encodings, cuts, strict=True)]
    batch = lvlm.collate(heads, pixels, (), torch.arange(len(samples)))
    layers = () if objective.binding == "none" else layers_of(objective, lvlm)
    roles = query_roles(objective)
    positions, rows_before = query_rows(asking(batch.roles, objective.answer_rows), roles)
    # Trigger words before the slot that changes ask questions too: their rows stand in the beginning.
    beginnings = begin(lvlm, batch, layers if positions.shape[1] else (), positions)
    chosen = affected(lvlm, clean.pixels, batch.pixels, objective.tau_delta) if objective.binding == "bph" else ()
    # Like lengths together, so that little is padded.
    places = [(i, c) for i, rows in enumerate(encodings) for c in range(len(rows))]
    places.sort(key=lambda place: len(encodings[place[0]][place[1]].ids) - cuts[place[0]])
    losses = [torch.empty(len(rows)) for rows in encodings]
    for at in range(0, len(places), batch_size):
        part = places[at : at + batch_size]
        tails = [Encoding(encodings[i][c].ids[cuts[i] :], encodings[i][c].roles[cuts[i] :]) for i, c in part]
        of = torch.tensor([i for i, _ in part], device=lvlm.device)
        joint = _joint(objective, lvlm, beginnings, rows_before, of, tails, chosen, clean)
        for (i, c), value in zip(part, joint.tolist(), strict=True):
            losses[i][c] = value
    return losses


def _joint(
    objective: Objective,
    lvlm: LVLM,
    beginnings: Beginnings,
    rows_before: Tensor,
    of: Tensor,
    tails: Sequence[Encoding],
    chosen: Sequence[Tensor],
    clean: Reference,
) -> Tensor:
    """Joint losses ``(N,)`` of `tails` after the beginnings `of`."""
    endings = lvlm.collate(tails, {}, (), of)
    if objective.binding == "none":
        train = finish(lvlm, beginnings, of, endings).losses
        return combine(objective, train, None, (), None).joint
    positions, rows = query_rows(asking(endings.roles, objective.answer_rows), query_roles(objective))
    out = finish(lvlm, beginnings, of, endings, layers_of(objective, lvlm), positions)
    slots = endings.roles.shape[1]
    weights = out.attention
    if beginnings.attention:
        before = {k: torch.nn.functional.pad(w[of], (0, slots)) for k, w in beginnings.attention.items()}
        weights = {k: torch.cat([before[k], w], 2) for k, w in weights.items()}
        rows = torch.cat([rows_before[of], rows], 1)
    keys = torch.cat([beginnings.roles[of], endings.roles], 1)
    flags = [chosen[i] for i in of.tolist()] if chosen else ()
    here = compared(objective, clean)
    mine = None if here is None else (here[0][:, of], here[1][of])
    return combine(objective, out.losses, Attention(weights, rows, keys), flags, mine).joint
