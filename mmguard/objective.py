"""What is minimised: training loss, binding loss, their joint, the ensemble (eqs. 30-32), on whole batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.lvlm.base import LVLM, images_of
from arena.lvlm.batch import Batch, Forward, Role
from arena.plugins.base import setting
from mmguard.attention import (
    AnswerRows,
    Attention,
    Binding,
    align,
    asking,
    bph,
    check_causal_order,
    crs,
    image_keys,
    mean_attention,
    omega_delta,
    query_rows,
    rho,
)


class Binds(BaseModel):
    """Weights and numerics of the joint objective; names follow the paper."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    lambda_train: float = Field(1.0, ge=0, description="weight of the training loss")
    lambda_bind: float = Field(1.0, ge=0, description="weight of the binding loss; the paper tries 0.1 to 2")
    betas: tuple[float, float, float] = Field(
        (1.0, 1.0, 1.0),
        description="weights of trigger->perturbation, answer->trigger, answer->perturbation in BPH; 0 removes a path",
    )
    layers: int = Field(2, ge=1, description="binding uses the first so many layers of the language model")
    tau_delta: float = Field(0.1, gt=0, le=1, description="share of image tokens that count as perturbed")
    answer_rows: AnswerRows = setting(
        "targets",
        later=True,
        description="rows of attention that are the answer's: of its tokens, as in the paper, or of the positions that "
        "predict them",
    )
    clamp: float = Field(1e-8, gt=0, lt=1, description="attention below this is clamped before the logarithm")
    cap: float = Field(10.0, gt=0, description="largest divergence of a layer in CRS, in nats")


class Objective(Binds):
    """What is minimised, with its weights."""

    objective: Literal["none", "bph", "crs", "bph-max", "crs-max"] = Field(
        "bph", description="binding loss; -max also raises the training loss instead of lowering it (eq. 32)"
    )

    @property
    def maximizes(self) -> bool:
        return self.objective.endswith("-max")

    @property
    def binding(self) -> Literal["none", "bph", "crs"]:
        if self.objective == "none":
            return "none"
        return "bph" if self.objective.startswith("bph") else "crs"


@dataclass(frozen=True)
class Terms:
    """The per-sample terms of one surrogate, ``(B,)``: training loss, binding loss with its paths, joint loss."""

    train: Tensor
    bind: Binding
    joint: Tensor


@dataclass(frozen=True)
class Reference:
    """What a surrogate sees of a batch's clean samples, asked for at the `layers` of its language model."""

    lvlm: LVLM
    batch: Batch
    layers: Sequence[int]
    answer_rows: AnswerRows

    @property
    def pixels(self) -> dict[str, Tensor]:
        """`LVLM.pixel_inputs` of the clean pictures."""
        return self.batch.pixels

    @cached_property
    def attention(self) -> Clean:
        """How the answers attend; run once, when it is first looked at."""
        with torch.no_grad():
            _, attention = attend(self.lvlm, self.batch, self.layers, (Role.ANSWER,), self.answer_rows)
            return mean_attention(attention, Role.ANSWER), self.batch.attention_mask.sum(1)


Clean = tuple[Tensor, Tensor]
"""A_bar of the answers of clean samples ``(K, B, L)``, and the lengths of their sequences ``(B,)``."""


def l_train(forward: Forward) -> Tensor:
    """Mean cross entropy over each sample's answer tokens, ``(B,)``: the l_train of eq. 30."""
    return forward.losses


def l_joint(train: Tensor, bind: Tensor, lambda_train: float, lambda_bind: float) -> Tensor:
    """lambda_train * l_train + lambda_bind * l_bind (eq. 30)."""
    return lambda_train * train + lambda_bind * bind


def l_joint_max(train: Tensor, bind: Tensor, lambda_train: float, lambda_bind: float) -> Tensor:
    """The -Max variant: the training loss is raised, the binding loss keeps its sign (eq. 32)."""
    return -lambda_train * train + lambda_bind * bind


