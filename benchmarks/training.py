"""A training step at equal shape and optimizer against transformers' GPT-2, float32, in the same run."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from benchmarks.harness import Result, compare
from tiny_transformer.config import ModelConfig
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.training.objectives import cross_entropy
from tiny_transformer.training.utils import clip_gradients

SIZES = {  # layers, heads, d_model, context, batch
    "4 × 128, context 64, batch 12": (4, 4, 128, 64, 12),
    "4 × 256, context 128, batch 8": (4, 4, 256, 128, 8),
    "6 × 384, context 256, batch 4": (6, 6, 384, 256, 4),
}
VOCAB = 65


def ours(config: ModelConfig) -> Callable[[Tensor, Tensor], Tensor]:
    """Our model's loss as a function of (ids, targets)."""
    model = TinyTransformerLM(config, seed=0)
    return stepper(model, lambda ids, targets: cross_entropy(model(ids), targets), clip_gradients)


def theirs_config(config: ModelConfig, use_cache: bool) -> transformers.GPT2Config:
    """The same shape in transformers' words, without dropout."""
    return transformers.GPT2Config(
        vocab_size=config.vocab_size, n_positions=config.max_seq_len, n_embd=config.d_model, n_layer=config.n_layers,
        n_head=config.n_heads, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=use_cache,
        bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip


def theirs(config: ModelConfig) -> Callable[[Tensor, Tensor], Tensor]:
    """The same for transformers' GPT-2 of equal shape, without dropout."""
    model = transformers.GPT2LMHeadModel(theirs_config(config, use_cache=False))
    parameters = sum(p.numel() for p in model.parameters())
    if parameters != config.n_parameters:
        raise ValueError(f"the peer has {parameters} parameters, ours {config.n_parameters}: not the same shape")
    return stepper(
        model, lambda ids, targets: F.cross_entropy(model(ids).logits.flatten(0, 1), targets.flatten()), nn.utils.clip_grad_norm_
    )


def stepper(
    model: nn.Module, loss_of: Callable[[Tensor, Tensor], Tensor], clip: Callable[..., object]
) -> Callable[[Tensor, Tensor], Tensor]:
    """One whole step: forward, backward, clipping, fused AdamW."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    parameters = list(model.parameters())

    def step(ids: Tensor, targets: Tensor) -> Tensor:
        loss = loss_of(ids, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        clip(parameters, 1.0)
        optimizer.step()
        return loss

    return step


def compare_size(name: str, n_layers: int, n_heads: int, d_model: int, context: int, batch: int) -> Result:
    """One size: the same batch through both."""
    config = ModelConfig(vocab_size=VOCAB, max_seq_len=context, d_model=d_model, n_layers=n_layers, n_heads=n_heads, activation="gelu_tanh")
    ids, targets = torch.randint(VOCAB, (2, batch, context), generator=torch.Generator().manual_seed(0))
    mine, other = ours(config), theirs(config)
    return compare(
        f"training step, {name}", lambda: mine(ids, targets), lambda: other(ids, targets), work=batch * context,
        unit="tokens/s", peer_name="transformers", rounds=20, warm_up=3, aim=1.0,
    )  # fmt: skip


def run() -> list[Result]:
    """Compare the three sizes."""
    results = []
    for name, size in SIZES.items():
        results.append(compare_size(name, *size))
        print(results[-1].line(), flush=True)
    return results


if __name__ == "__main__":
    run()
