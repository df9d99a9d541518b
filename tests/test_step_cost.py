"""The counted cost of a step: products against PyTorch's own counter, bytes against the tensors that really move, operations against
formulas run on numbers that count what is done to them."""

import ast
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from tests.options import OPTIONS, small_config
from tiny_transformer import attention, step_cost
from tiny_transformer.config import PRESETS, ModelConfig
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.step_cost import Costs, Pass, Work, token_cost, total, visible_pairs
from tiny_transformer.step_cost import step_cost as cost_of_step
from tiny_transformer.training import muon
from tiny_transformer.training.objectives import cross_entropy
from tiny_transformer.utils.reference import reference_path

ROWS, SEQ = 3, 7
MORE = {
    "gated wide": {"activation": "swiglu", "d_head": 10, "n_kv_heads": 2, "qk_norm": True, "position": "rotary", "window": 3},
    "not causal": {"causal": False},
    "not causal window": {"causal": False, "window": 3},
}
ALL = {**OPTIONS, **MORE}


def config_of(option: str, **more) -> ModelConfig:
    return replace(small_config(), **{**ALL[option], **more})


def products(costs: Costs, phase: str) -> int:
    return sum(work.products for (_, found), work in costs.items() if found == phase)


def counted(config: ModelConfig, *, reference: bool) -> tuple[int, int]:
    """What PyTorch's counter finds, forward and backward."""

    def forward(query, key, value, *args, out_shape=None, **more):
        return sdpa_flop_count(query, key, value)

    def backward(gradient, query, key, value, *args, out_shape=None, **more):
        return sdpa_backward_flop_count(gradient, query, key, value)

    aten = torch.ops.aten
    kernels = {
        aten._scaled_dot_product_flash_attention_for_cpu: forward,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,
    }
    model, ids = TinyTransformerLM(config, seed=0), torch.randint(config.vocab_size, (ROWS, SEQ))
    found = []
    with reference_path() if reference else torch.enable_grad():
        with FlopCounterMode(display=False, custom_mapping=kernels) as counter:
            loss = cross_entropy(model(ids), ids)
        found.append(counter.get_total_flops())
        with FlopCounterMode(display=False, custom_mapping=kernels) as counter:
            loss.backward()
        return found[0], counter.get_total_flops()


@pytest.mark.parametrize("option", ALL)
def test_products_of_the_readable_path_are_exact(option):
    config = config_of(option)
    costs = cost_of_step(config, ROWS, SEQ, fused=False, all_pairs=True)
    assert (products(costs, "forward"), products(costs, "backward")) == counted(config, reference=True)


@pytest.mark.parametrize("option", ["gpt2", "modern", "grouped", "gated wide", "untied", "not causal"])
def test_products_of_the_fused_path_are_exact(option):
    """The fused kernel computes the scores again in the backward pass; the counter knows that too."""
    config = config_of(option)
    costs = cost_of_step(config, ROWS, SEQ, fused=True, all_pairs=True)
    assert (products(costs, "forward"), products(costs, "backward")) == counted(config, reference=False)


