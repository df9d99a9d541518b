"""When a backward pass written by hand may stand in for the one that PyTorch records, and what keeps it differentiable.

On a CPU, small models lose much of a training step to many small operations and to slow kernels. A few functions therefore
have a second form for training: the same numbers up to rounding, fewer passes over memory, gradients by hand
(`linear.py`, `gelu_by_hand.py`, `attention_products.py`). Tests hold every pair equal, in values and in gradients.
Left out: the functions themselves. Read before: `utils/reference.py`.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tiny_transformer.utils.reference import is_reference, reference_path

DTYPES = (torch.float32, torch.float64)
"""bfloat16 comes with autocast, which must see the plain operations."""


def allowed(x: Tensor, fewest: int = 0) -> bool:
    """Whether `x` is being trained on a CPU in full precision, with nothing around that must see the plain operations.

    Fewer than `fewest` numbers are left to the plain operations: the microseconds that Python needs would be more than is gained.

    Those are reference mode, autocast, torch.compile (it makes kernels of its own from them) and torch.func (vmap, grad, …).
    """
    return (
        torch.is_grad_enabled()
        and x.numel() >= fewest
        and not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and x.dtype in DTYPES
        and not is_reference()
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._are_functorch_transforms_active()
    )


def twice(plain: Callable[..., Tensor], inputs: Sequence[Tensor | None], gradient: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients of `plain(*inputs)`, themselves differentiable: for a backward pass that is to be differentiated once more.

    `inputs` as they were saved, `gradient` of the output. The hand-written passes work in place and cannot be recorded, so
    second derivatives go through the plain operations.
    """
    with torch.enable_grad(), reference_path():
        output = plain(*inputs)
        wanted = [x for x in inputs if x is not None and x.requires_grad]
        found = dict(zip(map(id, wanted), torch.autograd.grad(output, wanted, gradient, create_graph=True), strict=True))
    return tuple(found.get(id(x)) for x in inputs)


if __name__ == "__main__":
    x = torch.ones(2, requires_grad=True)
    print("in training:", allowed(x), "where it pays from 100 numbers on:", allowed(x, 100))
    with torch.no_grad():
        print("without gradients:", allowed(x))
    with torch.autocast("cpu", torch.bfloat16):
        print("under autocast:", allowed(x))
    (slope,) = twice(lambda x: x**3, [x], torch.ones(2))
    assert slope is not None
    print("3 x² at 1:", slope.tolist(), "and its own slope, 6 x:", torch.autograd.grad(slope.sum(), x)[0].tolist())
