"""Pictures of a run: its loss curve between the landmarks, several runs in one picture, and the timelapse poster.

Drawn with matplotlib's Figure, without pyplot: no window system, no global state. Every function takes plain numbers and texts and
returns a Figure; `save` writes it as PNG and SVG. Read before: report.py.
"""

import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch, FancyBboxPatch

from tiny_transformer.cli.screen import visible

INK, SOFT, FAINT, PAPER = "#22223b", "#6c7086", "#d9dbe3", "#ffffff"
TRAIN, VALIDATION = "#9db4d6", "#c1440e"
COLOURS = ("#c1440e", "#2a6f97", "#588157", "#8e5ea2", "#bc8a00", "#4f4f4f", "#d1495b", "#00798c")
CARD_WIDTH, CARD_LINES = 26, 13
"""Characters in a line, and lines, of a card on the poster."""


@dataclass(frozen=True)
class Curve:
    """A run's losses: (step, loss) pairs, in nats per token."""

    name: str
    train: Sequence[tuple[float, float]] = ()
    val: Sequence[tuple[float, float]] = ()
    lines: Mapping[str, float] = field(default_factory=dict)
    """Reference lines: label → loss."""


def from_metrics(name: str, metrics: Sequence[Mapping[str, Any]], lines: Mapping[str, float] | None = None) -> Curve:
    """A curve from the lines of metrics.jsonl; lines without a loss are left out, a repeated step keeps its last one.

    Training losses are logged now and then only; the evaluation before the first step begins the curve.
    """
    first = [pair for pair in _pairs(metrics, "train_loss") if pair[0] == 0]
    return Curve(name, [*first, *_pairs(metrics, "loss")], _pairs(metrics, "val_loss"), dict(lines or {}))


def _pairs(metrics: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    found = {float(line["step"]): float(line[key]) for line in metrics if line.get(key) is not None and "step" in line}
    return sorted(found.items())


def loss_figure(curve: Curve) -> Figure:
    """One run: training loss faint and smoothed, validation loss with its best point, and the landmarks."""
    figure, axes = _page(8.6, 5.0)
    _draw_losses(axes, curve)
    _draw_landmarks(axes, curve.lines)
    axes.set_xlabel("step", color=SOFT)
    axes.set_title(curve.name, loc="left", color=INK, fontsize=13, fontweight="bold", pad=14)
    return figure


def comparison_figure(curves: Sequence[Curve]) -> Figure:
    """Several runs: one validation curve each, named with its best loss."""
    figure, axes = _page(8.6, 5.0)
    for curve, colour in zip(curves, _cycle(len(curves)), strict=True):
        pairs = curve.val or curve.train
        if pairs:
            best = min(loss for _, loss in pairs)
            axes.plot(*zip(*pairs, strict=True), color=colour, lw=2, marker="o", ms=3, label=f"{curve.name}  ({best:.3f})")
    axes.set_xlabel("step", color=SOFT)
    axes.set_title("validation loss (best)", loc="left", color=INK, fontsize=13, fontweight="bold", pad=14)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, labelcolor=INK)
    return figure


def timelapse_figure(curve: Curve, samples: Sequence[tuple[int, str]], caption: str = "", *, cards: int = 6) -> Figure:
    """The poster: the loss curve over a logarithmic step axis, and under it what the model wrote at marked steps."""
    chosen = pick(samples, cards)
    figure = Figure(figsize=(14, 8.2), facecolor=PAPER, dpi=130)
    axes = figure.add_axes((0.055, 0.52, 0.915, 0.385))
    _style(axes)
    axes.set_zorder(2)  # points over threads
    axes.patch.set_alpha(0)
    axes.set_xscale("symlog", linthresh=10, linscale=0.6)
    _draw_losses(axes, curve, joined=False)
    _draw_landmarks(axes, curve.lines)
    _step_axis(axes, curve, chosen)
    for index, (step, text) in enumerate(chosen):
        _draw_card(figure, axes, curve, index, max(len(chosen), 1), step, text)
    figure.text(0.055, 0.945, curve.name, color=INK, fontsize=17, fontweight="bold", va="bottom")
    figure.text(0.97, 0.947, caption, color=SOFT, fontsize=10.5, va="bottom", ha="right")
    return figure


