"""The fine-tuned model's answers to clean test questions."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from arena.engine.job import Desk, Job, party_seed
from arena.engine.stages.answering import ANSWERS, hand_over_test, judge, limit, read_answers, with_ids
from arena.engine.stages.base import ANSWER, FORWARD, SAMPLES, TOKENS, Artifact, Costs, Fields, Input, Stage, read_made
from arena.engine.stages.fine_tune import epochs_kept
from arena.errors import ArenaError
from arena.plugins.base import Recipe
from arena.plugins.spec import PluginSpec, load_model


@dataclass(frozen=True, kw_only=True)
class Score(Stage):
    """Accuracy of every epoch that was kept, and each item of the one that the fine-tuner chose."""

    kind = "scored"
    revision = 2
    seconds_per_sample = 0.04
    preload = (*Stage.preload, "arena.recipes.training")

    model: PluginSpec
    recipe: PluginSpec
    convention: str
    measures: tuple[str, ...]
    seed: int
    adapter: Input
    test: Input

    def hand_over(self, job: Job, given: Path) -> None:
        self.copy(job, "adapter", given)
        hand_over_test(self, job, given)

    def named(self, message: str, job: Job) -> str:
        return with_ids(message, job.path("test") / SAMPLES)

    def run(self, desk: Desk) -> None:
        from arena.lvlm.shortcuts import same_pictures, tower_rests
        from arena.recipes.training import kept_epochs, load_epoch, tuned_model

        adapter, test, most = desk.path("adapter"), desk.samples("test"), limit(desk)
        recipe = cast(Recipe, self.recipe.create())
        tuned = tuned_model(load_model(self.model), recipe, party_seed("fine-tune", self.seed))
        said, epochs = {}, kept_epochs(adapter)
        again = len(epochs) > 1 and tower_rests(tuned)
        with same_pictures(tuned, several=True) if again else nullcontext():
            for epoch in epochs:
                load_epoch(tuned, adapter, epoch)
                said[str(epoch)] = tuned.answers(test, most)
        desk.write(ANSWERS, said)

    def collect(self, job: Job, made: Path) -> None:
        test = job.samples("test")
        history = read_made(job.path("adapter") / "history.json", "history.json")
        accuracies: dict[int, float] = {}
        outcome: Fields = {}
        for epoch, said in read_answers(made, len(test)).items():
            answered = judge(said, test, self.convention, self.measures)
            accuracies[epoch] = sum(answered["correct"]) / len(test)
            if epoch == history["chosen"]:
                outcome = answered
        if not outcome:
            raise ArenaError(f"{ANSWERS} lacks the answers of epoch {history['chosen']}, which was chosen")
        epochs = [{**epoch, "test_accuracy": accuracies.get(i)} for i, epoch in enumerate(history["epochs"])]
        job.write("outcome.json", {**outcome, "chosen": history["chosen"], "epochs": epochs})

    def global_seed(self) -> int:
        return self.seed

    def add_to(self, fields: Fields, role: str, artifact: Artifact) -> None:
        scored = artifact.json("outcome.json")
        fields["outcome"] = scored["correct"], scored.get("metrics"), scored["cut"]
        fields["epochs"], fields["chosen_epoch"] = scored["epochs"], scored["chosen"]
        accuracies = [epoch["test_accuracy"] for epoch in scored["epochs"]]
        # Of some epochs alone the best is not the peak: it would be that of the chosen one, whatever the others did.
        fields["peak_accuracy"] = None if None in accuracies else max(accuracies)
        fields["lineage"]["score"] = artifact.manifest.digest

    def flops(self, costs: Costs) -> float:
        kept = epochs_kept(cast(Recipe, costs.plugin(self.recipe)))
        return kept * self.size * FORWARD * (TOKENS + ANSWER) * costs.parameters(self.model)
