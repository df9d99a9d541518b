"""Whose time is it: with a clock that only moves where a part is made slow, every part must get exactly its own time, both ways."""

import time
from contextlib import ExitStack, contextmanager

import pytest
import torch
from torch import nn

from tests.compiler import needs_compiler
from tests.options import small_config
from tiny_transformer import attention, block_by_hand, embeddings, feedforward
from tiny_transformer.config import SampleConfig, TrainConfig
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.roofline import FORWARD, FUSED_ATTENTION
from tiny_transformer.sampling import decode_step, generator
from tiny_transformer.sampling.token_times import time_tokens
from tiny_transformer.step_cost import ATTENTION
from tiny_transformer.tokenization.char import CharTokenizer
from tiny_transformer.training import loop, objectives, part_times, step_times, trainer
from tiny_transformer.training.ceilings import measure_ceilings
from tiny_transformer.training.part_times import Stopwatch, parts_of, watched
from tiny_transformer.training.step_times import time_steps
from tiny_transformer.transformer_block import TransformerBlock
from tiny_transformer.utils.reference import reference_path

FORTH, BACK = 5.0, 11.0
CPU = torch.device("cpu")


class Clock:
    """Stands still, unless it is told."""

    now = 0.0


class Slow(torch.autograd.Function):
    """Changes nothing, and takes its time: FORTH seconds forward, BACK seconds backward."""

    @staticmethod
    def forward(ctx, x):
        Clock.now += FORTH
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        Clock.now += BACK
        return gradient


@pytest.fixture(autouse=True)
def _clock(monkeypatch):
    """The C has a real clock, so blocks run as they are written."""
    monkeypatch.setattr(Stopwatch, "_now", lambda self: Clock.now)
    monkeypatch.setattr(block_by_hand, "_library", lambda: None)


@pytest.fixture
def real_clock(monkeypatch, _clock):
    monkeypatch.undo()


def slowed(function):
    return lambda *args, **more: Slow.apply(function(*args, **more))


def slow_module(module):
    module.forward = slowed(module.forward)


def model_of(option="modern", **more):
    return TinyTransformerLM(small_config(option, **more), seed=0)


def run(model, functions=step_times.AROUND):
    """One forward and backward pass, watched."""
    watch, ids = Stopwatch(CPU), torch.randint(17, (2, 9), generator=torch.Generator().manual_seed(1))
    with watched(watch, model, functions):
        watch.start()
        objectives.cross_entropy(model(ids), ids).backward()
        return watch.times()


LAYERS = 2
MODULES = {
    "embeddings": lambda m: [m.embeddings],
    "norms": lambda m: [m.norm, *(n for b in m.blocks for n in (b.norm1, b.norm2))],
    "q, k, v products": lambda m: [w for b in m.blocks for w in (b.attention.W_query, b.attention.W_key, b.attention.W_value)],
    "q, k norms": lambda m: [n for b in m.blocks for n in (b.attention.q_norm, b.attention.k_norm)],
    "heads": lambda m: [b.attention for b in m.blocks],
    "output projection": lambda m: [b.attention.out_proj for b in m.blocks],
    "residual adds": lambda m: list(m.blocks),
    "feed-forward up": lambda m: [b.feedforward.up for b in m.blocks],
    "activation": lambda m: [b.feedforward for b in m.blocks],
    "feed-forward down": lambda m: [b.feedforward.down for b in m.blocks],
    "unembed": lambda m: [m.unembed],
}
FUNCTIONS = {
    "rotary": (embeddings, "rotate", 2 * LAYERS), FUSED_ATTENTION: (attention, "attend", LAYERS), "loss": (objectives, "cross_entropy", 1),
    "activation": (feedforward, "feed_forward", LAYERS), "dropout": (TransformerBlock, "dropout", 2 * LAYERS),
}  # fmt: skip


@pytest.mark.parametrize("part", MODULES)
def test_a_slow_module_gets_its_own_time_forward_and_backward(part):
    model = model_of()
    slow = MODULES[part](model)
    for module in slow:
        slow_module(module)
    times = {key: seconds for key, seconds in run(model).items() if seconds}
    assert times == {(part, "forward"): FORTH * len(slow), (part, "backward"): BACK * len(slow)}


@pytest.mark.parametrize("part", FUNCTIONS)
def test_a_slow_function_gets_its_own_time_forward_and_backward(part, monkeypatch):
    where, name, calls = FUNCTIONS[part]
    monkeypatch.setattr(where, name, slowed(getattr(where, name)))
    times = {key: seconds for key, seconds in run(model_of(dropout=0.1)).items() if seconds}
    assert times == {(part, "forward"): FORTH * calls, (part, "backward"): BACK * calls}


