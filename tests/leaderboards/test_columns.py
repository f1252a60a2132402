"""The reference of columns and fields says what boards and records hold, and their names stay."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from synthetic import QUICK, quick, record

from arena.records.files import read_records
from arena.records.schema import Record
from arena.score.stealth import _MEASURES
from leaderboards.columns import COLUMNS, columns, find
from leaderboards.columns.kind import FRAMES, Frame
from leaderboards.columns.measures import STEALTH
from leaderboards.columns.page import PAGE, page
from leaderboards.columns.records import PARTS
from leaderboards.columns.scores import REASONS
from leaderboards.tables.board import Board, build, write
from leaderboards.tables.board import board as board_of

ROOT = Path(__file__).parents[2]
SUITES = ("quick", "baselines", "mmguard", "mmguard-ablations", "attacks", "transfer")

PARQUET = {
    "text": {"string", "large_string"},
    "number": {"double"},
    "whole number": {"int64"},
    "true or false": {"bool"},
}

NAMES: dict[str, str] = {
    "cells": """
        dataset model defense control surrogates knowledge norm image_budget text_budget forbid_answer_words attack
        auxiliary in_domain recipe items seeds failed left_out chosen_recipes zero_shot clean clean_attacked accuracy
        gain drop paired_drop attack_cost protection retention over_random_words release_adds robust_protection
        worst_case_protection peak_accuracy stealth_max_delta
        stealth_mean_delta stealth_psnr stealth_ssim stealth_ms_ssim stealth_ciede2000 stealth_identical_images
        stealth_inserted_words stealth_edit_distance stealth_bleu stealth_answer_leak stealth_perplexity_ratio
        meaning_changed meaning_accuracy_before meaning_accuracy meaning_similarity
        protect_seconds_per_sample protect_peak_memory_mb purify_seconds_per_sample purify_peak_memory_mb
        finetune_seconds_per_sample finetune_peak_memory_mb diagnostic_rounds diagnostic_surrogate_error diagnostic_loss
        diagnostic_loss-train diagnostic_loss-bind diagnostic_loss-joint diagnostic_loss-trigger->perturbation
        diagnostic_loss-answer->trigger diagnostic_loss-answer->perturbation diagnostic_trigger-eta
        diagnostic_trigger-bound diagnostic_trigger-measured diagnostic_trigger-violations diagnostic_perturbation-eta
        diagnostic_perturbation-bound diagnostic_perturbation-measured diagnostic_perturbation-violations
    """,
    "ranking": """
        dataset model defense control surrogates knowledge norm image_budget text_budget forbid_answer_words auxiliary
        in_domain group attacked choices recipes chooser unfit best_attack best_recipe seeds protection
        over_random_words robust_protection worst_case_protection regret
        robust_retention robust_accuracy stealth_max_delta stealth_mean_delta stealth_psnr stealth_ssim stealth_ms_ssim
        stealth_ciede2000 stealth_identical_images stealth_inserted_words stealth_edit_distance stealth_bleu
        stealth_answer_leak stealth_perplexity_ratio protect_seconds_per_sample
    """,
    "failures": """
        dataset model defense control surrogates knowledge norm image_budget text_budget forbid_answer_words attack
        auxiliary in_domain recipe seed stage error cell
    """,
    "power": "dataset model items seeds recipe clean gain noise_floor headroom minimum_detectable_difference unfit",
    "record": """
        schema_version identity_version protocol_version cell dataset model defense attack recipe knowledge budget
        auxiliary seed suite status failure zero_shot outcome peak_accuracy chosen_epoch epochs stealth meaning cost
        diagnostics lineage engine_digest environment created
    """,
    "plugin": "id version config runtime fingerprint source_digest origin",
    "recipe": "id version config runtime fingerprint source_digest origin label sweep clean_cost",
    "dataset": """
        id version config runtime fingerprint source_digest origin train auxiliary test seed convention samples
    """,
    "model": "id version config runtime source_digest origin fingerprint family",
    "defense": "id version config runtime fingerprint source_digest origin label surrogates",
    "attack": "label parts chooses in_domain",
    "origin": "package version",
    "budget": "norm image text forbid_answer_words",
    "suite": "id digest",
    "failure": "stage error traceback",
    "outcome": "accuracy items correct metrics cut",
    "meaning": "samples changed accuracy_before accuracy similarity embedding",
    "epoch": "loss held_out_accuracy held_out_loss test_accuracy",
    "cost": "protect purify finetune machine",
    "stage cost": "seconds seconds_per_sample peak_memory_mb",
    "lineage": "clean release purified checkpoint score",
    "environment": "packages git_commit git_dirty device threads nondeterminism isolation",
}
"""The names that others rely on, see CONTRIBUTING.md."""


@cache
def committed(suite: str) -> Board:
    return board_of(ROOT / "leaderboards" / "records" / "v1" / f"{suite}.jsonl")


def failed(defense: str, *attacks: str) -> list[Record]:
    return [record(0, defense, attack, seed, error="ValueError: x") for attack in attacks for seed in range(3)]


def without(records: Sequence[Record], defense: str, attack: str | None = None) -> list[Record]:
    return [r for r in records if not (r.defense.id == defense and attack in (None, r.attack.id))]


def recipes_without_a_common_seed(zero_shot: float | None) -> list[Record]:
    controls = [record(0.9, seed=s, recipe=name, zero_shot=zero_shot) for s, name in enumerate(("lora", "full"))]
    return controls + [
        r
        for defense in ("em", "mem", "random-words")
        for seed in (0, 1)
        for name in ("lora", "full")
        for attack in ("none", "jpeg")
        for r in told(defense, attack, [seed], recipe=name, zero_shot=zero_shot)
    ]


def told(defense: str, attack: str = "none", seeds: Sequence[int] = (0, 1, 2), **more: Any) -> list[Record]:
    """Records of a release with other questions; `em` leaves them alone."""
    shown = {"edit_distance": 0.0 if defense == "em" else 20.0}
    return [record(0.3, defense, attack, seed, stealth=shown, **more) for seed in seeds]


def with_own_data(alone: Sequence[int], *seeds: int) -> list[Record]:
    """Records of an attacker with clean data of their own, and over other seeds of these data alone."""
    own = {"auxiliary": 0.2}
    mixed = [record(0.8, defense, "mix", seed, **own) for defense in ("none", "em") for seed in seeds]
    return quick() + mixed + [record(0.5, "none", "auxiliary-alone", seed, **own) for seed in alone]


@cache
def made_up() -> dict[str, Board]:
    """Boards in which everything that can be undefined is, for every reason that there is."""
    bare = {("none", "none"): 0.9, ("none", "jpeg"): 0.8}
    attacked = quick({**bare, ("em", "jpeg"): 0.5})
    apart = [record(0.9, seed=s) for s in (0, 1)] + [record(0.9, attack="jpeg", seed=s) for s in (4, 5)]
    apart += [record(0.3, "em", attack, s) for attack in ("none", "jpeg") for s in (2, 3)]
    nothing_measured = dict.fromkeys((column.name.removeprefix("stealth_") for column in STEALTH), None)
    meant = {"samples": 8, "changed": 0.5, "accuracy_before": 0.4, "accuracy": 0.2, "similarity": 0.9, "embedding": "e"}
    of_others = {"diagnostics": {"my-own_number": 1.0}}
    given: dict[str, tuple[Sequence[Record], Sequence[Record]]] = {
        "whole": (quick(), ()),
        "one seed": (quick(seeds=1), ()),
        "no zero-shot": (quick(zero_shot=None), ()),
        "no control": (without(quick(), "none"), ()),
        "no baseline": (without(quick(), "em", "none"), ()),
        "no baseline asked": (attacked, attacked),
        "all asked failed": (quick(bare) + failed("em", "jpeg"), quick(bare) + failed("em", "jpeg")),
        "no gain": (quick(dict.fromkeys(QUICK, 0.1)), ()),
        "no seed in common": (apart, ()),
        "no seed in common of recipes": (recipes_without_a_common_seed(0.1), ()),
        "words": ([*quick(), *told("random-words"), *told("mem"), *failed("mem", "jpeg")], ()),
        "words whole": (
            [
                *quick(),
                *(r for d in ("random-words", "mem") for a in ("none", "jpeg", "grayscale") for r in told(d, a)),
            ],
            (),
        ),
        "words without a control": ([*quick(), *told("mem")], ()),
        "words of other seeds": ([*quick(), *told("random-words", seeds=(0, 1)), *told("mem", seeds=(2, 3))], ()),
        "own data": (with_own_data((0, 1), 0, 1, 2), ()),
        "own data without a control": (with_own_data((), 0, 1, 2), ()),
        "own data of other seeds": (with_own_data((0, 1), 2, 3), ()),
        "own data that failed": (
            [*with_own_data((0, 1), 0, 1), *(record(0, "lsp", "mix", s, auxiliary=0.2, error="x") for s in (0, 1))],
            (),
        ),
        "nor zero-shot": (recipes_without_a_common_seed(None), ()),
        "an attack that chooses": ([*quick(), *choosing()], ()),
        "no attack": (quick({("none", "none"): 0.9, ("em", "none"): 0.3}), ()),
        "failed": (without(quick(), "em") + failed("em", "none", "jpeg", "grayscale"), ()),
        "rewriting": (
            [*quick(), *(record(0.9, "none", "case", s, meaning=meant) for s in range(3))],
            (),
        ),
        "nothing shown": (quick(stealth=nothing_measured), ()),
        "a defense of others": ([*quick(), *(record(0.4, "mine", "none", s, **of_others) for s in range(3))], ()),
    }
    return {name: build(records, asked=asked) for name, (records, asked) in given.items()}


def choosing() -> list[Record]:
    """Of an attack that chooses itself, on every entry."""
    made = [record(0.5, defense, "chooser", s) for defense in ("none", "random", "em", "lsp") for s in range(3)]
    return [r.model_copy(update={"attack": r.attack.model_copy(update={"chooses": True})}) for r in made]


def any_records(seed: int) -> list[Record]:
    """Records of which some are missing and some failed, at random; at least one is done."""
    rng = random.Random(seed)
    found = [record()]
    for (defense, attack), probability in QUICK.items():
        for number in range(rng.choice((1, 3))):
            if rng.random() < 0.7:
                error = "ValueError: x" if rng.random() < 0.2 else None
                zero_shot = None if seed % 3 == 0 else 0.1
                made = record(probability, defense, attack, number, error=error, zero_shot=zero_shot)
                found.append(made)
    return found


def frames(board: Board) -> Iterator[tuple[Frame, pd.DataFrame]]:
    for name in FRAMES:
        yield name, getattr(board, name)


def complaints(board: Board) -> Iterator[str]:
    """What a board holds otherwise than the reference says."""
    for frame, table in frames(board):
        for name in map(str, table.columns):
            column = find(frame, name)
            if column is None:
                yield f"{frame}: {name} is not in the reference"
                continue
            values = [None if pd.isna(value) else value for value in table[name]]
            if not column.undefined and None in values:
                yield f"{frame}: {name} is null, which it never is"
            for value in values:
                if value is not None and not is_a(column.type, value):
                    yield f"{frame}: {name} is {value!r}, which is no {column.type}"
            if column.is_score:
                yield from wrong_reasons(frame, table, name, column.reasons)
        fixed = {name for name in columns(frame) if not name.startswith(("stealth_", "meaning_", "diagnostic_"))}
        if len(table):
            yield from (f"{frame}: has no {name}" for name in sorted(fixed - set(table.columns)))


def wrong_reasons(frame: str, table: pd.DataFrame, name: str, reasons: Sequence[str]) -> Iterator[str]:
    for value, said in zip(table[name], table[f"{name}_undefined"], strict=True):
        if pd.isna(value) == pd.isna(said):
            yield f"{frame}: {name} is {value!r} with the reason {said!r}"
        elif isinstance(said, str) and not any(said == r or said.startswith(r) for r in reasons):
            yield f"{frame}: {name}_undefined says {said!r}"


def is_a(kind: str, value: object) -> bool:
    if kind == "text":
        return isinstance(value, str)
    if kind == "true or false":
        return isinstance(value, bool | np.bool_)
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool | np.bool_)
    return number and (kind == "number" or float(value) == int(value))  # type: ignore[arg-type]


def test_the_committed_page_is_what_would_be_written() -> None:
    assert (ROOT / PAGE).read_text(encoding="utf-8") == page(), "the page is out of date: run `make docs` and commit it"


@pytest.mark.parametrize("suite", SUITES)
def test_committed_boards_are_as_the_reference_says(suite: str) -> None:
    board = committed(suite)
    assert list(complaints(board)) == []
    unlisted = set(map(str, board.cells.columns)) - set(columns("cells"))
    assert not unlisted, f"{unlisted}: a defense of ours reports what leaderboards/columns/measures.py does not list"


def test_made_up_boards_are_as_the_reference_says() -> None:
    assert {name: found for name, board in made_up().items() if (found := list(complaints(board)))} == {}


@pytest.mark.parametrize("seed", range(8))
def test_boards_of_whatever_is_there_are_as_the_reference_says(seed: int) -> None:
    assert list(complaints(build(any_records(seed)))) == []


def test_the_reference_lists_nothing_that_no_board_has() -> None:
    boards = [*map(committed, SUITES), *made_up().values()]
    for frame in FRAMES:
        there = {str(name) for board in boards for name in getattr(board, frame).columns}
        assert set(columns(frame)) <= there, frame


def test_whatever_can_be_undefined_is_so_somewhere_and_for_every_reason() -> None:
    nulls, said = defaultdict[Frame, set[str]](set), defaultdict[tuple[Frame, str], set[str]](set)
    for board in [*map(committed, SUITES), *made_up().values()]:
        for frame, table in frames(board):
            nulls[frame] |= {str(name) for name in table.columns if table[name].isna().any()}
            for name, column in columns(frame).items():
                if column.is_score and len(table):
                    reasons = table[f"{name}_undefined"].dropna()
                    said[frame, name] |= {next(r for r in REASONS if text.startswith(r)) for text in reasons}
    for frame in FRAMES:
        listed = columns(frame)
        assert {name for name, column in listed.items() if column.undefined} <= nulls[frame], frame
        for name, column in listed.items():
            assert said[frame, name] == set(column.reasons), (frame, name)


@pytest.mark.parametrize("suite", ["quick", "transfer"])
def test_parquet_has_the_types_of_the_reference(suite: str, tmp_path: Path) -> None:
    write(committed(suite), tmp_path, suite)
    for field in pq.read_schema(tmp_path / f"{suite}.parquet"):
        column = find("cells", field.name)
        assert column is not None and str(field.type) in PARQUET[column.type], field.name


def test_wrong_types_and_nulls_are_noticed() -> None:
    board = build(quick())
    for change, complaint in (
        ({"accuracy": "0.5"}, "accuracy is '0.5', which is no number"),
        ({"items": 1.5}, "items is 1.5, which is no whole number"),
        ({"control": 1}, "control is 1, which is no true or false"),
        ({"defense": None}, "defense is null, which it never is"),
        ({"surprise": 1}, "surprise is not in the reference"),
        ({"accuracy": None}, "accuracy is None with the reason None"),
        ({"drop": None, "drop_undefined": "bad luck"}, "drop_undefined says 'bad luck'"),
    ):
        changed = Board(**{**vars(board), "cells": board.cells.astype(object).assign(**change)})
        assert any(complaint in said for said in complaints(changed)), (complaint, list(complaints(changed))[:3])
    lacking = Board(**{**vars(board), "cells": board.cells.drop(columns="gain_low")})
    assert list(complaints(lacking)) == ["cells: has no gain_low"]


def test_stealth_has_a_column_for_every_measure() -> None:
    measured = {*_MEASURES, "identical_images", "perplexity_ratio"}
    recorded = read_records(ROOT / "leaderboards" / "records" / "v1" / "quick.jsonl")[0].stealth or {}
    assert set(recorded) <= measured == {column.name.removeprefix("stealth_") for column in STEALTH}


OBJECTS = {
    "Record": "record",
    "PluginRef": "plugin",
    "DatasetRef": "dataset",
    "ModelRef": "model",
    "DefenseRef": "defense",
    "AttackRef": "attack",
    "SuiteRef": "suite",
    "RecipeRef": "recipe",
    "BudgetRef": "budget",
    "StageCost": "stage cost",
}
"""Objects of the record's JSON schema whose part has another name."""

