"""What loss a training run will end at, by a law of eight numbers that is fitted to measured runs.

    L(N, D, T, b, U) = E + A (N / 10⁶)^-a + B (D' / 10⁶)^-r + C / T

    N   parameters inside the blocks (embeddings are lookups)             D   tokens learned from, repeats included
    T   context: the first tokens of a window are the hardest             b   tokens of a batch
    U   different tokens in the training text                             D'  what D tokens are worth:

    D' = U' / (1 + b / b*)     a batch larger than b* averages gradients that agree already (McCandlish et al. 2018, section 2.3)
    U' = min(D, U) (1 + R (1 - e^(-n / R)))     with n = max(0, D / U - 1) repeats: after about R of them a text has little left to give
                                                (Muennighoff et al. 2023, equation 5)

Without the last lines it is the law of Hoffmann et al. 2022 ("Chinchilla"), equation 2; N and D count in millions so that A and B are
losses: what a model of a million parameters, or a million tokens, falls short by. It knows nothing of overfitting beyond repeats that
stop helping: `best.pt` is what is kept. Losses are nats per character of Tiny Shakespeare; `for_text` scales them to other texts.
Leaves out: measuring (`cli/law_runs.py`), choosing a size (`size_choice.py`). Read before: nothing.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiny_transformer.config import check

FILE = Path(__file__).with_name("loss_law.json")
"""The measured runs and fitted laws that come with the package."""
Floats = NDArray[np.float64]
HUBER = 0.01
"""Residuals of log loss up to this count squared, larger ones in a straight line: a run that went wrong must not bend the law."""
DRAWS = 200
"""How often the runs are drawn anew for the uncertainty."""
ROUNDS = 60
"""Most steps of the fit."""
NINETY = 1.645
"""Standard deviations on either side that hold 90 % of a normal distribution."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """What the law looks at."""

    parameters: float
    """N: in the blocks."""
    tokens: float
    """D: learned from, repeats included."""
    context: float
    """T."""
    batch: float
    """b: tokens of a step."""
    unique: float
    """U: tokens of the training text."""


@dataclass(frozen=True, kw_only=True)
class Constants:
    """The law's eight numbers, all positive. The values here are where the fit begins, and what it falls back on without runs."""

    floor: float = 1.2
    """E: what stays however large the model and however long the training, in nats."""
    size_loss: float = 0.08
    """A: what a million parameters fall short by."""
    size_power: float = 0.35
    """a."""
    data_loss: float = 0.6
    """B: what a million tokens fall short by."""
    data_power: float = 0.55
    """r."""
    context_loss: float = 6.0
    """C: what the unknown beginning of a window costs, summed over its tokens."""
    large_batch: float = 8000.0
    """b*: tokens of a batch from which on twice the batch is not worth twice the steps."""
    repeats: float = 15.0
    """R: Muennighoff et al. found 15.4."""


NAMES = tuple(field.name for field in fields(Constants))
SPREADS = Constants(
    floor=0.15, size_loss=1.0, size_power=0.3, data_loss=0.5, data_power=0.3, context_loss=1.0, large_batch=0.7, repeats=0.5
)
"""How far, as a standard deviation of its logarithm, each constant may lie from where the fit begins before runs must insist on it.

Eight constants from two dozen runs: what the runs do not show (the floor that none of them reached, repeats that none of them
saw) stays near what others have found, and its uncertainty is said."""
_PRIOR: Floats = np.log([getattr(Constants(), name) for name in NAMES])
_SPREAD: Floats = np.array([getattr(SPREADS, name) for name in NAMES])


def effective_tokens(point: Point, constants: Constants) -> float:
    """D': what the tokens of a run are worth, in tokens seen once in small batches."""
    repeated = max(0.0, point.tokens / point.unique - 1)
    worth: float = min(point.tokens, point.unique) * (1 + constants.repeats * -math.expm1(-repeated / constants.repeats))
    return worth / (1 + point.batch / constants.large_batch)


def loss_at(point: Point, constants: Constants) -> float:
    """The law: nats per character of Tiny Shakespeare."""
    c = constants
    size: float = c.size_loss * (point.parameters / 1e6) ** -c.size_power
    data: float = c.data_loss * (effective_tokens(point, c) / 1e6) ** -c.data_power
    return c.floor + size + data + c.context_loss / point.context


