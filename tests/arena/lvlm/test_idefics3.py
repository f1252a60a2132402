"""What is Idefics3's and SmolVLM's own: the text around tiles, the whole picture besides them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from families import FAMILIES, token_change
from transformers import Idefics3Processor
from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string

from arena.lvlm import pixels
from arena.lvlm.base import LVLM
from arena.lvlm.batch import Role
from arena.lvlm.families.idefics3.model import longest_edge, whole_tiles
from arena.lvlm.zoo import random_checkpoints

SIZES = [(48, 48), (60, 150), (120, 50), (7, 90), (500, 333), (1, 30)]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., LVLM]:
    folders: dict[str, Path] = {}

    def of(name: str, **options: Any) -> LVLM:
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(name)
            random_checkpoints.write(name, folders[name])
        return FAMILIES[name].lvlm.from_pretrained(folders[name], **options)

    return of


def theirs(lvlm: LVLM, rows: int, columns: int) -> str:
    """What transformers' processor of the family writes for a picture."""
    tokens = lvlm.model.model.image_seq_len
    if lvlm.family == "smolvlm":
        return get_image_prompt_string(rows, columns, tokens, "<fake_token_around_image>", "<image>", "<global-img>")
    writer: Any = SimpleNamespace(
        fake_image_token="<fake_token_around_image>",
        image_token="<image>",
        global_image_tag="<global-img>",
        image_seq_len=tokens,
    )
    return Idefics3Processor.replace_image_token(writer, {"rows": [[rows]], "cols": [[columns]]}, 0)


@pytest.mark.parametrize("name", ["idefics3", "smolvlm"])
@pytest.mark.parametrize("cut", [True, False])
def test_the_text_of_a_picture_is_transformers_own(name: str, cut: bool, load: Callable[..., LVLM]) -> None:
    lvlm = load(name)
    lvlm.processor.do_image_splitting = cut
    for height, width in SIZES:
        output = lvlm.processor(torch.zeros(3, height, width).byte().numpy(), return_row_col_info=True)
        rows, columns = output["rows"][0][0], output["cols"][0][0]
        assert lvlm.image_text(height, width) == theirs(lvlm, rows, columns)
        assert (rows > 0) == cut


@pytest.mark.parametrize("name", ["idefics3", "smolvlm"])
def test_a_prompt_begins_once_and_marks_are_template(name: str, load: Callable[..., LVLM]) -> None:
    lvlm = load(name)
    encoded = lvlm.encode_text((48, 48), "what?", "red")
    assert encoded.ids[0] == lvlm.tokenizer.bos_token_id and encoded.ids.count(encoded.ids[0]) == 1
    kept = [i for i, role in zip(encoded.ids, encoded.roles, strict=True) if role == Role.TEMPLATE]
    text = lvlm.tokenizer.decode(kept)
    assert text.startswith(f"{lvlm.tokenizer.bos_token}User:<fake_token_around_image><row_1_col_1>")
    assert text.endswith("<global-img><fake_token_around_image><end_of_utterance>\nAssistant:")
    assert lvlm.image_token_id not in kept


def test_the_whole_picture_is_seen_where_a_tile_changes(load: Callable[..., LVLM]) -> None:
    lvlm = load("idefics3")
    clean = torch.rand(3, 96, 96, generator=torch.Generator().manual_seed(0))
    changed = clean.clone()
    changed[:, 64:, :32] = 1 - changed[:, 64:, :32]
    (rho,) = token_change(lvlm, [clean], [changed])
    tiles, whole = rho[:36].view(9, 4), rho[36:]
    assert tiles.sum(1).nonzero().flatten().tolist() == [6]
    assert whole.argmax() == 2
    difference = pixels.to_bytes(changed[:, 64:, :32]) - pixels.to_bytes(clean[:, 64:, :32])
    assert tiles[6].mean() == pytest.approx(difference.abs().mean().item(), rel=1e-4)


def test_pictures_of_extreme_sizes_have_a_layout() -> None:
    assert longest_edge(1, 30_000, 2048) == (1, 2048)
    assert longest_edge(100, 100, 5000) == (4096, 4096)
    assert whole_tiles(1, 2048, 512) == (512, 2048)
