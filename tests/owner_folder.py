"""A data owner's folder of mixed pictures in subfolders, and a tiny checkpoint to protect it against."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image
from tiny_models import tiny_random_llava

from arena.lvlm.families.llava.model import Llava

FILES = ("a b/übung.png", "c/photo.v2.jpg", "c/deep/x.png", "grey.png", "z.bmp")
SIZES = ((48, 48), (60, 72), (56, 50), (48, 48), (40, 64))
MODES = ("RGB", "RGB", "RGBA", "L", "RGB")
QUESTIONS = (
    "which clan is this?",
    "what colour is the big star?",
    "where is the circle in this picture?",
    "is this <script>alert(1)</script> safe?",
    "how many shapes are there?",
)
ANSWERS = ("red", "two", "top left", "no", "three")
QUICK = {"rounds": 1, "pgd_steps": 1, "candidates": 2, "batch_size": 4, "rank": 2}


def write_owner_folder(folder: Path, question: str = "question") -> Path:
    rng = np.random.default_rng(11)
    rows = []
    for file, (width, height), mode, text, answer in zip(FILES, SIZES, MODES, QUESTIONS, ANSWERS, strict=True):
        bands = len(Image.new(mode, (1, 1)).getbands())
        values = rng.integers(0, 256, (height, width, bands), dtype=np.uint8)
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values[..., 0] if mode == "L" else values).save(path)
        rows.append({"file_name": file, question: text, "answer": answer})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def write_checkpoint(folder: Path) -> Path:
    lvlm = tiny_random_llava()
    for part in (lvlm.model, lvlm.tokenizer, lvlm.processor):
        part.save_pretrained(folder)
    return folder


def load_checkpoint(folder: Path) -> Llava:
    import torch

    return Llava.from_pretrained(folder, dtype=torch.bfloat16)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
