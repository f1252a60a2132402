"""Computes one stage from its document and the store, in a worker.

Every party's world is built here, from what its plugin declares and the plan granted, and from nothing else: no object
handed to a plugin leads to the test data, to a clean original (attacker) or to an attack (defender).
"""

from __future__ import annotations

import faulthandler
import random
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from arena.budget import Budget
from arena.data.sample import Sample, digest
from arena.engine.job import Document, Job, attacker_world, defender_world, load_model, load_models, party_seed
from arena.environment import quiet_libraries, stage_environment
from arena.errors import ArenaError
from arena.plugins.base import Attack, Dataset, Defense, Recipe
from arena.release import build_release, write_release
from arena.store.local import MissingArtifact, Store, StoreError

if TYPE_CHECKING:
    from arena.lvlm.base import LVLM

THREADS = 1
"""Torch threads of a stage: parallel work is stages side by side, and sums of floats depend on the thread count."""


@dataclass(frozen=True)
class Result:
    """How a stage ended: done, failed by itself, an input gone, or the store unusable. Plain: it crosses processes."""

    status: Literal["done", "failed", "missing", "unusable"]
    computed: bool = False
    message: str = ""
    trace: str = ""
    key: str = ""


def run_stage(key: str, document: Document, url: str, limit: float | None, crowded: bool = False) -> Result:
    """Compute artifact `key` into the store at `url` unless it is there.

    With a `limit` in seconds this process is the stage's own: if it is still at it then, it is ended, whatever it is
    doing, and leaves its stack in `overrun_file`. `crowded`: other stages compute in this process at the same time.
    """
    quiet_libraries()
    try:
        store = Store(url)
        with store.claim(key):
            if store.get(key) is not None:
                return Result("done")
            _compute(key, document, store, limit, crowded)
        return Result("done", computed=True)
    except MissingArtifact as error:
        return Result("missing", message=str(error), key=error.key)
    except StoreError as error:
        return Result("unusable", message=str(error))
    except (Exception, SystemExit) as error:
        return Result("failed", message=describe_error(error), trace=_trace(error))


def follow_stage(key: str, document: Document, url: str) -> None:
    """The part of another process in a stage that several compute together: the same work, and nothing of it kept."""
    quiet_libraries()
    _seed_globals(document)
    with tempfile.TemporaryDirectory(prefix="arena-follow-") as folder:
        COMPUTE[document["kind"]](Job(document, Store(url), Path(folder), key))


def overrun_file(store: Store, key: str) -> Path:
    """Where a stage past its limit leaves its stack."""
    return store.folder / "overruns" / f"{key}.txt"


def _compute(key: str, document: Document, store: Store, limit: float | None, crowded: bool) -> None:
    kind = document["kind"]
    if kind != "data":
        _seed_globals(document)
    stack = overrun_file(store, key)
    stack.parent.mkdir(parents=True, exist_ok=True)
    with stack.open("w", encoding="utf-8") as file:
        if limit is not None:  # C code: it fires even while a plugin holds the interpreter lock
            faulthandler.dump_traceback_later(limit, exit=True, file=file)
        try:
            with store.put(key, kind, document, stage_environment(THREADS, crowded)) as folder:
                COMPUTE[kind](Job(document, store, folder, key))
        finally:
            if limit is not None:
                faulthandler.cancel_dump_traceback_later()
    stack.unlink(missing_ok=True)
    store.clear_workspace(key)


def _seed_globals(document: Document) -> None:
    import torch

    seed = party_seed("globals", document.get("seed", 0))
    random.seed(seed)
    np.random.seed(seed)  # libraries that plugins use may draw from the global generator
    torch.manual_seed(seed)
    torch.set_num_threads(THREADS)


# Stages


def _data(job: Job) -> None:
    d = job.document
    splits = cast(Dataset, job.create("dataset")).load(d["train"], d["auxiliary"], d["test"], d["seed"])
    samples = getattr(splits, d["split"])
    if len(samples) != d["size"]:
        raise ArenaError(
            f"dataset {d['dataset']['id']!r}: it gave {len(samples)} {d['split']} samples instead of {d['size']}"
        )
    _write_samples(job, samples)


def _release(job: Job) -> None:
    d = job.document
    defense = cast(Defense, job.create("defense"))
    budget = Budget.model_validate(d["budget"]) if "budget" in d else Budget(norm="linf", image=0, text=0)
    samples = job.samples("train")
    models = partial(load_models, tuple(d["surrogates"])) if "surrogates" in d else None
    world = defender_world(job, budget, models)
    tokens = None if models is None else _TokenCounter(partial(load_models, tuple(d["surrogates"][:1])))
    _write_samples(job, build_release(samples, defense.protect(samples, world), budget, tokens))
    job.write("diagnostics.json", {name: float(value) for name, value in world.diagnostics.items()})


