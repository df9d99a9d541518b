"""What counting expects: against Kneser-Ney by dictionaries that really leaves each place out; shuffled windows; both engines."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny_transformer.config import ConfigError, ModelConfig, TrainConfig
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.numpy_engine import objectives as by_hand
from tiny_transformer.numpy_engine.model import TinyTransformerLM as NumpyLM
from tiny_transformer.numpy_engine.trainer import Trainer as NumpyTrainer
from tiny_transformer.training import counted_targets as counting
from tiny_transformer.training import objectives
from tiny_transformer.training.counted_targets import counted_targets
from tiny_transformer.training.dataset import IGNORE, Batch, batch_at, shuffled_starts, windows_per_epoch
from tiny_transformer.training.objectives import Expected
from tiny_transformer.training.trainer import Trainer

BEGIN = -1
texts = st.lists(st.integers(0, 3), min_size=2, max_size=40)


# ------------------------------------------------------------ the counts, by dictionaries and one place at a time


def grams(ids, order, without=None):
    """How often each (context, token) comes, for each length of the context."""
    found = [Counter() for _ in range(order + 1)]
    padded = [BEGIN] * order + list(ids)
    for i in range(len(ids) - 1):
        if i != without:
            for k in range(order + 1):
                found[k][tuple(padded[order + i + 1 - k : order + i + 1]), ids[i + 1]] += 1
    return found


def kneser_ney(found, discounts, context, vocab):
    """P(· | context) as Chen & Goodman write it, by recursion."""
    k = len(context)
    shorter = kneser_ney(found, discounts, context[1:], vocab) if k else [1 / vocab] * vocab
    counts = [found[k][context, v] for v in range(vocab)]
    total = sum(counts)
    if total == 0:
        return shorter
    taken = [discounts[k][min(count, 3)] for count in counts]
    return [(count - less + sum(taken) * p) / total for count, less, p in zip(counts, taken, shorter, strict=True)]


def continuations(found):
    """Below the longest context: how many different tokens stood before."""
    result = [Counter() for _ in found]
    result[-1] = found[-1]
    for k in range(len(found) - 1):
        for (context, token), times in found[k + 1].items():
            if times:
                result[k][context[1:], token] += 1
    return result


def expected_discounts(found):
    result = []
    for counts in found:
        n = Counter(counts.values())
        if min(n[1], n[2], n[3]) == 0:
            result.append([0, 0.5, 0.5, 0.5])
            continue
        y = n[1] / (n[1] + 2 * n[2])
        each = [0] + [(i - (i + 1) * y * n[i + 1] / n[i]) for i in (1, 2, 3)]
        result.append([min(max(d, 0), i) for i, d in enumerate(each)])
    return result


def by_dictionaries(ids, vocab, order):
    discounts = expected_discounts(continuations(grams(ids, order)))
    padded = [BEGIN] * order + list(ids)
    rows = []
    for i in range(len(ids) - 1):
        found = continuations(grams(ids, order, without=i))
        rows.append(kneser_ney(found, discounts, tuple(padded[i + 1 : order + i + 1]), vocab))
    return np.array(rows)


@settings(max_examples=60, deadline=None)
@given(ids=texts, order=st.integers(0, 4))
def test_each_place_is_really_left_out(ids, order):
    found = counted_targets(np.array(ids), 4, order)
    assert found.rows.shape == (len(ids),) and found.rows.dtype == np.int32 and found.table.dtype == np.float16
    assert np.allclose(found.table[found.rows[:-1]], by_dictionaries(ids, 4, order), atol=2e-3)


def test_a_longer_text_with_estimated_discounts(monkeypatch):
    generator = np.random.default_rng(0)
    ids = [0, 1]
    for _ in range(220):  # a grammar with chance in it: counts of one, two, three and more at every level
        ids.append(int((ids[-1] * 2 + ids[-2] + generator.choice(3, p=[0.6, 0.3, 0.1])) % 5))
    found = counted_targets(np.array(ids), 5, 3)
    estimated = expected_discounts(continuations(grams(ids, 3)))
    assert sum(values != [0, 0.5, 0.5, 0.5] for values in estimated) >= 2
    right = by_dictionaries(ids, 5, 3)
    assert np.allclose(found.table[found.rows[:-1]], right, atol=1e-3)
    monkeypatch.setattr(counting, "ROWS", 7)
    assert np.array_equal(counted_targets(np.array(ids), 5, 3).table, found.table)


@settings(max_examples=60, deadline=None)
@given(ids=texts, order=st.integers(0, 5))
def test_rows_are_distributions(ids, order):
    table = counted_targets(np.array(ids), 4, order).table.astype(np.float64)
    assert (table >= 0).all() and np.allclose(table.sum(1), 1, atol=4e-3)


def test_leaving_out_is_what_keeps_the_counts_honest():
    """Of tokens that chance alone has chosen, nobody can know the next one better than evenly."""
    ids = np.random.default_rng(1).integers(0, 8, 3000)
    found = counted_targets(ids, 8, 5)
    own = found.table[found.rows[:-1], ids[1:]].astype(np.float64)
    assert math.log(8) - 0.01 < -np.log(own).mean() < math.log(8) + 0.25


@pytest.mark.parametrize("ids", [[], [1]])
def test_a_text_without_a_next_token_is_refused(ids):
    with pytest.raises(ValueError, match="two at least"):
        counted_targets(np.array(ids, dtype=np.int64), 4)


def test_a_table_that_would_fill_the_memory_is_refused(monkeypatch):
    monkeypatch.setattr(counting, "MOST_BYTES", 100)
    with pytest.raises(ConfigError, match="smaller counted_order"):
        counted_targets(np.arange(40) % 7, 7, 2)
    with pytest.raises(ConfigError, match="counted_order=-1"):
        counted_targets(np.arange(40) % 7, 7, -1)


@pytest.mark.parametrize(
    ("counts", "right"),
    [
        ([1, 2, 3, 3, 3, 3, 3], [0, 1 / 3, 0, 3]),  # 2 - 3/3 · 5 is below 0: a tiny text must not add where it should take away
        ([1, 1, 1, 2, 2, 3, 4], [0, 1 - 12 / 21, 2 - 9 / 14, 3 - 12 / 7]),
        ([1, 1, 2], [0, 0.5, 0.5, 0.5]),
    ],
)
def test_discounts_lie_between_nothing_and_the_count(counts, right):
    assert np.allclose(counting.discounts(np.array(counts)), right)


# ------------------------------------------------------------ the loss


def some(seed=0, vocab=6, shape=(3, 4)):
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(*shape, vocab))
    targets = generator.integers(0, vocab, shape)
    targets[0, 1] = IGNORE
    probabilities = generator.dirichlet(np.ones(vocab), shape).astype(np.float16)
    return logits, targets, probabilities


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_soft_targets_are_pytorchs_targets_of_probabilities(share, reduction):
    logits, targets, probabilities = some()
    asked = targets != IGNORE
    mixed = (1 - share) * np.eye(6)[targets[asked]] + share * probabilities[asked].astype(np.float64)
    z = torch.tensor(logits[asked], requires_grad=True)
    right = torch.nn.functional.cross_entropy(z, torch.tensor(mixed), reduction=reduction)
    (gradient,) = torch.autograd.grad(right, z)
    ours = torch.tensor(logits, requires_grad=True)
    loss = objectives.soft_cross_entropy(ours, torch.tensor(targets), torch.tensor(probabilities), share, reduction)
    assert torch.allclose(loss, right, rtol=1e-12)
    found = torch.autograd.grad(loss, ours)[0]
    assert np.allclose(found[torch.tensor(asked)], gradient, atol=1e-12) and not found[0, 1].any()
    hand, cache = by_hand.soft_cross_entropy(logits, targets, probabilities, share, reduction)
    assert math.isclose(hand, right.item(), rel_tol=1e-9)
    dlogits = by_hand.soft_cross_entropy_backward(cache)
    assert np.allclose(dlogits[asked], gradient, atol=1e-12) and not dlogits[0, 1].any()


def test_with_no_share_it_is_the_plain_loss():
    logits, targets, probabilities = some(2)
    plain, _ = by_hand.cross_entropy(logits, targets)
    assert by_hand.soft_cross_entropy(logits, targets, probabilities, 0.0)[0] == plain


def test_soft_targets_of_sixteen_bits_are_computed_in_thirty_two():
    logits, targets, probabilities = (torch.tensor(part) for part in some(3))
    rough = logits.bfloat16()
    loss = objectives.soft_cross_entropy(rough, targets, probabilities, 0.5)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, objectives.soft_cross_entropy(rough.float(), targets, probabilities, 0.5))


def test_another_reduction_is_refused():
    logits, targets, probabilities = (torch.tensor(part) for part in some())
    with pytest.raises(ConfigError, match="reduction='summe'"):
        objectives.soft_cross_entropy(logits, targets, probabilities, 0.5, "summe")


def test_where_nothing_is_asked_the_mean_is_nothing():
    logits, targets, probabilities = some(4)
    nothing = np.full_like(targets, IGNORE)
    assert objectives.soft_cross_entropy(torch.tensor(logits), torch.tensor(nothing), torch.tensor(probabilities), 0.5) == 0
    assert by_hand.soft_cross_entropy(logits, nothing, probabilities, 0.5)[0] == 0


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_a_models_loss_and_gradients_heed_the_reduction(reduction):
    """The mean of a batch is its sum divided by the targets that were asked for, and so is every gradient."""
    model = TinyTransformerLM(ModelConfig(vocab_size=6, max_seq_len=4, d_model=8, n_layers=1, n_heads=2), seed=0)
    twin = NumpyLM(model.config, {name: weight.double().numpy() for name, weight in model.weights().items()})
    _, targets, probabilities = some(5)
    batch = Batch(np.zeros((3, 4), np.int64), targets)
    total, gradients = twin.loss_and_gradients(batch, reduction="sum", expected=Expected(probabilities, 0.4))
    loss, found = twin.loss_and_gradients(batch, reduction=reduction, expected=Expected(probabilities, 0.4))
    share = 1 if reduction == "sum" else 1 / 11
    assert math.isclose(loss, total * share, rel_tol=1e-12)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(found[name], gradient * share, rtol=1e-9, atol=1e-12)


# ------------------------------------------------------------ shuffled windows


@settings(max_examples=60, deadline=None)
@given(length=st.integers(6, 200), seq=st.integers(1, 5), epoch=st.integers(0, 3), seed=st.integers(0, 5))
def test_an_epoch_asks_for_no_token_twice_and_leaves_few_out(length, seq, epoch, seed):
    starts = shuffled_starts(length, seq, seed, epoch)
    asked = (starts[:, None] + 1 + np.arange(seq)).reshape(-1)
    assert len(set(asked)) == len(asked) == seq * windows_per_epoch(length, seq)
    assert asked.min() >= 1 and asked.max() <= length - 1
    assert length - 1 - len(asked) < 2 * seq


def test_batches_walk_through_the_epochs():
    ids = np.arange(100)
    rows = np.concatenate([batch_at(ids, 7, 10, 3, step, "shuffled").inputs[:, 0] for step in range(9)])  # 63 windows, 9 an epoch
    epochs = rows.reshape(7, 9)
    for number, epoch in enumerate(epochs):
        assert np.array_equal(epoch, shuffled_starts(100, 10, 3, number))
        assert len(set(epoch % 10)) == 1  # end to end
    assert len({tuple(np.sort(epoch)) for epoch in epochs}) > 1  # cut at other places
    assert len({tuple(np.argsort(epoch)) for epoch in epochs}) == 7  # in other orders
    assert not np.array_equal(shuffled_starts(100, 10, 3, 0), shuffled_starts(100, 10, 4, 0))


@pytest.mark.parametrize("length", [11, 12, 20, 21, 22])
def test_a_short_text_still_has_a_window_and_every_token_is_reached(length):
    seen = np.concatenate([shuffled_starts(length, 10, 0, epoch) for epoch in range(200)])
    asked = {int(start) + 1 + i for start in seen for i in range(10)}
    assert asked == set(range(1, length))


def test_one_batch_may_hold_several_epochs():
    batch = batch_at(np.arange(12), 5, 10, 0, 0, "shuffled")
    assert batch.inputs.shape == (5, 10) and np.array_equal(batch.targets, batch.inputs + 1)


@pytest.mark.parametrize("length", [0, 5, 10])
def test_too_short_a_text_is_refused_as_ever(length):
    with pytest.raises(ValueError, match="window"):
        batch_at(np.arange(length), 2, 10, 0, 0, "shuffled")


# ------------------------------------------------------------ in training

MODEL = ModelConfig(vocab_size=7, max_seq_len=8, d_model=16, n_layers=1, n_heads=2)
SETTINGS = TrainConfig(
    max_steps=6, batch_size=4, counted_share=0.5, counted_order=2, windows="shuffled", short_context=4, short_share=0.5, accumulate=3,
    eval_every=100, save_every=100, precision="float32", threads=1,
)  # fmt: skip
IDS = np.random.default_rng(0).integers(0, 7, 300)


def pair(settings=SETTINGS):
    model = TinyTransformerLM(MODEL, seed=0)
    theirs = NumpyLM(MODEL, {name: weight.numpy().copy() for name, weight in model.weights().items()})
    return Trainer(model, None, IDS, IDS[:50], settings), NumpyTrainer(theirs, None, IDS, IDS[:50], settings)


def test_both_engines_learn_the_same():
    ours, theirs = pair()
    ours.fit(), theirs.fit()
    for name, weight in theirs.model.weights().items():
        assert np.allclose(ours.model.weights()[name], weight, atol=1e-5), name


def test_the_distribution_asked_for_is_that_of_the_place():
    trainer, _ = pair()
    counted = counted_targets(IDS, 7, 2)
    for step in (0, 2, 4):
        trainer.progress.step = step
        questions, _ = trainer._questions()
        assert sum(len(question.batch.inputs) for question in questions) == (8 if step < 3 else 4)
        for batch, expected in questions:
            assert expected.share == 0.5 and expected.probabilities.shape == (*batch.targets.shape, 7)
            for row, targets, rows in zip(batch.inputs, batch.targets, expected.probabilities, strict=True):
                whole = np.append(row, targets[-1])
                start = next(i for i in range(300) if np.array_equal(IDS[i : i + len(whole)], whole))
                assert np.array_equal(rows, counted.table[counted.rows[start : start + len(row)]])


def test_it_changes_what_is_learned_and_only_there():
    with_counts, without = pair()[0], pair(replace(SETTINGS, counted_share=0.0))[0]
    ids = np.arange(30) % 7
    assert with_counts.evaluate(ids) == without.evaluate(ids)  # a measured loss knows nothing of counts
    with_counts.fit(), without.fit()
    weights = with_counts.model.weights(), without.model.weights()
    assert not all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize("more", [{"fresh": lambda epoch: IDS}, {"objective": lambda ids: objectives.causal(ids)}])
def test_counts_need_a_text_that_stays_and_the_next_token(more):
    with pytest.raises(ConfigError, match="counted_share"):
        Trainer(TinyTransformerLM(MODEL, seed=0), None, IDS, IDS[:50], SETTINGS, **more)


@pytest.mark.parametrize("wrong", [{"counted_share": 1.5}, {"counted_share": -0.1}, {"counted_order": -1}, {"windows": "sorted"}])
def test_wrong_settings_are_named(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        TrainConfig(**wrong)
