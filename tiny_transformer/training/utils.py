"""Small tools of the training loop: clipping, where to compute and how precisely.

Leaves out: random numbers (`rng.py`) and signals (`signals.py`). Read before: `config.py`.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tiny_transformer.config import Precision, check

# ---------------------------------------------------------------- clipping


def clip_gradients(parameters: Iterable[Tensor], max_norm: float) -> float:
    """Scale all gradients together so that their norm is at most `max_norm` (Pascanu et al. 2013, algorithm 1).

    The norm is that of all gradients as one long vector. At or below `max_norm` nothing is touched, not by a bit;
    above it the norm becomes max_norm; `max_norm` 0 switches clipping off. Returns the norm before. A norm that is
    not finite is returned and nothing is scaled: what to do then is the caller's choice.
    """
    parameters = list(parameters)
    norm = float(gradient_norm(parameters))
    scale_gradients(parameters, norm, max_norm)
    return norm


def gradient_norm(parameters: Iterable[Tensor]) -> Tensor:
    """√(Σ g²) over every element of every gradient, as a scalar tensor on their device; 0 without gradients."""
    gradients = _gradients(parameters)
    if not gradients:
        return torch.zeros(())
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))  # the norm of the norms
    return norm


def scale_gradients(parameters: Iterable[Tensor], norm: float, max_norm: float) -> None:
    """The second half of `clip_gradients`, for a caller who has read the norm already."""
    if 0 < max_norm < norm < float("inf"):
        torch._foreach_mul_(_gradients(parameters), max_norm / norm)


def _gradients(parameters: Iterable[Tensor]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


# ---------------------------------------------------------------- where, and how precisely


def pick_device(name: str = "auto") -> torch.device:
    """The device called `name`; auto takes a GPU (cuda, then mps) where there is one, else the CPU.

    Raises ConfigError for a name PyTorch does not know, or a device that is not here.
    """
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    best = next(kind for kind, present in here.items() if present)
    if name == "auto":
        return torch.device(best)
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    check(device is not None and device.type in here, f"device={name!r}", "it must be auto, cpu, cuda, cuda:N or mps", "Try device=auto")
    assert device is not None
    count = torch.cuda.device_count() if device.type == "cuda" else 1
    present = here[device.type] and (device.index or 0) < count
    check(present, f"device={name!r}", "this machine, with this build of PyTorch, has no such device", f"Try device={best}")
    return device


def pick_precision(name: Precision, device: torch.device) -> torch.dtype:
    """What the forward pass computes in: auto is bfloat16 on a CUDA device that has it in hardware, else float32.

    The weights, their gradients and the optimizer are float32 in either case (Micikevicius et al. 2018, section 3).
    bfloat16 has float32's range, so the loss needs no scaling.
    """
    if name == "auto":
        name = "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return {"bfloat16": torch.bfloat16, "float32": torch.float32}[name]


@contextmanager
def thread_count(threads: int) -> Iterator[None]:
    """Compute with `threads` CPU threads inside this block; 0 leaves the number as it is."""
    before = torch.get_num_threads()
    if threads:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside this block dropout is off and no gradients are kept; afterwards the model is in the mode it was in."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


if __name__ == "__main__":
    layer = nn.Linear(3, 2)
    layer(torch.ones(4, 3)).square().sum().backward()
    before = clip_gradients(layer.parameters(), max_norm=1.0)
    print(f"weight {tuple(layer.weight.shape)}: gradient norm {before:.3f}, after clipping {clip_gradients(layer.parameters(), 1.0):.3f}")
    device = pick_device()
    print("device:", device, "precision:", pick_precision("auto", device))