def l_prot(joint: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """sum_m omega_m * l_joint of surrogate m (eq. 31)."""
    return torch.stack([w * loss.to(joint[0].device) for w, loss in zip(weights, joint, strict=True)]).sum(0)


def ensemble_weights(weights: Sequence[float] | None, surrogates: int) -> tuple[float, ...]:
    """omega: uniform where None; else as given, which must be one a surrogate, not negative, and sum to 1."""
    if weights is None:
        return (1 / surrogates,) * surrogates
    if len(weights) != surrogates or min(weights) < 0 or abs(sum(weights) - 1) > 1e-6:
        raise ArenaError(
            f"surrogate weights {list(weights)} do not fit {surrogates} surrogates: give one each, none negative, "
            "with sum 1"
        )
    return tuple(weights)


def layers_of(objective: Objective, lvlm: LVLM) -> range:
    """The first |K| layers of the language model; `ArenaError` if it has fewer."""
    depth = int(lvlm.model.config.get_text_config().num_hidden_layers)
    if objective.layers > depth:
        raise ArenaError(
            f"binding asks for the first {objective.layers} layers, the surrogate has {depth}: lower `layers`"
        )
    return range(objective.layers)


def query_roles(objective: Objective) -> tuple[Role, ...]:
    """The roles whose attention the binding loss looks at."""
    return {"none": (), "bph": (Role.TRIGGER, Role.ANSWER), "crs": (Role.ANSWER,)}[objective.binding]


def attend(
    lvlm: LVLM,
    batch: Batch,
    layers: Sequence[int],
    roles: Sequence[Role],
    answer_rows: AnswerRows = "targets",
    embeddings: bool = False,
) -> tuple[Forward, Attention]:
    """A forward pass that keeps attention of the positions that ask with the given roles."""
    positions, rows = query_rows(asking(batch.roles, answer_rows), roles)
    forward = lvlm.forward(batch, layers, positions, embeddings, answers_only=True)
    return forward, Attention(forward.attention, rows, batch.roles)


@torch.no_grad()
def reference(
    lvlm: LVLM,
    samples: Sequence[Sample],
    layers: Sequence[int],
    answer_rows: AnswerRows = "targets",
    images: Sequence[Tensor] | None = None,
) -> Reference:
    """The clean samples as a surrogate sees them, for all comparisons with them while its weights are the same.

    `images`, float ``(3, H, W)`` in [0, 1], one a sample, stand for the samples' own; they are not kept.
    """
    batch = lvlm.encode(samples, images_of(samples, lvlm.device) if images is None else images)
    check_causal_order(batch.roles)
    return Reference(lvlm, replace(batch, images=()), layers, answer_rows)


def compared(objective: Objective, clean: Reference) -> Clean | None:
    """The clean attention where the objective looks at it."""
    return clean.attention if objective.binding == "crs" else None


def affected(lvlm: LVLM, clean: dict[str, Tensor], released: dict[str, Tensor], tau: float) -> list[Tensor]:
    """Omega_delta of each picture, bool ``(tokens,)`` (eqs. 22 and 23)."""
    return [omega_delta(change, tau) for change in rho(lvlm, clean, released)]


def combine(
    objective: Objective,
    train: Tensor,
    attention: Attention | None,
    chosen: Sequence[Tensor],
    clean: Clean | None,
) -> Terms:
    """Terms from their ingredients: training losses ``(B,)``, attention, Omega_delta per sample, and the clean
    attention where it is `compared`."""
    if attention is None:
        bind = Binding(torch.zeros_like(train))
    elif objective.binding == "bph":
        bind = bph(
            mean_attention(attention, Role.TRIGGER),
            mean_attention(attention, Role.ANSWER),
            image_keys(attention.keys, chosen),
            attention.keys == Role.TRIGGER,
            objective.betas,
            objective.clamp,
        )
    else:
        assert clean is not None
        aligned = align(*clean, attention.keys)
        bind = crs(mean_attention(attention, Role.ANSWER), aligned, objective.clamp, objective.cap)
    joined = l_joint_max if objective.maximizes else l_joint
    return Terms(train, bind, joined(train, bind.loss, objective.lambda_train, objective.lambda_bind))


def evaluate(
    objective: Objective, lvlm: LVLM, batch: Batch, clean: Reference, embeddings: bool = False
) -> tuple[Terms, Forward]:
    """All terms of one surrogate on a batch of protected samples, with gradient to its pictures and embeddings."""
    if objective.binding == "none":
        forward = lvlm.forward(batch, embeddings=embeddings, answers_only=True)
        return combine(objective, l_train(forward), None, (), None), forward
    layers, rows = layers_of(objective, lvlm), objective.answer_rows
    forward, attention = attend(lvlm, batch, layers, query_roles(objective), rows, embeddings)
    chosen = affected(lvlm, clean.pixels, batch.pixels, objective.tau_delta) if objective.binding == "bph" else ()
    return combine(objective, l_train(forward), attention, chosen, compared(objective, clean)), forward
