"""Small data sets in the schemas of the published ones, with pictures drawn here: for tests, and for a dry run of what
the published ones will do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

SIZE = (64, 48)
"""Width and height of every picture, in pixels."""


def picture(number: int, mode: str = "RGB") -> Image.Image:
    """A box and a disc, of colours and at places that no other number has."""
    rng = np.random.default_rng(number)
    colours = [tuple(colour) for colour in rng.integers(0, 256, (3, 3)).tolist()]
    image = Image.new("RGB", SIZE, colours[0])
    draw = ImageDraw.Draw(image)
    for shape, colour in zip((draw.rectangle, draw.ellipse), colours[1:], strict=True):
        (left, right), (top, bottom) = (sorted(rng.choice(side, 2, replace=False).tolist()) for side in SIZE)
        shape((left, top, right, bottom), fill=colour)
    return image.convert(mode)


@dataclass(frozen=True)
class Fixture:
    """`row` makes the published columns of a row from its number, `splits` has the rows of the published splits."""

    splits: Mapping[str, int]
    row: Callable[[int], dict[str, Any]]


def _science(n: int) -> dict[str, Any]:
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


FIXTURES: dict[str, Fixture] = {
    "realworldqa": Fixture(
        {"test": 12},
        lambda n: {
            "image": picture(n),
            "question": f"Where is car {n}?\n\nA. Left\nB. Right\nPlease answer directly with only the letter.",
            "answer": "AB"[n % 2],
        },
    ),
    "mmstar": Fixture(
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
    ),
    "scienceqa": Fixture(
        {"train": 18, "validation": 4, "test": 9},
        _science,
    ),
    "vqa-rad": Fixture(
        {"train": 12, "test": 6},
        lambda n: {"image": picture(n), "question": f"is lesion {n} shown?", "answer": " Yes" if n % 2 else "no"},
    ),
    "textvqa": Fixture(
        {"train": 12, "validation": 6, "test": 4},
        lambda n: {
            "image_id": f"{n:016x}",
            "question_id": n,
            "question": f"what brand is sign {n}?",
            "question_tokens": ["what", "brand"],
            "image": picture(n),
            "image_width": SIZE[0],
            "image_height": SIZE[1],
            "flickr_original_url": "",
            "flickr_300k_url": "",
            "answers": ["dakota", "nokia", "nokia ", "Nokia", "nokia", "", "nokia", "dakota", "nokia", "nokia"],
            "image_classes": ["Sign"],
            "set_name": "train",
            "ocr_tokens": ["NOKIA"],
        },
    ),
    "docvqa": Fixture(
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
    ),
}
"""By the id of the dataset that reads them."""


def table(name: str, numbers: range) -> Any:
    """A `datasets.Dataset` of the rows of those numbers."""
    import datasets

    rows = [FIXTURES[name].row(n) for n in numbers]
    features = datasets.Dataset.from_list([{k: v for k, v in r.items() if k != "image"} for r in rows]).features
    whole = datasets.Features({**features, "image": datasets.Image()})
    return datasets.Dataset.from_list(rows, features=whole).select_columns([*rows[0]])


def write(name: str, folder: Path, sizes: Mapping[str, int] | None = None) -> Path:
    """Every split of a data set as parquet in the folder ``data``, as on the hub; `sizes` changes that of a split."""
    (folder / "data").mkdir(parents=True)
    at = 0
    for split, size in {**FIXTURES[name].splits, **(sizes or {})}.items():
        table(name, range(at, at + size)).to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
        at += size
    return folder
