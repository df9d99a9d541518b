"""Ctrl-C and its relatives, turned into a flag that the training loop reads between two steps.

Leaves out: what is saved then (`trainer.py`) and the exit code (the command line). Read before: nothing.
"""

import signal
import threading
from types import FrameType
from typing import Any

STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))


class StopSignals:
    """`with StopSignals() as stop:` … `if stop.received:` save and leave.

    The first SIGINT, SIGTERM or SIGUSR1 only sets `received` to its number. A second one ends the process at once, as
    it would have without us: KeyboardInterrupt for SIGINT, SystemExit(128 + number) for the others. The old handlers
    come back at the end of the block. A signal that the parent process has switched off (as `nohup` does) stays off.
    Outside the main thread Python allows no handlers: there nothing is installed, and nothing ever received.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for number in STOPPING:
                handler = signal.getsignal(number)
                if handler not in (signal.SIG_IGN, None):  # None: installed by another language, cannot be put back
                    self._before[number] = handler
                    signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.received is None:
            self.received = number
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            raise SystemExit(128 + number)


if __name__ == "__main__":
    with StopSignals() as stop:
        print("received before:", stop.received)
        signal.raise_signal(signal.SIGINT)
        print("received after one Ctrl-C:", stop.received)
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            print("the second one interrupts at once")
