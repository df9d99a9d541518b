"""What a run must remember to go on as if it had never stopped, and what to say when it can't.

Leaves out: how it is written to disk (`utils/checkpoint.py`), the generators (`rng.py`). Read before: `config.py`.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tiny_transformer.config import TrainConfig
from tiny_transformer.training.dataset import IdStore, blocks


@dataclass
class Progress:
    """Where a run stands: with weights, optimizer and generators, all that the next step depends on."""

    step: int = 0
    """Updates made."""
    best_val_loss: float = math.inf
    """The lowest evaluation so far …"""
    best_train_loss: float = math.inf
    """… the training loss at the same time …"""
    best_step: int = 0
    """… and after how many updates it was."""
    stale: int = 0
    """Evaluations since then."""
    train_loss: float = math.inf
    """The most recent evaluation, on training text."""
    val_loss: float = math.inf
    """The most recent evaluation, on validation text."""
    seconds: float = 0.0
    """Wall-clock time of all sessions before this one."""
    used: float = 0.0
    """With a time budget: its seconds that are gone …"""
    learned: float = 0.0
    """… and those of them that lie after the first step of their session."""
    warned: tuple[str, ...] = ()
    """The kinds of warning given already: each is given once per run."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return asdict(self) | {"warned": list(self.warned)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The opposite of `to_dict`."""
        return cls(**{**values, "warned": tuple(values["warned"])})

    def note_evaluation(self, train_loss: float, val_loss: float) -> bool:
        """Take in an evaluation; True when it is the best so far."""
        self.train_loss, self.val_loss = train_loss, val_loss
        if val_loss < self.best_val_loss:
            self.best_val_loss, self.best_train_loss, self.best_step, self.stale = val_loss, train_loss, self.step, 0
            return True
        self.stale += 1
        return False


def circumstances(texts: Iterable[NDArray[np.integer[Any]] | IdStore], engine: Mapping[str, Any]) -> dict[str, Any]:
    """What else the exact numbers depend on: NumPy's version, the text, and what the engine says (threads, versions, device)."""
    digest = hashlib.sha256()
    for ids in texts:
        for block in blocks(ids):
            digest.update(np.ascontiguousarray(block).data)
    return {**engine, "numpy": str(np.__version__), "text": digest.hexdigest()}


def differences(saved: Mapping[str, Any], now: Mapping[str, Any], settings: TrainConfig) -> Iterator[str]:
    """One line for each reason why a resumed run can't repeat the uninterrupted one bit for bit; none when it can.

    `saved` is the training state of a checkpoint, `now` are today's `circumstances`.
    """
    before = saved["circumstances"]
    for name in now:
        if before.get(name) != now[name]:
            what = "another text" if name == "text" else f"{name} {now[name]} instead of {before.get(name)}"
            yield f"resumed with {what}: the run goes on, but not bit for bit as if never stopped"
    was, new = {**asdict(TrainConfig()), **saved["settings"]}, asdict(settings)  # an older run lacks settings that have come since
    changed = [f"{name} {new[name]} instead of {was[name]}" for name in new if new[name] != was[name]]
    if changed:
        yield f"resumed with {', '.join(changed)}: the run goes on, but not as if never stopped"


if __name__ == "__main__":
    progress = Progress(step=100)
    for loss in (4.2, 2.5, 2.6):
        print(f"validation loss {loss}: best so far {progress.note_evaluation(loss, loss)}, stale {progress.stale}")
    now = circumstances([np.arange(10)], {"threads": 2})
    saved = {"circumstances": now | {"threads": 64}, "settings": asdict(TrainConfig())}
    for line in differences(saved, now, TrainConfig(learning_rate=0.1)):
        print("warning:", line)
