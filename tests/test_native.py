"""The step in C against the model: every architecture, one token of many texts, many tokens of one; and going on without it."""

import copy
import gc
import shutil
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some_of

from tests.compiler import needs_compiler
from tests.opinionated import opinionated
from tests.options import OPTIONS
from tests.rounded_inputs import sixteen_bits
from tests.test_decode_step import with_biases
from tiny_transformer import native
from tiny_transformer.config import SampleConfig
from tiny_transformer.kv_cache import KVCache
from tiny_transformer.quantized_layers import quantize_model
from tiny_transformer.sampling import native_weights
from tiny_transformer.sampling.decode_step import DecodeStep
from tiny_transformer.sampling.generator import TextGenerator, naive_generate
from tiny_transformer.sampling.native_step import MOST_ITEMS, PARTS, native_step
from tiny_transformer.sampling.native_weights import SOURCE, whole_step
from tiny_transformer.tokenization.char import CharTokenizer
from tiny_transformer.utils.reference import reference_path

SYMBOLS = "\n abcdefghijklmno"


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path_factory):
    """A cache folder of this test session's own, and no memory of what was found before."""
    monkeypatch.setenv("TINY_CACHE", str(tmp_path_factory.getbasetemp() / "native"))
    monkeypatch.delenv("TINY_NATIVE", raising=False)
    native.library.cache_clear()
    yield
    native.library.cache_clear()


def read(model, ids, padding=None, **more):
    """A cache of its own that has seen `ids`, and the step on it."""
    cache = KVCache(model.config, len(ids), padding=padding, **more)
    with torch.inference_mode():
        model.hidden(ids, cache=cache)
        step = native_step(model, cache)
    assert step is not None, "the compiler is there, but its library could not be used"
    return step


ROUNDED = 1e-3
"""How far logits may lie apart where both round x to sixteen bits before each product: a number in between two goes either way, and all
that follows from it is off by a step. The products alone are held exact in `test_eight_bits.py`."""


def some(rows, n, seed=1):
    return torch.randint(17, (rows, n), generator=torch.Generator().manual_seed(seed))


@needs_compiler
@pytest.mark.parametrize("bits", [None, 8])
@pytest.mark.parametrize("option", OPTIONS)
@torch.inference_mode()
def test_several_tokens_of_one_text_at_once(option, bits):
    model = with_biases(opinionated(option))
    model = model if bits is None else quantize_model(model, bits)
    ids, near = some(1, 12), {"atol": 2e-5 if bits is None else ROUNDED, "rtol": 1e-5}
    with reference_path(), sixteen_bits():
        expected, step = model(ids)[0], read(model, ids[:, :3])
    for first, end in ((3, 4), (4, 6), (6, 11), (11, 12)):
        torch.testing.assert_close(step(ids[0, first:end]), expected[first:end], **near)
    step.cache.rewind(5)
    torch.testing.assert_close(step(ids[0, 5:12]), expected[5:], **near)


@needs_compiler
@pytest.mark.parametrize("bits", [None, 8])
@pytest.mark.parametrize(
    "sizes",
    [
        {"d_model": 40, "d_ff": 150, "n_heads": 2}, {"d_head": 64, "n_heads": 2}, {"d_head": 80, "n_heads": 2}, {"d_ff": 1111},
        {"d_ff": 41, "d_model": 64},
    ],
    ids=str,
)  # fmt: skip
@torch.inference_mode()
def test_sizes_that_fill_no_whole_vectors(sizes, bits):
    model, ids = with_biases(opinionated("modern", **sizes)), some(1, 12)
    model = model if bits is None else quantize_model(model, bits)
    with reference_path(), sixteen_bits():
        step, expected = read(model, ids[:, :5]), model(ids)[0, 5:]
    torch.testing.assert_close(step(ids[0, 5:]), expected, atol=2e-5 if bits is None else ROUNDED, rtol=1e-5)