def test_each_part_has_its_own_products():
    config = config_of("gated wide")
    model, ids = TinyTransformerLM(config, seed=0), torch.randint(config.vocab_size, (ROWS, SEQ))
    with FlopCounterMode(display=False, depth=9) as counter, reference_path():
        model(ids)
    modules = {name: sum(kinds.values()) for name, kinds in counter.get_flop_counts().items()}

    def of(*ends):
        return sum(flop for name, flop in modules.items() if name.endswith(ends))

    costs = cost_of_step(config, ROWS, SEQ, fused=False, all_pairs=True)
    expected = {
        "q, k, v products": of(".W_query", ".W_key", ".W_value"), "output projection": of(".out_proj"),
        "feed-forward up": of(".up", ".gate"), "feed-forward down": of(".down"),
        "unembed": 2 * ROWS * SEQ * config.d_model * config.vocab_size,
    }  # fmt: skip
    inside = of(".attention") - of(".W_query", ".W_key", ".W_value", ".out_proj")
    expected |= {"attention scores": inside // 2, "attention values": inside // 2}
    assert {part: work.products for (part, phase), work in costs.items() if phase == "forward" and work.products} == expected


# --- the landmarks ----------------------------------------------------------------------------------------------------


def test_the_labs_model():
    """1.16 TFLOP a step, 5.8 PFLOP for 5,000."""
    flop = step_cost.step_flop(PRESETS["baby-gpt"], 64)
    assert round(flop / 1e12, 2) == 1.16
    assert round(5000 * flop / 1e15, 1) == 5.8


@pytest.mark.parametrize("name", PRESETS)
def test_the_rule_of_six(name):
    """6 N D counts every parameter as one of a matrix that all tokens are multiplied with, and no attention.

    Exactly: 6 · matrix weights · tokens + 12 · layers · width · seq · tokens. So the rule is at most a little too high where tables are
    only looked up (untied, or learned positions), and too low by the attention's share.
    """
    config, rows = PRESETS[name], 2
    seq = min(config.max_seq_len, 512)
    tokens = rows * seq
    with torch.device("meta"):
        model = TinyTransformerLM(replace(config, max_seq_len=seq))
    matrices = sum(p.numel() for p in model.blocks.parameters() if p.dim() == 2) + config.vocab_size * config.d_model
    matrices += config.d_model**2 if config.output_head else 0
    attention_part = 12 * config.n_layers * config.n_heads * config.head_width * seq * tokens
    flop = step_cost.step_flop(config, rows, seq)
    assert flop == 6 * matrices * tokens + attention_part
    rule = 6 * sum(p.numel() for p in model.parameters()) * tokens
    looked_up = 0 if config.tie_weights else config.vocab_size * config.d_model / config.n_parameters
    assert 1 - looked_up - 0.02 < (flop - attention_part) / rule <= 1
    assert 0.6 < flop / rule < 1.25


def test_writing_a_text_costs_what_reading_it_costs():
    """The products of T tokens written with a cache, one after the other, are those of one pass over T positions."""
    for option in ("gpt2", "window", "gated wide", "one kv head"):
        config = config_of(option)
        written = sum(total(token_cost(config, 2, length)).products for length in range(1, 10))
        assert written == products(cost_of_step(config, 2, 9), "forward"), option


@given(st.integers(1, 9), st.integers(0, 9), st.booleans(), st.none() | st.integers(1, 12))
def test_visible_pairs_are_those_of_the_mask(queries, earlier, causal, window):
    keys = queries + earlier
    mask = attention.structure_mask(queries, keys, causal=causal, window=window)
    assert visible_pairs(queries, keys, causal=causal, window=window) == (queries * keys if mask is None else int(mask.sum()))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.data(), st.sampled_from(sorted(ALL)))
def test_micro_batches_do_the_same_work_and_read_the_weights_again(rows, data, option):
    config, parts = config_of(option), data.draw(st.integers(1, rows))
    whole, split = cost_of_step(config, rows), cost_of_step(config, rows, accumulate=parts)
    assert products(whole, "forward") == products(split, "forward")
    assert total(split).bytes - total(whole).bytes >= (parts - 1) * 4 * sum(r * c for r, c in step_cost.hidden_matrices(config))


# --- bytes: the tensors that really move ------------------------------------------------------------------------------


def nbytes(tensors):
    return sum(tensor.nbytes for tensor in tensors)


def leaves(modules, inputs):
    """Forward and backward of each module by itself; returns bytes (forward, backward), each tensor once."""
    x, module = inputs.detach().requires_grad_(), torch.nn.ModuleList(modules)
    outputs = [m(x) for m in modules]
    forward = nbytes([x, *module.parameters(), *outputs])
    gradients = [torch.ones_like(y) for y in outputs]
    torch.autograd.backward(outputs, gradients)
    multiplied = [p for name, p in module.named_parameters() if not name.endswith("bias")]  # a bias is added: backward does not read it
    backward = nbytes([x, *gradients, *multiplied, x.grad, *[p.grad for p in module.parameters()]])
    return forward, backward


