"""What a GPU could do at most, by its name.

The figures are the makers' own for products of dense 16-bit matrices summed in float32 (bfloat16 where the GPU has it), without
the doubling that data sheets give for sparse ones. Left out: what a step needs (`tiny_transformer/step_cost.py`), and measuring a
device that is not in the list (`tiny_transformer/training/ceilings.py`). Read before: nothing.
"""

import re

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


if __name__ == "__main__":
    for name in ("NVIDIA H100 80GB HBM3", "NVIDIA GeForce RTX 4090", "Tesla T4", "a GPU of next year"):
        peak = peak_of(name)
        print(f"{name:24}", "not in the list: measured" if peak is None else f"{peak / 1e12:4.0f} TFLOP/s")