WORDS = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}


def part_of(name: str) -> str:
    return OBJECTS.get(name, name.lower())


def type_of(schema: Mapping[str, Any]) -> tuple[str, bool]:
    """A type of a JSON schema in the page's words, and whether null is one of its values."""
    if "anyOf" in schema:
        (other,) = (each for each in schema["anyOf"] if each.get("type") != "null")
        return type_of(other)[0], len(schema["anyOf"]) == 2
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return ("anything" if name == "JsonValue" else part_of(name)), False
    if "const" in schema or "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")])), False
    if schema["type"] == "array":
        return f"list of: {type_of(schema['items'])[0]}", False
    if schema["type"] == "object":
        return f"mapping of text to {type_of(schema['additionalProperties'])[0]}", False
    return WORDS[schema["type"]], False


def test_every_field_of_a_record_is_as_its_schema_says() -> None:
    schema = Record.model_json_schema()
    objects = {part_of(name): of for name, of in schema["$defs"].items() if name != "JsonValue"} | {"record": schema}
    assert set(objects) == set(PARTS)
    for part, of in objects.items():
        listed = {field.name: (field.type, bool(field.undefined)) for field in PARTS[part]}
        assert listed == {name: type_of(each) for name, each in of["properties"].items()}, part
        for field in PARTS[part]:
            own = of["properties"][field.name]
            if any(each.get("maximum") == 1 for each in (own, *own.get("anyOf", ()))):
                assert field.unit == "0 to 1", (part, field.name)
            assert field.meaning


