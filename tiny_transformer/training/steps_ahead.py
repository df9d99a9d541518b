"""Training that does not wait for its device: the update decides on the device what the host would have decided.

A GPU works through a queue of kernels. Reading one number of a step (`loss.item()`) waits until that queue is empty, and while the
host prepares the next step the GPU stands still. Two things ask for such a number: clipping, and the look whether loss and gradient
are finite *before* the weights change. `guarded_step` does both where the numbers are. The numbers themselves travel to the host
behind the work, and `StepsAhead` hands them over in order, at most `MOST_AHEAD` steps late and never past an evaluation or a save.
Leaves out: the step itself (`trainer.py`). Read before: `loop.py`, `training/utils.py`.
"""

import time
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

MOST_AHEAD = 4
"""How many steps may be queued before the host waits for the oldest one's numbers: two would do, four ride out a hiccup."""


class Arrived(NamedTuple):
    """What is known of a step at last."""

    step: int
    """How many updates came before it."""
    lr: float
    loss: float
    norm: float
    seconds: float
    """Wall-clock time since the numbers of the step before arrived."""


class StepsAhead:
    """The steps whose numbers are still on their way, oldest first."""

    def __init__(self, device: torch.device) -> None:
        self.bad = torch.zeros((), device=device)
        """1 from the first step on whose loss or norm was not finite: no later step changes a weight."""
        self._waiting: deque[tuple[int, float, Tensor, torch.cuda.Event | None]] = deque()
        self._clock = 0.0

    def begin(self) -> None:
        """A step begins; after a pause (an evaluation, a save) time counts from here."""
        if not self._waiting:
            self._clock = time.perf_counter()

    def put(self, step: int, lr: float, numbers: Tensor) -> None:
        """Send a step's loss and norm, `numbers` (2,), on their way to the host, without waiting."""
        if numbers.device.type != "cuda":
            self._waiting.append((step, lr, numbers.clone(), None))
            return
        host = torch.empty_like(numbers, device="cpu", pin_memory=True)
        host.copy_(numbers, non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        self._waiting.append((step, lr, host, event))

    def take(self, leave: int = 0) -> Iterator[Arrived]:
        """Hand over the oldest steps until only `leave` are on their way, waiting for each."""
        while len(self._waiting) > leave:
            step, lr, numbers, event = self._waiting.popleft()
            if event is not None:
                event.synchronize()
            loss, norm = numbers.tolist()
            now = time.perf_counter()
            seconds, self._clock = now - self._clock, now
            yield Arrived(step, lr, loss, norm, seconds)

    def forget(self) -> None:
        """Drop what is on its way, and begin again as if nothing had been wrong."""
        self._waiting.clear()
        self.bad.zero_()


def can_run_ahead(optimizer: torch.optim.Optimizer, device: torch.device) -> bool:
    """Whether waiting costs something here, and the optimizer can leave out an update by itself (PyTorch's fused ones can)."""
    return device.type == "cuda" and bool(getattr(optimizer, "_step_supports_amp_scaling", False))


@torch.no_grad()
def guarded_step(optimizer: torch.optim.Optimizer, numbers: Tensor, bad: Tensor, max_norm: float) -> None:
    """Clip and update as `clip_gradients` and a look at the numbers would, with both decisions taken on the device.

        bad   ← 1 once loss or norm is not finite
        g     ← g / max(1, norm / max_norm)          `max_norm` 0: no clipping
        θ     ← one step of the optimizer, unless bad

    `numbers` (2,) are this step's loss and the norm of all gradients, `bad` () is kept from step to step. The divisor and the veto
    are the two tensors that fused optimizers take for mixed precision (`torch.amp.GradScaler` sets the same ones): no extra pass.
    """
    bad.copy_(torch.maximum(bad, (~numbers.isfinite().all()).to(bad)))
    optimizer.found_inf = bad  # type: ignore[attr-defined]
    optimizer.grad_scale = (numbers[1].float() / max_norm).clamp(min=1) if max_norm > 0 else None  # type: ignore[attr-defined]
    try:
        optimizer.step()
    finally:
        del optimizer.found_inf, optimizer.grad_scale  # type: ignore[attr-defined]


if __name__ == "__main__":
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight], lr=0.1, weight_decay=0.0, fused=True)
    ahead = StepsAhead(torch.device("cpu"))
    for step, gradient in enumerate((1.0, 2.0, float("nan"), 3.0)):
        weight.grad = torch.full((3,), gradient)
        guarded_step(optimizer, torch.stack((weight.sum().detach(), weight.grad.norm())), ahead.bad, max_norm=1.0)
        ahead.put(step, 0.1, torch.tensor([gradient, gradient * 3**0.5]))
        known = [arrived.step for arrived in ahead.take(leave=2)]
        print(f"step {step}: gradient {gradient}, weights {weight[0].item():.3f} …, numbers known of steps {known}")
