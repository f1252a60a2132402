"""The tiny models' tokenizer: byte-level BPE over a list of English words and the datasets' own sentences.

Every word of ``words.txt`` becomes one token with its leading space, so the vocabulary holds over a thousand real words
(the admissible trigger vocabulary of MMGuard, the answers of the datasets); anything else falls back to bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from arena.lvlm.zoo import pictures

SPECIAL = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
IMAGE = "<image>"


def words() -> list[str]:
    """The word list, lower case, sorted."""
    return (Path(__file__).parent / "words.txt").read_text(encoding="utf-8").split()


def vocabulary() -> list[str]:
    """All words that the tiny models know: the word list, and those of the pictures they are trained on; sorted."""
    return sorted({*words(), *pictures.words()})


def build_tokenizer(sentences: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train the BPE; deterministic for given sentences. Words weigh most, so that each ends up a single token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[*SPECIAL.values(), IMAGE],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    corpus = [*(f" {word}" for word in vocabulary() for _ in range(20)), *sentences]
    tokenizer.train_from_iterator(corpus, trainer)
    bos = SPECIAL["bos_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        additional_special_tokens=[AddedToken(IMAGE, normalized=False, special=True)],
        padding_side="right",
        model_max_length=512,
        **SPECIAL,
    )
