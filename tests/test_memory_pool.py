"""Memory that is handed out again: never while somebody looks at it, and not kept for ever."""

import gc
import random
import threading

import pytest
import torch

from tests.compiler import needs_compiler
from tests.options import small_config
from tiny_transformer import block_by_hand, memory_pool
from tiny_transformer.memory_pool import PATIENCE, WASTE, MemoryPool
from tiny_transformer.model import TinyTransformerLM


@pytest.fixture
def made(monkeypatch):
    """The sizes of new pieces, in bytes."""
    sizes, plain = [], memory_pool._new
    monkeypatch.setattr(memory_pool, "_new", lambda size: sizes.append(size) or plain(size))
    return sizes


def test_a_piece_is_lent_again_when_nothing_looks_at_it_any_more(made):
    memory = MemoryPool()
    assert memory.take(5000).shape == (5000,) and memory.take(5000).dtype == torch.float32
    for alias in (lambda t: t[7:], lambda t: t.detach(), lambda t: t.view(50, 100).T, lambda t: t.numpy(), lambda t: t.untyped_storage()):
        first = memory.take(5000)
        place, look = first.data_ptr(), alias(first)
        del first
        gc.collect()
        others = [memory.take(5000), memory.take(5000)]
        assert place not in [other.data_ptr() for other in others]
        del look
        gc.collect()
        assert memory.take(5000).data_ptr() == place
        del others
    assert made == [20_000, 20_000, 20_000]


def test_numbers_stay_as_long_as_somebody_looks():
    memory, held = MemoryPool(), []
    for turn in range(200):
        piece = memory.take(random.Random(turn).randint(1, 3000)).fill_(turn)
        held.append((turn, piece[len(piece) // 2 :]))
        if turn % 3:
            held.pop(turn % len(held))
        assert all((numbers == value).all() for value, numbers in held)


def test_a_piece_much_larger_than_asked_for_is_not_lent(made):
    memory = MemoryPool()
    memory.take(10_000)
    for numbers in (10_000 // WASTE, 10_000 // WASTE - 1, 10_001):
        memory.take(numbers)
    assert made == [40_000, 4 * (10_000 // WASTE - 1), 40_004]


def test_the_smallest_that_fits_is_lent(made):
    memory = MemoryPool()
    pieces = [memory.take(n) for n in (1300, 1000, 1200)]
    smallest = pieces[1].data_ptr()
    del pieces
    assert memory.take(990).data_ptr() == smallest and len(made) == 3


def test_what_nobody_wants_goes_back_to_the_system():
    memory = MemoryPool()
    memory.take(1_000_000)
    for _ in range(PATIENCE + 1):
        memory.take(10)
    assert [len(piece) for _, piece in memory._idle] == [40]
    memory.take(1_000_000)
    for _ in range(PATIENCE - 1):
        memory.take(10)
    assert len(memory._idle) == 2


def test_many_threads_take_and_return():
    memory, wrong = MemoryPool(), []

    def work(me):
        for turn in range(300):
            piece = memory.take(200).fill_(me + turn)
            if not (piece == me + turn).all():
                wrong.append(me)

    workers = [threading.Thread(target=work, args=(me,)) for me in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong and len(memory._idle) <= 2 * 8  # the next is taken before the last comes back


def test_nothing_is_asked_for_is_one_number():
    assert MemoryPool().take(0).shape == (0,)


@needs_compiler
@pytest.mark.parametrize("again", [False, True])
def test_a_training_step_takes_no_new_memory_after_the_first(again, made, monkeypatch):
    """Not while the last step's loss, whose graph is spent, is still in a variable; nor with blocks computed again."""
    monkeypatch.setattr(block_by_hand, "_memory", MemoryPool())
    model = TinyTransformerLM(small_config("modern"), seed=0).train()
    model.checkpoint_layers = again
    ids, counts = torch.randint(17, (2, 9)), []
    for _ in range(8):
        loss = model(ids).square().mean()
        loss.backward()
        counts.append(len(made))
    assert counts == [2] * 8 or counts[1:] == [3] * 7


@needs_compiler
def test_a_hook_that_keeps_another_view_keeps_the_numbers():
    """What the backward pass needs may be held by more than the function that kept it."""
    model = TinyTransformerLM(small_config("gpt2"), seed=0).train()
    ids = torch.randint(17, (2, 9))
    expected = torch.autograd.grad(model(ids).square().mean(), list(model.parameters()))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.detach(), lambda t: t):
        loss = model(ids).square().mean()
    for _ in range(3):
        (model(ids.flip(0)) * 3).square().mean().backward()
    found = torch.autograd.grad(loss, list(model.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@needs_compiler
def test_blocks_computed_again_keep_no_more_than_one_of_them(made, monkeypatch):
    """The largest piece is what the blocks keep for the backward pass: all of them, or one."""
    model = TinyTransformerLM(small_config("gpt2", n_layers=6, d_model=64, d_ff=256, max_seq_len=64), seed=0).train()
    largest = []
    for model.checkpoint_layers in (False, True):
        monkeypatch.setattr(block_by_hand, "_memory", MemoryPool())
        made.clear()
        model(torch.randint(17, (16, 64))).square().mean().backward()
        largest.append(max(made))
    assert largest[1] < largest[0] / 2
