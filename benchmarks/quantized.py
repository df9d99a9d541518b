"""What rounding to 8 and 4 bits costs and saves: error and loss of a run, memory while a large model is read, speed of writing.

    python -m benchmarks.quantized loss RUN TEXT       every way of rounding beside float32, on the same windows
    python -m benchmarks.quantized memory              models of published sizes from Hugging Face directories
    python -m benchmarks.quantized speed               tokens a second at 6 × 384 and at GPT-2's size

docs/quantized.md has what was measured. Read before: `peak_memory.py`.
"""

import copy
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from benchmarks.constant_weights import PUBLISHED, write_constant
from benchmarks.peak_memory import peak_of
from tiny_transformer import corpora, run
from tiny_transformer.config import ModelConfig, SampleConfig, preset
from tiny_transformer.evaluation.rounding_errors import RoundingErrors
from tiny_transformer.evaluation.validation_loss import mean_of_clusters, sums_in_windows
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.quantized import quantize
from tiny_transformer.quantized_layers import linear_weights, pack, quantize_model, weight_bytes
from tiny_transformer.rounded_weights import Rounding
from tiny_transformer.sampling.generator import TextGenerator
from tiny_transformer.tokenization.byte import ByteTokenizer

WAYS = {
    "8 bits": Rounding(bits=8), "NF4": Rounding(bits=4), "NF4, double": Rounding(bits=4, double=True),
    "NF4, blocks of 32": Rounding(bits=4, block=32), "NF4, a scale a row": Rounding(bits=4, block=1 << 20),
}  # fmt: skip
EVEN = "4 bits, even levels"
LOAD = """
model, _ = pretrained.load_pretrained(sys.argv[1], bits=int(sys.argv[2]) or None)
print(weight_bytes(model))
"""


def evenly(model: TinyTransformerLM) -> tuple[TinyTransformerLM, RoundingErrors]:
    """With its linear layers at fifteen levels of equal distance, one scale per 64 columns: four bits without NF4's levels."""
    errors, other = RoundingErrors(), copy.deepcopy(model)
    with torch.no_grad():
        for name in linear_weights(other):
            weight = other.get_parameter(name)
            rounded = quantize(weight, 4, group=64)
            errors.add(name, weight, rounded)
            weight.copy_(rounded.dequantize())
    return other, errors


def loss(name: str, text: str) -> None:
    """Error and loss of every way of rounding."""
    model, tokenizer = run.load(name)
    assert tokenizer is not None
    ids = tokenizer.encode_array(corpora.load(text).text)
    sums, counts = sums_in_windows(model, ids)
    print(f"{name}: {model.config.n_parameters:,} parameters, {counts.sum():,} tokens, float32 {mean_of_clusters(sums, counts)}")
    for way in (*WAYS, EVEN):
        if way == EVEN:
            small, errors = evenly(model)
        else:
            small, errors = quantize_model(model, WAYS[way]), RoundingErrors()
            for weight in linear_weights(model):
                errors.add(weight, model.get_parameter(weight), pack(model.get_parameter(weight).detach(), WAYS[way]))
        after = sums_in_windows(small, ids)[0]
        whole, worse = errors.all(), mean_of_clusters(after - sums, counts)
        bits = 4.5 if way == EVEN else whole.bits
        print(f"| {way} | {bits:.2f} | {whole.relative:.2%} | {whole.largest:.3f} | {mean_of_clusters(after, counts)} | "
              f"{worse.loss:+.4f} ± {worse.error:.4f} |")  # fmt: skip


def memory() -> None:
    """Peaks while models of published sizes are read."""
    imports = "from tiny_transformer import pretrained\nfrom tiny_transformer.quantized_layers import weight_bytes"
    for title, (family, values, dtype) in PUBLISHED.items():
        with tempfile.TemporaryDirectory() as folder:
            write_constant(Path(folder), family, values, dtype)
            for bits in (0, 8, 4):
                peak, said = peak_of(imports, LOAD, folder, bits)
                size = int(said)
                print(f"{title}, {bits or 32} bits: the model {size / 1e6:,.0f} MB, the peak {peak / 1e6:,.0f} MB, {peak / size:.2f} of it")


def speed(tokens: int = 24, rounds: int = 3) -> None:
    """Tokens a second of one text, in turn, the median of some rounds."""
    small = ModelConfig(vocab_size=256, max_seq_len=256, d_model=384, n_layers=6, n_heads=6)
    for title, config in (("6 × 384", small), ("GPT-2's size", preset("gpt2"))):
        model = TinyTransformerLM(config, seed=0).eval()
        ways = {"float32": model, **{way: quantize_model(model, WAYS[way]) for way in ("8 bits", "NF4", "NF4, double")}}
        rates: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way, each in ways.items():
                start = time.perf_counter()
                TextGenerator(each, ByteTokenizer()).generate("To be", SampleConfig(max_tokens=tokens, seed=0))
                rates[way].append(tokens / (time.perf_counter() - start))
        for way, each in ways.items():
            ratio = median(ours / theirs for ours, theirs in zip(rates[way], rates["float32"], strict=True))
            print(f"{title}, {way}: {median(rates[way]):.0f} tokens/s, {ratio:.3f} of float32, {weight_bytes(each) / 1e6:.1f} MB")


if __name__ == "__main__":
    if sys.argv[1:2] == ["loss"] and len(sys.argv) == 4:
        loss(*sys.argv[2:])
    elif sys.argv[1:] in (["memory"], ["speed"]):
        {"memory": memory, "speed": speed}[sys.argv[1]]()
    else:
        sys.exit(__doc__)
