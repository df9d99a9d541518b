"""The pictures of a data report as SVG that takes its colours from the page it stands in, so light and dark need one drawing.

Drawn with matplotlib's Figure like plots.py; the four colours of the drawing are then replaced by CSS variables. Text stays text.
Read before: plots.py, corpora/inventory.py.
"""

import io
import re
import warnings
from collections.abc import Callable

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from tiny_transformer.cli.plots import FAINT, INK, SOFT, VALIDATION
from tiny_transformer.corpora.inventory import Inventory

BAR = "#2a6f97"
VARIABLES = {INK: "var(--ink)", SOFT: "var(--soft)", FAINT: "var(--faint)", VALIDATION: "var(--accent)", BAR: "var(--bar)"}
NAMES = {" ": "space", "\n": "line feed", "\t": "tab", "\r": "CR", "\xa0": "nbsp"}


def zipf(report: Inventory) -> Figure:
    """Frequency of each word over its rank, both logarithmic, and a line of slope -1 beside it."""
    figure, axes = _page("rank of the word", "times it occurs")
    curve = report.words.curve
    axes.loglog([rank for rank, _ in curve], [count for _, count in curve], color=BAR, lw=0, marker="o", ms=4)
    if curve:
        first, last = curve[0][1], curve[-1][0]
        axes.loglog([1, last], [first, first / last], color=SOFT, lw=1, ls=(0, (4, 3)))
        axes.annotate("slope −1", (last**0.5, first / last**0.5), xytext=(-62, -14), textcoords="offset points", color=SOFT, fontsize=10)
        axes.set_ylim(0.7, first * 1.6)
    _plain_numbers(axes.xaxis, axes.yaxis)
    return figure


def line_lengths(report: Inventory) -> Figure:
    """How many lines have which length; the borders grow by a third or a half, so short and long lines are both seen."""
    figure, axes = _page("characters in the line", "lines")
    bins = report.lines.histogram
    axes.bar(range(len(bins)), [n for _, _, n in bins], color=BAR, width=0.86)
    axes.set_xticks([i - 0.5 for i in range(0, len(bins), 2)], [f"{low:,}" for low, _, _ in bins[::2]])
    return figure


def characters(report: Inventory) -> Figure:
    """The commonest characters."""
    figure, axes = _page("", "share of all characters, %")
    often = report.characters.commonest
    axes.bar(range(len(often)), [100 * n / report.characters.tokens for _, n in often], color=BAR, width=0.8)
    axes.set_xticks(range(len(often)), [character_name(c) for c, _ in often], rotation=0)
    for label in axes.get_xticklabels():
        if len(label.get_text()) > 2:
            label.set_rotation(90)
    return figure


def scripts(report: Inventory, most: int = 8) -> Figure:
    """Scripts by their share; a logarithmic axis, because the rare ones are the news."""
    figure, axes = _page("share of all characters, %", "", height=0.7 + 0.34 * min(most, len(report.scripts)))
    shown = list(report.scripts.items())[:most][::-1]
    shares = [100 * n / report.characters.tokens for _, n in shown]
    axes.barh(range(len(shown)), shares, color=BAR, height=0.66)
    axes.set_yticks(range(len(shown)), [name.replace("_", " ") for name, _ in shown])
    axes.set_xscale("log")
    axes.set_xlim(min(shares) / 3, 1000)
    _plain_numbers(axes.xaxis)
    axes.grid(axis="y", visible=False)
    for place, (share, (_, count)) in enumerate(zip(shares, shown, strict=True)):
        axes.annotate(f"{count:,}", (share, place), xytext=(5, 0), textcoords="offset points", va="center", color=INK, fontsize=10)
    return figure


def svg(figure: Figure, name: str) -> str:
    """The figure as an <svg> element with CSS variables for colours; `name` keeps its ids apart from those of others on the page."""
    target = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the reader's own fonts show any character
        figure.savefig(target, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    drawn = target.getvalue()[target.getvalue().index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r'\b(id="|url\(#|href="#)', rf"\g<1>{name}-", drawn)
    drawn = drawn.replace("'DejaVu Sans'", "system-ui")
    for colour, variable in VARIABLES.items():
        drawn = drawn.replace(colour, variable)
    return re.sub(r'<svg [^>]*?viewBox="([^"]+)"[^>]*>', rf'<svg viewBox="\1" role="img" aria-label="{name}">', drawn, count=1)


def character_name(character: str) -> str:
    """A character as a label: itself, a word for white space, its number for what can't be seen."""
    if character in NAMES:
        return NAMES[character]
    return character if character.isprintable() and not character.isspace() else f"U+{ord(character):04X}"


PICTURES: dict[str, tuple[str, Callable[[Inventory], Figure]]] = {
    "zipf": ("Words: how their frequency falls", zipf),
    "lines": ("How long the lines are", line_lengths),
    "characters": ("The commonest characters", characters),
    "scripts": ("Scripts", scripts),
}
"""Name → (title, what draws it)."""


def _plain_numbers(*axes: Axis) -> None:
    """Powers of ten as 1,000 instead of raised numbers, whose places would depend on the reader's font."""
    for axis in axes:
        axis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


def _page(x: str, y: str, height: float = 3.3) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, height), layout="constrained")
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(which="both", colors=SOFT, labelsize=10, length=3)
    axes.grid(axis="y", color=FAINT, lw=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel(x, color=SOFT, fontsize=10.5)
    axes.set_ylabel(y, color=SOFT, fontsize=10.5)
    return figure, axes


if __name__ == "__main__":
    from tiny_transformer.corpora.inventory import take_inventory
    from tiny_transformer.corpora.pitches import text

    made = take_inventory(text(30_000))
    for key, (title, draw) in PICTURES.items():
        print(f"{title:34} {len(svg(draw(made), key)):,} characters of SVG")
