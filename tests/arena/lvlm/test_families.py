"""Every family does what the arena asks of a model: one row a family, checked against transformers itself."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import FAMILIES, Family, photograph, token_change
from torch import Tensor
from transformers import AutoModelForImageTextToText

from arena.budget import Budget
from arena.data.sample import Sample
from arena.lvlm import pixels
from arena.lvlm.adapters import attach_lora, linear_modules, trainable
from arena.lvlm.base import LVLM, images_of
from arena.lvlm.batch import IGNORE, Batch, Encoding, Role
from arena.lvlm.continuation import begin, common_length, encode_versions, finish
from arena.lvlm.families.gemma3.model import Gemma3
from arena.lvlm.zoo import random_checkpoints
from arena.plugins.registry import Registry
from arena.recipes.training import fine_tune, load_epoch, tuned_model
from arena.release import build_release
from mmguard.protect import Settings, protect

SAMPLES = [
    ("what colour is the star? fox wolf", "red", (48, 48)),
    ("how many things are there?", "twenty four", (60, 150)),
    ("where is the circle?", "top left", (120, 50)),
]


@pytest.fixture(scope="module", params=FAMILIES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def family(name: str) -> Family:
    return FAMILIES[name]


@pytest.fixture(scope="module")
def fresh(name: str, family: Family, random_checkpoint: Callable[[str], Path]) -> Callable[[], LVLM]:
    """The family's model as a user loads it, for a test that changes it."""
    return lambda: family.lvlm.from_pretrained(random_checkpoint(name))


@pytest.fixture(scope="module")
def lvlm(fresh: Callable[[], LVLM]) -> LVLM:
    return fresh()


@pytest.fixture(scope="module")
def transformers_own(name: str, random_checkpoint: Callable[[str], Path]) -> Any:
    """The same checkpoint without any of ours around it."""
    return AutoModelForImageTextToText.from_pretrained(random_checkpoint(name)).eval()


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return [
        Sample(f"s{i}", photograph(*size, seed=i), question, answer)
        for i, (question, answer, size) in enumerate(SAMPLES)
    ]


def inputs(family: Family, lvlm: LVLM, batch: Batch, samples: list[Sample]) -> dict[str, Tensor]:
    """A batch as transformers' own processor and model would have it."""
    output = dict(family.processed(lvlm, [s.image for s in samples]))
    for name in ("num_patches", "num_crops"):  # for the text around the picture, no arguments of the model
        output.pop(name, None)
    native = family.native(lvlm, batch)
    tokens = {"input_ids": native.input_ids, "attention_mask": native.attention_mask}
    tensors = {key: value for key, value in output.items() if isinstance(value, Tensor)}
    return {**tokens, **tensors, **family.extra(lvlm, batch.input_ids)}


def words(lvlm: LVLM, batch: Batch, row: int, role: Role) -> str:
    return lvlm.tokenizer.decode(batch.input_ids[row][batch.positions(role)[row]]).strip()


def test_roles(family: Family, lvlm: LVLM, samples: list[Sample]) -> None:
    question = samples[0].question
    batch = lvlm.encode(samples, triggers=[(question.index(" fox"), len(question)), None, None])
    counted = family.tokens(family.processed(lvlm, [s.image for s in samples]))
    assert batch.positions(Role.IMAGE).sum(1).tolist() == counted
    assert [words(lvlm, batch, row, Role.TEXT) for row in range(3)] == [
        "what colour is the star?",
        *(s.question for s in samples[1:]),
    ]
    assert words(lvlm, batch, 0, Role.TRIGGER) == "fox wolf"
    end = str(lvlm.tokenizer.eos_token)
    assert [words(lvlm, batch, row, Role.ANSWER) for row in range(3)] == [s.answer + end for s in samples]
    assert torch.equal(batch.labels != IGNORE, batch.positions(Role.ANSWER))
    assert torch.equal(batch.attention_mask == 0, batch.positions(Role.PADDING))


