"""What fine-tuning on a release showed, beside its report: in `report.json` and on the page."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from arena.errors import ArenaError
from arena.files import write_atomically
from arena.owner.report import FILE, Report, environment, read_report

PAGE = "report.html"
_BEGIN, _END = "<!-- verified", "<!-- end of verified -->"


class Share(BaseModel):
    """A share of the gain with its 95 % interval; None, with a reason in `undefined`, where it cannot be told."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: float | None = None
    low: float | None = None
    high: float | None = None
    undefined: str = ""

    @property
    def shown(self) -> str:
        """``31 % (22 to 40)``, or why there is no number."""
        if self.value is None:
            return f"cannot be told: {self.undefined}"
        if self.low is None or self.high is None:
            return f"{100 * self.value:.0f} %"
        low, high = (f"{100 * end:.0f}" if abs(end) < 100 else "unbounded" for end in (self.low, self.high))
        return f"{100 * self.value:.0f} % ({low} to {high})"


class Left(BaseModel):
    """What is left after something that is done to the published pictures: the share of the gain that is denied, and
    the share that this costs a fine-tuner by itself, on clean pictures."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    after: str
    denied: Share
    own_cost: Share


class Verified(BaseModel):
    """What small fine-tunings of `model` found: on so many released samples, scored on so many originals that were held
    out, over so many seeds. `gain` is in accuracy: what fine-tuning on the originals adds; `accuracy` what it reaches
    there, `before` what the model has without. `left` begins with the release as it is."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    created: str
    model: str
    trained: int
    held_out: int
    seeds: int
    before: float | None
    accuracy: float | None
    gain: Share
    left: list[Left]
    failures: list[str]
    seconds: float

    def lines(self) -> list[str]:
        """The findings in words."""
        total = self.trained + self.held_out
        found = [
            f"on {self.model}, with your {total} samples ({self.trained} to train on, {self.held_out} held out to "
            f"score, {self.seeds} seeds; in brackets 95 % intervals):"
        ]
        if self.before is not None and self.accuracy is not None:
            found.append(
                f"  without fine-tuning it answers {self.before:.0%} of the questions, after fine-tuning on your "
                f"originals {self.accuracy:.0%}: a gain of {self.gain.shown}"
            )
        for one in self.left:
            name = f"after {one.after}" if one.after else "the release as it is"
            if one.denied.value is None:
                found.append(f"  {name}: {one.denied.shown}")
                continue
            cost = one.own_cost
            beside = ""
            if one.after and cost.value is not None and cost.low is not None and cost.low > 0:
                beside = f", of which {cost.shown} is what this costs on clean pictures too"
            found.append(f"  {name}: {one.denied.shown} of the gain denied{beside}")
        return [*found, *(f"  failed: {failure}" for failure in self.failures)]


def add(folder: Path, verified: Verified) -> Report:
    """Put what was found into the report of a folder that `arena protect` made. Raises `ArenaError`."""
    report = read_report(folder).model_copy(update={"verified": verified.model_dump()})
    try:
        page = (folder / PAGE).read_text(encoding="utf-8")
        start = page.index(_BEGIN)
        stop = page.index(_END) + len(_END) if _END in page else page.index("-->", start) + 3
        section = environment().get_template("verified.html.j2").render(verified=verified)
        write_atomically(folder / PAGE, f"{page[:start]}{_BEGIN} -->\n{section}{_END}{page[stop:]}".encode())
        write_atomically(folder / FILE, (report.model_dump_json(indent=1) + "\n").encode())
    except (OSError, ValueError) as error:
        raise ArenaError(f"the report in {folder} cannot be completed: {error}") from error
    return report
