"""Every field of a record, by the part that it stands in.

The descriptions stand here and not in `arena/records/schema.py`, since that is source of the engine: to word one anew
there would make every record stale.
"""

from __future__ import annotations

from leaderboards.columns.kind import Field

_HEX = "64 hex digits"
_ID = "id"
_COUNT = "at least 0"
_SHARE = "0 to 1"
_FAILED = "null where the cell failed"
_NO_NUMBER = "null where it is not finite"

RECORD = (
    Field("schema_version", "`2`", "", "shape of the record; `arena migrate` rewrites older ones"),
    Field("identity_version", "`1`", "", "how `cell` is computed"),
    Field("protocol_version", "whole number", _COUNT, "what training, release, scoring and splits do"),
    Field("cell", "text", _HEX, "the cell's name, a digest of what is asked"),
    Field("dataset", "dataset", "", "what is protected and learnt"),
    Field("model", "model", "", "the fine-tuner's model"),
    Field("defense", "defense", "", "the protection"),
    Field("attack", "attack", "", "what the fine-tuner does about it"),
    Field("recipe", "recipe", "", "how the fine-tuner trains"),
    Field(
        "knowledge",
        "`white-box` or `gray-box` or `black-box` or `none`",
        "",
        "how near the surrogates are to the fine-tuner's model: the same, of its family, of another; `none` without",
    ),
    Field("budget", "budget", "", "what the protection may change"),
    Field("auxiliary", "number", "share of the training size, at least 0", "clean samples of the attacker's own"),
    Field("seed", "whole number", _COUNT, "seed of the cell: of crafting, attack and training"),
    Field("suite", "suite", "", "the suite that asked first; others may have the same cell"),
    Field("status", "`done` or `failed`", "", "whether there is an outcome"),
    Field("failure", "failure", "", "what went wrong", "null where the cell is done"),
    Field("zero_shot", "outcome", "", "the model before fine-tuning", _FAILED),
    Field("outcome", "outcome", "", "the model of the epoch that the fine-tuner keeps, on the test items", _FAILED),
    Field(
        "peak_accuracy",
        "number",
        _SHARE,
        "best accuracy of all epochs on test data",
        "null where the cell failed, or where not all epochs were scored, as with `checkpoints: best`",
    ),
    Field("chosen_epoch", "whole number", "from 0", "place in `epochs` of the one that is kept", _FAILED),
    Field("epochs", "list of: epoch", "", "the training, epoch by epoch; empty where the cell failed"),
    Field(
        "stealth",
        "mapping of text to number",
        "as `stealth_NAME` of boards",
        "how much the release shows, by NAME; a value is null where the measure is undefined or not finite",
        _FAILED,
    ),
    Field(
        "meaning",
        "meaning",
        "",
        "what the attack left of the meaning of clean questions",
        "null where the cell failed, where its defense is not `none` or its attack cannot change questions, or kept "
        "none, and in records from before it was measured",
    ),
    Field("cost", "cost", "", "what the stages took"),
    Field(
        "diagnostics",
        "mapping of text to number",
        "as `diagnostic_NAME` of boards",
        "what the defense says of its crafting, by NAME; a value is null where it is not finite",
    ),
    Field("lineage", "lineage", "", "digests of what was made on the way"),
    Field("engine_digest", "text", f"{_HEX}, `schema-1` where migrated", "the source of the engine"),
    Field("environment", "environment", "", "where the cell was computed"),
    Field("created", "text", "ISO 8601, UTC", "when the record was made"),
)

PLUGIN = (
    Field("id", "text", _ID, "the plugin"),
    Field("version", "text", "", "the version that its class declares"),
    Field("config", "mapping of text to anything", "", "settings that are part of what the cell is"),
    Field("runtime", "mapping of text to anything", "", "the other settings, which change no result"),
    Field(
        "fingerprint",
        "text",
        "digest, or hub id and commit",
        "what the files, weights or hub ids are that the settings name",
        "null where they name none",
    ),
    Field("source_digest", "text", _HEX, "the source that ran"),
    Field("origin", "origin", "", "the package that it comes from"),
)

_LABEL = Field("label", "text", "", "the name that boards print, such as `em` or `mmguard-bph(q_steps=0)`")

