"""A profile as a table, a picture, a page and JSON. Read before: profile_measures.py, plots.py."""

from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table

from tiny_transformer.cli.data_page import STYLE
from tiny_transformer.cli.data_plots import svg
from tiny_transformer.cli.plots import COLOURS, FAINT, INK, PAPER, SOFT, TRAIN
from tiny_transformer.cli.profile_measures import Report
from tiny_transformer.cli.screen import Screen, table, visible
from tiny_transformer.cli.texts import save_text
from tiny_transformer.roofline import Row
from tiny_transformer.utils.atomic import atomic_save

FORWARD, BACKWARD, IDEAL = COLOURS[1], TRAIN, COLOURS[0]
BUSY = 0.7
"""A load of the minute before above this is another program's."""
COLUMNS = ("part", "forward, update ms", "backward ms", "share", "GFLOP", "GFLOP/s", "MB", "GB/s", "of ceiling", "limited by")
ALONE = ("part", "ms", "share", "MFLOP", "GFLOP/s", "MB", "GB/s", "of ceiling", "limited by")
"""The columns of a token, which has no backward pass."""


def show(report: Report, screen: Screen) -> None:
    """The table, and what it means."""
    for note in report.subject.notes:
        screen.say(note, style="yellow")
    screen.heading(title(report))
    for line in facts(report):
        screen.say(line)
    screen.say(drawn(report))
    for line in remarks(report):
        screen.say(line)
    for warning in warnings(report):
        screen.warn(warning)


def title(report: Report) -> str:
    """What was profiled."""
    what = "writing a token" if report.generate else "a training step"
    return f"profile: {what}, {visible(report.subject.name)}"


def facts(report: Report) -> list[str]:
    """Model, batch, machine."""
    config, training = report.subject.config, report.subject.training
    batch = f"{training.batch_size} texts" if report.generate else f"{training.batch_size} x {report.length} tokens"
    if report.generate:
        batch = ("1 text" if training.batch_size == 1 else batch) + f", each new token looks at {report.length} positions"
    else:
        batch += f" in {training.accumulate} micro-batches" * (training.accumulate > 1) + f", {training.optimizer}"
    peak, memory = report.ceilings.flop_per_second / 1e9, report.ceilings.bytes_per_second / 1e9
    threads = f"{report.threads} thread" + "s" * (report.threads != 1)
    return [
        f"model     {config.n_layers} layers, {config.n_heads} heads, {config.d_model} wide, context {config.max_seq_len}: "
        f"{config.n_parameters / 1e6:.2f} M parameters",
        f"batch     {batch}",
        f"machine   {report.machine}; {report.device}, {report.precision}, {threads}" + ", compiled" * report.compiled,
        f"ceilings  {peak:,.0f} GFLOP/s in matrix products, {memory:,.1f} GB/s of memory",
    ]


def drawn(report: Report) -> Table:
    """The table for a terminal."""
    made = table(*(ALONE if report.generate else COLUMNS))
    for column in made.columns:
        column.no_wrap = True
    for row in report.rows:
        dim = "dim" if row.share < 0.01 else ""
        made.add_row(*cells(row, alone=report.generate), style=dim)
    made.add_section()
    made.add_row(*cells(report.all_parts, alone=report.generate), style="bold")
    return made


def cells(row: Row, *, alone: bool) -> list[str]:
    """One row's figures as texts; empty where there is nothing to say."""
    backward, forward = row.seconds.get("backward", 0.0), row.total - row.seconds.get("backward", 0.0)
    times = [_ms(row.total, 3)] if alone else [_ms(forward, 2), _ms(backward, 2)]
    work, unit = row.work, 1e6 if alone else 1e9
    counted = [
        _figures(work.flop / unit), _figures(row.flop_per_second / 1e9), _figures(work.bytes / 1e6), _figures(row.bytes_per_second / 1e9),
        f"{row.share_of_ceiling:.0%}" if row.bound and row.total else "",
    ]  # fmt: skip
    return [row.part, *times, f"{row.share:.1%}", *counted, row.limited_by]


def warnings(report: Report) -> list[str]:
    """What the trainer said, and whether the figures are this program's alone."""
    busy = []
    if report.load is not None and report.load > BUSY:
        busy = [f"the machine was busy before this (load {report.load:.1f}): close other programs for figures that count"]
    return [*report.times.warnings, *busy]


def _ms(seconds: float, digits: int) -> str:
    return f"{1e3 * seconds:,.{digits}f}" if seconds else ""


def _figures(value: float) -> str:
    """Three figures, without an exponent; empty for nothing."""
    if value >= 100:
        return f"{value:,.0f}"
    digits = 2 if value < 1 else 2 - (value >= 10)
    return f"{value:.{digits}f}" if value >= 0.005 else "<0.01" if value else ""


def remarks(report: Report) -> list[str]:
    """What the figures are worth."""
    times, one = report.times, "token" if report.generate else "step"
    lines = [
        f"an undisturbed {one} takes {1e3 * times.undisturbed:,.2f} ms (quartiles {1e3 * times.low:,.2f} to {1e3 * times.high:,.2f}, "
        f"{times.count} {one}s): {report.tokens_per_second:,.0f} tokens/s",
        f"the parts add up to {1e3 * times.sum_of_parts:,.2f} ms ({times.sum_of_parts / times.undisturbed:.1%} of it); "
        f"a watched {one} takes {1e3 * times.watched:,.2f} ms, {times.overhead:+.1%}",
    ]
    if report.usual_flop:
        rate = report.usual_flop / times.undisturbed
        lines.append(
            f"by the usual count, which includes what the mask hides, a step is {report.usual_flop / 1e9:,.1f} GFLOP: "
            f"{rate / 1e9:,.0f} GFLOP/s, {rate / report.ceilings.flop_per_second:.0%} of the ceiling"
        )
    lines.append(
        "of ceiling: the least time for its operations or its bytes, whichever is longer, over the time it took; "
        "above 100 % its data was in the cache"
    )
    if report.compiled and not report.generate:
        lines.append("compiled: the parts inside the model are no longer called one by one, so the model is one row")
    return lines


