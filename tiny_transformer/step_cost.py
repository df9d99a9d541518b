"""What a step costs, counted: operations and bytes of each part, forward, backward and update. Arithmetic on a config, nothing is run.

    products   2 for each multiply-add of a matrix product: what a processor's peak is quoted for
    others     everything else, one per number and operation; exp, erf, tanh and a square root count as one
    bytes      what a part must move at least: each of its inputs, weights and outputs once; what lies between stays in cache

Leaves out: time (`roofline.py` sets costs beside measured times), and the activation's and loss's memory (`hardware.py`).
Read before: `config.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Self

from tiny_transformer.config import ModelConfig, OptimizerName

Phase = Literal["forward", "backward", "update"]
ATTENTION = ("attention scores", "softmax", "attention values")
"""The parts that a fused kernel does in one."""
PARTS = (
    "embeddings", "norms", "q, k, v products", "q, k norms", "rotary", "heads", *ATTENTION, "output projection", "residual adds",
    "feed-forward up", "activation", "feed-forward down", "dropout", "unembed", "loss", "clipping", "optimizer", "sampling",
)  # fmt: skip
"""All parts that have a cost, in the order of a step."""
MASTER = 4
"""Bytes of a weight, a gradient and a number of the optimizer's state: float32, whatever the forward pass computes in."""
ACTIVATIONS = {"relu": (1, 1), "relu2": (2, 3), "gelu": (5, 11), "gelu_tanh": (9, 18), "swiglu": (5, 12)}
"""Operations for each number, forward and backward. gelu: x/√2, erf, +1, ·x, ·½; swiglu: -, exp, +1, /, and the product with `up`."""
NORMS = {"layer": (7, 13), "rms": (4, 9)}
"""The same. rms: square, sum, scale, gain; layer also: mean, centre, shift."""
NEWTON_SCHULZ_STEPS = 5


@dataclass(frozen=True)
class Work:
    """Operations and bytes."""

    products: int = 0
    others: int = 0
    bytes: int = 0

    @property
    def flop(self) -> int:
        """All operations."""
        return self.products + self.others

    def __add__(self, other: "Work") -> "Work":
        return Work(self.products + other.products, self.others + other.others, self.bytes + other.bytes)

    def __mul__(self, times: int) -> "Work":
        return Work(self.products * times, self.others * times, self.bytes * times)


Costs = dict[tuple[str, Phase], Work]
"""(part, phase) → its work."""
Both = tuple[Work, Work]
"""Forward and backward."""


@dataclass(frozen=True)
class Pass:
    """One way through the network: `queries` new positions of each row look at `keys` positions, themselves the last of them."""

    config: ModelConfig
    rows: int
    queries: int
    keys: int
    outputs: int
    """How many positions of a row are turned into logits."""
    value: int = 4
    """Bytes of an activation: 4, or 2 in bfloat16."""
    weight: int = MASTER
    """Bytes of a weight as it is read."""
    fused: bool = True
    """Attention in one kernel: the scores stay in cache, and the backward pass computes them again."""
    all_pairs: bool = False
    """Count the scores that the mask hides too."""

    @classmethod
    def training(cls, config: ModelConfig, rows: int, seq_len: int | None = None, **more: Any) -> Self:
        """Every position of every row is new, and asked."""
        seq = config.max_seq_len if seq_len is None else seq_len
        return cls(config, rows, seq, seq, seq, **more)

    @property
    def tokens(self) -> int:
        """New positions in all rows."""
        return self.rows * self.queries

    @property
    def query_width(self) -> int:
        """Numbers of a position's queries, all heads."""
        return self.config.n_heads * self.config.head_width

    @property
    def key_width(self) -> int:
        """Numbers of a position's keys; as many values."""
        return self.config.kv_heads * self.config.head_width

    @property
    def pairs(self) -> int:
        """(query, key) pairs of all rows and heads."""
        c = self.config
        one = self.queries * self.keys if self.all_pairs else visible_pairs(self.queries, self.keys, causal=c.causal, window=c.window)
        return self.rows * c.n_heads * one


def visible_pairs(queries: int, keys: int, *, causal: bool, window: int | None = None) -> int:
    """How many (query, key) pairs the mask leaves, for the last `queries` of `keys` positions.

    >>> visible_pairs(4, 4, causal=True), visible_pairs(1, 9, causal=True), visible_pairs(4, 4, causal=True, window=2)
    (10, 9, 7)
    """
    reach = keys if window is None else window
    places = range(keys - queries, keys)
    return sum((place if causal else min(keys - 1, place + reach - 1)) - max(0, place - reach + 1) + 1 for place in places)


# ---------------------------------------------------------------- the answers


