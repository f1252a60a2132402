"""Tiny checkpoints with random weights, one a family, in the hub's format: real configuration classes at small sizes,
the family's own kind of tokenizer, its picture processor. For tests, and for a dry run of what big models will do.

``python -m arena.lvlm.zoo.random_checkpoints qwen3-vl FOLDER`` writes one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from arena.errors import UsageError
from arena.lvlm.families.drawing import Parts
from arena.lvlm.families.gemma3.random import gemma3
from arena.lvlm.families.glm4v.random import glm4v
from arena.lvlm.families.idefics3.random import idefics3, smolvlm
from arena.lvlm.families.internvl.random import internvl, internvl3_5
from arena.lvlm.families.llava.random import llava
from arena.lvlm.families.minicpmv.random import minicpmv
from arena.lvlm.families.mllama.random import mllama
from arena.lvlm.families.qwen_vl.random import qwen2_5_vl, qwen3_vl

FAMILIES: dict[str, Callable[[int], Parts]] = {
    "llava": llava,
    "qwen2.5-vl": qwen2_5_vl,
    "qwen3-vl": qwen3_vl,
    "internvl": internvl,
    "internvl3.5": internvl3_5,
    "glm4v": glm4v,
    "idefics3": idefics3,
    "smolvlm": smolvlm,
    "gemma3": gemma3,
    "minicpm-v": minicpmv,
    "llama-3.2-vision": mllama,
}


def write(family: str, folder: Path, seed: int = 0) -> None:
    """Write a checkpoint of `family` to `folder`, its weights drawn from `seed`. Raises `UsageError` for an unknown
    family."""
    if family not in FAMILIES:
        raise UsageError(f"no family {family!r} among the random checkpoints: choose from {', '.join(FAMILIES)}")
    for part in FAMILIES[family](seed):
        part.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a tiny checkpoint with random weights in the hub's format.")
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    write(given.family, given.folder, given.seed)


if __name__ == "__main__":
    main()
