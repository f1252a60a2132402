"""The mechanism picture of one sample (after figure 9 of arXiv 2605.14291), drawn from an `Explanation`."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from arena.data.colours import amplified

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mmguard.explain import Explanation, Pair

SOFTWARE = "arena explain"
"""Stands in the file, so that it can be told from the user's own."""

CLEAN, PROTECTED = "#7b8794", "#d1495b"
OUTLINE = (("black", 5), ("white", 2))
"""Colours and widths: to be seen on any picture."""


def draw(explanation: Explanation, path: Path) -> None:
    """Write the picture as PNG to `path`."""
    figure = Figure(figsize=(15, 8.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    heading, pictures, bars = (
        part for (part,) in figure.subfigures(3, 1, squeeze=False, height_ratios=(1.0, 3.9, 3.2))
    )
    _heading(heading, explanation)
    _pictures(pictures, explanation)
    axes = bars.subplots(1, 3, sharey=True)
    for axis, pair in zip(axes, explanation.pairs, strict=True):
        _bars(axis, pair)
    masses = [x for p in explanation.pairs for x in (*(p.clean or ()), *(p.protected or ()))]
    axes[0].set_ylim(0, min(1.0, 1.25 * max(masses, default=0)) or 1.0)
    axes[0].set_ylabel("share of its attention")
    handles = [Patch(color=CLEAN, label="original"), Patch(color=PROTECTED, label="protected")]
    bars.legend(handles=handles, loc="outside upper right", ncols=2, frameon=False)
    figure.savefig(path, format="png", metadata={"Software": SOFTWARE})


def _heading(figure: Any, e: Explanation) -> None:
    question = e.released.question
    if e.trigger is not None:
        start, stop = e.trigger
        question = f"{question[:start]}[{question[start:stop]}]{question[stop:]}"
    lines = (
        f"Where {e.surrogate} looks when it answers, before and after protection: sample {e.released.id}",
        f"question, [added words] in brackets: {question}" if e.trigger else f"question, nothing added: {question}",
        f"answer: {e.released.answer}",
    )
    text = "\n".join(textwrap.shorten(line, 170, placeholder=" …") for line in lines)
    figure.text(0.01, 0.5, text, fontsize=13, va="center", linespacing=1.6, parse_math=False)


def _pictures(figure: Any, e: Explanation) -> None:
    axes = figure.subplots(1, 4)
    for axis in axes:
        axis.set_axis_off()
    _show(axes[0], e.released.image, "released picture")
    change = amplified(e.original.image, e.released.image)
    if e.tokens:
        _show(
            axes[1],
            change,
            f"the change, 10 times stronger\noutlined: changed most ({e.tokens} parts, $\\Omega_\\delta$)",
        )
        _outline(axes[1], e.omega)
    else:
        _show(axes[1], change, "no change that this model sees")
    scale = Normalize(0, max(float(e.clean_map.max()), float(e.protected_map.max()), 1e-12))
    for axis, values, name in ((axes[2], e.clean_map, "original"), (axes[3], e.protected_map, "protected")):
        picture = e.original.image if name == "original" else e.released.image
        _show(axis, picture.convert("L"), f"where the answer looks, {name}\n(layer {e.layer})")
        heat = axis.imshow(values, cmap="inferno", norm=scale, alpha=0.7, interpolation="nearest")
        _outline(axis, e.omega)
    figure.colorbar(heat, ax=list(axes[2:]), shrink=0.75, label="attention to a part of the picture")


def _show(axis: Axes, image: Any, title: str) -> None:
    array = np.asarray(image.convert("RGB"))
    axis.imshow(array, interpolation="nearest")
    axis.set_title(title, fontsize=11)


def _outline(axis: Axes, mask: np.ndarray) -> None:
    """The edges between marked and unmarked pixels."""
    padded = np.pad(mask, 1)
    below, right = padded[1:] != padded[:-1], padded[:, 1:] != padded[:, :-1]
    lines = [((x - 1.5, y - 0.5), (x - 0.5, y - 0.5)) for y, x in zip(*below.nonzero(), strict=True)]
    lines += [((x - 0.5, y - 1.5), (x - 0.5, y - 0.5)) for y, x in zip(*right.nonzero(), strict=True)]
    for colour, width in OUTLINE:
        axis.add_collection(LineCollection(lines, colors=colour, linewidths=width, clip_on=False))


def _bars(axis: Axes, pair: Pair) -> None:
    axis.set_title(f"attention: {pair.words}", fontsize=11)
    shown = [(values, colour) for values, colour in ((pair.clean, CLEAN), (pair.protected, PROTECTED)) if values]
    axis.spines[["top", "right"]].set_visible(False)
    if not shown:
        axis.set_xticks([])
        axis.text(0.5, 0.5, "does not apply:\n" + _missing(pair), ha="center", transform=axis.transAxes, color=CLEAN)
        return
    layers = np.arange(1, len(shown[0][0]) + 1)
    width = 0.8 / len(shown)
    for i, (values, colour) in enumerate(shown):
        bars = axis.bar(layers + (i - (len(shown) - 1) / 2) * width, values, width * 0.94, color=colour)
        if len(layers) <= 8:
            axis.bar_label(bars, fmt="%.3f", fontsize=9, padding=2)
    if pair.clean is None:
        axis.text(0.5, 0.94, "no added words in the original", ha="center", transform=axis.transAxes, color=CLEAN)
    axis.set_xlabel("layer")
    axis.set_xticks(layers if len(layers) <= 12 else layers[:: len(layers) // 8])


def _missing(pair: Pair) -> str:
    if pair.target == "trigger":
        return "no words were added"
    return "the picture did not change" if pair.source == "answer" else "no words were added, or nothing changed"
