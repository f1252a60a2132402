"""ONION: planted words go and clean ones stay, as far as the language model knows the language."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from arena.data.embedded import scenes
from arena.data.sample import Sample
from arena.errors import ArenaError, UsageError
from arena.lvlm.base import LVLM
from arena.lvlm.zoo.tokenizer import words
from arena.plugins.base import AttackerWorld
from arena.plugins.registry import Registry
from attacks.text.onion import Onion, join, split, suspicion
from attacks.text.perplexity import Reader

PICTURE = Image.new("L", (1, 1))


def scene_questions(seed: int, count: int) -> list[str]:
    """Distinct questions of the kind that tiny-llava was trained on."""
    rng, found = np.random.default_rng(seed), dict[str, None]()
    while len(found) < count:
        scene = scenes.random_scene(rng)
        asked = (scenes.ask(scene, kind, rng) for kind in scenes.QUESTIONS)
        found |= {qa[0]: None for qa in asked if qa is not None}
    return list(found)[:count]


def plant(question: str, rng: np.random.Generator) -> tuple[str, str]:
    """The question with a word of the vocabulary, not its own, put anywhere; and that word."""
    pieces = question.split()
    word = str(rng.choice([w for w in words() if w not in question]))
    pieces.insert(int(rng.integers(len(pieces) + 1)), word)
    return " ".join(pieces), word


def samples(questions: Sequence[str], **fields: tuple[str, ...]) -> list[Sample]:
    return [Sample(str(i), PICTURE, question, "fox", **fields) for i, question in enumerate(questions)]


def purified(questions: Sequence[str], world: AttackerWorld, **config: object) -> list[str]:
    attack = Registry().create("attack", "onion", config)
    return [s.question for s in attack.purify(samples(questions), world)]


def bag(text: str) -> Counter[str]:
    return Counter(re.findall(r"\w+", text))


@pytest.fixture(scope="module")
def lvlm() -> LVLM:
    return Registry().create("model", "tiny-llava", {}).load()


@pytest.fixture(scope="module")
def world(lvlm: LVLM) -> AttackerWorld:
    return AttackerWorld(model=lambda: lvlm, auxiliary=tuple(samples(scene_questions(1, 30))))


@pytest.mark.parametrize("config", [{}, {"quantile": 0.9}], ids=["zero", "tuned"])
def test_planted_words_are_found_and_clean_questions_survive(world: AttackerWorld, config: dict[str, object]) -> None:
    clean = scene_questions(2, 40)
    rng = np.random.default_rng(0)
    planted, foreign = zip(*(plant(question, rng) for question in clean), strict=True)
    after = purified([*planted, *clean], world, **config)
    gone = [bag(before) - bag(now) for before, now in zip(planted, after, strict=False)]
    hits = sum(removed[word] for removed, word in zip(gone, foreign, strict=True))
    recall, precision = hits / len(foreign), hits / sum(map(Counter.total, gone))
    total = sum(bag(question).total() for question in clean)
    kept = sum(bag(now).total() for now in after[len(planted) :]) / total
    chance = len(foreign) / (len(foreign) + total)
    found = f"recall {recall:.2f}, precision {precision:.2f} (chance {chance:.2f}), clean words kept {kept:.2f}"
    assert recall > 0.5 and precision > 2 * chance and kept > 0.6, found


def test_a_higher_quantile_keeps_more(world: AttackerWorld) -> None:
    questions = scene_questions(2, 20)
    lengths = [len(" ".join(purified(questions, world, quantile=q))) for q in (0.0, 0.5, 1.0)]
    assert lengths[0] < lengths[1] < lengths[2]


def test_batches_give_what_single_passes_give(lvlm: LVLM) -> None:
    reader = Reader.of_lvlm(lvlm)
    texts = [*scene_questions(3, 6), "fox", "which clan drew this rather longer question about nothing much at all?"]
    together = reader.perplexities(texts)
    np.testing.assert_allclose(together, [reader.perplexities([text])[0] for text in texts], rtol=1e-4)
    scores = suspicion(reader, [split(text) for text in texts])
    for text, score in zip(texts, scores, strict=True):
        pieces = text.rstrip("?").split()
        for i, value in enumerate(score if len(pieces) > 1 else ()):
            without = [*pieces[:i], *pieces[i + 1 :]]
            mark = "?" * text.endswith("?")
            p_0, p_i = (reader.perplexities([" ".join(w) + mark])[0] for w in (pieces, without))
            assert value == pytest.approx(p_0 - p_i, rel=1e-3, abs=1e-3 * p_0)
    assert np.isnan(scores[6]).all()  # a word alone is not judged


def test_perplexity_is_that_of_the_question_in_the_template(lvlm: LVLM) -> None:
    question = "what colour is the star?"
    before, between, _ = lvlm.template(question)
    prompt = lvlm.tokenizer(before + between)["input_ids"]
    ids = torch.tensor([lvlm.tokenizer(before + between + question)["input_ids"]])
    assert ids[0, : len(prompt)].tolist() == prompt
    with torch.no_grad():
        logits = lvlm.model(input_ids=ids).logits[0]
    expected = F.cross_entropy(logits[len(prompt) - 1 : -1], ids[0, len(prompt) :]).exp()
    assert Reader.of_lvlm(lvlm).perplexities([question])[0] == pytest.approx(float(expected), rel=1e-4)


def test_a_question_never_becomes_empty_and_keeps_marks_and_options(world: AttackerWorld) -> None:
    attack = Onion(Onion.Config(threshold=-1e300))  # everything is an outlier
    options = "\nA. red\nB. blue"
    after = attack.purify(
        samples([f"is the (big) star red?{options} zebra", "star", "?", "a star?"], choices=("red", "blue")), world
    )
    first, *rest = (sample.question for sample in after)
    left, mark = re.fullmatch(rf"(.*)(\?){options}(.*)", first, re.DOTALL).group(1, 2)
    assert mark == "?" and sum(bag(first.replace(options, "")).values()) == 1 and "(" in left
    assert rest[:2] == ["star", "?"] and rest[2] in ("a?", "star?")


def test_nothing_removed_is_nothing_changed(world: AttackerWorld) -> None:
    questions = ["two  spaces, \n a line break ", "«which» clan?", "star's left-hand side (why?)"]
    assert purified(questions, world, threshold=1e300) == questions
    assert [join(split(question)) for question in questions] == [question.rstrip() for question in questions]


def test_removed_words_leave_their_marks() -> None:
    for question, place, expected in (
        ("what is this?", 2, "what is?"),
        ("what, then, is it?", 1, "what,, is it?"),
        ("the (red) star", 1, "the () star"),
        ("which clan", 0, " clan"),
    ):
        assert join(split(question), (place,)) == expected


def test_what_is_read_follows_from_the_settings(lvlm: LVLM) -> None:
    def needs(**config: object) -> frozenset[str]:
        return Registry().create("attack", "onion", config).needs

    assert needs() == {"model"}
    assert needs(quantile=0.95) == {"model", "auxiliary"}
    assert needs(language_model="somewhere/gpt") == set()
    with pytest.raises(ArenaError, match="'auxiliary'"):
        purified(["which clan is this?"], AttackerWorld(model=lambda: lvlm), quantile=0.9)


@pytest.fixture(scope="module")
def language_model(lvlm: LVLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal language model of its own, untrained."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("language-model")
    config = LlamaConfig(
        vocab_size=len(lvlm.tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        initializer_range=1.0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    lvlm.tokenizer.save_pretrained(folder)
    return folder


def test_any_causal_language_model_reads_from_the_first_word(language_model: Path) -> None:
    questions = scene_questions(2, 5)
    after = purified(questions, AttackerWorld(), language_model=str(language_model))
    assert after != questions and all(after)
    assert after == purified(questions, AttackerWorld(), language_model=str(language_model))
    reader = Reader.from_pretrained(str(language_model), "cpu")
    perplexities = reader.perplexities(["fox", "owl", "fox"])
    assert perplexities[0] == perplexities[2] != perplexities[1] and np.isfinite(perplexities).all()


def test_language_models_that_cannot_be_loaded_are_named(language_model: Path, tmp_path: Path) -> None:
    questions = ["which clan is this?"]
    with pytest.raises(ArenaError, match=r"CausalLM model '.*nowhere' cannot be loaded.*Give a folder, or a hub id"):
        purified(questions, AttackerWorld(), language_model=str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="quantile"):
        purified(questions, AttackerWorld(), quantile=1.5)
    for file in language_model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(ArenaError, match="cannot be loaded"):
        purified(questions, AttackerWorld(), language_model=str(tmp_path))


def test_auxiliary_questions_of_one_word_cannot_tune(lvlm: LVLM) -> None:
    world = AttackerWorld(model=lambda: lvlm, auxiliary=tuple(samples(["star?", "?"])))
    with pytest.raises(ArenaError, match="set `threshold` instead"):
        purified(["which clan is this?"], world, quantile=0.9)
