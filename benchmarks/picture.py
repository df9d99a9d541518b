"""The history as small multiples: one panel for each comparison, the ratio to its peer on a logarithmic axis, run after run.

Logarithmic, because twice and half as fast are equally far from equal. Drawn with matplotlib's Figure; the same history gives the
same bytes, so that a test can compare them. Read before: `history.py`.
"""

import io
import math
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from benchmarks.catalogue import title
from benchmarks.history import Point, Run

INK, SOFT, FAINT, PAPER = "#22223b", "#6c7086", "#d9dbe3", "#ffffff"
LINE, REACHED, MISSED, AIM = "#9db4d6", "#2a7f62", "#c1440e", "#bc8a00"
COLUMNS = 4
WIDTH, PANEL, AXES, HEADING, TOP, BOTTOM, LEFT, GAP = 12.0, 1.72, 0.88, 0.34, 0.8, 0.05, 0.5, 0.62
"""Inches: the page, a row of panels, the axes in it, a group's heading, the space above, below, left of and between the panels."""
ROUND = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8))
"""Ever more digits that a tick may have."""
LEAST_SPAN = 1.7
"""The highest value on an axis over the lowest, at least."""
LABELS = 6
"""At most this many commits are named under a panel."""


def draw(groups: Mapping[str, Mapping[str, Sequence[Point]]], runs: Sequence[Run]) -> Figure:
    """The whole page: groups under each other, their comparisons side by side."""
    rows = [math.ceil(len(comparisons) / COLUMNS) for comparisons in groups.values()]
    height = TOP + BOTTOM + sum(HEADING + count * PANEL for count in rows)
    figure = Figure(figsize=(WIDTH, height), facecolor=PAPER)
    _head(figure, height)
    width, y = (WIDTH - LEFT - 0.1 - (COLUMNS - 1) * GAP) / COLUMNS, height - TOP
    for (group, comparisons), count in zip(groups.items(), rows, strict=True):
        figure.text(0.12 / WIDTH, (y - 0.16) / height, title(group), color=INK, fontsize=11.5, fontweight="bold", va="center")
        here = sorted({point.run.number for points in comparisons.values() for point in points})
        y -= HEADING
        for place, (name, points) in enumerate(comparisons.items()):
            left, bottom = LEFT + place % COLUMNS * (width + GAP), y - place // COLUMNS * PANEL - 0.4 - AXES
            axes = figure.add_axes((left / WIDTH, bottom / height, width / WIDTH, AXES / height))
            _panel(axes, _short(name, list(comparisons)), points, [run for run in runs if run.number in here])
        y -= count * PANEL
    return figure


def _head(figure: Figure, height: float) -> None:
    name = "How many times as fast as the peer, run after run"
    figure.text(0.12 / WIDTH, 1 - 0.27 / height, name, color=INK, fontsize=14, fontweight="bold", va="center")
    marks = [
        Line2D([], [], color=REACHED, marker="o", ls="", ms=5.5, label="last run: aim reached"),
        Line2D([], [], color=MISSED, marker="o", ls="", ms=5.5, label="aim not reached"),
        Line2D([], [], color=INK, marker="o", ls="", ms=5.5, label="no aim"),
        Line2D([], [], color=SOFT, marker="o", mfc=PAPER, ls="", ms=5, label="hollow: others used the machine"),
        Line2D([], [], color=SOFT, lw=2.2, alpha=0.6, label="middle half of the rounds"),
        Line2D([], [], color=AIM, lw=1.2, ls=(0, (4, 2)), label="aim"),
        Line2D([], [], color=FAINT, lw=1.4, label="as fast as the peer"),
    ]
    figure.legend(handles=marks, loc="center left", bbox_to_anchor=(0.0, 1 - 0.62 / height), ncols=len(marks), frameon=False, fontsize=8,
                  labelcolor=SOFT, columnspacing=1.3, handletextpad=0.5, handlelength=1.6)  # fmt: skip