PARTS: dict[str, tuple[Field, ...]] = {
    "record": RECORD,
    "plugin": PLUGIN,
    "recipe": (
        *PLUGIN,
        _LABEL,
        Field("sweep", "text", "label", "the choice among recipes that it is a member of", "null where it is none"),
        Field(
            "clean_cost",
            "number",
            "0 to 1",
            "how much less than the best of them it may reach on held-out clean data so that it can be chosen",
            "null where it is no member of a choice",
        ),
    ),
    "dataset": (
        *PLUGIN,
        Field("train", "whole number", f"samples, {_COUNT}", "training samples"),
        Field("auxiliary", "whole number", f"samples, {_COUNT}", "clean samples to draw the attacker's own from"),
        Field("test", "whole number", f"samples, {_COUNT}", "test items"),
        Field("seed", "whole number", _COUNT, "what draws the samples"),
        Field("convention", "text", "key", "what counts as a right answer"),
        Field("samples", "text", _HEX, "the samples that were drawn", "null where they could not be drawn"),
    ),
    "model": (
        *(field for field in PLUGIN if field.name != "fingerprint"),
        Field("fingerprint", "text", "digest, or hub id and commit", "its weights"),
        Field("family", "text", _ID, "its architecture"),
    ),
    "defense": (
        *PLUGIN,
        _LABEL,
        Field("surrogates", "list of: model", "", "the models that it was crafted on; empty where it needs none"),
    ),
    "attack": (
        Field("label", "text", "", "the name that boards print, such as `jpeg+case`"),
        Field("parts", "list of: plugin", "at least 1", "the attack, or the attacks that follow each other"),
        Field("chooses", "true or false", "", "whether it chooses what to do, by what the attacker has"),
        Field(
            "in_domain",
            "text",
            "",
            "what of it was made with clean data of the kind that is attacked",
            "null of nothing, and in records from before this was declared",
        ),
    ),
    "origin": (
        Field("package", "text", "", "its distribution"),
        Field("version", "text", "", "version of the distribution"),
    ),
    "budget": (
        Field("norm", "text", "such as `linf`", "the norm of `image`"),
        Field("image", "number", "1/255, or pixels of `l0`", "what may change of a picture"),
        Field("text", "whole number", f"words, {_COUNT}", "words that may be inserted into a question"),
        Field(
            "forbid_answer_words",
            "true or false",
            "",
            "whether these may not be words of the answer; false where a record does not say",
        ),
    ),
    "suite": (
        Field("id", "text", _ID, "the suite"),
        Field("digest", "text", _HEX, "what it asks"),
    ),
    "failure": (
        Field("stage", "text", "kind and label", "the stage that failed"),
        Field("error", "text", "", "its error"),
        Field("traceback", "text", "", "where it was raised"),
    ),
    "outcome": (
        Field("accuracy", "number", _SHARE, "share of test items that were answered right"),
        Field("items", "whole number", "at least 1", "test items"),
        Field("correct", "text", "base64 of `numpy.packbits`", "whether each item was answered right"),
        Field(
            "metrics",
            "mapping of text to number",
            "0 to 1 each",
            "means of the dataset's measures beside accuracy, such as `anls`; a value is null where it is not finite",
        ),
        Field(
            "cut",
            "whole number",
            "0 to `items`",
            "answers that ended at the limit of tokens, which is beyond the longest reference",
            "null in records from before it was counted",
        ),
    ),
    "meaning": (
        Field("samples", "whole number", "at least 1", "clean training questions that the attack kept"),
        Field("changed", "number", _SHARE, "share of them that it changed"),
        Field("accuracy_before", "number", _SHARE, "accuracy of the base model on them as they were"),
        Field("accuracy", "number", _SHARE, "accuracy of the base model on them as rewritten, of the clean pictures"),
        Field(
            "similarity",
            "number",
            "cosine, -1 to 1",
            "mean similarity of the sentence embeddings of both",
            "null where the suite named no embedding",
        ),
        Field(
            "embedding",
            "text",
            "digest, or hub id and commit",
            "the sentence embedding",
            "null where the suite named none",
        ),
    ),
    "epoch": (
        Field("loss", "number", "nats", "mean training loss", _NO_NUMBER),
        Field("held_out_accuracy", "number", _SHARE, "on what the fine-tuner held out of the training samples"),
        Field("held_out_loss", "number", "nats", "on the same", _NO_NUMBER),
        Field("test_accuracy", "number", _SHARE, "on the test items", "null where the epoch was not kept"),
    ),
    "cost": (
        Field("protect", "stage cost", "", "crafting the release", _FAILED),
        Field("purify", "stage cost", "", "the attack before training", "null without one, and where the cell failed"),
        Field("finetune", "stage cost", "", "fine-tuning", _FAILED),
        Field("machine", "text", "", "processor and cores"),
    ),
    "stage cost": (
        Field("seconds", "number", "seconds", "wall-clock time"),
        Field("seconds_per_sample", "number", "seconds a sample", "the same by samples of the stage"),
        Field("peak_memory_mb", "number", "MB", "peak resident memory", "null where it could not be measured"),
    ),
    "lineage": (
        Field("clean", "text", _HEX, "the clean training samples", _FAILED),
        Field("release", "text", _HEX, "the release", _FAILED),
        Field("purified", "text", _HEX, "the release after the attack; without one, the release", _FAILED),
        Field("checkpoint", "text", _HEX, "the fine-tuned weights", _FAILED),
        Field("score", "text", _HEX, "the answers' judgement", _FAILED),
    ),
    "environment": (
        Field("packages", "mapping of text to text", "", "versions of Python and of packages that can matter"),
        Field("git_commit", "text", "40 hex digits", "the checkout", "null outside one"),
        Field("git_dirty", "true or false", "", "whether it had changes that were not committed", "null outside one"),
        Field("device", "text", "", "what tensors were on"),
        Field("threads", "whole number", "at least 1", "threads of a stage"),
        Field("nondeterminism", "list of: text", "", "what could not be made deterministic"),
        Field(
            "isolation",
            "`landlock` or `process` or `none`",
            "",
            "what kept plugins to their own: the weakest of the cell's stages",
            "null in records from before there was any, and where the cell failed",
        ),
    ),
}
"""The parts of a record, and of those, by name."""
