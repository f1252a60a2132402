"""Options that data have in a column are part of what a model is asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from arena.data.folder import read_imagefolder
from arena.data.multiple_choice import LETTER, asked
from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.owner.originals import read_originals
from arena.plugins.registry import Registry
from arena.release import read_release, write_release

PICTURE = Image.new("L", (4, 4))
CHOICES = ("an oak", "a lime", "a yew")
LINES = "A. an oak\nB. a lime\nC. a yew"


def question(text: str, answer: str = "B", choices: tuple[str, ...] = CHOICES) -> str:
    return asked(Sample("s", PICTURE, text, answer, (), choices)).question


def test_a_line_for_each_choice_and_how_to_answer() -> None:
    assert question("Which tree?") == f"Which tree?\n{LINES}\n{LETTER}"
    assert question("Which tree?", "b").endswith(LETTER)
    assert question("Which tree?", "a lime") == f"Which tree?\n{LINES}"  # not to be answered by letter
    assert question("Which tree?", "BC") == f"Which tree?\n{LINES}"
    assert question("Which tree?", choices=()) == "Which tree?"


@pytest.mark.parametrize(
    "text",
    [
        f"Which tree?\n{LINES}\n{LETTER}",
        "Which tree? Options: A: an oak, B: a lime, C: a yew",
        "Which tree? (a) AN OAK (b) a lime (c) a yew. Say why.",
        f"fox Which tree?\nA. an wolf oak\nB. a lime\nC. a yew cat\n{LETTER}",  # with a trigger
    ],
)
def test_a_question_that_holds_its_options_stays(text: str) -> None:
    assert question(text) == text


@pytest.mark.parametrize("text", ["An oak, a lime or a yew?", "A. an oak\nC. a yew\nB. a lime", "A. an oak\nB. a lime"])
def test_a_question_that_does_not_is_given_them(text: str) -> None:
    assert question(text) == f"{text}\n{LINES}\n{LETTER}"


@pytest.mark.parametrize("choices", [("oak", " "), tuple(map(str, range(27)))])
def test_choices_without_text_or_letter_are_refused(choices: tuple[str, ...]) -> None:
    with pytest.raises(ArenaError, match=f"sample 's': its {len(choices)} choices need a text each, and a letter each"):
        question("Which?", choices=choices)


def test_folders_and_releases_of_them(tmp_path: Path) -> None:
    """The dataset of a suite and `arena protect` ask the same; what was released is asked as it was released."""
    folder, release = tmp_path / "data", tmp_path / "release"
    folder.mkdir()
    rows = []
    for n in range(4):
        Image.new("L", (4, 4), n).save(folder / f"{n}.png")
        rows.append({"file_name": f"{n}.png", "ask": "Which tree?", "answer": "B", "options": list(CHOICES)})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    columns = {"question": "ask", "choices": "options"}
    settings = {"source": str(folder), "columns": columns, "scoring": "choice"}
    drawn = Registry().create("dataset", "imagefolder", settings).load(2, 0, 2, 0)  # type: ignore[attr-defined]
    owned = read_originals(str(folder), columns).samples
    wanted = f"Which tree?\n{LINES}\n{LETTER}"
    assert {s.question for s in (*drawn.train, *drawn.test, *owned)} == {wanted}
    changed = [s.with_content(s.image, s.question.replace("a lime", "a  LIME!")) for s in owned]  # by an attack
    write_release([*owned[:2], *changed[2:]], release)
    assert [s.question for s in read_release(release)] == [wanted, wanted, *(s.question for s in changed[2:])]
    assert [s.question for s in read_imagefolder(release)][:2] == [wanted, wanted]
