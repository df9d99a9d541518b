"""Run all benchmarks (or those named), print ratios, keep them in history.jsonl."""

import argparse
import importlib
import logging

from benchmarks.harness import keep, machine, warn_if_busy

NAMES = ("startup", "training", "generation", "speculative", "numpy_engine", "tokenizers_bpe", "token_files")


def main() -> int:
    """One line per comparison; exit code 1 when an aim was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=main.__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which ones: {', '.join(NAMES)}; default: all")
    parser.add_argument("--no-history", action="store_true", help="do not append to history.jsonl")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(NAMES))
    if unknown:
        parser.error(f"there is no benchmark {', '.join(unknown)}: it must be among {', '.join(NAMES)}")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    warn_if_busy()
    print(" · ".join(f"{key} {value}" for key, value in machine().items()))
    results = [result for name in arguments.names or NAMES for result in importlib.import_module(f"benchmarks.{name}").run()]
    if not arguments.no_history:
        keep(results)
    return 1 if any(result.aim is not None and result.ratio < result.aim for result in results) else 0


if __name__ == "__main__":
    raise SystemExit(main())