def step_cost(
    config: ModelConfig,
    batch_size: int,
    seq_len: int | None = None,
    *,
    optimizer: OptimizerName = "adamw",
    accumulate: int = 1,
    clip: bool = True,
    value: int = 4,
    fused: bool = True,
    all_pairs: bool = False,
) -> Costs:
    """Every part of one training step: `batch_size` rows in `accumulate` micro-batches of nearly equal size."""
    costs: Costs = {}
    for index in range(accumulate):
        rows = batch_size // accumulate + (index < batch_size % accumulate)
        micro = Pass.training(config, rows, seq_len, value=value, fused=fused, all_pairs=all_pairs)
        for part, (forward, backward) in _both_ways(micro):
            _add(costs, part, "forward", forward)
            _add(costs, part, "backward", backward)
    _add(costs, "clipping", "update", _clipping(config) if clip else Work())
    _add(costs, "optimizer", "update", _optimizer(config, optimizer))
    return costs


def token_cost(config: ModelConfig, rows: int, length: int, *, value: int = 4, weight: int = 4) -> Costs:
    """Writing one more token in each row with a KV cache: the new one is the `length`-th that the model sees."""
    one = Pass(config, rows, queries=1, keys=length, outputs=1, value=value, weight=weight)
    costs: Costs = {}
    for part, (forward, _) in _both_ways(one):
        if part not in ("loss", "dropout"):
            _add(costs, part, "forward", forward)
    _add(costs, "sampling", "forward", Work(0, 5 * rows * config.vocab_size, rows * (config.vocab_size * value + 8)))
    return costs


def step_flop(config: ModelConfig, batch_size: int, seq_len: int | None = None) -> int:
    """The products of a training step, forward and backward, by the field's usual count (Chowdhery et al. 2022, "PaLM", appendix B):
    with the scores that the mask hides, without what a kernel computes twice, without the update.

    It is 6 · matrix weights · tokens (Kaplan et al. 2020, section 2.1) + 12 · layers · width of the heads · seq · tokens.

    >>> from tiny_transformer.config import PRESETS
    >>> f"{step_flop(PRESETS['baby-gpt'], 64) / 1e12:.2f} TFLOP"
    '1.16 TFLOP'
    """
    return total(step_cost(config, batch_size, seq_len, fused=False, all_pairs=True)).products  # AdamW has none


def total(costs: Costs) -> Work:
    """The sum of all parts."""
    return sum(costs.values(), Work())


def _add(costs: Costs, part: str, phase: Phase, work: Work) -> None:
    if work != Work():
        costs[part, phase] = costs.get((part, phase), Work()) + work


# ---------------------------------------------------------------- forward and backward


def _both_ways(p: Pass) -> Iterator[tuple[str, Both]]:
    c, d, n = p.config, p.config.d_model, p.tokens
    layers, q, kv, ff = c.n_layers, p.query_width, p.key_width, c.ff_width
    gates = 1 + (c.activation == "swiglu")
    yield "embeddings", _embeddings(p)
    yield "norms", _norms(p)
    yield "q, k, v products", _times(_linear(p, d, q + 2 * kv, bias=c.bias != "none", branches=3, summed=c.norm_position == "post"), layers)
    yield "q, k norms", _times(_norm(p, n * (q + kv), "rms", 2 * c.head_width), layers * c.qk_norm)
    yield "rotary", _times(_rotary(p), layers * (c.position == "rotary"))
    yield "heads", _times(_heads(p), layers)
    for part, both in zip(ATTENTION, _attention(p), strict=True):
        yield part, _times(both, layers)
    yield "output projection", _times(_linear(p, q, d, bias=c.bias == "all"), layers)
    yield "residual adds", _times(_residual(p), 2 * layers)
    post = c.norm_position == "post"
    yield "feed-forward up", _times(_linear(p, d, gates * ff, bias=c.bias == "all", branches=gates, summed=post), layers)
    yield "activation", _times(_activation(p), layers)
    yield "feed-forward down", _times(_linear(p, ff, d, bias=c.bias == "all"), layers)
    yield "dropout", _times(_dropout(p), (2 * layers + 1) * bool(c.dropout))
    yield "unembed", _unembed(p)
    yield "loss", _loss(p)


def _times(both: Both, times: int) -> Both:
    return both[0] * times, both[1] * times


