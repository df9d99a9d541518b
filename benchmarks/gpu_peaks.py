"""What a GPU could do at most, by its name, and what share of it a training step uses.

The figures are the makers' own for products of dense 16-bit matrices summed in float32 (bfloat16 where the GPU has it), without
the doubling that data sheets give for sparse ones. Read before: nothing.
"""

import re
import time

import torch

from tiny_transformer.config import ModelConfig

PEAKS = {  # words of the name as CUDA gives it: FLOP/s
    "B200": 2250e12,  # NVIDIA Blackwell data sheet
    "GH200": 989e12,  # NVIDIA Hopper data sheets: H100, H200, GH200
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,  # NVIDIA A100 data sheet
    "A40": 149e12,  # NVIDIA A40 data sheet
    "A30": 165e12,  # NVIDIA A30 data sheet
    "A10": 125e12,  # NVIDIA A10 data sheet
    "L40S": 362e12,  # NVIDIA L40S data sheet
    "L40": 181e12,  # NVIDIA L40 data sheet
    "L4": 121e12,  # NVIDIA L4 data sheet
    "RTX 6000 Ada": 364e12,  # NVIDIA RTX 6000 Ada data sheet
    "RTX A6000": 154e12,  # NVIDIA RTX A6000 data sheet
    "RTX 4090": 165e12,  # NVIDIA Ada architecture paper, appendix A
    "RTX 4080": 97e12,
    "RTX 3090": 71e12,  # NVIDIA GA102 architecture paper, appendix A
    "V100": 125e12,  # NVIDIA V100 data sheet; float16, it has no bfloat16
    "T4": 65e12,  # NVIDIA T4 data sheet; float16, it has no bfloat16
}


def peak_of(name: str) -> float | None:
    """The peak of the GPU called `name`, FLOP/s: the longest entry whose words it holds; None for one that is not in the list.

    >>> peak_of("NVIDIA H100 80GB HBM3"), peak_of("NVIDIA H100 PCIe"), peak_of("NVIDIA A10G")
    (989000000000000.0, 756000000000000.0, None)
    """
    fitting = [words for words in PEAKS if re.search(rf"\b{words}\b", name)]
    return PEAKS[max(fitting, key=len)] if fitting else None


def flop_per_token(config: ModelConfig) -> float:
    """What one token costs in training, forward and backward: 6 N + 12 L H Q T (Chowdhery et al. 2022, "PaLM", appendix B).

    N is the number of parameters that tokens are multiplied with: a tied embedding counts, as the output layer that it is too; a
    table that is only looked up in (positions, an untied embedding) does not. L layers, H heads of width Q, context T. As in the
    paper the whole square of attention scores counts, although a causal model needs half of it.

    >>> from tiny_transformer.config import PRESETS
    >>> round(flop_per_token(PRESETS["gpt2"]) / 1e6)
    855
    """
    looked_up = 0 if config.tie_weights else config.vocab_size * config.d_model
    if config.position == "learned":
        looked_up += config.max_seq_len * config.d_model
    multiplied = config.n_parameters - looked_up
    return 6.0 * multiplied + 12.0 * config.n_layers * config.n_heads * config.head_width * config.max_seq_len


def measured_peak(device: torch.device, dtype: torch.dtype, size: int = 8192, rounds: int = 10) -> float:
    """FLOP/s of a square matrix product, for a device that the list does not have; the best of `rounds`."""
    a, b = torch.randn(2, size, size, device=device, dtype=torch.float32).to(dtype)
    best = 0.0
    for _ in range(rounds):
        synchronize(device)
        begun = time.perf_counter()
        a @ b
        synchronize(device)
        best = max(best, 2 * size**3 / (time.perf_counter() - begun))
    return best


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    from tiny_transformer.config import PRESETS

    for name in ("baby-gpt", "gpt2"):
        each = flop_per_token(PRESETS[name])
        print(f"{name:9} {each / 1e6:6.0f} MFLOP a token: an H200's peak would be {PEAKS['H200'] / each / 1e6:6.2f} M tokens/s")
    print(f"this CPU's matrix product: {measured_peak(torch.device('cpu'), torch.float32, 512) / 1e9:.0f} GFLOP/s")
