"""How fast to learn at each step: one pure function from the step to the learning rate, and its twin for runs that end by the clock.

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


def lr_at_share(
    step: int,
    share: float,
    *,
    learning_rate: float = 1.0,
    warmup_steps: int = 0,
    min_lr_ratio: float = 0.1,
    schedule: str = "cosine",
    decay_share: float = 0.2,
) -> float:
    """The learning rate of update number `step` of a run that ends by the clock, of whose time `share` (0 to 1) has gone.

    How many updates there will be is not known, so the curves of `lr_at` are drawn over the share instead: `cosine` goes down half a
    cosine from 0 to 1, `wsd` in a straight line over the last decay_share. The warm-up stays in steps, because it is there for the
    optimizer's first estimates, which take so many gradients and not so many seconds; where the curve is already lower, the curve counts.

    Returns a rate in the units of learning_rate. Raises ValueError for a negative step, a share outside 0 to 1, or an unknown schedule.

    >>> [round(lr_at_share(9, share, schedule="wsd", decay_share=0.5, min_lr_ratio=0.0), 2) for share in (0, 0.5, 0.75, 1)]
    [1.0, 1.0, 0.5, 0.0]
    """
    if step < 0 or not 0 <= share <= 1:
        raise ValueError(f"step={step}, share={share}: a step is 0 or more, a share lies between 0 and 1")
    check_choice("schedule", schedule, get_args(Schedule))
    height = 1.0
    if schedule == "cosine":
        height = 0.5 * (1 + math.cos(math.pi * share))
    elif schedule == "wsd" and decay_share > 0 and share >= 1 - decay_share:
        height = min(1.0, (1 - share) / decay_share)
    curve = min_lr_ratio + (1 - min_lr_ratio) * height
    return learning_rate * min(curve, (step + 1) / max(1, warmup_steps))


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
