"""What a training run tells the outside: events while it goes, a result when it ends.

The trainer prints nothing and writes no samples; whoever starts it passes a Listener that does. No torch here.
Read before: nothing.
"""

import signal
from dataclasses import dataclass
from typing import Any, Literal


class TrainingError(ValueError):
    """Learning cannot go on: the message says at which step, what was seen and what to try."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a training run ended. Losses are means in nats per token."""

    steps: int
    """Updates made in all, earlier sessions of a resumed run included."""
    best_val_loss: float
    """The lowest of the regular evaluations, over the fixed part of the validation text …"""
    best_train_loss: float
    """… the loss over the fixed part of the training text at the same time …"""
    best_step: int
    """… and after how many updates it was; best.pt holds these weights."""
    val_loss: float
    """The most recent regular evaluation …"""
    train_loss: float
    """… and its training loss."""
    final_val_loss: float | None
    """Over the whole validation text, with the weights of best.pt (the last ones when there is no run directory);
    None when a signal ended the run."""
    seconds: float
    """Wall-clock time in all, evaluations and earlier sessions included."""
    tokens_per_second: float
    """Training tokens over the time spent in training steps, in this session."""
    stopped: Literal["finished", "early", "signal"]
    """All steps made, or the minutes over; patience ran out; a signal came."""
    signal: int | None = None
    """The number of that signal."""
    trained_seconds: float | None = None
    """With `minutes`: from the start of the command to the end of the last step, earlier sessions included."""

    @property
    def exit_code(self) -> int:
        """What a shell expects: 130 after Ctrl-C, 143 after SIGTERM, else 0 (SIGUSR1 means: save and go in peace)."""
        return 128 + self.signal if self.signal in (signal.SIGINT, signal.SIGTERM) else 0


class Listener:
    """Override what you need; every method does nothing.

    `step` counts the updates made so far: 0 is the untrained model. Events of one step come in this order: on_step,
    on_eval, on_warning, on_sample.
    """

    def on_start(self, trainer: Any) -> None:
        """Before anything else; `trainer.progress.step` is above 0 in a resumed run."""

    def on_step(self, step: int, loss: float, lr: float, grad_norm: float, tokens_per_second: float) -> None:
        """After every update: the loss before it, the learning rate used, the norm before clipping, the recent speed."""

    def on_eval(self, step: int, train_loss: float, val_loss: float, is_best: bool) -> None:
        """After an evaluation, the first one before any update. The best weights have been saved already."""

    def on_sample(self, step: int) -> None:
        """A good moment to let the model write: see `is_sample_step`. Dropout is off, and random numbers drawn here
        do not change the training."""

    def on_warning(self, text: str) -> None:
        """Something a person should know: one line."""

    def on_end(self, result: Result) -> None:
        """After everything else, unless an error ended the run."""


def is_sample_step(step: int) -> bool:
    """True for 0, 1, 3, 10, 30, 100, 300, 1000, …: a voice changes as fast as the logarithm of the time it had.

    >>> [step for step in range(1001) if is_sample_step(step)]
    [0, 1, 3, 10, 30, 100, 300, 1000]
    """
    while step >= 10 and step % 10 == 0:
        step //= 10
    return step in (0, 1, 3)


if __name__ == "__main__":
    print("sample steps:", [step for step in range(5000) if is_sample_step(step)])
    print("events:", [name for name in vars(Listener) if name.startswith("on_")])
