"""The shipped paraphraser does what its card says; its phrasebook holds together; its training resumes."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from arena.data.embedded import digits, glyphs
from arena.data.sample import Sample
from arena.plugins.base import AttackerWorld
from arena.plugins.registry import Registry
from attacks.text.paraphrase import SHIPPED
from attacks.text.seq2seq import Decoding, Rewriting, Seq2Seq
from attacks.text.zoo import train_paraphraser
from attacks.text.zoo.lesson import Lesson
from attacks.text.zoo.model import Spec
from attacks.text.zoo.pack import HELD_OUT, held_out_numbers, meaning, save
from attacks.text.zoo.phrasebook import FAMILIES, OWN, SYNONYMS, fields, held_out
from attacks.text.zoo.train_paraphraser import Training

CARD = (SHIPPED / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def rewrite() -> Rewriting:
    return Seq2Seq(str(SHIPPED), Decoding()).rewrite


def paraphrased(questions: list[str], **config: object) -> list[str]:
    samples = [Sample(str(i), Image.new("L", (1, 1)), question, "fox") for i, question in enumerate(questions)]
    attack = Registry().create("attack", "paraphrase", config)
    return [s.question for s in attack.purify(samples, AttackerWorld())]


def test_the_default_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a network is reached for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    questions = [*glyphs.QUESTIONS, *digits.QUESTIONS]
    after = paraphrased(questions)
    assert all(a != q and a[-1] == q[-1] for a, q in zip(after, questions, strict=True))
    assert len(set(after)) > len(after) / 2


def test_the_checkpoint_is_small_and_counts_in_the_key(tmp_path: Path) -> None:
    assert sum(f.stat().st_size for f in SHIPPED.iterdir()) <= 4 * 2**20

    def fingerprint(checkpoint: object) -> str:
        return Registry().create("attack", "paraphrase", {"checkpoint": str(checkpoint)}).fingerprint()

    changed = shutil.copytree(SHIPPED, tmp_path / "changed")
    (changed / "config.json").write_text("{}", encoding="utf-8")
    assert fingerprint("embedded") == fingerprint(SHIPPED) != fingerprint(changed)


def test_questions_are_rewritten_the_same_way_in_any_company() -> None:
    questions = [a.text for a in Lesson(unseen=True).arrivals(np.random.default_rng(3), 24)]
    together = paraphrased(questions)
    assert together == paraphrased(questions, batch_size=1)
    assert together[-3:] == paraphrased(questions[-3:])


@pytest.mark.parametrize(
    ("question", "rest"),
    [
        ("which clan is this?\nA. fox\nB. owl", "\nA. fox\nB. owl"),
        ("fox table which clan drew this picture? (A) deer (B) hawk", " (A) deer (B) hawk"),
        ("what colour is the star? Options: A. Red B. Blue", " Options: A. Red B. Blue"),
    ],
)
def test_question_marks_and_options_stay(question: str, rest: str) -> None:
    (after,) = paraphrased([question])
    assert after.endswith(f"?{rest}") and after != question and "table" not in after


@pytest.mark.parametrize(
    "question", ["naïve café — 東京?", "WHICH CLAN IS THIS?", '"which clan is this"', "?", "zzqx 123 %%", "a" * 300]
)
def test_nothing_that_may_be_asked_breaks_it(question: str) -> None:
    (after,) = paraphrased([question])
    assert after.strip() and "<unk>" not in after


def test_words_it_does_not_know_can_be_said(rewrite: Rewriting) -> None:
    tokenizer = Seq2Seq(str(SHIPPED), Decoding()).tokenizer
    text = "naïve café — 東京, zzqx?"
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True).strip() == text
    assert rewrite(["Where is the SQUARE?"]) == rewrite(["where is the square?"])


def test_the_card_says_what_it_does(rewrite: Rewriting) -> None:
    """On fewer questions, within four standard errors of a share and the card's rounding."""
    count = 24
    found = held_out_numbers(rewrite, count)
    for name, pair in found.items():
        lines = [line for line in CARD.splitlines() if line.startswith(f"| {name} |")]
        for line, n in zip(lines, pair, strict=True):
            stated = [float(cell) for cell in line.split("|")[3:-1] if cell.strip()]
            measured = [value for value in (n.exact, n.equivalent, n.different, n.gone) if not np.isnan(value)]
            for a, b in zip(stated, measured, strict=True):
                assert abs(a - b) <= 4 * np.sqrt(max(a * (1 - a), 0.01) / count) + 0.001, line
    plain, foreign = found["asked by glyphs and digits, word for word"]
    assert plain.equivalent == plain.different == 1
    assert foreign.equivalent > 0.9 and foreign.gone > 0.95


