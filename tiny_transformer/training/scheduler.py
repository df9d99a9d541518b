"""How fast to learn at each step: one pure function from the step to the learning rate.

Nothing is remembered between calls, so a resumed run needs no schedule state, and a plot of the schedule is a
list of calls. Leaves out: the optimizer that is given the number. Read before: `config.py`.
"""

import math
from typing import get_args

from tiny_transformer.config import Schedule, check_choice


def lr_at(
    step: int,
    *,
    max_steps: int,
    learning_rate: float = 1.0,
    warmup_steps: int = 0,
    min_lr_ratio: float = 0.1,
    schedule: str = "cosine",
    decay_share: float = 0.2,
) -> float:
    """The learning rate of update number `step`; the first update is number 0, the last max_steps - 1.

        peak     /‾‾-.                  /‾‾‾‾‾‾‾.              /‾‾‾‾‾‾‾‾‾‾
                /     `.               /         `.           /
        min    /        `--.          /            `.        /
                cosine                    wsd                   constant

    1. step < warmup_steps: rise in a straight line, (step + 1) / warmup_steps of the peak. The first update
       learns a little (never 0), the last one of the warm-up learns at the peak (Goyal et al. 2017, 2.2).
       A run that is shorter than its warm-up only rises.
    2. `constant`, or the stable part of `wsd`: the peak.
    3. The decay, from the peak to min_lr_ratio of it, which the last update reaches. `cosine` goes down half a
       cosine from the end of the warm-up on (Loshchilov & Hutter 2017); `wsd` goes down in a straight line over
       the last decay_share of all updates (Hu et al. 2024, "MiniCPM"), or over what the warm-up has left of them.
       Where a single update is left for the decay it is made at the peak.
    4. step >= max_steps: the minimum (`constant`: the peak).

    Returns learning_rate × the share above, in the units of learning_rate.
    Raises ValueError for a negative step, or a schedule other than cosine, wsd and constant.

    >>> [round(lr_at(step, max_steps=6, warmup_steps=2, min_lr_ratio=0.0), 3) for step in range(6)]
    [0.5, 1.0, 1.0, 0.75, 0.25, 0.0]
    """
    if step < 0:
        raise ValueError(f"step={step}: it must be 0 or more. The first update is step 0")
    check_choice("schedule", schedule, get_args(Schedule))
    last = max_steps - 1
    if step < warmup_steps and step <= last:
        return learning_rate * (step + 1) / warmup_steps
    if schedule == "constant":
        return learning_rate
    if schedule == "cosine":
        progress = _progress(step, warmup_steps, last)
        height = 0.5 * (1 + math.cos(math.pi * progress))
    else:
        progress = _progress(step, max(warmup_steps, last - round(decay_share * max_steps)), last)
        height = 1 - progress
    return learning_rate * (min_lr_ratio + (1 - min_lr_ratio) * height)


def _progress(step: int, begin: int, last: int) -> float:
    """How much of the way from step `begin` to step `last` is done: 0 before it, 1 after it."""
    if step > last:
        return 1.0
    return min(1.0, max(0, step - begin) / max(1, last - begin))


if __name__ == "__main__":
    for schedule in ("cosine", "wsd", "constant"):
        rates = [lr_at(step, max_steps=60, warmup_steps=10, schedule=schedule) for step in range(60)]
        bars = "".join(" ▁▂▃▄▅▆▇█"[round(8 * rate)] for rate in rates)
        print(f"{schedule:9} {bars}  first {rates[0]:.2f}  highest {max(rates):.2f}  last {rates[-1]:.2f}")
