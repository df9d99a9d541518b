"""Readable or fused: the choice holds in its own thread only, and the compiler sees one whole model."""

import asyncio
import contextvars
import threading

import pytest
import torch
from torch._dynamo import explain

from tiny_transformer.attention import record_weights
from tiny_transformer.config import PRESETS, ModelConfig
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.training import objectives
from tiny_transformer.utils.reference import TraceableVar, is_reference, reference_path

SMALL = {"d_model": 16, "n_layers": 2, "n_heads": 2, "max_seq_len": 8}


def test_blocks_nest_and_end():
    assert not is_reference()
    with pytest.raises(KeyError), reference_path():
        with reference_path():
            assert is_reference()
        assert is_reference()
        raise KeyError
    assert not is_reference()


def test_other_threads_do_not_notice():
    seen = []
    with reference_path():
        thread = threading.Thread(target=lambda: seen.append(is_reference()))
        thread.start()
        thread.join()
        assert seen == [False] and is_reference()


def test_other_tasks_do_not_notice():
    async def inside():
        with reference_path():
            await asyncio.sleep(0)
            return is_reference()

    async def outside():
        await asyncio.sleep(0)
        return is_reference()

    async def both():
        return await asyncio.gather(inside(), outside())

    assert asyncio.run(both()) == [True, False]


def test_it_behaves_as_a_context_variable():
    ours, theirs = TraceableVar("x", 0), contextvars.ContextVar("y", default=0)
    tokens = []
    for value in (1, 2, 3):
        tokens.append((ours.set(value), theirs.set(value)))
        assert ours.get() == theirs.get() == value
    for mine, other in reversed(tokens):
        ours.reset(mine)
        theirs.reset(other)
        assert ours.get() == theirs.get()
    assert ours._times_set == 0  # so that it can be looked through again


def test_many_threads_leave_nothing_behind():
    variable = TraceableVar("x", 0)

    def work():
        for value in range(300):
            variable.reset(variable.set(value))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert variable._times_set == 0 and variable.get() == 0


@pytest.mark.parametrize(
    "config",
    [PRESETS["tiny"], ModelConfig(**SMALL), ModelConfig(**SMALL, position="alibi"), ModelConfig(**SMALL, window=3, activation="swiglu")],
    ids=lambda config: config.position + config.activation,
)
def test_the_compiler_sees_one_whole_model(config):
    torch._dynamo.reset()
    found = explain(TinyTransformerLM(config, seed=0).train())(torch.zeros(2, 8, dtype=torch.long))
    assert (found.graph_count, found.graph_break_count) == (1, 0), found.break_reasons


def test_the_compiler_sees_one_whole_loss(monkeypatch):
    monkeypatch.setattr(objectives, "_all_asked", lambda *_: False)  # on the CPU only: it looks at values
    torch._dynamo.reset()
    logits, targets = torch.randn(2, 3, 7), torch.tensor([[1, 2, -100], [0, 6, 3]])
    loss = torch.compile(objectives.cross_entropy, backend="eager", fullgraph=True)
    assert torch.equal(loss(logits, targets, reduction="sum"), objectives.cross_entropy(logits, targets, reduction="sum"))


def test_what_is_compiled_still_hears_of_the_choice():
    torch._dynamo.reset()
    model, ids = TinyTransformerLM(ModelConfig(**SMALL), seed=0).eval(), torch.arange(8)[None]
    compiled = torch.compile(model, backend="eager")
    plain = compiled(ids)
    with record_weights() as weights:
        recorded = compiled(ids)
    assert [tuple(layer.shape) for layer in weights] == [(1, 2, 8, 8)] * 2  # each attention's own, though the compiler was there
    assert torch.allclose(plain, recorded, atol=1e-5) and torch.equal(plain, compiled(ids))
