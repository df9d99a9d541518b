"""What each ingredient of the speedrun is worth: the recipe without it, and a plain recipe with it alone, over several seeds.

    python -m benchmarks.ingredients --pace                   how fast each case is: half an hour, on a machine left alone
    python -m benchmarks.ingredients                          every case, three seeds: hours; it goes on where it was stopped
    python -m benchmarks.ingredients --only counts muon       these ingredients, and the two recipes they are compared with
    python -m benchmarks.ingredients --table                  no training: the table of what is there

The recipe trains by the clock, but the same machine is faster and slower from minute to minute by more than most ingredients are worth.
So losses are compared by equal steps, as many as the recipe (or the plain one) makes in the time, and speeds stand in a column of
their own; the loss after a quarter more steps says what speed is worth. What else the machine does changes no loss. Two run side by
side, with one thread each. Lines go to `ingredients.jsonl`. Read before: `recipe.py`.
"""

import argparse
import json
import math
import shutil
import statistics
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import machine, warn_if_busy
from benchmarks.recipe import FIRST_SEED, FailedError, at_least_one, command, opened, train
from tiny_transformer.evaluation.validation_loss import loss_in_windows
from tiny_transformer.recipes import RECIPES
from tiny_transformer.run import Run

FILE = Path(__file__).parent / "ingredients.jsonl"
RECIPE, ALL, PLAIN, MORE = "speedrun", "all", "none", " more"
LONGER = 1.25
"""So many times the steps have the two cases whose names end in MORE."""
PACE_MINUTES = 0.75
"""A case's speed is taken from so long a run,"""
ROUNDS = 2
"""and so often: the machine itself is faster and slower from minute to minute, by some 5 %."""
OFF = {
    "counts": ["--counted-share", "0"],
    "shuffled": ["--windows", "random"],
    "muon": ["--optimizer", "adamw"],
    "pairs": ["--ngram-rows"],
    "short": ["--short-context", "None"],
    "decay": ["--schedule", "cosine", "--min-lr-ratio", "0.1"],
    "rotary": ["--position", "learned"],
    "qk-norm": ["--no-qk-norm"],
    "rms": ["--norm", "layer"],
    "relu2": ["--activation", "gelu"],
    "soft-cap": ["--logit-softcap", "None"],
    "untied": ["--tie-weights"],
    "bfloat16": ["--precision", "float32"],
    "compile": ["--no-compile"],
}
"""The flags that switch each ingredient off; what is left is what most small GPTs do."""
SAYS = {
    "counts": "targets softened by counts",
    "shuffled": "every window once an epoch",
    "muon": "Muon",
    "pairs": "a table for pairs of characters",
    "short": "contexts of 128 first",
    "decay": "straight line to zero over the last half",
    "rotary": "rotary positions",
    "qk-norm": "QK-norm",
    "rms": "RMS norm",
    "relu2": "squared ReLU",
    "soft-cap": "soft-cap of the logits",
    "untied": "an output layer of its own",
    "bfloat16": "bfloat16",
    "compile": "compiled",
}


@dataclass(frozen=True)
class Case:
    """What is trained: the recipe without one ingredient, a plain one with it alone, or one of the two that these are compared with."""

    name: str

    @property
    def flags(self) -> list[str]:
        """What is added to the command."""
        kind, _, ingredient = self.name.partition(" ")
        if kind == "without":
            return OFF[ingredient]
        kept = ingredient if kind == "alone" else None
        return [] if kind == ALL else [flag for name, flags in OFF.items() if name != kept for flag in flags]

    @property
    def base(self) -> str:
        """The name of the case that this one is compared with."""
        return ALL if self.name.split()[0] in (ALL, "without") else PLAIN

    def steps(self, paces: Mapping[str, "Pace"], minutes: float) -> int:
        """How many it takes: those that its base makes in the time."""
        return round(paces[self.base].steps(minutes) * (LONGER if self.name.endswith(MORE) else 1))


def cases(ingredients: Sequence[str], kinds: Sequence[str]) -> list[Case]:
    """Those to train, the two compared with first."""
    found = [ALL, ALL + MORE] if "without" in kinds else []
    found += [PLAIN, PLAIN + MORE] if "alone" in kinds else []
    return [Case(name) for name in [*found, *(f"{kind} {ingredient}" for kind in kinds for ingredient in ingredients)]]


@dataclass(frozen=True)
class Pace:
    """How fast a case trains."""

    start: float
    """Seconds from the command to the first step."""
    rate: float
    """Steps per second after that, both lengths of context and all evaluations in it."""

    def steps(self, minutes: float) -> int:
        """How many fit."""
        return round((60 * minutes - self.start) * self.rate)


