"""The whole model, forward and backward: ids in, logits out; a batch in, gradients out. Mirrors `tiny_transformer/model.py`.

Left out: the optimizer, sampling, files. Read before: `embeddings.py`, `transformer_block.py`, `objectives.py`.
"""

import math
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from tiny_transformer.config import ModelConfig
from tiny_transformer.initialization import initial_weight
from tiny_transformer.numpy_engine import attention, embeddings
from tiny_transformer.numpy_engine.embeddings import embed, embed_backward
from tiny_transformer.numpy_engine.feedforward import ACTIVATIONS
from tiny_transformer.numpy_engine.kv_cache import KVCache
from tiny_transformer.numpy_engine.linear import Array, Cache, Gradients, Weights, linear, linear_backward
from tiny_transformer.numpy_engine.normalization import norm, norm_backward
from tiny_transformer.numpy_engine.objectives import cross_entropy, cross_entropy_backward, soft_cross_entropy, soft_cross_entropy_backward
from tiny_transformer.numpy_engine.transformer_block import dropout as drop
from tiny_transformer.numpy_engine.transformer_block import dropout_backward as drop_backward
from tiny_transformer.numpy_engine.transformer_block import transformer_block, transformer_block_backward
from tiny_transformer.training.dataset import Batch
from tiny_transformer.training.objectives import Expected

Dropout = Mapping[str, Array] | Callable[[str], Array | None]
"""Where to find a dropout mask by its place: "embeddings", "blocks.0.attention", "blocks.0.feedforward", "blocks.1.attention", …

Each is boolean, (batch, seq, d_model), True = stays. A place without one drops nothing.
"""


def weight_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every weight's public name and shape, in the order of the PyTorch model (docs/ARCHITECTURE.md, "Weight names")."""
    d, q, kv, ff = config.d_model, config.n_heads * config.head_width, config.kv_heads * config.head_width, config.ff_width
    shapes: dict[str, tuple[int, ...]] = {"embeddings.token.weight": (config.vocab_size, d)}

    def add(name: str, *shape: int, bias: bool) -> None:
        shapes[f"{name}.weight"] = shape
        if bias:
            shapes[f"{name}.bias"] = shape[:1]

    all_biases, qkv_bias, norm_bias = config.bias == "all", config.bias != "none", config.norm == "layer" and config.bias == "all"
    if config.position == "learned":
        add("embeddings.position", config.max_seq_len, d, bias=False)
    for order, rows in enumerate(config.ngram_rows, start=2):
        add(f"embeddings.ngram{order}", rows, d, bias=False)
    if config.n_token_types:
        add("embeddings.token_type", config.n_token_types, d, bias=False)
        add("embeddings.norm", d, bias=norm_bias)
    for block in (f"blocks.{index}" for index in range(config.n_layers)):
        add(f"{block}.norm1", d, bias=norm_bias)
        add(f"{block}.attention.W_query", q, d, bias=qkv_bias)
        add(f"{block}.attention.W_key", kv, d, bias=qkv_bias)
        add(f"{block}.attention.W_value", kv, d, bias=qkv_bias)
        add(f"{block}.attention.out_proj", d, q, bias=all_biases)
        if config.qk_norm:
            add(f"{block}.attention.q_norm", config.head_width, bias=False)
            add(f"{block}.attention.k_norm", config.head_width, bias=False)
        add(f"{block}.norm2", d, bias=norm_bias)
        add(f"{block}.feedforward.up", ff, d, bias=all_biases)
        if config.activation == "swiglu":
            add(f"{block}.feedforward.gate", ff, d, bias=all_biases)
        add(f"{block}.feedforward.down", d, ff, bias=all_biases)
    if config.norm_position == "pre":
        add("norm", d, bias=norm_bias)
    if not config.tie_weights:
        add("unembed", config.vocab_size, d, bias=False)
    if config.output_head:
        if all_biases:
            shapes["unembed.bias"] = (config.vocab_size,)
        add("unembed.dense", d, d, bias=all_biases)
        add("unembed.norm", d, bias=norm_bias)
    return shapes


