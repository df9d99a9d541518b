"""AdamW, written to be read, the choice of which weights decay, and the choice of the optimizer.

The fused AdamW of PyTorch makes the same numbers faster and is the default; a test holds the two equal.
Leaves out: Muon (`muon.py`), the learning rate over time (`scheduler.py`) and clipping (`training/utils.py`).
Read before: `model.py`.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from tiny_transformer.config import TrainConfig
from tiny_transformer.training.muon import Muon, hidden_matrices
from tiny_transformer.training.utils import pick_precision
from tiny_transformer.utils.reference import is_reference

FUSED_DEVICES = ("cpu", "cuda", "mps")


def adamw_step(
    parameter: Tensor,
    gradient: Tensor,
    state: dict[str, Tensor],
    *,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.01,
) -> None:
    """One step of AdamW on one parameter, in place (Loshchilov & Hutter 2019, algorithm 2).

        θ ← θ - lr · λ · θ                          decay, apart from the gradient: that is the W of AdamW
        m ← β1 · m + (1 - β1) · g                   a running mean of the gradient …
        v ← β2 · v + (1 - β2) · g²                  … and of its square, element by element
        θ ← θ - lr · m̂ / (√v̂ + ε)                   m̂ = m / (1 - β1ᵗ),  v̂ = v / (1 - β2ᵗ)

    m and v begin at zero, so after t steps they hold only 1 - βᵗ of a full mean: dividing by that undoes the
    bias (Kingma & Ba 2015, section 3). The first step therefore has the size lr for every element:

    >>> weights, state = torch.tensor([1.0, 1.0]), {}
    >>> adamw_step(weights, torch.tensor([0.3, -50.0]), state, lr=0.1, weight_decay=0.0)
    >>> weights
    tensor([0.9000, 1.1000])

    `gradient` has the shape of `parameter`. `state` starts empty and is kept by the caller; it holds `step` (t, a
    scalar), `exp_avg` (m) and `exp_avg_sq` (v), the names that torch.optim.AdamW uses.
    """
    if not state:
        state["step"] = torch.tensor(0.0)
        state["exp_avg"] = torch.zeros_like(parameter)
        state["exp_avg_sq"] = torch.zeros_like(parameter)
    state["step"] += 1
    t, mean, square = float(state["step"]), state["exp_avg"], state["exp_avg_sq"]
    with torch.no_grad():
        parameter.mul_(1 - lr * weight_decay)
        mean.mul_(beta1).add_((1 - beta1) * gradient)
        square.mul_(beta2).add_((1 - beta2) * gradient * gradient)
        mean_hat = mean / (1 - beta1**t)
        square_hat = square / (1 - beta2**t)
        parameter.sub_(lr * mean_hat / (square_hat.sqrt() + eps))


class AdamW(torch.optim.Optimizer):
    """`adamw_step` for every parameter that has a gradient.

    Takes parameters or groups of them, as every PyTorch optimizer does; a group may have its own lr, betas, eps and
    weight_decay. Its state can be loaded into torch.optim.AdamW and the other way round.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter once. `closure`, if given, is called first and its loss is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is not None:
                    adamw_step(
                        parameter, parameter.grad, self.state[parameter],
                        lr=group["lr"], beta1=beta1, beta2=beta2, eps=group["eps"], weight_decay=group["weight_decay"],
                    )  # fmt: skip
        return loss


