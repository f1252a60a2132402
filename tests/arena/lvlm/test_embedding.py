"""Similarity of questions by a sentence embedding: what is averaged, and what is no embedding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from text_encoder import write_text_encoder
from transformers import AutoModel, AutoTokenizer

from arena.errors import ArenaError
from arena.lvlm.embedding import similarities

SHORT, LONG = "what clan ?", "which picture is shown here 1 2 3 4 5 ?"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_text_encoder(tmp_path_factory.mktemp("encoder")))


def test_it_is_the_cosine_of_the_means_of_all_tokens(encoder: str) -> None:
    model, tokenizer = AutoModel.from_pretrained(encoder).eval(), AutoTokenizer.from_pretrained(encoder)
    with torch.no_grad():
        one, other = (
            model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0) for text in (SHORT, LONG)
        )
    expected = float(torch.dot(one, other) / one.norm() / other.norm())
    (found,) = similarities([(SHORT, LONG)], encoder)
    assert found == pytest.approx(expected, abs=1e-5) and found < 0.999


def test_it_does_not_depend_on_what_is_embedded_beside_it(encoder: str) -> None:
    """Padding is masked, or the longest text of a batch would move the others."""
    (alone,) = similarities([(SHORT, "the number")], encoder)
    beside, _ = similarities([(SHORT, "the number"), (LONG, SHORT)], encoder)
    assert beside == pytest.approx(alone, abs=1e-5)


def test_equal_texts_are_the_same_and_others_are_not(encoder: str) -> None:
    same, near, far = similarities([(LONG, LONG), (LONG, LONG.replace("4", "6")), (LONG, "hm")], encoder)
    assert same == 1 and near > far and -1 <= far < 1


def test_texts_beyond_the_longest_are_cut(encoder: str) -> None:
    (found,) = similarities([("1 " * 14 + "2", "1 " * 14 + "hm hm hm")], encoder)
    assert found == pytest.approx(1, abs=1e-6)


def test_what_is_no_embedding_is_said(encoder: str, tmp_path: Path) -> None:
    with pytest.raises(ArenaError, match=r"the sentence embedding cannot be loaded.*Give a folder with a text encoder"):
        similarities([(SHORT, LONG)], str(tmp_path))
    broken = write_text_encoder(tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ArenaError, match="the sentence embedding cannot be loaded"):
        similarities([(SHORT, LONG)], str(broken))
    lacking = write_text_encoder(tmp_path / "lacking")
    AutoModel.from_pretrained(lacking)
    state = AutoModel.from_pretrained(lacking).state_dict()
    from safetensors.torch import save_file

    save_file({n: w for n, w in state.items() if "layer.1" not in n}, lacking / "model.safetensors", {"format": "pt"})
    with pytest.raises(ArenaError, match=r"another kind of model, without 'encoder\.layer\.1"):
        similarities([(SHORT, LONG)], str(lacking))
