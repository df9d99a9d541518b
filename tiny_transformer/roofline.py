"""Counted cost beside measured time: how fast a part ran, how fast it could have run here, and what holds it back.

A part that needs F operations and moves B bytes takes at least max(F / peak, B / bandwidth) seconds: the roofline
(Williams, Waterman & Patterson 2009). Leaves out: counting (`step_cost.py`), measuring times (`training/step_times.py`,
`sampling/token_times.py`) and the two ceilings (`training/ceilings.py`). Read before: `step_cost.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tiny_transformer.step_cost import ATTENTION, PARTS, Costs, Phase, Work

FUSED_ATTENTION = "attention (fused)"
"""Scores, softmax and values in one kernel: they can only be measured together."""
FORWARD = "the model, forward and backward"
"""The whole network, where parts cannot be told apart (compiled)."""
REST = ("batch", "other")
"""Measured, but with no cost that could be counted: making the batch; what belongs to no part."""
WELL_USED = 1 / 3
"""A part below this share of its bound waits for something that the two ceilings do not know: calls, strides, functions like exp."""
Times = Mapping[tuple[str, Phase], float]
"""(part, phase) → seconds."""


@dataclass(frozen=True)
class Ceilings:
    """The best this machine does: products in FLOP/s, memory in bytes/s."""

    flop_per_second: float
    bytes_per_second: float

    def bound(self, work: Work) -> float:
        """Seconds that `work` takes at least."""
        return max(self.compute(work), self.memory(work))

    def compute(self, work: Work) -> float:
        """Seconds for its operations alone."""
        return work.flop / self.flop_per_second

    def memory(self, work: Work) -> float:
        """Seconds for its bytes alone."""
        return work.bytes / self.bytes_per_second


@dataclass(frozen=True)
class Row:
    """One part: measured and counted, forward and backward (or update) apart."""

    part: str
    seconds: Mapping[Phase, float]
    works: Mapping[Phase, Work]
    share: float
    """Of the time of all parts."""
    ceilings: Ceilings

    @property
    def total(self) -> float:
        """Seconds in all phases."""
        return sum(self.seconds.values())

    @property
    def work(self) -> Work:
        """Its cost in all phases."""
        return sum(self.works.values(), Work())

    @property
    def bound(self) -> float:
        """Seconds it takes at least: the phases' bounds added."""
        return sum(self.ceilings.bound(work) for work in self.works.values())

    @property
    def flop_per_second(self) -> float:
        """What it reached."""
        return self.work.flop / self.total if self.total else 0.0

    @property
    def bytes_per_second(self) -> float:
        """What it reached."""
        return self.work.bytes / self.total if self.total else 0.0

    @property
    def share_of_ceiling(self) -> float:
        """bound / measured: 1 is as fast as can be. Above 1, what it read was in the processor's cache."""
        return self.bound / self.total if self.total else 0.0

    @property
    def limited_by(self) -> str:
        """compute or memory, whichever bound is the larger; overhead where neither explains the time; nothing without bound or time."""
        if not self.bound or not self.total:
            return ""
        if self.share_of_ceiling < WELL_USED:
            return "overhead"
        compute = sum(self.ceilings.compute(work) for work in self.works.values())
        return "compute" if compute >= sum(self.ceilings.memory(work) for work in self.works.values()) else "memory"


def rows(times: Times, costs: Costs, ceilings: Ceilings) -> list[Row]:
    """A row for every part that was measured or has a cost, in the order of a step."""
    costs = together(costs, times)
    everything = sum(times.values()) or 1.0
    found = list(dict.fromkeys(part for part, _ in [*costs, *times]))
    made = []
    for part in sorted(found, key=_place):
        seconds = {phase: time for (name, phase), time in times.items() if name == part}
        works = {phase: work for (name, phase), work in costs.items() if name == part}
        made.append(Row(part, seconds, works, sum(seconds.values()) / everything, ceilings))
    return made


def together(costs: Costs, times: Times) -> Costs:
    """The costs of parts that were measured as one, added up."""
    measured = {part for part, _ in times}
    added: Costs = {}
    for (part, phase), work in costs.items():
        name = part
        if FORWARD in measured and phase != "update" and part != "loss":
            name = FORWARD
        elif FUSED_ATTENTION in measured and part in ATTENTION:
            name = FUSED_ATTENTION
        added[name, phase] = added.get((name, phase), Work()) + work
    return added


def sum_row(made: Sequence[Row]) -> Row:
    """All parts as one; its bound is the sum of theirs."""
    seconds: dict[Phase, float] = {}
    for row in made:
        for phase, time in row.seconds.items():
            seconds[phase] = seconds.get(phase, 0.0) + time
    return _Sum("all parts", seconds, {}, 1.0, made[0].ceilings, tuple(made))


@dataclass(frozen=True)
class _Sum(Row):
    """Its work is that of its parts, and so is its bound: a part that waits for memory does not help one that computes."""

    parts: tuple[Row, ...] = ()

    @property
    def work(self) -> Work:
        return sum((row.work for row in self.parts), Work())

    @property
    def bound(self) -> float:
        return sum(row.bound for row in self.parts)

    @property
    def limited_by(self) -> str:
        return ""


def _place(part: str) -> int:
    order = [FORWARD, *PARTS, *REST]
    order.insert(order.index(ATTENTION[0]), FUSED_ATTENTION)
    return order.index(part) if part in order else len(order)


if __name__ == "__main__":
    from tiny_transformer.config import PRESETS
    from tiny_transformer.step_cost import step_cost

    here = Ceilings(190e9, 25e9)
    counted = step_cost(PRESETS["cpu"], 32)
    made_up: dict[tuple[str, Phase], float] = {key: 1.5 * here.bound(work) + 1e-4 for key, work in counted.items()}
    print("the cpu preset at 190 GFLOP/s and 25 GB/s; times made up: half as long again as the bound, and 0.1 ms")
    for row in rows(made_up, counted, here):
        print(f"{row.part:20} {1e3 * row.total:7.2f} ms, at least {1e3 * row.bound:7.2f} ms: {row.share_of_ceiling:4.0%}, {row.limited_by}")
