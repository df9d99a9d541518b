"""`whole_step.c` for one model and one cache: which models and ways of choosing it knows, its structs filled in, and the calls.

The matrices are read from copies that lie as the C wants them (`native_weights.py`), all else where it lies.
It knows every architecture of `config.py` with float32 weights (or rounded ones, `quantized.py`) on a processor; embeddings with
pairs of tokens or token types are left to the model.
Left out: which step is taken when (`decode_step.py`). Read before: `decode_step.py` (the same in PyTorch), `native_weights.py`.
"""

import ctypes
import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from tiny_transformer.config import SampleConfig
from tiny_transformer.kv_cache import KVCache
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.multi_head import MultiHeadAttention
from tiny_transformer.native import DOUBLE, FLOAT, INTEGER, POINTER
from tiny_transformer.normalization import LayerNorm, RMSNorm
from tiny_transformer.quantized_layers import QuantizedLinear
from tiny_transformer.roofline import FUSED_ATTENTION
from tiny_transformer.sampling.native_weights import Matrix, PackedBlock, packed_weights, whole_step
from tiny_transformer.sampling.packed import own_parameters
from tiny_transformer.sampling_rules import SMALLEST_TEMPERATURE

MOST_ITEMS = 64
"""More tokens at once than this are work for PyTorch's products."""
FEW = 16_384
"""The largest vocabulary that the C chooses from: its bounds for rounding are for so many numbers."""
ACTIVATIONS = ("relu", "gelu", "gelu_tanh", "relu2", "swiglu")
"""In the order of the C."""
PARTS = ("norms", "q, k, v products", FUSED_ATTENTION, "output projection", "feed-forward up", "feed-forward down")
"""A layer's, as `step_cost.py` calls them. What is done on the way is timed with them: rotation with attention, a norm with what reads it
(but the first one's), sums and activations with the product before."""

Listener = Callable[[str, float], None]
"""Told (part, moment) for each part of a token: the moment it began, on `time.perf_counter`'s clock."""


class _Norm(ctypes.Structure):
    _fields_ = (("weight", POINTER), ("bias", POINTER), ("eps", FLOAT), ("kind", ctypes.c_int32))


class _Block(ctypes.Structure):
    _fields_ = (
        *((name, _Norm) for name in ("norm1", "norm2", "q_norm", "k_norm")),
        *((name, Matrix) for name in ("qkv", "project", "gate", "up", "down")),
        ("keys", POINTER), ("values", POINTER),
    )  # fmt: skip


class _Model(ctypes.Structure):
    _fields_ = (
        *((name, INTEGER) for name in ("rows", "columns", "layers", "d_model", "heads", "kv_heads", "d_head", "ff")),
        *((name, INTEGER) for name in ("window", "vocab", "pre", "activation", "threads")),
        ("token_scale", FLOAT), ("softcap", FLOAT),
        *((name, POINTER) for name in ("token", "position", "cosines", "sines", "slopes")),
        ("norm", _Norm), ("unembed", Matrix), ("blocks", POINTER),
    )  # fmt: skip


class Rule(ctypes.Structure):
    """How the C chooses a token, and the seconds that it has spent on that."""

    _fields_ = (
        ("vocab", INTEGER), ("top_k", INTEGER), ("temperature", FLOAT), ("min_p_log", FLOAT),
        ("top_p", DOUBLE), ("seconds", DOUBLE),
    )  # fmt: skip


def draw_rule(config: SampleConfig, vocab: int) -> Rule | None:
    """The rule for a vocabulary of this size; None for what the C leaves to `strategies.pick`: penalties, and large vocabularies."""
    if config.repetition_penalty != 1 or vocab > FEW:
        return None
    temperature = 0.0 if config.temperature < SMALLEST_TEMPERATURE else config.temperature
    top_p = 0.0 if config.top_p is None or config.top_p == 1 else config.top_p
    min_p_log = -math.inf if config.min_p is None else math.log(config.min_p)
    return Rule(vocab, min(config.top_k or vocab, vocab), temperature, min_p_log, top_p, 0.0)


