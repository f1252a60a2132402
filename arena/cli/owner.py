"""The commands of a data owner, `arena protect` and `arena explain`: thin layers over `arena.owner`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from arena.cli.console import stderr, stdout
from arena.cli.options import read_budget, read_encoding, read_settings

if TYPE_CHECKING:
    from rich.table import Table

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
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run in --out.")] = False,
) -> None:
    """Protect a folder of pictures and questions: writes a release and a report. The input is only read."""
    from arena.engine.progress import Display
    from arena.environment import quiet_libraries
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
    try:
        with Display(stderr(), 1.0, note="reading the samples") as display:
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
                progress=display,
            )
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"what is finished is kept in {out}; --resume goes on with it") from stop
    _say(report, out)


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
    console.print(_masses(explanation))
    for bound in explanation.bounds:
        console.print(
            f"Theorem 5.1, {bound.target}: eta {bound.eta:.4f}, bound {bound.bound:.4f}, measured {bound.measured:.4f} "
            "(total variation of the answer's attention, mean of all layers)"
        )
    console.print(f"picture: {path}", soft_wrap=True)


def _say(report: Report, out: Path) -> None:
    measured, budget, shows = report.measured, report.request.budget, report.stealth
    psnr = "no picture changed" if shows["psnr"] is None else f"PSNR {shows['psnr']:.2f} dB"
    changed = sum(1 for sample in report.samples if sample.changes)
    lines = (
        f"{len(report.samples)} samples protected with {report.request.defense['id']} in {report.seconds:.0f} s",
        f"budget, checked on the files: {measured.image:g} of {budget.image:g}/255, "
        f"{measured.words} of {budget.text} words",
        f"stealth: {psnr}, BLEU {shows['bleu']:.3f}",
        *_leak(shows.get("answer_leak")),
        *([f"{changed} pictures changed beside it, such as turned upright: the report says how"] if changed else []),
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


def _masses(e: Explanation) -> Table:
    from rich.table import Table

    title = f"attention mass at {e.surrogate}, sample {e.released.id}: clean / protected"
    table = Table("layer", box=None, pad_edge=False, title=title, title_justify="left")
    for pair in e.pairs:
        table.add_column(pair.name, justify="right")
    sides = [(pair.clean, pair.protected) for pair in e.pairs]
    depth = max((len(values) for pair in sides for values in pair if values is not None), default=0)
    for k in range(depth):
        cells = [" / ".join("-" if v is None else f"{v[k]:.4f}" for v in pair) for pair in sides]
        table.add_row(str(k + 1), *cells)
    return table
