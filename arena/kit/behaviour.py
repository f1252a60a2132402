"""Checks of what a plugin does on plain samples. Each returns what it saw, or raises `Failed` or `Skipped`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.stats import spearmanr

from arena.budget import Budget, colours
from arena.controls import ANSWER_WORD
from arena.data.sample import Sample
from arena.engine.determinism import contents
from arena.kit import material
from arena.kit.bench import SIZES, Bench, Failed, How, Made, Skipped
from arena.leak import inserted_words
from arena.text import bound_text

BUDGETS = (Budget(image=0, text=0), Budget(image=2, text=1), Budget(image=16, text=9))
"""Beside the usual one: nothing, a bound between two levels of 8 bits, and a large one."""

CROWD = 24
"""Samples that a property is tried on."""

_SORTED = 0.8
"""Rank correlation of brightness before and after, at which pictures count as in order."""

_FURTHER = 3
"""Seeds that are tried beside 0: two of them may agree by chance."""


def contract(bench: Bench) -> str:
    """What it returns is what its kind returns: types, count, order, ids, sizes, modes; answers are left alone."""
    made = bench.plain()
    if bench.kind == "defense":
        _in_order(bench, material.plain(12), made.samples)
        return f"{len(made.samples)} drafts, in order"
    if bench.kind == "attack":
        before = material.plain(12)
        if [s.id for s in before] == [s.id for s in made.samples]:
            _in_order(bench, before, made.samples)
        questions = {s.id: s.question for s in before}
        changed = next((s for s in made.samples if questions.get(s.id, s.question) != s.question), None)
        if changed is not None and not bench.card.rewrites:
            raise Failed(
                f"it says that it leaves questions alone (rewrites = False), and changes that of {changed.id!r}: leave "
                "`rewrites` out, so that what this costs in meaning is measured",
                bench.source.line("rewrites"),
            )
        return f"{len(made.samples)} samples to train on"
    if bench.kind == "dataset":
        return ", ".join(f"{size} {name}" for name, size in SIZES.items()) + " samples, no two parts share one"
    if bench.kind == "model":
        if made.reading["losses"] is None:
            raise Failed("its losses are NaN or infinite: look at the weights that it loads", bench.source.work)
        if not made.reading["reached"]:
            raise Failed(
                "no gradient of the loss reaches the pictures, so that nothing can be crafted on it", bench.source.work
            )
        if made.reading["training"]:
            raise Failed("the model is in training mode: call model.eval() in load", bench.source.work)
        return "finite losses, whose gradient reaches the pictures, and an answer each"
    return "an epoch whose losses are numbers, and its weights"


def _in_order(bench: Bench, before: Sequence[Sample], after: Sequence[Sample]) -> None:
    """The plain pictures become brighter from one to the next. A protection changes that by no more than its budget,
    or all of them alike; an attack may do what it likes to brightness, but not swap pictures."""
    was, now = ([float(colours(s.image).mean()) for s in samples] for samples in (before, after))
    if bench.kind == "defense":
        shift = np.mean(np.subtract(now, was))  # none where pictures only changed places
        swapped = any(int(np.abs(np.array(was) + shift - level).argmin()) != i for i, level in enumerate(now))
    else:
        swapped = len(set(now)) > 1 and float(spearmanr(was, now).statistic) < _SORTED
    if swapped:
        raise Failed(
            "its pictures come back in another order: return one a sample, in the order in which they came",
            bench.source.work,
        )


def budget(bench: Bench) -> str:
    """Released bytes are within the budget, whatever it is."""
    for bound in (Budget(), *BUDGETS):
        made = bench.plain(How(budget=bound))
        if made.over is not None:
            raise Failed(
                f"under a budget of {bound_text(bound.norm, bound.image)} and {bound.text} words it goes beyond it: "
                f"{made.over.removeprefix('budget: ')}",
                bench.source.work,
            )
    return ", ".join(f"{bound_text(bound.norm, bound.image)} with {bound.text} words" for bound in (Budget(), *BUDGETS))


def answer_words(bench: Bench) -> str:
    """No word that it inserts is of the sample's answer, or of the options, where the budget forbids these."""
    if bench.entry.id == ANSWER_WORD:
        raise Skipped("this control is exempt: it appends the answer")
    samples, made = material.plain(12), bench.plain()
    words = [inserted_words(a.question, b.question) for a, b in zip(samples, made.samples, strict=True)]
    if not any(words):
        raise Skipped("it inserts no words")
    pairs = enumerate(zip(samples, words, strict=True))
    again = bench.make([_answered(s, own[0], i) if own else s for i, (s, own) in pairs])
    if again.over is not None:
        raise Failed(
            "where answers are words that it inserts, it goes beyond the budget: "
            f"{again.over.removeprefix('budget: ')}: see `world.budget.forbidden(sample)`",
            bench.source.work,
        )
    return "none of them, also where answers and options are words that it inserts elsewhere"


