"""`tiny law`: what loss some minutes are worth, and the runs that say so. Read before: law_runs.py, training/loss_law.py."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import tyro

from tiny_transformer.cli.engines import EngineName
from tiny_transformer.cli.main import unknown
from tiny_transformer.cli.screen import Screen, table
from tiny_transformer.cli.settings import MINUTES_RECIPE, parse
from tiny_transformer.config import ConfigError, check

if TYPE_CHECKING:
    from tiny_transformer.training.loss_law import Law

DESCRIPTION = """\
The law behind `tiny train --minutes`: loss from model size, tokens, context,
batch and text, fitted to measured runs. The package brings one; measure your own:

  tiny law                                   the fitted constants, how sure they are, and how well they fit
  tiny law measure --minutes 18              train a grid of small models; stop and go on as you like
  tiny law fit                               fit the law to the runs in law.json
  tiny law plot --out law                    measured beside predicted, and loss over minutes by size
  tiny train --corpus shakespeare --minutes 3 --law law.json
"""

ACTIONS = ("show", "measure", "fit", "plot")
OWN = "law.json"
"""Where measure and fit work unless told otherwise."""


@dataclass(frozen=True, kw_only=True)
class LawSettings:
    """What `tiny law` accepts."""

    action: tyro.conf.Positional[str] = "show"
    """show, measure, fit or plot."""
    file: str | None = None
    """The runs and laws; default: law.json for measure and fit, the package's own for show and plot."""
    minutes: float = 18.0
    """measure: how long the whole grid may take."""
    recipe: str = MINUTES_RECIPE
    """measure, plot: whose parts; sizes are the grid's."""
    corpus: str | None = None
    """measure: another built-in text than the recipe's. It is not fitted to, but shows how far the law carries."""
    engine: EngineName = "torch"
    """measure: torch or numpy."""
    gflops: float | None = None
    """measure: give each run the steps that its time is worth at so many 10⁹ operations a second: for a machine that is busy."""
    runs: int | None = None
    """measure: make at most so many of the runs now."""
    compiling: bool = False
    """measure: also what compiling gains and costs (two minutes more)."""
    out: str = "law"
    """plot: where the picture goes (.png and .svg are written)."""
    json: bool = False
    """Print the result as JSON."""


def main(argv: list[str]) -> int:
    """Do one of them."""
    settings = parse(LawSettings, argv, command="law", description=DESCRIPTION)
    if settings.action not in ACTIONS:
        raise ConfigError(unknown("action", settings.action, list(ACTIONS)))
    check(settings.minutes > 0, f"--minutes {settings.minutes:g}", "it must be positive", "Try --minutes 18")
    check(settings.engine in get_args(EngineName), f"--engine {settings.engine}", "it must be torch or numpy", "Pick one")
    screen = Screen(to_stderr=settings.json)
    action = {"show": _show, "measure": _measure, "fit": _fit, "plot": _plot}[settings.action]
    result = action(settings, screen)
    if settings.json:
        print(json.dumps(result))
    return 0


def _measure(settings: LawSettings, screen: Screen) -> Any:
    from tiny_transformer.cli import law_runs
    from tiny_transformer.training import loss_law

    path = Path(settings.file or OWN)
    content = {**law_runs.empty(), **(loss_law.read(path) if path.exists() else {})}
    setting = law_runs.setting_of(settings.recipe, settings.corpus, settings.minutes, settings.engine, settings.gflops)
    made = law_runs.measure(content, setting, lambda: law_runs.save_file(path, content), screen.say, settings.runs)
    if settings.compiling:
        found = law_runs.measure_compiling(content, setting)
        law_runs.save_file(path, content)
        screen.say(f"compiled steps are {found['gain']:.2f} × as fast, after {found['seconds']:.0f} s of compiling")
    screen.say(f"{made} runs made, {len(content['runs'])} in {path}. Fit them: tiny law fit --file {path}")
    return content["runs"][len(content["runs"]) - made :]


