"""The picture of a fitted law: every run beside what the law says of it, and loss over minutes by size.

Read before: plots.py, law_runs.py.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tiny_transformer.cli.law_runs import point_of
from tiny_transformer.cli.plots import COLOURS, FAINT, INK, PAPER, SOFT
from tiny_transformer.training.loss_law import Law

MINUTES = np.geomspace(0.1, 30, 60)


def law_figure(law: Law, name: str, runs: Sequence[dict[str, Any]]) -> Figure:
    """Left: measured over predicted loss, one point a run. Right: the law's loss over minutes at each size's own speed, with its runs."""
    figure = Figure(figsize=(12.0, 5.2), layout="constrained", facecolor=PAPER, dpi=130)
    left, right = figure.subplots(1, 2)
    sizes = sorted({(run["n_layers"], run["d_model"]) for run in runs}, key=lambda size: (size[1], size[0]))
    colours = {size: COLOURS[i % len(COLOURS)] for i, size in enumerate(sizes)}
    _fit(left, law, runs, colours)
    _minutes(right, law, runs, colours)
    title = f"the law of recipe {name}: {law.runs} runs, off by {100 * law.scatter:.1f} %"
    figure.suptitle(title, x=0.01, ha="left", color=INK, fontweight="bold")
    return figure


def _fit(axes: Axes, law: Law, runs: Sequence[dict[str, Any]], colours: dict[tuple[int, int], str]) -> None:
    expected = [law.expect(point_of(run))[0] for run in runs]
    both = [*expected, *(run["val_loss"] for run in runs)]
    axes.plot([min(both), max(both)], [min(both), max(both)], color=SOFT, lw=1, ls=(0, (4, 3)))
    for run, loss in zip(runs, expected, strict=True):
        axes.plot(loss, run["val_loss"], marker="o", ms=6, color=colours[run["n_layers"], run["d_model"]])
    _style(axes, "loss by the law, nats per character", "measured loss")


def _minutes(axes: Axes, law: Law, runs: Sequence[dict[str, Any]], colours: dict[tuple[int, int], str]) -> None:
    """Every size in the batch and context that most of its runs have, over the whole text."""
    for size, colour in colours.items():
        own = [run for run in runs if (run["n_layers"], run["d_model"]) == size]
        shapes = [(run["max_seq_len"], run["batch_size"], run["unique"]) for run in own]
        usual = max(set(shapes), key=lambda shape: (shapes.count(shape), shape))
        own = [run for run, shape in zip(own, shapes, strict=True) if shape == usual]
        speed = sum(run["tokens"] for run in own) / sum(run["seconds"] for run in own)
        point = point_of(own[0])
        curve = [law.expect(replace(point, tokens=60 * minutes * speed)) for minutes in MINUTES]
        loss, low, high = zip(*curve, strict=True)
        axes.fill_between(MINUTES, low, high, color=colour, alpha=0.08, lw=0)
        axes.plot(MINUTES, loss, color=colour, lw=2, label=f"{size[0]} × {size[1]}")
        axes.plot([run["seconds"] / 60 for run in own], [run["val_loss"] for run in own], color=colour, lw=0, marker="o", ms=6)
    axes.set_xscale("log")
    ticks = (0.1, 0.3, 1, 3, 10, 30)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.legend(frameon=False, labelcolor=INK, title="layers × width")
    _style(axes, "minutes of training on the machine that measured", "loss, nats per character")


def _style(axes: Axes, x: str, y: str) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(colors=SOFT, labelsize=9.5, length=3)
    axes.set_xlabel(x, color=SOFT)
    axes.set_ylabel(y, color=SOFT)
    axes.grid(color=FAINT, lw=0.6, alpha=0.7)
    axes.set_axisbelow(True)


if __name__ == "__main__":
    import tempfile
    from pathlib import Path

    from tiny_transformer.cli.law_runs import runs_of
    from tiny_transformer.cli.plots import save
    from tiny_transformer.training.loss_law import law_for, read

    law, name = law_for(None, "quick")
    print(*save(law_figure(law, name, runs_of(read(), name)), Path(tempfile.mkdtemp()) / "law"))