def test_what_a_sample_says_is_text(lvlm: LVLM) -> None:
    """Placeholders and control tokens in questions and answers change nothing but the words themselves."""
    tokenizer, size, question = lvlm.tokenizer, (60, 150), "what colour is it?"
    control = {id: str(token) for id, token in tokenizer.added_tokens_decoder.items() if token.special}
    assert lvlm.image_token_id in control and set(tokenizer.all_special_ids) <= set(control)
    evil = " ".join(name for id, name in control.items() if id != tokenizer.unk_token_id)
    plain, odd = (lvlm.encode_text(size, question + more, f"red{more}", (5, 11)) for more in ("", f" {evil}"))
    for role in (Role.TEXT, Role.TRIGGER, Role.ANSWER):
        ids = [id for id, own in zip(odd.ids, odd.roles, strict=True) if own == role]
        found = [control[id] for id in ids if id in control]
        assert found == ([tokenizer.eos_token] if role == Role.ANSWER else [])
        text = tokenizer.decode(ids).strip()
        assert text == {Role.TEXT: f"what is it? {evil}", Role.TRIGGER: "colour"}.get(
            role, f"red {evil}{tokenizer.eos_token}"
        )
    assert odd.roles.count(Role.IMAGE) == plain.roles.count(Role.IMAGE) > 0
    last, stop = plain.roles.index(Role.ANSWER) - 1, odd.roles.index(Role.ANSWER) - 1
    words = len(plain.roles) - plain.roles[::-1].index(Role.TEXT) - 1
    assert odd.ids[:words] == plain.ids[:words]  # up to the seam, and from the next one on
    between = plain.roles[words + 1 : last + 2].count(Role.TEMPLATE)
    assert odd.ids[stop + 1 - between : stop + 2] == plain.ids[last + 1 - between : last + 2]
    versions = [(f"fox {question} {evil}", (0, 4)), (f"wolf {question} {evil}", (0, 5))]
    assert encode_versions(lvlm, size, versions, evil) == [
        lvlm.encode_text(size, text, evil, span) for text, span in versions
    ]
    samples = [Sample(t, photograph(*size, seed=1), f"{question}{t}", f"red{t}") for t in ("", f" {evil}")]
    assert lvlm.losses(lvlm.encode(samples)).isfinite().all() and len(lvlm.generate(samples, 2)) == 2
    assert lvlm.token_counts([evil])[0] > len(control) - 1


def test_loss_is_transformers_own(family: Family, lvlm: LVLM, transformers_own: Any, samples: list[Sample]) -> None:
    batch = lvlm.encode(samples)
    given = inputs(family, lvlm, batch, samples)
    theirs = transformers_own(**given, labels=family.native(lvlm, batch).labels).loss.item()
    assert lvlm.loss(batch).item() == pytest.approx(theirs, rel=1e-4)
    alone = torch.cat([lvlm.losses(lvlm.encode([s])) for s in samples])
    assert torch.allclose(lvlm.losses(batch), alone, atol=1e-4)
    if "mm_token_type_ids" in given:  # it does matter where tokens are placed
        plain = torch.arange(batch.input_ids.shape[1]).expand(batch.input_ids.shape)
        assert abs(transformers_own(**given, position_ids=plain, labels=batch.labels).loss.item() - theirs) > 1e-2


def test_attention_is_transformers_own(
    family: Family, lvlm: LVLM, transformers_own: Any, samples: list[Sample]
) -> None:
    batch = lvlm.encode(samples)
    rows = batch.positions(Role.ANSWER).int().argmax(1, keepdim=True)
    found = lvlm.attention(batch, range(family.layers), rows)
    eager = copy.deepcopy(transformers_own)
    eager.set_attn_implementation("eager")
    output = eager(**inputs(family, lvlm, batch, samples), output_attentions=True)
    theirs = family.attention(lvlm, batch, output.attentions)
    for layer in range(family.layers):
        heads = theirs[layer].shape[1]
        wanted = theirs[layer].gather(2, rows[:, None, :, None].expand(-1, heads, -1, theirs[layer].shape[-1]))
        assert torch.allclose(found[layer], wanted, atol=1e-3)
        assert torch.allclose(found[layer].sum(-1), torch.ones(()), atol=1e-5)