def _fit(settings: LawSettings, screen: Screen) -> Any:
    from tiny_transformer.cli import law_runs
    from tiny_transformer.training import loss_law

    path = Path(settings.file or OWN)
    content = loss_law.read(path)
    laws = law_runs.fit_all(content)
    law_runs.save_file(path, content)
    for name, law in laws.items():
        _describe(screen, name, law, content)
    screen.say(f"written to {path}. Use it: tiny train --minutes 3 --law {path}")
    return content["laws"]


def _show(settings: LawSettings, screen: Screen) -> Any:
    from tiny_transformer.training import loss_law

    content = loss_law.read(settings.file)
    laws = {name: loss_law.Law.from_dict(values) for name, values in content["laws"].items()}
    check(bool(laws), f"{settings.file or loss_law.FILE} holds no fitted law", "runs must be fitted", "Try: tiny law fit")
    for name, law in laws.items():
        _describe(screen, name, law, content)
    return {"laws": content["laws"], "runs": len(content["runs"])}


def _plot(settings: LawSettings, screen: Screen) -> Any:
    from tiny_transformer.cli import law_plots, law_runs
    from tiny_transformer.cli.plots import save
    from tiny_transformer.training import loss_law

    content = loss_law.read(settings.file)
    law, name = loss_law.law_for(settings.recipe, MINUTES_RECIPE, settings.file)
    target = Path(settings.out)
    target.parent.mkdir(parents=True, exist_ok=True)
    paths = save(law_plots.law_figure(law, name, law_runs.runs_of(content, name)), target)
    for path in paths:
        screen.say(f"drawn: {path}")
    return [str(path) for path in paths]


# --- what is shown ----------------------------------------------------------------------------------------------------

_MEANINGS = {
    "floor": ("E", "what stays however large and long"),
    "size_loss": ("A", "what a million parameters fall short by"),
    "size_power": ("a", "power of the size"),
    "data_loss": ("B", "what a million tokens fall short by"),
    "data_power": ("r", "power of the tokens"),
    "context_loss": ("C", "what a window's beginning costs, over its length"),
    "large_batch": ("b*", "tokens of a batch from which on it is large"),
    "repeats": ("R", "repeats after which a text has given most"),
}


def _describe(screen: Screen, name: str, law: "Law", content: dict[str, Any]) -> None:
    """Constants with their uncertainty, then every run beside what the law says of it."""
    from tiny_transformer.cli import law_runs

    screen.heading(f"recipe {name}: L = E + A (N / 10⁶)^-a + B (D' / 10⁶)^-r + C / T")
    made = table("constant", "value", "uncertain by", "what it is")
    made.columns[3].justify = "left"
    uncertainty = law.uncertainty()
    for key, (symbol, meaning) in _MEANINGS.items():
        made.add_row(symbol, f"{getattr(law.constants, key):,.4g}", f"{100 * uncertainty[key]:.0f} %", meaning)
    screen.say(made)
    runs = law_runs.runs_of(content, name)
    fits = table("run", "measured", "law", "off by")
    for run in runs:
        expected = law.expect(law_runs.point_of(run))[0]
        fits.add_row(law_runs.line_of(run).rpartition("  loss")[0], f"{run['val_loss']:.3f}", f"{expected:.3f}", _off(run, expected))
    screen.say(fits)
    largest = f"the largest model has {law.largest / 1e6:.2f} M parameters in its blocks"
    screen.say(f"{law.runs} runs, off by {100 * law.scatter:.1f} % (standard deviation); {largest}")
    others = law_runs.runs_of(content, name, home=False)
    for run in others:
        expected = law.expect(law_runs.point_of(run), content["yardsticks"][run["corpus"]])[0]
        screen.say(f"on {run['corpus']}: {law_runs.line_of(run)}, expected {expected:.3f}: off by {_off(run, expected)}")


def _off(run: dict[str, Any], expected: float) -> str:
    return f"{100 * (run['val_loss'] / expected - 1):+.1f} %"
