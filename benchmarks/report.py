"""docs/benchmarks.md and its picture, made from history.jsonl: `python -m benchmarks.report` (`make bench` does it at its end).

Nothing on the page is written by hand, and a test checks that the committed page is what the committed history gives.
Read before: `history.py`, `catalogue.py`. The picture is `picture.py`'s.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import catalogue, picture
from benchmarks.__main__ import NAMES
from benchmarks.harness import HISTORY, ROOT, Result
from benchmarks.history import Point, Run, lines, read
from benchmarks.picture import figure_of
from benchmarks.watch import BUSY

PAGE, PICTURE = ROOT / "docs/benchmarks.md", ROOT / "docs/images/benchmarks.svg"

HEAD = """\
# Benchmarks

Made from [benchmarks/history.jsonl](../benchmarks/history.jsonl) by `python -m benchmarks.report`; nothing here is written by hand.
`make bench` measures everything again, adds a line to the history and makes this page anew; `python -m benchmarks NAME` does so for
one of them.
"""
HOW = f"""\
Ours and the peer take turns in the same run on the same machine. The ratio is the median over the rounds of how many times as fast
ours was, and behind it in brackets stand the quartiles: half of all rounds lay between them. ᵈ: other programs took more than
{100 * BUSY:.0f} % of the machine's time meanwhile (in runs before that was watched: the load was high when they began), so take the figure
with care. Each table has the latest figure of each comparison.
"""
NO_RECIPE = "No figures yet: `python -m benchmarks.recipe` makes them.\n"
NO_GPU = "Not measured: no GPU. Where there is one: `python -m benchmarks.gpu`.\n"


def page(runs: Sequence[Run], groups: Mapping[str, Mapping[str, Sequence[Point]]]) -> str:
    """The whole page."""
    here = {group: comparisons for group, comparisons in groups.items() if group not in catalogue.APART}
    parts = [HEAD, _summary(groups), f"![The history of every comparison](images/{PICTURE.name})\n", "## How to read it\n", HOW]
    parts += [section(group, comparisons) for group, comparisons in here.items()]
    parts += [_apart(group, groups.get(group, {}), otherwise) for group, otherwise in (("recipe", NO_RECIPE), ("gpu", NO_GPU))]
    parts += [_times(runs), _runs(runs)]
    return "\n".join(parts)


def _apart(group: str, comparisons: Mapping[str, Sequence[Point]], otherwise: str) -> str:
    """A group that `make bench` leaves out; where it has never been measured, what it is and `otherwise`."""
    if comparisons:
        return section(group, comparisons)
    return f"## {catalogue.title(group)}\n\n{catalogue.first_sentence(group)}\n\n{otherwise}"


def _summary(groups: Mapping[str, Mapping[str, Sequence[Point]]]) -> str:
    latest = [points[-1].result for comparisons in groups.values() for points in comparisons.values()]
    aims = [result for result in latest if result.aim is not None]
    missed = [f"{result.name} ({figure_of(result.ratio)}, aim {result.aim:g})" for result in aims if not result.reached]
    text = f"{len(latest)} comparisons, {len(aims)} with an aim, {len(aims) - len(missed)} of these reached"
    return f"**{text}.**{' Not reached: ' + '; '.join(missed) + '.' if missed else ''}\n"


def section(group: str, comparisons: Mapping[str, Sequence[Point]]) -> str:
    """A group: what is compared, the table, what each line means, and the command that measures it again."""
    rows = ["| comparison | ours | peer | ratio | aim | measured |", "|---|--:|--:|--:|:--|---|"]
    rows += [_row(name, points[-1]) for name, points in comparisons.items()]
    hardware = sorted({points[-1].hardware for points in comparisons.values()})
    again = f"Again: `{catalogue.command(group)}`. Measured on: {'; '.join(hardware)}."
    return "\n".join([f"## {catalogue.title(group)}\n", *_meanings(group, comparisons), "", *rows, "", again, *_notes(comparisons), ""])


def _meanings(group: str, comparisons: Mapping[str, Sequence[Point]]) -> list[str]:
    """One sentence for all, or a list where they mean different things."""
    meant = {name: catalogue.means(name, group) for name in comparisons}
    if len(set(meant.values())) == 1:
        return [next(iter(meant.values()))]
    return [f"- *{_cell(name)}*: {sentence}" for name, sentence in meant.items()]


def _row(name: str, point: Point) -> str:
    result = point.result
    spread = f"({figure_of(result.low)} to {figure_of(result.high)})" if result.low < result.high else "(one round)"
    better = "at most " if result.lower_is_better else ""
    aim = "" if result.aim is None else f"{better}{result.aim:g} {'✓' if result.reached else '✗ **not reached**'}"
    disturbed = " ᵈ" if point.is_disturbed else ""
    cells = (
        name, f"{amount(result.ours)} {result.unit}", f"{result.peer_name} {amount(result.peer)}",
        f"**{figure_of(result.ratio)}** {spread}{disturbed}", aim, f"{point.run.day}, `{point.run.commit or 'no commit'}`",
    )  # fmt: skip
    return f"| {' | '.join(map(_cell, cells))} |"


def _notes(comparisons: Mapping[str, Sequence[Point]]) -> list[str]:
    noted = [(name, text) for name, points in comparisons.items() if (text := _note(points[-1].result))]
    return ["", *(f"- {_cell(name)}: {_cell(text)}" for name, text in noted)] if noted else []


def _note(result: Result) -> str:
    """The result's own note, and the shares (of a peak, a ceiling) among its numbers."""
    shares = [
        f"{100 * share:.0f} % {key.removeprefix('share_').replace('_', ' ')}"
        for key, share in result.extra.items()
        if key.startswith("share_of_")
    ]
    return "; ".join(filter(None, (result.notes, *shares)))


