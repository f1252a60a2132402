"""``arena-stress.yaml``: what is read, what is refused with its line, and what the page says of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from arena.errors import UsageError
from arena.stress.scores import SCORES
from arena.stress.settings import Settings, read_file

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "arena" / "STRESS.md"

GOOD = """\
target: em
config: {rounds: 3}
suite: ci
requirements:
  - protection>=0.3
  - retention[jpeg]>=0.5@value
compare: main
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "arena-stress.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_and_the_lines_of_its_requirements(tmp_path: Path) -> None:
    asked = read_file(write(tmp_path, GOOD))
    assert asked.settings.target == "em" and asked.settings.suite == "ci" and asked.settings.config == {"rounds": 3}
    assert [one.name for one in asked.requirements] == ["protection>=0.3@low", "retention[jpeg]>=0.5@value"]
    assert asked.lines == {"compare": 7, "protection>=0.3@low": 5, "retention[jpeg]>=0.5@value": 6}


def test_names_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "deep"
    (place / "released").mkdir(parents=True)
    (place / "old.jsonl").write_text("", encoding="utf-8")
    text = "target: released\noriginals: org/data\nsuite: own.yaml\ncompare: old.jsonl\nresults: new.jsonl\n"
    write(place, text)
    monkeypatch.chdir(tmp_path)
    settings = read_file(Path("deep/arena-stress.yaml")).settings
    assert settings.target == "deep/released" and settings.suite == "deep/own.yaml"
    assert settings.compare == "deep/old.jsonl" and settings.results == "deep/new.jsonl"
    assert settings.originals == "org/data"  # not there: the id of a data set on the hub


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("suite: ci", "suit: ci", "arena-stress.yaml, line 3, suit: there is no such field; did you mean 'suite'?"),
        ("target: em\n", "", "target: the field is missing"),
        (
            "protection>=0.3",
            "protecton>=0.3",
            "line 5, requirements[0]: requirement 'protecton>=0.3': there is no score",
        ),
        ("retention[jpeg]>=0.5@value", "protection>=0.3@low", "line 6, requirements[1]: it is already in line 5"),
        ("requirements:", "requirements: none\nx:", "line 4, requirements: Input should be a valid list, not 'none'"),
        ("compare: main", "test: 0", "line 7, test: Input should be greater than or equal to 1, not 0"),
        ("compare: main", "budget: {image: -1}", "line 7, budget.image: Input should be greater than or equal to 0"),
        ("compare: main", "scoring: fuzzy", "line 7, scoring: Input should be 'exact', 'normalized' or 'choice'"),
        ("compare: main", "target: em", "line 7, target: the key is already in line 1"),
        ("compare: main", "compare: {a: 1", "not valid YAML"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in GOOD
    with pytest.raises(UsageError) as refused:
        read_file(write(tmp_path, GOOD.replace(old, new)))
    assert says in str(refused.value)


@pytest.mark.parametrize("text", ["", "just words\n", "- a\n"])
def test_a_file_that_is_none(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=r"arena-stress\.yaml"):
        read_file(write(tmp_path, text))


def test_the_example_is_one() -> None:
    asked = read_file(ROOT / "leaderboards" / "examples" / "arena-stress.yaml")
    assert asked.settings.suite == "ci" and len(asked.requirements) == 3


def test_the_page_has_every_field_and_every_score() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name, field in Settings.model_fields.items():
        assert f"| `{name}` | {field.description} |" in text, name
    for score in SCORES.values():
        assert f"`{score.name}`" in text, score.name
