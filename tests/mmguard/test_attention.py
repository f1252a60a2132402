"""The formulas of section 5.3, each against its definition."""

from __future__ import annotations

import pytest
import torch
from small_samples import mixed_samples
from tiny_models import tiny_random_llava
from torch import Tensor

from arena.errors import ArenaError
from arena.lvlm.base import LVLM, images_of
from arena.lvlm.batch import Role
from mmguard.attention import (
    Attention,
    align,
    asking,
    bph,
    check_causal_order,
    crs,
    image_keys,
    info_nce,
    l_mass,
    mean_attention,
    omega_delta,
    query_rows,
    rho,
    theorem_5_1,
    uniform,
)

I, X, G, Y, P, T = Role.IMAGE, Role.TEXT, Role.TRIGGER, Role.ANSWER, Role.PADDING, Role.TEMPLATE  # noqa: E741
FLOOR = 1e-8


@pytest.fixture(scope="module")
def lvlm() -> LVLM:
    return tiny_random_llava()


def distributions(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(*shape, generator=generator, dtype=torch.float64)).softmax(-1)


def target_sets(batch: int, keys: int, seed: int = 0) -> Tensor:
    targets = torch.rand(batch, keys, generator=torch.Generator().manual_seed(seed)) < 0.3
    targets[:, 0] = True
    return targets


def roles(*rows: list[Role]) -> Tensor:
    return torch.tensor([[int(role) for role in row] for row in rows])


def test_rho_is_the_change_of_each_image_tokens_patch(lvlm: LVLM) -> None:
    clean = torch.full((3, 48, 48), 0.5)
    changed = clean.clone()
    changed[:, 8:16, 16:24] += 4 / 255  # second row, third column of 6 x 6 patches
    changed[0, 40:, 40:] -= 8 / 255  # one channel of three
    (change,) = rho(lvlm, lvlm.pixel_inputs([clean]), lvlm.pixel_inputs([changed]))
    wanted = torch.zeros(36)
    wanted[8], wanted[35] = 4 / 255, 8 / 255 / 3
    assert torch.allclose(change, wanted, atol=1e-6)


def test_omega_delta_takes_the_most_changed_and_the_first_of_ties() -> None:
    change = torch.tensor([0.1, 0.5, 0.3, 0.3 + 1e-9, 0.2])
    assert omega_delta(change, 0.1).tolist() == [False, True, False, False, False]  # ceil(0.5) = 1
    assert omega_delta(change, 0.4).tolist() == [False, True, True, False, False]
    assert omega_delta(torch.zeros(5), 0.4).sum() == 0
    many = torch.arange(100.0) + 1
    assert omega_delta(many, 0.07).sum() == 7  # 0.07 * 100 is 7.000000000000001 in floats


def test_image_keys_mark_image_tokens_in_order() -> None:
    keys = roles([T, I, I, X], [I, I, T, P])
    mask = image_keys(keys, [torch.tensor([False, True]), torch.tensor([True, True])])
    assert mask.tolist() == [[False, False, True, False], [True, True, False, False]]


def test_mean_attention_averages_heads_and_rows_of_each_sample() -> None:
    weights = {0: distributions(2, 3, 4, 6), 1: distributions(2, 3, 4, 6, seed=1)}
    rows = roles([G, G, Y, P], [G, Y, Y, Y])
    mean = mean_attention(Attention(weights, rows, torch.zeros(2, 6)), Y)
    for k in (0, 1):
        assert torch.allclose(mean[k, 0], weights[k][0, :, 2].mean(0))
        assert torch.allclose(mean[k, 1], weights[k][1, :, 1:].mean((0, 1)))
    assert torch.allclose(mean.sum(-1), torch.ones(2, 2, dtype=torch.float64))
    assert mean_attention(Attention(weights, rows, torch.zeros(2, 6)), I).abs().sum() == 0


def test_query_rows_are_padded_to_the_longest() -> None:
    positions, found = query_rows(roles([I, X, G, Y, Y], [I, G, X, X, P]), (G, Y))
    assert positions[0].tolist() == [2, 3, 4]
    assert positions[1, 0] == 1
    assert found.tolist() == [[G, Y, Y], [G, P, P]]