def _times(runs: Sequence[Run]) -> str:
    """How long each benchmark took when it last ran, beside its budget."""
    rows = ["## How long it takes\n", "| benchmark | seconds | budget | measured |", "|---|--:|--:|---|"]
    total = 0.0
    for name in NAMES:
        last = next((run for run in reversed(runs) if name in run.seconds), None)
        seconds = f"{last.seconds[name]:.0f}" if last else "not timed yet"
        total += last.seconds[name] if last else 0.0
        rows.append(f"| {name} | {seconds} | {catalogue.budget(name):.0f} | {f'{last.day}, `{last.commit}`' if last else ''} |")
    rows.append(f"| **together** | **{total:.0f}** | {catalogue.LIMIT} | |")
    return "\n".join([*rows, ""])


def _runs(runs: Sequence[Run]) -> str:
    names = ("run", "date", "commit", "hardware", "load before", "others before", "versions", "comparisons")
    rows = ["## The runs\n", f"| {' | '.join(names)} |", "|--:|---|---|---|--:|--:|---|--:|"]
    for run in reversed(runs):
        hardware = ", ".join(filter(None, (run.hardware, f"{run.threads} threads" if run.threads else "", run.gpu)))
        versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
        load = "" if run.load is None else f"{run.load:.2f}"
        others = "not watched" if run.others is None else f"{run.others:.0%}"
        when, commit = run.date[:16].replace("T", " "), f"`{run.commit or 'none'}`"
        cells = (str(run.number), when, commit, hardware, load, others, versions, str(len(run.results)))
        rows.append(f"| {' | '.join(map(_cell, cells))} |")
    return "\n".join([*rows, ""])


def amount(value: float) -> str:
    """Three digits that mean something: 17,454, 161, 6.82, 0.032."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def build(history: Path = HISTORY) -> dict[Path, str]:
    """What the page and the picture must say, from a history."""
    runs = read(history)
    groups = lines(runs, NAMES)
    return {PAGE: page(runs, groups), PICTURE: picture.svg(picture.draw(groups, runs))}


def write(history: Path = HISTORY) -> list[Path]:
    """Write both where they differ; returns what was written."""
    written = []
    for path, text in build(history).items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
            written.append(path)
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """Make docs/benchmarks.md and its picture from benchmarks/history.jsonl."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=main.__doc__)
    parser.parse_args(arguments)
    written = write()
    print("\n".join(str(path.relative_to(ROOT)) for path in written) or "nothing has changed")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
