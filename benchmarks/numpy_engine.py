"""A training step of the NumPy engine against PyTorch eager: equal config, batch, optimizer, threads, float32, in the same run.

Eager is PyTorch's own operations, one after the other: without the layers in C, which are a third engine.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from benchmarks.harness import Result, compare
from benchmarks.products import IN_C, limit_at
from tiny_transformer import block_by_hand
from tiny_transformer.config import PRESETS, ModelConfig, TrainConfig
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.numpy_engine import model as numpy_model
from tiny_transformer.numpy_engine.optimizers import AdamW, clip_gradients
from tiny_transformer.training import utils
from tiny_transformer.training.dataset import Batch
from tiny_transformer.training.objectives import cross_entropy
from tiny_transformer.training.optimizers import make_optimizer

GPT2 = ModelConfig(vocab_size=65, activation="gelu_tanh")
CASES = {  # name: config, batch, aim
    "4 × 128, cpu preset": (PRESETS["cpu"], 16, 0.5),
    "4 × 128, as GPT-2": (replace(GPT2, d_model=128, n_layers=4, n_heads=4, max_seq_len=128), 16, 0.5),
    "4 × 128, exact GELU": (ModelConfig(d_model=128, n_layers=4, n_heads=4, max_seq_len=128), 16, 0.5),
    "6 × 384, modern": (replace(PRESETS["cpu"], d_model=384, n_layers=6, n_heads=6, max_seq_len=256), 4, 0.7),
    "6 × 384, as GPT-2": (replace(GPT2, d_model=384, n_layers=6, n_heads=6, max_seq_len=256), 4, 0.7),
}


def by_hand(config: ModelConfig, batch: Batch) -> Callable[[], float]:
    """One whole step of the NumPy engine: loss and gradients, clipping, AdamW."""
    model = numpy_model.TinyTransformerLM(config, numpy_model.init_weights(config, 0))
    optimizer = AdamW(model.weights(), weight_decay=0.1)

    def step() -> float:
        loss, gradients = model.loss_and_gradients(batch)
        clip_gradients(gradients, 1.0)
        optimizer.step(gradients, 1e-4)
        return loss

    return step


def eager(config: ModelConfig, batch: Batch) -> Callable[[], float]:
    """The same in PyTorch, with its fused AdamW."""
    model = TinyTransformerLM(config, seed=0).train()
    optimizer = make_optimizer(model, TrainConfig(learning_rate=1e-4))
    inputs, targets = torch.from_numpy(batch.inputs), torch.from_numpy(batch.targets)
    parameters = list(model.parameters())

    def step() -> float:
        with limit_at(block_by_hand, IN_C[0], IN_C[2]):
            loss = cross_entropy(model(inputs), targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        utils.clip_gradients(parameters, 1.0)
        optimizer.step()
        return loss.item()

    return step


def run() -> list[Result]:
    """Compare all cases."""
    results = []
    for name, (config, rows, aim) in CASES.items():
        ids = np.random.default_rng(0).integers(config.vocab_size, size=(rows, config.max_seq_len + 1))
        batch = Batch(np.ascontiguousarray(ids[:, :-1]), np.ascontiguousarray(ids[:, 1:]))
        mine, other = by_hand(config, batch), eager(config, batch)
        if abs(mine() - other()) > 1e-4:
            raise ValueError(f"{name}: the two engines give different first losses")
        result = compare(
            f"NumPy training step, {name}", mine, other, work=batch.inputs.size, unit="tokens/s", peer_name="PyTorch", rounds=12, aim=aim
        )
        results.append(result)
        print(result.line(), flush=True)
    return results


if __name__ == "__main__":
    run()