@needs_compiler
@pytest.mark.parametrize("bits", [None, 8])
@torch.inference_mode()
def test_a_number_depends_on_nothing_beside_it_to_the_last_bit(bits):
    model = with_biases(opinionated("window rotary grouped", max_seq_len=40))
    model = model if bits is None else quantize_model(model, bits)
    ids, threads = some(5, 30), torch.get_num_threads()
    many = read(model, ids[:, :20])
    alone = read(model, ids[2:3, :20], max_len=37)
    for ours, theirs in zip(alone.cache.layers, many.cache.layers, strict=True):  # the same beginning, whoever multiplied it
        ours.keys[:, :, :20], ours.values[:, :, :20] = theirs.keys[2:3, :, :20], theirs.values[2:3, :, :20]
    one_by_one = torch.cat([many(ids[:, column])[2:3] for column in range(20, 30)])
    assert torch.equal(alone(ids[2, 20:30]), one_by_one)
    try:
        torch.set_num_threads(3)
        alone.cache.rewind(20)
        other = native_step(model, alone.cache)
        assert torch.equal(other(ids[2, 20:30]), one_by_one)
    finally:
        torch.set_num_threads(threads)


@needs_compiler
@pytest.mark.parametrize("threads", [2, 3, 4])
@pytest.mark.parametrize("padding", [None, [0, 3, 4]], ids=["even", "padded"])
@pytest.mark.parametrize("sizes", [{}, {"n_kv_heads": 2}, {"n_kv_heads": 1}, {"d_head": 12}, {"d_head": 16}, {"d_head": 32}], ids=str)
@torch.inference_mode()
def test_heads_are_dealt_out_among_threads_without_changing_a_bit(sizes, padding, threads):
    model, ids = with_biases(opinionated("modern", **{"n_heads": 4, "n_kv_heads": 4, **sizes})), some(3, 9)
    before, results = torch.get_num_threads(), []
    try:
        for count in (1, threads):
            torch.set_num_threads(1)
            step = read(model, ids[:, :5], padding=padding)
            torch.set_num_threads(count)
            step = native_step(model, step.cache)
            results.append(torch.stack([step(ids[:, column]) for column in range(5, 9)]))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)


@needs_compiler
@pytest.mark.parametrize("bits", [None, 8])
@pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_tanh", "relu2", "swiglu"])
@torch.inference_mode()
def test_nan_stays_nan_and_large_numbers_stay_finite(activation, bits):
    for factor, finite in ((float("nan"), False), (1e3, True)):
        model, ids = opinionated("rotary", activation=activation, n_layers=1), some(1, 8)  # one layer: the cache holds no NaN before
        model = model if bits is None else quantize_model(model, bits)
        model.blocks[0].norm2.weight[3] = factor
        logits = read(model, ids[:, :7])(ids[0, 7:])
        assert bool(torch.isfinite(logits).all()) is finite and bool(torch.isnan(logits).any()) is not finite


@needs_compiler
@torch.inference_mode()
def test_what_does_not_fit_is_an_error_and_writes_nothing():
    model, ids = opinionated(), some(1, 12)
    step = read(model, ids[:, :10])
    for wrong in ([17], [-1], [3, 99]):
        with pytest.raises(ValueError, match="must lie in 0 to 16"):
            step(torch.tensor(wrong))
    with pytest.raises(ValueError, match="do not fit"):
        step(ids[0, :3])
    assert step.cache.length == 10
    torch.testing.assert_close(step(ids[0, 10:]), model(ids)[0, 10:], atol=2e-5, rtol=1e-5)
    two = read(model, some(2, 4))
    with pytest.raises(ValueError, match="3 tokens for 2 texts"):
        two(ids[0, :3])


@needs_compiler
@torch.inference_mode()
def test_a_listener_hears_every_part_in_order():
    model, ids, heard = opinionated(), some(1, 8), []
    step = read(model, ids[:, :7])
    step.listener = lambda part, moment: heard.append((part, moment))
    step(ids[0, 7:])
    assert [part for part, _ in heard] == [*PARTS, *PARTS, "unembed", ""]
    moments = [moment for _, moment in heard]
    assert moments == sorted(moments) and moments[0] > 0


@needs_compiler
def test_weights_that_lie_apart_are_read_right():
    model, ids = opinionated(), some(1, 8)
    with torch.inference_mode():
        expected = model(ids)[0, 7:]
        layer = model.blocks[0].attention.W_query
        layer.weight = torch.nn.Parameter(layer.weight.detach().t().contiguous().t(), requires_grad=False)
        torch.testing.assert_close(read(model, ids[:, :7])(ids[0, 7:]), expected, atol=2e-5, rtol=1e-5)


