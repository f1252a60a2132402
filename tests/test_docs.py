"""The examples in README.md and arena/PLUGINS.md do what they say."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from small_samples import picture
from tiny_models import tiny_random_llava

import arena
from arena.budget import MODES, Budget
from arena.data.colours import colours
from arena.data.sample import Sample
from arena.plugins.base import DefenderWorld, Defense, Effort
from arena.release import build_release

ROOT = Path(__file__).parents[1]
README, PLUGINS = ROOT / "README.md", ROOT / "arena" / "PLUGINS.md"


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL)


def classes(number: int) -> dict[str, Any]:
    """What the Python example of that number in PLUGINS.md defines."""
    names: dict[str, Any] = {"__name__": "my_defense"}
    exec(compile(blocks(PLUGINS, "python")[number], f"{PLUGINS.name}, example {number}", "exec"), names)
    return names


def samples() -> list[Sample]:
    rng = np.random.default_rng(0)
    return [Sample(mode, picture(rng, (13, 9), mode), "which clan?", "fox") for mode in MODES]


def defense(number: int, name: str, **config: object) -> Defense:
    made = classes(number)[name]
    return made(made.Config(**config))


def test_every_example_is_tested() -> None:
    assert [len(blocks(PLUGINS, language)) for language in ("toml", "python", "yaml")] == [1, 3, 1]
    assert [len(blocks(README, language)) for language in ("python", "yaml")] == [1, 0]


@pytest.mark.parametrize("budget", [Budget(image=8), Budget(image=7.6), Budget(norm="l2", image=3)], ids=str)
def test_the_checkerboard_keeps_its_budget_in_every_mode(budget: Budget) -> None:
    before = samples()
    board = defense(0, "Checkerboard", period=3)
    after = build_release(before, board.protect(before, DefenderWorld(budget)), budget)
    assert [s.image.mode for s in after] == list(MODES)
    for one, other in zip(before, after, strict=True):
        delta = colours(other.image).astype(int) - colours(one.image)
        assert np.abs(delta).max() == int(budget.image)
        signs = np.sign(delta)[:6, :6].sum((0, 1))  # of four tiles two go up and two down, but for what was clipped
        assert np.abs(signs).max() < 9 and len(np.unique(np.sign(delta))) > 1


def test_the_example_of_estimates_and_marks() -> None:
    patient = defense(2, "Patient", rounds=2, device="cuda:7")
    before, told = samples(), list[float]()
    world = DefenderWorld(
        Budget(), surrogates=lambda: (tiny_random_llava(),), progress=lambda done, _: told.append(done)
    )
    after = build_release(before, patient.protect(before, world), Budget(image=0, text=0))
    assert [s.image.tobytes() for s in after] == [s.image.tobytes() for s in before] and told == [0.5, 1.0]
    assert patient.effort(4, Budget()) == Effort(forwards=2)
    assert patient.config.identity() == {"rounds": 2} and type(patient.config).small() == {"rounds": 1}


def test_the_claim_of_the_guide_holds_for_what_it_says_and_for_nothing_else() -> None:
    names: dict[str, Any] = {"np": np}
    exec(compile(blocks(PLUGINS, "python")[1], f"{PLUGINS.name}, example 1", "exec"), names)
    before = [Sample(str(i), Image.new("RGB", (4, 4), (90 + i,) * 3), "which clan?", "ab"[i % 2]) for i in range(4)]
    pixels = [np.asarray(s.image).astype(int) for s in before]
    rng = np.random.default_rng(0)
    shared = {answer: rng.integers(-8, 9, (4, 4, 3)) for answer in "ab"}
    moved = [shared[s.answer] for s in before]
    for noise, holds in ((moved, True), (list(rng.integers(-8, 9, (4, 4, 4, 3))), False)):
        after = [
            s.with_content(Image.fromarray((x + d).astype(np.uint8)), s.question)
            for s, x, d in zip(before, pixels, noise, strict=True)
        ]
        assert (names["distinguished"](None, before, after, None) is None) == holds


def test_the_suite_of_the_guide_is_one() -> None:
    (text,) = blocks(PLUGINS, "yaml")
    whole = {"id": "mine", "models": ["tiny-llava"], "datasets": [{"id": "glyphs", "train": 8, "test": 4}]}
    suite = arena.Suite.model_validate({**whole, "recipes": ["lora"], "attacks": ["none"], **yaml.safe_load(text)})
    assert [use.id for use in suite.defenses] == ["none", "random", "checkerboard"]
    assert defense(0, "Checkerboard", **suite.defenses[2].config).config.model_dump() == {"period": 4}


def test_the_example_of_the_readme_prints_a_ranking(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its suite takes minutes, so that its records are taken as they are."""
    arguments = inspect.signature(arena.run)

    def run(*given: Any, **named: Any) -> SimpleNamespace:
        (suite,) = arguments.bind(*given, **named).arguments.values()
        return SimpleNamespace(records=arena.read_records(ROOT / "leaderboards" / "records" / "v1" / f"{suite}.jsonl"))

    monkeypatch.setattr(arena, "run", run)
    (code,) = blocks(README, "python")
    exec(compile(code, README.name, "exec"), {"__name__": "__main__"})
    shown = capsys.readouterr().out
    assert "tiny-llava" in shown and "rows x" in shown
