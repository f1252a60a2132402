"""Suite files: what is read, what is refused, and the line that errors name."""

import dataclasses
import textwrap

import pytest

from arena.budget import Budget
from arena.errors import UsageError
from arena.plugins.base import PluginConfig
from arena.plugins.registry import Registry, near_misses
from arena.suites.parts import TARGET, Skip
from arena.suites.schema import Suite, digest, load_suite
from arena.suites.shipped import find_suite
from arena.suites.validation import validate

QUICK = """\
id: quick
title: A title
models: [tiny]
datasets:
  - {id: glyphs, train: 256, auxiliary: 26, test: 300, seed: 1}
defenses:
  - none
  - random
  - id: em
    config: {rounds: 3, mode: fast}
    surrogates: [target, tiny-b]
    budgets: [{image: 4}]
attacks:
  - none
  - jpeg
  - {id: jpeg, config: {quality: 30}}
  - {id: jpeg+case, config: {jpeg: {quality: 30}}}
  - {id: mix, auxiliary: 0.1}
recipes: [lora]
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "quick.yaml"
        path.write_bytes(text if isinstance(text, bytes) else textwrap.dedent(text).encode())
        return path

    return write


KNOWN = {
    "model": {"tiny": [], "tiny-b": []},
    "dataset": {"glyphs": []},
    "defense": {"none": [], "random": [], "em": ["rounds", "mode"]},
    "attack": {"none": [], "jpeg": ["quality"], "case": [], "mix": []},
    "recipe": {"lora": ["rank"]},
}


class FakeRegistry:
    """Known ids and their settings, refusing as the real one does."""

    def configure(self, kind, id, config=None):
        if id not in KNOWN[kind]:
            raise UsageError(f"no {kind} is called {id!r}{near_misses(id, KNOWN[kind])}")
        if unknown := set(config or {}) - set(KNOWN[kind][id]):
            raise UsageError(f"{kind} {id!r}: there is no setting {unknown.pop()!r}")
        return PluginConfig()


def test_a_suite_is_read_with_its_defaults(write):
    suite = load_suite(write(QUICK))
    assert suite.id == "quick"
    assert suite.seeds == (0, 1, 2)
    assert suite.budgets == (Budget(norm="linf", image=8, text=5),)
    assert suite.auxiliary == 0
    assert suite.limits.stage_minutes == 60
    assert [s.id for s in suite.surrogates] == [TARGET]
    assert (suite.datasets[0].train, suite.datasets[0].test, suite.datasets[0].seed) == (256, 300, 1)
    em = suite.defenses[2]
    assert em.config == {"rounds": 3, "mode": "fast"}
    assert [s.id for s in em.surrogates] == ["target", "tiny-b"]
    assert em.budgets == (Budget(image=4),)
    assert suite.defenses[0].budgets is None and suite.defenses[0].surrogates is None
    assert suite.attacks[4].auxiliary == 0.1 and suite.attacks[0].auxiliary is None
    validate(suite, FakeRegistry())


def test_labels_are_ids_with_the_settings_given(write):
    suite = load_suite(write(QUICK + "description: again\n"))
    assert [use.label for use in suite.defenses] == [
        "none",
        "random",
        "em(rounds=3, mode=fast, surrogates=target+tiny-b)",
    ]
    assert [use.label for use in suite.attacks] == [
        "none",
        "jpeg",
        "jpeg(quality=30)",
        "jpeg(quality=30)+case",
        "mix(auxiliary=0.1)",
    ]
    named = load_suite(write(QUICK.replace("{id: mix,", "{id: mix, label: ten percent,")))
    assert named.attacks[4].label == "ten percent"


def test_parts_of_an_attack(write):
    attacks = load_suite(write(QUICK)).attacks
    assert attacks[2].parts == (("jpeg", {"quality": 30}),)
    assert attacks[3].parts == (("jpeg", {"quality": 30}), ("case", {}))


@pytest.mark.parametrize("text", ["surrogates: target\n", "surrogates: [target]\n", "surrogates: [{id: target}]\n", ""])
def test_the_target_as_a_surrogate(write, text):
    assert digest(load_suite(write(QUICK + text))) == digest(load_suite(write(QUICK)))


def test_the_digest_is_of_what_is_run(write):
    base = digest(load_suite(write(QUICK)))
    assert digest(load_suite(write(QUICK.replace("A title", "Another")))) == base
    assert digest(load_suite(write("# a comment\ndescription: long\n" + QUICK))) == base
    assert digest(load_suite(write(QUICK.replace("  - random\n", "  - {id: random}\n")))) == base
    for old, new in [
        ("quality: 30", "quality: 31"),
        ("train: 256", "train: 257"),
        ("image: 4", "image: 5"),
        ("  - random\n", ""),
        ("recipes: [lora]", "recipes: [lora]\nseeds: [0, 1, 3]"),
        ("auxiliary: 0.1", "auxiliary: 0.2"),
        ("id: quick", "id: quicker"),
    ]:
        assert old in QUICK
        assert digest(load_suite(write(QUICK.replace(old, new)))) != base


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "title:",
            "titel:",
            "quick.yaml, line 2, titel: there is no such field; did you mean 'title'? (fields: id, title",
        ),
        (
            "    config: {rounds",
            "    confg: {rounds",
            "line 10, defenses[2].confg: there is no such field; did you mean 'config'",
        ),
        (
            "[{image: 4}]",
            "[{imag: 4}]",
            "line 12, defenses[2].budgets[0].imag: there is no such field; did you mean 'image'",
        ),
        (
            "[{image: 4}]",
            "[{image: 400}]",
            "line 12, defenses[2].budgets[0].image: Input should be less than or equal to 255",
        ),
        ("test: 300, ", "", "line 5, datasets[0].test: the field is missing"),
        ("recipes: [lora]\n", "", "line 1, recipes: the field is missing"),
        ("recipes: [lora]", "recipes: []", "line 19, recipes: List should have at least 1 item"),
        ("recipes: [lora]", "recipes: lora", "line 19, recipes: Input should be a valid list, not 'lora'"),
        ("recipes: [lora]", "recipes: [LoRA]", "line 19, recipes[0].id: an id is made of lower case letters"),
        ("train: 256", "train: many", "line 5, datasets[0].train: Input should be a valid integer"),
        ("train: 256", "train: 0", "line 5, datasets[0].train: Input should be greater than or equal to 1"),
        (
            "auxiliary: 0.1",
            "auxiliary: -1",
            "line 18, attacks[4].auxiliary: Input should be greater than or equal to 0",
        ),
        (
            "config: {jpeg: {quality: 30}}",
            "config: {quality: 30}",
            "line 17, attacks[3]: the config of 'jpeg+case' is keyed",
        ),
        (
            "config: {jpeg: {quality: 30}}",
            "config: {blur: {}}",
            "line 17, attacks[3]: the config of 'jpeg+case' is keyed",
        ),
        ("id: quick", "id: quick\nid: slow", "line 2, id: the key is already in line 1: remove one"),
        ("{rounds: 3, mode", "{rounds: 3, rounds", "line 10, defenses[2].config.rounds: the key is already in line 10"),
        ("models: [tiny]", "models: [tiny", "line 4: not valid YAML"),
        (
            "models: [tiny]",
            "models: [!!python/name:os.system tiny]",
            "line 3: not valid YAML: could not determine a constructor",
        ),
        ("models: [tiny]", "models: &a [tiny, *a]", "line 3, models[1]: YAML aliases are not used"),
        ("recipes: [lora]", "recipes: [lora]\nseeds: [1, 1]", "line 20, seeds: 1 is there twice"),
        ("recipes: [lora]", "recipes: [lora]\nseeds: []", "line 20, seeds: List should have at least 1 item"),
        (
            "recipes: [lora]",
            "recipes: [lora]\nlimits: {stage_minute: 3}",
            "line 20, limits.stage_minute: there is no such field",
        ),
        ("id: quick", "id: Quick", "line 1, id: String should match pattern"),
        ("{rounds: 3, mode", "{rounds: .nan, mode", "line 10, defenses[2].config: Out of range float values"),
        (
            "  - none\n  - random",
            "  - null\n  - random",
            "line 7, defenses[0]: Input should be a mapping of fields, or for a plugin its id, not None",
        ),
    ],
)
def test_errors_name_file_line_and_field(write, old, new, said):
    assert old in QUICK
    with pytest.raises(UsageError) as error:
        load_suite(write(QUICK.replace(old, new, 1)))
    assert said in str(error.value)
    assert "quick.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_several_errors_are_all_named(write):
    with pytest.raises(UsageError, match=r"line 2, titel: [^;]*; did [^;]*; line 19, recipes\[0\]\.id: [^;]*$"):
        load_suite(write(QUICK.replace("title:", "titel:").replace("[lora]", "[LoRA]")))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("# nothing\n", "is empty"),
        ("just words", "quick.yaml, line 1: Input should be a mapping of fields"),
        (b"id: \xff\xfe", "not UTF-8 text (byte 4)"),
        ("id: a\n---\nid: b\n", "line 2: not valid YAML: but found another document"),
        ("[" * 5000, "quick.yaml, line 1: not valid YAML: it is more than 64 levels deep"),
        ("id: a\nx: " + "{a: " * 3000, "line 2: not valid YAML: it is more than 64 levels deep"),
        ("id: a\n? [b]\n: c", "line 2: not valid YAML: a key must be a text"),
        ("? " * 200, "more than 64 levels deep"),
        ("id: \x00", "not valid YAML"),
    ],
)
def test_files_that_are_no_suite(write, text, said):
    with pytest.raises(UsageError) as error:
        load_suite(write(text))
    assert said in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match=r"nowhere\.yaml: cannot be read \(No such file"):
        load_suite(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("name", [300 * "x", 300 * "x" + ".yaml", "loop", "loop.yaml", "loop/suite.yaml"])
def test_a_file_that_cannot_be_there(tmp_path, name):
    for loop in ("loop", "loop.yaml"):
        (tmp_path / loop).symlink_to(loop)
    with pytest.raises(UsageError, match=r"too long|symbolic links"):
        find_suite(str(tmp_path / name))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("!!timestamp x", "!!timestamp is not used here: write plain data"),
        ("!!timestamp 2001-01-01", "!!timestamp is not used here"),
        ("!!set {a, b}", "!!set is not used here"),
        ("!!binary aGk=", "!!binary is not used here"),
        ("!!omap [a: 1]", "!!omap is not used here"),
        ("!!int x", "'x' is not a whole number of up to 64 bits"),
        ("!!bool x", "'x' is not a bool"),
        ("!!float x", "'x' is not a float"),
        ("!!seq x", "expected a sequence node"),
        ("1" * 5000, "is not a whole number of up to 64 bits"),
        ("-" + "1" * 400, "is not a whole number of up to 64 bits"),
        ("0x" + "f" * 5000, "is not a whole number of up to 64 bits"),
        ('"\\ud800"', "'\\ud800' is not a text of whole characters"),
    ],
    ids=lambda text: text[:20],
)
def test_a_value_that_json_does_not_have_is_refused_with_its_line(write, value, said):
    with pytest.raises(UsageError) as error:
        load_suite(write(QUICK.replace("quality: 30", f"quality: {value}", 1)))
    assert "quick.yaml, line 16: not valid YAML: " in str(error.value) and said in str(error.value)
    assert len(str(error.value)) < 400


def test_dates_are_texts_and_halves_of_a_character_one(write):
    text = QUICK.replace("title: A title", 'title: 2001-01-01\ndescription: "\\ud83d\\ude00"')
    suite = load_suite(write(text.replace("{quality: 30}", "{quality: 2001-13-45}", 1)))
    assert (suite.title, suite.description) == ("2001-01-01", "\U0001f600")
    assert suite.attacks[2].config == {"quality": "2001-13-45"}
    with pytest.raises(UsageError, match=r"line 5, datasets\[0\]\.train: .*, not '2001-01-01'"):
        load_suite(write(QUICK.replace("train: 256", "train: 2001-01-01")))


def test_a_problem_with_a_long_value_is_short(write):
    with pytest.raises(UsageError) as error:
        load_suite(write(QUICK.replace("train: 256", f"train: {'x' * 100_000}")))
    assert "line 5, datasets[0].train" in str(error.value) and len(str(error.value)) < 500
    with pytest.raises(UsageError, match="line 1, id: String should have at most 100 characters"):
        load_suite(write(QUICK.replace("id: quick", f"id: {'x' * 300}")))


@pytest.mark.parametrize("minutes", ["1e9", "1.0e+9", "43201", ".inf", ".nan", "0", "-1", "1" * 400])
def test_limits_that_no_clock_keeps_are_refused(write, minutes):
    with pytest.raises(UsageError, match=r"quick\.yaml, line 20"):
        load_suite(write(QUICK + f"limits: {{stage_minutes: {minutes}}}\n"))
    assert load_suite(write(QUICK + "limits: {stage_minutes: 43200}\n")).limits.stage_minutes == 43200


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  - random\n", "  - randm\n", "line 8, defenses[1]: no defense is called 'randm'; did you mean 'random'?"),
        ("{rounds: 3", "{runds: 3", "line 9, defenses[2]: defense 'em': there is no setting 'runds'"),
        ("tiny-b]", "tiny-c]", "line 11, defenses[2].surrogates[1]: no model is called 'tiny-c'"),
        ("jpeg+case", "jpeg+cse", "line 17, attacks[3]: no attack is called 'cse'"),
        ("{jpeg: {quality", "{jpeg: {qualit", "line 17, attacks[3]: attack 'jpeg': there is no setting"),
        ("[lora]", "[lorra]", "line 19, recipes[0]: no recipe is called 'lorra'"),
        ("[lora]", "[lora]\nsurrogates: [tiny-c]", "line 20, surrogates[0]: no model is called 'tiny-c'"),
        ("  - jpeg\n", "  - jpeg\n  - jpeg\n", "line 16, attacks[2]: the label 'jpeg' is already taken"),
        ("defenses:\n  - none\n", "defenses:\n", "line 6, defenses: the control 'none' is missing: add `none`"),
        ("attacks:\n  - none\n", "attacks:\n", "line 13, attacks: the control 'none' is missing: add `none`"),
        ("auxiliary: 0.1", "auxiliary: 0.2", "line 5, datasets[0]: attackers are granted 0.2 of 256 training samples"),
        ("[lora]", "[lora]\nauxiliary: 1", "there are 26 auxiliary ones: set `auxiliary: 256`"),
    ],
)
def test_what_would_fail_is_found_before_anything_runs(write, old, new, said):
    assert old in QUICK
    suite = load_suite(write(QUICK.replace(old, new, 1)))
    with pytest.raises(UsageError) as error:
        validate(suite, FakeRegistry())
    assert said in str(error.value)
    assert "quick.yaml" in str(error.value)


def test_a_suite_made_in_python_is_validated_too(write):
    loaded = load_suite(write(QUICK))
    made = Suite.model_validate(loaded.model_dump())
    assert digest(made) == digest(loaded)
    with pytest.raises(UsageError, match=r"suite 'quick', defenses\[0\]: no defense is called 'non'"):
        validate(Suite.model_validate({**loaded.model_dump(), "defenses": ["non"]}), FakeRegistry())


def test_the_real_registry_serves(write):
    """`validate` asks the registry for nothing but what `Registry` has."""
    from arena.plugins.registry import Registry

    with pytest.raises(UsageError, match=r"quick\.yaml, line 3, models\[0\]: no model is called 'no-such-model'"):
        validate(load_suite(write(QUICK.replace("[tiny]", "[no-such-model]"))), Registry())


def test_documents_are_plain_data(write):
    from arena.suites.yaml_lines import Document, read_yaml

    document = read_yaml(write("a:\n  - b: 1\n    c: [x, y]\n"))
    assert document.data == {"a": [{"b": 1, "c": ["x", "y"]}]}
    assert document.where(("a", 0, "c", 1)).endswith("line 3, a[0].c[1]")
    assert document.where(("a", 0, "z")).endswith("line 2, a[0].z")
    assert dataclasses.replace(document, lines={}).where(("a",)) == f"{document.source}, a"
    assert Document("here").where(()) == "here"


@pytest.mark.parametrize(
    ("skip", "said"),
    [
        ({"attacks": ["jpg"]}, r"'jpg' is not a label among the attacks.*jpeg"),
        ({"budgets": [8, 7.5]}, r"skip\[0\].budgets: no budget has an image bound of 7.5 \(there are 7, 8\)"),
    ],
)
def test_skip_names_what_there_is(skip, said):
    suite = Suite.model_validate(
        {
            "id": "s",
            "models": ["tiny-llava"],
            "datasets": [{"id": "glyphs", "train": 8, "test": 8}],
            "defenses": ["none"],
            "attacks": ["none", "jpeg"],
            "recipes": ["lora"],
            "budgets": [{"image": 8}, {"image": 7.5}],
            "skip": [skip],
        }
    )
    with pytest.raises(UsageError, match=said):
        validate(suite, Registry())


def test_skip_must_say_something():
    with pytest.raises(ValueError, match="names nothing to leave out"):
        Skip()
