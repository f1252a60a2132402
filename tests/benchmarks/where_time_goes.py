"""Where the time of a cell goes: ``make profile`` prints it and writes ``arena/engine/PROFILE.md``.

By stage: a suite of cells is run from an empty store by one worker, and the seconds of its stages are added up; what is
left of the wall-clock is processes, models that are loaded, files and the harness. Inside fine-tuning and crafting:
one of each on one thread, with a clock that is stopped for the outer part while an inner one runs.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from rich.console import Console

from arena.budget import Budget
from arena.data.embedded.glyphs import Glyphs
from arena.engine.execute import run
from arena.environment import machine
from arena.lvlm.base import LVLM
from arena.plugins.base import DefenderWorld
from arena.plugins.registry import Registry
from arena.recipes import training
from arena.store.local import Store
from arena.suites.schema import Suite

PAGE = Path("arena/engine/PROFILE.md")
MODEL, SAMPLES = "tiny-llava", 128
SUITE: dict[str, Any] = {
    "id": "profile",
    "title": "Cells whose time is looked at",
    "models": [MODEL],
    "datasets": [{"id": "glyphs", "train": SAMPLES, "auxiliary": 32, "test": 240}],
    "defenses": ["none", "em", "mmguard-bph"],
    "attacks": ["none", "jpeg"],
    "recipes": [{"id": "lora", "config": {"epochs": 5}}],
    "seeds": [0],
}
REST = "everything else"


class Clock:
    """Seconds by part; while a part runs the one around it does not."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._parts = [REST]
        self._since = time.perf_counter()

    def enter(self, part: str) -> None:
        self._switch()
        self._parts.append(part)

    def leave(self) -> None:
        self._switch()
        self._parts.pop()

    def _switch(self) -> None:
        now = time.perf_counter()
        self.seconds[self._parts[-1]] += now - self._since
        self._since = now

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with its time counted for a part."""

        def run(*given: Any, **named: Any) -> Any:
            self.enter(part)
            try:
                return function(*given, **named)
            finally:
                self.leave()

        return run

    def module(self, part: str, module: torch.nn.Module) -> None:
        """Count the forward passes of a module for a part."""
        module.register_forward_pre_hook(lambda *_: self.enter(part))
        module.register_forward_hook(lambda *_: self.leave(), always_call=True)


@contextmanager
def watched(lvlm: LVLM) -> Iterator[Clock]:
    """A clock that runs while the block does."""
    clock = Clock()
    for part, module in (
        ("vision tower, forward", lvlm.module(lvlm.vision_tower)),
        ("projector, forward", lvlm.module(lvlm.projector)),
        ("language model, forward", lvlm.module(lvlm.language_model)),
        ("output layer, forward", lvlm.model.get_output_embeddings()),
    ):
        clock.module(part, module)
    patches = (
        (torch.autograd, "backward", "backward"),
        (torch.autograd, "grad", "backward"),
        (torch.Tensor, "backward", "backward"),
        (torch.optim.AdamW, "step", "optimiser"),
        (type(lvlm), "pixel_inputs", "pixel pipeline"),
        (LVLM, "encode_text", "tokenizer"),
        (LVLM, "collate", "batches"),
        (training._Collator, "batch", "batches"),
        (training, "evaluate", "held-out evaluation, beside its passes"),
    )
    with ExitStack() as stack:
        for owner, name, part in patches:
            stack.enter_context(mock.patch.object(owner, name, clock.timed(part, getattr(owner, name))))
        clock._since = time.perf_counter()
        yield clock
        clock._switch()


def model() -> LVLM:
    return Registry().create("model", MODEL).load()


def of_recipe(id: str) -> Mapping[str, float]:
    """Parts of a fine-tuning of five epochs."""
    lvlm, samples = model(), Glyphs().load(SAMPLES, 0, 0, seed=5).train
    recipe = Registry().create("recipe", id, {"epochs": 5})
    with tempfile.TemporaryDirectory() as folder, watched(lvlm) as clock:
        training.fine_tune(lvlm, recipe, samples, 0, Path(folder))
    return clock.seconds


def of_defense(id: str) -> Mapping[str, float]:
    """Parts of crafting."""
    lvlm, samples = model(), Glyphs().load(SAMPLES, 0, 0, seed=5).train
    with watched(lvlm) as clock:
        list(Registry().create("defense", id).protect(samples, DefenderWorld(Budget(), 0, lambda: (lvlm,))))
    return clock.seconds


def of_stages() -> Mapping[str, float]:
    """Seconds of the stages of `SUITE` by kind, and what the run took beside them."""
    with tempfile.TemporaryDirectory() as place:
        store = Store(Path(place) / "store")
        start = time.perf_counter()
        report = run(
            Suite.model_validate(SUITE),
            store,
            Registry(),
            workers=1,
            results=Path(place) / "records.jsonl",
            console=Console(quiet=True),
        )
        took = time.perf_counter() - start
        if report.failed:
            raise SystemExit(f"{len(report.failed)} cells failed: {report.failed[0].failure}")
        kinds: dict[str, float] = defaultdict(float)
        for manifest in store.manifests():
            kinds[manifest.kind] += manifest.seconds
        return {**kinds, "processes, loading, files, harness": took - sum(kinds.values())}


def table(seconds: Mapping[str, float]) -> list[str]:
    total = sum(seconds.values())
    rows = sorted(seconds.items(), key=lambda each: -each[1])
    lines = [f"| {part} | {took:.1f} | {took / total:.0%} |" for part, took in rows if took >= 0.005 * total]
    return ["| part | seconds | share |", "|---|--:|--:|", *lines, f"| all | {total:.1f} | |", ""]


def page(sections: Sequence[tuple[str, Mapping[str, float]]]) -> str:
    lines = [
        "# Where the time of a cell goes",
        "",
        f"Made by `make profile` on {machine()}, one worker, one thread: `{MODEL}` on {SAMPLES} samples of glyphs.",
        "Parts of less than half a percent are left out.",
        "",
    ]
    for title, seconds in sections:
        lines += [f"## {title}", "", *table(seconds)]
    return "\n".join(lines)


def main() -> None:
    torch.set_num_threads(1)
    sections = [
        ("Fine-tuning: `lora`, five epochs", of_recipe("lora")),
        ("Fine-tuning: `full`, five epochs", of_recipe("full")),
        ("Crafting: `em`", of_defense("em")),
        ("Crafting: `mmguard-bph`", of_defense("mmguard-bph")),
        ("Six cells by stage: `none`, `em`, `mmguard-bph`, without attack and under JPEG", of_stages()),
    ]
    text = page(sections)
    PAGE.write_text(text, encoding="utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
