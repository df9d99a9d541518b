"""Strategies against brute force and transformers; the draw; the measures."""

import doctest
import math
from collections import Counter
from importlib import import_module

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from tiny_transformer.config import SAMPLING_PRESETS, ConfigError, SampleConfig
from tiny_transformer.sampling.measures import distinct_n, longest_overlap, repeated_share
from tiny_transformer.sampling.strategies import (
    apply_temperature,
    choose,
    min_p,
    next_token_distribution,
    pick,
    repetition_penalty,
    top_k,
    top_p,
)

NOTHING = SampleConfig(temperature=1, top_k=None)
# Few different values, so that ties are the rule.
tied_logits = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=12)
shares = st.floats(0.01, 1.0)


def kept(logits):
    return {i for i, value in enumerate(logits.tolist()) if value != -math.inf}


def by_likelihood(logits):
    """Ids, likeliest first, the lower id first at ties."""
    return sorted(range(len(logits)), key=lambda i: (-logits[i], i))


def softmax(logits):
    weights = [math.exp(value - max(logits)) for value in logits]
    return [weight / sum(weights) for weight in weights]


def random_logits(*shape, seed=0, scale=2.0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


# top-k


@given(tied_logits, st.integers(1, 15))
def test_top_k_keeps_exactly_the_k_likeliest(logits, k):
    out = top_k(torch.tensor(logits), k)
    assert kept(out) == set(by_likelihood(logits)[:k])
    assert all(out[i] == logits[i] for i in kept(out))


@given(st.lists(st.lists(st.integers(-3, 3).map(float), min_size=6, max_size=6), min_size=2, max_size=6), st.integers(1, 7))
def test_rows_are_filtered_by_their_own_values(rows, k):
    together = torch.tensor(rows)
    for strategy in (lambda x: top_k(x, k), lambda x: top_p(x, 0.6), lambda x: min_p(x, 0.3), lambda x: apply_temperature(x, 0)):
        assert torch.equal(strategy(together), torch.stack([strategy(row) for row in together]))
        assert torch.equal(strategy(together[:, None]), strategy(together)[:, None])


def test_top_k_of_a_square_batch_compares_each_row_with_its_own_value():
    rows = torch.tensor([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0], [300.0, 200.0, 100.0]])  # (batch, vocab) with batch = vocab
    assert torch.isfinite(top_k(rows, 1)).tolist() == [[False, False, True], [False, False, True], [True, False, False]]


@pytest.mark.parametrize("k", [None, 65, 66, 200, 10**9])
def test_a_k_as_large_as_the_vocabulary_keeps_all(k):
    logits = random_logits(3, 65)
    assert torch.equal(top_k(logits, k), logits)


@given(tied_logits)
def test_top_k_of_one_is_greedy(logits):
    assert kept(top_k(torch.tensor(logits), 1)) == kept(apply_temperature(torch.tensor(logits), 0)) == {by_likelihood(logits)[0]}


# top-p and min-p


@given(tied_logits, shares)
def test_top_p_keeps_the_smallest_set_that_reaches_p(logits, p):
    probabilities, order = softmax(logits), by_likelihood(logits)
    sums = np.cumsum([probabilities[i] for i in order])
    assume(min(abs(sums - p)) > 1e-5)
    count = 1 + sum(1 for total in sums[:-1] if total < p)
    assert kept(top_p(torch.tensor(logits), p)) == set(order[:count])


def test_top_p_keeps_the_token_that_crosses_p():
    logits = torch.tensor([0.1, 0.5, 0.15, 0.25]).log()
    assert kept(top_p(logits, 0.6)) == {1, 3}
    assert kept(top_p(logits, 0.76)) == {1, 2, 3}
    assert kept(top_p(logits, 1e-9)) == {1}


@pytest.mark.parametrize("n, p, count", [(10, 0.5, 5), (10, 0.3, 3), (4, 0.75, 3), (1000, 0.1, 100)])
def test_top_p_does_not_hang_on_rounding(n, p, count):
    assert kept(top_p(torch.zeros(n), p)) == set(range(count))
    assert kept(top_p(torch.tensor([0.5, 0.3, 0.2]).log(), 0.8)) == {0, 1}


