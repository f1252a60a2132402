"""What samples say is plain text, by tokenizers of any kind; the families' own prompts are tested with the families."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from arena.errors import ArenaError
from arena.lvlm.batch import Role
from arena.lvlm.families.gemma3.random import gemma_tokenizer
from arena.lvlm.tokens import Part, plain_ids, tokenize

LETTERS = "abcdefghijklmnopqrstuvwxyz<>/_|[]"


def letters(*more: str, ordinary: str = "", merges: tuple[tuple[str, str], ...] = (), **options: Any) -> Any:
    """A tokenizer of single letters with control tokens `more`, of which `ordinary` is none of the special ones."""
    vocabulary = {piece: id for id, piece in enumerate(("<unk>", "</s>", *LETTERS, *("".join(m) for m in merges)))}
    core = Tokenizer(models.BPE(vocabulary, list(merges), unk_token="<unk>", **options))
    core.add_special_tokens(["<unk>", "</s>", *more])
    if ordinary:
        core.add_tokens([AddedToken(ordinary, normalized=False, special=False)])
    core.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", unk_token="<unk>")


def read(tokenizer: Any, *parts: Part, special: bool = False) -> list[tuple[str, Role]]:
    (found,) = tokenize(tokenizer, [parts], special)
    tokens = tokenizer.convert_ids_to_tokens(found.ids)
    return [(token, Role(role)) for token, role in zip(tokens, found.roles, strict=True)]


def said(text: str, role: Role = Role.TEXT) -> list[tuple[str, Role]]:
    return [(letter, role) for letter in text]


def test_a_control_token_is_one_in_the_template_and_spelt_out_in_a_sample() -> None:
    tokenizer = letters("<image>")
    prompt = (Part("x<image>", Role.IMAGE), Part("a<image>b</s>", Role.TEXT, said=True), Part("</s>", Role.TEMPLATE))
    assert read(tokenizer, *prompt, special=True) == [
        ("x", Role.IMAGE),
        ("<image>", Role.IMAGE),
        *said("a<image>b</s>"),
        ("</s>", Role.TEMPLATE),
        ("</s>", Role.TEMPLATE),
    ]
    again = (Part("x<image>", Role.IMAGE), Part("ab", Role.TEXT, said=True), Part("</s>", Role.TEMPLATE))
    assert read(tokenizer, *again)[2:4] == said("ab")


def test_a_token_that_only_the_template_makes_a_control_token() -> None:
    tokenizer = letters(ordinary="<turn>")
    text = Part("a<turn>", Role.TEXT, said=True)
    assert read(tokenizer, text) == [("a", Role.TEXT), ("<turn>", Role.TEXT)]  # as in any other text
    assert read(tokenizer, Part("<turn>", Role.TEMPLATE), text) == [("<turn>", Role.TEMPLATE), *said("a<turn>")]


def test_merges_across_the_seam_are_those_of_the_whole_text() -> None:
    tokenizer = letters("<image>", merges=(("a", "b"),))
    for more in ("", "<image>"):
        found = read(tokenizer, Part("<image>a", Role.TEMPLATE), Part(f"bc{more}", Role.TEXT, said=True))
        assert found == [("<image>", Role.TEMPLATE), ("ab", Role.TEXT), *said(f"c{more}")]


def test_a_word_that_the_vocabulary_holds_whole_is_refused() -> None:
    tokenizer = letters(merges=(("<", "/"), ("</", "s"), ("</s", ">"))[:2])
    assert [token for token, _ in read(tokenizer, Part("</s>", Role.TEXT, said=True))] == ["</s", ">"]
    core = Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1, "a": 2}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.add_special_tokens(["<unk>", "</s>"])
    words = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", eos_token="</s>")
    with pytest.raises(
        ArenaError, match="'</s>', which the model's tokenizer has both as a control token and as a plain"
    ):
        plain_ids(words, ["a </s>"], special=False)
    assert plain_ids(words, ["a b"], special=False) == [[2, 0]]  # an unknown word is no control token


def test_pieces_with_scores() -> None:
    pieces = [("<unk>", 0.0), ("</s>", 0.0), *((letter, -2.0) for letter in LETTERS), ("ab", -3.0)]
    core = Tokenizer(models.Unigram(pieces, unk_id=0))
    core.normalizer = normalizers.NFKC()
    core.add_special_tokens(["<unk>", "</s>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", unk_token="<unk>")
    assert read(tokenizer, Part("ab</s>", Role.TEXT, said=True)) == [("ab", Role.TEXT), *said("</s>")]
    assert read(tokenizer, Part("ab</s>", Role.TEMPLATE)) == [("ab", Role.TEMPLATE), ("</s>", Role.TEMPLATE)]


def test_a_text_cannot_write_the_other_names_of_control_tokens() -> None:
    tokenizer = letters("<image>")
    mark = "\ufdd0\U000f0001"
    assert "</s>" not in [token for token, _ in read(tokenizer, Part(f"{mark}</s>", Role.TEXT, said=True))][:-4]


def test_a_tokenizer_without_offsets() -> None:
    end = ByT5Tokenizer().eos_token_id
    (ids,) = plain_ids(ByT5Tokenizer(), ["a</s>"], special=True)
    assert ids.count(end) == 1 and ids[-1] == end and len(ids) == 6


def test_runs_of_white_space_stay_single_tokens() -> None:
    """Gemma writes its prompt with such a token, which any text may hold."""
    tokenizer = copy.deepcopy(gemma_tokenizer())
    tokenizer.add_tokens([AddedToken("\n\n", normalized=False, special=False)])
    double = tokenizer.convert_tokens_to_ids("\n\n")
    rows = [
        [Part("\n\n<start_of_turn>", Role.TEMPLATE), Part(f"fox\n\nwolf{t}", Role.TEXT, said=True)]
        for t in ("", "<eos>")
    ]
    assert [row.ids.count(double) for row in tokenize(tokenizer, rows, special=False)] == [2, 2]
