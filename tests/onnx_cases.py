"""Models that hold every option together, and how an ONNX file is held to its model: for the tests, and for the long campaign."""

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from tests.options import OPTIONS, small_config
from tiny_transformer.config import ModelConfig
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.pretrained.onnx_file import inputs_of, write_onnx

WORST = 1e-4
TOGETHER: dict[str, ModelConfig] = {
    "gpt2's parts": small_config("gpt2", n_layers=1),
    "modern parts": small_config(
        "modern", rope_scaling={"type": "linear", "factor": 4.0}, n_kv_heads=2, window=5, d_head=10, ngram_rows=(50, 31), tie_weights=False
    ),
    "llama's parts": small_config("llama3 rope", n_layers=1, activation="swiglu", norm="rms", bias="qkv", n_kv_heads=1),
    "alibi, both ways": small_config("alibi", n_layers=1, causal=False, window=4, activation="gelu_tanh", n_token_types=2),
    "sinusoidal": small_config("pairs, sinusoidal, token types", n_layers=1, norm_position="post", activation="relu"),
    "no positions, both ways": small_config("no positions", n_layers=1, causal=False, norm="rms", bias="none"),
}


def random_model(config: ModelConfig, seed: int = 0) -> TinyTransformerLM:
    """Every weight random, norms and biases too: nothing can hide in a 0 or a 1."""
    model = TinyTransformerLM(config, seed=seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * (0.3 if weight.dim() > 1 else 1.0))
    return model


def session(path: Path):
    """The file, opened by onnxruntime, which says nothing by itself."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def check_file(path: Path) -> None:
    """ONNX's own checker, with the shapes of everything inside."""
    import onnx

    onnx.checker.check_model(str(path), full_check=True)


def shapes(most: int) -> Iterator[tuple[int, int]]:
    """Batches and lengths: every length up to the context, and several batches for some."""
    yield from ((1, length) for length in range(1, most + 1))
    yield from ((batch, length) for batch in (2, 3, 7) for length in sorted({1, min(2, most), -(-most // 2), most}))


def worst_difference(model: TinyTransformerLM, path: Path, seed: int = 0) -> tuple[float, float]:
    """How far onnxruntime's logits are from ours at most, over many batches and lengths, and how much ours vary.

    Padding masks are random: tokens anywhere, rows with one token only, rows with none.
    """
    config, opened, worst, spread = model.config, session(path), 0.0, 0.0
    generator = torch.Generator().manual_seed(seed)
    for batch, length in shapes(config.max_seq_len):
        given = {
            "ids": torch.randint(config.vocab_size, (batch, length), generator=generator),
            "attention_mask": torch.randint(2, (batch, length), generator=generator),
            "token_types": torch.randint(max(1, config.n_token_types), (batch, length), generator=generator),
        }
        given = {name: given[name] for name in inputs_of(config)}
        (found,) = opened.run(None, {name: tensor.numpy() for name, tensor in given.items()})
        mask = given["attention_mask"].bool()[:, None, :] if "attention_mask" in given else None
        with torch.no_grad():
            wanted = model(given["ids"], mask, token_types=given.get("token_types"))
        assert found.shape == wanted.shape
        difference = (torch.from_numpy(found) - wanted).abs().max().item()
        worst, spread = max(worst, difference if difference == difference else float("inf")), max(spread, wanted.std().item())
    return worst, spread


def onnx_campaign(n: int, seed: int) -> dict[str, int]:
    """`n` models with options by chance, one way and both: the file passes ONNX's checker and gives our logits."""
    chance, failed = random.Random(seed), 0
    for _ in range(n):
        option = chance.choice(list(OPTIONS))
        more = {"causal": chance.random() < 0.5, "max_seq_len": chance.choice([2, 3, 12, 40]), "n_layers": chance.choice([1, 3])}
        model = random_model(small_config(option, **more), seed=chance.randrange(1000))
        with tempfile.TemporaryDirectory() as folder:
            (path,) = write_onnx(model, Path(folder) / "m.onnx")
            check_file(path)
            failed += worst_difference(model, path)[0] >= WORST
    return {"tried": n, "failed": failed}