@pytest.mark.parametrize("p", [0.05, 0.5, 0.9, 0.999])
def test_top_p_of_a_large_vocabulary_looks_further_where_it_must(p):
    flat, steep = random_logits(5000, scale=0.5), random_logits(5000, scale=5)
    for rows in (flat[None], steep[None], torch.stack((flat, steep))):
        for logits, out in zip(rows, top_p(rows, p), strict=True):
            order = logits.argsort(descending=True)
            sums = logits.double().softmax(-1)[order].cumsum(-1)
            assert kept(out) == set(order[: int((sums < p).sum()) + 1].tolist())


@given(tied_logits, shares)
def test_min_p_is_relative_to_the_likeliest(logits, p):
    ratios = [math.exp(value - max(logits)) for value in logits]
    assume(all(abs(ratio - p) > 1e-6 or ratio == p for ratio in ratios))
    assert kept(min_p(torch.tensor(logits), p)) == {i for i, ratio in enumerate(ratios) if ratio >= p}


def test_none_and_one_change_nothing():
    logits = random_logits(2, 9)
    for out in (top_k(logits, None), top_p(logits, None), top_p(logits, 1.0), min_p(logits, None), apply_temperature(logits, 1)):
        assert torch.equal(out, logits)
    assert torch.equal(repetition_penalty(logits, [[1], [2]], 1.0), logits)


@given(tied_logits, st.integers(1, 12), shares, shares)
def test_filters_leave_survivors_as_they_are_and_always_leave_one(logits, k, p, m):
    given_logits = torch.tensor(logits)
    out = min_p(top_p(top_k(given_logits, k), p), m)
    assert by_likelihood(logits)[0] in kept(out)
    assert all(out[i] == given_logits[i] for i in kept(out))
    assert given_logits.tolist() == logits  # pure


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_filters_keep_dtype_and_earlier_removals(dtype):
    logits = torch.tensor([[1.0, -math.inf, 3.0, 2.0], [0.0, 5.0, -math.inf, -math.inf]], dtype=dtype)
    for out in (top_k(logits, 3), top_p(logits, 0.99999), min_p(logits, 0.01), apply_temperature(logits, 2.0)):
        assert out.dtype == dtype
        assert (out[0, 1], out[1, 2], out[1, 3]) == (-math.inf, -math.inf, -math.inf)
        assert torch.isfinite(out[0, 2:]).all() and math.isfinite(out[1, 1])


# temperature and repetition


@given(tied_logits, st.floats(0.01, 100))
def test_temperature_divides(logits, temperature):
    assert apply_temperature(torch.tensor(logits), temperature).tolist() == pytest.approx([x / temperature for x in logits], rel=1e-6)


def test_temperature_zero_is_greedy_with_the_lowest_id_at_ties():
    logits = torch.tensor([[1.0, 7.0, 7.0], [-5.0, -6.0, -5.0]])
    inf = math.inf
    for temperature in (0, 0.0, 1e-300):
        assert apply_temperature(logits, temperature).tolist() == [[-inf, 0.0, -inf], [0.0, -inf, -inf]]
    assert next_token_distribution(logits, None, SampleConfig(temperature=0)).tolist() == [[0, 1, 0], [1, 0, 0]]


@pytest.mark.parametrize("temperature", [1e-19, 1e-6, 1e6, 1e30])
def test_extreme_temperatures_give_finite_probabilities(temperature):
    probabilities = next_token_distribution(random_logits(2, 9, scale=50), None, SampleConfig(temperature=temperature))
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(2))


@given(st.data())
def test_repetition_penalty_by_hand(data):
    vocab, rows = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 4))
    logits = [data.draw(st.lists(st.floats(-5, 5, width=32), min_size=vocab, max_size=vocab)) for _ in range(rows)]
    previous = [data.draw(st.lists(st.integers(0, vocab - 1), max_size=6)) for _ in range(rows)]
    penalty = data.draw(st.floats(0.5, 3))
    out = repetition_penalty(torch.tensor(logits), previous, penalty)
    for row in range(rows):
        expected = [(x / penalty if x > 0 else x * penalty) if i in previous[row] else x for i, x in enumerate(logits[row])]
        assert out[row].tolist() == pytest.approx(expected, rel=1e-5, abs=1e-30)
    width = max(map(len, previous))
    padded = torch.tensor([[-1] * (width - len(ids)) + ids for ids in previous], dtype=torch.long).view(rows, width)
    assert torch.equal(repetition_penalty(torch.tensor(logits), padded, penalty), out)


