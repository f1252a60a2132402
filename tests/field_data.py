"""What the rows of `arena.data.fixtures` must become; one row of the table a dataset."""

from __future__ import annotations

from dataclasses import dataclass

SHORT = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."


@dataclass(frozen=True)
class Field:
    """`hub` is the published id.

    `question`, `answer`, `aliases` and `choices` are what row 1 of the first split must become, `drawn` the splits that
    training and test samples come from.
    """

    hub: str
    question: str
    answer: str
    convention: str
    drawn: tuple[str, str]
    aliases: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    measures: tuple[str, ...] = ()


FIELD = {
    "realworldqa": Field(
        "xai-org/RealworldQA",
        "Where is car 1?\n\nA. Left\nB. Right\nPlease answer directly with only the letter.",
        "B",
        "normalized",
        ("test", "test"),
    ),
    "mmstar": Field(
        "Lin-Chen/MMStar",
        "What is picture 1?\nA. A cat, grey.\nB. A dog.\nC. None.\nD. 1 birds." + LETTER,
        "B",
        "choice",
        ("val", "val"),
        choices=("A cat, grey.", "A dog.", "None.", "1 birds."),
    ),
    "scienceqa": Field(
        "derek-thomas/ScienceQA",
        "Context: Rocks are hard.\nWood is not.\nWhich is rock 1?\nA. basalt\nB. oak\nC. salt water" + LETTER,
        "B",
        "choice",
        ("train", "test"),
        choices=("basalt", "oak", "salt water"),
    ),
    "vqa-rad": Field(
        "flaviagiammarino/vqa-rad",
        "is lesion 1 shown?" + SHORT,
        "Yes",
        "normalized",
        ("train", "test"),
    ),
    "textvqa": Field(
        "lmms-lab/textvqa",
        "what brand is sign 1?" + SHORT,
        "nokia",
        "normalized",
        ("train", "validation"),
        aliases=("dakota", "nokia", "Nokia", "nokia", "\N{EMPTY SET}", "nokia", "dakota", "nokia", "nokia"),
        measures=("vqa-accuracy",),
    ),
    "docvqa": Field(
        "HuggingFaceM4/DocumentVQA",
        "What is the date of letter 1?" + SHORT,
        "May 1, 1970",
        "normalized",
        ("train", "validation"),
        aliases=("5/1/70",),
        measures=("anls",),
    ),
}