@needs_compiler
def test_copies_lie_in_one_piece_of_memory_from_the_beginning_of_a_large_page():
    model = opinionated("modern")
    native_step(model, KVCache(model.config, 1))
    weights = copies(model)
    arena = weights.kept[0]
    packed = [matrix for block in weights.blocks for matrix in block if matrix.width] + [weights.unembed]
    places = sorted((matrix.weight, -(-matrix.outputs // matrix.width) * matrix.width * matrix.inputs * 4) for matrix in packed)
    assert places[0][0] % native_weights.PAGE == 0 and all(place % native_weights.LINE == 0 for place, _ in places)
    ends = [place + size for place, size in places]
    assert all(end <= place for end, (place, _) in zip(ends, places[1:], strict=False))
    assert arena.data_ptr() <= places[0][0] and ends[-1] <= arena.data_ptr() + arena.nbytes


def copies(model):
    return native_weights._of[model]


CHANGES = {
    "one number": lambda model: model.blocks[1].feedforward.down.weight.data[3, 5].add_(0.5),
    "all signs": lambda model: [parameter.data.neg_() for parameter in model.blocks[0].attention.out_proj.parameters()],
    "two numbers change places": lambda model: model.unembed.weight.data.copy_(model.unembed.weight.data.flip(1)),
    "a bias, by NumPy": lambda model: model.blocks[0].feedforward.up.bias.detach().numpy().__iadd__(0.5),
    "a new layer": lambda model: setattr(model.blocks[0].feedforward, "up", copy.deepcopy(model.blocks[1].feedforward.up)),
}
OF_FLOATS = ("one number", "all signs")
"""Changes of weights that a rounded model has in eight bits."""


@needs_compiler
@pytest.mark.parametrize(
    ("change", "bits"), [(change, bits) for change in CHANGES for bits in (None, 8) if bits is None or change not in OF_FLOATS]
)
def test_copied_weights_are_kept_until_one_changes(change, bits):
    model, ids = with_biases(opinionated()), some(1, 8)
    model = model if bits is None else quantize_model(model, bits)
    with torch.inference_mode(), reference_path():
        read(model, ids[:, :7])
        first = copies(model)
        assert native_step(model, KVCache(model.config, 2)) is not None and copies(model) is first
    CHANGES[change](model)
    with torch.inference_mode(), reference_path(), sixteen_bits():
        expected, step = model(ids)[0, 7:], read(model, ids[:, :7])
        assert copies(model) is not first
        torch.testing.assert_close(step(ids[0, 7:]), expected, atol=2e-5 if bits is None else ROUNDED, rtol=1e-5)


@needs_compiler
def test_rounded_weights_that_change_are_copied_again():
    model, ids = quantize_model(with_biases(opinionated())), some(1, 8)
    for tensor in (model.blocks[0].feedforward.up.scales, model.blocks[1].feedforward.down.values):
        with torch.inference_mode(), reference_path(), sixteen_bits():
            read(model, ids[:, :7])
            tensor.data.mul_(-1)
            torch.testing.assert_close(read(model, ids[:, :7])(ids[0, 7:]), model(ids)[0, 7:], atol=ROUNDED, rtol=1e-5)


@needs_compiler
def test_a_text_being_written_keeps_its_copies():
    model, ids = opinionated(), some(1, 8)
    with torch.inference_mode():
        step = read(model, ids[:, :7])
        before = step(ids[0, 7:])
        model.blocks[0].feedforward.up.weight.data.neg_()
        read(model, ids[:, :7])
        step.cache.rewind(7)
        assert torch.equal(step(ids[0, 7:]), before)


@needs_compiler
def test_copied_weights_go_with_their_model():
    model = opinionated()
    native_step(model, KVCache(model.config, 1))
    tensors = [weakref.ref(tensor) for tensor in copies(model).kept]
    assert tensors
    del model
    gc.collect()
    assert all(tensor() is None for tensor in tensors)


@needs_compiler
@settings(deadline=None, max_examples=60)
@given(some_of.data())
def test_a_fingerprint_is_of_every_byte_at_its_place(data):
    c = whole_step()
    sizes = data.draw(some_of.lists(some_of.sampled_from([0, 1, 63, 64, 520, 65_537, 262_144, 262_145, 560_000]), min_size=1, max_size=3))
    tensors = [torch.randint(0, 256, (size,), dtype=torch.uint8, generator=torch.Generator().manual_seed(size)) for size in sizes]
    before = native_weights._fingerprint(tensors, c, 1)
    assert before == native_weights._fingerprint([tensor.clone() for tensor in tensors], c, 3)
    places = [(i, tensor) for i, tensor in enumerate(tensors) if len(tensor)]
    if places:
        _, tensor = data.draw(some_of.sampled_from(places))
        wanted = data.draw(some_of.lists(some_of.integers(0, len(tensor) - 1), min_size=1, max_size=3, unique=True))
        tensor[wanted] ^= data.draw(some_of.sampled_from([1, 16, 128]))
        assert native_weights._fingerprint(tensors, c, 1) != before


@needs_compiler
def test_a_fingerprint_tells_signs_apart():
    """Highest bits, an even number of times at every place: they must not cancel."""
    c, weights = whole_step(), torch.randn(4096, generator=torch.Generator().manual_seed(0))
    assert native_weights._fingerprint([weights], c, 1) != native_weights._fingerprint([-weights], c, 1)


@needs_compiler
def test_a_fingerprint_tells_orders_apart():
    c, parts = whole_step(), [torch.full((262_144 // 4,), float(i)) for i in range(3)]
    orders = [torch.cat([parts[i] for i in order]) for order in ((0, 1, 2), (1, 0, 2), (2, 1, 0), (1, 1, 1))]
    assert len({native_weights._fingerprint([order], c, 1) for order in orders}) == 4
    assert len({native_weights._fingerprint([part, parts[0][:n]], c, 1) for part in parts for n in (0, 1, 2)}) == 9


@needs_compiler
def test_it_is_compiled_once(monkeypatch):
    assert native.library(SOURCE) is not None
    native.library.cache_clear()
    run = native.subprocess.run

    def only_the_version(command, **more):
        assert command[1:] == ["--version"]
        return run(command, **more)

    monkeypatch.setattr(native.subprocess, "run", only_the_version)
    assert native.library(SOURCE) is not None


@needs_compiler
def test_another_header_makes_another_library(monkeypatch, tmp_path):
    for path in native.FOLDER.glob("*.h"):
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(native, "FOLDER", tmp_path)
    first = native.library(SOURCE)._name
    with (tmp_path / "products.h").open("a") as header:
        header.write("/* changed */\n")
    native.library.cache_clear()
    assert native.library(SOURCE)._name != first


def test_small_numbers_are_still_there_after_loading():
    native.library(SOURCE)
    assert (torch.tensor(1e-39) * 0.5).item() > 0  # some compilers' libraries switch them off for the whole program


@pytest.mark.parametrize("why", ["switched off", "no compiler", "a compiler that fails", "another pool of threads"])
def test_without_it_pytorch_does_the_work(why, monkeypatch, tmp_path):
    if why == "switched off":
        monkeypatch.setenv("TINY_NATIVE", "0")
    elif why == "no compiler":
        monkeypatch.setattr(native.shutil, "which", lambda name: None)
    elif why == "a compiler that fails":
        monkeypatch.setattr(native.shutil, "which", lambda name: "false")
        monkeypatch.setenv("TINY_CACHE", str(tmp_path))
    else:
        monkeypatch.setattr(native, "_thread_pools", iter(range(9)).__next__)
    assert native.library(SOURCE) is None
    model, greedy = opinionated("rotary"), SampleConfig(temperature=0, max_tokens=20)
    assert DecodeStep(model, KVCache(model.config, 1)).native is None
    text = TextGenerator(model, CharTokenizer(SYMBOLS)).generate_ids([[2, 3]], greedy)
    assert text == [naive_generate(model, [2, 3], greedy)]


@needs_compiler
def test_other_types_and_many_texts_are_left_to_pytorch():
    model = opinionated("rotary")
    assert native_step(model, KVCache(model.config, MOST_ITEMS)) is not None
    assert native_step(model, KVCache(model.config, MOST_ITEMS + 1)) is None
    assert native_step(model, KVCache(model.config, 1, max_len=13)) is None  # more columns than there are angles
    assert native_step(model, KVCache(model.config, 1, dtype=torch.float64)) is None
    assert native_step(model.double(), KVCache(model.config, 1)) is None