def test_repetition_penalty_names_what_does_not_fit():
    with pytest.raises(ValueError, match="run from 0 to 5: they must lie in 0 to 4, -1 for padding"):
        repetition_penalty(torch.zeros(5), [0, 5], 2.0)
    with pytest.raises(ValueError, match="one row for each row of logits"):
        repetition_penalty(torch.zeros(2, 5), [0, 1], 2.0)


# the whole


def transformers_chain(logits, previous, config):
    from transformers import MinPLogitsWarper, RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    chain = []
    if config.repetition_penalty != 1:
        chain.append(RepetitionPenaltyLogitsProcessor(config.repetition_penalty))
    if config.temperature != 1:
        chain.append(TemperatureLogitsWarper(float(config.temperature)))
    if config.top_k:
        chain.append(TopKLogitsWarper(config.top_k))
    if config.top_p:
        chain.append(TopPLogitsWarper(config.top_p))
    if config.min_p:
        chain.append(MinPLogitsWarper(config.min_p))
    for processor in chain:
        logits = processor(previous, logits)
    return logits.softmax(-1)


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.7},
        {"top_k": 5},
        {"top_p": 0.7},
        {"min_p": 0.1},
        {"repetition_penalty": 1.8},
        {"temperature": 0.4, "top_p": 0.8},
        {"temperature": 2.5, "min_p": 0.3},
        {"top_k": 6, "top_p": 0.8},
        {"top_p": 0.9, "min_p": 0.2},
        {"temperature": 1.7, "top_k": 12, "top_p": 0.85, "min_p": 0.15, "repetition_penalty": 1.3},
        {"temperature": 0.5, "repetition_penalty": 0.7, "top_k": 500},
    ],
    ids=str,
)
def test_one_by_one_and_together_equal_transformers(settings):
    config = SampleConfig(**{"temperature": 1, "top_k": None, **settings})
    logits = random_logits(40, 50)
    previous = torch.randint(50, (40, 7), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        next_token_distribution(logits, previous, config), transformers_chain(logits, previous, config), atol=1e-6, rtol=1e-5
    )


def test_the_order_is_the_stated_one():
    logits = torch.tensor([0.5, 0.3, 0.2]).log()
    # Temperature first: 0.5 sharpens (0.5, 0.3, 0.2) to (0.66, 0.24, 0.11), of which the first alone reaches 0.6.
    assert kept(next_token_distribution(logits, None, SampleConfig(temperature=0.5, top_k=None, top_p=0.6)).log()) == {0}
    # Top-k before top-p: of (0.5, 0.3), renormalised, the first alone reaches 0.6.
    assert kept(next_token_distribution(logits, None, SampleConfig(temperature=1, top_k=2, top_p=0.6)).log()) == {0}
    # The penalty before everything: the sign is that of the model's own logits.
    out = next_token_distribution(torch.tensor([1.0, 1.0]), torch.tensor([0]), SampleConfig(temperature=1, repetition_penalty=2))
    torch.testing.assert_close(out, torch.tensor([0.5, 1.0]).softmax(-1))


def test_presets():
    assert {name: (c.temperature, c.top_k) for name, c in SAMPLING_PRESETS.items()} == {
        "focused": (0.3, 5),
        "balanced": (0.8, 40),
        "creative": (1.2, 200),
    }
    for config in SAMPLING_PRESETS.values():
        assert (config.top_p, config.min_p, config.repetition_penalty, config.beams) == (None, None, 1.0, 1)


def test_creative_with_65_characters_keeps_all_of_them():
    logits = random_logits(4, 65)
    probabilities = next_token_distribution(logits, None, SAMPLING_PRESETS["creative"])
    torch.testing.assert_close(probabilities, (logits / 1.2).softmax(-1))
    assert (probabilities > 0).all()