def pace_of(lines: Sequence[dict[str, Any]]) -> Pace:
    """From the metrics of a run by the clock: a line every few steps with the seconds since the command, and the end."""
    (first, used), (second, later) = [(line["step"], line["seconds_used"]) for line in lines if "seconds_used" in line][:2]
    start = used - first * (later - used) / (second - first)
    end = next(line for line in lines if "trained_seconds" in line)
    return Pace(start, end["step"] / (end["trained_seconds"] - start))


def words_of(case: Case, seed: int, out: Path, *more: str) -> list[str]:
    """The command of a case."""
    return [*command(RECIPE, seed, out), "--threads", "1", *case.flags, *more]


def warm(case: Case, folder: Path) -> None:
    """Compile a case once: what it costs to compile is not what is compared."""
    train(words_of(case, FIRST_SEED, folder / f"warm-{case.name.replace(' ', '-')}", "--max-steps", "10"))


def paced(case: Case, folder: Path) -> dict[str, Any]:
    """Measure a case's speed, with a warm compile cache."""
    out = folder / case.name.replace(" ", "-")
    train(words_of(case, FIRST_SEED, out, "--minutes", f"{PACE_MINUTES:g}"))
    lines = Run.open(out).metrics()
    shutil.rmtree(out)
    return {"pace": case.name, **asdict(pace_of(lines)), **machine()}


def measured(case: Case, seed: int, steps: int, folder: Path) -> dict[str, Any]:
    """Train one case with one seed for so many steps, measure it, and throw the run away."""
    out = folder / f"{case.name.replace(' ', '-')}-{seed}"
    train(words_of(case, seed, out, "--max-steps", str(steps)))
    _, model, _, val_ids = opened(out)
    found = loss_in_windows(model, val_ids)
    shutil.rmtree(out)
    return {"case": case.name, "seed": seed, "steps": steps, "loss": found.loss, "error": found.error, **machine()}


# ------------------------------------------------------------ what is there


