"""What rounding a large model takes: never the whole of it in float32."""

import pytest
import torch

from benchmarks.peak_memory import READABLE, peak_of
from tests.constant_weights import large_llama

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
    whole = 4 * large_llama(tmp_path, torch.bfloat16, vocab_size=4000).n_parameters
    assert whole > 190e6
    command = "from tiny_transformer.cli.main import main\nfrom tiny_transformer.cli import quantization_steps"
    assert peak_of(command, QUANTIZE, tmp_path, tmp_path / "four").memory < 0.5 * whole
    opening = "from tiny_transformer import run\nfrom tiny_transformer.quantized_layers import weight_bytes"
    memory, said = peak_of(opening, OPEN, tmp_path / "four")
    assert int(said) < 0.3 * whole
    assert memory < 0.4 * whole