def init_weights(config: ModelConfig, seed: int) -> dict[str, Array]:
    """The first weights (float32) by the table of `initialization.py`: bit for bit the PyTorch model's for the same seed."""
    return {name: initial_weight(name, shape, config, seed) for name, shape in weight_shapes(config).items()}


def unembed(hidden: Array, w: Weights, config: ModelConfig) -> tuple[Array, Cache]:
    """hidden (…, d_model) to logits (…, vocab): one matrix, its own or the token embedding's, and the soft-cap.

    BERT's kind (`config.output_head`) has more: logits = norm(activation(dense(hidden))) Wᵀ + bias.
    Kept: hidden, with a soft-cap its tanh, and what the head keeps.
    """
    head_cache = None
    if config.output_head:
        hidden, head_cache = output_head(hidden, w, config)
    matrix, bias = w["embeddings.token.weight" if config.tie_weights else "unembed.weight"], w.get("unembed.bias")
    own = {"unembed.weight": matrix} if bias is None else {"unembed.weight": matrix, "unembed.bias": bias}
    logits, linear_cache = linear(hidden, own, "unembed")
    if config.logit_softcap is None:
        return logits, (linear_cache, None, head_cache, config.tie_weights)
    cap = config.logit_softcap
    bent = np.tanh(logits / cap)
    return cap * bent, (linear_cache, bent, head_cache, config.tie_weights)  # Gemma 2: linear near 0, never beyond the cap


def unembed_backward(dlogits: Array, cache: Cache) -> tuple[Array, Gradients]:
    """dlogits (…, vocab) to dhidden (…, d_model) and the gradients; the matrix's is under the name it was read by."""
    linear_cache, bent, head_cache, tied = cache
    if bent is not None:
        # y = c tanh(z / c): ∂y/∂z = c (1 - tanh²(z / c)) / c
        dlogits = dlogits * (1 - bent * bent)
    dhidden, gradients = linear_backward(dlogits, linear_cache)
    if tied:
        gradients["embeddings.token.weight"] = gradients.pop("unembed.weight")
    if head_cache is None:
        return dhidden, gradients
    dhidden, of_head = output_head_backward(dhidden, head_cache)
    return dhidden, gradients | of_head


def output_head(hidden: Array, w: Weights, config: ModelConfig) -> tuple[Array, Cache]:
    """What BERT's kind does before the output matrix: norm(activation(dense(hidden))). (…, d_model) to the same. Kept: each part's."""
    activation, _ = ACTIVATIONS[config.activation]
    dense, dense_cache = linear(hidden, w, "unembed.dense")
    bent, bent_cache = activation(dense)
    y, norm_cache = norm(bent, w, "unembed.norm", config)
    return y, (config.activation, dense_cache, bent_cache, norm_cache)


def output_head_backward(dy: Array, cache: Cache) -> tuple[Array, Gradients]:
    """dy (…, d_model) to dhidden (…, d_model) and the gradients of the dense layer and the norm."""
    kind, dense_cache, bent_cache, norm_cache = cache
    _, activation_backward = ACTIVATIONS[kind]
    dbent, of_norm = norm_backward(dy, norm_cache)
    dhidden, of_dense = linear_backward(activation_backward(dbent, bent_cache), dense_cache)
    return dhidden, of_norm | of_dense


