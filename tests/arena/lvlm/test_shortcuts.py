"""What is left out changes nothing that is asked for."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from small_samples import mixed_samples
from torch import Tensor, nn
from torch.nn import functional as F

from arena.data.sample import Sample
from arena.lvlm import shortcuts
from arena.lvlm.base import LVLM, images_of
from arena.lvlm.batch import IGNORE
from arena.lvlm.shortcuts import PatchConv2d, patches_by_products, same_pictures
from arena.plugins.registry import Registry


@pytest.fixture(scope="module", params=["tiny-llava", "tiny-llava-48", "tiny-qwen3-vl", "tiny-idefics3"])
def shipped(request: pytest.FixtureRequest) -> LVLM:
    model: LVLM = Registry().create("model", request.param, {}).load()
    model.model.requires_grad_(False)
    return model


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def passed(lvlm: LVLM, samples: list[Sample], answers_only: bool) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Losses, the logits of answer tokens and gradients to pictures."""
    images = [x.requires_grad_() for x in images_of(samples)]
    out = lvlm.forward(lvlm.with_images(lvlm.encode(samples), images), answers_only=answers_only)
    logits = out.logits if answers_only else out.logits[out.labels != IGNORE]
    return out.losses, logits, list(torch.autograd.grad(out.losses.sum(), images))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_answers_alone_say_what_they_say_among_others(shipped: LVLM, count: int) -> None:
    """To rounding: some processors sum a product of few rows in another order than one of many."""
    samples = mixed_samples(count)
    whole, answers = (passed(shipped, samples, answers_only) for answers_only in (False, True))
    for wanted, found in [whole[:2], answers[:2]], [whole[2], answers[2]]:
        for a, b in zip(wanted, found, strict=True):
            torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-5 * float(a.detach().abs().max()))


def test_the_last_layer_works_on_answers_alone(shipped: LVLM) -> None:
    """Fewer rows go through the last MLP and the output layer, and afterwards all do again."""
    samples, counts = mixed_samples(5), []
    layer = shipped.module(shipped.language_model).layers[-1].mlp.down_proj
    parts = (layer, shipped.model.get_output_embeddings())
    hooks = [part.register_forward_hook(lambda m, args, out: counts.append(out[..., 0].numel())) for part in parts]
    batch = shipped.encode(samples)
    for answers_only in (True, False):
        shipped.forward(batch, answers_only=answers_only)
    for hook in hooks:
        hook.remove()
    answers = int((batch.labels != IGNORE).sum())
    assert counts[:2] == [answers, answers]
    assert counts[2] == batch.input_ids.numel() and counts[3] > answers


@pytest.mark.parametrize(("size", "kernel", "padding"), [((48, 48), 8, 0), ((50, 37), 6, "valid")])
def test_gradient_of_patches_is_that_of_the_convolution(size: tuple[int, int], kernel: int, padding: int | str) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(3, 24, kernel, kernel, padding).requires_grad_(False)
    quick = copy.deepcopy(plain)
    patches_by_products(nn.ModuleList([quick]))
    assert type(quick) is PatchConv2d
    x = torch.rand(3, 3, *size, requires_grad=True)
    weight = torch.randn_like(plain(x))
    wanted, found = (torch.autograd.grad((conv(x) * weight).sum(), x)[0] for conv in (plain, quick))
    assert torch.equal(plain(x), quick(x))
    torch.testing.assert_close(found, wanted)


def test_patches_that_learn_have_gradients_of_their_own() -> None:
    conv = nn.Conv2d(3, 24, 8, 8)
    patches_by_products(nn.ModuleList([conv]))
    x = torch.rand(2, 3, 16, 16, requires_grad=True)
    conv(x).square().sum().backward()
    found = conv.weight.grad
    conv.weight.grad = None
    F.conv2d(x, conv.weight, conv.bias, 8).square().sum().backward()
    assert found is not None and torch.equal(found, conv.weight.grad)


def test_overlapping_patches_are_left_alone() -> None:
    tower = nn.ModuleList([nn.Conv2d(3, 4, 3, 1), nn.Conv2d(3, 4, 2, 2, padding=1), nn.Conv2d(4, 4, 2, 2, groups=2)])
    patches_by_products(tower)
    assert not any(isinstance(module, PatchConv2d) for module in tower)


def test_the_tower_sees_each_set_of_pictures_once(shipped: LVLM) -> None:
    """Other texts about the same pictures do not run it again; other pictures, or pictures with gradient, do."""
    samples = mixed_samples(4)
    others = [s.with_content(s.image, "what is it?") for s in samples]
    turned = [s.with_content(s.image.rotate(180), s.question) for s in samples]
    runs: list[int] = []
    block = next(m for m in shipped.module(shipped.vision_tower).modules() if isinstance(m, nn.LayerNorm))
    hook = block.register_forward_hook(lambda *_: runs.append(1))
    with torch.no_grad():
        wanted = [shipped.losses(shipped.encode(some)) for some in (samples, others, turned, samples)]
        alone = len(runs) // 4
        with same_pictures(shipped):
            runs.clear()
            found = [shipped.losses(shipped.encode(some)) for some in (samples, others, turned, samples)]
            assert len(runs) == 3 * alone
    with same_pictures(shipped):
        runs.clear()
        for _ in range(2):
            passed(shipped, samples, answers_only=True)
        assert len(runs) == 2 * alone
    hook.remove()
    assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))


@pytest.mark.parametrize("room", [shortcuts.MOST_KEPT, 1])
def test_the_tower_sees_batches_that_take_turns_once(shipped: LVLM, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as what it made of them may be kept."""
    monkeypatch.setattr(shortcuts, "MOST_KEPT", room)
    samples = mixed_samples(5)
    wanted = shipped.generate(samples, max_new_tokens=3, batch_size=2)
    runs: list[int] = []
    block = next(m for m in shipped.module(shipped.vision_tower).modules() if isinstance(m, nn.LayerNorm))
    hook = block.register_forward_hook(lambda *_: runs.append(1))
    with same_pictures(shipped, several=True):
        counts = []
        for _ in range(3):
            assert shipped.generate(samples, max_new_tokens=3, batch_size=2) == wanted
            counts.append(len(runs))
    hook.remove()
    assert counts[0] > 0 and counts == [counts[0] * (1 if room > 1 else n) for n in (1, 2, 3)]
