"""Algorithm 1 from end to end on random tiny models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_samples import mixed_samples
from tiny_models import tiny_random_llava

from arena.budget import Budget
from arena.data.sample import Sample
from arena.errors import ArenaError, UsageError
from arena.lvlm.adapters import fused
from arena.lvlm.base import LVLM
from arena.release import build_release
from mmguard.adapt import adapted, train
from mmguard.craft import Crafting, Tally
from mmguard.image import levels
from mmguard.protect import Protection, Settings, protect

QUICK = {"rounds": 2, "pgd_steps": 2, "candidates": 4, "batch_size": 4, "rank": 2}


def settings(**changes: object) -> Settings:
    return Settings.model_validate({**QUICK, **changes})


def run(
    changes: dict[str, object] | None = None,
    budget: Budget | None = None,
    seed: int = 0,
    workspace: Path | None = None,
    surrogates: list[LVLM] | None = None,
    samples: list[Sample] | None = None,
) -> Protection:
    models = surrogates or [tiny_random_llava()]
    return protect(
        samples or mixed_samples(6),
        models,
        budget or Budget(image=4, text=3),
        settings(**(changes or {})),
        seed,
        workspace,
    )


def content(protection: Protection) -> list[tuple[bytes, str]]:
    return [(draft.image.tobytes(), draft.question) for draft in protection.drafts]


@pytest.mark.parametrize("position", ["prefix", "suffix", "random"])
def test_the_release_is_feasible(position: str) -> None:
    lvlm, samples, budget = tiny_random_llava(), mixed_samples(7), Budget(image=4, text=3)
    protection = run({"position": position}, budget, surrogates=[lvlm], samples=samples)
    released = build_release(samples, protection.drafts, budget, lambda text: len(lvlm.tokenizer(text)["input_ids"]))
    for sample, one in zip(samples, released, strict=True):
        delta = np.asarray(one.image, int) - np.asarray(sample.image, int)
        assert 0 < np.abs(delta).max() <= 4
        assert 0 < len(one.question.split()) - len(sample.question.split()) <= 3


def test_the_loss_falls() -> None:
    for objective in ("none", "crs", "bph-max"):
        changes = {"objective": objective, "rounds": 3, "inner_steps": 0, "pgd_steps": 4}
        log = run(changes, Budget(image=8, text=3)).log
        losses = [entry["loss"] for entry in log]
        assert losses[-1] < losses[0], objective


def test_same_seed_same_bytes() -> None:
    first, again, other = run(), run(), run(seed=1)
    assert content(first) == content(again)
    assert first.log == again.log and first.diagnostics == again.diagnostics
    assert content(first) != content(other)
    assert content(first) == content(first)  # drafts may be read twice


def test_randomness_outside_does_not_matter() -> None:
    lvlm = tiny_random_llava()
    first = content(run(surrogates=[lvlm]))
    torch.manual_seed(77)
    torch.rand(3)
    state = torch.random.get_rng_state()
    assert content(run(surrogates=[lvlm])) == first
    assert torch.equal(torch.random.get_rng_state(), state)


def test_resuming_equals_an_undisturbed_run(tmp_path: Path) -> None:
    undisturbed = run({"rounds": 3}, workspace=tmp_path / "whole")

    class Killed(Exception):
        pass

    def kill(done: float, note: str) -> None:
        if done > 0.5:  # in the middle of the second of three rounds
            raise Killed

    arguments = (mixed_samples(6), [tiny_random_llava()], Budget(image=4, text=3), settings(rounds=3), 0)
    with pytest.raises(Killed):
        protect(*arguments, workspace=tmp_path / "killed", progress=kill)
    assert json.loads((tmp_path / "killed" / "state.json").read_text(encoding="utf-8"))["rounds"] == 1
    started: list[str] = []
    resumed = protect(*arguments, workspace=tmp_path / "killed", progress=lambda done, note: started.append(note))
    assert started[0].startswith("round 2 of 3")
    assert content(resumed) == content(undisturbed)
    assert resumed.log == undisturbed.log and resumed.diagnostics == undisturbed.diagnostics
    assert (tmp_path / "killed" / "log.json").read_bytes() == (tmp_path / "whole" / "log.json").read_bytes()
    again: list[str] = []
    protect(*arguments, workspace=tmp_path / "killed", progress=lambda done, note: again.append(note))
    assert again == []  # nothing left to do


def test_perturbations_take_a_byte_a_value_on_disk(tmp_path: Path) -> None:
    samples = mixed_samples(6)
    run(workspace=tmp_path, samples=samples)
    values = sum(s.image.width * s.image.height * (1 if s.image.mode in ("L", "LA") else 3) for s in samples)
    assert {p.name: p.stat().st_size for p in tmp_path.glob("*.int8")} == {"perturbations-2.int8": values}


@pytest.mark.parametrize("damage", ["another run", "torn state", "cut off"])
def test_a_workspace_that_does_not_fit(tmp_path: Path, damage: str) -> None:
    run(workspace=tmp_path)
    if damage == "torn state":
        (tmp_path / "state.json").write_text('{"key": "', encoding="utf-8")
    if damage == "cut off":
        (tmp_path / "perturbations-2.int8").write_bytes(b"1234")
    with pytest.raises(ArenaError, match={"another run": "another run", "torn state": "damaged"}.get(damage, damage)):
        run(workspace=tmp_path, seed=1 if damage == "another run" else 0)


def test_two_surrogates_that_share_neither_size_nor_tokenizer() -> None:
    first, second = tiny_random_llava(), tiny_random_llava(seed=4, vocab_size=700, patch_size=6)
    assert first.tokenizer.get_vocab() != second.tokenizer.get_vocab()
    both = run(surrogates=[first, second])
    alone = run(surrogates=[first])
    weighted = run({"surrogate_weights": (1.0, 0.0)}, surrogates=[tiny_random_llava(), second])
    assert content(both) != content(alone)
    assert content(weighted) == content(alone)
    entry = both.log[-1]
    parts = [surrogate["joint"] for surrogate in entry["surrogates"]]
    assert entry["loss"] == pytest.approx(sum(parts) / 2)
    assert all(len(one["surrogates"]) == 2 for one in both.diagnostics)


def test_surrogates_are_left_as_they_were() -> None:
    lvlm = tiny_random_llava()
    before = {name: weight.clone() for name, weight in lvlm.model.state_dict().items()}
    run(surrogates=[lvlm])
    after = lvlm.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


def test_fused_adapters_compute_the_same_and_leave_no_trace() -> None:
    lvlm, samples = tiny_random_llava(), mixed_samples(3)
    before = lvlm.losses(lvlm.encode(samples))
    with adapted(lvlm, rank=2, dropout=0.1, seed=[0]) as tuned:
        train(tuned, lambda model, indices: model.encode([samples[i] for i in indices]), 3, 5, 3, 0.05, [1])
        apart = tuned.losses(tuned.encode(samples))
        with fused(tuned):
            together = tuned.losses(tuned.encode(samples))
        assert torch.equal(tuned.losses(tuned.encode(samples)), apart)
    assert (apart - before).abs().max() > 0.1
    assert torch.allclose(apart, together, atol=1e-4)
    assert torch.equal(lvlm.losses(lvlm.encode(samples)), before)


def test_half_precision_is_not_fused() -> None:
    lvlm = tiny_random_llava()
    lvlm.model.to(torch.bfloat16)
    with adapted(lvlm, rank=2, dropout=0.0, seed=[0]) as tuned:
        weights = {n: p.data_ptr() for n, p in tuned.model.named_parameters()}
        with fused(tuned):
            assert {n: p.data_ptr() for n, p in tuned.model.named_parameters()} == weights


def test_inner_steps_train_the_surrogate() -> None:
    log = run({"inner_steps": 4, "learning_rate": 0.02, "dropout": 0.0}).log
    for entry in log:
        losses = entry["surrogates"][0]["adapted"]
        assert len(losses) == 4 and losses[-1] < losses[0]
    assert run({"inner_steps": 0}).log[0]["surrogates"][0]["adapted"] == []


def test_without_perturbation_or_trigger() -> None:
    samples = mixed_samples(6)
    text = run({"pgd_steps": 0}, samples=samples)
    image = run({"trigger_tokens": 0}, samples=samples)
    for sample, only_text, only_image in zip(samples, text.drafts, image.drafts, strict=True):
        assert only_text.image.tobytes() == sample.image.tobytes()
        assert only_text.question != sample.question and only_image.question == sample.question
        assert only_image.image.tobytes() != sample.image.tobytes()
    paths = text.log[-1]["surrogates"][0]
    assert paths["answer->trigger"] > 0 and paths["answer->perturbation"] == 0
    assert text.diagnostics[0]["surrogates"][0]["perturbation"] is None
    assert image.diagnostics[0]["surrogates"][0]["trigger"] is None


def test_theorem_5_1_on_crafted_samples() -> None:
    for objective in ("bph", "crs", "none"):
        protection = run({"objective": objective, "lambda_bind": 2.0})
        assert len(protection.diagnostics) == 6
        for sample, one in zip(mixed_samples(6), protection.diagnostics, strict=True):
            assert one["id"] == sample.id
            shift = one["surrogates"][0]["trigger"]
            assert shift["measured"] >= shift["bound"]
            assert shift["bound"] == pytest.approx(1 - (shift["eta"] / 2) ** 0.5)
            assert 0 < shift["measured"] <= 1


def test_the_log_names_every_term() -> None:
    (first, second) = run().log
    assert (first["round"], second["round"]) == (1, 2)
    names = {"adapted", "train", "bind", "joint", "trigger->perturbation", "answer->trigger", "answer->perturbation"}
    assert set(first["surrogates"][0]) == names | {"clamped", "capped"}
    one = first["surrogates"][0]
    assert one["joint"] == pytest.approx(one["train"] + one["bind"])
    assert 0 < first["mean_change"] <= 4 and 0 < first["words_changed"] <= 18


def test_a_cap_that_binds_is_counted() -> None:
    capped = run({"objective": "crs", "cap": 1e-6}).log[-1]["surrogates"][0]
    assert capped["capped"] > 0 and capped["bind"] == pytest.approx(-1e-6)
    assert run({"objective": "crs"}).log[-1]["surrogates"][0]["capped"] == 0
    assert run({"objective": "bph", "clamp": 0.5}).log[-1]["surrogates"][0]["clamped"] > 0


def test_fluency_joins_the_verified_loss() -> None:
    lvlm = tiny_random_llava()
    changes = {"objective": "none", "pgd_steps": 0, "inner_steps": 0, "lambda_train": 0.0, "candidates": 60}
    plain, fluent = (run({**changes, "lambda_ppl": weight}, surrogates=[lvlm]) for weight in (0.0, 1.0))
    means = [np.log(lvlm.perplexities([draft.question for draft in p.drafts])).mean() for p in (plain, fluent)]
    assert means[1] < means[0]


def test_fewer_slots_than_words() -> None:
    for entry in run({"slots": 1}).log:
        assert entry["words_changed"] <= 6


@pytest.mark.parametrize(
    ("changes", "budget", "message"),
    [
        ({"trigger_tokens": 4}, Budget(text=3), "4 words"),
        ({}, Budget(norm="l2"), "l2"),
        ({"surrogate_weights": (0.5,)}, Budget(), "sum 1"),
        ({"layers": 3}, Budget(), "first 3 layers"),
    ],
)
def test_settings_that_do_not_fit(changes: dict[str, object], budget: Budget, message: str) -> None:
    with pytest.raises(ArenaError, match=message):
        run(changes, budget)


def test_nothing_to_protect() -> None:
    with pytest.raises(UsageError, match="at least one sample"):
        protect([], [tiny_random_llava()], Budget(), settings(), 0)


def test_a_surrogate_looks_again_where_a_perturbation_is_another() -> None:
    lvlm, samples = tiny_random_llava(), mixed_samples(3)
    delta = [torch.zeros_like(levels(s.image)) for s in samples]
    crafting = Crafting.start(
        samples, delta, [()] * 3, [0] * 3, [lvlm], [1.0], settings(objective="none"), [Tally.new()]
    )
    first = crafting.look(lvlm)
    assert crafting.look(lvlm) is first
    crafting.delta[1] = torch.where(levels(samples[1].image) > 128, -8, 8).to(torch.int16)
    again = crafting.look(lvlm)
    values = (look.pixels["pixel_values"] for look in (first, again))
    assert [not torch.equal(a, b) for a, b in zip(*values, strict=True)] == [False, True, False]


@pytest.mark.parametrize("changes", [{"learning_rate": 1e30}, {"pgd_steps": 0, "learning_rate": 1e30}])
def test_a_surrogate_that_diverges_protects_nothing(changes: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(ArenaError, match=r"the surrogate's loss is NaN or infinite: the surrogate diverged"):
        run({**changes, "inner_steps": 2}, workspace=tmp_path)
    assert not list(tmp_path.rglob("log.json"))
