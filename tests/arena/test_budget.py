"""Budgets: what is measured, what is refused, and with which words."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from arena.budget import Budget, amount, check, mode_problem
from arena.data.sample import Sample
from arena.errors import BudgetError, UsageError
from arena.text import bound_text
from leaderboards.site.numbers import budget_text

DEFAULT = Budget()
GREY = np.full((4, 5, 3), 100, np.uint8)


def sample(pixels=GREY, question="what is shown here?", **more):
    return Sample("glyphs-17", Image.fromarray(pixels), question, "a fox", ("fox",), ("x", "y"), **more)


def shifted(amount, pixels=GREY):
    changed = pixels.copy()
    changed[1, 2, 0] = int(changed[1, 2, 0]) + amount
    return changed


def refused(released, budget=DEFAULT, original=None, count_tokens=None):
    with pytest.raises(BudgetError) as error:
        check(original or sample(), released, budget, count_tokens, 17)
    message = str(error.value)
    assert message.startswith("budget: sample 17 ('glyphs-17'): ")
    assert "\n" not in message
    return message


def test_epsilon_is_the_bound_for_unit_pixels():
    assert Budget(image=8).epsilon == 8 / 255
    assert Budget(norm="l2", image=8.5).epsilon == 8.5 / 255
    assert (Budget().norm, Budget().image, Budget().text, Budget().forbid_answer_words) == ("linf", 8, 5, True)


@pytest.mark.parametrize(("asked", "granted"), [(7.65, 7), (2.55, 2), (8, 8), (0.5, 0)])
def test_of_an_l_infinity_bound_only_whole_levels_count(asked, granted):
    """For all that read it: a method that rounds what it was asked for would go beyond it."""
    assert Budget(image=asked) == Budget(image=granted) and Budget(image=asked).image == granted
    assert f"> {granted}/255" in refused(sample(shifted(granted + 1)), Budget(image=asked))
    assert Budget(norm="l2", image=asked).image == asked == Budget(norm="unbounded", image=asked).image
    assert Budget(norm="l0", image=asked).image == granted  # pixels


@pytest.mark.parametrize(
    "bad", [{"image": -1}, {"image": 256}, {"image": float("nan")}, {"text": -1}, {"norm": "l1"}, {"eps": 8}]
)
def test_a_budget_out_of_range_is_no_budget(bad):
    with pytest.raises(ValidationError):
        Budget(**bad)


@pytest.mark.parametrize("amount", [8, -8])
def test_linf_at_the_bound_passes_and_one_more_is_refused(amount):
    check(sample(), sample(shifted(amount)), Budget(), None, 0)
    message = refused(sample(shifted(amount + (1 if amount > 0 else -1))))
    assert message == "budget: sample 17 ('glyphs-17'): |delta| = 9/255 > 8/255 after rounding to 8 bits"


def test_linf_does_not_wrap_around_at_eight_bits():
    black, white = np.zeros((4, 5, 3), np.uint8), np.full((4, 5, 3), 255, np.uint8)
    assert "255/255" in refused(sample(white), original=sample(black))
    assert "255/255" in refused(sample(black), original=sample(white))


def test_l2_is_the_root_mean_square_over_pixel_values():
    every = sample(GREY + 8)
    check(sample(), every, Budget(norm="l2", image=8), None, 0)
    # One value of 60 by 60: sqrt(3600 / 60) = 7.746.
    check(sample(), sample(shifted(60)), Budget(norm="l2", image=7.75), None, 0)
    message = refused(sample(shifted(60)), Budget(norm="l2", image=7.7))
    assert "root mean square of delta = 7.746/255 > 7.7/255" in message
    assert "7.746/255 > 7.746/255" not in refused(sample(shifted(60)), Budget(norm="l2", image=7.7459))


def test_l0_counts_pixels_whatever_they_change_by_and_in_how_many_colours():
    one, two = GREY.copy(), GREY.copy()
    one[3, 4] = (255, 0, 255)
    two[0, 0, 1], two[2, 2] = 101, 0
    check(sample(), sample(one), Budget(norm="l0", image=1), None, 0)
    check(sample(), sample(two), Budget(norm="l0", image=2), None, 0)
    message = refused(sample(two), Budget(norm="l0", image=1))
    assert message.endswith("2 pixels changed > 1 after rounding to 8 bits")
    assert "1 pixels changed > 0" in refused(sample(one), Budget(norm="l0", image=0))
    grey, dot = (Image.fromarray(array) for array in (GREY[:, :, 0], one[:, :, 0]))
    assert [amount(grey, dot, norm) for norm in ("l0", "linf")] == [1, 155]
    veiled = np.dstack([GREY, np.full((4, 5), 40, np.uint8)]), np.dstack([one, np.full((4, 5), 40, np.uint8)])
    assert amount(*(Image.fromarray(array) for array in veiled), "l0") == 1


def test_a_number_of_pixels_is_no_bound_on_their_values():
    with pytest.raises(UsageError, match="the budget is 1 pixel, changed by as much"):
        _ = Budget(norm="l0", image=1).epsilon


def test_bounds_are_said_in_the_unit_of_their_norm():
    bounds = [("linf", 8.0), ("l2", 4.5), ("l0", 1.0), ("l0", 3.0), ("unbounded", 8.0)]
    assert [bound_text(*bound) for bound in bounds] == ["8/255", "4.5/255", "1 pixel", "3 pixels", "unbounded"]
    assert [budget_text(*bound, 5, True) for bound in bounds[1:]] == [
        "RMS 4.5/255, 5 words",
        "1 pixel, 5 words",
        "3 pixels, 5 words",
        "image unbounded, 5 words",
    ]


def test_unbounded_images_still_keep_size_and_mode():
    budget = Budget(norm="unbounded")
    check(sample(), sample(255 - GREY), budget, None, 0)
    assert "size changed from 5x4 to 4x4" in refused(sample(GREY[:, :4]), budget)
    assert "mode changed from 'RGB' to 'L'" in refused(sample(GREY[:, :, 0]), budget)


def test_alpha_is_not_in_the_colour_budget_and_must_stay():
    rgba = np.dstack([GREY, np.full((4, 5), 40, np.uint8)])
    faint = rgba.copy()
    faint[:, :, :3] += 8
    check(sample(rgba), sample(faint), Budget(), None, 0)
    veiled = rgba.copy()
    veiled[0, 0, 3] += 1
    assert "alpha channel changed" in refused(sample(veiled), original=sample(rgba))
    hidden = shifted(9, rgba)
    assert "|delta| = 9/255" in refused(sample(hidden), original=sample(rgba))


@pytest.mark.parametrize("mode", ["P", "1", "CMYK", "I;16", "F"])
def test_modes_without_eight_bit_colours_are_refused_with_the_remedy(mode):
    picture = Image.new(mode, (4, 4))
    original = Sample("glyphs-17", picture, "q", "a")
    remedy = "convert it first" if mode in ("P", "1", "CMYK") else "to keep them all, scale them"
    assert remedy in refused(original, original=original)
    assert mode_problem(picture.convert("RGB") if mode != "I;16" else Image.new("L", (4, 4))) is None


@pytest.mark.parametrize(
    ("field", "value"), [("id", "other"), ("answer", "an owl"), ("aliases", ()), ("choices", ("y", "x"))]
)
def test_what_a_protection_must_not_change(field, value):
    assert f"{field} changed" in refused(replace(sample(), **{field: value}))


@pytest.mark.parametrize(
    ("question", "problem"),
    [
        ("what is shown here? a b c d e", None),
        ("what is shown here? a b c d e f", "6 words inserted or changed > 5"),
        ("what is shown a b c d e here?", None),
        ("what is shown here a b c d e?", None),
        ("z y x w v", None),
        ("", None),
        ("z y x w v u", "6 words inserted or changed > 5"),
        ("what is shown here? !!!!!!", "6 words inserted or changed > 5"),
        ("what is shown here? " + "x" * 160, None),
        ("what is shown here? " + "x" * 161, "6 words inserted or changed > 5"),
        ("w h a t is shown here?", None),
        ("w h a t i s s h o w n here?", "words inserted or changed > 5"),
        ("what is shown here ?", "1 spaces added for 0 inserted words"),
        ("what is  shown here?", "1 spaces added for 0 inserted words"),
        ("what is\nshown here?", "line breaks or unprintable characters changed ('\\n')"),
        ("what is\u200bshown here?", "unprintable"),
        ("what is shown here? \ud800", "unprintable"),
        ("what is shown here?\t", "unprintable"),
    ],
)
def test_the_text_budget_counts_words(question, problem):
    if problem is None:  # a and b are letters of options
        check(sample(), sample(question=question), Budget(forbid_answer_words=False), None, 0)
    else:
        assert problem in refused(sample(question=question))


def test_the_owners_own_line_breaks_may_stay():
    check(sample(question="one\ntwo"), sample(question="one so\ntwo"), Budget(), None, 0)


def test_the_text_budget_counts_tokens_of_the_surrogate():
    long_word = sample(question="what is shown here? incomprehensibilities")
    check(sample(), long_word, Budget(), None, 0)
    assert "grew by 22 tokens > 5" in refused(long_word, count_tokens=len)
    check(sample(), sample(question="what is shown there?"), Budget(), len, 0)


def test_a_zero_budget_lets_only_the_original_pass():
    check(sample(), sample(), Budget(image=0, text=0), len, 0)
    assert "|delta| = 1/255 > 0/255" in refused(sample(shifted(1)), Budget(image=0, text=0))
    assert "1 words" in refused(sample(question="what is shown here now?"), Budget(image=0, text=0))