def read(file: Path = FILE) -> list[dict[str, Any]]:
    """All lines."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def paces(lines: Sequence[dict[str, Any]]) -> dict[str, Pace]:
    """Of each case that was measured often enough; the means."""
    found = defaultdict(list)
    for line in lines:
        if "pace" in line:
            found[line["pace"]].append((line["start"], line["rate"]))
    return {name: Pace(*map(statistics.fmean, zip(*rounds, strict=True))) for name, rounds in found.items() if len(rounds) >= ROUNDS}


def student(probability: float, freedom: int) -> float:
    """The two-sided quantile of Student's t: |t| is below it with this probability. By bisection over a sum (Simpson's rule).

    >>> round(student(0.95, 4), 3), round(student(0.95, 30), 3)
    (2.776, 2.042)
    """
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)

    def within(t: float, parts: int = 2000) -> float:
        heights = [(1 + (t * i / parts) ** 2 / freedom) ** (-(freedom + 1) / 2) for i in range(parts + 1)]
        return 2 * scale * t / parts / 3 * (heights[0] + heights[-1] + 4 * sum(heights[1:-1:2]) + 2 * sum(heights[2:-1:2]))

    low, high = 0.0, 1000.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle) < probability else (low, middle)
    return high


def _half_width(groups: Sequence[Sequence[float]]) -> float:
    """Of the 95 % interval around a single measurement, from the standard deviation within groups, pooled."""
    freedom = sum(len(values) - 1 for values in groups)
    squares = sum((len(values) - 1) * statistics.variance(values) for values in groups if len(values) > 1)
    return student(0.95, freedom) * math.sqrt(squares / freedom) if freedom else math.nan


def table(lines: Sequence[dict[str, Any]], minutes: float) -> str:
    """Each case's mean loss, and how far it lies from what it is compared with, with its 95 % confidence interval.

    One standard deviation for all cases around the recipe and one for all around the plain one, pooled: a single case has too few
    seeds to know its own, and a badly trained model varies far more than a good one.
    """
    known, losses = paces(lines), defaultdict(list)
    for line in lines:
        if "case" in line and line["steps"] == Case(line["case"]).steps(known, minutes):
            losses[line["case"]].append(line["loss"])
    wide = {base: _half_width([values for name, values in losses.items() if Case(name).base == base]) for base in (ALL, PLAIN)}
    rows = ["| ingredient | case | seeds | steps | loss | difference, 95 % | speed |", "|---|---|--:|--:|--:|--:|--:|"]
    for name in sorted(losses, key=lambda name: (name.split()[0] not in (ALL, "without"), " " in name, statistics.fmean(losses[name]))):
        case, (kind, _, ingredient), values = Case(name), name.partition(" "), losses[name]
        mean, base, speed = statistics.fmean(values), losses.get(case.base, []), ""
        wider = wide[case.base] * math.sqrt(1 / len(values) + 1 / len(base)) if base else math.nan
        apart = f"{mean - statistics.fmean(base):+.4f} ± {wider:.4f}" if base and name != case.base else ""
        says, how = {ALL: "the recipe", PLAIN: "none of them"}.get(name, "a quarter more steps"), ""
        if ingredient in SAYS:
            says, how = SAYS[ingredient], kind
        if name in known:
            speed = f"{known[name].rate / known[case.base].rate:.2f}" if ingredient else f"{known[name].rate:.1f} a second"
        rows.append(f"| {says} | {how} | {len(values)} | {case.steps(known, minutes):,} | {mean:.4f} | {apart} | {speed} |")
    return "\n".join(rows)


# ------------------------------------------------------------ the command


def side_by_side(work: Callable[[Any], dict[str, Any]], todo: Sequence[Any], file: Path = FILE) -> Iterator[dict[str, Any]]:
    """Do it for each, two at a time, and add a line to the file as each ends."""
    with ThreadPoolExecutor(2) as pool:
        for line in pool.map(work, todo):
            with file.open("a") as out:
                out.write(json.dumps(line) + "\n")
            yield line


def run_paces(todo: Sequence[Case], file: Path = FILE) -> None:
    """Measure the speed of what was not measured yet. Raises FailedError."""
    there = Counter(line.get("pace") for line in read(file))
    left = [[case for case in todo if there[case.name] < ROUNDS - later] for later in range(ROUNDS)]
    each = [case for number, some in enumerate(left) for case in some[:: -1 if number % 2 else 1]]  # other neighbours each time
    with tempfile.TemporaryDirectory() as scratch:
        print(f"compiling {len(left[0])} cases, then {60 * PACE_MINUTES:.0f} seconds of each, {ROUNDS} rounds, two at a time", flush=True)
        with ThreadPoolExecutor(2) as pool:  # all of them first: a compiler beside a training would slow it down
            list(pool.map(lambda case: warm(case, Path(scratch)), left[0]))
        for line in side_by_side(lambda case: paced(case, Path(scratch)), each, file):
            print(f"{line['pace']:20} {line['start']:5.1f} s to the first step, then {line['rate']:5.2f} steps/s", flush=True)


def run(todo: Sequence[tuple[Case, int]], minutes: float, file: Path = FILE) -> None:
    """Train what is not there yet. Raises FailedError."""
    lines = read(file)
    known, there = paces(lines), {(line["case"], line["seed"], line["steps"]) for line in lines if "case" in line}
    wanted = [(case, seed, case.steps(known, minutes)) for case, seed in todo]
    left = [one for one in wanted if (one[0].name, *one[1:]) not in there]
    with tempfile.TemporaryDirectory() as scratch:
        for line in side_by_side(lambda one: measured(*one, Path(scratch)), left, file):
            print(f"{line['case']:20} seed {line['seed']}  {line['steps']:5} steps  {line['loss']:.4f} ± {line['error']:.4f}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train the speedrun without each ingredient, and a plain recipe with each alone; exit code 2 when a training fails."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ingredients", description=main.__doc__)
    parser.add_argument("--only", nargs="+", choices=tuple(OFF), default=list(OFF), metavar="NAME", help=f"of {', '.join(OFF)}")
    parser.add_argument("--kinds", nargs="+", choices=("without", "alone"), default=["without", "alone"], help="default: both")
    parser.add_argument("--seeds", type=at_least_one, default=3, metavar="N", help=f"how many, from {FIRST_SEED} on; default: 3")
    parser.add_argument("--minutes", type=float, default=RECIPES[RECIPE].training.minutes, help="for each; default: the recipe's own")
    parser.add_argument("--pace", action="store_true", help="only measure how fast each case is")
    parser.add_argument("--table", action="store_true", help="train nothing")
    chosen = parser.parse_args(arguments)
    todo = cases(chosen.only, chosen.kinds)
    if not chosen.table:
        try:
            bases = {case.base for case in todo}
            if chosen.pace or not bases <= set(paces(read())):
                warn_if_busy()
                run_paces([case for case in todo if not case.name.endswith(MORE) and (chosen.pace or case.name in bases)])
            if not chosen.pace:
                run([(case, seed) for seed in range(FIRST_SEED, FIRST_SEED + chosen.seeds) for case in todo], chosen.minutes)
        except FailedError as failed:
            print(failed, file=sys.stderr)
            return 2
    if not chosen.pace:
        print(table(read(), chosen.minutes))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
