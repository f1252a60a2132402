"""What is Gemma 3's own: attention both ways between image tokens, windows, the text around a picture, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from skimage import data as photographs
from transformers import Gemma3ImageProcessorPil, Gemma3Processor

from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.lvlm.base import images_of
from arena.lvlm.batch import Encoding, Role
from arena.lvlm.continuation import begin, common_length, encode_versions, finish
from arena.lvlm.families.gemma3.model import Gemma3
from arena.lvlm.families.gemma3.random import WINDOW
from arena.lvlm.zoo import random_checkpoints

LONG = "how many of the things that are near the circle and not near the star are red or blue or green? "


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gemma3")
    random_checkpoints.write("gemma3", folder)
    return folder


@pytest.fixture(scope="module")
def lvlm(folder: Path) -> Gemma3:
    return Gemma3.from_pretrained(folder)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    pictures = [Image.fromarray(photographs.astronaut()).resize(size) for size in ((48, 60), (90, 31))]
    return [Sample("short", pictures[0], "what?", "red"), Sample("long", pictures[1], 4 * LONG, "top left")]


def test_tokens_are_what_transformers_processor_makes(lvlm: Gemma3, samples: list[Sample]) -> None:
    processor = Gemma3Processor(lvlm.processor, lvlm.tokenizer, image_seq_length=36)
    for sample in samples:
        text = f"<start_of_turn>user\n<start_of_image>{sample.question}<end_of_turn>\n<start_of_turn>model\n"
        theirs = processor(text=text, images=[sample.image])
        mine = lvlm.encode_text((sample.image.height, sample.image.width), sample.question, None)
        assert mine.ids == theirs["input_ids"][0]
        assert [int(role == Role.IMAGE) for role in mine.roles] == theirs["token_type_ids"][0]
        assert mine.ids.count(lvlm.tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_image_tokens_attend_both_ways(implementation: str, lvlm: Gemma3, folder: Path, samples: list[Sample]) -> None:
    """All rows of both kinds of layer, as transformers' eager model has them."""
    model = Gemma3.from_pretrained(folder, attn_implementation=implementation)
    batch = model.encode(samples)
    found = model.attention(batch, [0, 1])
    own = type(lvlm.model).from_pretrained(folder, attn_implementation="eager").eval()
    types = (batch.input_ids == lvlm.image_token_id).int()
    tokens = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "token_type_ids": types}
    theirs = own(**tokens, **batch.pixels, output_attentions=True).attentions
    real = batch.attention_mask.bool()[:, None, :, None]
    for layer in (0, 1):
        assert torch.allclose(found[layer] * real, theirs[layer] * real, atol=1e-4)
        image = batch.positions(Role.IMAGE)[0].nonzero().flatten()
        assert (found[layer][0, :, image[0], image[-1]] > 0).all()
        assert found[layer][0, :, image[0], image[-1] + 1 :].count_nonzero() == 0
    last = int(batch.attention_mask[1].sum()) - 1
    assert found[0][1, :, last, : last - WINDOW + 1].count_nonzero() == 0
    assert found[1][1, :, last, : last - WINDOW + 1].count_nonzero() > 0


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_windows_count_tokens_and_not_gaps(implementation: str, folder: Path, samples: list[Sample]) -> None:
    """The short sequence is continued after more padding than the window has tokens, the long one has left its picture
    behind."""
    lvlm = Gemma3.from_pretrained(folder, attn_implementation=implementation)
    rows = []
    for s in samples:
        versions = [(f"{s.question} {word}", (len(s.question), len(s.question) + 4)) for word in ("fox", "cat")]
        rows.append(encode_versions(lvlm, (s.image.height, s.image.width), versions, s.answer))
    cuts = [common_length(versions) for versions in rows]
    assert cuts[1] - cuts[0] > WINDOW and cuts[1] > 2 * WINDOW
    heads = [Encoding(r[0].ids[:cut], r[0].roles[:cut]) for r, cut in zip(rows, cuts, strict=True)]
    images = images_of(samples)
    beginnings = begin(lvlm, lvlm.collate(heads, lvlm.pixel_inputs(images), images, torch.arange(2)))
    tails = [Encoding(e.ids[cut:], e.roles[cut:]) for r, cut in zip(rows, cuts, strict=True) for e in r]
    of = torch.tensor([0, 0, 1, 1])
    found = finish(lvlm, beginnings, of, lvlm.collate(tails, {}, (), of))
    doubled = [images[i] for i in of]
    whole = lvlm.collate([e for r in rows for e in r], lvlm.pixel_inputs(doubled), doubled, of)
    with torch.no_grad():
        assert torch.allclose(found.losses, lvlm.losses(whole), atol=1e-4)


def test_pan_and_scan_is_refused(lvlm: Gemma3) -> None:
    processor: Any = Gemma3ImageProcessorPil(do_pan_and_scan=True)
    with pytest.raises(ArenaError, match="set do_pan_and_scan to false"):
        Gemma3(lvlm.model, lvlm.tokenizer, processor)


def test_flash_attention_is_refused(folder: Path) -> None:
    with pytest.raises(ArenaError, match="set attention: sdpa"):
        Gemma3.from_pretrained(folder, attn_implementation="flash_attention_2")