def _answered(sample: Sample, word: str, number: int) -> Sample:
    """The sample with a word for its answer, or as one of several that are chosen from."""
    if number % 2:
        return replace(sample, answer="B", choices=("none of these", word))
    return replace(sample, answer=word)


def determinism(bench: Bench) -> str:
    """The same bytes again, from a process of an interpreter of its own in which sets are in another order."""
    once, again = bench.plain(), _again(bench, How(afresh=True))
    if once.contents == again.contents:
        return "the same from another interpreter, with sets in another order"
    third = _again(bench, How())
    if third.contents == once.contents:
        raise Failed(
            "it depends on the order of a set or on hash(), which only PYTHONHASHSEED holds still: sort what comes out "
            "of a set",
            bench.source.work,
        )
    raise Failed(
        f"{_difference(once, third)} when it is done again; draw from the seed alone, with world.rng() or a generator "
        "made of world.seed, and from nothing else: no clock, no os.urandom, no process id",
        bench.source.work,
    )


def _again(bench: Bench, how: How) -> Made:
    return bench.make(material.plain(12), how)


def _difference(one: Made, other: Made) -> str:
    if len(one.samples) != len(other.samples):
        return f"there are {len(one.samples)} samples and {len(other.samples)}"
    differ = sum(contents([a]) != contents([b]) for a, b in zip(one.samples, other.samples, strict=True))
    return f"{differ} of {len(one.samples)} samples differ" if differ else "what it makes differs"


def threads(bench: Bench) -> str:
    """The same bytes on one thread and on two."""
    if bench.uses_model:
        raise Skipped(
            "a model's sums of floats depend on the number of threads; suites run every stage on one, so that nothing "
            "follows from it"
        )
    if bench.plain().contents != _again(bench, How(threads=2)).contents:
        raise Failed(
            "it makes something else on two threads than on one: sum in a fixed order, and ask nothing how many "
            "threads there are",
            bench.source.work,
        )
    return "the same on two threads"


def seed(bench: Bench) -> str:
    """The seed matters just if it is needed, and nothing else draws at random."""
    if bench.kind == "dataset":
        parts = [contents(bench.plain(How(seed=number)).samples) for number in range(_FURTHER + 1)]
        if len(set(parts)) == 1:
            raise Failed(
                f"the seeds 0 to {_FURTHER} give the same samples: draw the splits by `seed`", bench.source.work
            )
        return "other samples under another seed"
    if (drawn := bench.plain().seen.get("drawn")) and not bench.uses_model:
        raise Failed(
            f"it draws from the global generator of {drawn[0]}, or sets it: use world.rng() or a generator of its own",
            bench.source.work,
        )
    if "seed" in bench.card.needs:
        once = bench.plain()
        others = (bench.plain(How(seed=number, globals_seed=0)) for number in range(1, _FURTHER + 1))
        if all(other.contents == once.contents for other in others):
            raise Failed(
                f"it needs the seed, and makes the same under the seeds 0 to {_FURTHER}: draw from world.rng(), or "
                "leave 'seed' out of `needs`, so that it is computed once for all seeds",
                bench.source.line("needs"),
            )
        return "something else under another seed"
    if bench.card.trains:
        raise Skipped("training draws from the global generators, so that nothing follows from them")
    if bench.plain(How(globals_seed=1)).contents != bench.plain().contents:
        raise Failed(
            "it draws from the global generators of random, numpy or torch and does not need the seed, so that all "
            "seeds have the same draw: use world.rng(), and declare needs = frozenset({'seed'})",
            bench.source.work,
        )
    return "needs none, and draws nothing"