@pytest.mark.parametrize("option", ["gpt2", "qkv bias", "no bias", "grouped", "wide heads", "swiglu", "rms", "post"])
def test_bytes_of_products_and_norms_are_those_of_their_tensors(option):
    config = config_of(option, n_layers=1)
    block = TinyTransformerLM(config, seed=0).blocks[0]
    x = torch.randn(ROWS, SEQ, config.d_model)
    heads, network = block.attention, block.feedforward
    post = config.norm_position == "post"
    stream = 3 * x.nbytes  # the stream's gradient came by two ways: two read, their sum written
    expected = {
        "q, k, v products": (leaves([heads.W_query, heads.W_key, heads.W_value], x), stream * post),
        "output projection": (leaves([heads.out_proj], torch.randn(ROWS, SEQ, config.n_heads * config.head_width)), 0),
        "feed-forward up": (leaves([network.up, *([network.gate] if network.gate else [])], x), stream * post),
        "feed-forward down": (leaves([network.down], torch.randn(ROWS, SEQ, config.ff_width)), 0),
    }
    one = leaves([block.norm1], x)
    norms = 2 + (not post)
    expected["norms"] = ((norms * one[0], norms * one[1]), 2 * stream * (not post))
    costs = cost_of_step(config, ROWS, SEQ)
    for part, ((forward, backward), more) in expected.items():
        assert (costs[part, "forward"].bytes, costs[part, "backward"].bytes) == (forward, backward + more), part


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("option", ["gpt2", "grouped"])
def test_bytes_of_attention_are_those_of_its_tensors(option, fused):
    config = config_of(option, n_layers=1)
    shape, kept = (ROWS, config.n_heads, SEQ, config.head_width), (ROWS, config.kv_heads, SEQ, config.head_width)
    query, key, value, square = torch.zeros(shape), torch.zeros(kept), torch.zeros(kept), torch.zeros(ROWS, config.n_heads, SEQ, SEQ)
    out = torch.zeros(shape)
    if fused:  # one kernel: q, k, v in and out; backward these, the output and its gradient in, three gradients out
        forward, backward = [query, key, value, out], [query, key, value, out, out, query, key, value]
    else:  # scores written; read and weights written; read. Backward: dV, dP | dS of P, dP | dQ, dK of dS
        forward = [query, key, square, square, square, square, value, out]
        backward = [square, out, value, value, square, square, square, square, square, query, key, query, key]
    costs = cost_of_step(config, ROWS, SEQ, fused=fused)
    for phase, tensors in (("forward", forward), ("backward", backward)):
        found = sum(work.bytes for (part, p), work in costs.items() if part in step_cost.ATTENTION and p == phase)
        assert found == nbytes(tensors), phase


