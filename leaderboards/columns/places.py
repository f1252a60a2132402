"""Where a row of a board's tables stands: what it is about, how much there is of it, what went wrong."""

from __future__ import annotations

from leaderboards.columns.kind import Column, Frame

_PLACED: tuple[Frame, ...] = ("cells", "ranking", "failures")
_ATTACKED: tuple[Frame, ...] = ("cells", "failures")
_ALL: tuple[Frame, ...] = ("cells", "ranking", "failures", "power")

PLACES = (
    Column("dataset", _ALL, "text", "id", "the dataset, with the settings that tell it from others of that id"),
    Column("model", _ALL, "text", "id", "the fine-tuner's model, with the settings that tell it from others"),
    Column("defense", _PLACED, "text", "label", "the protection; `none` is the unprotected release"),
    Column(
        "control",
        _PLACED,
        "true or false",
        "",
        "whether the protection is what others are compared with, and not ranked: `none`, `random`, `random-words` or "
        "`answer-word`",
    ),
    Column(
        "surrogates",
        _PLACED,
        "text",
        "ids joined by `+`",
        "the models that the protection was crafted on; empty where it needs none",
    ),
    Column(
        "knowledge",
        _PLACED,
        "text",
        "`white-box`, `gray-box`, `black-box`, `none`",
        "how near the surrogates are to the fine-tuner's model; `none` where there are none",
    ),
    Column("norm", _PLACED, "text", "such as `linf`", "the norm of the picture budget; `none` for the defense `none`"),
    Column("image_budget", _PLACED, "number", "1/255, or pixels of `l0`, at least 0", "what a protection may change"),
    Column("text_budget", _PLACED, "whole number", "words, at least 0", "how many words a protection may insert"),
    Column(
        "forbid_answer_words",
        _PLACED,
        "true or false",
        "",
        "whether these words may not be of the answer, from which the control `answer-word` is exempt; false for the "
        "defense `none`, and in records from before there was the rule",
    ),
    Column("attack", _ATTACKED, "text", "label", "what the fine-tuner does about the protection; `none` is nothing"),
    Column(
        "auxiliary",
        _ATTACKED,
        "number",
        "share of the training size, at least 0",
        "clean samples that the attacker has of their own",
    ),
    Column(
        "auxiliary",
        ("ranking",),
        "number",
        "share of the training size, at least 0",
        "clean samples that the attacker has at most",
    ),
    Column(
        "in_domain",
        _ATTACKED,
        "true or false",
        "",
        "whether the attack was made with clean data of the kind that is attacked, which `auxiliary` does not count",
    ),
    Column(
        "in_domain",
        ("ranking",),
        "true or false",
        "",
        "whether the attacker has attacks that were made with clean data of the kind that is attacked",
    ),
    Column("recipe", _ATTACKED, "text", "label", "how the fine-tuner trains"),
)

COUNTS = (
    Column("items", ("cells", "power"), "whole number", "at least 1", "test items of a cell"),
    Column("seeds", ("cells",), "whole number", "at least 0", "seeds of the row that are done"),
    Column("failed", ("cells",), "whole number", "at least 0", "seeds of the row that failed"),
    Column(
        "chosen_recipes",
        ("cells",),
        "text",
        "labels, each with a number of seeds",
        "which recipes the fine-tuner chose, where the recipe is a choice among several (`sweep`)",
        "null where it is none",
    ),
    Column(
        "left_out",
        ("cells",),
        "text",
        "a reason",
        "why the attack is nobody's choice in the worst case: it misses its bar on clean data",
        "null where it is one",
    ),
    Column(
        "group",
        ("ranking",),
        "whole number",
        "from 1",
        "the group of the ranking: within one, no robust protection differs significantly from the group's first",
        "null where robust_protection has no interval, for controls, which are not ranked, and where the task is unfit",
    ),
    Column("attacked", ("ranking",), "true or false", "", "whether the attacker has any attack to choose"),
    Column(
        "choices",
        ("ranking",),
        "whole number",
        "at least 1",
        "what the attacker can choose: attack, recipe and share of clean data",
    ),
    Column("recipes", ("ranking",), "whole number", "at least 1", "recipes that the attacker has"),
    Column(
        "chooser",
        ("ranking",),
        "text",
        "label",
        "the attack that chooses what to do by what the attacker has, which robust_protection is of",
        "null where there is none, and robust_protection is that of the worst case",
    ),
    Column(
        "unfit",
        ("ranking", "power"),
        "text",
        "a reason",
        "why the task is not ranked: its controls miss a bar of `leaderboards/bars.yaml`",
        "null where it is, and where no bars are held against it",
    ),
    Column(
        "best_attack",
        ("ranking",),
        "text",
        "label",
        "the attack that is chosen in the worst case",
        "null where not all choices of the attacker are done",
    ),
    Column(
        "best_recipe",
        ("ranking",),
        "text",
        "label",
        "the recipe that is chosen in the worst case",
        "null where not all choices of the attacker are done",
    ),
    Column(
        "seeds",
        ("ranking",),
        "whole number",
        "at least 0",
        "seeds that all cells have in common that the attacker chooses from",
    ),
    Column("seeds", ("power",), "whole number", "at least 1", "seeds of any cell of the dataset and model"),
)

FAILURES = (
    Column("seed", ("failures",), "whole number", "at least 0", "the seed of the cell"),
    Column("stage", ("failures",), "text", "kind and label", "the stage that failed"),
    Column("error", ("failures",), "text", "", "the first line of its error"),
    Column("cell", ("failures",), "text", "64 hex digits", "the cell's name, as in its record"),
)

_CONTROL = "null where no control without attack is done"

POWER = (
    Column("recipe", ("power",), "text", "label", "that which is best on clean data; the next are its", _CONTROL),
    Column("clean", ("power",), "number", "accuracy, 0 to 1", "after fine-tuning on clean data", _CONTROL),
    Column(
        "gain",
        ("power",),
        "number",
        "accuracy, -1 to 1",
        "clean minus the model before fine-tuning",
        f"{_CONTROL}, or no record has the model's answers before fine-tuning",
    ),
    Column(
        "noise_floor",
        ("power",),
        "number",
        "accuracy, -1 to 1",
        "the drop by random noise without attack, of the budget where it is largest",
        "null where the defense `random` has no cell that is done with that recipe",
    ),
    Column("headroom", ("power",), "number", "accuracy, 0 to 1", "what clean leaves to 1", _CONTROL),
    Column(
        "minimum_detectable_difference",
        ("power",),
        "number",
        "accuracy, above 0",
        "the smallest true difference from clean data that a two-sided test at 5 % finds with probability 0.8, the "
        "median over the drops",
        "null where no cell of a protection shares two seeds with its control",
    ),
)