def _linear(p: Pass, width_in: int, width_out: int, *, bias: bool, branches: int = 1, summed: bool = False) -> Both:
    """(n, in) to (n, out), the outputs of `branches` matrices beside each other; their input's gradients are added up.

    Forward X Wᵀ; backward dX = dY W and dW = dYᵀ X: twice as much. `summed`: the residual stream's own gradient is added too.
    """
    n, weights, biases = p.tokens, width_in * width_out, width_out * bias
    product = 2 * n * weights
    forward = Work(product, n * biases, n * (width_in + width_out) * p.value + (weights + biases) * p.weight)
    moved = n * (width_out + 2 * width_in) * p.value + weights * p.weight + (weights + biases) * MASTER  # reads dY, X, W; writes dX, dW, db
    return forward, Work(2 * product, n * biases + (branches - 1) * n * width_in, moved) + _sum_of_two(p, summed)


def _sum_of_two(p: Pass, there: bool) -> Work:
    """A gradient of the residual stream that came by two ways: read both, write their sum."""
    size = p.tokens * p.config.d_model * there
    return Work(0, size, 3 * size * p.value)


def _embeddings(p: Pass) -> Both:
    c, size = p.config, p.tokens * p.config.d_model
    tables = c.vocab_size * c.d_model
    more = p.queries * c.d_model * (c.position in ("learned", "sinusoidal")) + c.n_token_types * c.d_model
    ngrams = len(c.ngram_rows)  # one row read and added for each table, as for the token itself
    adds = (c.position == "learned") + 2 * (c.position == "sinusoidal") + (c.n_token_types > 0) + ngrams
    forward = Work(0, adds * size, 8 * p.tokens + (1 + ngrams) * size * p.weight + more * p.weight + size * p.value)
    learned = tables + c.max_seq_len * c.d_model * (c.position == "learned") + (c.n_token_types + sum(c.ngram_rows)) * c.d_model
    backward = Work(0, adds * size, 8 * p.tokens + size * p.value + learned * MASTER)
    tied = Work(0, tables, 3 * tables * MASTER) if c.tie_weights else Work()  # the output layer's gradient is added
    return forward, backward + tied


def _norm(p: Pass, size: int, kind: str, gains: int, biases: int = 0) -> Both:
    there, back = NORMS[kind]
    forward = Work(0, there * size, 2 * size * p.value + (gains + biases) * p.weight)
    return forward, Work(0, back * size, 3 * size * p.value + gains * p.weight + (gains + biases) * MASTER)  # reads x, dy, writes dx


def _norms(p: Pass) -> Both:
    """All norms over d_model. Pre-norm: a block's input gradient comes through the norm and past it, and is added up here."""
    c, size = p.config, p.tokens * p.config.d_model
    pre = c.norm_position == "pre"
    one = _norm(p, size, c.norm, c.d_model, c.d_model * (c.norm == "layer" and c.bias == "all"))
    forward, backward = _times(one, 2 * c.n_layers + (c.n_token_types > 0) + pre)
    return forward, backward + _sum_of_two(p, pre) * (2 * c.n_layers)


def _rotary(p: Pass) -> Both:
    """x cos - y sin, x sin + y cos for each pair: six operations for two numbers, the same backward with -sin."""
    size = p.tokens * (p.query_width + p.key_width)
    work = Work(0, 3 * size, 2 * size * p.value + p.queries * p.config.head_width * 4)
    return work, work