def test_tiny_llava_answers_as_before(rewrite: Rewriting) -> None:
    accuracy = meaning(rewrite, per_kind=40)
    before, after = (np.mean([pair[i] for pair in accuracy.values()]) for i in range(2))
    assert after > before - 0.03
    stated = {
        kind: tuple(map(float, line.split("|")[2:4]))
        for kind in accuracy
        for line in CARD.splitlines()
        if line.startswith(f"| {kind} |")
    }
    assert stated.keys() == accuracy.keys()
    assert all(after > before - 0.03 for before, after in stated.values())
    assert f"{HELD_OUT} questions about scenes" in CARD


def test_the_phrasebook_holds_together() -> None:
    for family, _ in FAMILIES:
        for ring in family.rings:
            assert len({p[-1] for p in ring}) == 1 < len(ring)
        for phrasing in family.phrasings:
            first, last = ({n: w[i] for n in fields(phrasing) if (w := SYNONYMS.get(n))} for i in (0, -1))
            for synonyms in (first, last):
                said, chosen = family.rewrite(phrasing, synonyms)
                slots = {name: (words or ("cat",))[0] for name, words in family.slots.items()}
                assert said[-1] == phrasing[-1]
                assert said.format(**slots, **chosen) in set(family.surfaces(slots))
                assert said.format(**slots, **chosen) != phrasing.format(**slots, **synonyms)


def test_what_the_datasets_ask_is_in_the_phrasebook() -> None:
    known = {
        q
        for family, _ in FAMILIES
        if all(family.slots.values())
        for q in family.surfaces({name: words[0] for name, words in family.slots.items()})
    }
    assert known >= OWN


def test_training_sees_nothing_that_is_held_out() -> None:
    for arrival in Lesson().arrivals(np.random.default_rng(1), 300):
        assert not arrival.pair.held_out and not any(map(held_out, arrival.inserted))
        assert all(word in arrival.text and word not in arrival.pair.rewriting for word in arrival.inserted)
    for arrival in Lesson(unseen=True).arrivals(np.random.default_rng(1), 20, 1.0, lambda pair: pair.held_out):
        assert arrival.pair.held_out and all(map(held_out, arrival.inserted))


SPEC = Spec(
    vocab_size=600,
    sizes={"d_model": 16, "d_kv": 8, "d_ff": 16, "num_heads": 2, "num_layers": 1, "num_decoder_layers": 1},
    steps=6,
    batch_size=8,
)


def test_a_killed_training_goes_on_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_paraphraser, "CHECKPOINT_EVERY", 2)

    class Killed(Exception):
        pass

    def die(line: str) -> None:
        if "4/6" in line:
            raise Killed

    whole = Training(SPEC, tmp_path / "whole", lambda _: None)
    whole.run()
    with pytest.raises(Killed):
        Training(SPEC, tmp_path / "killed", die).run()
    again = Training(SPEC, tmp_path / "killed", lambda _: None)
    again.run()
    expected = whole.model.state_dict()
    assert expected.keys() == again.model.state_dict().keys()
    assert all(torch.equal(v, expected[k]) for k, v in again.model.state_dict().items())
    rewriting = save(whole, tmp_path / "packed")
    assert len(rewriting(["which clan is this?"])) == 1
    untrained = SPEC.build(whole.tokenizer).state_dict()
    assert not torch.equal(untrained["shared.weight"], expected["shared.weight"])
