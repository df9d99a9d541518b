"""What rounding a large model takes: never the whole of it in float32."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file as save_torch

from tiny_transformer.numpy_engine.model import weight_shapes
from tiny_transformer.pretrained.families import FAMILIES
from tiny_transformer.pretrained.family import to_hugging_face, to_model_config
from tiny_transformer.pretrained.names import rules_of

ROOT = Path(__file__).resolve().parent.parent

MEASURE = """
import sys
import torch
from tiny_transformer import run
from tiny_transformer.cli.main import main
from tiny_transformer.config import ModelConfig
from tiny_transformer.quantized_layers import weight_bytes
from tiny_transformer.unfilled import without_memory
from tiny_transformer.cli import quantization_steps
without_memory(ModelConfig())  # what PyTorch's own code costs, however small the model, is paid before
def status(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))
before = status("VmRSS:")
open("/proc/self/clear_refs", "w").write("5")  # the highest mark begins again
what, path, out = sys.argv[1:]
if what == "quantize":
    assert main(["quantize", path, out, "--json"]) == 0
else:
    assert weight_bytes(run.load(path)[0]) < 0.3 * float(out)
print()
print(status("VmHWM:") - before)
"""


def peak(*argv):
    done = subprocess.run([sys.executable, "-c", MEASURE, *map(str, argv)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split("\n")[-2])


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is read from Linux's /proc")
def test_a_large_model_needs_little_memory(tmp_path):
    """200 MB in float32, 41 MB in 4 bits: read from a directory and made a run of, and that run opened."""
    values = {
        "vocab_size": 4000, "max_position_embeddings": 64, "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 8,
        "num_attention_heads": 12, "num_key_value_heads": 4, "tie_word_embeddings": True,
    }  # fmt: skip
    config = to_model_config(FAMILIES["llama"], values)
    shapes = weight_shapes(config)
    (tmp_path / "config.json").write_text(json.dumps(to_hugging_face(FAMILIES["llama"], config)))
    rules = rules_of(FAMILIES["llama"].table, config)
    weights = {one.theirs: torch.full(one.their_shape(shapes), 0.5, dtype=torch.bfloat16) for one in rules}
    save_torch(weights, tmp_path / "model.safetensors")
    whole = 4 * config.n_parameters
    assert whole > 190e6
    assert peak("quantize", tmp_path, tmp_path / "four") < 0.6 * whole
    assert peak("open", tmp_path / "four", whole) < 0.4 * whole
