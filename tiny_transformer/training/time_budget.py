"""Training that ends by the clock: how much of the time is used, whether another step fits, and how far the schedule is.

    |-- start-up: imports, text, sizes, compiling --|-- learning: share goes from 0 to 1 --|-- last measurement, saving --|
    0                                                                                      the budget's end

A budget counts seconds of wall-clock time from the start of the command to the end of the last step; what comes after (the last
evaluation, one sample, saving) comes on top. The share that the learning rate follows (`scheduler.lr_at_share`) counts from the end of
a session's first step, which may compile: so no part of the schedule is lost to the start, and all of it is done at the end, also on a
machine that slows down half-way. Leaves out: the loop that asks (`loop.py`), which size suits the time (`size_choice.py`).
Read before: `scheduler.py`.
"""

import math
import time
from collections import deque
from statistics import median

RECENT = 9
"""Steps whose median says how long the next one takes: one hiccup changes nothing, a slower machine is noticed after five steps."""


class TimeBudget:
    """Seconds to train in. Time is read from `time.perf_counter`; pauses between steps (evaluating, saving) count as used.

    Steps must be told as they end (`note_step`), pauses too (`note_pause`).
    """

    def __init__(self, seconds: float, *, started: float | None = None, used: float = 0.0, learned: float = 0.0) -> None:
        """`started` is the `time.perf_counter` of the command's start, default now; `used` and `learned` are those of earlier sessions."""
        self.seconds = seconds
        self._started = time.perf_counter() if started is None else started
        self._used, self._learned = used, learned
        self._learning_since: float | None = None
        self._stopped: float | None = None
        self._steps: deque[float] = deque(maxlen=RECENT)
        self._longest_pause = 0.0
        self._share = 0.0

    # ------------------------------------------------------------ what happened

    def note_step(self, seconds: float) -> None:
        """A step has ended that took `seconds`. The first of a session only starts the learning: it may have compiled."""
        if self._learning_since is None:
            self._learning_since = self._now()
        else:
            self._steps.append(seconds)

    def note_pause(self, seconds: float) -> None:
        """Something between two steps (an evaluation, a sample, a save) took `seconds`."""
        self._longest_pause = max(self._longest_pause, seconds)

    def stop(self) -> None:
        """The last step is made: from now on nothing is counted."""
        self._stopped = self._now()

    # ------------------------------------------------------------ where it stands

    @property
    def used(self) -> float:
        """Seconds since the command started, and those of earlier sessions."""
        return self._used + self._now() - self._started

    @property
    def left(self) -> float:
        """Seconds until the end; negative after it."""
        return self.seconds - self.used

    @property
    def learned(self) -> float:
        """The seconds of `used` that lie after the first step of their session."""
        return self._learned + (0.0 if self._learning_since is None else self._now() - self._learning_since)

    @property
    def step_seconds(self) -> float:
        """How long the next step will take; 0 before the second step has been seen."""
        return median(self._steps) if self._steps else 0.0

    def share(self) -> float:
        """How far the learning is, 0 to 1, at an update made now: 0 for the first, about 1 for the last that fits. It never goes back."""
        left = self.left
        share = 1.0 if left <= 0 else self.learned / (self.learned + left)
        self._share = max(self._share, share)
        return self._share

    def is_over(self) -> bool:
        """Whether stopping now is nearer to the end than one step more would be."""
        return self.left <= self.step_seconds / 2

    def has_room_for_pause(self) -> bool:
        """Whether a pause as long as the longest so far, and a step after it, still fit. What does not is done after the last step."""
        return self.left > self._longest_pause + self.step_seconds

    # ------------------------------------------------------------ what to say when it is too short

    def too_short(self) -> str:
        """Why there is no time for a single step, and what to do: for an error."""
        return (
            f"{self._named()}, and {self.used:.1f} s had gone before the first step: there must be time to learn. "
            f"Try minutes={math.ceil(self.used / 3) / 10:g}"
        )

    def one_step(self) -> str:
        """That the first step was the last: for a warning."""
        remedy = "Give it more minutes, a smaller model, or leave compile out"
        return f"{self._named()}, and the first step ended after {self.used:.1f} s: no other was made. {remedy}"

    def _named(self) -> str:
        return f"minutes={self.seconds / 60:.3g} is {self.seconds:.1f} s"

    def _now(self) -> float:
        return time.perf_counter() if self._stopped is None else self._stopped


if __name__ == "__main__":
    from tiny_transformer.training.scheduler import lr_at_share

    budget, step, rates = TimeBudget(1.0), 0, []
    while not budget.is_over():
        begun = time.perf_counter()
        rates.append(lr_at_share(step, budget.share(), schedule="wsd", warmup_steps=5, decay_share=0.4))
        time.sleep(0.01 if step < 30 else 0.03)  # the machine slows down
        budget.note_step(time.perf_counter() - begun)
        step += 1
    print("learning rates:", "".join(" ▁▂▃▄▅▆▇█"[round(8 * rate)] for rate in rates))
    print(f"{step} steps in {budget.used:.3f} of {budget.seconds:.3f} s; the last rate is {rates[-1]:.2f} of the peak")