def test_dropout_is_a_part_only_where_it_does_something():
    assert ("dropout", "forward") in run(model_of(dropout=0.1))
    assert ("dropout", "forward") not in run(model_of())
    assert ("dropout", "forward") not in run(model_of(dropout=0.1).eval())


@pytest.mark.parametrize("option", ["gpt2", "swiglu", "token types", "post"])
def test_every_named_module_is_timed_in_other_shapes_too(option):
    model = model_of(option)
    named = parts_of(model)
    for module in named:
        slow_module(module)
    times = run(model)
    for part in set(named.values()):
        count = sum(found == part for found in named.values())
        assert (times[part, "forward"], times[part, "backward"]) == (FORTH * count, BACK * count), part


def test_the_readable_attention_is_told_apart(monkeypatch):
    """Each of scores, softmax and values made slow by itself."""
    original = attention.scaled_dot_product_attention

    def slow_scores(query, key, value, mask=None, bias=None):
        return original(Slow.apply(query), key, value, mask, bias)

    def slow_values(query, key, value, mask=None, bias=None):
        output, weights = original(query, key, value, mask, bias)
        return Slow.apply(output), weights

    for slow, part in ((slow_scores, ATTENTION[0]), (slow_values, ATTENTION[2])):
        monkeypatch.setattr(attention, "scaled_dot_product_attention", slow)
        with reference_path():
            times = {key: seconds for key, seconds in run(model_of()).items() if seconds}
        assert times == {(part, "forward"): FORTH * LAYERS, (part, "backward"): BACK * LAYERS}
    monkeypatch.setattr(attention, "scaled_dot_product_attention", original)
    softmax = torch.softmax
    slow_softmax = torch.overrides.wrap_torch_function(lambda x, dim: (x,))(slowed(softmax))
    monkeypatch.setattr(torch, "softmax", slow_softmax)
    with reference_path():
        times = {key: seconds for key, seconds in run(model_of()).items() if seconds}
    assert times == {(ATTENTION[1], "forward"): FORTH * LAYERS, (ATTENTION[1], "backward"): BACK * LAYERS}


def test_a_module_that_is_not_named_belongs_to_the_one_it_stands_in():
    model = model_of()
    extra = nn.Linear(24, 24)
    slow_module(extra)
    up = model.blocks[0].feedforward.up
    up.forward = lambda x, original=up.forward: original(extra(x))
    times = run(model)
    assert (times["feed-forward up", "forward"], times["feed-forward up", "backward"]) == (FORTH, BACK)


def test_what_a_node_triggers_counts_as_its_own(monkeypatch):
    """A hook on a weight runs when the gradient is kept: in the part that made the gradient."""
    model = model_of(tie_weights=False)

    def tick(_):
        Clock.now += 3.0

    model.unembed.weight.register_hook(tick)
    times = {key: seconds for key, seconds in run(model).items() if seconds}
    assert times == {("unembed", "backward"): 3.0}


def test_every_moment_belongs_to_one_part(monkeypatch):
    """The parts add up to the whole, less the watching's own work, however many parts are slow."""
    model = model_of()
    slow = [module for find in MODULES.values() for module in find(model)]
    for module in slow:
        slow_module(module)
    before = Clock.now
    times = run(model)
    assert sum(times.values()) == Clock.now - before == (FORTH + BACK) * len(slow)


# --- nothing is changed -----------------------------------------------------------------------------------------------


def test_watching_changes_no_bit_and_leaves_nothing_behind():
    model, ids = model_of(), torch.randint(17, (2, 9))
    functions = (attention.attend, embeddings.rotate, torch.Tensor.backward, objectives.cross_entropy)

    def gradients():
        model.zero_grad()
        objectives.cross_entropy(model(ids), ids).backward()
        return [p.grad.clone() for p in model.parameters()]

    plain = gradients()
    with watched(Stopwatch(CPU), model, step_times.AROUND):
        seen = gradients()
    assert all(torch.equal(a, b) for a, b in zip(plain, seen, strict=True))
    assert functions == (attention.attend, embeddings.rotate, torch.Tensor.backward, objectives.cross_entropy)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert "forward" not in vars(model.blocks[0].norm1)


