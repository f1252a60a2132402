"""What Llama-3.2-Vision has that other families have not: pictures that enter by cross-attention, in tiles."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from families import TILE, all_tiles, token_change, tokens_and_keys
from PIL import Image
from skimage import data as photographs
from tokenizers import processors
from transformers import MllamaProcessor

from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.lvlm.batch import Role
from arena.lvlm.families.mllama.cross_attention import Layout
from arena.lvlm.families.mllama.model import Mllama
from arena.lvlm.zoo import random_checkpoints


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llama-3.2-vision")
    random_checkpoints.write("llama-3.2-vision", path)
    return path


@pytest.fixture(scope="module")
def lvlm(folder: Path) -> Mllama:
    return Mllama.from_pretrained(folder)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """Pictures of one, three and four tiles."""
    source = Image.fromarray(photographs.coffee())
    sizes = [(48, 48), (40, 130), (200, 190)]
    return [Sample(f"s{i}", source.resize((w, h)), "what is it?", "red") for i, (h, w) in enumerate(sizes)]


def test_prompt_and_pictures_are_the_processors(lvlm: Mllama, samples: list[Sample]) -> None:
    processor = MllamaProcessor(lvlm.processor, lvlm.tokenizer)
    head, between, after = lvlm.template(samples[0].question)
    texts = [f"{head}<|image|>{between}{s.question}{after}" for s in samples]
    texts = [f"<|begin_of_text|>{text}" for text in texts]
    output = processor(images=[[s.image] for s in samples], text=texts, add_special_tokens=False)
    mine = all_tiles(lvlm, lvlm.encode(samples).pixels)
    for i, sample in enumerate(samples):
        prompt = lvlm.encode_text((sample.image.height, sample.image.width), sample.question, None)
        tokens, keys = tokens_and_keys(lvlm, torch.tensor(prompt.ids))
        assert [prompt.ids[t] for t in tokens] == output["input_ids"][i]
        assert len(keys) == TILE * sum(output["aspect_ratio_mask"][i][0])
        assert mine["aspect_ratio_ids"][i].tolist() == list(output["aspect_ratio_ids"][i])
        assert mine["aspect_ratio_mask"][i].tolist() == [list(row) for row in output["aspect_ratio_mask"][i]]


def test_a_prompt_begins_once_whoever_writes_the_token(lvlm: Mllama, folder: Path) -> None:
    """Copies of the checkpoint differ in whether their tokenizer begins a text by itself."""
    other = Mllama.from_pretrained(folder)
    other.tokenizer.backend_tokenizer.post_processor = processors.Sequence([])
    assert other.tokenizer("what")["input_ids"] == lvlm.tokenizer("what")["input_ids"][1:]
    mine, theirs = (m.encode_text((48, 48), "what is it?", "red") for m in (lvlm, other))
    assert mine == theirs
    assert mine.ids[0] == lvlm.tokenizer.bos_token_id and mine.ids.count(mine.ids[0]) == 1


def test_class_tokens_are_template(lvlm: Mllama, samples: list[Sample]) -> None:
    for sample, tiles in zip(samples, (1, 3, 4), strict=True):
        encoding = lvlm.encode_text((sample.image.height, sample.image.width), sample.question, "red")
        _, keys = tokens_and_keys(lvlm, torch.tensor(encoding.ids))
        roles = torch.tensor(encoding.roles)[keys].view(tiles, TILE)
        assert (roles[:, 0] == Role.TEMPLATE).all() and (roles[:, 1:] == Role.IMAGE).all()


def test_half_of_a_row_is_on_the_picture(lvlm: Mllama, samples: list[Sample]) -> None:
    batch = lvlm.encode(samples)
    rows = batch.positions(Role.ANSWER).int().argmax(1, keepdim=True)
    for weights in lvlm.attention(batch, range(2), rows).values():
        for i, ids in enumerate(batch.input_ids):
            _, keys = tokens_and_keys(lvlm, ids)
            assert torch.allclose(weights[i, :, 0, keys].sum(1), torch.tensor(0.5), atol=1e-5)


def test_the_picture_is_seen(lvlm: Mllama, samples: list[Sample]) -> None:
    batch = lvlm.encode(samples)
    other = lvlm.with_images(batch, [1 - x for x in batch.images])
    assert (lvlm.losses(other) - lvlm.losses(batch)).abs().min() > 1e-3


def test_change_is_found_in_its_tile(lvlm: Mllama) -> None:
    """A picture of 96 x 96 pixels is four tiles, none resized."""
    clean = torch.full((3, 96, 96), 0.5)
    changed = clean.clone()
    changed[:, 56:64, 16:24] = 0.75  # in the third tile, row 1 and column 2 of its 6 x 6 patches
    (rho,) = token_change(lvlm, [clean], [changed])
    assert rho.shape == (4 * 36,) and rho.nonzero().flatten().tolist() == [2 * 36 + 6 + 2]
    assert rho.max().item() == pytest.approx(63 / 255, rel=1e-4)


def test_embeddings_are_those_of_places(lvlm: Mllama, samples: list[Sample]) -> None:
    """The gradient of a question's embeddings is found where its roles say the question stands."""
    batch = lvlm.encode(samples)
    out = lvlm.forward(batch, embeddings=True)
    assert out.embeddings is not None and out.embeddings.shape[:2] == batch.input_ids.shape
    (gradient,) = torch.autograd.grad(out.losses.sum(), out.embeddings)
    reached = gradient.abs().sum(2) > 0
    assert (reached[batch.positions(Role.TEXT)]).all()
    assert not reached[batch.positions(Role.IMAGE) | batch.positions(Role.PADDING)].any()


def test_places_and_tokens_are_inverse() -> None:
    ids = torch.tensor([[5, 9, 9, 9, 6, 7, 0], [5, 6, 9, 9, 7, 8, 4]])
    layout = Layout.of(ids, 9)
    assert layout.start.tolist() == [[1], [2]] and layout.count.tolist() == [[2], [1]]
    assert layout.token(torch.arange(7).expand(2, 7)).tolist() == [[0, 1, 1, 1, 2, 3, 4], [0, 1, 2, 2, 3, 4, 5]]
    assert layout.place(torch.arange(5).expand(2, 5)).tolist() == [[0, 1, 4, 5, 6], [0, 1, 2, 4, 5]]
    keys = layout.keys(7, 6, 2)  # 6 tokens, 2 of an ending, then the picture's keys
    assert keys.tolist() == [[0, 1, 8, 9, 2, 3, 4, 6, 7], [0, 1, 2, 8, 3, 4, 5, 6, 7]]


def test_attention_of_more_layers_than_there_are_says_so(lvlm: Mllama, samples: list[Sample]) -> None:
    batch = lvlm.encode(samples)
    with pytest.raises(ArenaError, match=r"attention of 3 layers.*has 2 layers with cross-attention"):
        lvlm.attention(batch, range(3))
    cut = copy.deepcopy(lvlm)
    cut.model.config.text_config.num_hidden_layers = 5
    with pytest.raises(ArenaError, match="layer 4 reads the picture and no layer after it"):
        cut.attention(batch, range(2))
