"""The most memory that a piece of work takes, in a process of its own. Linux only: from /proc. Read before: nothing."""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

READABLE = Path("/proc/self/clear_refs").exists()
"""Whether it can be measured here."""
BEGIN = """
import sys
from tiny_transformer.config import ModelConfig
from tiny_transformer.unfilled import without_memory
without_memory(ModelConfig())  # what PyTorch's own code costs, however small the model, is paid before
def status(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))
before = status("VmRSS:")
open("/proc/self/clear_refs", "w").write("5")  # the highest mark begins again: a process inherits its parent's
"""
END = """
print()
print(status("VmHWM:") - before)
"""


class Peak(NamedTuple):
    """What a piece of work took."""

    memory: int
    """Bytes above what the process held when it began."""
    said: str
    """What it printed."""


def peak_of(imports: str, work: str, *words: object) -> Peak:
    """Run `work`, Python code that finds `words` as strings in sys.argv[1:]; what it imports is loaded before.

    Raises RuntimeError, with the last line that was printed, where the work fails.
    """
    command = [sys.executable, "-c", imports + BEGIN + work + END, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    if done.returncode != 0:
        raise RuntimeError((done.stderr.strip().splitlines() or ["it said nothing"])[-1])
    said, _, memory = done.stdout.rstrip("\n").rpartition("\n")
    return Peak(int(memory), said.rstrip("\n"))


if __name__ == "__main__":
    for megabytes in (10, 100):
        print(f"{megabytes} MB of numbers: {peak_of('import numpy', f'kept = numpy.ones({megabytes} << 17)').memory / 2**20:.1f} MiB")
