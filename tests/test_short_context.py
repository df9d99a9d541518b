"""Short sequences first: which batches are drawn, that a step stays as large, and that nothing else changes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tiny_transformer import attention, attention_products
from tiny_transformer.config import ConfigError, ModelConfig, TrainConfig
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.run import Run
from tiny_transformer.training import loop as loops
from tiny_transformer.training.dataset import batch_at
from tiny_transformer.training.trainer import Trainer
from tiny_transformer.utils.reference import reference_path

IDS = np.random.default_rng(0).integers(12, size=900)
MODEL = ModelConfig(vocab_size=12, max_seq_len=16, d_model=16, n_layers=1, n_heads=2, position="rotary")
SETTINGS = TrainConfig(
    max_steps=10, batch_size=4, short_context=4, short_share=0.6, warmup_steps=2, eval_every=100, eval_tokens=100, save_every=5,
    device="cpu", precision="float32",
)  # fmt: skip


def trainer(settings=SETTINGS, config=MODEL, **more):
    return Trainer(TinyTransformerLM(config, seed=0), None, IDS[:700], IDS[700:], settings, **more)


def test_first_many_short_rows_then_few_long_ones(monkeypatch):
    seen = []

    def watched(ids, rows, seq_len, seed, step, order):
        seen.append((step, rows, seq_len))
        return batch_at(ids, rows, seq_len, seed, step, order)

    monkeypatch.setattr(loops, "batch_at", watched)
    trainer().fit()
    assert seen == [(step, 16, 4) if step < 6 else (step, 4, 16) for step in range(10)]


def test_a_step_has_as_many_tokens_as_ever():
    shapes = set()
    for share in (0.0, 0.59, 0.6, 1.0):
        fixed = trainer()
        fixed._share = lambda share=share: share
        rows, seq = fixed._batch_shape()
        shapes.add((rows, seq))
        assert rows * seq == SETTINGS.batch_size * MODEL.max_seq_len
    assert shapes == {(16, 4), (4, 16)}


def test_the_clock_decides_where_there_is_one():
    timed = trainer(replace(SETTINGS, minutes=1.0))

    class Clock:
        def __init__(self, share):
            self.at = share

        def share(self):
            return self.at

    timed.progress.step = 9  # late in steps, early in time
    timed.budget = Clock(0.1)
    assert timed._batch_shape() == (16, 4)
    timed.budget = Clock(0.7)
    assert timed._batch_shape() == (4, 16)


def test_without_it_nothing_changes():
    assert trainer(replace(SETTINGS, short_context=None))._batch_shape() == (4, 16)


def test_a_share_of_nothing_is_the_plain_training():
    first, second = trainer(replace(SETTINGS, short_share=0.0)), trainer(replace(SETTINGS, short_context=None))
    first.fit(), second.fit()
    for one, other in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_resumed_across_the_change_it_is_the_same_to_the_bit(tmp_path):
    whole = trainer(run=Run.create(tmp_path / "whole", {}))
    whole.fit()
    half = trainer(replace(SETTINGS, max_steps=10), run=Run.create(tmp_path / "half", {}))
    half._is_complete = lambda: half.progress.step >= 5
    half.fit()
    resumed = Trainer.resume(Run.open(tmp_path / "half"), IDS[:700], IDS[700:], SETTINGS)
    assert resumed.progress.step == 5
    resumed.fit()
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_losses_are_measured_in_whole_contexts():
    assert abs(trainer().evaluate(IDS[700:]) - trainer(replace(SETTINGS, short_context=None)).evaluate(IDS[700:])) < 1e-12


def test_each_length_is_compiled_for_itself(monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "compile", lambda model, **how: asked.append(how) or model)
    trainer(replace(SETTINGS, compile=True, max_steps=1)).fit()
    trainer(replace(SETTINGS, compile=True, max_steps=1, short_context=None)).fit()
    assert asked == [{"dynamic": False}, {}]


@pytest.mark.parametrize(("field", "value"), [("short_context", 0), ("short_context", -4), ("short_share", -0.1), ("short_share", 1.5)])
def test_what_cannot_be_is_refused(field, value):
    with pytest.raises(ConfigError, match=f"{field}={value}"):
        replace(SETTINGS, **{field: value})


def test_a_length_that_does_not_divide_the_context_is_refused():
    with pytest.raises(ConfigError, match="short_context=5: it must divide max_seq_len=16.*short_context=8"):
        trainer(replace(SETTINGS, short_context=5))


# ------------------------------------------------------------ attention in halves, which makes long rows cheap


@pytest.mark.parametrize("seq", [1, 7, 127, 128, 129, 200])
def test_parts_are_the_whole(seq):
    generator = torch.Generator().manual_seed(seq)
    query, key, value = (torch.randn(2, 3, seq, 8, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(3))
    weight = torch.randn(2, 3, seq, 8, generator=generator, dtype=torch.float64)
    ours = attention.attend_in_parts(query, key, value)
    gradients = torch.autograd.grad((ours * weight).sum(), (query, key, value))
    whole = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    expected = torch.autograd.grad((whole * weight).sum(), (query, key, value))
    assert torch.allclose(ours, whole, atol=1e-12)
    for one, other in zip(gradients, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-12)


@pytest.mark.parametrize(("seq", "keys"), [(64, [64]), (attention_products.HALVES, [64, 128]), (201, [100, 201])])
def test_what_is_compiled_takes_halves_from_some_length_on(seq, keys, monkeypatch):
    seen = []
    readable = attention.scaled_dot_product_attention

    def watched(query, key, value, mask):
        seen.append(key.size(-2))
        return readable(query, key, value, mask)

    model = TinyTransformerLM(replace(MODEL, max_seq_len=256), seed=0)
    ids = torch.randint(12, (1, seq), generator=torch.Generator().manual_seed(0))
    with monkeypatch.context() as patched:
        patched.setattr(attention, "scaled_dot_product_attention", watched)
        patched.setattr(torch.compiler, "is_compiling", lambda: True)
        logits = model(ids)
    assert seen == keys
    with reference_path():
        assert torch.allclose(logits, model(ids), atol=1e-5)
