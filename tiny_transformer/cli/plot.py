"""`tiny plot`: draw a run again, compare runs, draw the poster. Read before: plots.py, pictures.py."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from tiny_transformer.cli.settings import parse
from tiny_transformer.config import check

DESCRIPTION = """\
Draw the loss curve of a run as PNG and SVG, into the run's own directory; of several runs, into one picture.

  tiny plot runs/a
  tiny plot runs/a runs/b --out compared.png
  tiny plot runs/a --timelapse
"""


@dataclass(frozen=True, kw_only=True)
class PlotSettings:
    """What `tiny plot` accepts."""

    runs: tyro.conf.Positional[tuple[str, ...]] = ()
    """Run directories: one to draw, several to compare."""
    timelapse: bool = False
    """The poster: the curve, and what the model wrote on the way down."""
    cards: int = 6
    """How many samples the poster shows."""
    out: str | None = None
    """Where the picture goes (.png and .svg are written); default: into the run, or ./compared for several."""
    json: bool = False
    """Print the written paths as JSON."""


def main(argv: list[str]) -> int:
    """Draw."""
    settings = parse(PlotSettings, argv, command="plot", description=DESCRIPTION)
    check(bool(settings.runs), "no run named", "tiny plot needs one or more", "Try: tiny plot checkpoints/demo (see tiny runs)")
    check(not settings.timelapse or len(settings.runs) == 1, f"{len(settings.runs)} runs", "a timelapse shows one", "Name one run")
    check(2 <= settings.cards <= 10, f"cards={settings.cards}", "it must be 2 to 10", "Try --cards 6")
    paths = draw(settings)
    print(json.dumps([str(path) for path in paths]) if settings.json else "\n".join(f"drawn: {path}" for path in paths))
    return 0


def draw(settings: PlotSettings) -> list[Path]:
    """Write the pictures; returns their paths."""
    from tiny_transformer.cli import pictures, plots
    from tiny_transformer.run import Run

    runs = [Run.open(Path(path)) for path in settings.runs]
    curves = [pictures.curve_of(run) for run in runs]
    for run, curve in zip(runs, curves, strict=True):
        check(bool(curve.train or curve.val), f"{run.path} has no logged losses", "there is nothing to draw", "Train it first")
    if settings.timelapse:
        samples = pictures.samples_of(runs[0])
        check(bool(samples), f"{runs[0].path} has no samples", "a timelapse shows them", "Draw the curve alone, without --timelapse")
        figure, name = plots.timelapse_figure(curves[0], samples, pictures.caption(runs[0]), cards=settings.cards), "timelapse"
    elif len(runs) == 1:
        figure, name = plots.loss_figure(curves[0]), "loss"
    else:
        named = [replace(curve, name=str(run.path)) for run, curve in zip(runs, curves, strict=True)]
        figure, name = plots.comparison_figure(named), ""
    target = Path(settings.out) if settings.out else runs[0].path / name if name else Path("compared")
    target.parent.mkdir(parents=True, exist_ok=True)
    return plots.save(figure, target)
