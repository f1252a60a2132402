"""Small data sets in the schemas of the published ones, with pictures drawn here; one row of the table a dataset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

SHORT = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."


def picture(number: int, mode: str = "RGB") -> Image.Image:
    """A picture that no other number has."""
    pixels = np.random.default_rng(number).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@dataclass(frozen=True)
class Field:
    """`row` makes the published columns of a row from its number, `splits` has the rows of the published splits.

    `question`, `answer`, `aliases` and `choices` are what row 1 of the first split must become, `drawn` the splits that
    training and test samples come from.
    """

    hub: str
    splits: dict[str, int]
    row: Any
    question: str
    answer: str
    convention: str
    drawn: tuple[str, str]
    aliases: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    measures: tuple[str, ...] = ()
    features: Any = None


def science(n: int) -> dict[str, Any]:
    return {
        "image": picture(n) if n % 3 else None,
        "question": f"Which is rock {n}?",
        "choices": ["basalt", "oak", "salt water"],
        "answer": n % 3,
        "hint": "Rocks are hard.\nWood is not." if n % 2 else "",
        "task": "closed choice",
        "grade": "grade6",
        "subject": "natural science",
        "topic": "earth-science",
        "category": "Rocks",
        "skill": "Identify rocks",
        "lecture": "",
        "solution": "",
    }


FIELD = {
    "realworldqa": Field(
        "xai-org/RealworldQA",
        {"test": 12},
        lambda n: {
            "image": picture(n),
            "question": f"Where is car {n}?\n\nA. Left\nB. Right\nPlease answer directly with only the letter.",
            "answer": "AB"[n % 2],
        },
        "Where is car 1?\n\nA. Left\nB. Right\nPlease answer directly with only the letter.",
        "B",
        "normalized",
        ("test", "test"),
    ),
    "mmstar": Field(
        "Lin-Chen/MMStar",
        {"val": 12},
        lambda n: {
            "index": n,
            "question": f"What is picture {n}?\nOptions: A: A cat, grey., B: A dog., C: None., D: {n} birds.",
            "image": picture(n),
            "answer": "ABCD"[n % 4],
            "category": "coarse perception",
            "l2_category": "image topic",
            "meta_info": {"source": "MMBench", "split": "val", "image_path": f"images/{n}.jpg"},
        },
        "What is picture 1?\nA. A cat, grey.\nB. A dog.\nC. None.\nD. 1 birds." + LETTER,
        "B",
        "choice",
        ("val", "val"),
        choices=("A cat, grey.", "A dog.", "None.", "1 birds."),
    ),
    "scienceqa": Field(
        "derek-thomas/ScienceQA",
        {"train": 18, "validation": 4, "test": 9},
        science,
        "Context: Rocks are hard.\nWood is not.\nWhich is rock 1?\nA. basalt\nB. oak\nC. salt water" + LETTER,
        "B",
        "choice",
        ("train", "test"),
        choices=("basalt", "oak", "salt water"),
    ),
    "vqa-rad": Field(
        "flaviagiammarino/vqa-rad",
        {"train": 12, "test": 6},
        lambda n: {"image": picture(n), "question": f"is lesion {n} shown?", "answer": " Yes" if n % 2 else "no"},
        "is lesion 1 shown?" + SHORT,
        "Yes",
        "normalized",
        ("train", "test"),
    ),
    "textvqa": Field(
        "lmms-lab/textvqa",
        {"train": 12, "validation": 6, "test": 4},
        lambda n: {
            "image_id": f"{n:016x}",
            "question_id": n,
            "question": f"what brand is sign {n}?",
            "question_tokens": ["what", "brand"],
            "image": picture(n),
            "image_width": 16,
            "image_height": 12,
            "flickr_original_url": "",
            "flickr_300k_url": "",
            "answers": ["dakota", "nokia", "nokia ", "Nokia", "nokia", "", "nokia", "dakota", "nokia", "nokia"],
            "image_classes": ["Sign"],
            "set_name": "train",
            "ocr_tokens": ["NOKIA"],
        },
        "what brand is sign 1?" + SHORT,
        "nokia",
        "normalized",
        ("train", "validation"),
        aliases=("dakota", "nokia", "Nokia", "nokia", "nokia", "dakota", "nokia", "nokia"),
        measures=("vqa-accuracy",),
    ),
    "docvqa": Field(
        "HuggingFaceM4/DocumentVQA",
        {"train": 12, "validation": 6, "test": 4},
        lambda n: {
            "questionId": str(n),
            "question": f"What is the date of letter {n}?",
            "question_types": ["handwritten"],
            "image": picture(n, "1"),
            "docId": n,
            "ucsf_document_id": f"doc{n}",
            "ucsf_document_page_no": "1",
            "answers": [f"May {n}, 1970", f"5/{n}/70"],
        },
        "What is the date of letter 1?" + SHORT,
        "May 1, 1970",
        "normalized",
        ("train", "validation"),
        aliases=("5/1/70",),
        measures=("anls",),
    ),
}


def table(name: str, numbers: range) -> datasets.Dataset:
    rows = [FIELD[name].row(n) for n in numbers]
    features = datasets.Dataset.from_list([{k: v for k, v in r.items() if k != "image"} for r in rows]).features
    whole = datasets.Features({**features, "image": datasets.Image()})
    return datasets.Dataset.from_list(rows, features=whole).select_columns([*rows[0]])


def published(name: str, folder: Path, **sizes: int) -> Path:
    """Every split of a dataset as parquet in the folder ``data``, as on the hub; `sizes` changes that of a split."""
    (folder / "data").mkdir(parents=True)
    at = 0
    for split, size in {**FIELD[name].splits, **sizes}.items():
        table(name, range(at, at + size)).to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
        at += size
    return folder