def test_generation_is_transformers_own(
    family: Family, lvlm: LVLM, transformers_own: Any, samples: list[Sample]
) -> None:
    together = lvlm.generate(samples, max_new_tokens=4)
    assert together == [lvlm.generate([s], max_new_tokens=4)[0] for s in samples]
    for sample, answer in zip(samples, together, strict=True):
        prompt = lvlm.encode_text((sample.image.height, sample.image.width), sample.question, None)
        batch = lvlm.collate([prompt], {}, [], torch.zeros(1))
        given = inputs(family, lvlm, batch, [sample])
        ids = transformers_own.generate(**given, max_new_tokens=4, do_sample=False)
        new = ids[0, given["input_ids"].shape[1] :]
        assert answer == lvlm.tokenizer.decode(new, skip_special_tokens=True).strip()


def test_gradient_reaches_pixels_of_any_size(
    fresh: Callable[[], LVLM], samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the whole path, from raw pixels to the loss: the gradient predicts how the loss moves. Rounding, of which
    no finite difference exists, is taken out for it; the gradient with rounding agrees with the one without."""
    lvlm = fresh()
    lvlm.model.double()
    images = [x.double().requires_grad_() for x in images_of(samples)]
    batch = lvlm.encode(samples)
    rounded = torch.autograd.grad(lvlm.losses(lvlm.with_images(batch, images)).sum(), images)
    monkeypatch.setattr(pixels, "to_bytes", lambda x: x)
    gradients = torch.autograd.grad(lvlm.losses(lvlm.with_images(batch, images)).sum(), images)
    for x, gradient, other in zip(images, gradients, rounded, strict=True):
        assert gradient.shape == x.shape and gradient.abs().sum() > 0
        assert torch.cosine_similarity(gradient.flatten(), other.flatten(), 0) > 0.9
    norm = torch.cat([g.flatten() for g in gradients]).norm()
    moved = []
    for step in (5e-3, -5e-3):
        there = [x + step * g / norm for x, g in zip(images, gradients, strict=True)]
        with torch.no_grad():
            moved.append(lvlm.losses(lvlm.with_images(batch, there)).double().sum())
    assert ((moved[0] - moved[1]) / 1e-2).item() == pytest.approx(norm.item(), rel=0.02)


def test_change_of_a_patch_is_found_in_its_token(family: Family, lvlm: LVLM) -> None:
    side = 6 * family.block
    clean = pixels.to_tensor(photograph(side, side))
    changed = clean.clone()
    place = (slice(None), slice(family.block, 2 * family.block), slice(3 * family.block, 4 * family.block))
    changed[place] = 1 - changed[place]
    other = pixels.to_tensor(photograph(60, 150))
    still, rho = token_change(lvlm, [other, clean], [other, changed])
    assert still.count_nonzero() == 0
    assert rho.shape == (36 + family.overview,)
    assert rho[:36].nonzero().flatten().tolist() == [family.place]
    assert bool(rho[36:].count_nonzero()) == bool(family.overview)
    assert rho.max().item() == pytest.approx((changed - clean)[place].abs().mean().item(), rel=1e-4)


def test_pictures_keep_their_order(lvlm: LVLM, samples: list[Sample]) -> None:
    images = images_of([samples[0], samples[1], samples[0]])
    together = lvlm.pixel_inputs(images)
    for i, image in enumerate(images):
        for key, alone in lvlm.pixel_inputs([image]).items():
            row = together[key][i : i + 1]
            assert torch.equal(row[:, : alone.shape[1]], alone)
            rest = row[:, alone.shape[1] :]
            assert rest.isnan().all() if rest.is_floating_point() else not rest.any()


def test_continuing_a_sequence_is_running_it_whole(family: Family, lvlm: LVLM, samples: list[Sample]) -> None:
    versions = [
        [(f"{s.question} {word}", (len(s.question), len(s.question) + 4)) for word in ("fox", "cat")] for s in samples
    ]
    sizes = [(s.image.height, s.image.width) for s in samples]
    rows = [encode_versions(lvlm, size, v, s.answer) for size, v, s in zip(sizes, versions, samples, strict=True)]
    cuts = [common_length(r) for r in rows]
    images = images_of(samples)
    heads = [Encoding(r[0].ids[:cut], r[0].roles[:cut]) for r, cut in zip(rows, cuts, strict=True)]
    beginnings = begin(lvlm, lvlm.collate(heads, lvlm.pixel_inputs(images), images, torch.arange(3)))
    tails = [Encoding(e.ids[cut:], e.roles[cut:]) for r, cut in zip(rows, cuts, strict=True) for e in r]
    of = torch.tensor([0, 0, 1, 1, 2, 2])
    found = finish(
        lvlm, beginnings, of, lvlm.collate(tails, {}, (), of), range(family.layers), torch.zeros(6, 1).long()
    )
    flat = [(s.with_content(s.image, text), span) for s, v in zip(samples, versions, strict=True) for text, span in v]
    batch = lvlm.encode([s for s, _ in flat], triggers=[span for _, span in flat])
    starts = torch.tensor(cuts)[of, None]
    with torch.no_grad():
        whole = lvlm.forward(batch, range(family.layers), starts)
    assert torch.allclose(found.losses, whole.losses, atol=1e-4)
    for layer in range(family.layers):
        for i, cut in enumerate(starts.flatten().tolist()):
            here = found.attention[layer][i, :, 0]
            wanted = whole.attention[layer][i, :, 0, : cut + 1]
            assert torch.allclose(torch.cat([here[:, :cut], here[:, max(cuts) :][:, :1]], 1), wanted, atol=1e-4)


def test_lora_has_the_language_models_projections(family: Family, fresh: Callable[[], LVLM]) -> None:
    lvlm = fresh()
    targets = linear_modules(lvlm, lvlm.language_model)
    assert len(targets) == family.layers * family.projections
    tuned = attach_lora(lvlm, 2, 4, 0.0, targets)
    assert len(trainable(tuned)) == 2 * len(targets)
    assert all(lvlm.language_model in n and "lora_" in n for n in trainable(tuned))


def test_every_adapter_of_the_whole_model_has_a_gradient(
    family: Family, fresh: Callable[[], LVLM], samples: list[Sample]
) -> None:
    """No layer is given an adapter that the model never calls."""
    tuned = Registry().create("recipe", "lora", {"rank": 2, "modules": "all"}).prepare(fresh())
    tuned.loss(tuned.encode(samples)).backward()
    parts = (tuned.vision_tower, tuned.language_model, *([] if family.lvlm is Gemma3 else [tuned.projector]))
    for part in parts:  # a projector may be a bare matrix
        assert any(f"{part}." in name for name in trainable(tuned))
    idle = [n for n, p in trainable(tuned).items() if "lora_B" in n and (p.grad is None or not p.grad.abs().sum())]
    assert not idle, idle


def _trained_by(recipe: str, family: Family) -> tuple[str, ...]:
    adapters, projector = (f"{family.lvlm.language_model}.layers",), family.trained_by_projector
    return {
        "lora": adapters,
        "dora": adapters,
        "qlora": adapters,
        "projector": projector,
        "projector-lora": (*adapters, *projector),
        "full": ("",),
    }[recipe]


@pytest.mark.parametrize("recipe", ["lora", "dora", "qlora", "projector", "projector-lora", "full"])
def test_two_steps_of_a_recipe(
    recipe: str, family: Family, fresh: Callable[[], LVLM], samples: list[Sample], tmp_path: Path
) -> None:
    chosen = Registry().create(
        "recipe", recipe, {"epochs": 2, "batch_size": 2, "learning_rate": 3e-3, "warmup_ratio": 0}
    )
    history = fine_tune(fresh(), chosen, samples, 0, tmp_path)
    assert history.epochs[1].loss < history.epochs[0].loss
    tuned = tuned_model(fresh(), chosen, 0)
    wanted = _trained_by(recipe, family)
    assert all(any(part in n for part in wanted) for n in trainable(tuned))
    assert all(any(part in n for n in trainable(tuned)) for part in wanted)
    before = tuned.losses(tuned.encode(samples)).detach()
    load_epoch(tuned, tmp_path, 1)
    assert (tuned.losses(tuned.encode(samples)) - before).abs().max() > 1e-3


def one_round_of_mmguard(lvlm: LVLM, samples: list[Sample]) -> list[Any]:
    """The diagnostics of a protection whose release is found to be in budget."""
    quick = {"rounds": 1, "pgd_steps": 1, "candidates": 2, "batch_size": 2, "rank": 2}
    budget = Budget(image=4, text=2)
    protection = protect(samples, [lvlm], budget, Settings.model_validate(quick), 0)
    released = build_release(samples, protection.drafts, budget, lambda text: len(lvlm.tokenizer(text)["input_ids"]))
    for sample, one in zip(samples, released, strict=True):
        assert 0 < np.abs(np.asarray(one.image, int) - np.asarray(sample.image, int)).max() <= 4
        assert len(one.question.split()) == len(sample.question.split()) + 2
    return list(protection.diagnostics)


def test_one_round_of_mmguard(lvlm: LVLM, samples: list[Sample]) -> None:
    for diagnosis in one_round_of_mmguard(lvlm, samples):  # Theorem 5.1 is exact for the trigger
        shift = diagnosis["surrogates"][0]["trigger"]
        assert shift["measured"] >= shift["bound"] - 1e-6


def test_all_of_it_in_bfloat16(
    name: str,
    family: Family,
    lvlm: LVLM,
    random_checkpoint: Callable[[str], Path],
    samples: list[Sample],
    tmp_path: Path,
) -> None:
    """What the rows above do in float32, in the type that people load; on a GPU where there is one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rough = family.lvlm.from_pretrained(random_checkpoint(name), dtype=torch.bfloat16, device=device)
    batch = rough.encode(samples)
    assert batch.pixels["pixel_values"].dtype == torch.bfloat16 and rough.device.type == device
    images = [x.requires_grad_() for x in images_of(samples, device)]
    losses = rough.losses(rough.with_images(batch, images))
    assert torch.allclose(losses.cpu(), lvlm.losses(lvlm.encode(samples)), rtol=0.1)
    for gradient in torch.autograd.grad(losses.sum(), images):
        assert gradient.isfinite().all() and gradient.abs().sum() > 0
    rows = batch.positions(Role.ANSWER).int().argmax(1, keepdim=True)
    for weights in rough.attention(batch, range(family.layers), rows).values():
        assert torch.allclose(weights.sum(-1).float(), torch.ones((), device=device), atol=0.02)
    exact, found = (m.generate(samples, max_new_tokens=1) for m in (lvlm, rough))
    assert sum(a == b for a, b in zip(exact, found, strict=True)) >= 2  # near ties fall otherwise
    one_round_of_mmguard(rough, samples)
    lora = Registry().create("recipe", "lora", {"epochs": 2, "batch_size": 2, "learning_rate": 3e-3, "warmup_ratio": 0})
    history = fine_tune(rough, lora, samples, 0, tmp_path)
    assert history.epochs[1].loss < history.epochs[0].loss


@pytest.mark.parametrize("which", FAMILIES)
def test_random_checkpoints_follow_their_seed(
    which: str, random_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    for seed in (0, 1):
        random_checkpoints.write(which, tmp_path / str(seed), seed)
    first = (random_checkpoint(which) / "model.safetensors").read_bytes()
    assert (tmp_path / "0" / "model.safetensors").read_bytes() == first
    assert (tmp_path / "1" / "model.safetensors").read_bytes() != first