@pytest.mark.parametrize("option", ["gpt2", "swiglu", "rotary", "untied", "qk_norm"])
def test_bytes_of_the_rest(option):
    config = config_of(option, n_layers=1)
    n, d, vocab = ROWS * SEQ, config.d_model, config.vocab_size
    x, inner, logits, ids = torch.zeros(n, d), torch.zeros(n, config.ff_width), torch.zeros(n, vocab), torch.zeros(n, dtype=torch.int64)
    table, places = torch.zeros(vocab, d), torch.zeros(SEQ, d)
    queries, keys = torch.zeros(n, config.n_heads * config.head_width), torch.zeros(n, config.kv_heads * config.head_width)
    costs = cost_of_step(config, ROWS, SEQ)
    gates = [inner] * (1 + (config.activation == "swiglu"))
    learned = config.position == "learned"
    expected = {
        ("activation", "forward"): [*gates, inner], ("activation", "backward"): [*gates, inner, *gates],
        ("residual adds", "forward"): [x] * 6, ("loss", "forward"): [logits, ids], ("loss", "backward"): [logits, logits, ids],
        ("unembed", "forward"): [x, table, logits], ("unembed", "backward"): [logits, x, table, x, table],
        ("embeddings", "forward"): [ids, x, x] + [places] * learned,
        ("embeddings", "backward"): [ids, x, table] + [torch.zeros(config.max_seq_len, d)] * learned + [table] * 3 * config.tie_weights,
    }  # fmt: skip
    if config.position == "rotary":
        angles = torch.zeros(SEQ, config.head_width // 2)
        expected["rotary", "forward"] = expected["rotary", "backward"] = [queries, queries, keys, keys, angles, angles]
    if config.qk_norm:
        gain = torch.zeros(2 * config.head_width)
        expected["q, k norms", "forward"] = [queries, queries, keys, keys, gain]
        expected["q, k norms", "backward"] = [queries] * 3 + [keys] * 3 + [gain] * 2
    for key, tensors in expected.items():
        assert costs[key].bytes == nbytes(tensors), key
    dropped = cost_of_step(replace(config, dropout=0.1), ROWS, SEQ)  # after the embeddings, and on both branches
    mask = torch.zeros(n, d, dtype=torch.bool)
    assert dropped["dropout", "forward"].bytes == dropped["dropout", "backward"].bytes == 3 * nbytes([x, x, mask])
    assert {key: work for key, work in dropped.items() if key[0] != "dropout"} == costs
    weights = list(TinyTransformerLM(config, seed=0).parameters())
    assert costs["clipping", "update"].bytes == nbytes(weights)
    assert costs["optimizer", "update"].bytes == 7 * nbytes(weights)


@pytest.mark.parametrize("option", ["grouped", "gpt2"])
def test_bytes_of_a_token_are_the_weights_and_the_cache(option):
    """At batch 1 and a long context: every matrix once, keys and values once, and little else."""
    config = config_of(option, d_model=192, n_heads=4, max_seq_len=512)
    matrices = sum(p.nbytes for p in TinyTransformerLM(config, seed=0).blocks.parameters() if p.dim() == 2) + 4 * config.vocab_size * 192
    cache = 2 * 4 * config.n_layers * 500 * config.kv_heads * config.head_width
    copies = 2 * 4 * config.n_layers * 500 * (config.n_heads + config.kv_heads) * config.head_width * (config.kv_heads < config.n_heads)
    found = total(token_cost(config, 1, 500)).bytes
    assert matrices + cache + copies < found < 1.05 * (matrices + cache + copies)
    half = total(token_cost(config, 1, 500, weight=2)).bytes
    assert found - half == pytest.approx(matrices / 2, rel=0.02)


# --- operations: formulas run on numbers that count -------------------------------------------------------------------


class Counting:
    """A number that counts what is done with it; with plain numbers each operation is one too."""

    done = 0

    def __init__(self, value=1.0):
        self.value = value

    def _one(self, *_):
        Counting.done += 1
        return Counting()

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __neg__ = __pow__ = _one


def f(_):
    """exp, erf, tanh, a square root or a comparison with zero."""
    Counting.done += 1
    return Counting()


def silu_backward(dy, up, gate):
    sigmoid = 1 / (f(-gate) + 1)
    bent = gate * sigmoid
    return dy * bent, dy * up * sigmoid * ((1 - sigmoid) * gate + 1)


def tanh_backward(dy, x):
    square = x * x
    t = f((square * x * 0.044715 + x) * math.sqrt(2 / math.pi))
    slope = (square * (3 * 0.044715) + 1) * math.sqrt(2 / math.pi)
    return dy * ((t + 1) * 0.5 + x * 0.5 * (1 - t * t) * slope)


def gelu_backward(dy, x):
    below, density = (f(x / math.sqrt(2)) + 1) * 0.5, f(x * x * -0.5) * (1 / math.sqrt(2 * math.pi))
    return dy * (below + x * density)


def count(formula, *arguments):
    Counting.done = 0
    formula(*arguments)
    return Counting.done


def test_operations_of_the_activations():
    x, dy, up = Counting(), Counting(), Counting()
    expected = {
        "relu": (count(lambda x: f(x), x), count(lambda dy, x: dy * x, dy, x)),
        "relu2": (count(lambda x: f(x) * x, x), count(lambda dy, x: f(x) * 2 * dy, dy, x)),
        "gelu": (count(lambda x: (f(x / math.sqrt(2)) + 1) * x * 0.5, x), count(gelu_backward, dy, x)),
        "gelu_tanh": (count(lambda x: (f((x * x * x * 0.044715 + x) * 0.8) + 1) * x * 0.5, x), count(tanh_backward, dy, x)),
        "swiglu": (count(lambda x, up: x / (f(-x) + 1) * up, x, up), count(silu_backward, dy, up, x)),
    }
    assert expected == step_cost.ACTIVATIONS


def adamw(theta, g, mean, square):
    theta = theta * 0.99
    mean = mean * 0.9 + g * 0.1
    square = square * 0.99 + g * 0.01 * g
    return theta - mean / 0.5 * 0.001 / (f(square / 0.5) + 1e-8)


def test_operations_of_the_optimizers():
    config = config_of("gpt2")
    each = count(adamw, *[Counting() for _ in range(4)])
    costs = cost_of_step(config, ROWS)
    assert costs["optimizer", "update"] == Work(0, each * config.n_parameters, 28 * config.n_parameters)
    both = cost_of_step(config, ROWS, optimizer="muon")["optimizer", "update"]
    hidden = sum(r * c for r, c in step_cost.hidden_matrices(config))
    assert both.bytes == 28 * (config.n_parameters - hidden) + 20 * hidden
    assert both.others == each * (config.n_parameters - hidden) + 9 * hidden


@pytest.mark.parametrize("option", ["gpt2", "gated wide", "swiglu"])
def test_muons_products_are_exact(option):
    config = config_of(option)
    matrices = muon.hidden_matrices(TinyTransformerLM(config, seed=0))
    assert sorted(tuple(m.shape) for m in matrices) == sorted(step_cost.hidden_matrices(config))
    with FlopCounterMode(display=False) as counter:
        for matrix in matrices:
            muon.newton_schulz_batch(matrix.detach()[None])
    assert cost_of_step(config, 1, optimizer="muon")["optimizer", "update"].products == counter.get_total_flops()


def test_operations_of_the_norms():
    """Per number; a root and a division for each row do not count."""
    x, mean, rate, gain, bias = (Counting() for _ in range(5))
    assert step_cost.NORMS["rms"][0] == count(lambda: (x * x, x + x, x * rate, x * gain))
    assert step_cost.NORMS["layer"][0] == count(lambda: (x + x, x - mean, x * x, x + x, x * rate, x * gain, x + bias))
    dy = Counting()
    rms = [lambda: dy * gain, lambda: x * rate, lambda: dy * x + x, lambda: (dy - x * mean) * rate, lambda: dy * x + x]
    layer = [*rms, lambda: x + x, lambda: x - mean, lambda: x + x, lambda: x - mean]
    assert step_cost.NORMS["rms"][1] == sum(count(formula) for formula in rms)
    assert step_cost.NORMS["layer"][1] == sum(count(formula) for formula in layer)


def test_dropout_soft_cap_and_token_types_cost_something():
    plain = total(cost_of_step(config_of("gpt2"), ROWS))
    for change in ({"dropout": 0.1}, {"logit_softcap": 3.0}, {"n_token_types": 2}):
        changed = total(cost_of_step(config_of("gpt2", **change), ROWS))
        assert changed.others > plain.others, change


def test_writing_asks_for_no_loss_and_drops_nothing():
    parts = {part for part, _ in token_cost(config_of("gpt2", dropout=0.1), 1, 5)}
    assert not parts & {"loss", "dropout", "clipping", "optimizer"}
    assert "sampling" in parts


def test_bfloat16_halves_what_activations_move_and_nothing_else():
    config = config_of("modern")
    four, two = cost_of_step(config, ROWS), cost_of_step(config, ROWS, value=2)
    assert products(four, "forward") == products(two, "forward")
    assert four["activation", "forward"].bytes == 2 * two["activation", "forward"].bytes
    assert four["optimizer", "update"] == two["optimizer", "update"]
    assert Pass.training(config, 1).pairs == Pass.training(config, 1, value=2).pairs


def test_counting_needs_no_torch():
    for name in ("step_cost", "roofline"):
        tree = ast.parse(Path(step_cost.__file__).with_name(f"{name}.py").read_text(encoding="utf-8"))
        modules = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        modules |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        assert not {module for module in modules if module.split(".")[0] in ("torch", "numpy")}