def needs(bench: Bench) -> str:
    """It reads all that it declares, and nothing else."""
    read = {str(name): (bool(ok), str(line)) for name, (ok, line) in dict(bench.plain().seen.get("wanted", {})).items()}
    for name, (allowed, line) in sorted(read.items()):
        if not allowed and name in ("seed", "surrogates", "model", "auxiliary", "originals"):
            raise Failed(
                f"it asks for {name!r}, which it does not declare: put it into `needs`", line or bench.source.work
            )
    if idle := sorted(bench.card.needs - read.keys()):
        raise Failed(
            f"it declares the need {idle[0]!r} and never reads it: leave it out of `needs`, so that one result serves "
            f"the cells of every {idle[0].rstrip('s')}",
            bench.source.line("needs"),
        )
    return ", ".join(sorted(bench.card.needs)) or "nothing"


def firewall(bench: Bench) -> str:
    """It tries nothing that its process may not do."""
    for deed, what, line in bench.plain().seen.get("refused", []):
        raise Failed(
            f"it {deed} {what}, which its process may not: it has its samples, what its settings name, installed "
            "packages and its own folders, and no network",
            str(line),
        )
    return "nothing forbidden was tried"


def leftovers(bench: Bench) -> str:
    """No process that it started is left when it is done."""
    left = bench.plain().seen.get("left")
    if left is None:
        raise Skipped("this system does not say which processes a process has started")
    if left:
        raise Failed(
            f"{left} of the processes that it started still run when it is done: wait for them, they are killed with "
            "its own",
            bench.source.work,
        )
    return "no process is left running"


def prop(bench: Bench) -> str:
    """A release has what the method says that its releases have (`Defense.distinguished`)."""
    declared = bench.facts["distinguished"]
    if declared is None:
        raise Failed(
            "it does not say what distinguishes its releases: override `distinguished(samples, released, world)`, "
            "which returns None where a release has it, else what is wrong",
            bench.source.line(),
        )
    samples = material.plain(CROWD, seed=6)
    wrong = bench.distinguished(samples, How())
    if wrong is not None:
        raise Failed(f"a release of its own does not have what it claims: {wrong}", bench.source.line("distinguished"))
    return " ".join(str(declared).split())


def cost(bench: Bench) -> str:
    """What it takes; not judged."""
    one = bench.plain()
    if bench.kind == "dataset":
        return f"{one.seconds:.2g} s for {len(one.samples)} samples, {one.peak_memory_mb:.0f} MB at most"
    many = bench.make(material.plain(36, seed=7))
    slope = max(0.0, many.seconds - one.seconds) / 24
    return (
        f"{one.seconds:.2g} s for 12 samples and {many.seconds:.2g} s for 36 of 48 x 48 pixels, {slope:.2g} s for one "
        f"more; {many.peak_memory_mb:.0f} MB at most"
    )


def families(bench: Bench) -> str:
    """It works with the models of every family."""
    if not bench.uses_model or bench.kind == "model":
        raise Skipped("it uses no model")
    for family in bench.models.families:
        try:
            made = bench.make(material.plain(6), How(family=family))
        except Failed as failed:
            raise Failed(f"with a model of the family {family}: {failed.what}", failed.where) from None
        if made.over is not None:
            raise Failed(f"with a model of the family {family}: {made.over}", bench.source.work)
    return ", ".join(bench.models.families)
