"""One way to measure: candidates take turns, medians are compared, the ratio's spread is printed and kept.

Turns matter: a machine that slows down for a minute slows both candidates, and the ratio stays honest.
"""

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

HISTORY = Path(__file__).with_name("history.jsonl")


@dataclass(frozen=True)
class Result:
    """One comparison. `ratio` is how many times faster ours is than the peer; `aim` is what it should reach."""

    name: str
    unit: str
    ours: float
    peer: float
    peer_name: str
    ratio: float
    low: float
    high: float
    aim: float | None = None
    notes: str = ""
    extra: dict[str, float] = field(default_factory=dict)

    def line(self) -> str:
        """The result on one line."""
        aim = "" if self.aim is None else f"  aim {self.aim:.2f} {'reached' if self.ratio >= self.aim else 'NOT reached'}"
        return (
            f"{self.name:44} {self.ours:10,.1f} {self.unit:8} {self.peer_name} {self.peer:10,.1f}   "
            f"ratio {self.ratio:5.2f} ({self.low:.2f} to {self.high:.2f}){aim}"
        )


def seconds(function: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def compare(
    name: str,
    ours: Callable[[], object],
    peer: Callable[[], object],
    *,
    work: float,
    unit: str,
    peer_name: str,
    rounds: int = 15,
    warm_up: int = 2,
    aim: float | None = None,
    notes: str = "",
) -> Result:
    """Let both take turns for `rounds` rounds; `work` units are done per call. The spread is the quartiles of each round's ratio."""
    for _ in range(warm_up):
        ours()
        peer()
    pairs = []
    for turn in range(rounds):  # who goes first alternates, so that neither always runs on the other's warm caches
        if turn % 2:
            mine, other = seconds(ours), seconds(peer)
        else:
            other, mine = seconds(peer), seconds(ours)
        pairs.append((mine, other))
    ratios = sorted(other / mine for mine, other in pairs)
    quarter = len(ratios) // 4
    return Result(
        name=name,
        unit=unit,
        ours=work / statistics.median(mine for mine, _ in pairs),
        peer=work / statistics.median(other for _, other in pairs),
        peer_name=peer_name,
        ratio=statistics.median(ratios),
        low=ratios[quarter],
        high=ratios[-1 - quarter],
        aim=aim,
        notes=notes,
    )


def machine() -> dict[str, object]:
    """Where and when: date, commit, processor, cores, load and versions."""
    import torch
    import transformers

    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HISTORY.parent).stdout.strip()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def processor() -> str:
    """The processor's name, as well as it can be had."""
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def warn_if_busy() -> None:
    """Say so when other programs use the machine: the figures would be theirs as much as ours."""
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"warning: the machine is busy (load {load:.2f} before the first measurement); close other programs for figures that count")


def keep(results: list[Result]) -> None:
    """Append this run to the history, one JSON object on one line."""
    record = {**machine(), "results": [asdict(result) for result in results]}
    with HISTORY.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