def _stealth(job: Job) -> None:
    from arena.score.stealth import stealth

    originals, released = job.samples("originals"), job.samples("release")
    lvlm: list[LVLM] = []

    def perplexity(texts: list[str]) -> list[float]:
        if not lvlm:
            lvlm.append(load_model(job.document["reader"]))
        return lvlm[0].perplexities(texts)

    changed = any(a.question != b.question for a, b in zip(originals, released, strict=True))
    job.write("stealth.json", stealth(originals, released, perplexity if changed else None))


def _fit(job: Job) -> None:
    cast(Attack, job.create("attack")).fit(attacker_world(job, job.document), job.folder)


def _purified(job: Job) -> None:
    attack = cast(Attack, job.create("attack"))
    samples = list(attack.purify(job.samples("samples"), attacker_world(job, job.document)))
    if not samples:
        raise ArenaError(f"attack {job.document['attack']['id']!r}: it left no sample to train on")
    _write_samples(job, samples)


def _fine_tuned(job: Job) -> None:
    from arena.recipes.training import fine_tune

    d = job.document
    hooks = None
    for part in d["training"]:
        attack = cast(Attack, job.create("attack", part["attack"]))
        hooks = attack.training(attacker_world(job, part, f"-{part['place']}"))
    recipe = cast(Recipe, job.create("recipe"))
    fine_tune(
        load_model(d["model"]), recipe, job.samples("samples"), party_seed("fine-tune", d["seed"]), job.folder, hooks
    )


def _zero_shot(job: Job) -> None:
    job.write("outcome.json", _answer(load_model(job.document["model"]), job.samples("test"), job.document))


def _scored(job: Job) -> None:
    from arena.recipes.training import kept_epochs, load_epoch, read_history, tuned_model

    d = job.document
    adapter, test = job.path("adapter"), job.samples("test")
    recipe = cast(Recipe, job.create("recipe"))
    tuned = tuned_model(load_model(d["model"]), recipe, party_seed("fine-tune", d["seed"]))
    history = read_history(adapter)
    accuracies, outcome = {}, Document()
    for epoch in kept_epochs(adapter):
        load_epoch(tuned, adapter, epoch)
        answered = _answer(tuned, test, d)
        accuracies[epoch] = sum(answered["correct"]) / len(test)
        if epoch == history.chosen:
            outcome = answered
    epochs = [
        {
            "loss": e.loss,
            "held_out_loss": e.held_out_loss,
            "held_out_accuracy": e.held_out_accuracy,
            "test_accuracy": accuracies.get(i),
        }
        for i, e in enumerate(history.epochs)
    ]
    job.write("outcome.json", {**outcome, "chosen": history.chosen, "epochs": epochs})


COMPUTE: dict[str, Callable[[Job], None]] = {
    "data": _data,
    "zero-shot": _zero_shot,
    "release": _release,
    "stealth": _stealth,
    "fit": _fit,
    "purified": _purified,
    "fine-tuned": _fine_tuned,
    "scored": _scored,
}


class _TokenCounter:
    """Tokens of a text under the first surrogate's tokenizer, loaded when the first text is counted."""

    def __init__(self, load: Callable[[], tuple[LVLM, ...]]) -> None:
        self._load = load
        self._tokenizer: Any = None

    def __call__(self, text: str) -> int:
        if self._tokenizer is None:
            self._tokenizer = self._load()[0].tokenizer
        return len(self._tokenizer(text, add_special_tokens=False)["input_ids"])


def _answer(lvlm: LVLM, test: Sequence[Sample], document: Document) -> Document:
    """Greedy answers to the test questions, 1 where the dataset's convention accepts one, and the means of its measures
    if it has some."""
    from arena.score.answers import CONVENTIONS

    convention = document["convention"]
    if convention not in CONVENTIONS:
        raise ArenaError(f"no scoring convention is called {convention!r}; there are {', '.join(sorted(CONVENTIONS))}")
    accepts = CONVENTIONS[convention]
    answers = lvlm.generate(test)
    pairs = list(zip(answers, test, strict=True))
    answered: Document = {"answers": answers, "correct": [int(accepts(answer, sample)) for answer, sample in pairs]}
    if "measures" in document:
        from arena.score.measures import MEASURES

        answered["metrics"] = {
            name: sum(MEASURES[name](answer, sample) for answer, sample in pairs) / len(pairs)
            for name in document["measures"]
        }
    return answered


def _write_samples(job: Job, samples: Sequence[Sample]) -> None:
    write_release(samples, job.folder / "samples")
    job.write("samples.json", {"count": len(samples), "digest": digest(samples)})


# Failures


def describe_error(error: BaseException) -> str:
    """``ValueError: text``, without a type for the arena's own paragraphs."""
    return str(error) if isinstance(error, ArenaError) else f"{type(error).__name__}: {error}"


def _trace(error: BaseException) -> str:
    """The traceback, with files named below their package roots: records are published."""
    text = "".join(traceback.format_exception(error))
    roots = sorted(
        {str(Path(entry).absolute()) for entry in sys.path if entry} | {str(Path.cwd())}, key=len, reverse=True
    )
    for root in roots:
        text = text.replace(f"{root}/", "")
    return text.replace(f"{Path.home()}/", "~/")