@pytest.mark.parametrize(
    "call",
    [
        lambda x: apply_temperature(x, -0.1),
        lambda x: apply_temperature(x, math.inf),
        lambda x: apply_temperature(x, math.nan),
        lambda x: top_k(x, 0),
        lambda x: top_k(x, -3),
        lambda x: top_p(x, 0.0),
        lambda x: top_p(x, 1.01),
        lambda x: min_p(x, -0.5),
        lambda x: min_p(x, 2),
        lambda x: repetition_penalty(x, [0], 0.0),
        lambda x: repetition_penalty(x, [0], -1.0),
    ],
)
def test_impossible_settings_are_refused_in_one_line(call):
    with pytest.raises(ConfigError, match="must be") as error:
        call(torch.zeros(4))
    assert "\n" not in str(error.value)


# the draw


@given(st.lists(st.sampled_from([0.0, 0.0, 1e-30, 0.1, 0.25, 1.0]), min_size=1, max_size=12), st.floats(0, 1, exclude_max=True))
def test_choose_is_the_inverse_of_the_cumulated_probabilities(weights, u):
    assume(sum(weights) > 0)
    probabilities = torch.tensor(weights, dtype=torch.float64) / sum(weights)
    chosen = int(choose(probabilities, u))
    assert probabilities[chosen] > 0
    sums = probabilities.cumsum(-1)
    assert sums[chosen] > u * sums[-1] or chosen == int(probabilities.nonzero()[-1])
    assert chosen == 0 or sums[chosen - 1] <= u * sums[-1] or not probabilities[:chosen].any()


@pytest.mark.parametrize("u, token", [(0.0, 1), (0.2499, 1), (0.25, 3), (0.4999, 3), (0.5, 4), (0.9999, 4)])
def test_each_token_has_the_interval_that_includes_its_beginning(u, token):
    assert int(choose(torch.tensor([0.0, 0.25, 0.0, 0.25, 0.5, 0.0]), u)) == token


