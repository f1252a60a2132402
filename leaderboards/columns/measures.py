"""What a board's tables have beside scores: how much a release shows, what it cost, what crafting says of itself."""

from __future__ import annotations

from leaderboards.columns.kind import Column, Frame

_RANKED: tuple[Frame, ...] = ("cells", "ranking")
_CELLS: tuple[Frame, ...] = ("cells",)
_NO_SEED = "null where no seed of the row is done"
_NO_STAGE = "null where no seed of the row that is done has the stage"

STEALTH = (
    Column(
        "stealth_max_delta", _RANKED, "number", "1/255, 0 to 255", "largest change of a colour value", _NO_SEED, "lower"
    ),
    Column(
        "stealth_mean_delta", _RANKED, "number", "1/255, 0 to 255", "mean change of a colour value", _NO_SEED, "lower"
    ),
    Column(
        "stealth_psnr",
        _RANKED,
        "number",
        "dB, above 0",
        "peak signal-to-noise ratio, over the pictures that changed",
        f"{_NO_SEED}, or no picture changed",
        "higher",
    ),
    Column(
        "stealth_ssim",
        _RANKED,
        "number",
        "-1 to 1",
        "structural similarity of pictures, 1 is the same",
        f"{_NO_SEED}, or every picture has a side below 3 pixels",
        "higher",
    ),
    Column(
        "stealth_ms_ssim",
        _RANKED,
        "number",
        "0 to 1",
        "structural similarity over five scales, 1 is the same",
        f"{_NO_SEED}, or every picture has a side below 176 pixels",
        "higher",
    ),
    Column(
        "stealth_ciede2000",
        _RANKED,
        "number",
        "CIEDE2000, at least 0",
        "mean difference in colour; 1 is about what people just see",
        _NO_SEED,
        "lower",
    ),
    Column(
        "stealth_identical_images",
        _RANKED,
        "number",
        "pictures, at least 0",
        "pictures that did not change",
        _NO_SEED,
    ),
    Column(
        "stealth_inserted_words",
        _RANKED,
        "number",
        "words a question, at least 0",
        "words that were inserted",
        _NO_SEED,
        "lower",
    ),
    Column(
        "stealth_edit_distance",
        _RANKED,
        "number",
        "characters a question, at least 0",
        "Levenshtein distance of questions",
        _NO_SEED,
        "lower",
    ),
    Column(
        "stealth_bleu",
        _RANKED,
        "number",
        "0 to 1",
        "BLEU of the released question against the original, 1 is the same",
        _NO_SEED,
        "higher",
    ),
    Column(
        "stealth_answer_leak",
        _RANKED,
        "number",
        "share of samples, 0 to 1",
        "samples whose inserted words hold the answer or an alias, or in a multiple-choice question the right option's "
        "letter or text",
        f"{_NO_SEED}, or the record is from before it was measured",
        "lower",
    ),
    Column(
        "stealth_perplexity_ratio",
        _RANKED,
        "number",
        "above 0, 1 is the same",
        "perplexity of the released question over that of the original, to the first surrogate, or without any to the "
        "fine-tuner's model",
        f"{_NO_SEED}, or no question changed, or it is not finite",
        "lower",
    ),
)
"""Means over samples, and over the records of the row: in ``cells`` its seeds, in ``ranking`` all of the defense.
Measured by `arena.score.stealth` on the bytes of the release."""

_NOT_REWRITTEN = (
    "null for protections and for attacks that cannot change questions, where no seed of the row is done, and in "
    "records from before it was measured"
)