class NativeStep:
    """ids to logits (n, vocab): one new token for every text of the cache, or several for its only one."""

    def __init__(self, model: TinyTransformerLM, cache: KVCache, c: Any) -> None:
        """Prepare for a model that `native_step` has looked at."""
        self.model, self.cache, self._c, self._run = model, cache, c, c.run
        self._threads = torch.get_num_threads()
        self.listener: Listener | None = None
        self._kept: list[Tensor] = []  # what the C points at
        self._weights = packed_weights(model, c, self._threads)
        self._blocks = (_Block * len(model.blocks))(*map(self._block, range(len(model.blocks)), self._weights.blocks))
        self._struct = self._model()
        self.own_embeddings = not (model.config.ngram_rows or model.config.n_token_types)
        self._pointer = ctypes.addressof(self._struct)
        self._space: dict[int, Tensor] = {}
        self._work, self._logits = torch.empty(3 * model.config.vocab_size), torch.empty(cache.batch_size, self._struct.unembed.outputs)
        self._moments = torch.zeros(len(PARTS) * len(model.blocks) + 2, dtype=torch.float64)

    def __call__(self, ids: Tensor) -> Tensor:
        """(n,) ids to (n, vocab), appended to the cache. n is the cache's rows, or any number up to MOST_ITEMS where it has one.
        The cache must have room for them.

        Raises ValueError for an id outside the vocabulary.
        """
        cache, n = self.cache, ids.numel()
        column, ids = cache.length, ids.contiguous()
        if column + (n if cache.batch_size == 1 else 1) > cache.max_len or (n != cache.batch_size and cache.batch_size != 1):
            raise ValueError(f"{n} tokens for {cache.batch_size} texts behind {column} of {cache.max_len} columns: they do not fit")
        embedded = None if self.own_embeddings else self._embedded(ids)
        logits = torch.empty(n, self._struct.unembed.outputs)
        wrong = self._run(
            self._pointer, n, column, _place(cache.padding), ids.data_ptr(), _place(embedded), logits.data_ptr(),
            self._scratch(n).data_ptr(), None if self.listener is None else self._moments.data_ptr(),
        )  # fmt: skip
        if wrong:
            raise self._no_token(ids)
        for layer in cache.layers:
            layer.length += n if cache.batch_size == 1 else 1
        if self.listener is not None:
            self._tell(self.listener)
        return logits

    def write(self, tokens: Tensor, end: int, rule: Rule, heights: Tensor) -> tuple[int, Tensor | None]:
        """Read the last of the tokens (rows, at least end + count), choose and put down the next, read that, and so on: once for each
        row of `heights` (count, rows), float64, in [0, 1).

        Returns how many have been put down from column `end` on. Where the C leaves the next choice to its caller there are fewer, and
        logits (rows, vocab); the cache then holds the whole text. Raises ValueError for an id outside the vocabulary.
        """
        cache, count, rows = self.cache, len(heights), self.cache.batch_size
        column = cache.length
        if not self.own_embeddings or column + count > cache.max_len or end + count > tokens.size(1) or heights.size(1) != rows:
            raise ValueError(f"{tuple(heights.shape)} heights for {rows} texts behind {column} of {cache.max_len} columns: they do not fit")
        made = self._c.write_on(
            self._pointer, rows, column, _place(cache.padding), tokens.data_ptr() + (end - 1) * tokens.itemsize, tokens.stride(0),
            ctypes.addressof(rule), heights.data_ptr(), count, self._logits.data_ptr(), self._scratch(rows).data_ptr(),
            self._work.data_ptr(),
        )  # fmt: skip
        if made < 0:
            raise self._no_token(tokens[:, end - 1])
        for layer in cache.layers:
            layer.length += min(made + 1, count)
        return made, self._logits.clone() if made < count else None

    def _scratch(self, n: int) -> Tensor:
        if n not in self._space:
            self._space[n] = torch.empty(self._c.scratch(self._pointer, n))
        return self._space[n]

    def _no_token(self, ids: Tensor) -> ValueError:
        return ValueError(f"ids run from {ids.min().item()} to {ids.max().item()}: they must lie in 0 to {self._struct.vocab - 1}")

    def _embedded(self, ids: Tensor) -> Tensor:
        """Vectors that depend on more than a token and its place: (n, d_model)."""
        rows, most = self.cache.batch_size, len(self.model.config.ngram_rows)
        ids = ids.view(rows, -1)
        before = self.cache.remember(ids, most) if most else None
        vectors: Tensor = self.model.embeddings(ids, self.cache.positions(ids.size(1)), before=before)
        return vectors.reshape(-1, vectors.size(-1)).contiguous()

    def _tell(self, listener: Listener) -> None:
        moments = self._moments.tolist()
        for index, moment in enumerate(moments):
            listener("unembed" if index == len(moments) - 2 else "" if index == len(moments) - 1 else PARTS[index % len(PARTS)], moment)

    def _model(self) -> _Model:
        model, config = self.model, self.model.config
        embeddings = model.embeddings
        position = embeddings.position.weight if embeddings.position is not None else getattr(embeddings, "sinusoids", None)
        sinusoidal = config.position == "sinusoidal"
        return _Model(
            self.cache.batch_size, self.cache.max_len, len(model.blocks), config.d_model, config.n_heads, config.kv_heads,
            config.head_width, config.ff_width, config.window or 0, config.vocab_size, config.norm_position == "pre",
            ACTIVATIONS.index(config.activation), self._threads,
            math.sqrt(config.d_model) if sinusoidal else 1.0, config.logit_softcap or 0.0,
            self._at(embeddings.token.weight), self._at(position),
            *(self._at(getattr(model, name, None)) for name in ("cosines", "sines", "slopes")),
            self._norm(model.norm), self._weights.unembed, ctypes.addressof(self._blocks),
        )  # fmt: skip

    def _block(self, layer: int, packed: PackedBlock) -> _Block:
        block = cast(Any, self.model.blocks[layer])
        attention: MultiHeadAttention = block.attention
        cache = self.cache.layers[layer]
        norms = (block.norm1, block.norm2, attention.q_norm, attention.k_norm)
        return _Block(*map(self._norm, norms), *packed, self._at(cache.keys), self._at(cache.values))

    def _norm(self, norm: Any) -> _Norm:
        if not isinstance(norm, LayerNorm | RMSNorm):
            return _Norm()
        bias = norm.bias if isinstance(norm, LayerNorm) else None
        return _Norm(self._at(norm.weight), self._at(bias), norm.eps, 1 if isinstance(norm, LayerNorm) else 2)

    def _at(self, tensor: Tensor | None) -> int | None:
        """Where the numbers lie. They are kept alive; those that do not lie side by side are copied."""
        if tensor is None:
            return None
        self._kept.append(tensor.detach().contiguous())
        return self._kept[-1].data_ptr()