# --- fitting ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Law:
    """A fitted law, with what is needed to say how sure it is."""

    constants: Constants
    covariance: Floats
    """Of the logarithms of the constants, in the order of NAMES, from the bootstrap: (8, 8)."""
    scatter: float
    """Standard deviation of log(measured / predicted) over the runs."""
    runs: int
    """How many it was fitted to."""
    largest: float
    """Parameters of the largest model among them: far above it the law is a guess."""
    yardstick: float
    """What counting reaches on the text of the runs (`ngram_loss`), in nats per token."""

    def expect(self, point: Point, yardstick: float | None = None, spread: float = 0.0) -> tuple[float, float, float]:
        """(loss, low, high): the expected loss, and between which two values it will lie nine times out of ten.

        `yardstick` is what counting reaches on the text at hand, when it is another one: losses are scaled by its ratio to the law's own.
        `spread` is added to the scatter, as a share of the loss, for what the law does not know.
        """
        scale = 1.0 if yardstick is None else yardstick / self.yardstick
        loss = scale * loss_at(point, self.constants)
        slope = _slopes([point], _logs(self.constants))[0]  # of log loss, by the logarithm of each constant
        deviation = math.sqrt(float(slope @ self.covariance @ slope) + self.scatter**2 + spread**2)
        return loss, loss * math.exp(-NINETY * deviation), loss * math.exp(NINETY * deviation)

    def uncertainty(self) -> dict[str, float]:
        """The standard deviation of each constant, as a share of it."""
        return dict(zip(NAMES, np.sqrt(np.diag(self.covariance)).tolist(), strict=True))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values."""
        return {
            "constants": {name: float(f"{getattr(self.constants, name):.5g}") for name in NAMES},
            "covariance": [[float(f"{value:.3g}") for value in row] for row in self.covariance.tolist()],
            "scatter": round(self.scatter, 5), "runs": self.runs, "largest": self.largest, "yardstick": round(self.yardstick, 5),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Law":
        """The opposite of `to_dict`."""
        known = {name: values[name] for name in ("scatter", "runs", "largest", "yardstick")}
        return cls(Constants(**values["constants"]), np.array(values["covariance"], dtype=np.float64), **known)


def fit(points: Sequence[Point], losses: Sequence[float], yardstick: float, *, seed: int = 0) -> Law:
    """The law nearest to measured runs, and how sure it is.

    What is made small is the sum of Huber's function of log(measured / predicted), as in Hoffmann et al. 2022 (section 3.3), and of the
    squared distance of each constant's logarithm from where it began, in units of its spread. The uncertainty comes from fitting anew to
    runs drawn with replacement, each time with the beginnings drawn from their spreads as well: a constant that no run
    speaks about keeps all of its spread. Raises ConfigError below four runs.
    """
    check(len(points) >= 4, f"{len(points)} runs", "a law needs 4 or more", "Measure more: tiny law measure")
    measured, generator = np.log(np.asarray(losses, dtype=np.float64)), np.random.default_rng(seed)
    best = _minimise(points, measured, _PRIOR)
    scatter = float(np.sqrt(np.mean((measured - _log_losses(points, best)) ** 2)))
    draws = []
    for _ in range(DRAWS):
        chosen = generator.integers(len(points), size=len(points))
        draws.append(_minimise([points[i] for i in chosen], measured[chosen], _PRIOR + _SPREAD * generator.normal(size=len(NAMES)), best))
    covariance = np.cov(np.array(draws), rowvar=False)
    return Law(_constants(best), covariance, scatter, len(points), max(point.parameters for point in points), yardstick)


def _minimise(points: Sequence[Point], measured: Floats, prior: Floats, start: Floats | None = None) -> Floats:
    """Levenberg–Marquardt with Huber's weights: Gauss–Newton steps on the logarithms of the constants, damped while they do not help."""
    at = np.array(prior if start is None else start)
    damping, cost = 1e-2, _cost(points, measured, at, prior)
    for _ in range(ROUNDS):
        residual = measured - _log_losses(points, at)
        weight = np.minimum(1.0, HUBER / np.maximum(np.abs(residual), 1e-12)) / HUBER**2
        slopes = _slopes(points, at)
        hessian = (slopes.T * weight) @ slopes + np.diag(_SPREAD**-2)
        gradient = slopes.T @ (weight * residual) + (prior - at) / _SPREAD**2
        step = np.linalg.solve(hessian + damping * np.diag(np.diag(hessian)), gradient)
        tried = at + np.clip(step, -1, 1)
        new = _cost(points, measured, tried, prior)
        if new < cost:
            done = cost - new < 1e-9 * (1 + cost)
            at, cost, damping = tried, new, damping / 5
            if done:
                break
        else:
            damping *= 5
            if damping > 1e8:
                break
    return at


