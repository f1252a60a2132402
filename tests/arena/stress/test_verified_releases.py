"""What is left of an owner's release: a plan that is told before, findings in words, put into the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from owner_folder import write_owner_folder
from rich.console import Console

import arena.stress.verify
from arena.data.embedded.glyphs import Glyphs
from arena.errors import UsageError
from arena.owner.protect import protect_folder
from arena.owner.report import read_report
from arena.owner.verified import Left, Share, Verified, add
from arena.plugins.registry import Registry
from arena.release import write_release
from arena.stress.verify import AFTER, FEWEST, RECORDS, planned, verify


def test_the_plan_grows_with_the_samples() -> None:
    registry = Registry()
    plan = planned(60, "tiny-llava", registry)
    assert (plan.trained, plan.held_out) == (40, 20) and plan.trainings == 5 * 2 * (len(AFTER) + 1)
    assert (planned(200, "tiny-llava", registry).trained, planned(200, "tiny-llava", registry).held_out) == (150, 50)
    assert planned(10_000, "tiny-llava", registry).trained == 300
    assert planned(60, "llava", registry).epochs < plan.epochs
    assert plan.seconds(0.1, 1.0) > 10 * plan.seconds(0.01, 0.05)
    with pytest.raises(UsageError, match=rf"at least {FEWEST} samples, and there are 39: 20 are held out .* other 19"):
        planned(39, "tiny-llava", registry)


def test_shares_in_words() -> None:
    assert Share(value=0.314, low=0.22, high=0.4).shown == "31 % (22 to 40)"
    assert Share(value=0.08, low=float("-inf"), high=0.17).shown == "8 % (unbounded to 17)"
    assert Share(undefined="nothing to deny").shown == "cannot be told: nothing to deny"


FOUND = Verified(
    created="2030-01-01T00:00:00+00:00",
    model="<b>tiny</b>",
    trained=150,
    held_out=50,
    seeds=5,
    before=0.1,
    accuracy=0.9,
    gain=Share(value=0.8, low=0.7, high=0.9),
    left=[
        Left(after="", denied=Share(value=0.31, low=0.22, high=0.4), own_cost=Share()),
        Left(
            after="JPEG 75", denied=Share(value=0.08, low=0, high=0.2), own_cost=Share(value=0.05, low=0.01, high=0.1)
        ),
        Left(after="a crop", denied=Share(undefined="the fine-tunings failed"), own_cost=Share(undefined="failed")),
    ],
    failures=["2 cells failed: fine-tuned: no"],
    seconds=61,
)


def test_the_findings_in_words() -> None:
    lines = FOUND.lines()
    assert "with your 200 samples (150 to train on, 50 held out to score, 5 seeds" in lines[0]
    assert (
        "answers 10% of the questions, after fine-tuning on your originals 90%: a gain of 80 % (70 to 90)" in lines[1]
    )
    assert lines[2].strip() == "the release as it is: 31 % (22 to 40) of the gain denied"
    assert "after JPEG 75: 8 % (0 to 20) of the gain denied, of which 5 % (1 to 10)" in lines[3]
    assert "after a crop: cannot be told: the fine-tunings failed" in lines[4]
    assert "failed: 2 cells failed" in lines[5]


def test_the_findings_go_into_the_report(tmp_path: Path) -> None:
    source = write_owner_folder(tmp_path / "owner")
    protect_folder(source, tmp_path / "out", "random", limit=2)
    before = read_report(tmp_path / "out")
    assert before.verified is None
    for seconds in (61.0, 62.0):  # a second one takes the place of the first
        found = FOUND.model_copy(update={"seconds": seconds})
        report = add(tmp_path / "out", found)
        assert report == read_report(tmp_path / "out") == before.model_copy(update={"verified": found.model_dump()})
        page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
        assert page.count("What fine-tuning on the release showed") == 1 and f"in {seconds:.0f} s" in page
    assert "<td>JPEG 75</td><td>8 % (0 to 20)</td>" in page
    assert "&lt;b&gt;tiny" in page and "<b>tiny" not in page and page.rstrip().endswith("</html>")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One attack, two seeds, few epochs."""
    monkeypatch.setattr(arena.stress.verify, "AFTER", AFTER[:1])
    monkeypatch.setattr(arena.stress.verify, "SEEDS", 2)
    monkeypatch.setattr(arena.stress.verify, "_SMALL", {"epochs": 3, "checkpoints": "best"})


def test_a_release_is_fine_tuned_on(quick: None, tmp_path: Path) -> None:
    write_release(Glyphs().load(48, 0, 0, seed=5).train, tmp_path / "photos")
    out = tmp_path / "none"  # as a control is called
    report = protect_folder(tmp_path / "photos", out, "random", ["tiny-llava"])
    found = verify(out, Console(file=(tmp_path / "log").open("w", encoding="utf-8")), workers=1)
    assert (found.model, found.trained, found.held_out, found.seeds) == ("tiny-llava", 28, 20, 2)
    assert [one.after for one in found.left] == ["", "JPEG 90"] and found.failures == []
    assert found.before is not None and found.accuracy is not None
    assert found.gain.value == pytest.approx(found.accuracy - found.before)
    for one in found.left:
        assert (one.denied.value is None) == bool(one.denied.undefined)
    assert not (out / ".verify").exists()
    records = [json.loads(line) for line in (out / RECORDS).read_text(encoding="utf-8").splitlines()]
    assert len(records) == 2 * 2 * 2 and {r["dataset"]["test"] for r in records} == {20}
    assert read_report(out) == report
    again = verify(out, Console(file=(tmp_path / "log").open("a", encoding="utf-8")), workers=1)
    assert again.left == found.left and again.seconds < found.seconds


def test_what_cannot_be_verified(tmp_path: Path) -> None:
    write_release(Glyphs().load(41, 0, 0, seed=5).train, tmp_path / "photos")
    protect_folder(tmp_path / "photos", tmp_path / "out", "random")
    with pytest.raises(UsageError, match="made without one: name one with --surrogate"):
        verify(tmp_path / "out", Console(quiet=True))
    small = write_owner_folder(tmp_path / "owner")
    protect_folder(small, tmp_path / "small", "random", ["tiny-llava"])
    with pytest.raises(UsageError, match="there are 5"):
        verify(tmp_path / "small", Console(quiet=True))
