"""Muon: momentum whose step is made orthogonal, for the matrices inside the blocks; AdamW looks after everything else.

AdamW scales each number of a gradient by itself. A layer's weight is more than its numbers: it is a map, and the gradient of
a map is mostly a few strong directions. Muon steps equally far in every direction that the gradient has (Jordan et al. 2024,
"Muon: An optimizer for hidden layers in neural networks"), which is steepest descent when a step is measured by how much it
can change a layer's output (Bernstein & Newhouse 2024, "Old Optimizer, New Norm", section 3.2).
Leaves out: AdamW itself, and which optimizer a run has (`optimizers.py`). Read before: `scheduler.py`, `model.py`.
"""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""a, b, c of φ(s) = a s + b s³ + c s⁵, what one Newton–Schulz step does to each singular value (Jordan et al. 2024)."""
SMALLEST_NORM = 1e-15
"""A gradient is divided by its norm or by this, so that one of zeros stays zeros."""


def newton_schulz(matrix: Tensor, steps: int = 5) -> Tensor:
    """About the nearest orthogonal matrix: `matrix` = U S Vᵀ becomes nearly U Vᵀ, without computing U, S or V.

        X ← M / ‖M‖                                 Frobenius norm: now every singular value is at most 1
        X ← a X + b (X Xᵀ) X + c (X Xᵀ)² X          `steps` times

    As X Xᵀ = U S² Uᵀ, a step leaves U and V alone and turns every singular value s into φ(s) = a s + b s³ + c s⁵.
    The classic a, b, c = 3/2, -1/2, 0 (Bernstein & Newhouse 2024, appendix A) pull every s to exactly 1, but a small one grows by
    1.5 a step only. Jordan et al. tuned the three for a steep start, 3.4445, and gave up the exact 1 for it: large values hop
    about, φ(1) = 0.70, and five steps take all that is between 0.0016 and 1 to between 0.68 and 1.21. Training does not mind.
    What is below 0.0016 grows by at most 3.4445⁵ = 485: a direction that is hardly in the gradient is raised, but stays small.

    Shape: (…, rows, columns), every matrix by itself; computed in the argument's own type. A tall matrix is transposed first,
    so that X Xᵀ is the smaller of the two possible products. Raises ValueError for what is no matrix.

    >>> torch.linalg.svdvals(newton_schulz(torch.diag(torch.tensor([5.0, 0.5, 0.05])))).round(decimals=2)
    tensor([0.7100, 0.7000, 0.7000])
    """
    if matrix.dim() < 2:
        raise ValueError(f"shape {tuple(matrix.shape)}: newton_schulz needs (…, rows, columns). Leave vectors to AdamW")
    a, b, c = COEFFICIENTS
    is_tall = matrix.shape[-2] > matrix.shape[-1]
    x: Tensor = matrix.mT if is_tall else matrix  # (…, r, c), r ≤ c
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=SMALLEST_NORM)
    for _ in range(steps):
        gram = x @ x.mT  # (…, r, r)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if is_tall else x


def newton_schulz_batch(matrices: Tensor, steps: int = 5) -> Tensor:
    """`newton_schulz` of (matrices, rows, columns) in three calls a step, each a product and a sum at once: up to a third faster."""
    a, b, c = COEFFICIENTS
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if is_tall else matrices  # (matrices, r, c), r ≤ c
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=SMALLEST_NORM)
    for _ in range(steps):
        gram = torch.bmm(x, x.mT)  # (matrices, r, r)
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, factor, x, beta=a)
    return x.mT if is_tall else x


def step_scale(rows: int, columns: int) -> float:
    """√max(1, rows / columns): how large the orthogonal step of a (rows, columns) matrix shall be (Jordan et al. 2024).

    An orthogonal matrix turns an input of root mean square 1 into an output of root mean square √(columns / rows) when it is tall,
    and of about 1 when it is square or wide; the factor makes it 1 for all. (Liu et al. 2025, "Muon is scalable for LLM training",
    section 2.2, take 0.2 √max(rows, columns) instead: the elements then change about as much as AdamW's, so one learning rate
    serves both optimizers. Here each has its own.)

    >>> step_scale(512, 128), step_scale(128, 512)
    (2.0, 1.0)
    """
    return math.sqrt(max(1.0, rows / columns))


def muon_step(
    parameter: Tensor,
    gradient: Tensor,
    state: dict[str, Tensor],
    *,
    lr: float,
    momentum: float = 0.95,
    weight_decay: float = 0.0,
) -> None:
    """One step of Muon on one matrix (rows, columns), in place (Jordan et al. 2024, algorithm 2, with Nesterov's momentum).

        m ← μ · m + (1 - μ) · g                     a running mean of the gradient
        d = μ · m + (1 - μ) · g                     Nesterov: where the mean will be, should the gradient stay as it is
        θ ← θ - lr · λ · θ                          decay, apart from the gradient, as in AdamW
        θ ← θ - lr · √max(1, rows / columns) · newton_schulz(d)

    The size of the gradient plays no part, only its directions. `state` starts empty and is kept by the caller; it holds
    `momentum_buffer` (m).

    >>> weights, state = torch.zeros(2, 2), {}
    >>> muon_step(weights, torch.tensor([[0.0, 7.0], [-7.0, 0.0]]), state, lr=0.1)
    >>> weights.round(decimals=3)
    tensor([[ 0.0000, -0.1110],
            [ 0.1110,  0.0000]])
    """
    if not state:
        state["momentum_buffer"] = torch.zeros_like(parameter)
    mean = state["momentum_buffer"]
    with torch.no_grad():
        mean.mul_(momentum).add_((1 - momentum) * gradient)
        direction = momentum * mean + (1 - momentum) * gradient
        parameter.mul_(1 - lr * weight_decay)
        parameter.sub_(lr * step_scale(*parameter.shape) * newton_schulz(direction))


class Muon(torch.optim.Optimizer):
    """`muon_step` for `matrices`, all of one shape in one product, and the optimizer `others` for its own parameters.

    To whoever trains it is one optimizer: its first group holds the matrices, the groups of `others` follow, and it keeps the
    state of all. A group's `lr_ratio` is what its learning rate is multiplied by when one rate is set for all (`trainer.py`).
    """

    def __init__(
        self,
        matrices: Iterable[Tensor],
        others: torch.optim.Optimizer,
        *,
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        lr_ratio: float = 1.0,
        batched: bool = True,
        precision: torch.dtype | None = None,
    ) -> None:
        """`batched` False takes `muon_step` for one matrix after the other. `precision` is the type of the products of the batched
        way (Jordan et al. compute them in bfloat16: the outcome is rough anyway); default: that of the weights.
        """
        group = {"params": list(matrices), "lr": lr, "lr_ratio": lr_ratio, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__([group, *others.param_groups], {})
        self.others, self.batched, self.precision = others, batched, precision

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient once. `closure`, if given, is called first and its loss is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        group = self.param_groups[0]
        settings = {name: group[name] for name in ("lr", "momentum", "weight_decay")}
        matrices = [parameter for parameter in group["params"] if parameter.grad is not None]
        if self.batched:
            for same in _by_shape(matrices):
                self._step_together(same, **settings)
        else:
            for matrix in matrices:
                muon_step(matrix, matrix.grad, self.state[matrix], **settings)
        # The others work on our groups and our state, so that there is one of each to set, save and load.
        self.others.state, self.others.param_groups = self.state, self.param_groups[1:]
        self.others.step()
        return loss

    def _step_together(self, matrices: list[Tensor], lr: float, momentum: float, weight_decay: float) -> None:
        """`muon_step` for matrices of one shape, line by line the same."""
        for matrix in matrices:
            if not self.state[matrix]:
                self.state[matrix]["momentum_buffer"] = torch.zeros_like(matrix)
        gradients = [matrix.grad for matrix in matrices if matrix.grad is not None]
        means = [self.state[matrix]["momentum_buffer"] for matrix in matrices]
        torch._foreach_lerp_(means, gradients, 1 - momentum)
        directions = torch.stack([  # (matrices, rows, columns); matrix by matrix: each is rounded while it is in the cache
            gradient.lerp(mean, momentum).to(self.precision or mean.dtype) for gradient, mean in zip(gradients, means, strict=True)
        ])  # fmt: skip
        steps = newton_schulz_batch(directions).to(means[0].dtype)
        torch._foreach_mul_(matrices, 1 - lr * weight_decay)
        torch._foreach_add_(matrices, steps.unbind(), alpha=-lr * step_scale(*matrices[0].shape))


def _by_shape(matrices: Iterable[Tensor]) -> list[list[Tensor]]:
    groups: dict[torch.Size, list[Tensor]] = {}
    for matrix in matrices:
        groups.setdefault(matrix.shape, []).append(matrix)
    return list(groups.values())


def hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    """What Muon updates: every trained matrix inside `model.blocks`, that is W_query, W_key, W_value, out_proj, up, gate and down.

    Not the embeddings and the output layer: their rows belong to one token each, and most tokens are not in a batch
    (Jordan et al. 2024). Raises ValueError for a model without blocks.
    """
    blocks = getattr(model, "blocks", None)
    if not isinstance(blocks, nn.Module):
        raise ValueError(f"{type(model).__name__} has no blocks: Muon updates the matrices inside them. Use optimizer=adamw")
    return [parameter for parameter in blocks.parameters() if parameter.requires_grad and parameter.dim() == 2]


if __name__ == "__main__":
    torch.manual_seed(0)
    gradient = torch.randn(64, 8) @ torch.diag(0.5 ** torch.arange(8)) @ torch.randn(8, 64)
    print("a gradient (64, 64) of rank 8, its singular values, then after 1 to 6 steps of Newton–Schulz:")
    for steps in range(7):
        values = torch.linalg.svdvals(newton_schulz(gradient, steps))[:8]
        print(f"  {steps}:", " ".join(f"{value:.3f}" for value in values.tolist()))
