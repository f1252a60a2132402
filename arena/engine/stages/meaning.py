"""What an attack's rewriting costs the meaning of clean questions: whether the base model still answers them, and how
near they are to what they were, to a sentence embedding.

Both are the harness's: they need the originals, which no attacker ever holds, and nothing of what they find goes back
to one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from arena.data.sample import Sample
from arena.engine.job import Desk, Job, write_json
from arena.engine.stages.answering import ANSWERS, LIMIT, judge, limit, most_tokens, read_answers, with_ids
from arena.engine.stages.base import ANSWER, FORWARD, SAMPLES, TOKENS, Artifact, Costs, Fields, Input, Stage, read_made
from arena.errors import ArenaError, ChangedSource
from arena.plugins.source import source_digest
from arena.plugins.spec import PluginSpec, load_model
from arena.release import HIDDEN, write_release

EMBEDDING = "arena.lvlm.embedding"
"""What knows sentence embeddings, by name: it shares the hub and checkpoints with models, parts of whose source would
else become the engine's. No outcome depends on it; its digest is part of the artifacts' keys."""


@dataclass(frozen=True, kw_only=True)
class Meaning(Stage):
    """Accuracy of the base model on the clean training questions as the attack rewrites them, of the clean pictures.

    Samples are matched by their ids: what the attack left out or brought along does not count. Questions that did not
    change are not asked again; `before` is how the model answered the originals.
    """

    kind = "meaning"
    seconds_per_sample = 0.005

    model: PluginSpec
    convention: str
    originals: Input
    rewritten: Input
    before: Input

    def hand_over(self, job: Job, given: Path) -> None:
        originals = job.samples("originals")
        changed = _changed(_rewritten(job, originals), originals)
        write_json(given / LIMIT, most_tokens(_texts(sample) for sample in originals))
        if changed:
            hidden = (replace(s, id=f"{place:06d}", answer=HIDDEN, aliases=()) for place, s in changed.items())
            write_release(hidden, given / "test")

    def named(self, message: str, job: Job) -> str:
        return with_ids(message, job.path("originals") / SAMPLES)

    def run(self, desk: Desk) -> None:
        asked = desk.has("test")
        desk.write(ANSWERS, {"0": load_model(self.model).answers(desk.samples("test"), limit(desk)) if asked else []})

    def collect(self, job: Job, made: Path) -> None:
        originals = job.samples("originals")
        rewritten = _rewritten(job, originals)
        changed = _changed(rewritten, originals)
        (said,) = read_answers(made, len(changed)).values()
        judged = judge(said, [originals[place] for place in changed], self.convention, ())["correct"]
        before = read_made(job.path("before") / "outcome.json", "outcome.json")["correct"]
        after = {place: before[place] for place in rewritten} | dict(zip(changed, judged, strict=True))
        count = len(rewritten)
        job.write(
            "meaning.json",
            {
                "samples": count,
                "changed": len(changed) / count,
                "accuracy_before": sum(before[place] for place in rewritten) / count,
                "accuracy": sum(after.values()) / count,
            }
            if count
            else None,
        )

    def add_to(self, fields: Fields, role: str, artifact: Artifact) -> None:
        fields["meaning"] = artifact.json("meaning.json")

    def flops(self, costs: Costs) -> float:
        return self.size * FORWARD * (TOKENS + ANSWER) * costs.parameters(self.model)


@dataclass(frozen=True, kw_only=True)
class Similarity(Stage):
    """Mean cosine of the sentence embeddings of the clean training questions and of what the attack makes of them.

    No plugin runs, so that the process may fetch the embedding from the hub. `fingerprint` is a digest of the folder's
    files, or the hub id and its commit; where there is none, `problem` says why, and the stage fails by it.
    """

    kind = "similarity"
    seconds_per_sample = 0.01
    preload = ("torch", "transformers")
    network = True

    embedding: str
    fingerprint: str
    problem: str
    originals: Input
    rewritten: Input

    @property
    def plugin(self) -> str:
        return f"embedding {self.embedding!r}"

    @cached_property
    def made_by(self) -> Fields:
        return {**super().made_by, "source": source_digest(EMBEDDING, frozenset({"arena"}))}

    def hand_over(self, job: Job, given: Path) -> None:
        originals = job.samples("originals")
        rewritten = _rewritten(job, originals)
        texts = [[originals[place].question, sample.question] for place, sample in rewritten.items()]
        write_json(given / "texts.json", texts)
        folder, known = Path(self.embedding), embeddings()
        if self.problem or not folder.is_dir():
            return
        if known.fingerprint(self.embedding, "") != self.fingerprint:
            raise ChangedSource(
                f"{self.plugin}: its files are not what they were when the plan was made; run again once they have "
                "stopped changing"
            )
        known.copy(folder, given / "embedding")

    def run(self, desk: Desk) -> None:
        if self.problem:
            raise ArenaError(self.problem)
        pairs = json.loads(desk.path("texts.json").read_text(encoding="utf-8"))
        name, _, commit = self.fingerprint.rpartition("@")
        where = (str(desk.path("embedding")), "main") if desk.has("embedding") else (name, commit)
        desk.write("similarities.json", embeddings().similarities(pairs, *where) if pairs else [])

    def collect(self, job: Job, made: Path) -> None:
        originals = job.samples("originals")
        count = len(_rewritten(job, originals))
        found = read_made(made / "similarities.json", "similarities.json")
        if not isinstance(found, list) or not all(isinstance(value, int | float) for value in found):
            raise ArenaError("similarities.json holds other things than numbers")
        if len(found) != count:
            raise ArenaError(f"there are {len(found)} similarities of {count} questions")
        job.write("similarity.json", sum(found) / count if count else None)

    def add_to(self, fields: Fields, role: str, artifact: Artifact) -> None:
        if fields["meaning"] is not None:
            fields["meaning"] |= {"similarity": artifact.json("similarity.json"), "embedding": self.fingerprint}


def embeddings() -> Any:
    """The module `EMBEDDING`."""
    return import_module(EMBEDDING)


def _rewritten(job: Job, originals: Sequence[Sample]) -> dict[int, Sample]:
    """The originals that the attack kept, by their places, with the questions that it left them."""
    questions = {sample.id: sample.question for sample in job.samples("rewritten")}
    return {
        place: sample.with_content(sample.image, questions[sample.id])
        for place, sample in enumerate(originals)
        if sample.id in questions
    }


def _changed(rewritten: dict[int, Sample], originals: Sequence[Sample]) -> dict[int, Sample]:
    return {place: sample for place, sample in rewritten.items() if sample.question != originals[place].question}


def _texts(sample: Sample) -> Fields:
    """What the limit of tokens follows from."""
    return {"answer": sample.answer, "aliases": sample.aliases, "choices": sample.choices}
