"""Who else uses the machine: the CPU time of all other processes during a measurement, from /proc/stat less our own.

A load average says what was, a minute ago and with us in it. This says what is: while a benchmark ran, which share of the
machine's CPU time went to others (a neighbour's virtual machine, "steal", included). Read before: nothing.
"""

import os
import time
from pathlib import Path
from typing import NamedTuple

STAT = Path("/proc/stat")
BUSY = 0.1
"""Others' share of the machine above which a figure is theirs as much as ours: a fifth of one core of two."""
FIELDS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
"""The first numbers of the line `cpu` (man proc_stat); guests' time, which follows, is part of user and nice."""


class CpuTime(NamedTuple):
    """Seconds since the start of the machine, summed over its cores, and those of this process and the children it has waited for."""

    total: float
    busy: float
    own: float


def cpu_time(stat: Path = STAT) -> CpuTime | None:
    """Now; None where the machine does not tell (no /proc/stat, or one that is all zeros as in some sandboxes)."""
    try:
        words = stat.read_text(encoding="ascii").splitlines()[0].split()
    except (OSError, IndexError):
        return None
    ticks = dict(zip(FIELDS, map(int, words[1:]), strict=False))
    if words[0] != "cpu" or not any(ticks.values()):
        return None
    second = os.sysconf("SC_CLK_TCK")
    total = sum(ticks.values())
    return CpuTime(total / second, (total - ticks["idle"] - ticks.get("iowait", 0)) / second, sum(os.times()[:4]))


class Watch:
    """Looks at the clock when made; `others` says what happened since."""

    def __init__(self, stat: Path = STAT) -> None:
        self.stat = stat
        self.begun = cpu_time(stat)

    def others(self) -> float | None:
        """Share of the machine's CPU time since then that was not ours, 0 to 1; None when unknown, or in less than a tenth of a second.

        A child that is still running counts as another: wait for it first.
        """
        now = cpu_time(self.stat)
        if self.begun is None or now is None or now.total - self.begun.total < 0.1:
            return None
        theirs = (now.busy - self.begun.busy) - (now.own - self.begun.own)
        return round(min(1.0, max(0.0, theirs / (now.total - self.begun.total))), 3)


def is_busy(others: float | None) -> bool:
    """Whether others took so much that the figure should not be trusted."""
    return others is not None and others > BUSY


def others_now(seconds: float = 1.0) -> float | None:
    """What others use while we do nothing for a moment."""
    watch = Watch()
    time.sleep(seconds)
    return watch.others()


if __name__ == "__main__":
    share = others_now()
    print("this machine does not say who uses it" if share is None else f"others use {share:.0%} of this machine")
