"""The picture of `tiny tokenizer compare`: compression, fertility and speed of each tokenizer, by text. Read before: plots.py."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tiny_transformer.cli.plots import COLOURS, FAINT, INK, PAPER, SOFT
from tiny_transformer.cli.screen import visible
from tiny_transformer.cli.tokenizer_measures import Measured

PANELS = (
    ("bytes_per_token", "bytes per token", "compression: more is shorter"),
    ("tokens_per_word", "tokens per word", "fertility: 1 is every word whole"),
    ("seconds_per_mb", "seconds per MB", "time to encode"),
)
"""(field of Measured, axis, title)."""


def comparison(rows: Sequence[Measured], caption: str) -> Figure:
    """Three panels of bars side by side: a group of bars for each tokenizer, a colour for each text."""
    names, corpora = list(dict.fromkeys(row.tokenizer for row in rows)), list(dict.fromkeys(row.corpus for row in rows))
    height = 1.9 + 0.3 * len(names) * max(1.2, len(corpora))
    figure = Figure(figsize=(11, height), layout="constrained", facecolor=PAPER, dpi=130)
    panels = figure.subplots(1, len(PANELS), sharey=True, squeeze=False)[0]
    for axes, (field, label, title) in zip(panels, PANELS, strict=True):
        _bars(axes, rows, field, names, corpora)
        axes.set_xlabel(label, color=SOFT)
        axes.set_title(title, loc="left", color=INK, fontsize=11, fontweight="bold")
    sizes = {row.tokenizer: row.vocab_size for row in rows}
    labels = [f"{_short(name)}\n{sizes[name]:,} tokens" for name in names]
    panels[0].set_yticks(range(len(names)), labels, color=INK, parse_math=False)
    panels[0].invert_yaxis()
    if len(corpora) > 1:
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=len(corpora), frameon=False, labelcolor=INK)
    figure.supxlabel(visible(caption), color=SOFT, fontsize=9.5, parse_math=False)
    return figure


def _bars(axes: Axes, rows: Sequence[Measured], field: str, names: Sequence[str], corpora: Sequence[str]) -> None:
    thick = 0.76 / len(corpora)
    for number, corpus in enumerate(corpora):
        found = {row.tokenizer: row for row in rows if row.corpus == corpus}
        places = [place - 0.38 + (number + 0.5) * thick for place in range(len(names))]
        lengths = [getattr(found.get(name), field, None) or 0.0 for name in names]
        axes.barh(places, lengths, height=thick * 0.9, color=COLOURS[(number + 1) % len(COLOURS)], label=_short(corpus))
        for place, name, length in zip(places, names, lengths, strict=True):
            row = found.get(name)
            text = "can't read it" if row is None or row.problem else f"{length:.2f}" if length >= 0.1 else f"{length:.3f}"
            unknown = 0 if row is None else row.unknown or 0
            text += f"  ({unknown:.0%} unknown)" if field == "bytes_per_token" and unknown >= 0.005 else ""
            axes.annotate(text, (length, place), xytext=(4, 0), textcoords="offset points", va="center", color=INK, fontsize=8.5)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.tick_params(colors=SOFT, labelsize=9.5, length=0)
    axes.grid(axis="x", color=FAINT, lw=0.6, alpha=0.7)
    axes.set_axisbelow(True)
    axes.margins(x=0.18)
    axes.set_xlim(left=0)


def _short(name: str, most: int = 26) -> str:
    name = visible(name)
    return name if len(name) <= most else "…" + name[-most + 1 :]
