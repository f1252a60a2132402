"""What purifiers buy a protection: which cells are held against which, and what the page of protections says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from synthetic import base_model, plugin, record

from arena.errors import ArenaError
from arena.plugins.identity import identity
from arena.records.schema import Record
from leaderboards.pages.protections import ProtectionsPage
from leaderboards.site.numbers import DASH
from leaderboards.tables.adaptive import Bought, Pair, pairs

CLEAN = {"none": 0.9, "jpeg": 0.85, "grayscale": 0.9}
WITHOUT = {"none": 0.4, "jpeg": 0.8, "grayscale": 0.5}
THROUGH = {"none": 0.6, "jpeg": 0.5, "grayscale": 0.5}


def cells(
    found: Mapping[str, float],
    label: str,
    purifiers: object = None,
    seeds: int = 3,
    *,
    id: str = "em",
    rounds: int = 12,
    surrogate: str = "tiny-llava",
    image: float = 8.0,
) -> list[Record]:
    config = {"rounds": rounds, **({} if purifiers is None else {"purifiers": purifiers})}
    defense = plugin(id, label=label, surrogates=[base_model(surrogate)], config=config)

    def made(attack: str, accuracy: float, seed: int) -> Record:
        whole = {**record(accuracy, label, attack, seed, image=image).model_dump(mode="json"), "defense": defense}
        return Record.model_validate({**whole, "cell": identity(whole)})

    return [made(attack, accuracy, seed) for attack, accuracy in found.items() for seed in range(seeds)]


def clean() -> list[Record]:
    return [record(accuracy, "none", attack, seed) for attack, accuracy in CLEAN.items() for seed in range(3)]


def both(**more: Any) -> list[Record]:
    return [*clean(), *cells(WITHOUT, "em", **more), *cells(THROUGH, "em (adaptive)", ["jpeg", "crop-pad"], **more)]


def only(records: list[Record]) -> Pair:
    (pair,) = pairs(records)
    return pair


def under(pair: Pair, attack: str) -> Bought:
    (found,) = [one for one in pair.attacks if one.attack == attack]
    return found


def test_each_attack_is_held_against_the_same_without_purifiers() -> None:
    pair = only(both())
    assert (pair.without, pair.through, pair.purifiers) == ("em", "em (adaptive)", ("jpeg", "crop-pad"))
    assert {one.attack: one.expected for one in pair.attacks} == {"none": False, "jpeg": True, "grayscale": False}
    jpeg = under(pair, "jpeg")
    assert [e.value for e in (jpeg.clean, jpeg.without, jpeg.through, jpeg.bought)] == pytest.approx(
        [0.85, 0.8, 0.5, 0.3]
    )
    verdicts = dict(zip((one.attack for one in pair.attacks), pair.verdicts(), strict=True))
    assert verdicts == {"none": "harms", "jpeg": "helps", "grayscale": "cannot be told"}


def test_no_interval_gives_no_sign() -> None:
    assert set(only(both(seeds=1)).verdicts()) == {"no interval"}


def test_the_difference_is_over_the_seeds_that_both_have() -> None:
    some = [*clean(), *cells(WITHOUT, "em", seeds=2), *cells(THROUGH, "em (adaptive)", ["jpeg"])]
    assert {one.bought.seeds for one in only(some).attacks} == {2}


def test_attacks_that_one_of_them_lacks_are_left_out() -> None:
    some = [*clean(), *cells({"none": 0.4}, "em"), *cells(THROUGH, "em (adaptive)", ["jpeg"])]
    assert [one.attack for one in only(some).attacks] == ["none"]


@pytest.mark.parametrize(
    "other", [{"id": "mem"}, {"rounds": 3}, {"surrogate": "tiny-idefics3"}, {"image": 4.0}, {"purifiers": ["blur"]}]
)
def test_nothing_is_compared_that_differs_in_more_than_purifiers(other: dict[str, Any]) -> None:
    assert not list(pairs([*clean(), *cells(WITHOUT, "other", **other), *cells(THROUGH, "em", ["jpeg"])]))


def test_a_setting_of_that_name_that_names_nothing_is_no_purifier() -> None:
    assert not list(pairs([*clean(), *cells(WITHOUT, "em"), *cells(THROUGH, "em of others", "jpeg")]))
    assert only([*clean(), *cells(WITHOUT, "em", []), *cells(THROUGH, "em (adaptive)", ["jpeg"])]).without == "em"


def test_without_records_there_are_no_pairs() -> None:
    assert not list(pairs([]))


def test_the_page_of_protections_says_what_purifiers_buy(tmp_path: Path) -> None:
    suites = {"protections": [record(0.9, seed=seed) for seed in range(3)], "adaptive": both()}
    text = ProtectionsPage().make(suites, None)
    own = text[text.index("## Crafted through attacks") :]
    assert "### em (adaptive), glyphs · tiny-llava, lora\n\nBeside em; crafted through jpeg and crop-pad." in own
    rows = {cells[0]: cells for line in own.splitlines() if len(cells := line.strip("| ").split(" | ")) == 8}
    assert [rows[a][1] for a in ("none", "jpeg", "grayscale")] == [DASH, "yes", "no"]
    assert rows["jpeg"][6].startswith("+30.0 (") and rows["jpeg"][7] == "helps" and rows["none"][7] == "harms"
    assert "records/adaptive.jsonl" in text and "## em" not in text.replace("### em", "")
    assert "Crafted through" not in ProtectionsPage().make({"protections": suites["protections"]}, None)
    prose = tmp_path / "findings.md"
    prose.write_text('JPEG: {{ bought("em (adaptive)", "jpeg") }} points.', encoding="utf-8")
    assert "JPEG: 30 points." in ProtectionsPage().make(suites, prose)
    prose.write_text('{{ bought("em", "jpeg") }}', encoding="utf-8")
    with pytest.raises(ArenaError, match="none has protection 'em'"):
        ProtectionsPage().make(suites, prose)