def parameter_groups(model: nn.Module, weight_decay: float, without: Iterable[Tensor] = ()) -> list[dict[str, Any]]:
    """The model's parameters in two groups: matrices and embeddings decay, vectors (biases, norms) do not.

    A matrix multiplies, so pulling it towards zero limits how strongly it mixes; a norm's gain or a bias sets a level,
    and zero is no natural place for it. A parameter used twice (tied weights) stands once. Frozen ones are left out, and
    those in `without`.
    """
    left_out = {id(parameter) for parameter in without}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad and id(parameter) not in left_out]
    groups = [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def make_optimizer(model: nn.Module, settings: TrainConfig) -> torch.optim.Optimizer:
    """The optimizer that the settings name, AdamW or Muon; call it after the model has been moved to its device.

    The fast ones (PyTorch's fused AdamW, Muon with one product for all matrices of a shape), or the readable ones when asked
    for and in reference mode; AdamW's also on devices for which there is no fused one.
    """
    if settings.optimizer == "adamw":
        return _make_adamw(parameter_groups(model, settings.weight_decay), settings)
    matrices = hidden_matrices(model)
    others = _make_adamw(parameter_groups(model, settings.weight_decay, without=matrices), settings)
    device = next(model.parameters()).device
    rough = pick_precision(settings.precision, device) is torch.bfloat16
    return Muon(
        matrices, others, lr=settings.muon_learning_rate, momentum=settings.muon_momentum, weight_decay=settings.weight_decay,
        lr_ratio=settings.muon_learning_rate / settings.learning_rate, batched=settings.fused_optimizer and not is_reference(),
        precision=torch.bfloat16 if rough else None,
    )  # fmt: skip


def _make_adamw(groups: list[dict[str, Any]], settings: TrainConfig) -> torch.optim.Optimizer:
    lr, betas, eps = settings.learning_rate, (settings.beta1, settings.beta2), settings.adam_eps
    devices = {parameter.device.type for group in groups for parameter in group["params"]}
    if settings.fused_optimizer and not is_reference() and devices <= set(FUSED_DEVICES):
        return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, fused=True)
    return AdamW(groups, lr=lr, betas=betas, eps=eps)


def optimizer_state(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, dict[str, Tensor]]:
    """What the optimizer remembers, by parameter name, so that a checkpoint does not depend on the order of groups.

    The tensors are the optimizer's own, not copies.
    """
    return {name: dict(optimizer.state[parameter]) for name, parameter in _trained(model).items() if parameter in optimizer.state}


def load_optimizer_state(optimizer: torch.optim.Optimizer, model: nn.Module, saved: dict[str, dict[str, Tensor]]) -> None:
    """Put back what `optimizer_state` returned; the settings of the groups (decay, betas) stay the optimizer's own.

    Raises ValueError when `saved` is that of another model, or of another kind of optimizer.
    """
    named = _trained(model)
    unknown, missing = sorted(set(saved) - set(named)), sorted(set(named) - set(saved))
    if saved and (unknown or missing):
        raise ValueError(f"optimizer state: unknown {unknown}, missing {missing}: it must fit the model. Resume with the model's own run")
    name_of = {parameter: name for name, parameter in named.items()}
    for group in optimizer.param_groups:
        for name in (name_of[parameter] for parameter in group["params"]):
            _check_kind(name, saved.get(name), "momentum" in group)
    order = [name_of[parameter] for group in optimizer.param_groups for parameter in group["params"]]
    state = {index: {key: value.clone() for key, value in saved[name].items()} for index, name in enumerate(order) if name in saved}
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _check_kind(name: str, saved: dict[str, Tensor] | None, by_muon: bool) -> None:
    needed = {"momentum_buffer"} if by_muon else {"step", "exp_avg", "exp_avg_sq"}
    if saved and set(saved) != needed:
        holds, needs = ", ".join(sorted(saved)), ", ".join(sorted(needed))
        raise ValueError(f"optimizer state: {name} has {holds}: this optimizer remembers {needs}. Resume with the run's own optimizer")


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


if __name__ == "__main__":
    torch.manual_seed(0)
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    for layer, optimizer in ((ours, AdamW(ours.parameters(), lr=0.1)), (theirs, torch.optim.AdamW(theirs.parameters(), lr=0.1))):
        for step in range(30):
            optimizer.zero_grad()
            (layer(torch.ones(4, 3)) - step % 3).square().mean().backward()
            optimizer.step()
    difference = (ours.weight - theirs.weight).abs().max().item()
    print("weight", tuple(ours.weight.shape), "largest difference to torch after 30 steps:", difference)
    print("groups:", [(len(group["params"]), group["weight_decay"]) for group in parameter_groups(ours, 0.1)])