def _cost(points: Sequence[Point], measured: Floats, at: Floats, prior: Floats) -> float:
    size = np.abs(measured - _log_losses(points, at))
    huber = np.where(size <= HUBER, 0.5 * size**2, HUBER * (size - 0.5 * HUBER))
    return float(huber.sum() / HUBER**2 + 0.5 * np.sum(((at - prior) / _SPREAD) ** 2))


def _log_losses(points: Sequence[Point], at: Floats) -> Floats:
    constants = _constants(at)
    return np.log([loss_at(point, constants) for point in points])


def _slopes(points: Sequence[Point], at: Floats) -> Floats:
    """Of log loss by the logarithm of each constant, by central differences: (points, 8)."""
    columns = []
    for index in range(len(at)):
        shift = np.zeros(len(at))
        shift[index] = 1e-5
        columns.append((_log_losses(points, at + shift) - _log_losses(points, at - shift)) / 2e-5)
    return np.stack(columns, axis=1)


def _logs(constants: Constants) -> Floats:
    return np.log([getattr(constants, name) for name in NAMES])


def _constants(at: Floats) -> Constants:
    return Constants(**dict(zip(NAMES, np.exp(at).tolist(), strict=True)))


# --- the file ---------------------------------------------------------------------------------------------------------


def read(path: str | Path | None = None) -> dict[str, Any]:
    """A law file: {"laws": recipe → law, "runs": [run, …], …}; default: the package's. Raises ConfigError for anything else."""
    file = FILE if path is None else Path(path)
    check(file.is_file(), f"there is no law file {file}", "runs must have been measured", f"Try: tiny law measure --file {file}")
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        whole = isinstance(content["laws"], dict) and isinstance(content["runs"], list)
    except (ValueError, KeyError, TypeError):
        whole = False
    check(whole, f"{file} is no law file", "it must be JSON with laws and runs", "Measure anew: tiny law measure")
    return content


def law_for(recipe: str | None, fallback: str, path: str | Path | None = None) -> tuple[Law, str]:
    """(law, name of the recipe it was measured with): that of `recipe`, or of `fallback` where there is none."""
    laws = read(path)["laws"]
    name = next((name for name in (recipe, fallback, *laws) if name in laws), None) or ""
    check(bool(name), f"{path or FILE} holds no fitted law", "runs must have been fitted", f"Try: tiny law fit --file {path or FILE}")
    return Law.from_dict(laws[name]), name


if __name__ == "__main__":
    truth = Constants(floor=1.3, data_loss=0.5)
    grid = [
        Point(parameters=n, tokens=d, context=128, batch=2048, unique=1e6) for n in (1e5, 4e5, 1.6e6, 6.4e6) for d in (5e5, 2e6, 8e6)
    ]
    noise = np.random.default_rng(0).normal(scale=0.003, size=len(grid))
    law = fit(grid, [loss_at(point, truth) * math.exp(e) for point, e in zip(grid, noise, strict=True)], yardstick=2.0)
    for name, share in law.uncertainty().items():
        print(f"{name:13} true {getattr(truth, name):8.3g}  fitted {getattr(law.constants, name):8.3g} ± {100 * share:.0f} %")
    goal = replace(grid[0], parameters=3e6, tokens=2e7)
    print("a run beyond the grid: true {:.3f}, expected {:.3f} ({:.3f} to {:.3f})".format(loss_at(goal, truth), *law.expect(goal)))
