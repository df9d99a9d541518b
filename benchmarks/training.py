"""A training step at equal shape and optimizer against transformers' GPT-2 and x-transformers, float32, in the same run.

Beside the ratios: which share of the processor's measured matrix ceiling a step reaches, and the same three compiled. The peers
are made equal, and checked to be: the same number of parameters, the same weights copied in, the same first loss. transformers'
GPT-2 is our model with all its biases. x-transformers has no biases in attention and norms, so its twin is our model without any.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from benchmarks.harness import Result, compare
from tiny_transformer.config import ModelConfig
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.step_cost import step_cost, total
from tiny_transformer.training.ceilings import measure_ceilings
from tiny_transformer.training.objectives import cross_entropy
from tiny_transformer.training.utils import clip_gradients

SIZES: dict[str, tuple[int, int, int, int, int, float | None]] = {  # layers, heads, d_model, context, batch, aim
    "4 × 128, context 64, batch 12": (4, 4, 128, 64, 12, 1.5),
    "4 × 256, context 128, batch 8": (4, 4, 256, 128, 8, None),
    "6 × 384, context 256, batch 4": (6, 6, 384, 256, 4, 1.15),
}
VOCAB = 65
SAME = 1e-4
"""How far the first losses may lie apart."""
Step = Callable[[Tensor, Tensor], Tensor]


# ------------------------------------------------------------ the candidates


def ours(config: ModelConfig, compiled: bool = False) -> Step:
    """Our model's step as a function of (ids, targets)."""
    model = TinyTransformerLM(config, seed=0)
    return stepper(model, cross_entropy, clip_gradients, compiled)


