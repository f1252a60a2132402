"""What MiniCPM-V has that other families have not: slices, and layers without attention weights."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from families import strip, token_change
from PIL import Image
from skimage import data as photographs
from transformers import AutoModelForImageTextToText, MiniCPMV4_6Processor

from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.lvlm.families.minicpmv.hybrid import Turn
from arena.lvlm.families.minicpmv.model import MiniCPMV
from arena.lvlm.zoo import random_checkpoints


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("minicpm-v")
    random_checkpoints.write("minicpm-v", path)
    return path


@pytest.fixture(scope="module")
def lvlm(folder: Path) -> MiniCPMV:
    return MiniCPMV.from_pretrained(folder)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """One picture that is not sliced, and two in grids of different shapes."""
    sizes = [(90, 100), (120, 260), (250, 150)]
    source = Image.fromarray(photographs.astronaut())
    return [Sample(f"s{i}", source.resize((w, h)), "what is it?", "red") for i, (h, w) in enumerate(sizes)]


def test_pictures_of_different_grids_go_together(folder: Path, lvlm: MiniCPMV, samples: list[Sample]) -> None:
    output = lvlm.processor([s.image for s in samples], return_tensors="pt")
    assert output["grids"] == [[0, 0], [1, 3], [3, 2]]
    batch = lvlm.encode(samples)
    mine = strip(lvlm, batch.pixels)
    assert torch.equal(mine["target_sizes"], output["target_sizes"])
    assert (mine["pixel_values"] - output["pixel_values"]).abs().max() * 255 / 2 <= 2.01
    own = AutoModelForImageTextToText.from_pretrained(folder).eval()
    theirs = own(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels, **mine).loss
    assert lvlm.loss(batch).item() == pytest.approx(theirs.item(), rel=1e-4)


@pytest.mark.parametrize("size", [(48, 48), (90, 100), (120, 260), (250, 150), (61, 700)])
def test_placeholders_are_the_processors(lvlm: MiniCPMV, size: tuple[int, int]) -> None:
    """The processor itself needs torchvision, for films; what it writes for a picture does not."""
    names = ("image", "image_start", "image_end", "slice_start", "slice_end", "image_id_start", "image_id_end")
    tokens = {f"{name}_token": getattr(lvlm.tokenizer, f"{name}_token") for name in names}
    processor = SimpleNamespace(slice_mode=True, **tokens)
    output = lvlm.processor([Image.new("RGB", (size[1], size[0]))], return_tensors="pt")
    text = MiniCPMV4_6Processor.replace_image_token(processor, output, 0, image_token_divisor=16)
    image = lvlm.tokenizer.image_token
    assert MiniCPMV4_6Processor._prepend_local_ids(processor, [image], [text], image) == [lvlm.image_text(*size)]


def test_a_change_is_found_in_the_whole_view_and_in_its_slice(lvlm: MiniCPMV) -> None:
    """A picture of 192 x 192 pixels is sliced 2 x 2 without being resized; whole, it is seen at half the size."""
    clean = torch.full((3, 192, 192), 0.5)
    changed = clean.clone()
    changed[:, 112:128, 160:176] = 0.75  # in the last slice, row 1 and column 4 of its 6 x 6 tokens
    (rho,) = token_change(lvlm, [clean], [changed])
    assert rho.shape == (5 * 36,)
    fourth = rho[4 * 36 :]
    assert fourth.nonzero().flatten().tolist() == [6 + 4]
    assert fourth.max().item() == pytest.approx(63 / 255, rel=1e-4)
    assert rho[36 : 4 * 36].count_nonzero() == 0
    assert rho[:36].argmax().item() == 3 * 6 + 5  # 56:64 x 80:88 of the halved picture


def test_attention_of_more_layers_than_have_weights_says_so(lvlm: MiniCPMV, samples: list[Sample]) -> None:
    with pytest.raises(ArenaError, match=r"attention of 3 layers.*has 2 layers with full attention"):
        lvlm.attention(lvlm.encode(samples), range(3))


def test_padding_comes_first_when_turned() -> None:
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [0, 0, 1, 1, 0]])
    turn = Turn.of(mask)
    assert mask.gather(1, turn.taken).tolist() == [[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [0, 0, 0, 1, 1]]
    assert torch.equal(mask.gather(1, turn.taken).gather(1, turn.given), mask)
