"""What rounding a large model takes: never the whole of it in float32."""

import pytest
import torch

from benchmarks.constant_weights import write_constant
from benchmarks.peak_memory import READABLE, peak_of

LARGE = {
    "vocab_size": 4000, "max_position_embeddings": 64, "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 8,
    "num_attention_heads": 12, "num_key_value_heads": 4, "tie_word_embeddings": True,
}  # fmt: skip
QUANTIZE = """
assert main(["quantize", *sys.argv[1:], "--json"]) == 0
"""
OPEN = """
model = run.load(sys.argv[1])[0]
print(weight_bytes(model))
"""


@pytest.mark.skipif(not READABLE, reason="the peak is read from Linux's /proc")
def test_a_large_model_needs_little_memory(tmp_path):
    """200 MB in float32, 41 MB in 4 bits: read from a directory and made a run of, and that run opened."""
    whole = 4 * write_constant(tmp_path, "llama", LARGE, torch.bfloat16).n_parameters
    assert whole > 190e6
    command = "from tiny_transformer.cli.main import main\nfrom tiny_transformer.cli import quantization_steps"
    assert peak_of(command, QUANTIZE, tmp_path, tmp_path / "four").memory < 0.5 * whole
    opening = "from tiny_transformer import run\nfrom tiny_transformer.quantized_layers import weight_bytes"
    memory, said = peak_of(opening, OPEN, tmp_path / "four")
    assert int(said) < 0.3 * whole
    assert memory < 0.4 * whole