@pytest.mark.parametrize("u", [0.0, 1 - 2**-53, 1.0, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_choose_never_takes_a_token_of_probability_zero(u, dtype):
    generator = torch.Generator().manual_seed(0)
    for vocab in (4, 65, 50_000):
        probabilities = torch.rand(8, vocab, generator=generator).to(dtype)
        probabilities[:, 0] = probabilities[:, -1] = probabilities[:, vocab // 2] = 0
        probabilities = probabilities / probabilities.sum(-1, keepdim=True)
        probabilities[0] = 0
        probabilities[0, 1] = 1
        chosen = choose(probabilities, torch.full((8,), u, dtype=torch.float64))
        assert (probabilities.gather(-1, chosen[:, None]) > 0).all()
        if u >= 1 - 2**-53 and vocab > 4:
            assert (chosen[1:] == vocab - 2).all()
        if u == 0:
            assert (chosen == 1).all()


def test_choose_resolves_small_probabilities():
    vocab = 2**20  # in float32, cumulated sums of 2^-20 near 1 still differ, but not those below 2^-24
    probabilities = torch.full((vocab,), 2.0**-20)
    for place in (0, 1, vocab // 3, vocab - 2, vocab - 1):
        assert int(choose(probabilities, (place + 0.5) / vocab)) == place
    tail = torch.tensor([1.0, 2.0**-30, 2.0**-30])
    assert int(choose(tail, (1 + 1.5 * 2.0**-30) / (1 + 2.0**-29))) == 2


def test_choose_follows_the_frequencies():
    logits = torch.tensor([2.0, 1.0, -math.inf, 0.0, -1.0, 2.0])
    n = 100_000
    u = torch.from_numpy(np.random.default_rng(0).random(n))
    counts = torch.bincount(choose(logits.softmax(-1).expand(n, -1), u), minlength=6)
    expected = n * logits.double().softmax(-1)
    assert counts[2] == 0
    alive = expected > 0
    chi_square = ((counts - expected).square()[alive] / expected[alive]).sum()
    assert chi_square < 18.5  # 4 degrees of freedom: more than that in 1 case of 1,000


@pytest.mark.parametrize("probabilities", [[[math.nan, math.nan]], [[0.0, 0.0]], [[0.5, 0.5], [math.nan, 1.0]]])
def test_choose_refuses_broken_probabilities(probabilities):
    with pytest.raises(ValueError, match="NaN"):
        choose(torch.tensor(probabilities), torch.zeros(len(probabilities)))


@pytest.mark.parametrize("settings", [{"temperature": 0}, {"temperature": 0, "repetition_penalty": 3.0}, {}, {"top_k": None}], ids=str)
def test_pick_refuses_broken_logits(settings):
    for value in (math.nan, -math.inf):
        logits = torch.full((2, 400), value)
        logits[0] = 0.0
        with pytest.raises(ValueError, match="NaN"):
            pick(logits, torch.zeros(2, 1, dtype=torch.long), SampleConfig(**settings), torch.zeros(2))


@pytest.mark.parametrize("vocab", [9, 400])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0},
        {"temperature": 0, "repetition_penalty": 5.0},
        {"top_k": 5},
        {"top_k": 90, "top_p": 0.7, "min_p": 0.05},
        {"top_k": 7, "repetition_penalty": 2.0, "temperature": 1.5},
        {"top_k": None, "top_p": 0.9},
    ],
    ids=str,
)
def test_pick_is_choose_of_the_distribution(vocab, tied, settings):
    config = SampleConfig(**settings)
    logits = random_logits(300, vocab)
    logits = logits.round() if tied else logits
    previous = torch.randint(-1, vocab, (300, 4), generator=torch.Generator().manual_seed(2))
    u = torch.from_numpy(np.random.default_rng(3).random(300))
    assert torch.equal(pick(logits, previous, config, u), choose(next_token_distribution(logits, previous, config), u))


@pytest.mark.parametrize(
    "module",
    ["sampling.strategies", "sampling.measures", "tokenization.incremental_text", "context_window", "sampling_rules", "beam_hypotheses"],
)
def test_docstring_examples(module):
    result = doctest.testmod(import_module(f"tiny_transformer.{module}"), extraglobs={"torch": torch})
    assert result.attempted and not result.failed


# measures


def all_runs(text):
    return {text[i:j] for i in range(len(text)) for j in range(i, len(text) + 1)}


@given(st.text("ab", max_size=14), st.integers(1, 4))
def test_distinct_and_repeated_by_counting(text, n):
    counts = Counter(text[i : i + n] for i in range(len(text) - n + 1))
    total = sum(counts.values())
    assert distinct_n(text, n) == (len(counts) / total if total else 0)
    assert repeated_share(text, n) == pytest.approx(sum(c - 1 for c in counts.values()) / total if total else 0)
    assert distinct_n(list(text), n) == distinct_n(text, n)


def test_distinct_n_needs_a_length():
    with pytest.raises(ValueError, match="n=0"):
        distinct_n("abc", 0)


@given(st.text("ab\n", max_size=14), st.text("ab\n", max_size=14))
def test_longest_overlap_by_trying_all(sample, source):
    found = longest_overlap(sample, source)
    shared = all_runs(sample) & all_runs(source) | {""}
    assert found.length == len(found.text) == max(map(len, shared))
    assert sample[found.start : found.start + found.length] == found.text
    assert source[found.source_start : found.source_start + found.length] == found.text
    best = [run for run in shared if len(run) == found.length]
    assert found.start == min(sample.find(run) for run in best)
    assert found.source_start == source.find(found.text)


def test_longest_overlap_in_a_long_source():
    symbols = np.array(list("abcdefgh "))
    draw = np.random.default_rng(0)
    source = "".join(symbols[draw.integers(9, size=300_000)])
    sample = "".join(symbols[draw.integers(9, size=200)]) + source[123_456:123_506] + "".join(symbols[draw.integers(9, size=200)])
    found = longest_overlap(sample, source)
    assert found.length >= 50 and source[123_456:123_506] in found.text
    assert found.source_start + (200 - found.start) == 123_456


@pytest.mark.parametrize("ids", [[0, 1], torch.tensor([0, 1]), torch.tensor([[0, 1]]), np.array([0, 1]), {0, 1}, [*torch.tensor([0, 1])]])
@pytest.mark.parametrize("shape", [(3,), (1, 3)])
def test_one_row_of_previous_ids_with_or_without_its_batch_dimension(ids, shape):
    logits = torch.tensor([2.0, -1.0, 3.0]).reshape(shape)
    assert repetition_penalty(logits, ids, 2.0).flatten().tolist() == [1.0, -2.0, 3.0]
    assert torch.equal(repetition_penalty(logits, [], 2.0), logits)
