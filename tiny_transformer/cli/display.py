"""What training looks like: a moving bar on a terminal, plain lines elsewhere, evaluations, and the timelapse.

The trainer calls a Listener and knows neither screens nor sampling; this is the listener of the command line.
Left out: the table and the picture at the end (report.py, plots.py). Read before: training/listener.py, screen.py.
"""

from collections.abc import Callable
from typing import Any

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from tiny_transformer.cli.screen import Screen
from tiny_transformer.training.listener import Listener, Result
from tiny_transformer.training.time_budget import TimeBudget

SHOWN_LINES = 7
"""Lines of a timelapse sample on the screen; the whole sample is in the log and under samples/."""


class TrainingDisplay(Listener):
    """Shows a training run on a screen.

    `write_sample(step)`, set before training begins, returns what the model writes at this step; None: no timelapse.
    `bits_per_byte(loss)` turns a loss in nats per token into bits per byte, which can be compared between tokenizers.
    """

    def __init__(self, screen: Screen, *, max_steps: int, prompt: str) -> None:
        self.screen = screen
        self.max_steps = max_steps
        self.prompt = prompt
        self.write_sample: Callable[[int], str] | None = None
        self.bits_per_byte: Callable[[float], float] | None = None
        self.loss: float | None = None
        self.warnings: list[str] = []
        self.budget: TimeBudget | None = None
        self._parts: dict[int, int] = {}
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def on_start(self, trainer: Any) -> None:
        """Begin the bar."""
        self.budget = trainer.budget
        if self.screen.live:
            self._bar = _progress(self.screen)
            self._task = self._bar.add_task("training", total=self._total(), where="", loss="", speed="")
            self._bar.update(self._task, completed=self._done(trainer.progress.step))
            self._bar.start()

    def on_step(self, step: int, loss: float, lr: float, grad_norm: float, tokens_per_second: float) -> None:
        """Move the bar; now and then a line (every 5 % on a plain screen, every 1 % in the log)."""
        self.loss = loss
        if self._bar is not None:
            speed = f"{tokens_per_second:,.0f} tok/s"
            self._bar.update(self._task, completed=self._done(step), where=self._where(step), loss=f"loss {loss:.3f}", speed=speed)
        line = f"{self._where(step)}  loss {loss:.4f}  lr {lr:.2e}  grad {grad_norm:.2f}  {tokens_per_second:,.0f} tok/s{self._left()}"
        on_screen, in_log = self._is_due(step, parts=20), self._is_due(step, parts=100)
        if on_screen and self._bar is None:
            self.screen.say(line)
        elif in_log:
            self.screen.log(line)

    def _total(self) -> float:
        return self.max_steps if self.budget is None else self.budget.seconds

    def _done(self, step: int) -> float:
        return step if self.budget is None else min(self.budget.used, self.budget.seconds)

    def _where(self, step: int) -> str:
        return f"step {step:>6}/{self.max_steps}" if self.budget is None else f"step {step:>6}"

    def _left(self) -> str:
        return "" if self.budget is None else f"  {duration(max(0.0, self.budget.left))} left"

    def _is_due(self, step: int, *, parts: int) -> bool:
        """Whether `step` is one of about `parts` evenly spaced ones: in steps, or in time where there is a budget."""
        if self.budget is None:
            return step % max(1, self.max_steps // parts) == 0
        part = int(parts * self.budget.used / self.budget.seconds)
        before, self._parts[parts] = self._parts.get(parts, 0), part
        return part > before

    def on_eval(self, step: int, train_loss: float, val_loss: float, is_best: bool) -> None:
        """One line per evaluation."""
        self.loss = train_loss if self.loss is None else self.loss
        best = "  best so far" if is_best else ""
        bits = "" if self.bits_per_byte is None else f" ({self.bits_per_byte(val_loss):.3f} bits/byte)"
        self.screen.say(f"{self._where(step)}  train {train_loss:.4f}  validation {val_loss:.4f}{bits}{best}{self._left()}", style="bold")

    def on_sample(self, step: int) -> None:
        """The model's voice at this step."""
        if self.write_sample is None:
            return
        loss = "" if self.loss is None else f" · loss {self.loss:.2f}"
        self.screen.sample(f"step {step}{loss}", self.write_sample(step), prompt=self.prompt, lines=SHOWN_LINES)

    def on_warning(self, text: str) -> None:
        """Something the reader of the result must know; repeated in the report."""
        self.warnings.append(text)
        self.screen.warn(text)

    def on_end(self, result: Result) -> None:
        """End the bar."""
        self.close()

    def close(self) -> None:
        """Give the terminal back, whatever happened."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _progress(screen: Screen) -> Progress:
    return Progress(
        TextColumn("{task.description}", style="bold"), BarColumn(bar_width=None), TextColumn("{task.fields[where]}"),
        TextColumn("{task.fields[loss]}", style="cyan"), TextColumn("{task.fields[speed]}", style="dim"), TimeRemainingColumn(compact=True),
        console=screen.console, expand=True, speed_estimate_period=60, transient=True,
    )  # fmt: skip


def duration(seconds: float) -> str:
    """Seconds as people say them: 0:42, 3:05, 2:03:04."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
