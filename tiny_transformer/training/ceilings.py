"""How fast this machine multiplies matrices and reads memory, measured now: what everything else is a share of.

Leaves out: what a part needs of the two (`step_cost.py`, `roofline.py`). Read before: `roofline.py`.
"""

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from tiny_transformer.roofline import Ceilings

SIDES = {"cpu": (768, 1536), "cuda": (4096, 8192), "mps": (1024, 2048)}
"""Matrices that are tried: large enough that calls do not count, small enough to be quick."""
MEGABYTES = {"cpu": 256, "cuda": 2048, "mps": 512}
"""Size of the array for the memory: far larger than any cache."""


def measure_ceilings(device: torch.device, dtype: torch.dtype = torch.float32, *, seconds: float = 1.5, megabytes: int = 0) -> Ceilings:
    """The best of repeated trials, in about `seconds`: products in `dtype`, and bytes read, or read and written.

    The best and not the mean: a ceiling is what the machine can do when nobody disturbs it. `megabytes` is the size of the array
    that is read, 0 for one that suits the device.
    """
    budget = seconds / 4
    flop = max(2 * side**3 / _best(_product(side, device, dtype), device, budget) for side in SIDES[device.type])
    array = torch.ones((megabytes or MEGABYTES[device.type]) * 2**18, device=device)  # float32
    other = torch.empty_like(array)
    size = array.numel() * array.element_size()
    reading = size / _best(array.sum, device, budget)
    copying = 2 * size / _best(lambda: other.copy_(array), device, budget)
    return Ceilings(flop, max(reading, copying))


def _product(side: int, device: torch.device, dtype: torch.dtype) -> Callable[[], Tensor]:
    left, right = torch.rand(2, side, side, device=device).to(dtype)
    return partial(torch.mm, left, right, out=torch.empty_like(left))


def _best(work: Callable[[], object], device: torch.device, budget: float) -> float:
    """Seconds of the quickest call, after one to warm up; at least three, and as many as `budget` seconds allow."""
    work()
    wait_for(device)
    best, tries, begun = float("inf"), 0, time.perf_counter()
    while tries < 3 or time.perf_counter() - begun < budget:
        start = time.perf_counter()
        work()
        wait_for(device)
        best, tries = min(best, time.perf_counter() - start), tries + 1
    return best


def wait_for(device: torch.device) -> None:
    """Until everything asked of the device is done; the CPU never lags behind."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


if __name__ == "__main__":
    for kind in (torch.float32, torch.bfloat16):
        found = measure_ceilings(torch.device("cpu"), kind, seconds=0.6, megabytes=64)
        name = str(kind).removeprefix("torch.")
        print(f"{name:9} {found.flop_per_second / 1e9:6.0f} GFLOP/s   memory {found.bytes_per_second / 1e9:5.1f} GB/s")
