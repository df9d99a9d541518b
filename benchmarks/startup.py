"""How long `tiny --help` takes, beside the bare interpreter."""

import subprocess
import sys

from benchmarks.harness import Result, compare


def call(*arguments: str) -> None:
    """Run the interpreter and wait for it."""
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)


def run() -> list[Result]:
    """The ratio is below 1: the peer does nothing at all. `ours` is calls per second: above 3.3 is under 0.3 s."""
    result = compare(
        "tiny --help",
        lambda: call("-m", "tiny_transformer.cli.main", "--help"),
        lambda: call("-c", "pass"),
        work=1,
        unit="calls/s",
        peer_name="bare python",
        rounds=11,
    )
    print(result.line(), f" = {1 / result.ours:.3f} s (aim 0.3 s)", flush=True)
    return [result]


if __name__ == "__main__":
    run()
