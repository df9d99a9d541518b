"""A model as one file of our own: safetensors with config and tokenizer in its header, or NumPy's arrays by name with the same.

Both are the NumPy engine's checkpoints (`numpy_engine/checkpoint.py`), so every command reads them, with either engine, and any other
program finds the weights under their public names. Read before: `numpy_engine/checkpoint.py`, `run.py`.
"""

from dataclasses import replace
from pathlib import Path

from tiny_transformer.numpy_engine import checkpoint as numpy_checkpoints
from tiny_transformer.run import as_numpy
from tiny_transformer.utils.checkpoint import Checkpoint


def write_file(checkpoint: Checkpoint, path: Path, dtype: str | None = None, *, tokenizer: bool = True) -> list[str]:
    """Write `checkpoint` without what resuming needs, as .safetensors or .npz by the path's suffix. Gives what a person should know."""
    kept = replace(checkpoint, tokenizer=checkpoint.tokenizer if tokenizer else None, training=None)
    kept.weights = {name: tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor for name, tensor in kept.weights.items()}
    numpy_checkpoints.save(path, as_numpy(kept), dtype)
    rounded = dtype in ("float16", "bfloat16")
    return [f"the weights are rounded to {dtype}; they are read as float32"] if rounded else []


if __name__ == "__main__":
    import tempfile

    import torch

    from tiny_transformer import run
    from tiny_transformer.config import ModelConfig
    from tiny_transformer.model import TinyTransformerLM

    config = ModelConfig(vocab_size=20, d_model=16, n_layers=1, n_heads=2, ngram_rows=(400,), logit_softcap=15.0)
    model = TinyTransformerLM(config, seed=1).eval()
    ids = torch.arange(8)[None]
    with tempfile.TemporaryDirectory() as folder:
        for name, dtype in (("a.safetensors", None), ("a.npz", None), ("b.safetensors", "bfloat16")):
            path = Path(folder) / name
            notes = write_file(Checkpoint(config, None, model.weights()), path, dtype)
            again, _ = run.load(path)
            print(f"{name:16} {path.stat().st_size:7,} bytes, logits differ by {(again(ids) - model(ids)).abs().max():.1g}", *notes)