def pick(samples: Sequence[tuple[int, str]], n: int) -> list[tuple[int, str]]:
    """At most `n` samples: the first one and the latest; early ones all look like noise."""
    return list(samples) if len(samples) <= n else [samples[0], *samples[len(samples) - n + 1 :]]


def save(figure: Figure, path: Path) -> list[Path]:
    """Write the figure beside `path` as .png and .svg; returns both paths."""
    paths = [path.with_suffix(".png"), path.with_suffix(".svg")]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a sample may hold any character
        for target in paths:
            figure.savefig(target, facecolor=PAPER, metadata={"Date": None} if target.suffix == ".svg" else None)
    return paths


# --- parts ------------------------------------------------------------------------------------------------------------


def _page(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained", facecolor=PAPER, dpi=130)
    axes = figure.add_subplot()
    _style(axes)
    return figure, axes


def _style(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(colors=SOFT, labelsize=9.5, length=3)
    axes.set_ylabel("loss, nats per token", color=SOFT)
    axes.grid(axis="y", color=FAINT, lw=0.6, alpha=0.7)
    axes.set_axisbelow(True)


def _cycle(n: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(n)]


def _draw_losses(axes: Axes, curve: Curve, *, joined: bool = True) -> None:
    if curve.train:
        steps, losses = zip(*curve.train, strict=True)
        axes.plot(steps, losses, color=TRAIN, lw=0.8, alpha=0.55)
        axes.plot(steps, smooth(losses), color=TRAIN, lw=2.2, label="training")
    if curve.val:
        steps, losses = zip(*curve.val, strict=True)
        axes.plot(steps, losses, color=VALIDATION, lw=2.2 if joined else 0, marker="o", ms=3.8, label="validation")
        best = min(curve.val, key=lambda pair: pair[1])
        axes.plot(*best, marker="o", ms=8, mfc=PAPER, mec=VALIDATION, mew=2, zorder=6)
        axes.annotate(
            f"{best[1]:.3f}", best, xytext=(0, 9), textcoords="offset points", ha="center", color=VALIDATION, fontweight="bold", zorder=7
        )
    low = min((loss for _, loss in [*curve.train, *curve.val]), default=0.0)
    high = max((loss for _, loss in [*curve.train, *curve.val]), default=1.0)
    axes.set_ylim(max(0.0, min(low, *curve.lines.values(), low) - 0.2), max(high, *curve.lines.values(), high) + 0.25)
    if curve.train or curve.val:
        axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, labelcolor=INK, borderaxespad=0.3)


def smooth(losses: Sequence[float]) -> list[float]:
    """Each value as the mean of its neighbours, as many on either side: more of them later on, none at the two ends.

    A centred mean does not lag behind a falling curve, as a running mean would.
    """
    n, out = len(losses), []
    for i in range(n):
        half = min(i // 4, n // 30, n - 1 - i)
        out.append(sum(losses[i - half : i + half + 1]) / (2 * half + 1))
    return out


def _draw_landmarks(axes: Axes, lines: Mapping[str, float]) -> None:
    for label, loss in lines.items():
        axes.axhline(loss, color=SOFT, lw=0.9, ls=(0, (4, 3)), zorder=1)
        axes.annotate(
            f"{label}  {loss:.2f}", (0.995, loss), xycoords=("axes fraction", "data"), xytext=(0, 3), textcoords="offset points",
            ha="right", va="bottom", color=SOFT, fontsize=9, bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 0.6, "alpha": 0.8},
        )  # fmt: skip


def _step_axis(axes: Axes, curve: Curve, chosen: Sequence[tuple[int, str]]) -> None:
    steps = [step for step, _ in chosen]
    last = max([*steps, *(int(step) for step, _ in [*curve.train, *curve.val])], default=1)
    axes.set_xlim(-0.4, max(last, 1) * 1.12)
    axes.set_xticks(steps, [f"{step:,}" for step in steps])
    axes.minorticks_off()


def loss_at(curve: Curve, step: float) -> float | None:
    """The loss at a step, between its neighbours: the smoothed training loss, else the validation loss."""
    steps = [s for s, _ in curve.train]
    pairs = list(zip(steps, smooth([loss for _, loss in curve.train]), strict=True)) or list(curve.val)
    before = [pair for pair in pairs if pair[0] <= step] or pairs[:1]
    after = [pair for pair in pairs if pair[0] >= step] or pairs[-1:]
    if not pairs:
        return None
    (x0, y0), (x1, y1) = before[-1], after[0]
    return y0 if x1 == x0 else y0 + (y1 - y0) * (step - x0) / (x1 - x0)


def _draw_card(figure: Figure, axes: Axes, curve: Curve, index: int, n: int, step: int, text: str) -> None:
    """One sample in a frame in the lower half, tied by a thread to its point on the curve."""
    gap, left, right, bottom, top = 0.009, 0.02, 0.985, 0.03, 0.415
    width = (right - left - gap * (n - 1)) / n
    x = left + index * (width + gap)
    loss = loss_at(curve, step)
    frame = FancyBboxPatch((x, bottom), width, top - bottom, boxstyle="round,pad=0,rounding_size=0.008", transform=figure.transFigure)
    frame.set(facecolor="#fafaf7", edgecolor=FAINT, linewidth=1.1, mutation_aspect=14 / 8.2)
    figure.add_artist(frame)
    if loss is not None:
        thread = ConnectionPatch((step, loss), (x + width / 2, top), axes.transData, figure.transFigure, color=FAINT, lw=1.1)
        thread.set_zorder(0.5)
        figure.add_artist(thread)
        axes.plot(step, loss, marker="o", ms=6, color=INK, zorder=5)
    head = f"step {step:,}" + ("" if loss is None else f"  ·  {loss:.2f}")
    figure.text(x + 0.009, top - 0.02, head, color=VALIDATION, fontsize=10.5, fontweight="bold", va="top")
    size = min(11.0, (width - 0.021) * figure.get_figwidth() * 72 / (CARD_WIDTH * 0.602))  # 0.602: width of a letter of height 1
    figure.text(
        x + 0.009, top - 0.062, card_text(text), color=INK, fontsize=size, family="monospace", va="top", linespacing=1.45, parse_math=False
    )


def card_text(text: str, width: int = CARD_WIDTH, lines: int = CARD_LINES) -> str:
    """A sample broken into the lines of a card; an ellipsis where it was cut."""
    wrapped: list[str] = []
    for line in visible(text).expandtabs(2).split("\n"):
        wrapped += textwrap.wrap(line, width, drop_whitespace=True) or [""]
    return "\n".join(wrapped) if len(wrapped) <= lines else "\n".join([*wrapped[: lines - 1], wrapped[lines - 1][: width - 1] + "…"])


if __name__ == "__main__":
    import tempfile

    steps = [*range(10), *range(10, 2001, 10)]
    falling = [(s, 1.5 + 2.7 * 0.995**s) for s in steps]
    demo = Curve("a made-up run", falling, falling[::20], {"ln V": 4.17, "one character": 3.31, "the one before": 2.45})
    texts = [(s, f"ROMEO:\nwhat it wrote after {s} steps") for s in (0, 1, 3, 10, 30, 100, 300, 1000, 2000)]
    folder = Path(tempfile.mkdtemp())
    drawn = {"loss": loss_figure(demo), "compared": comparison_figure([demo]), "timelapse": timelapse_figure(demo, texts)}
    for name, figure in drawn.items():
        print(*save(figure, folder / name))
