"""A recipe from its command to its loss: seconds, tokens, and the loss in two manners, each with its standard error, over several seeds.

    python -m benchmarks.recipe                               speedrun, three seeds: about nine minutes
    python -m benchmarks.recipe --recipe laptop --seeds 1 --keep runs/laptop

Each seed is one `tiny train --recipe NAME` in a process of its own, as a person would type it; what it left behind is loaded and
measured. It takes too long for `make bench`, so it is a command of its own; its figures go to the same history and page.
Read before: `harness.py`, `watch.py`, `tiny_transformer/evaluation/validation_loss.py`.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.harness import Result, keep, machine, peer_module, warn_if_busy
from benchmarks.watch import Watch, is_busy
from tiny_transformer import run as runs
from tiny_transformer.cli.material import gather
from tiny_transformer.cli.noise import noise_of
from tiny_transformer.config import DataConfig, TrainConfig
from tiny_transformer.corpora.counting_loss import ORDER, ngram_loss
from tiny_transformer.evaluation.validation_loss import Measured, loss_in_random_windows, loss_in_windows
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.recipes import RECIPES
from tiny_transformer.run import Run

FIRST_SEED = TrainConfig().seed
BATCHES, DRAWN_WITH = 200, 1337
"""nanoGPT's manner: so many random batches of the run's own size, drawn with this seed."""


class FailedError(RuntimeError):
    """A training did not end well."""


@dataclass(frozen=True)
class Measurement:
    """What one seed reached."""

    seed: int
    steps: int
    tokens: int
    seconds: float
    """From the start of the command to its last step."""
    windows: Measured
    """Over the whole validation text, in windows of the training context that do not overlap: every token counts once."""
    random: Measured
    """In nanoGPT's manner."""
    counting: float
    """What an n-gram model counted on the training text reaches on the validation text."""
    random_batch: int
    """Windows in one of the random batches."""
    others: float | None = None
    """Share of the machine that other programs used while it trained."""

    def line(self) -> str:
        """As a row of the table."""
        busy = f"  others used {self.others:.0%} of the machine" if self.others is not None and is_busy(self.others) else ""
        return (
            f"{self.seed:6} {self.steps:8,} {self.tokens:12,} {self.seconds:9.1f}   {self.windows!s:18} {self.random!s:18}{busy}"
        )


class Spread(NamedTuple):
    """A mean over seeds, and how far apart they lie."""

    mean: float
    deviation: float
    """Standard deviation; not a number for a single seed."""

    def __str__(self) -> str:
        return f"{self.mean:.4f}" if self.deviation != self.deviation else f"{self.mean:.4f} (standard deviation {self.deviation:.4f})"


def spread(values: Sequence[float]) -> Spread:
    """Over seeds; the deviation is that of a sample, so it divides by n - 1.

    >>> spread([1.0, 2.0, 3.0])
    Spread(mean=2.0, deviation=1.0)
    """
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else float("nan"))


# ------------------------------------------------------------ training


def command(recipe: str, seed: int, out: Path, minutes: float | None = None) -> list[str]:
    """The words of the command."""
    words = ["tiny", "train", "--recipe", recipe, "--seed", str(seed), "--out", str(out)]
    return words if minutes is None else [*words, "--minutes", f"{minutes:g}"]


def train(words: Sequence[str]) -> float:
    """Run `tiny …` in a process of its own; returns when it began, by the wall clock. Raises FailedError with the line it ended with."""
    begun = time.time()
    done = subprocess.run([sys.executable, "-m", "tiny_transformer.cli.main", *words[1:]], capture_output=True, text=True)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()
        raise FailedError(f"{' '.join(words)} ended with exit code {done.returncode}: {said[-1]}")
    return begun


# ------------------------------------------------------------ what it left behind


def seconds_of(run: Run, begun: float) -> float:
    """Seconds from the start of the command to the last step.

    A run by the clock notes them itself (its interpreter's own start, some hundredths, comes before). For one by steps it is the time at
    which its last checkpoint was saved, which is right after the last step and its evaluation.
    """
    noted = [line["trained_seconds"] for line in run.metrics() if "trained_seconds" in line]
    if noted:
        return float(noted[-1])
    last = next(file for file in (run.path / "last.pt", run.path / f"last{runs.NUMPY_SUFFIX}") if file.exists())
    return last.stat().st_mtime - begun


def opened(path: Path) -> tuple[Run, TinyTransformerLM, np.ndarray, np.ndarray]:
    """A run, its best model, and the ids of the training and the validation text that it was given."""
    run = Run.open(path)
    model, tokenizer = runs.load(path)
    data, seed = DataConfig(**run.record["data"]), TrainConfig(**run.record["training"]).seed
    material, _ = gather(data, noise_of(run.record), seed, tokenizer=tokenizer)
    return run, model, np.asarray(material.train_ids), np.asarray(material.val_ids)