def test_an_error_inside_leaves_nothing_behind():
    model, watch = model_of(), Stopwatch(CPU)
    attend = attention.attend
    with pytest.raises(ValueError, match="ids run from"), watched(watch, model):
        watch.start()
        model(torch.full((1, 3), 99))
    assert attention.attend is attend
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert run(model)  # and the next one works


@needs_compiler
@pytest.mark.usefixtures("real_clock")
def test_blocks_in_c_tell_their_parts_and_stay_in_c():
    model, ids, watch = model_of(dropout=0.1), torch.randint(17, (2, 9)), Stopwatch(CPU)
    assert block_by_hand.fits(model.blocks, torch.ones(1, 1, 24), model.config)

    def gradients():
        torch.manual_seed(0)
        model.zero_grad()
        objectives.cross_entropy(model(ids), ids).backward()
        return [p.grad.clone() for p in model.parameters()]

    plain = gradients()
    with watched(watch, model, step_times.AROUND):
        watch.start()
        begun = time.perf_counter()
        seen = gradients()
        took = time.perf_counter() - begun
        times = watch.times()
    assert all(torch.equal(a, b) for a, b in zip(plain, seen, strict=True))
    inside = {*block_by_hand.PARTS, "dropout", "embeddings", "unembed"} - {""}
    for phase in ("forward", "backward"):
        assert inside - {part for part, found in times if found == phase} <= {"dropout"}, phase
        assert all(times[part, phase] > 0 for part in inside - {"dropout"})
    assert "heads" not in {part for part, _ in times} and "residual adds" not in {part for part, _ in times}
    assert sum(times.values()) <= took
    assert [moment for moment, _ in watch.marks] == sorted(moment for moment, _ in watch.marks)


# --- real steps and tokens --------------------------------------------------------------------------------------------


@contextmanager
def ticking(where, name, seconds):
    original = getattr(where, name)

    def tick(*args, **more):
        Clock.now += seconds
        return original(*args, **more)

    setattr(where, name, tick)
    try:
        yield
    finally:
        setattr(where, name, original)


STEP = TrainConfig(batch_size=3, warmup_steps=1, threads=1)


def test_the_parts_of_a_training_step():
    places = {(loop, "batch_at"): 2.0, (objectives, "cross_entropy"): 7.0}
    places |= {(trainer, "gradient_norm"): 3.0, (trainer, "scale_gradients"): 5.0, (loop.TrainingLoop, "_report"): 13.0}
    model = model_of()
    slow_module(model.unembed)
    with ExitStack() as stack:
        for place, seconds in places.items():
            stack.enter_context(ticking(*place, seconds))
        found = time_steps(model, TrainConfig(batch_size=3, accumulate=3, threads=1), steps=3)
    assert found.count == 3
    assert {key: seconds for key, seconds in found.parts.items() if seconds} == {
        ("batch", "forward"): 2.0, ("clipping", "update"): 8.0, ("other", "forward"): 13.0, ("loss", "forward"): 21.0,
        ("unembed", "forward"): 3 * FORTH, ("unembed", "backward"): 3 * BACK,
    }  # fmt: skip


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.usefixtures("real_clock")
def test_the_optimizer_has_its_own_time(optimizer):
    found = time_steps(model_of(), TrainConfig(batch_size=3, optimizer=optimizer, fused_optimizer=False, threads=1), steps=2)
    assert found.parts["optimizer", "update"] > 0 and found.parts["clipping", "update"] > 0
    assert {phase for _, phase in found.parts} == {"forward", "backward", "update"}


def test_whole_steps_are_counted_and_the_weights_learn():
    model = model_of()
    before = model.embeddings.token.weight.detach().clone()
    found = time_steps(model, STEP, steps=4)
    assert found.count == 4
    assert found.low <= found.undisturbed <= found.high
    assert not torch.equal(before, model.embeddings.token.weight)


@pytest.mark.usefixtures("real_clock")
def test_a_compiled_model_is_one_part(monkeypatch):
    """Compiling takes long and changes nothing about whose time it is: a stand-in, which must find the model without hooks."""

    def compiled(model):
        def forward(ids):
            assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
            assert "lambda" not in attention.attend.__qualname__ + embeddings.rotate.__qualname__
            return model(ids)

        return forward

    monkeypatch.setattr(torch, "compile", compiled)
    found = time_steps(model_of(n_layers=1), TrainConfig(batch_size=2, compile=True, threads=1), steps=2)
    assert not found.warnings
    assert found.parts[FORWARD, "forward"] > 0 < found.parts[FORWARD, "backward"]
    assert {part for part, _ in found.parts} == {FORWARD, "batch", "loss", "clipping", "optimizer", "other"}