def _heads(p: Pass) -> Both:
    """Copies, no operations: the heads merged, keys and values written to the cache, repeated for the heads that share them."""
    c, n = p.config, p.tokens
    merged = 2 * n * p.query_width if p.queries > 1 else 0  # a single position lies right already
    cached = 4 * n * p.key_width if p.queries < p.keys else 0
    shared = 2 * p.rows * p.keys * (p.query_width + p.key_width) if c.kv_heads < c.n_heads else 0
    return Work(bytes=(merged + cached + shared) * p.value), Work(others=shared // 2, bytes=shared * p.value)


def _attention(p: Pass) -> tuple[Both, Both, Both]:
    """Scores Q Kᵀ, their softmax, and weights · V. The readable way writes and reads a square of scores for each head in between."""
    c, n, pairs, kept = p.config, p.tokens, p.pairs, p.rows * p.keys * p.key_width
    square = 0 if p.fused else p.rows * c.n_heads * p.queries * p.keys
    alibi = (c.position == "alibi") * c.n_heads * p.queries * p.keys
    query, product = n * p.query_width, 2 * pairs * c.head_width
    again = product if p.fused else 0  # Dao et al. 2022, algorithm 4: recomputed rather than stored
    scores = (
        Work(product, pairs, (query + kept + square) * p.value),
        Work(2 * product + again, pairs, (2 * query + 2 * kept + square) * p.value),
    )
    softmax = (
        Work(0, 5 * pairs + pairs * bool(alibi), 2 * square * p.value + alibi * 4),
        Work(0, (4 + 3 * p.fused) * pairs, 3 * square * p.value + alibi * 4 * p.fused),
    )
    values = (
        Work(product, 0, (kept + query + square) * p.value),
        Work(2 * product, 0, ((1 + p.fused) * query + 2 * kept + 2 * square) * p.value),
    )
    return scores, softmax, values


def _residual(p: Pass) -> Both:
    """A sum, which passes its gradient on as it is."""
    size = p.tokens * p.config.d_model
    return Work(0, size, 3 * size * p.value), Work()


def _dropout(p: Pass) -> Both:
    """A random number compared and a product for each number, and a mask of one byte. Drawing the random numbers is not counted."""
    size = p.tokens * p.config.d_model
    work = Work(0, 2 * size, size * (2 * p.value + 1))
    return work, work


def _activation(p: Pass) -> Both:
    size, inputs = p.tokens * p.config.ff_width, 1 + (p.config.activation == "swiglu")
    there, back = ACTIVATIONS[p.config.activation]
    return Work(0, there * size, (inputs + 1) * size * p.value), Work(0, back * size, (2 * inputs + 1) * size * p.value)


def _unembed(p: Pass) -> Both:
    c, n = p.config, p.rows * p.outputs
    capped = 3 * n * c.vocab_size * (c.logit_softcap is not None)
    asked = Pass(c, p.rows, p.outputs, p.keys, p.outputs, p.value, p.weight)
    parts = [_linear(asked, c.d_model, c.vocab_size, bias=c.output_head and c.bias == "all")]
    if c.output_head:  # BERT's: a dense layer, the activation and a norm before
        one, other = ACTIVATIONS[c.activation]
        size, biases = n * c.d_model, c.d_model * (c.norm == "layer" and c.bias == "all")
        parts += [_linear(asked, c.d_model, c.d_model, bias=c.bias == "all"), _norm(asked, size, c.norm, c.d_model, biases)]
        parts += [(Work(0, one * size, 2 * size * p.value), Work(0, other * size, 3 * size * p.value))]
    there, back = (sum(works, Work(others=capped)) for works in zip(*parts, strict=True))
    return there, back


def _loss(p: Pass) -> Both:
    """Largest, difference, exp, sum over each position's logits; backward (softmax - one hot) / targets."""
    size, targets = p.rows * p.outputs * p.config.vocab_size, 8 * p.rows * p.outputs
    return Work(0, 4 * size, size * p.value + targets), Work(0, 3 * size, 2 * size * p.value + targets)


# ---------------------------------------------------------------- update


def _clipping(config: ModelConfig) -> Work:
    """The norm: every gradient read once. (Where it is too large, each is scaled: read and written once more.)"""
    return Work(0, 2 * config.n_parameters, MASTER * config.n_parameters)


def _optimizer(config: ModelConfig, name: OptimizerName) -> Work:
    """AdamW reads weight, gradient and two moments and writes three of them back; Muon one moment, and its products."""
    matrices = hidden_matrices(config) if name == "muon" else []
    hidden = sum(rows * columns for rows, columns in matrices)
    rest = config.n_parameters - hidden
    products = sum(newton_schulz_flop(*matrix) for matrix in matrices)
    return Work(products, 15 * rest + 9 * hidden, MASTER * (7 * rest + 5 * hidden))


def hidden_matrices(config: ModelConfig) -> list[tuple[int, int]]:
    """(rows, columns) of every matrix inside the blocks: what Muon updates."""
    d, ff, q, kv = config.d_model, config.ff_width, config.n_heads * config.head_width, config.kv_heads * config.head_width
    ups = 1 + (config.activation == "swiglu")
    return [(q, d), (kv, d), (kv, d), (d, q), *[(ff, d)] * ups, (d, ff)] * config.n_layers


def newton_schulz_flop(rows: int, columns: int) -> int:
    """Five times X Xᵀ, its square, and the product with X, the smaller side first (`training/muon.py`)."""
    r, c = min(rows, columns), max(rows, columns)
    return NEWTON_SCHULZ_STEPS * (4 * r * r * c + 2 * r**3)


if __name__ == "__main__":
    from tiny_transformer.config import PRESETS

    lab = PRESETS["baby-gpt"]
    costs = step_cost(lab, 64)
    print(f"the lab's model, 64 rows of {lab.max_seq_len}: {'':8} forward            backward or update")
    for part in PARTS:
        works = [costs.get((part, "forward")), costs.get((part, "backward")) or costs.get((part, "update"))]
        cells = [f"{work.flop / 1e9:8.2f} GFLOP {work.bytes / 1e6:8.1f} MB" if work else " " * 26 for work in works]
        print(f"  {part:20}", *cells)
    print(f"usual count {step_flop(lab, 64) / 1e12:.3f} TFLOP; 6 N D = {6 * lab.n_parameters * 64 * 256 / 1e12:.3f} TFLOP")
