"""A layer in C against the model as it is written: values, gradients, second derivatives, every shape; and when it must not run."""

import copy
import ctypes
import itertools
import threading
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from tests.compiler import needs_compiler
from tests.opinionated import opinionated
from tests.options import OPTIONS, small_config
from tests.test_decode_step import with_biases
from tiny_transformer import attention, block_by_hand, embeddings, feedforward, multi_head, native
from tiny_transformer.attention import record_weights
from tiny_transformer.block_by_hand import LAYERS, NORMS, PARTS, WEIGHTS, BlocksByHand, fits, told_to
from tiny_transformer.feedforward import ACTIVATIONS
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.native import INTEGER, POINTER
from tiny_transformer.normalization import LayerNorm
from tiny_transformer.utils.reference import reference_path

pytestmark = needs_compiler
IN_C = [option for option in OPTIONS if not any(word in option for word in ("post", "alibi", "window"))]


@pytest.fixture
def calls(monkeypatch):
    """Which blocks ran in C."""
    found, plain = [], BlocksByHand.apply
    monkeypatch.setattr(BlocksByHand, "apply", lambda *inputs: found.extend(inputs[0]) or plain(*inputs))
    return found


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def model_of(option="modern", **more):
    """With opinions, biases that are not zero, and norms that are not one."""
    model = with_biases(opinionated(option, **more))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name and name.endswith("weight"):
                weight.copy_(torch.rand(weight.shape, generator=generator) + 0.5)
    return model.train()


def some(rows, n, seed=1):
    return torch.randint(17, (rows, n), generator=torch.Generator().manual_seed(seed))


def loss_and_gradients(model, ids):
    model.zero_grad()
    loss = F.cross_entropy(model(ids).flatten(0, 1), ids.roll(1, 0).flatten())
    loss.backward()
    return {"loss": loss.detach(), **{name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}}


def exact(model, ids):
    """In float64, as it is written."""
    double = copy.deepcopy(model).double()
    with reference_path():
        return loss_and_gradients(double, ids)


def assert_near(found, expected, share=2e-5):
    """Each gradient off by a small share of the largest number of its kind (a key's bias has none: nothing depends on it)."""
    assert found.keys() == expected.keys()
    largest = max(float(g.abs().max()) for name, g in expected.items() if name != "loss")
    for name, value in expected.items():
        size = max(float(value.abs().max()), 1e-2 * largest)
        apart = float((found[name] - value).abs().max())
        assert apart <= share * size, f"{name} is {apart:.1e} off, of {size:.1e}"


# ---------------------------------------------------------------- the same numbers


@pytest.mark.parametrize("option", OPTIONS)
def test_every_architecture_has_the_gradients_of_the_model_as_written(option, calls):
    model, ids = model_of(option), some(3, 11)
    found = loss_and_gradients(model, ids)
    assert len(calls) == (model.config.n_layers if option in IN_C else 0)
    assert_near(found, exact(model, ids))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("bias", ["all", "qkv", "none"])
@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_activations_biases_and_norms(activation, bias, norm, calls):
    model, ids = model_of("rotary", activation=activation, bias=bias, norm=norm, qk_norm=bias == "qkv", d_ff=41), some(2, 12)
    assert_near(loss_and_gradients(model, ids), exact(model, ids))
    assert calls


SIZES = [
    {"d_model": 16, "n_heads": 1}, {"d_model": 40, "d_ff": 150, "n_heads": 2}, {"d_head": 64, "n_heads": 2}, {"d_model": 72, "d_head": 20},
    {"d_model": 128, "n_heads": 4, "d_ff": 512}, {"n_heads": 6, "n_kv_heads": 3, "d_head": 18, "d_model": 50},
    {"d_model": 300, "n_heads": 6, "d_ff": 601}, {"d_model": 32, "d_ff": 8}, {"d_model": 6, "n_heads": 1, "d_ff": 3},
]  # fmt: skip


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_sizes_that_fill_no_whole_vectors(sizes, calls):
    model, ids = model_of("modern", max_seq_len=40, **sizes), some(2, 37)
    assert_near(loss_and_gradients(model, ids), exact(model, ids))
    assert calls