def test_the_parts_of_a_token():
    model, letters = model_of(max_seq_len=40).eval(), CharTokenizer("abcdefghijklmnopq")
    for block in model.blocks:
        slow_module(block.feedforward)
    with ticking(generator, "pick", 3.0):
        found, length = time_tokens(model, letters, SampleConfig(), rows=2, tokens=8)
    assert {key: seconds for key, seconds in found.parts.items() if seconds} == {
        ("activation", "forward"): LAYERS * FORTH, ("sampling", "forward"): 3.0,
    }  # fmt: skip
    assert found.count == 8
    assert length == 40 - (4 + 16) + 4 + 8  # the prompt, and half of what is written


def test_the_parts_of_a_token_by_the_prepared_step(monkeypatch):
    """No module of a block runs in it: its products are timed where they are."""
    monkeypatch.setattr(decode_step, "native_step", lambda model, cache: None)
    for name in ("prepare", "prepare_onto"):
        original = getattr(decode_step, name)
        monkeypatch.setattr(decode_step, name, lambda *args, original=original: slowed(original(*args)))
    model, letters = model_of(max_seq_len=40).eval(), CharTokenizer("abcdefghijklmnopq")
    with ticking(generator, "pick", 3.0):
        found, _ = time_tokens(model, letters, SampleConfig(), rows=2, tokens=8)
    products = ("q, k, v products", "output projection", "feed-forward up", "feed-forward down")
    assert {key: seconds for key, seconds in found.parts.items() if seconds} == {
        **{(part, "forward"): LAYERS * FORTH for part in products}, ("sampling", "forward"): 3.0,
    }  # fmt: skip
    assert ("heads", "forward") in found.parts and (FUSED_ATTENTION, "forward") in found.parts


@needs_compiler
def test_the_parts_of_a_token_by_the_step_in_c(real_clock, monkeypatch):
    """It tells the moments itself; together they are the whole token, and the choice of the token is one of them."""
    decoders, keep = [], generator.Decoder
    monkeypatch.setattr(generator, "Decoder", lambda *args: decoders.append(keep(*args)) or decoders[-1])
    model, letters = model_of(max_seq_len=40).eval(), CharTokenizer("abcdefghijklmnopq")
    found, _ = time_tokens(model, letters, SampleConfig(), rows=2, tokens=8)
    products = ("q, k, v products", "output projection", "feed-forward up", "feed-forward down", "unembed", "norms", "sampling")
    assert all(found.parts[part, "forward"] > 0 for part in (*products, FUSED_ATTENTION))
    assert sum(found.parts.values()) < 2 * found.watched
    assert decoders[0].step.native is not None and decoders[0].step.native.listener is None


def test_tokens_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="they must fit without moving the window. Try --steps 4"):
        time_tokens(model_of(), CharTokenizer("abcdefghijklmnopq"), SampleConfig(), tokens=5)
    with pytest.raises(ValueError, match="only sampling is profiled"):
        time_tokens(model_of(), CharTokenizer("abcdefghijklmnopq"), SampleConfig(beams=2), tokens=1)


@pytest.mark.usefixtures("real_clock")
def test_with_the_real_clock_a_part_that_sleeps_is_found(monkeypatch):
    class Sleep(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            time.sleep(0.02)
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            time.sleep(0.03)
            return gradient

    original = feedforward.feed_forward
    monkeypatch.setattr(feedforward, "feed_forward", lambda *args: Sleep.apply(original(*args)))
    found = time_steps(model_of(), STEP, steps=2)
    assert found.parts["activation", "forward"] >= 0.02 * LAYERS
    assert found.parts["activation", "backward"] >= 0.03 * LAYERS
    assert found.undisturbed >= 0.05 * LAYERS
    assert found.sum_of_parts <= found.watched * 1.5 + 1


def test_ceilings_are_positive_and_products_come_first():
    found = measure_ceilings(CPU, seconds=0.05, megabytes=4)
    assert found.flop_per_second > 1e8
    assert found.bytes_per_second > 1e8


def test_nodes_of_a_shared_graph_come_once():
    x = torch.ones(3, requires_grad=True)
    y = x * 2
    nodes = list(part_times.nodes_below((y * y + y).sum().grad_fn))
    assert len(nodes) == len(set(nodes)) == 4  # sum, add, two products
    assert list(part_times.nodes_below(None)) == []