class TinyTransformerLM:
    """A transformer language model: logits = unembed(norm(block_n(… block_1(embed(ids)))))."""

    def __init__(self, config: ModelConfig, weights: Weights) -> None:
        """Make the model with a copy of `weights`, all float32 or all float64: the arithmetic is done in their type."""
        self.config = config
        self._weights: dict[str, Array] = {}
        self.load_weights(weights)

    def weights(self) -> dict[str, Array]:
        """Every weight once, by its public name; a tied output is not repeated. The model's own arrays: change them in place."""
        return self._weights

    def load_weights(self, weights: Weights) -> None:
        """Copy `weights` in, strictly. Raises ValueError with all missing, unexpected and misshapen names at once."""
        shapes = weight_shapes(self.config)
        problems = [f"missing {name} {shape}" for name, shape in shapes.items() if name not in weights]
        problems += [f"unexpected {name} {weights[name].shape}" for name in weights if name not in shapes]
        problems += [
            f"{name} has shape {weights[name].shape}, must be {shape}"
            for name, shape in shapes.items()
            if name in weights and weights[name].shape != shape
        ]
        if problems:
            raise ValueError(f"the weights do not fit the config ({len(problems)} differences): " + "; ".join(problems))
        kinds = {weights[name].dtype for name in shapes}
        if len(kinds) > 1 or kinds.pop() not in (np.float32, np.float64):
            found = ", ".join(sorted({str(weights[name].dtype) for name in shapes}))
            raise ValueError(f"the weights have dtype {found}: all must be float32, or all float64. Convert them with .astype(np.float32)")
        self._weights = {name: np.array(weights[name], order="C") for name in shapes}

    def forward(
        self,
        ids: Array,
        mask: Array | None = None,
        *,
        cache: KVCache | None = None,
        token_types: Array | None = None,
        dropout: Dropout | None = None,
    ) -> Array:
        """ids (batch, seq) to logits (batch, seq, vocab). The other arguments are `hidden`'s."""
        return self.unembed(self.hidden(ids, mask, cache=cache, token_types=token_types, dropout=dropout))

    def unembed(self, hidden: Array) -> Array:
        """hidden (…, d_model) to logits (…, vocab)."""
        return unembed(hidden, self._weights, self.config)[0]

    def hidden(
        self,
        ids: Array,
        mask: Array | None = None,
        *,
        cache: KVCache | None = None,
        token_types: Array | None = None,
        dropout: Dropout | None = None,
    ) -> Array:
        """The residual stream after the last norm: (batch, seq, d_model).

        `mask` is boolean, True = may look, (seq, seq) or (batch, seq, seq), and can only hide more than the config does.
        `cache` holds earlier positions: pass only the new ids, and the same cache again.
        `dropout` gives the masks of what stays; without it nothing is dropped.
        Raises ValueError for ids of another shape, outside the vocabulary, or too many for learned positions.
        """
        return self._hidden(ids, mask, token_types, dropout, cache, keep_caches=False)[0]

    def loss_and_gradients(
        self,
        batch: Batch,
        mask: Array | None = None,
        *,
        token_types: Array | None = None,
        dropout: Dropout | None = None,
        reduction: Literal["mean", "sum"] = "mean",
        expected: Expected | None = None,
    ) -> tuple[float, Gradients]:
        """The cross-entropy of a batch, in nats, and its gradient with respect to every weight, by name.

        With `expected`, targets are partly those probabilities.

        The model first runs forward, and each part keeps what its backward pass needs; then the gradient of the loss runs
        through the parts from the last to the first. Over several micro-batches take sums and divide once.
        """
        hidden, caches = self._hidden(batch.inputs, mask, token_types, dropout, None, keep_caches=True)
        logits, unembed_cache = unembed(hidden, self._weights, self.config)
        if expected is None:
            loss, loss_cache = cross_entropy(logits, batch.targets, reduction)
            dlogits = cross_entropy_backward(loss_cache)
        else:
            loss, loss_cache = soft_cross_entropy(logits, batch.targets, *expected, reduction)
            dlogits = soft_cross_entropy_backward(loss_cache)
        dhidden, gradients = unembed_backward(dlogits, unembed_cache)
        for name, gradient in self._hidden_backward(dhidden, caches).items():
            # A tied matrix is read twice, by the first step and the last. Whatever is used twice gets the sum of both gradients.
            gradients[name] = gradients[name] + gradient if name in gradients else gradient
        return loss, {name: gradients[name] for name in self._weights}

    def _hidden(
        self,
        ids: Array,
        mask: Array | None,
        token_types: Array | None,
        dropout: Dropout | None,
        seen: KVCache | None,
        *,
        keep_caches: bool,
    ) -> tuple[Array, list[Cache]]:
        """The residual stream after the last norm, and what to keep: of the embeddings, of every block, of the norm."""
        start = 0 if seen is None else seen.length
        self._check_ids(ids, start)
        config, w, find = self.config, self._weights, _finder(dropout)
        seq = ids.shape[1]
        positions = np.arange(seq) if seen is None else seen.positions(seq)
        if seen is not None:
            if len(ids) != seen.batch_size:
                raise ValueError(f"ids have {len(ids)} rows and the cache {seen.batch_size}: they must agree. Make a new cache")
            mask = attention.join_masks(seen.mask(seq), mask)
        bias, rotation = self._score_bias(seq, start + seq), self._rotation(positions)
        before = None
        if seen is not None and config.ngram_rows:
            before = seen.remember(ids, len(config.ngram_rows))
        x, cache = embed(ids, positions, w, config, token_types, before)
        keep = find("embeddings")
        x = drop(x, keep, config.dropout)
        caches: list[Cache] = [(cache, keep)]
        for index in range(config.n_layers):
            name = f"blocks.{index}"
            keeps = find(f"{name}.attention"), find(f"{name}.feedforward")
            layer = None if seen is None else seen.layers[index]
            x, cache = transformer_block(x, w, name, config, mask, bias=bias, rotation=rotation, keep=keeps, cache=layer)
            if keep_caches:
                caches.append(cache)
        if config.norm_position == "pre":
            x, cache = norm(x, w, "norm", config)
            caches.append(cache)
        return x, caches

    def _hidden_backward(self, dx: Array, caches: list[Cache]) -> Gradients:
        """`_hidden` from its end to its beginning. Caches are dropped as they are used, so the memory is given back."""
        gradients: Gradients = {}
        if self.config.norm_position == "pre":
            dx, gradients = norm_backward(dx, caches.pop())
        while len(caches) > 1:
            dx, of_block = transformer_block_backward(dx, caches.pop())
            gradients |= of_block
        cache, keep = caches.pop()
        return gradients | embed_backward(drop_backward(dx, keep, self.config.dropout), cache)

    def _check_ids(self, ids: Array, start: int) -> None:
        if ids.ndim != 2:
            raise ValueError(f"ids have shape {ids.shape}: they must be (batch, seq). Add the batch dimension with ids[None]")
        end, limit, size = start + ids.shape[1], self.config.max_seq_len, self.config.vocab_size
        if self.config.position in ("learned", "sinusoidal") and end > limit:
            raise ValueError(
                f"{end} tokens: the model has {self.config.position} positions for max_seq_len={limit}. "
                f"Pass the last {limit} tokens"
            )
        if ids.size and not (ids.min() >= 0 and ids.max() < size):  # NumPy would count a negative id from the table's end
            raise ValueError(
                f"ids run from {ids.min()} to {ids.max()}: they must lie in 0 to {size - 1} (vocab_size={size}). "
                "Was another tokenizer used?"
            )

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """float32 or float64: the weights' type, and so that of all arithmetic."""
        return self._weights["embeddings.token.weight"].dtype

    def _score_bias(self, query_len: int, key_len: int) -> Array | None:
        if self.config.position != "alibi":
            return None
        return embeddings.alibi_bias(embeddings.alibi_slopes(self.config.n_heads, self.dtype), query_len, key_len)

    def _rotation(self, positions: Array) -> tuple[Array, Array] | None:
        if self.config.position != "rotary":
            return None
        config = self.config
        frequencies = embeddings.rotary_frequencies(config.head_width, config.rope_theta, config.rope_scaling)
        return embeddings.rotation(positions, frequencies, self.dtype)


def _finder(dropout: Dropout | None) -> Callable[[str], Array | None]:
    if dropout is None:
        return lambda name: None
    return dropout if callable(dropout) else dropout.get


if __name__ == "__main__":
    generator = np.random.default_rng(0)
    config = ModelConfig(d_model=64, n_layers=2)
    model = TinyTransformerLM(config, init_weights(config, seed=0))
    ids = generator.integers(config.vocab_size, size=(2, 17))
    print("ids", ids.shape, "hidden", model.hidden(ids).shape, "logits", model.forward(ids).shape)
    loss, gradients = model.loss_and_gradients(Batch(ids[:, :-1], ids[:, 1:]))
    print(f"{config.n_parameters:,} parameters, first loss {loss:.3f}, ln(vocab_size) {math.log(config.vocab_size):.3f}")
    for step in range(3):
        for name, gradient in gradients.items():
            model.weights()[name] -= 0.2 * gradient
        loss, gradients = model.loss_and_gradients(Batch(ids[:, :-1], ids[:, 1:]))
        print(f"after {step + 1} steps downhill: loss {loss:.3f}")