def theirs_config(config: ModelConfig, use_cache: bool) -> transformers.GPT2Config:
    """The same shape in transformers' words, without dropout."""
    return transformers.GPT2Config(
        vocab_size=config.vocab_size, n_positions=config.max_seq_len, n_embd=config.d_model, n_layer=config.n_layers,
        n_head=config.n_heads, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=use_cache,
        bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip


def theirs(config: ModelConfig, compiled: bool = False) -> Step:
    """The same for transformers' GPT-2 of equal shape, without dropout."""
    model = transformers.GPT2LMHeadModel(theirs_config(config, use_cache=False))
    copy_into(model, {gpt2_name(name): tensor for name, tensor in gpt2_weights(config).items()})
    return stepper(model, lambda out, targets: their_loss(out.logits, targets), nn.utils.clip_grad_norm_, compiled)


def their_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """As their own examples compute it."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def gpt2_weights(config: ModelConfig) -> dict[str, Tensor]:
    """Our first weights with query, key and value in one, and matrices the way GPT-2 stores them (in, out)."""
    weights = dict(TinyTransformerLM(config, seed=0).weights())
    for n in range(config.n_layers):
        for kind in ("weight", "bias"):
            three = [weights.pop(f"blocks.{n}.attention.W_{which}.{kind}") for which in ("query", "key", "value")]
            weights[f"blocks.{n}.attention.packed.{kind}"] = torch.cat(three)
        for layer in ("attention.packed", "attention.out_proj", "feedforward.up", "feedforward.down"):
            weights[f"blocks.{n}.{layer}.weight"] = weights[f"blocks.{n}.{layer}.weight"].T
    return weights


def gpt2_name(name: str) -> str:
    """Our name for a weight, in transformers' words."""
    words = {
        "embeddings.token": "transformer.wte", "embeddings.position": "transformer.wpe", "blocks": "transformer.h", "norm1": "ln_1",
        "attention.packed": "attn.c_attn", "attention.out_proj": "attn.c_proj", "norm2": "ln_2", "feedforward.up": "mlp.c_fc",
        "feedforward.down": "mlp.c_proj",
    }  # fmt: skip
    for ours_, theirs_ in words.items():
        name = name.replace(ours_, theirs_)
    return f"transformer.ln_f.{name.removeprefix('norm.')}" if name.startswith("norm.") else name


def x_transformer(config: ModelConfig, flash: bool = True, compiled: bool = False) -> Step:
    """The same for x-transformers, whose attention and norms have no biases. `flash`: its faster attention (not its default)."""
    from x_transformers import Decoder, TransformerWrapper

    layers = Decoder(
        dim=config.d_model, depth=config.n_layers, heads=config.n_heads, attn_dim_head=config.head_width, attn_flash=flash,
        ff_no_bias=True, ff_custom_activation=nn.GELU("tanh"),
    )  # fmt: skip
    model = TransformerWrapper(
        num_tokens=config.vocab_size, max_seq_len=config.max_seq_len, tie_embedding=True, tie_embedding_scale=1.0, attn_layers=layers
    )
    weights = {x_name(name): tensor for name, tensor in TinyTransformerLM(config, seed=0).weights().items()}
    for name in weights:
        if name.endswith("gamma"):
            weights[name] = weights[name] - 1  # it adds 1 itself
    weights["pos_emb.emb.weight"] = weights["pos_emb.emb.weight"] * config.d_model**0.5  # and scales these down itself
    copy_into(model, weights)
    return stepper(model, their_loss, nn.utils.clip_grad_norm_, compiled)


def x_name(name: str) -> str:
    """Our name for a weight, in x-transformers' words: each of its layers is one branch, so ours count twice."""
    if name.startswith("blocks."):
        _, n, part = name.split(".", 2)
        first, second = f"attn_layers.layers.{2 * int(n)}", f"attn_layers.layers.{2 * int(n) + 1}"
        return {
            "norm1.weight": f"{first}.0.0.gamma", "norm2.weight": f"{second}.0.0.gamma",
            "attention.W_query.weight": f"{first}.1.to_q.weight", "attention.W_key.weight": f"{first}.1.to_k.weight",
            "attention.W_value.weight": f"{first}.1.to_v.weight", "attention.out_proj.weight": f"{first}.1.to_out.weight",
            "feedforward.up.weight": f"{second}.1.ff.0.0.weight", "feedforward.down.weight": f"{second}.1.ff.2.weight",
        }[part]  # fmt: skip
    return {
        "embeddings.token.weight": "token_emb.emb.weight", "embeddings.position.weight": "pos_emb.emb.weight",
        "norm.weight": "attn_layers.final_norm.gamma",
    }[name]  # fmt: skip


def copy_into(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Give the peer our weights. Raises ValueError where it has others, so the two are equal in parameters too."""
    own = dict(model.named_parameters())
    if set(own) != set(weights):
        raise ValueError(f"the peer's parameters are not ours: {sorted(set(own) ^ set(weights))}")
    with torch.no_grad():
        for name, parameter in own.items():
            if parameter.shape != weights[name].shape:
                raise ValueError(f"the peer's {name} has shape {tuple(parameter.shape)}, ours {tuple(weights[name].shape)}")
            parameter.copy_(weights[name])


def stepper(model: nn.Module, loss_of: Callable[[Any, Tensor], Tensor], clip: Callable[..., object], compiled: bool) -> Step:
    """One whole step: forward, backward, clipping, PyTorch's fused AdamW."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    parameters = list(model.parameters())
    forward = torch.compile(model) if compiled else model

    def step(ids: Tensor, targets: Tensor) -> Tensor:
        loss = loss_of(forward(ids), targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        clip(parameters, 1.0)
        optimizer.step()
        return loss.detach()

    return step


# ------------------------------------------------------------ the comparison


Peers = dict[str, tuple[ModelConfig, Step]]
"""By name: the peer's step, and our config that is equal to it."""


def compare_size(name: str, context: int, batch: int, aim: float | None, peers: Peers, most: float) -> list[Result]:
    """One size: the same batch through ours and each peer."""
    ids, targets = torch.randint(VOCAB, (2, batch, context), generator=torch.Generator().manual_seed(0))
    results = []
    for peer, (shape, step) in peers.items():
        mine = ours(shape, compiled="compiled" in peer)
        apart = abs(mine(ids, targets).item() - step(ids, targets).item())
        if apart > SAME:
            raise ValueError(f"{name}: the first losses of ours and {peer} lie {apart:.1e} apart: not the same model")
        result = compare(
            f"training step, {name}", partial(mine, ids, targets), partial(step, ids, targets), work=ids.numel(),
            unit="tokens/s", peer_name=peer, rounds=8 if "compiled" in peer else 12, warm_up=3, aim=aim if "compiled" not in peer else None,
        )  # fmt: skip
        products = total(step_cost(shape, batch, fused=False)).products  # the scores that the mask hides are not counted
        share = products * result.ours / ids.numel() / most
        results.append(replace(result, extra={"share_of_ceiling": share, "ceiling_gflops": most / 1e9}))
        print(f"{results[-1].line()}  {share:4.0%} of the matrix ceiling", flush=True)
    return results


def run() -> list[Result]:
    """Compare the three sizes; TINY_BENCH_COMPILED=0 leaves the compiled ones out, which take minutes."""
    most = measure_ceilings(torch.device("cpu")).flop_per_second
    with_x = find_spec("x_transformers") is not None
    if not with_x:
        print("x-transformers is not installed (pip install -c constraints.txt x-transformers): compared with transformers alone")
    print(f"matrix ceiling: {most / 1e9:.0f} GFLOP/s in float32 with {torch.get_num_threads()} threads")
    results = []
    for name, (n_layers, n_heads, d_model, context, batch, aim) in SIZES.items():
        gpt2 = ModelConfig(
            vocab_size=VOCAB, max_seq_len=context, d_model=d_model, n_layers=n_layers, n_heads=n_heads, activation="gelu_tanh"
        )
        bare = replace(gpt2, bias="none")
        peers: Peers = {"transformers": (gpt2, theirs(gpt2))}
        if with_x:
            peers["x-transformers"] = (bare, x_transformer(bare))
        if os.environ.get("TINY_BENCH_COMPILED", "1") != "0" and aim is not None:
            peers["transformers compiled"] = (gpt2, theirs(gpt2, compiled=True))
            if with_x:
                peers["x-transformers compiled"] = (bare, x_transformer(bare, compiled=True))
        results += compare_size(name, context, batch, aim, peers, most)
    return results


if __name__ == "__main__":
    run()