MEANING = (
    Column(
        "meaning_changed",
        _CELLS,
        "number",
        "share of questions, 0 to 1",
        "clean training questions that the attack changed, of those that it kept",
        _NOT_REWRITTEN,
    ),
    Column(
        "meaning_accuracy_before",
        _CELLS,
        "number",
        "accuracy, 0 to 1",
        "accuracy of the base model, before any fine-tuning, on the same questions as they were",
        _NOT_REWRITTEN,
    ),
    Column(
        "meaning_accuracy",
        _CELLS,
        "number",
        "accuracy, 0 to 1",
        "accuracy of the base model, before any fine-tuning, on the clean training questions as the attack rewrites "
        "them, of the clean pictures",
        _NOT_REWRITTEN,
    ),
    Column(
        "meaning_similarity",
        _CELLS,
        "number",
        "cosine, -1 to 1",
        "mean similarity of the clean training questions as they were and as the attack rewrites them, to the sentence "
        "embedding that the suite names; 1 is the same",
        f"{_NOT_REWRITTEN}, or where the suite named none",
    ),
)
"""Of rows of the control `none`, means over the seeds of the row. Of a protection's release they would not be what an
attack costs: to take the protection's words out again is no loss of meaning. Measured by `arena.engine.stages.meaning`.
Where the base model answers hardly any question as it was, its accuracy cannot tell."""

COSTS = (
    Column(
        "protect_seconds_per_sample",
        _RANKED,
        "number",
        "seconds a sample, at least 0",
        "what crafting took",
        _NO_STAGE,
        "lower",
    ),
    Column(
        "protect_peak_memory_mb",
        _CELLS,
        "number",
        "MB, above 0",
        "most memory that crafting had for any seed",
        f"{_NO_STAGE}, or it could not be measured",
        "lower",
    ),
    Column(
        "purify_seconds_per_sample",
        _CELLS,
        "number",
        "seconds a sample, at least 0",
        "what the attack took before training",
        _NO_STAGE,
    ),
    Column(
        "purify_peak_memory_mb",
        _CELLS,
        "number",
        "MB, above 0",
        "most memory that the attack had for any seed",
        f"{_NO_STAGE}, or it could not be measured",
    ),
    Column(
        "finetune_seconds_per_sample",
        _CELLS,
        "number",
        "seconds a sample, at least 0",
        "what fine-tuning took",
        _NO_STAGE,
    ),
    Column(
        "finetune_peak_memory_mb",
        _CELLS,
        "number",
        "MB, above 0",
        "most memory that fine-tuning had for any seed",
        f"{_NO_STAGE}, or it could not be measured",
    ),
)
"""Of the machines on which the records were made: means over seeds, but for memory."""

PEAK = (
    Column(
        "peak_accuracy",
        _CELLS,
        "number",
        "accuracy, 0 to 1",
        "best accuracy of all epochs on test data, mean over seeds",
        f"{_NO_SEED}, and where not all epochs were scored, as with `checkpoints: best`",
        "lower",
    ),
)

_NOT_REPORTED = "null where the defense did not report it, or no seed of the row is done"


def _diagnostic(name: str, unit: str, meaning: str) -> Column:
    return Column(f"diagnostic_{name}", _CELLS, "number", unit, meaning, _NOT_REPORTED)


DIAGNOSTICS = (
    _diagnostic("rounds", "at least 1", "error-minimising noise: rounds that crafting took"),
    _diagnostic("surrogate_error", "0 to 1", "error-minimising noise: greatest error of a surrogate on its release"),
    _diagnostic("loss", "", "MMGuard: ensemble loss of the last round; what follows is MMGuard's too"),
    _diagnostic("loss-train", "nats, at least 0", "of the first surrogate: training loss"),
    _diagnostic("loss-bind", "", "of the first surrogate: binding loss"),
    _diagnostic("loss-joint", "", "of the first surrogate: both, weighted"),
    _diagnostic("loss-trigger->perturbation", "", "the binding loss's path from trigger to perturbed image tokens"),
    _diagnostic("loss-answer->trigger", "", "the binding loss's path from answer to trigger"),
    _diagnostic("loss-answer->perturbation", "", "the binding loss's path from answer to perturbed image tokens"),
    *(
        column
        for target in ("trigger", "perturbation")
        for column in (
            _diagnostic(f"{target}-eta", "at least 0", f"eta of Theorem 5.1 for the {target}, mean over samples"),
            _diagnostic(f"{target}-bound", "at most 1", f"bound 1 - sqrt(eta / 2) for the {target}, mean over samples"),
            _diagnostic(
                f"{target}-measured", "0 to 1", f"total variation measured for the {target}, mean over samples"
            ),
            _diagnostic(f"{target}-violations", "samples, at least 0", f"samples below the bound for the {target}"),
        )
    ),
)
"""What the defenses that come with the arena report; those of others may report anything."""
