"""One way to measure: candidates take turns, medians are compared, the ratio's spread is printed and kept.

Turns matter: a machine that slows down for a minute slows both candidates, and the ratio stays honest. How much of the machine
others used meanwhile is part of the result. Read before: `watch.py`. What becomes of the results: `history.py`, `report.py`.
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
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

from benchmarks.watch import Watch, is_busy, others_now

ROOT = Path(__file__).resolve().parent.parent
HISTORY = Path(__file__).with_name("history.jsonl")
WRITTEN = ("benchmarks/history.jsonl", "docs/benchmarks.md", "docs/images/benchmarks.svg")
"""What a run of the benchmarks changes itself: it does not make the tree another one than the commit's."""


@dataclass(frozen=True)
class Result:
    """One comparison. `ratio` is how many times faster ours is than the peer; `aim` is what it should reach.

    `low` and `high` are the quartiles of the rounds' ratios; both equal `ratio` where there was one round. With `lower_is_better`
    the ratio is a cost (of memory, of loss), and the aim what it may be at most.
    """

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
    lower_is_better: bool = False
    group: str = ""
    """The module that measured it; `python -m benchmarks` fills it in."""
    others: float | None = None
    """Share of the machine's CPU time that other processes took during the measurement; None where it is not known."""

    @property
    def reached(self) -> bool:
        """Whether the aim is reached; without one, yes."""
        return self.aim is None or (self.ratio <= self.aim if self.lower_is_better else self.ratio >= self.aim)

    def line(self) -> str:
        """The result on one line."""
        aim = "" if self.aim is None else f"  aim {self.aim:.2f} {'reached' if self.reached else 'NOT reached'}"
        busy = f"  others used {self.others:.0%} of the machine" if self.others is not None and is_busy(self.others) else ""
        return (
            f"{self.name:44} {self.ours:10,.1f} {self.unit:8} {self.peer_name} {self.peer:10,.1f}   "
            f"ratio {self.ratio:5.2f} ({self.low:.2f} to {self.high:.2f}){aim}{busy}"
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
    watch, pairs = Watch(), []
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
        others=watch.others(),
    )


def peer_module(name: str) -> ModuleType | None:
    """An optional peer; where it is not installed, say so in a line and return None: its comparisons are left out."""
    try:
        return import_module(name)
    except ModuleNotFoundError as missing:
        package = (missing.name or name).replace("_", "-")
        print(f"{package} is not installed: comparisons with {name} are left out (pip install {package})")
        return None


def machine() -> dict[str, object]:
    """Where and when: date, commit (with a + when the tree differs from it), processor, cores, load and versions."""
    import torch

    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        **gpu,
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": _version("transformers"),
    }


def commit() -> str:
    """The commit's short name, with a + when a tracked file has changed since; empty outside a repository."""
    name = _git("rev-parse", "--short", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", *(f":!{path}" for path in WRITTEN))
    return name + "+" * bool(name and changed)


def _git(*arguments: str) -> str:
    try:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=ROOT).stdout.strip()
    except OSError:
        return ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def processor() -> str:
    """The processor's name, as well as it can be had."""
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def warn_if_busy() -> float | None:
    """Say so when other programs use the machine: the figures would be theirs as much as ours. Returns their share."""
    share = others_now()
    if is_busy(share):
        print(f"warning: other programs use {share:.0%} of this machine; close them for figures that count")
    return share


def keep(results: list[Result], path: Path = HISTORY, **more: object) -> None:
    """Append this run to the history, one JSON object on one line, with what `more` there is to say about it."""
    record = {**machine(), **more, "results": [asdict(result) for result in results]}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    numbers = range(10_000)
    print(compare("sum of 10,000", lambda: sum(numbers), lambda: sum(list(numbers)), work=1, unit="sums/s", peer_name="a list").line())
