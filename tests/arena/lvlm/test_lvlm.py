"""An LVLM as the arena sees it: roles, loss, attention, embeddings, generation, all against transformers itself."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from families import token_change
from PIL import Image
from tiny_models import tiny_random_llava

from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.lvlm.adapters import attach_lora, detach_lora, linear_modules, trainable
from arena.lvlm.base import LVLM, images_of
from arena.lvlm.batch import IGNORE, Role
from arena.lvlm.families.llava.model import Llava


@pytest.fixture(scope="module")
def lvlm() -> LVLM:
    return tiny_random_llava()


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    rng = np.random.default_rng(0)

    def picture(height: int, width: int) -> Image.Image:
        return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))

    return [
        Sample("a", picture(48, 48), "what colour is the star? fox wolf", "red"),
        Sample("b", picture(60, 50), "how many things are there?", "twenty four"),
        Sample("c", picture(48, 48), "where is the circle?", "top left"),
    ]


def words(lvlm: LVLM, batch, row: int, role: Role) -> str:
    return lvlm.tokenizer.decode(batch.input_ids[row][batch.positions(role)[row]])


def test_roles_cover_the_sequence(lvlm: LVLM, samples: list[Sample]) -> None:
    question = samples[0].question
    span = (question.index("fox"), len(question))
    batch = lvlm.encode(samples, triggers=[span, None, None])
    assert words(lvlm, batch, 0, Role.TRIGGER) == " fox wolf"
    assert words(lvlm, batch, 0, Role.TEXT) == "what colour is the star?"
    assert words(lvlm, batch, 1, Role.ANSWER) == " twenty four</s>"
    assert (batch.positions(Role.IMAGE).sum(1) == 36).all()
    assert torch.equal(batch.labels != IGNORE, batch.positions(Role.ANSWER))
    assert torch.equal(batch.attention_mask == 0, batch.positions(Role.PADDING))


def test_tokens_are_those_of_the_whole_prompt(lvlm: LVLM, samples: list[Sample]) -> None:
    sample = samples[1]
    image = "<image>" * 36
    text = f"USER: {image}\n{sample.question} ASSISTANT: {sample.answer}</s>"
    batch = lvlm.encode([sample])
    assert batch.input_ids[0].tolist() == lvlm.tokenizer(text)["input_ids"]
    assert batch.input_ids[0, 0] == lvlm.tokenizer.bos_token_id


def test_loss_is_transformers_own(lvlm: LVLM, samples: list[Sample]) -> None:
    batch = lvlm.encode(samples)
    theirs = lvlm.model(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels, **batch.pixels
    ).loss
    assert lvlm.loss(batch).item() == pytest.approx(theirs.item(), rel=1e-5)
    alone = torch.stack([lvlm.loss(lvlm.encode([s])) for s in samples])
    assert torch.allclose(lvlm.losses(batch), alone, atol=1e-5)


def test_attention_is_transformers_own(lvlm: LVLM, samples: list[Sample]) -> None:
    batch = lvlm.encode(samples)
    rows = torch.tensor([[40, 43], [40, 45], [39, 44]])
    everything = lvlm.attention(batch, [0, 1])
    some = lvlm.attention(batch, [1], rows)
    eager = copy.deepcopy(lvlm.model)
    eager.set_attn_implementation("eager")
    theirs = eager(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, output_attentions=True, **batch.pixels
    ).attentions
    real = batch.attention_mask.bool()
    for layer in (0, 1):
        mine, reference = everything[layer].transpose(1, 2)[real], theirs[layer].transpose(1, 2)[real]
        assert torch.allclose(mine, reference, atol=1e-5)
    assert set(some) == {1}
    picked = everything[1].gather(2, rows[:, None, :, None].expand(-1, 2, -1, everything[1].shape[-1]))
    assert torch.allclose(some[1], picked, atol=1e-6)


def test_probing_leaves_no_trace(lvlm: LVLM, samples: list[Sample]) -> None:
    batch = lvlm.encode(samples)
    before = lvlm.losses(batch)
    with pytest.raises(RuntimeError):
        lvlm.attention(batch, [0], torch.full((3, 1), 10_000))
    assert torch.equal(lvlm.losses(batch), before)
    assert lvlm.module(lvlm.language_model).config._attn_implementation == "sdpa"


def test_gradient_flows_to_pictures_of_any_size(lvlm: LVLM, samples: list[Sample]) -> None:
    images = [x.requires_grad_() for x in images_of(samples)]
    batch = lvlm.with_images(lvlm.encode(samples), images)
    gradients = torch.autograd.grad(lvlm.losses(batch).sum(), images)
    assert [g.shape for g in gradients] == [x.shape for x in images]
    assert all(g.abs().sum() > 0 for g in gradients)


def test_embedding_gradient_predicts_the_loss(lvlm: LVLM, samples: list[Sample]) -> None:
    batch = lvlm.encode(samples[:1])
    out = lvlm.forward(batch, embeddings=True)
    assert out.embeddings is not None
    (gradient,) = torch.autograd.grad(out.losses.sum(), out.embeddings)
    direction = gradient / gradient.norm()
    moved = []
    for sign in (1, -1):
        hook = lvlm.model.get_input_embeddings().register_forward_hook(
            lambda module, args, output, sign=sign: output + sign * 1e-2 * direction
        )
        moved.append(lvlm.losses(batch).item())
        hook.remove()
    assert (moved[0] - moved[1]) / 2e-2 == pytest.approx(gradient.norm().item(), rel=0.02)


def test_generation_ignores_its_neighbours(lvlm: LVLM, samples: list[Sample]) -> None:
    together = lvlm.generate(samples, max_new_tokens=4)
    assert together == [lvlm.generate([s], max_new_tokens=4)[0] for s in samples]


def test_token_change_finds_the_patch(lvlm: LVLM, samples: list[Sample]) -> None:
    clean = images_of(samples[:1])
    changed = clean[0].clone()
    changed[:, 8:16, 24:32] = 1 - changed[:, 8:16, 24:32]
    rho = token_change(lvlm, clean, [changed])[0]
    assert rho.shape == (36,)
    assert rho.argmax() == 1 * 6 + 3
    assert rho.count_nonzero() == 1
    expected = (changed - clean[0])[:, 8:16, 24:32].abs().mean().item()
    assert rho.max().item() == pytest.approx(expected, rel=1e-4)


def test_perplexity_is_that_of_the_language_model(lvlm: LVLM) -> None:
    texts = ["how many circles are there?", "fox"]
    values = lvlm.perplexities(texts)
    assert values == pytest.approx([lvlm.perplexities([t])[0] for t in texts], rel=1e-4)
    assert all(v > 1 for v in values)


def test_round_trip_through_disk(lvlm: Llava, samples: list[Sample], tmp_path: Path) -> None:
    lvlm.model.save_pretrained(tmp_path)
    lvlm.tokenizer.save_pretrained(tmp_path)
    lvlm.processor.save_pretrained(tmp_path)
    again = Llava.from_pretrained(tmp_path)
    batch, reference = again.encode(samples), lvlm.encode(samples)
    assert torch.equal(batch.input_ids, reference.input_ids)
    assert torch.allclose(again.losses(batch), lvlm.losses(reference), atol=1e-6)


def test_a_folder_that_is_no_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(ArenaError, match=r"cannot be loaded as llava.*Give a folder or hub id"):
        Llava.from_pretrained(tmp_path)


def test_lora_trains_the_language_model_only_and_comes_off(samples: list[Sample]) -> None:
    lvlm = tiny_random_llava()
    batch = lvlm.encode(samples)
    before = lvlm.losses(batch).detach()
    torch.manual_seed(0)
    tuned = attach_lora(lvlm, 4, 8, 0.0, linear_modules(lvlm, lvlm.language_model))
    names = list(trainable(tuned))
    assert len(names) == 2 * 2 * 7  # A and B, two layers, seven projections
    assert all("language_model" in n and "lora" in n for n in names)
    optimizer = torch.optim.SGD(trainable(tuned).values(), lr=1.0)
    for _ in range(3):
        optimizer.zero_grad()
        tuned.loss(tuned.encode(samples)).backward()
        optimizer.step()
    assert tuned.losses(batch).mean() < before.mean()
    assert torch.allclose(detach_lora(tuned).losses(batch), before, atol=1e-6)