def native_step(model: TinyTransformerLM, cache: KVCache) -> NativeStep | None:
    """The step in C, for a model that `fits`; None where it can't be had."""
    if cache.batch_size > MOST_ITEMS or (c := whole_step()) is None:
        return None
    modules = list(model.modules())
    rounded = [module for module in modules if isinstance(module, QuantizedLinear)]
    float32 = [*own_parameters(modules), *(layer.keys for layer in cache.layers), *(module.scales for module in rounded)]
    table = model.cosines if model.config.position == "rotary" else getattr(model.embeddings, "sinusoids", None)
    known = (
        all(tensor.dtype == torch.float32 and tensor.device.type == "cpu" for tensor in float32)
        and all(module.scales.size(1) == 1 for module in rounded)
        and (table is None or cache.max_len <= len(table))
    )
    return NativeStep(model, cache, c) if known else None


def _place(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


if __name__ == "__main__":
    from tiny_transformer.config import ModelConfig

    model = TinyTransformerLM(ModelConfig(d_model=64, n_layers=2), seed=0).eval()
    ids, (first, second) = torch.randint(65, (1, 12)), (KVCache(model.config, 1) for _ in range(2))
    with torch.inference_mode():
        model(ids[:, :8], cache=first)
        model(ids[:, :8], cache=second)
        step, expected = native_step(model, first), model(ids[:, 8:], cache=second)[0]
        if step is None:
            print("no C compiler here: everything is done in PyTorch")
        else:
            logits = step(ids[0, 8:])
            print("ids (4,) to logits", tuple(logits.shape), "columns in the cache", first.length)
            print(f"they differ from the model's by at most {(logits - expected).abs().max():.1e}")