def _panel(axes: Axes, name: str, points: Sequence[Point], runs: Sequence[Run]) -> None:
    """One comparison; `runs` are those that its whole group has, so that neighbouring panels share their axis."""
    place = {run.number: index for index, run in enumerate(runs)}
    last = points[-1].result
    axes.set_title(name.removesuffix(f", beside {last.peer_name}"), loc="left", fontsize=8.5, color=INK, pad=13)
    axes.annotate(
        f"beside {last.peer_name}", (0, 1), xytext=(0, 4), xycoords="axes fraction", textcoords="offset points", fontsize=7, color=SOFT
    )
    axes.set_yscale("log")
    axes.axhline(1, color=FAINT, lw=1.4, zorder=1)
    if last.aim is not None:
        axes.axhline(last.aim, color=AIM, lw=1.2, ls=(0, (4, 2)), zorder=2)
    for before, after in pairwise(points):
        if before.hardware == after.hardware:  # ratios of two machines are two stories
            axes.plot(
                [place[before.run.number], place[after.run.number]], [before.result.ratio, after.result.ratio], color=LINE, lw=1.5, zorder=3
            )
    for point in points:
        x, result, is_last = place[point.run.number], point.result, point is points[-1]
        colour = (INK if result.aim is None else REACHED if result.reached else MISSED) if is_last else SOFT
        axes.plot([x, x], [result.low, result.high], color=colour, lw=2.2, alpha=0.6, solid_capstyle="butt", zorder=4)
        face = PAPER if point.is_disturbed else colour
        axes.plot([x], [result.ratio], marker="o", ms=5 if is_last else 3.6, color=colour, mfc=face, mew=1.2, zorder=5)
    axes.annotate(
        figure_of(last.ratio), (place[points[-1].run.number], last.ratio), xytext=(6, 0), textcoords="offset points", va="center",
        fontsize=9, fontweight="bold", color=INK, annotation_clip=False,
    )  # fmt: skip
    _axes(axes, points, runs)


def _axes(axes: Axes, points: Sequence[Point], runs: Sequence[Run]) -> None:
    values = [value for point in points for value in (point.result.low, point.result.high, point.result.ratio) if value > 0]
    aim = points[-1].result.aim
    low, high = min(values), max(values)
    for line in [1.0] + ([aim] if aim else []):  # what it is measured by belongs in the picture, unless it lies far away
        if low / 8 < line < high * 8:
            low, high = min(low, line), max(high, line)
    widen = max(1.0, LEAST_SPAN / (high / low)) ** 0.5  # else a change of a hundredth would look like a cliff
    low, high = low / widen, high * widen
    margin = (high / low) ** 0.1
    axes.set_ylim(low / margin, high * margin)
    axes.set_xlim(-0.35, max(len(runs) - 1, 1) + 0.55)
    ticks = nice_ticks(low / margin, high * margin)
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_yticklabels([f"{tick:g}" for tick in ticks])
    step = max(1, math.ceil(len(runs) / LABELS))
    named = list(range(len(runs) - 1, -1, -step))[::-1]
    axes.set_xticks(named, [runs[place].commit[:7] or runs[place].day for place in named], rotation=30, ha="right", rotation_mode="anchor")
    axes.tick_params(labelsize=7, colors=SOFT, length=2, width=0.6, pad=1.5)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(FAINT)
    axes.patch.set_alpha(0)


def nice_ticks(low: float, high: float, most: int = 4) -> list[float]:
    """At most `most` round numbers between low and high, as evenly spread on a logarithmic axis as round numbers are.

    >>> nice_ticks(0.45, 1.3), nice_ticks(28, 950)
    ([0.5, 0.7, 1.0], [50.0, 100.0, 200.0, 500.0])
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    best: list[float] = []
    for digits in ROUND:
        ticks = [tick for decade in decades for digit in digits if low <= (tick := float(f"{digit}e{decade}")) <= high]
        if len(ticks) <= most or len(best) < 2:
            best = ticks[:: math.ceil(len(ticks) / most)] if ticks else best
    return best or [float(f"{math.sqrt(low * high):.2g}")]


def figure_of(value: float) -> str:
    """A ratio with as many digits as mean something: 0.83, 12.4, 707."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _short(name: str, among: Sequence[str]) -> str:
    """A comparison's name without what all of its group have in front."""
    heads = {other.partition(", ")[0] for other in among}
    return name.partition(", ")[2] if len(heads) == 1 and len(among) > 1 and ", " in name else name


def svg(figure: Figure) -> str:
    """As text: no date, ids that depend on the picture alone, letters as letters in the reader's own font."""
    target = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "benchmarks", "font.family": "DejaVu Sans"}):
        figure.savefig(target, format="svg", facecolor=PAPER, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    drawn = re.sub(r"'DejaVu Sans',[^;\"]*", "system-ui, sans-serif", target.getvalue())
    drawn = re.sub(r" *<metadata>.*?</metadata>\n", "", drawn, flags=re.DOTALL)
    return "\n".join(line.rstrip() for line in drawn.splitlines()) + "\n"


if __name__ == "__main__":
    from benchmarks.history import lines, read

    runs = read()
    print(f"{len(svg(draw(lines(runs), runs))):,} characters of SVG for {len(runs)} runs; ticks from 0.4 to 30: {nice_ticks(0.4, 30)}")