# ---------------------------------------------------------------- pictures


def figure(report: Report) -> Figure:
    """A bar for each part, forward and backward beside each other, and under it what it would take at the ceiling."""
    shown = [row for row in report.rows if row.total]
    made = Figure(figsize=(9.6, 1.9 + 0.42 * len(shown)), layout="constrained", facecolor=PAPER, dpi=130)
    axes = made.add_subplot()
    longest = max(row.total for row in shown)
    for place, row in enumerate(shown):
        backward, bound = 1e3 * row.seconds.get("backward", 0.0), 1e3 * row.bound
        forward = 1e3 * row.total - backward
        axes.barh(place - 0.14, forward, height=0.42, color=FORWARD, label="measured" if report.generate else "measured: forward, update")
        axes.barh(place - 0.14, backward, left=forward, height=0.42, color=BACKWARD, label="measured: backward")
        axes.barh(place + 0.25, bound, height=0.24, color=IDEAL, label="at the ceiling")
        text = f"{1e3 * row.total:.3g} ms  {row.share:.0%}" + (f", {row.limited_by}" if row.bound else "")
        end = (max(forward + backward, bound), place)
        axes.annotate(text, end, xytext=(5, 0), textcoords="offset points", va="center", color=INK, fontsize=8.5)
    axes.set_yticks(range(len(shown)), [row.part for row in shown], color=INK)
    axes.invert_yaxis()
    axes.set_xlim(0, 1e3 * max(longest, *(row.bound for row in shown)) * 1.28)
    axes.set_xlabel("milliseconds", color=SOFT)
    axes.set_title(title(report).removeprefix("profile: "), loc="left", color=INK, fontsize=12, fontweight="bold", pad=24, parse_math=False)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.tick_params(colors=SOFT, labelsize=9.5, length=0)
    axes.grid(axis="x", color=FAINT, lw=0.6)
    axes.set_axisbelow(True)
    handles, labels = axes.get_legend_handles_labels()
    legend = dict(zip(labels, handles, strict=True))
    if report.generate:
        legend.pop("measured: backward")
    axes.legend(
        legend.values(), legend.keys(), frameon=False, labelcolor=INK, ncols=3, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2,
        fontsize=9,
    )  # fmt: skip
    return made


def draw(report: Report, path: Path) -> None:
    """The picture as .svg or .png, or the page as .html: whole or not at all."""
    suffix = path.suffix.lower()
    if suffix == ".html":
        save_text(path, page(report))
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = figure(report)
    atomic_save(path, lambda file: picture.savefig(file, format=suffix[1:]))


def page(report: Report) -> str:
    """One page that needs nothing else: picture, table, remarks; light or dark as the reader's system is."""
    head = "".join(f"<th>{escape(column)}</th>" for column in (ALONE if report.generate else COLUMNS))
    lines = [cells(row, alone=report.generate) for row in [*report.rows, report.all_parts]]
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>" for line in lines)
    said = "".join(f"<p>{escape(line)}</p>" for line in [*facts(report), report.date])
    meant = "".join(f"<p>{escape(line)}</p>" for line in remarks(report))
    name = escape(title(report))
    return (
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name}</title><style>{STYLE}</style></head>\n<body><main><h1>{name}</h1>{said}"
        f'<section>{svg(figure(report), "profile")}</section>'
        f"<section><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></section>{meant}</main></body></html>\n"
    )


# ---------------------------------------------------------------- for machines


def as_dict(report: Report) -> dict[str, Any]:
    """Everything, in seconds, operations and bytes."""
    times = report.times
    return {
        "what": "token" if report.generate else "step", "name": report.subject.name, "date": report.date, "machine": report.machine,
        "device": report.device, "precision": report.precision, "threads": report.threads, "compiled": report.compiled,
        "model": report.subject.config.to_dict(), "training": asdict(report.subject.training), "length": report.length,
        "ceilings": asdict(report.ceilings), "usual_flop": report.usual_flop, "tokens_per_second": report.tokens_per_second,
        "undisturbed": times.undisturbed, "quartiles": [times.low, times.high], "watched": times.watched,
        "sum_of_parts": times.sum_of_parts, "count": times.count, "load": report.load, "warnings": warnings(report),
        "parts": [_row_as_dict(row) for row in report.rows], "all_parts": _row_as_dict(report.all_parts),
    }  # fmt: skip


def _row_as_dict(row: Row) -> dict[str, Any]:
    return {
        "part": row.part, "seconds": dict(row.seconds), "share": row.share, "flop": row.work.flop, "bytes": row.work.bytes,
        "works": {phase: asdict(work) for phase, work in row.works.items()}, "bound": row.bound,
        "flop_per_second": row.flop_per_second, "bytes_per_second": row.bytes_per_second,
        "share_of_ceiling": row.share_of_ceiling, "limited_by": row.limited_by,
    }  # fmt: skip