@pytest.mark.parametrize("rows, seq", [(1, 1), (1, 2), (5, 1), (3, 31), (1, 32), (2, 33), (4, 64), (1, 129), (7, 65), (2, 300)])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_batches_of_every_shape_for_any_number_of_threads(rows, seq, count, threads, calls):
    threads(count)
    model, ids = model_of("modern", max_seq_len=300, n_kv_heads=2), some(rows, seq)
    assert_near(loss_and_gradients(model, ids), exact(model, ids))
    assert calls


@given(
    st.sampled_from(IN_C), st.integers(1, 4), st.integers(1, 3), st.integers(3, 9), st.integers(1, 40), st.integers(1, 5),
    st.integers(1, 70), st.booleans(), st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_any_size(option, heads, half_head, width, ff, rows, seq, grouped, seed):
    sizes = {"n_heads": heads, "d_head": 2 * half_head, "d_model": 2 * width, "d_ff": ff, "n_kv_heads": 1 if grouped else heads}
    model, ids = model_of(option, **{**sizes, "max_seq_len": 70}, seed=seed), some(rows, seq, seed)
    assert_near(loss_and_gradients(model, ids), exact(model, ids), 5e-4)


def test_the_first_losses_of_training_are_those_of_the_plain_model(calls):
    losses = []
    for fast in (True, False):
        model, ids = TinyTransformerLM(small_config("modern"), seed=0).train(), some(4, 12)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        losses.append([])
        for _ in range(12):
            with nullcontext() if fast else reference_path():
                losses[-1].append(loss_and_gradients(model, ids)["loss"].item())
            optimizer.step()
    assert len(calls) == 12 * 2
    assert losses[0] == pytest.approx(losses[1], abs=2e-5) and losses[0][-1] < losses[0][0] - 0.5


def test_dropout_draws_the_same_numbers(calls):
    """The same branches are dropped as without C, from the same generator, which then stands at the same place."""
    model, ids, results = model_of("gpt2", dropout=0.3), some(3, 12), []
    for fast in (True, False):
        torch.manual_seed(4)
        with nullcontext() if fast else reference_path():
            results.append({**loss_and_gradients(model, ids), "next": torch.rand(3)})
    assert len(calls) == 2
    assert torch.equal(results[0].pop("next"), results[1].pop("next"))
    assert_near(*results, share=1e-4)
    model.eval()
    assert_near(loss_and_gradients(model, ids), exact(model, ids))


def test_the_future_cannot_be_seen_by_a_single_bit():
    model, ids = model_of("modern", max_seq_len=80), some(2, 80)
    changed = ids.clone()
    changed[:, 50:] = (changed[:, 50:] + 1) % 17
    first, second = model(ids), model(changed)
    assert torch.equal(first[:, :50], second[:, :50]) and not torch.equal(first[:, 50:], second[:, 50:])


@pytest.mark.parametrize("count", [1, 2])
def test_the_same_step_twice_gives_the_same_bits(count, threads):
    threads(count)
    model, ids = model_of("modern"), some(3, 12)
    first, second = (loss_and_gradients(model, ids) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_another_batch_dropout_and_epsilon_are_noticed():
    """What is made once for a size of batch is made anew where anything else changes."""
    model = model_of("modern", dropout=0.3)
    block_by_hand._new_plan.cache_clear()
    for rows, seq in ((2, 9), (3, 12), (2, 9)):
        model.eval()
        assert_near(loss_and_gradients(model, some(rows, seq)), exact(model, some(rows, seq)))
        loss_and_gradients(model.train(), some(rows, seq))
    assert block_by_hand._new_plan.cache_info()[:2] == (2, 4)  # found, made
    model.eval().blocks[1].norm2.eps = 0.7
    assert_near(loss_and_gradients(model, some(2, 9)), exact(model, some(2, 9)))


def test_each_block_may_have_a_shape_of_its_own(calls):
    """After surgery, say: other heads, another activation, another width inside, another norm."""
    model = model_of("gpt2", n_layers=4, max_seq_len=40)
    other = [{"n_heads": 2, "n_kv_heads": 1, "d_ff": 200}, {"activation": "swiglu", "norm": "rms"}, {"qk_norm": True, "d_ff": 7}]
    for index, change in enumerate(other):
        model.blocks[index] = model_of("gpt2", **change).blocks[0]
    for rows, count in ((3, 37), (2, 40)):
        assert_near(loss_and_gradients(model, some(rows, count)), exact(model, some(rows, count)))
    assert len(calls) == 8


@pytest.mark.parametrize("again", [False, True])
def test_one_block_may_stand_there_more_than_once(again, calls):
    model, ids = model_of("gpt2", n_layers=3), some(2, 9)
    model.blocks[2] = model.blocks[0]
    model.checkpoint_layers = again
    assert_near(loss_and_gradients(model, ids), exact(model, ids))
    assert len(calls) == (6 if again else 3)


def test_weights_replaced_by_larger_ones_are_noticed(calls):
    model, ids = model_of("gpt2"), some(2, 9)
    loss_and_gradients(model, ids)
    for layer, dim in ((model.blocks[0].feedforward.up, 0), (model.blocks[0].feedforward.down, 1)):
        layer.weight = nn.Parameter(torch.cat((layer.weight.detach(), layer.weight.detach()), dim))
        if dim == 0:
            layer.bias = nn.Parameter(torch.cat((layer.bias.detach(), layer.bias.detach())))
    assert_near(loss_and_gradients(model, ids), exact(model, ids))
    assert len(calls) == 2 * 2
    model.blocks[1].feedforward.up.weight = nn.Parameter(torch.ones(5, 24))
    with pytest.raises(ValueError, match=r"up has weights of shape \(5, 24\) and biases of \(96,\): they must be \(5, 24\) and \(5,\)"):
        model(ids)
    model.blocks[1].attention.W_key.weight = nn.Parameter(torch.ones(5, 24))
    with pytest.raises(ValueError, match=r"key has weights of shape \(5, 24\)"):
        model(ids)
    model = model_of("gpt2")
    model.norm = LayerNorm(23)
    with pytest.raises(ValueError, match=r"last norm has weights of shape \(23,\) and biases of \(23,\): they must be \(24,\) and \(24,\)"):
        model(ids)


def test_a_graph_that_is_kept_can_be_gone_back_twice():
    model, ids = model_of("modern"), some(2, 9)
    loss = model(ids).square().mean()
    once = torch.autograd.grad(loss, list(model.blocks.parameters()), retain_graph=True)
    other = model(some(2, 9, 7)).square().mean()  # something else uses the memory in between
    other.backward()
    twice = torch.autograd.grad(loss, list(model.blocks.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(once, twice, strict=True))


def test_second_derivatives(calls):
    for option, dropout in (("modern", 0.0), ("gpt2", 0.3), ("swiglu", 0.0)):
        model, ids, found = model_of(option, dropout=dropout), some(2, 6), []
        for fast in (True, False):
            torch.manual_seed(1)
            with nullcontext() if fast else reference_path():
                gradients = torch.autograd.grad(model(ids).square().mean(), list(model.parameters()), create_graph=True)
                total = sum(g.square().sum() for g in gradients)
                again = torch.autograd.grad(total, list(model.parameters()))
            names = [name for name, _ in model.named_parameters()]
            found.append({"loss": total.detach(), **dict(zip(names, again, strict=True))})
        assert_near(*found, share=1e-3)
    assert len(calls) == 6


def test_frozen_weights_get_no_gradient(calls, monkeypatch):
    model, ids = model_of("gpt2"), some(2, 9)
    whole = loss_and_gradients(model, ids)
    frozen = [f"blocks.0.{name}" for name in ("norm1.weight", "attention.W_key.weight", "feedforward.down.bias", "feedforward.up.weight")]
    for name, weight in model.named_parameters():
        weight.requires_grad_(name not in frozen)
    given, places = [], block_by_hand._places
    monkeypatch.setattr(block_by_hand, "_places", lambda tensors: given.append(tensors) or places(tensors))
    rest = loss_and_gradients(model, ids)
    assert rest.keys() == whole.keys() - set(frozen) and calls
    assert all(torch.equal(rest[name], whole[name]) for name in rest)
    assert len(given) == 3  # tensors, tensors again, gradients
    first, last = given[-1][4 : 4 + len(WEIGHTS)], given[-1][4 + block_by_hand.EACH : -2]
    first, last = ({name for name, grad in zip(WEIGHTS, grads, strict=True) if grad is not None} for grads in (first, last))
    assert last - first == {name.removeprefix("blocks.0.") for name in frozen}  # and nothing was worked out for them


def test_frozen_first_blocks_keep_nothing(calls):
    """There is no gradient to be found before the first block that learns."""
    model, ids = model_of("gpt2", n_layers=3, max_seq_len=64, d_model=64), some(4, 64)
    whole, kept = loss_and_gradients(model, ids), {}
    for frozen, layers in ((model.embeddings, 3), (model.blocks[0], 2), (model.blocks[1], 1), (model.blocks[2], 0)):
        frozen.requires_grad_(False)
        if layers < 3:
            frozen.eval()
        calls.clear()
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.setdefault(t.data_ptr(), t), lambda t: t):
            rest = loss_and_gradients(model, ids)
        assert len(calls) == 3
        if layers:
            assert all(torch.equal(rest[name], whole[name]) for name in rest)
        else:  # the norm behind them is PyTorch's then
            assert_near(rest, {name: whole[name] for name in rest})
        assert {name.split(".")[1] for name in rest if "blocks" in name} == {str(n) for n in range(3 - layers, 3)}
        largest = max(t.numel() for t in kept.values())
        assert (10 * layers - 1) * 4 * 64 * 64 <= largest <= (11 * layers + 1) * 4 * 64 * 64
        kept.clear()


def test_blocks_computed_again_in_the_backward_pass_give_the_same_bits(calls):
    model, ids = model_of("modern", dropout=0.2), some(2, 9)
    results = []
    for model.checkpoint_layers in (False, True):
        torch.manual_seed(2)
        results.append(loss_and_gradients(model, ids))
    assert len(calls) == 2 + 4
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_an_input_that_lies_otherwise_in_memory():
    model = model_of("gpt2")
    x = torch.randn(24, 9, 2).requires_grad_()
    turned = x.permute(2, 1, 0)
    out, plain = block_by_hand.run([model.blocks[0]], turned), model.blocks[0](turned)
    torch.testing.assert_close(out, plain, atol=2e-5, rtol=1e-4)
    weight = torch.randn(24, 9, 2).permute(2, 1, 0)
    found, expected = (torch.autograd.grad(y, x, weight)[0] for y in (out, plain))
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)


def test_two_models_learn_in_two_threads():
    models, ids = [model_of("modern", seed=seed, max_seq_len=64) for seed in (0, 1)], some(3, 60)
    alone = [loss_and_gradients(model, ids) for model in models]
    wrong = []

    def learn(model, expected):
        for _ in range(20):
            found = loss_and_gradients(model, ids)
            wrong.extend(name for name in found if not torch.equal(found[name], expected[name]))

    workers = [threading.Thread(target=learn, args=pair) for pair in zip(models, alone, strict=True)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_it_keeps_less_than_the_plain_blocks():
    """Counted: every tensor that the backward pass holds on to, once."""
    model, ids = model_of("gpt2", max_seq_len=64, d_model=64), some(4, 64)

    def kept():
        found = {}
        own = {parameter.data_ptr() for parameter in model.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(lambda t: found.setdefault(t.data_ptr(), t), lambda t: t):
            model(ids)
        return sum(t.nbytes for place, t in found.items() if place not in own)

    mine = kept()
    with reference_path():
        assert mine < kept() / 2
    tokens, d, layers = 4 * 64, 64, model.config.n_layers
    expected = 4 * layers * tokens * (11 * d + 4)  # x; q, k, v; seen; middle; up; and four heads' logarithms
    assert expected <= mine < expected + 4 * 5 * tokens * d


# ---------------------------------------------------------------- when it must not run


def test_outside_training_in_float32_blocks_run_as_written(calls):
    model, ids = model_of("modern"), some(2, 9)
    with torch.no_grad():
        model(ids)
    with torch.inference_mode():
        model(ids)
    with torch.autocast("cpu", torch.bfloat16):
        model(ids)
    with reference_path():
        model(ids)
    with record_weights() as weights:
        model(ids)
    model(ids, mask=torch.ones(9, 9, dtype=torch.bool))
    torch.compile(model, backend="eager")(ids)
    with FlopCounterMode(display=False) as counter:
        model(ids)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model(torch.zeros(2, 9, dtype=torch.long))
    copy.deepcopy(model).double()(ids)
    copy.deepcopy(model).bfloat16()(ids)
    model(ids[:0])
    TinyTransformerLM(small_config("rotary", causal=False))(ids)
    assert not fits(model.blocks, torch.ones(1, 1, 24, dtype=torch.float64), model.config)
    assert len(weights) == 2 and counter.get_total_flops() > 100_000 and not calls
    model(ids)
    assert calls


CHANGES = (
    "hook", "pre-hook", "backward hook", "forward", "another kind", "another weight", "a subclass", "strides", "a type", "activation",
)  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_parts_that_somebody_changed_are_called(change, calls):
    model, ids = model_of("modern"), some(2, 9)
    layer = model.blocks[1].feedforward.up
    if change == "hook":
        layer.register_forward_hook(lambda module, inputs, output: 0 * output)
    elif change == "pre-hook":
        layer.register_forward_pre_hook(lambda module, inputs: (0 * inputs[0],))
    elif change == "backward hook":
        layer.register_full_backward_hook(lambda module, before, after: None)
    elif change == "forward":
        layer.forward = lambda x: F.linear(x, 0 * layer.weight)
    elif change == "another kind":
        model.blocks[1].feedforward.up = nn.Sequential(layer, nn.Threshold(1e9, 0.0))
    elif change == "another weight":
        nn.utils.parametrizations.weight_norm(layer)
    elif change == "a subclass":
        layer.__class__ = type("Other", (type(layer),), {"forward": lambda self, x: 0 * F.linear(x, self.weight)})
    elif change == "activation":
        model.blocks[1].feedforward.activation = torch.tanh
    elif change == "strides":
        layer.weight = nn.Parameter(layer.weight.detach().t().contiguous().t())
    else:
        layer.double().register_forward_pre_hook(block_by_hand.only_watches(lambda module, inputs: (inputs[0].double(),)))
        model.blocks[1].feedforward.down.double()
    with nullcontext() if change != "a type" else pytest.raises(RuntimeError):
        model(ids).sum().backward()
    assert not calls


def test_blocks_that_lack_a_part_are_not_for_the_c():
    for option, network, part in (("swiglu", "feedforward", "gate"), ("qk_norm", "attention", "k_norm"), ("gpt2", "feedforward", "up")):
        model, x = model_of(option), torch.ones(1, 1, 24)
        assert fits(model.blocks, x, model.config)
        setattr(model.blocks[1].get_submodule(network), part, None)
        assert not fits(model.blocks, x, model.config)


@pytest.mark.parametrize("again", [False, True])
def test_the_norm_behind_them_may_be_another(again, calls):
    for change in ("kind", "hook", "type"):
        model, ids = model_of("modern"), some(2, 9)
        model.checkpoint_layers = again
        if change == "kind":
            model.norm = nn.Sequential(model.norm, nn.Tanh())
        elif change == "hook":
            model.norm.register_forward_hook(lambda module, inputs, output: 2 * output)
        else:
            model.norm = nn.LayerNorm(24)
        found, expected = loss_and_gradients(model, ids), exact(model, ids)
        assert_near(found, expected)
        assert calls


@pytest.mark.parametrize(
    "where, name",
    [
        (attention, "attend"), (multi_head, "split_heads"), (multi_head, "merge_heads"), (multi_head, "expand_kv"),
        (feedforward, "feed_forward"), (embeddings, "rotate"),
    ],
    ids=str,
)  # fmt: skip
def test_a_learners_own_function_is_called(where, name, calls, monkeypatch):
    theirs, original = [], getattr(where, name)
    monkeypatch.setattr(where, name, lambda *args, **more: theirs.append(1) or original(*args, **more))
    model_of("modern")(some(2, 9))
    assert theirs and not calls


@pytest.mark.parametrize("how", ["no compiler", "switched off"])
def test_without_a_compiler_all_goes_on(how, monkeypatch, calls):
    model, ids = model_of("modern"), some(2, 9)
    with_it = loss_and_gradients(model, ids)
    calls.clear()
    if how == "no compiler":
        monkeypatch.setattr(native.shutil, "which", lambda name: None)
    else:
        monkeypatch.setenv("TINY_NATIVE", "0")
    for found in (native.library, block_by_hand._library):
        found.cache_clear()
    try:
        assert_near(loss_and_gradients(model, ids), with_it)
        assert not calls and not fits(model.blocks, torch.ones(1, 1, 24), model.config)
    finally:
        monkeypatch.undo()
        for found in (native.library, block_by_hand._library):
            found.cache_clear()


def test_names_and_order():
    """What the C calls first, second, … is what Python does."""
    source = (Path(block_by_hand.__file__).parent / "block_by_hand.c").read_text()
    header = (Path(block_by_hand.__file__).parent / "vectors.h").read_text()
    names = [word.strip() for word in header.split("enum { RELU")[1].split("}")[0].split(",")]
    assert len(names) == len(ACTIVATIONS) and names[1:] == [name.upper() for name in ACTIVATIONS][1:]
    assert source.split("enum { NORM, ")[1].split("}")[0].count(",") + 1 == len(PARTS)
    assert len(WEIGHTS) == 2 * len((*NORMS, *LAYERS))
    own = {name for name, _ in model_of("swiglu", qk_norm=True).blocks[0].named_parameters()}
    assert own <= set(WEIGHTS)


def test_a_listener_is_told_of_every_part_and_only_inside():
    model, told = model_of("modern"), []
    with told_to(lambda part, moment: told.append((part, moment))):
        model(some(2, 9)).sum().backward()
    assert {part for part, _ in told} == set(PARTS)
    assert len(told) == 2 * (len(PARTS) + 1)
    assert [moment for _, moment in told] == sorted(moment for _, moment in told)
    told.clear()
    model(some(2, 9))
    assert not told
    for option, lacks in (("gpt2", {"q, k norms", "rotary"}), ("rotary", {"q, k norms"}), ("qk_norm", {"rotary"})):
        told.clear()
        with told_to(lambda part, moment: told.append((part, moment))):
            model_of(option)(some(2, 9))
        assert {part for part, _ in told} == set(PARTS) - lacks


# ---------------------------------------------------------------- the products alone


@pytest.fixture(scope="module")
def products():
    c = native.library(Path(__file__).with_name("products_alone.c"))
    return native.declared(
        c,
        {
            "multiply_for_test": (
                None, [*[INTEGER] * 3, *(POINTER, INTEGER, INTEGER) * 2, POINTER, ctypes.c_float, POINTER, INTEGER]
            ),
            "transpose_for_test": (None, [INTEGER, INTEGER, POINTER, INTEGER, POINTER, INTEGER]),
            "panel_width": (INTEGER, []),
        },
    )


def at(tensor):
    return None if tensor is None else tensor.data_ptr()


ROWS, COLUMNS, DEPTHS = (1, 2, 13, 14, 15, 29), (1, 7, 16, 31, 32, 33, 50), (1, 3, 255, 256, 257, 600)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("keep", [0.0, 1.0, -0.5])
def test_products_of_every_size(products, turned, packed, keep):
    """Beside float64; and what lies around C stays as it was."""
    generator, width = torch.Generator().manual_seed(0), products.panel_width()
    for m, n, depth in itertools.product(ROWS, COLUMNS, DEPTHS):
        a = torch.randn(depth, m + 3, generator=generator)[:, :m] if turned else torch.randn(m, depth + 2, generator=generator)[:, :depth]
        b, bias = torch.randn(depth, n + 5, generator=generator), torch.randn(n, generator=generator) if m % 2 else None
        c = torch.randn(m + 1, n + 4, generator=generator)
        left = a.T if turned else a
        exact = left.double() @ b[:, :n].double() + (0 if bias is None else bias.double()) + keep * c[:m, :n].double()
        expected = c.clone()
        expected[:m, :n] = exact.float()
        if packed:
            panels = torch.cat([F.pad(piece, (0, width - piece.size(1))) for piece in b[:, :n].split(width, 1)])
        row, step = (1, a.stride(0)) if turned else (a.stride(0), 1)
        products.multiply_for_test(
            m, n, depth, at(a), row, step, at(panels.contiguous() if packed else b), n + 5, packed, at(bias), keep, at(c), n + 4
        )
        torch.testing.assert_close(c, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("rows, columns", [(1, 1), (16, 16), (16, 32), (17, 15), (40, 70), (3, 50), (64, 64)])
def test_transposes(products, rows, columns):
    x, y = torch.randn(rows, columns + 3), torch.zeros(columns + 1, rows + 2)
    products.transpose_for_test(rows, columns, at(x), columns + 3, at(y), rows + 2)
    assert torch.equal(y[:columns, :rows], x[:, :columns].T)
    assert not y[columns:].any() and not y[:, rows:].any()
