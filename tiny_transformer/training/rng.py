"""Every random number generator of a process, as one thing that can be seeded, saved, restored and protected.

Leaves out: the order of the training data, which is a pure function of (seed, step) and needs no generator
(`dataset.batch_at`). Read before: nothing.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def set_seed(seed: int) -> None:
    """Seed Python's, NumPy's and PyTorch's generators, those of all devices included."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def rng_state(device: torch.device | None = None) -> dict[str, Any]:
    """The state of all generators, in tensors and plain values; `device` names the one accelerator that is used."""
    version, numbers, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state = {
        "python": {"version": version, "numbers": torch.tensor(numbers, dtype=torch.int64), "gauss": gauss},
        "numpy": {
            "name": str(name), "keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
            "position": int(position), "has_gauss": int(has_gauss), "cached": float(cached),
        },
        "torch": torch.get_rng_state(),
    }  # fmt: skip
    kind = "cpu" if device is None else device.type
    if device is not None and kind == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    if kind == "mps":
        state["mps"] = torch.mps.get_rng_state()
    return state


def restore_rng(state: dict[str, Any], device: torch.device | None = None) -> None:
    """Put all generators back to where `rng_state` found them."""
    python, numpy = state["python"], state["numpy"]
    random.setstate((python["version"], tuple(python["numbers"].tolist()), python["gauss"]))
    keys = numpy["keys"].numpy().astype(np.uint32)
    np.random.set_state((numpy["name"], keys, numpy["position"], numpy["has_gauss"], numpy["cached"]))
    torch.set_rng_state(state["torch"].cpu())
    if device is not None and device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
    if device is not None and device.type == "mps" and "mps" in state:
        torch.mps.set_rng_state(state["mps"].cpu())


@contextmanager
def preserved_rng(device: torch.device | None = None) -> Iterator[None]:
    """Whatever is drawn inside this block, the generators stand afterwards where they stood before it."""
    state = rng_state(device)
    try:
        yield
    finally:
        restore_rng(state, device)


if __name__ == "__main__":
    set_seed(0)
    state = rng_state()
    first = random.random(), np.random.random(), torch.rand(()).item()
    with preserved_rng():
        torch.rand(1000)
    second = random.random(), np.random.random(), torch.rand(()).item()
    restore_rng(state)
    again = random.random(), np.random.random(), torch.rand(()).item()
    print("state of", ", ".join(state))
    print("first", first, "\nthen ", second, "\nagain", again, "equal to the first:", again == first)
