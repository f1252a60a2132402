"""The joint objective on a real model, against its parts computed one by one."""

from __future__ import annotations

import pytest
import torch
from small_samples import mixed_samples
from tiny_models import tiny_random_llava

from arena.errors import ArenaError
from arena.lvlm.base import LVLM, images_of
from arena.lvlm.batch import Batch, Role
from mmguard.attention import AnswerRows, Attention, align, mean_attention
from mmguard.objective import (
    Objective,
    Reference,
    ensemble_weights,
    evaluate,
    l_joint,
    l_joint_max,
    l_prot,
    l_train,
    layers_of,
    reference,
)
from mmguard.trigger import insert


@pytest.fixture(scope="module")
def lvlm() -> LVLM:
    return tiny_random_llava()


def objective(**settings: object) -> Objective:
    return Objective.model_validate(settings)


def protected(lvlm: LVLM, answer_rows: AnswerRows = "targets") -> tuple[Batch, Reference]:
    """Four samples with triggers and with a perturbed top left corner."""
    samples = mixed_samples(4)
    texts = [insert(s.question, ("red", "star", "blue"), 2) for s in samples]
    images = images_of(samples)
    for x in images:
        x[:, :8, :8] = (x[:, :8, :8] + 8 / 255).clamp(0, 1)
    released = [s.with_content(s.image, text) for s, (text, _) in zip(samples, texts, strict=True)]
    clean = reference(lvlm, samples, range(2), answer_rows)
    return lvlm.encode(released, images, [span for _, span in texts]), clean


def kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    used = p > 0
    return (p[used] * (p[used] / q[used]).log()).sum()


@pytest.mark.parametrize(("answer_rows", "before"), [("targets", 0), ("predicting", 1)])
def test_bph_from_whole_attention_maps(lvlm: LVLM, answer_rows: AnswerRows, before: int) -> None:
    batch, clean = protected(lvlm, answer_rows)
    terms, _ = evaluate(objective(objective="bph", tau_delta=0.02, answer_rows=answer_rows), lvlm, batch, clean)
    maps = lvlm.attention(batch, (0, 1))
    for b in range(4):
        place = {role: (batch.roles[b] == role).nonzero().flatten() for role in Role}
        place[Role.ANSWER] -= before
        corner = place[Role.IMAGE][:1]  # ceil(0.02 * 36) = 1 token, and only the corner was perturbed
        wanted = torch.zeros(())
        for rows, keys in (("TRIGGER", corner), ("ANSWER", place[Role.TRIGGER]), ("ANSWER", corner)):
            uniform = torch.zeros(batch.roles.shape[1])
            uniform[keys] = 1 / len(keys)
            for k in (0, 1):
                wanted = wanted + kl(uniform, maps[k][b][:, place[Role[rows]]].mean((0, 1))) / 2
        assert torch.isclose(terms.bind.loss[b], wanted, rtol=1e-4)
    assert torch.allclose(terms.train, lvlm.losses(batch), atol=1e-5)
    assert torch.allclose(terms.joint, terms.train + terms.bind.loss)


@pytest.mark.parametrize(("answer_rows", "first"), [("targets", 0), ("predicting", 1)])
def test_crs_from_whole_attention_maps(lvlm: LVLM, answer_rows: AnswerRows, first: int) -> None:
    batch, clean = protected(lvlm, answer_rows)
    terms, _ = evaluate(objective(objective="crs", answer_rows=answer_rows), lvlm, batch, clean)
    samples = mixed_samples(4)
    before, maps = lvlm.encode(samples), lvlm.attention(batch, (0, 1))
    for b in range(4):
        original = lvlm.attention(lvlm.encode([samples[b]]), (0, 1))
        answer = (before.roles[b] == Role.ANSWER).nonzero().flatten() - first
        moved = (batch.roles[b] == Role.ANSWER).nonzero().flatten() - first
        common = ((batch.roles[b] != Role.TRIGGER) & (batch.roles[b] != Role.PADDING)).nonzero().flatten()
        wanted = -sum(
            kl(original[k][0][:, answer].mean((0, 1)), maps[k][b][:, moved].mean((0, 1))[common]) / 2 for k in (0, 1)
        )
        assert torch.isclose(terms.bind.loss[b], wanted, rtol=1e-3)


def test_reference_is_the_clean_attention_of_the_answer(lvlm: LVLM) -> None:
    samples = mixed_samples(3)
    clean, batch = reference(lvlm, samples, range(2)), lvlm.encode(samples)
    whole = Attention(lvlm.attention(batch, (0, 1)), batch.roles, batch.roles)
    assert torch.allclose(clean.attention[0], mean_attention(whole, Role.ANSWER), atol=1e-6)
    assert torch.equal(align(*clean.attention, batch.roles), clean.attention[0])


@pytest.mark.parametrize("name", ["none", "bph", "crs", "bph-max", "crs-max"])
def test_gradient_reaches_pixels_and_embeddings(lvlm: LVLM, name: str) -> None:
    batch, clean = protected(lvlm)
    images = [x.clone().requires_grad_() for x in batch.images]
    terms, forward = evaluate(objective(objective=name), lvlm, lvlm.with_images(batch, images), clean, embeddings=True)
    assert forward.embeddings is not None
    gradients = torch.autograd.grad(terms.joint.sum(), [*images, forward.embeddings])
    assert all(g.abs().sum() > 0 for g in gradients)
    trigger = gradients[-1][batch.roles == Role.TRIGGER]
    assert (trigger.abs().sum(1) > 0).all()


def test_max_flips_the_training_loss_alone(lvlm: LVLM) -> None:
    batch, clean = protected(lvlm)
    low, _ = evaluate(objective(objective="bph", lambda_train=0.7, lambda_bind=0.3), lvlm, batch, clean)
    high, _ = evaluate(objective(objective="bph-max", lambda_train=0.7, lambda_bind=0.3), lvlm, batch, clean)
    assert torch.allclose(low.joint, l_joint(low.train, low.bind.loss, 0.7, 0.3))
    assert torch.allclose(high.joint, l_joint_max(low.train, low.bind.loss, 0.7, 0.3))
    assert torch.allclose(low.joint - high.joint, 1.4 * low.train, atol=1e-5)


def test_l_train_is_the_answers_cross_entropy(lvlm: LVLM) -> None:
    batch, _ = protected(lvlm)
    forward = lvlm.forward(batch)
    shifted = forward.logits.log_softmax(-1)
    for b in range(4):
        tokens = [(t, y) for t, y in enumerate(forward.labels[b].tolist()) if y >= 0]
        assert torch.isclose(l_train(forward)[b], -torch.stack([shifted[b, t, y] for t, y in tokens]).mean())


def test_ensemble_is_the_weighted_sum() -> None:
    first, second = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 5.0])
    assert torch.allclose(l_prot([first, second], ensemble_weights((0.25, 0.75), 2)), torch.tensor([2.5, 4.25]))
    assert ensemble_weights(None, 4) == (0.25,) * 4


@pytest.mark.parametrize("weights", [(1.0,), (0.5, 0.6), (1.5, -0.5)])
def test_bad_ensemble_weights(weights: tuple[float, ...]) -> None:
    with pytest.raises(ArenaError, match="sum 1"):
        ensemble_weights(weights, 2)


def test_more_layers_than_the_surrogate_has(lvlm: LVLM) -> None:
    assert layers_of(objective(), lvlm) == range(2)
    with pytest.raises(ArenaError, match="the surrogate has 2"):
        layers_of(objective(layers=3), lvlm)
