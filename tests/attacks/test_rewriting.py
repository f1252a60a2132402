"""Paraphrase and back-translation with untrained Marian models: what stays, how long it gets, what is refused."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import MarianConfig, MarianMTModel, PreTrainedTokenizerFast

from arena.data.embedded.glyphs import QUESTIONS
from arena.data.sample import Sample
from arena.errors import ArenaError, UsageError
from arena.plugins.base import AttackerWorld
from arena.plugins.registry import Registry
from attacks.text.seq2seq import Decoding, Seq2Seq, rewrite_questions

WORDS = sorted({word.strip("?.,") for question in QUESTIONS for word in question.split()})


def write_marian(folder: Path, seed: int) -> str:
    """An untrained Marian model whose tokenizer knows the words of the glyphs' questions and no punctuation."""
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    ids = {token: i for i, token in enumerate([*special.values(), *WORDS])}
    words = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=64, **special).save_pretrained(folder)
    torch.manual_seed(seed)
    config = MarianConfig(
        vocab_size=len(ids),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        init_std=1.0,
        max_position_embeddings=64,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
        forced_eos_token_id=None,
    )
    MarianMTModel(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Two models that say different things."""
    forth, back = (write_marian(tmp_path_factory.mktemp(name), seed) for name, seed in (("forth", 1), ("back", 2)))
    return forth, back


def rewritten(id: str, questions: list[str], **config: object) -> list[str]:
    samples = [Sample(str(i), Image.new("L", (1, 1)), question, "fox") for i, question in enumerate(questions)]
    return [s.question for s in Registry().create("attack", id, config).purify(samples, AttackerWorld())]


def test_questions_are_rewritten_the_same_way_each_time(pair: tuple[str, str]) -> None:
    after = rewritten("paraphrase", list(QUESTIONS), checkpoint=pair[0])
    assert len(set(after)) > 4 and not set(after) & set(QUESTIONS)
    assert after == rewritten("paraphrase", list(QUESTIONS), checkpoint=pair[0])
    assert after != rewritten("paraphrase", list(QUESTIONS), checkpoint=pair[1])
    assert after != rewritten("paraphrase", list(QUESTIONS), checkpoint=pair[0], prefix="clan ")


def test_back_translation_goes_forth_and_then_back(pair: tuple[str, str]) -> None:
    after = rewritten("back-translate", list(QUESTIONS), forth=pair[0], back=pair[1])
    forth, back = (Seq2Seq(checkpoint, Decoding()) for checkpoint in pair)
    plain = back.rewrite(forth.rewrite(QUESTIONS))
    assert [text.rstrip("?") for text in after] == plain != forth.rewrite(back.rewrite(QUESTIONS))
    assert after != rewritten("back-translate", list(QUESTIONS), forth=pair[1], back=pair[0])


def test_question_marks_and_options_stay(pair: tuple[str, str]) -> None:
    questions = [
        "which clan is this?",
        "name the clan of this picture.",
        "which clan is this? name belong marks",
        "which clan is this?\n(A) fox\n(B) owl\nname the clan.",
    ]
    after = rewritten("paraphrase", questions, checkpoint=pair[0])
    assert [text.endswith("?") for text in after] == [True, False, True, False]
    asked, options, rest = (after[3].partition("\n(A) fox\n(B) owl\n")[i] for i in range(3))
    assert asked == after[0] and options and rest == rewritten("paraphrase", ["name the clan."], checkpoint=pair[0])[0]


def test_a_question_does_not_depend_on_its_company(pair: tuple[str, str]) -> None:
    together = rewritten("paraphrase", list(QUESTIONS), checkpoint=pair[0], batch_size=8)
    alone = [rewritten("paraphrase", [question], checkpoint=pair[0])[0] for question in QUESTIONS[:3]]
    assert together[:3] == alone
    assert together == rewritten("paraphrase", list(QUESTIONS), checkpoint=pair[0], batch_size=1)


def test_length_and_repetition_are_limited(pair: tuple[str, str]) -> None:
    def lengths(ratio: float) -> list[int]:
        decoding = Decoding(length_ratio=ratio, no_repeat_ngram=0)
        return [len(text.split()) for text in Seq2Seq(pair[0], decoding).rewrite(QUESTIONS)]

    tokens = [
        len(question.replace(".", " .").replace("?", " ?").replace(",", " ,").split()) + 1 for question in QUESTIONS
    ]
    for ratio in (1.0, 3.0):
        assert all(length <= ratio * limit for length, limit in zip(lengths(ratio), tokens, strict=True))
    assert sum(lengths(3.0)) > sum(lengths(1.0))
    for text in Seq2Seq(pair[0], Decoding(no_repeat_ngram=1, length_ratio=3)).rewrite(QUESTIONS):
        assert len(set(text.split())) == len(text.split())


def test_empty_rewritings_leave_the_text() -> None:
    samples = [
        Sample("a", Image.new("L", (1, 1)), " which clan is this? \nA. fox\nB. owl", "A", choices=("fox", "owl"))
    ]
    assert list(rewrite_questions(samples, lambda texts: [""] * len(texts))) == samples
    (after,) = rewrite_questions(samples, lambda texts: [text.upper().rstrip("?") + " ." for text in texts])
    assert after.question == " WHICH CLAN IS THIS? \nA. fox\nB. owl"


def test_texts_beyond_the_model_are_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(ArenaError, match="takes at most 64 tokens, and this text has 101"):
        rewritten("paraphrase", ["clan " * 100], checkpoint=pair[0])


def test_models_that_cannot_be_loaded_are_named_with_a_remedy(pair: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(ArenaError, match=r"Seq2SeqLM model '.*nowhere' cannot be loaded.*Give a folder, or a hub id"):
        rewritten("back-translate", ["which clan?"], forth=pair[0], back=str(tmp_path / "nowhere"))
    with pytest.raises(ArenaError, match="another kind of model, without"):
        rewritten("onion", ["which clan?"], language_model=pair[0])
    with pytest.raises(UsageError, match="checkpoint"):
        Registry().create("attack", "paraphrase", {"checkpoint": ""})


def test_a_tokenizer_that_needs_another_package_says_so(pair: tuple[str, str], tmp_path: Path) -> None:
    if find_spec("sentencepiece") is not None:
        pytest.skip("SentencePiece is installed")
    for name in ("config.json", "model.safetensors", "generation_config.json"):
        (tmp_path / name).write_bytes((Path(pair[0]) / name).read_bytes())
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "MarianTokenizer"}', encoding="utf-8")
    for name in ("source.spm", "target.spm", "vocab.json"):
        (tmp_path / name).write_text("{}", encoding="utf-8")
    with pytest.raises(ArenaError, match=r"is not installed: .*mmguard-arena\[translation\].*SentencePiece"):
        rewritten("paraphrase", ["which clan?"], checkpoint=str(tmp_path))