def test_the_rows_that_predict_an_answer_stand_before_its_tokens() -> None:
    found = roles([I, G, T, Y, Y], [I, T, Y, P, P])
    assert torch.equal(asking(found, "targets"), found)
    assert torch.equal(asking(found, "predicting"), roles([I, G, Y, Y, T], [I, Y, T, P, P]))


def test_uniform_is_one_over_the_size_of_the_set() -> None:
    assert uniform(torch.tensor([[True, False, True], [False] * 3])).tolist() == [[0.5, 0, 0.5], [0, 0, 0]]


def test_l_mass_is_the_divergence_from_uniform_averaged_over_layers() -> None:
    mean, targets = distributions(3, 4, 7), target_sets(4, 7)
    by_hand = []
    for b, size in enumerate(targets.sum(1).tolist()):
        masses = mean[:, b][:, targets[b]]
        by_hand.append(((1 / size) * ((1 / size) / masses).log()).sum(1).mean())
    assert torch.allclose(l_mass(mean, targets, FLOOR), torch.stack(by_hand))


@pytest.mark.parametrize("seed", range(5))
def test_proposition_c1(seed: int) -> None:
    logits = 4 * torch.randn(1, 6, 20, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    targets = target_sets(6, 20, seed)
    contrastive = info_nce(logits[0], targets) - targets.sum(1).double().log()
    assert (l_mass(logits.softmax(-1), targets, 1e-30) - contrastive).abs().max() < 1e-5


def test_l_mass_of_nothing_is_zero() -> None:
    mean = distributions(2, 2, 5)
    assert l_mass(mean, torch.zeros(2, 5, dtype=torch.bool), FLOOR).tolist() == [0, 0]
    assert l_mass(torch.zeros_like(mean), target_sets(2, 5), FLOOR).tolist() == [0, 0]


def test_gradients_in_float64() -> None:
    logits = torch.randn(2, 3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    other = torch.randn(2, 3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    clean, targets = distributions(2, 3, 6), target_sets(3, 6)

    def hijacking(trigger: Tensor, answer: Tensor) -> Tensor:
        return bph(trigger.softmax(-1), answer.softmax(-1), targets, ~targets, (1.0, 0.5, 2.0), FLOOR).loss

    assert torch.autograd.gradcheck(lambda x: l_mass(x.softmax(-1), targets, FLOOR), logits)
    assert torch.autograd.gradcheck(hijacking, (logits, other))
    assert torch.autograd.gradcheck(lambda x: crs(x.softmax(-1), clean, FLOOR, 1e3).loss, logits)


def test_bph_weighs_its_three_paths() -> None:
    trigger, answer = distributions(2, 3, 8), distributions(2, 3, 8, seed=1)
    affected, triggers = target_sets(3, 8), ~target_sets(3, 8)
    found = bph(trigger, answer, affected, triggers, (1.0, 0.5, 2.0), FLOOR)
    paths = [l_mass(trigger, affected, FLOOR), l_mass(answer, triggers, FLOOR), l_mass(answer, affected, FLOOR)]
    assert torch.allclose(found.loss, paths[0] + 0.5 * paths[1] + 2 * paths[2])
    assert list(found.paths) == ["trigger->perturbation", "answer->trigger", "answer->perturbation"]
    assert found.clamped == 0


def test_bph_counts_clamped_probabilities() -> None:
    answer = torch.tensor([[[1.0, 0.0, 0.0]]])
    targets = torch.tensor([[False, True, True]])
    found = bph(torch.zeros_like(answer), answer, targets, torch.zeros_like(targets), (1.0, 1.0, 1.0), FLOOR)
    assert found.clamped == 2  # of the answer; there is no trigger
    assert torch.isfinite(found.loss).all()


def test_align_gives_the_trigger_no_clean_mass() -> None:
    clean = distributions(1, 2, 5)
    clean[:, 1, 4] = 0
    lengths = torch.tensor([5, 4])
    keys = roles([I, X, G, G, T, Y, Y], [I, G, X, T, Y, P, P])
    aligned = align(clean, lengths, keys)
    assert aligned[0, 0].tolist() == [*clean[0, 0, :2].tolist(), 0, 0, *clean[0, 0, 2:].tolist()]
    assert aligned[0, 1].tolist() == [clean[0, 1, 0].item(), 0, *clean[0, 1, 1:4].tolist(), 0, 0]


def test_align_when_the_insertion_moved_a_token_boundary() -> None:
    clean = distributions(1, 1, 5)
    fewer = align(clean, torch.tensor([5]), roles([I, G, X, T, Y]))  # two text tokens became one
    assert fewer[0, 0].tolist() == [clean[0, 0, 0].item(), 0, *clean[0, 0, 2:].tolist()]
    more = align(clean, torch.tensor([5]), roles([I, X, G, X, X, T, Y]))  # two became three
    assert more[0, 0].tolist() == [*clean[0, 0, :2].tolist(), 0, 0, *clean[0, 0, 2:].tolist()]
    assert fewer.sum() < 1 and torch.isclose(more.sum(), torch.ones((), dtype=torch.float64))


def test_crs_is_the_negative_divergence_from_clean() -> None:
    clean, protected = distributions(2, 3, 6), distributions(2, 3, 6, seed=1)
    divergence = (clean * (clean / protected).log()).sum(-1).mean(0)
    assert torch.allclose(crs(protected, clean, FLOOR, 1e3).loss, -divergence)
    assert crs(clean, clean, FLOOR, 1e3).loss.abs().max() < 1e-12


def test_crs_is_capped_per_layer_and_says_so() -> None:
    clean = torch.tensor([[[1.0, 0.0]], [[0.5, 0.5]]])
    logits = torch.tensor([[[0.0, 30.0]], [[0.0, 0.0]]], requires_grad=True)
    found = crs(logits.softmax(-1), clean, FLOOR, cap=5.0)
    assert found.loss.tolist() == [-2.5]
    assert (found.capped, found.clamped) == (1, 1)
    found.loss.sum().backward()
    assert logits.grad is not None and logits.grad[0].abs().sum() == 0


@pytest.mark.parametrize("seed", range(20))
def test_theorem_5_1_on_random_attention(seed: int) -> None:
    protected, clean = distributions(3, 5, 12, seed=seed), distributions(3, 5, 12, seed=seed + 100)
    targets = target_sets(5, 12, seed)
    clean = clean.masked_fill(targets, 0)
    clean = clean / clean.sum(-1, keepdim=True).clamp(min=1e-12)
    # Some samples really are hijacked, so that the bound is not vacuous.
    pull = torch.linspace(0, 1, 5, dtype=torch.float64)[:, None]
    protected = (1 - pull) * protected + pull * uniform(targets, torch.float64)
    shift = theorem_5_1(protected, clean, targets)
    assert (shift.measured >= shift.bound - 1e-9).all()
    assert torch.isclose(shift.bound[-1], torch.ones((), dtype=torch.float64))
    assert torch.isclose(shift.measured[-1], torch.ones((), dtype=torch.float64))
    total = (protected - clean).abs().sum(-1).mean(0) / 2
    assert torch.allclose(shift.measured, total)


def test_trigger_attends_to_the_picture(lvlm: LVLM) -> None:
    samples = mixed_samples(3)
    spans = [(0, len(s.question)) for s in samples]
    batch = lvlm.encode(samples, images_of(samples), spans)
    check_causal_order(batch.roles)
    positions, rows = query_rows(batch.roles, (Role.TRIGGER,))
    mean = mean_attention(Attention(lvlm.attention(batch, (0, 1), positions), rows, batch.roles), Role.TRIGGER)
    assert (mean[:, batch.roles == Role.IMAGE] > 0).all()
    assert (mean[:, batch.roles == Role.ANSWER] == 0).all()


def test_text_before_the_picture_is_an_error() -> None:
    check_causal_order(roles([I, I, G, Y], [I, X, Y, P]))
    with pytest.raises(ArenaError, match=r"sequence 1 of the batch.*template"):
        check_causal_order(roles([I, G, Y], [G, I, Y]))
