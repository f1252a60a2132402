"""Cross-modal binding disruption (section 5.3): where attention goes, and the losses that move it.

Shapes: B samples, R query rows, K layers, keys. Token sets Omega are bool masks over keys, read from `Role`s;
averaged attention A_bar is ``(K, B, keys)``, each row a distribution over keys. Losses are in nats, one a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from arena.errors import ArenaError
from arena.lvlm.base import LVLM
from arena.lvlm.batch import Role
from arena.shares import at_least

AnswerRows = Literal["targets", "predicting"]
"""Which rows of attention are those of the answer, Omega_y as queries: its own tokens, which the paper has, or the
positions that predict them."""


@dataclass(frozen=True)
class Attention:
    """Attention weights of some query rows of a batch.

    `weights` by layer ``(B, heads, R, keys)``; `rows` long ``(B, R)``, the `Role` of each row, PADDING where a sample
    has fewer; `keys` long ``(B, keys)``, the role of each key.
    """

    weights: dict[int, Tensor]
    rows: Tensor
    keys: Tensor


@dataclass(frozen=True)
class Binding:
    """A binding loss ``(B,)``, its paths ``(B,)`` by name, and how many probabilities were clamped and layers
    capped."""

    loss: Tensor
    paths: dict[str, Tensor] = field(default_factory=dict)
    clamped: Tensor = field(default_factory=lambda: torch.tensor(0))
    capped: Tensor = field(default_factory=lambda: torch.tensor(0))


def query_rows(roles: Tensor, wanted: Sequence[Role]) -> tuple[Tensor, Tensor]:
    """Positions of the `wanted` roles in ``(B, L)``, right-padded ``(B, R)``, and the role of each, PADDING where
    there is none."""
    is_row = torch.isin(roles, torch.tensor([int(role) for role in wanted], device=roles.device))
    most = int(is_row.sum(1).max())
    positions = (~is_row).int().argsort(dim=1, stable=True)[:, :most]
    return positions, roles.gather(1, positions).masked_fill(~is_row.gather(1, positions), int(Role.PADDING))


def asking(roles: Tensor, answer_rows: AnswerRows) -> Tensor:
    """The roles ``(B, L)`` of positions as queries.

    Answers end in the end-of-sequence token, so that the rows of a one-word answer as the paper has them are those of
    the word and of that token. What says the word is the position before it, a token of the template: with `predicting`
    each answer token's role stands one position before it.
    """
    if answer_rows == "targets":
        return roles
    is_answer = roles == Role.ANSWER
    before = torch.nn.functional.pad(is_answer[:, 1:], (0, 1))
    return roles.masked_fill(is_answer, int(Role.TEMPLATE)).masked_fill(before, int(Role.ANSWER))


def check_causal_order(roles: Tensor) -> None:
    """Raise `ArenaError` unless all image tokens of ``(B, L)`` precede trigger and answer, which attend to them."""
    positions = torch.arange(roles.shape[1], device=roles.device)
    last_image = positions.where(roles == Role.IMAGE, -1).amax(1)
    asking = (roles == Role.TRIGGER) | (roles == Role.ANSWER)
    first_query = positions.where(asking, roles.shape[1]).amin(1)
    wrong = (last_image >= first_query).nonzero()
    if len(wrong):
        raise ArenaError(
            f"attention: in sequence {int(wrong[0])} of the batch the picture comes after the trigger, which cannot "
            "attend to it under a causal mask; use a model whose chat template puts the picture before the text"
        )


def rho(lvlm: LVLM, clean: dict[str, Tensor], released: dict[str, Tensor]) -> list[Tensor]:
    """Mean |delta| over the preprocessed region of each image token, in [0, 1], ``(tokens,)`` per picture (eq. 22).

    `clean` and `released` are `LVLM.pixel_inputs` of the same pictures.
    """
    change = {k: (released[k] - clean[k]).detach() for k in released if released[k].is_floating_point()}
    return lvlm.token_means(change)


def omega_delta(change: Tensor, tau: float) -> Tensor:
    """Bool ``(tokens,)``: the ceil(tau * tokens) image tokens with the largest `change`, ties by index (eq. 23).

    A token that delta does not reach is never one of them: an unperturbed picture has none.
    """
    # Sign steps leave most tokens exactly tied; float noise in the means must not decide between them.
    change = change.double().mul(1e6).round()
    first = change.argsort(descending=True, stable=True)[: at_least(tau, len(change))]
    chosen = torch.zeros(len(change), dtype=torch.bool, device=change.device)
    chosen[first] = True
    return chosen & (change > 0)


def image_keys(keys: Tensor, chosen: Sequence[Tensor]) -> Tensor:
    """Bool ``(B, keys)``: the image tokens that `chosen`, bool ``(tokens,)`` per sample, marks."""
    mask = keys == Role.IMAGE
    return mask.masked_scatter(mask, torch.cat(list(chosen)))


def mean_attention(attention: Attention, queries: Role) -> Tensor:
    """A_bar_k(S): rows of the positions S with role `queries`, averaged over heads and over S, ``(K, B, keys)`` (eq.
    24).

    Zero where a sample has no such row. Layers are in increasing order.
    """
    layers = [attention.weights[k] for k in sorted(attention.weights)]
    is_query = (attention.rows == queries).to(layers[0].dtype)
    share = is_query / is_query.sum(1, keepdim=True).clamp(min=1)
    return torch.stack([torch.einsum("bhrk,br->bk", w, share) / w.shape[1] for w in layers])


def uniform(targets: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """U_R: the uniform distribution on the keys R marked in `targets`, bool ``(B, keys)``; zero where R is empty
    (eq. 25)."""
    return targets.to(dtype) / targets.sum(-1, keepdim=True).clamp(min=1)


def l_mass(mean: Tensor, targets: Tensor, floor: float) -> Tensor:
    """Mean over layers of KL(U_R || A_bar_k), ``(B,)`` (eq. 26); zero where queries or targets are empty.

    It is infinite where a target gets no mass, so probabilities are clamped at `floor` before the logarithm.
    """
    wanted = uniform(targets, mean.dtype)
    divergence = (torch.xlogy(wanted, wanted) - wanted * mean.clamp(min=floor).log()).sum(-1)
    return (divergence * (mean.sum(-1) > 0)).mean(0)


def info_nce(logits: Tensor, targets: Tensor) -> Tensor:
    """Multi-positive InfoNCE ``(B,)``: mean over positives of -log softmax(logits), ``(B, keys)``.

    Proposition C.1: `l_mass` equals this on the logits of A_bar minus log|R|.
    """
    return -(uniform(targets, logits.dtype) * logits.log_softmax(-1)).sum(-1)


def bph(
    trigger: Tensor, answer: Tensor, affected: Tensor, triggers: Tensor, betas: tuple[float, float, float], floor: float
) -> Binding:
    """Binding path hijacking (eq. 27).

    beta_1 l_mass(Omega_gamma, Omega_delta) + beta_2 l_mass(Omega_y, Omega_gamma) + beta_3 l_mass(Omega_y,
    Omega_delta), from A_bar of trigger and answer ``(K, B, keys)`` and the keys Omega_delta and Omega_gamma, bool
    ``(B, keys)``.
    """
    sides = {
        "trigger->perturbation": (trigger, affected),
        "answer->trigger": (answer, triggers),
        "answer->perturbation": (answer, affected),
    }
    paths = {name: l_mass(mean, targets, floor) for name, (mean, targets) in sides.items()}
    loss = torch.stack([beta * path for beta, path in zip(betas, paths.values(), strict=True)]).sum(0)
    below = [((m < floor) & r & (m.sum(-1, keepdim=True) > 0)).sum() for m, r in sides.values()]
    return Binding(loss, paths, clamped=torch.stack(below).sum())


def align(clean: Tensor, lengths: Tensor, keys: Tensor) -> Tensor:
    """Clean attention ``(K, B, L)`` moved to the keys ``(B, keys)`` of the protected sequences, ``(K, B, keys)``.

    `lengths` ``(B,)`` are the clean sequences' tokens. Positions before the trigger correspond counted from the
    start, those after it counted from the end; trigger keys get no clean mass. Where the insertion changed the tokens
    next to it, a clean position without counterpart is left out, so a row sums to at most 1.
    """
    used = (keys != Role.PADDING) & (keys != Role.TRIGGER)
    rank = used.cumsum(1) - 1
    slots = torch.arange(keys.shape[1], device=keys.device)
    start = slots.where(keys == Role.TRIGGER, keys.shape[1]).amin(1, keepdim=True)
    before = slots < start
    places = torch.where(before, rank, rank + (lengths - used.sum(1))[:, None])
    shared = torch.where(before, places < lengths[:, None], places >= (used & before).sum(1, keepdim=True))
    index = places.clamp(0, clean.shape[-1] - 1).expand(len(clean), -1, -1)
    return clean.gather(2, index) * (used & shared)


def crs(protected: Tensor, clean: Tensor, floor: float, cap: float) -> Binding:
    """Clean relation suppression: -mean_k KL(sg(A_bar_k clean) || A_bar_k protected) of the answer (eq. 29).

    Both ``(K, B, keys)``, `clean` aligned by `align`. The divergence can grow without bound by pushing mass off the
    clean support, so protected probabilities are clamped at `floor` and each layer's divergence at `cap` nats; a
    capped layer has no gradient.
    """
    clean = clean.detach()
    clean = clean / clean.sum(-1, keepdim=True).clamp(min=torch.finfo(clean.dtype).tiny)
    divergence = (torch.xlogy(clean, clean) - clean * protected.clamp(min=floor).log()).sum(-1)
    clamped = ((protected < floor) & (clean > 0)).sum()
    return Binding(-divergence.clamp(max=cap).mean(0), clamped=clamped, capped=(divergence > cap).sum())


@dataclass(frozen=True)
class Shift:
    """Theorem 5.1 on each sample, ``(B,)``: eta, the bound 1 - sqrt(eta / 2), and the measured mean TV distance."""

    eta: Tensor
    bound: Tensor
    measured: Tensor


def theorem_5_1(protected: Tensor, clean: Tensor, targets: Tensor) -> Shift:
    """How far the answer's attention moved, against what l_mass guarantees (Theorem 5.1).

    With eta = l_mass(Omega_y, R), the mean over layers of TV(protected, clean) is at least 1 - sqrt(eta / 2) if R,
    bool ``(B, keys)``, has no clean mass. That holds for the trigger; for Omega_delta it is a convention of the
    paper, and the measured distance may fall below the bound. Attention is ``(K, B, keys)``, `clean` aligned by
    `align`.
    """
    eta = l_mass(protected, targets, torch.finfo(protected.dtype).tiny)
    unmatched = (1 - clean.sum(-1)).clamp(min=0)
    measured = ((protected - clean).abs().sum(-1) + unmatched).mean(0) / 2
    return Shift(eta, 1 - (eta.clamp(min=0) / 2).sqrt(), measured)
