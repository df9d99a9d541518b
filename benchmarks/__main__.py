"""Run all benchmarks (or those named), print ratios, keep them in history.jsonl, and make docs/benchmarks.md anew."""

import argparse
import importlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from benchmarks.catalogue import LIMIT, budget
from benchmarks.harness import Result, keep, machine, warn_if_busy
from benchmarks.watch import Watch, is_busy

NAMES = ("startup", "training", "generation", "speculative", "numpy_engine", "tokenizers_bpe", "token_files")
OURS = ("benchmarks", "tiny_transformer")


@dataclass(frozen=True)
class Outcome:
    """What became of one benchmark."""

    name: str
    seconds: float
    results: list[Result] = field(default_factory=list)
    others: float | None = None
    skipped: str = ""
    failed: str = ""


def measure(name: str) -> Outcome:
    """Run one benchmark. A peer that is not installed, and an error, are one line each: the other benchmarks go on."""
    watch, begun = Watch(), time.perf_counter()
    results: list[Result] = []
    skipped = failed = ""
    try:
        results = [replace(result, group=result.group or name) for result in importlib.import_module(f"benchmarks.{name}").run()]
    except ModuleNotFoundError as missing:
        package = (missing.name or "").partition(".")[0]
        if package in OURS:
            raise
        skipped = f"{package} is not installed (pip install {package.replace('_', '-')})"
    except Exception as error:  # whatever went wrong, hours of other measurements must not be lost
        failed = f"{type(error).__name__}: {error}".splitlines()[0]
    outcome = Outcome(name, time.perf_counter() - begun, results, watch.others(), skipped, failed)
    if skipped or failed:
        print(f"{name}: {'skipped, ' + skipped if skipped else 'FAILED, ' + failed}", flush=True)
    return outcome


def times(outcomes: Sequence[Outcome]) -> str:
    """How long each took, beside its share of the fifteen minutes."""
    lines = [f"\n{'benchmark':20} {'seconds':>8} {'budget':>7}"]
    for outcome in outcomes:
        over = "  over its budget" if outcome.seconds > budget(outcome.name) else ""
        busy = f"  others used {outcome.others:.0%} of the machine" if outcome.others is not None and is_busy(outcome.others) else ""
        lines.append(f"{outcome.name:20} {outcome.seconds:8.1f} {budget(outcome.name):7.0f}{over}{busy}")
    total = sum(outcome.seconds for outcome in outcomes)
    return "\n".join([*lines, f"{'together':20} {total:8.1f} {LIMIT:7.0f}{'  TOO LONG' if total > LIMIT else ''}"])


def main(arguments: Sequence[str] | None = None) -> int:
    """One line per comparison; exit code 1 when an aim was missed or a benchmark failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=main.__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which ones: {', '.join(NAMES)}; default: all")
    parser.add_argument("--no-history", action="store_true", help="do not append to history.jsonl, and leave docs/benchmarks.md alone")
    chosen = parser.parse_args(arguments)
    unknown = sorted(set(chosen.names) - set(NAMES))
    if unknown:
        parser.error(f"there is no benchmark {', '.join(unknown)}: it must be among {', '.join(NAMES)}")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    before = warn_if_busy()
    print(" · ".join(f"{key} {value}" for key, value in machine().items()))
    outcomes = [measure(name) for name in chosen.names or NAMES]
    print(times(outcomes))
    results = [result for outcome in outcomes for result in outcome.results]
    if results and not chosen.no_history:
        from benchmarks import report  # draws with matplotlib: not while something is being measured

        seconds = {outcome.name: round(outcome.seconds, 1) for outcome in outcomes if outcome.results}
        keep(results, others_before=before, seconds=seconds)
        report.write()
    return 1 if any(outcome.failed for outcome in outcomes) or not all(result.reached for result in results) else 0


if __name__ == "__main__":
    raise SystemExit(main())
