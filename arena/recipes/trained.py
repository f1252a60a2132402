"""What a recipe trains in a model: module names, layer numbers folded, with how many weights learn in each."""

from __future__ import annotations

import re
from dataclasses import dataclass

from arena.lvlm.adapters import trainable
from arena.lvlm.base import LVLM
from arena.plugins.base import Recipe

_ADAPTER = re.compile(r"\.lora_[a-z_]*[A-Z]?(\.default)?")
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")


@dataclass(frozen=True)
class Trained:
    """Modules of one name pattern: ``what`` learns there (adapters or weights) and how many numbers that is."""

    modules: str
    what: str
    parameters: int


def trained_modules(recipe: Recipe, lvlm: LVLM) -> tuple[list[Trained], int]:
    """What `recipe` makes trainable in `lvlm`, in the model's order, and the size of the model before it.

    `lvlm` is prepared by this, as for fine-tuning.
    """
    total = sum(p.numel() for p in lvlm.model.parameters())
    counts: dict[tuple[str, str], int] = {}
    for name, parameter in trainable(recipe.prepare(lvlm)).items():
        plain = name.removeprefix("base_model.model.")
        adapter = _ADAPTER.search(plain)
        module = plain[: adapter.start()] if adapter else plain.rpartition(".")[0]
        kind = (_NUMBER.sub("*", module), "adapters" if adapter else "all weights")
        counts[kind] = counts.get(kind, 0) + parameter.numel()
    return [Trained(modules, what, count) for (modules, what), count in counts.items()], total
