"""The commands of a data owner, `arena protect` and `arena explain`: thin layers over `arena.owner`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from arena.cli.console import stderr, stdout
from arena.cli.options import read_budget, read_encoding, read_settings
from arena.text import bound_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from arena.owner.report import Report
    from mmguard.explain import Explanation

commands = typer.Typer()

Surrogates = Annotated[
    list[str] | None,
    typer.Option("--surrogate", metavar="NAME", help="A model id, or ID=CHECKPOINT such as llava=PATH. Repeatable."),
]


@commands.command()
def protect(
    source: Annotated[
        str, typer.Argument(metavar="FOLDER|DATASET", help="An imagefolder, or what `datasets` loads: path or hub id.")
    ],
    defense: Annotated[str, typer.Option("--defense", help="A defense's id, see `arena list defenses`.")],
    out: Annotated[Path, typer.Option("--out", help="A new folder for release and report.")],
    surrogates: Surrogates = None,
    config: Annotated[
        list[str] | None,
        typer.Option("--config", metavar="KEY=VALUE", help="A setting of the defense, see `arena show`. Repeatable."),
    ] = None,
    budget_image: Annotated[float, typer.Option("--budget-image", help="Largest change of a pixel, in 1/255.")] = 8,
    budget_text: Annotated[int, typer.Option("--budget-text", help="Most words inserted into a question.")] = 5,
    answer_words: Annotated[
        bool, typer.Option("--allow-answer-words", help="Words of the answer may be inserted, as in the papers.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of all randomness.")] = 0,
    image: Annotated[str | None, typer.Option("--image-column", help="The pictures, of a data set.")] = None,
    question: Annotated[str | None, typer.Option("--question-column", help="By default question.")] = None,
    answer: Annotated[str | None, typer.Option("--answer-column", help="By default answer.")] = None,
    id: Annotated[str | None, typer.Option("--id-column", help="By default id, else the file names.")] = None,
    aliases: Annotated[str | None, typer.Option("--aliases-column", help="Lists of further right answers.")] = None,
    choices: Annotated[str | None, typer.Option("--choices-column", help="Lists of choices.")] = None,
    split: Annotated[str, typer.Option("--split", help="Of a source that has several.")] = "train",
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the first so many samples.")] = None,
    format: Annotated[
        str, typer.Option("--format", metavar="png|webp|jpeg", help="Of the released pictures; webp is lossless.")
    ] = "png",
    quality: Annotated[int | None, typer.Option("--quality", help="Of JPEG, 90 to 100; 95 if not given.")] = None,
    keep_exif: Annotated[bool, typer.Option("--keep-exif", help="Keep camera, date and place.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Release nothing unless all can be released.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Then fine-tune on the release, and say what is left of it.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done and how long, and stop.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run in --out.")] = False,
    reuse: Annotated[
        Path | None,
        typer.Option("--reuse", help="The --out of an earlier run: what was trained there is given to these pictures."),
    ] = None,
) -> None:
    """Protect a folder of pictures and questions: writes a release and a report. The input is only read."""
    from arena.cli.outlook import outlook
    from arena.data import shelf
    from arena.engine.progress import Display
    from arena.environment import quiet_libraries
    from arena.owner.estimate import DryRun, Estimate, Prepared, estimate
    from arena.owner.protect import protect_folder

    columns = {
        "image": image,
        "question": question,
        "answer": answer,
        "id": id,
        "aliases": aliases,
        "choices": choices,
    }
    settings, budget = read_settings(config or []), read_budget(budget_image, budget_text, answer_words)
    encoding = read_encoding(format, quality)
    quiet_libraries()
    shelf.limit(shelf.SMALL)  # memory does not grow with the number of photographs
    console, told = stderr(), list[str]()

    def before(prepared: Prepared) -> Estimate:
        expected = estimate(prepared)
        told.extend(outlook(prepared, expected, verify))
        if dry_run:
            raise DryRun
        for line in told:
            console.print(line, soft_wrap=True)
        return expected

    try:
        with Display(console, 1.0, note="reading the samples") as display:
            report = protect_folder(
                source,
                out,
                defense,
                surrogates or (),
                config=settings,
                budget=budget,
                seed=seed,
                columns={field: column for field, column in columns.items() if column is not None},
                split=split,
                limit=limit,
                encoding=encoding,
                keep_exif=keep_exif,
                strict=strict,
                resume=resume,
                reuse=reuse,
                progress=display,
                before=before,
            )
        _say(report, out)
        if verify:
            _verify(out)
    except DryRun:
        for line in told:
            stdout().print(line, soft_wrap=True)
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"what is finished is kept in {out}; --resume goes on with it") from stop


def _verify(out: Path) -> None:
    from arena.owner.verified import add
    from arena.stress.verify import verify

    found = verify(out, stderr())
    add(out, found)
    for line in found.lines():
        stdout().print(line, soft_wrap=True)


@commands.command()
def explain(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder made by `arena protect`.")],
    sample: Annotated[int, typer.Option("--sample", min=0, help="Number of the sample, from 0.")],
    surrogate: Annotated[
        str | None,
        typer.Option("--surrogate", metavar="NAME", help="The model to look at; by default the release's first."),
    ] = None,
    layer: Annotated[int, typer.Option("--layer", min=1, help="The layer of the attention maps, from 1.")] = 1,
    out: Annotated[Path | None, typer.Option("--out", help="PNG file; by default in DIR.")] = None,
) -> None:
    """Show where the answer of one sample looks, clean and protected: a picture and its numbers."""
    from arena.environment import quiet_libraries
    from arena.errors import ArenaError
    from arena.files import atomically, refuse_foreign
    from arena.owner.explain import explain as measure
    from arena.owner.explain import refuse_among_samples
    from mmguard.picture import SOFTWARE, draw

    quiet_libraries()
    path = out or folder / f"explain-{sample}.png"
    refuse_among_samples(folder, path)
    refuse_foreign(path, "a picture that `arena explain` made", b"\x89PNG", SOFTWARE.encode())
    explanation = measure(folder, sample, surrogate, layer)
    try:
        with atomically(path) as partial:
            draw(explanation, partial)
    except OSError as error:
        raise ArenaError(f"{path} cannot be written: {error}") from error
    console = stdout()
    for part in _masses(explanation):
        console.print(part)
    console.print(f"drawing: {path}", soft_wrap=True)


def _say(report: Report, out: Path) -> None:
    measured, budget, shows = report.measured, report.request.budget, report.stealth
    reached = report.coverage
    psnr = "no picture changed" if shows["psnr"] is None else f"PSNR {shows['psnr']:.2f} dB"
    changed = sum(1 for sample in report.samples if sample.changes)
    allowed = bound_text(budget.norm, budget.image)
    lines = (
        f"{len(report.samples)} samples protected with {report.request.defense['id']} in {report.seconds:.0f} s",
        f"budget, checked on the files: {measured.image:g} of {allowed}, {measured.words} of {budget.text} words",
        f"stealth: {psnr}, BLEU {shows['bleu']:.3f}",
        *_leak(shows.get("answer_leak")),
        *([f"reached: {reached.pixels:.1%} of the pixels of {reached.pictures} pictures"] if reached else []),
        *([f"{changed} pictures changed beside it, such as turned upright: the report says how"] if changed else []),
        *(f"warning: {warning}" for warning in report.warnings),
        *_refused(report),
        "this is a measured obstacle, not a guarantee: the report says what undoes it",
        f"release: {out / 'data'}",
        f"report, to keep to yourself: {out / 'report.html'}",
    )
    for line in lines:
        stdout().print(line, soft_wrap=True)


def _leak(share: float | None) -> list[str]:
    """What is to be said of inserted words that hold the answer."""
    return [f"answer leak: the inserted words hold the answer in {100 * share:.0f} % of the samples"] if share else []


_SHOWN = 3


def _refused(report: Report) -> Iterator[str]:
    """How many pictures were not released, the first few with reason and remedy."""
    from arena.text import shortened

    for refusal in report.refused[:_SHOWN]:
        yield shortened(f"not released: {refusal.file}: {refusal.reason}: {refusal.remedy}", 600)
    if (count := len(report.refused)) > _SHOWN:
        yield f"not released: {count} pictures in all; the report names each with reason and remedy"


def _masses(e: Explanation) -> Iterator[RenderableType]:
    """Where the answer looks, in words and as a table."""
    from arena.cli.console import table

    yield f"Where {e.surrogate} looks when it answers sample {e.released.id}"
    yield (
        f"changed parts: the {e.tokens} parts of the picture that the protection changes most, outlined in the drawing "
        "(Omega_delta). Each number is a share of attention from 0 to 1: of the original / of the protected sample."
    )
    shown = table("layer", *(pair.words for pair in e.pairs), right=0)
    sides = [(pair.clean, pair.protected) for pair in e.pairs]
    depth = max((len(values) for pair in sides for values in pair if values is not None), default=0)
    for k in range(depth):
        cells = [" / ".join("-" if v is None else f"{v[k]:.4f}" for v in pair) for pair in sides]
        shown.add_row(str(k + 1), *cells)
    yield shown
    for bound in e.bounds:
        yield (
            f"{bound.words}: {bound.measured:.4f} of the answer's attention went elsewhere than before (0 is "
            f"none, 1 all; mean of all layers). Guaranteed is at least {bound.bound:.4f} (Theorem 5.1 of the paper, "
            f"eta {bound.eta:.4f}; below 0 it says nothing)"
        )
