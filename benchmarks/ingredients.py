"""What each ingredient of the speedrun is worth: the recipe without it, and a plain recipe with it alone, over several seeds.

    python -m benchmarks.ingredients                          every case, three seeds: hours; it goes on where it was stopped
    python -m benchmarks.ingredients --only counts muon       these ingredients, and the two recipes they are compared with
    python -m benchmarks.ingredients --table                  no training: the table of what is there

Two trainings run side by side, each with one thread, so that both cores are busy and every case has the same share of them; a case has
fewer steps than the command alone would make. Seeds come one after the other, each over all cases, so that slow and fast hours of the
machine fall on all of them. Lines go to `ingredients.jsonl`. Read before: `recipe.py`.
"""

import argparse
import json
import math
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import machine, warn_if_busy
from benchmarks.recipe import FIRST_SEED, FailedError, at_least_one, command, measure, train
from tiny_transformer.recipes import RECIPES

FILE = Path(__file__).parent / "ingredients.jsonl"
RECIPE, ALL, PLAIN = "speedrun", "all", "none"
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
        return [] if self.name == ALL else [flag for name, flags in OFF.items() if name != kept for flag in flags]


def cases(ingredients: Sequence[str], kinds: Sequence[str]) -> list[Case]:
    """Those to train, the two compared with first."""
    found = [ALL] if "without" in kinds else []
    found += [PLAIN] if "alone" in kinds else []
    return [Case(name) for name in [*found, *(f"{kind} {ingredient}" for kind in kinds for ingredient in ingredients)]]


def measured(case: Case, seed: int, minutes: float, folder: Path) -> dict[str, Any]:
    """Train one case with one seed, measure it, and throw the run away."""
    out = folder / f"{case.name.replace(' ', '-')}-{seed}"
    words = [*command(RECIPE, seed, out, minutes), "--threads", "1", *case.flags]
    found = measure(out, train(words))
    return {
        "case": case.name, "seed": seed, "minutes": minutes, "steps": found.steps, "loss": found.windows.loss, "error": found.windows.error,
        "random": found.random.loss, "seconds": found.seconds, **machine(),
    }  # fmt: skip


# ------------------------------------------------------------ what is there


def read(file: Path = FILE) -> list[dict[str, Any]]:
    """All lines."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


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


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Each case's mean loss, and how far it lies from what it is compared with, with its 95 % confidence interval.

    One standard deviation for all cases, pooled: a single case has too few seeds to know its own.
    """
    losses, steps = defaultdict(list), defaultdict(list)
    for line in lines:
        losses[line["case"]].append(line["loss"])
        steps[line["case"]].append(line["steps"])
    freedom = sum(len(values) - 1 for values in losses.values())
    rows = ["| ingredient | case | seeds | steps | loss | difference, 95 % |", "|---|---|--:|--:|--:|--:|"]
    squares = sum((len(values) - 1) * statistics.variance(values) for values in losses.values() if len(values) > 1)
    wide = student(0.95, freedom) * math.sqrt(squares / freedom) if freedom else math.nan
    for name in sorted(losses, key=lambda name: (name.split()[0] not in (ALL, "without"), " " in name, statistics.fmean(losses[name]))):
        kind, _, ingredient = name.partition(" ")
        base = losses.get(ALL if kind == "without" else PLAIN, []) if ingredient else []
        values, mean = losses[name], statistics.fmean(losses[name])
        apart = f"{mean - statistics.fmean(base):+.3f} ± {wide * math.sqrt(1 / len(values) + 1 / len(base)):.3f}" if base else ""
        says, how = (SAYS[ingredient], kind) if ingredient else ({ALL: "the recipe", PLAIN: "none of them"}[name], "")
        rows.append(f"| {says} | {how} | {len(values)} | {statistics.fmean(steps[name]):,.0f} | {mean:.3f} | {apart} |")
    return "\n".join(rows)


# ------------------------------------------------------------ the command


def run(todo: Sequence[tuple[Case, int]], minutes: float, side_by_side: int, file: Path = FILE) -> None:
    """Train what is not there yet, and add a line for each as it ends. Raises FailedError."""
    there = {(line["case"], line["seed"]) for line in read(file) if line["minutes"] == minutes}
    left = [(case, seed) for case, seed in todo if (case.name, seed) not in there]
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(side_by_side) as pool:
        for line in pool.map(lambda one: measured(one[0], one[1], minutes, Path(scratch)), left):
            with file.open("a") as out:
                out.write(json.dumps(line) + "\n")
            print(f"{line['case']:20} seed {line['seed']}  {line['steps']:5} steps  {line['loss']:.4f} ± {line['error']:.4f}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train the speedrun without each ingredient, and a plain recipe with each alone; exit code 2 when a training fails."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ingredients", description=main.__doc__)
    parser.add_argument("--only", nargs="+", choices=tuple(OFF), default=list(OFF), metavar="NAME", help=f"of {', '.join(OFF)}")
    parser.add_argument("--kinds", nargs="+", choices=("without", "alone"), default=["without", "alone"], help="default: both")
    parser.add_argument("--seeds", type=at_least_one, default=3, metavar="N", help=f"how many, from {FIRST_SEED} on; default: 3")
    parser.add_argument("--minutes", type=float, default=RECIPES[RECIPE].training.minutes, help="for each; default: the recipe's own")
    parser.add_argument("--table", action="store_true", help="train nothing")
    chosen = parser.parse_args(arguments)
    if not chosen.table:
        warn_if_busy()
        todo = [(case, seed) for seed in range(FIRST_SEED, FIRST_SEED + chosen.seeds) for case in cases(chosen.only, chosen.kinds)]
        try:
            run(todo, chosen.minutes, side_by_side=2)
        except FailedError as failed:
            print(failed, file=sys.stderr)
            return 2
    print(table([line for line in read() if line["minutes"] == chosen.minutes]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