def measure(path: Path, begun: float, others: float | None = None) -> Measurement:
    """Load the run's best checkpoint and measure it on the validation text that it was held from. Computes in float32."""
    run, model, train_ids, val_ids = opened(path)
    settings = TrainConfig(**run.record["training"])
    steps = run.metrics()[-1]["step"]
    return Measurement(
        seed=settings.seed, steps=steps, tokens=steps * settings.batch_size * model.config.max_seq_len, seconds=seconds_of(run, begun),
        windows=loss_in_windows(model, val_ids),
        random=loss_in_random_windows(model, val_ids, batches=BATCHES, batch_size=settings.batch_size, seed=DRAWN_WITH),
        counting=ngram_loss(train_ids, val_ids, model.config.vocab_size), random_batch=settings.batch_size, others=others,
    )  # fmt: skip


# ------------------------------------------------------------ what is said and kept


def table(found: Sequence[Measurement]) -> str:
    """A row for each seed, then the means."""
    first = found[0]
    lines = [
        f"loss in nats per token ± standard error. whole text: windows that do not overlap, {first.windows.tokens:,} tokens. random: as "
        f"nanoGPT measures, {BATCHES} batches of {first.random_batch}, drawn with seed {DRAWN_WITH}",
        f"{'seed':>6} {'steps':>8} {'tokens':>12} {'seconds':>9}   {'whole text':18} random",
        *(one.line() for one in found),
        f"mean over {len(found)} seed{'s' * (len(found) > 1)}: whole text {spread([one.windows.loss for one in found])}, "
        f"random {spread([one.random.loss for one in found])}; {spread([one.seconds for one in found]).mean:.1f} s; "
        f"counting {ORDER} tokens reaches {first.counting:.4f}",
    ]
    return "\n".join(lines)


def result_of(name: str, found: Sequence[Measurement]) -> Result:
    """For the history: the mean loss beside that of counting, a cost; in brackets the best and the worst seed."""
    losses = [one.windows.loss for one in found]
    whole, random = spread(losses), spread([one.random.loss for one in found])
    steps, tokens, seconds = (statistics.fmean(values) for values in zip(*((m.steps, m.tokens, m.seconds) for m in found), strict=True))
    counting, error = found[0].counting, statistics.fmean(one.windows.error for one in found)
    notes = (
        f"loss {whole} over the whole validation text, standard error {error:.4f}, seeds {', '.join(str(one.seed) for one in found)}; "
        f"as nanoGPT measures {random}; {steps:,.0f} steps, {tokens / 1e6:.2f} M tokens, {seconds:.1f} s from the command to the last step"
    )
    known = [one.others for one in found if one.others is not None]
    extra = {
        "loss": whole.mean, "standard_error": error, "random_loss": random.mean, "seconds": seconds, "steps": steps, "tokens": tokens,
        **{f"loss_of_seed_{one.seed}": one.windows.loss for one in found},
    }  # fmt: skip
    return Result(
        name=name, unit="nats", ours=whole.mean, peer=counting, peer_name=f"{ORDER}-gram counts", ratio=whole.mean / counting,
        low=min(losses) / counting, high=max(losses) / counting, notes=notes, extra=extra, lower_is_better=True, group="recipe",
        others=max(known, default=None),
    )  # fmt: skip


def run(recipe: str, seeds: Sequence[int], folder: Path, minutes: float | None = None) -> Result:
    """Train and measure every seed; the runs lie in `folder`. Raises FailedError."""
    found = []
    for seed in seeds:
        out = folder / f"seed-{seed}"
        words = command(recipe, seed, out, minutes)
        print(" ".join(words), flush=True)
        watch = Watch()
        begun = train(words)
        found.append(measure(out, begun, watch.others()))
        print(found[-1].line(), flush=True)
    print(table(found), flush=True)
    return result_of(f"recipe {recipe}" + ("" if minutes is None else f", --minutes {minutes:g}"), found)


def at_least_one(word: str) -> int:
    """A whole number of 1 or more."""
    if int(word) < 1:
        raise ValueError
    return int(word)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train a recipe with the real command and measure what it reached; exit code 2 when a training fails."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recipe", description=main.__doc__)
    parser.add_argument("--recipe", default="speedrun", choices=tuple(RECIPES), help="which; default: speedrun")
    parser.add_argument("--seeds", type=at_least_one, default=3, metavar="N", help="how many; default: 3")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED, metavar="N", help=f"where they begin; default: {FIRST_SEED}")
    parser.add_argument("--minutes", type=float, help="as of `tiny train`: sizes are then chosen to suit the time")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave the runs here; default: they are thrown away")
    parser.add_argument("--no-history", action="store_true", help="do not append to history.jsonl, and leave docs/benchmarks.md alone")
    chosen = parser.parse_args(arguments)
    before, begun = warn_if_busy(), time.perf_counter()
    print(" · ".join(f"{key} {value}" for key, value in machine().items()))
    seeds = range(chosen.first_seed, chosen.first_seed + chosen.seeds)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            result = run(chosen.recipe, seeds, (chosen.keep or Path(scratch)).resolve(), chosen.minutes)
        except FailedError as failed:
            print(failed, file=sys.stderr)
            return 2
    if not chosen.no_history:
        keep([result], others_before=before, seconds={"recipe": round(time.perf_counter() - begun, 1)})
        if peer_module("matplotlib") is not None:
            from benchmarks import report  # draws with matplotlib

            report.write()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