def test_names_stay() -> None:
    """A name that is gone or new: say so in CHANGELOG.md, see CONTRIBUTING.md, and change it here."""
    now = {frame: [column.name for column in COLUMNS if frame in column.frames] for frame in FRAMES}
    now |= {part: [field.name for field in fields] for part, fields in PARTS.items()}
    assert {part: sorted(names) for part, names in now.items()} == {p: sorted(n.split()) for p, n in NAMES.items()}
    assert all(len(set(names)) == len(names) for names in now.values())


def test_columns_are_found_by_name() -> None:
    low = find("ranking", "robust_protection_low")
    assert low is not None and (low.type, low.better, low.frames) == ("number", "higher", ("cells", "ranking"))
    assert "robust_protection" in low.undefined and not low.is_score
    robust, accuracy = find("ranking", "robust_protection"), find("cells", "accuracy")
    assert robust is not None and robust.is_score and robust.better == "higher"
    assert accuracy is not None and accuracy.better == "lower"
    own = find("cells", "diagnostic_of-others")
    assert own is not None and own.name == "diagnostic_of-others" and own.frames == ("cells",)
    for frame, name in (("ranking", "accuracy"), ("ranking", "diagnostic_x"), ("cells", "psnr"), ("power", "group")):
        assert find(frame, name) is None  # type: ignore[arg-type]
    cells, ranking = find("cells", "protection"), find("ranking", "protection")
    assert cells is not None and ranking is not None and cells.meaning != ranking.meaning


def test_the_reference_is_light() -> None:
    slow = {"torch", "pandas", "scipy", "skimage", "transformers", "distributed"}
    code = f"import sys, leaderboards.columns, leaderboards.columns.records; assert not {slow} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
