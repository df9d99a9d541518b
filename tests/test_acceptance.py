"""Accepting and rejecting guesses: every outcome enumerated, and the sum must be the target's distribution to the last digits."""

import itertools
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tiny_transformer.config import SampleConfig
from tiny_transformer.sampling import acceptance
from tiny_transformer.sampling.acceptance import accept, expected_speedup, expected_tokens, overlap, residual
from tiny_transformer.sampling.strategies import next_token_distribution

VOCAB = 3
SETTINGS = {
    "as learned": SampleConfig(temperature=1, top_k=None),
    "cold": SampleConfig(temperature=0.5, top_k=None),
    "greedy": SampleConfig(temperature=0),
    "top-k": SampleConfig(temperature=1, top_k=2),
    "top-p": SampleConfig(temperature=1.2, top_k=None, top_p=0.7),
    "min-p": SampleConfig(temperature=1, top_k=None, min_p=0.5),
    "penalty": SampleConfig(temperature=1, top_k=None, repetition_penalty=1.7),
}


def language(seed, config):
    """p(token | text) of an invented model, after the settings' rules: a function from texts (tuples) to (VOCAB,) float64."""

    @cache
    def distribution(text):
        logits = torch.from_numpy(np.random.default_rng([seed, *text, len(text)]).normal(0, 1.5, (1, VOCAB)))
        return next_token_distribution(logits, [list(text)] if text else None, config)[0]

    return distribution


def outcomes(p, q, text, guesses):
    """Everything that one step can do to a text: (its new tokens, the probability).

    A guess is accepted for uniforms below p / q, and for none above: both sides of that edge are tried, a hair from it.
    """
    for new in itertools.product(range(VOCAB), repeat=guesses):
        draft = [q(text + new[:i]) for i in range(guesses)]
        target = torch.stack([p(text + new[:i]) for i in range(guesses + 1)])
        made = np.prod([float(draft[i][t]) for i, t in enumerate(new)])
        if made == 0:
            continue
        rates = [min(1.0, float(target[i][t] / draft[i][t])) for i, t in enumerate(new)]
        for stop in range(guesses + 1):
            chance = made * np.prod(rates[:stop]) * (1 - rates[stop] if stop < guesses else 1.0)
            if chance == 0:
                continue
            uniforms = [rate * (1 - 1e-9) for rate in rates[:stop]] + [rate * (1 + 1e-9) for rate in rates[stop:]]
            accepted, rest = accept(draft, target, list(new), uniforms)
            assert accepted == stop
            for token in range(VOCAB):
                yield (*new[:stop], token), chance * float(rest[token])


def written(p, q, guesses, length):
    """The probability of every text of `length` tokens that steps write one after the other."""
    found = dict.fromkeys(itertools.product(range(VOCAB), repeat=length), 0.0)
    waiting = {(): 1.0}
    while waiting:
        grown = {}
        for text, weight in waiting.items():
            for new, chance in outcomes(p, q, text, guesses):
                longer = text + new
                if len(longer) >= length:
                    found[longer[:length]] += weight * chance
                else:
                    grown[longer] = grown.get(longer, 0.0) + weight * chance
        waiting = grown
    return found


def largest_error(p, q, guesses, length=3):
    """Against the chain rule: p(a) p(b | a) p(c | a, b)."""
    return max(
        abs(chance - np.prod([float(p(text[:i])[token]) for i, token in enumerate(text)]))
        for text, chance in written(p, q, guesses, length).items()
    )


@pytest.mark.parametrize("guesses", [0, 1, 2, 3])
@pytest.mark.parametrize("name", SETTINGS)
def test_the_distribution_is_the_targets(name, guesses):
    p, q = language(1, SETTINGS[name]), language(2, SETTINGS[name])
    assert largest_error(p, q, guesses) < 1e-12


def test_a_draft_under_other_rules_is_as_good():
    p, q = language(1, SETTINGS["as learned"]), language(2, SETTINGS["greedy"])
    assert largest_error(p, q, 2) < 1e-12


def test_a_wrong_residual_is_noticed(monkeypatch):
    p, q = language(1, SETTINGS["as learned"]), language(2, SETTINGS["as learned"])
    for wrong in (lambda target, draft: target, lambda target, draft: (target - draft).abs() / (target - draft).abs().sum()):
        monkeypatch.setattr(acceptance, "residual", wrong)
        assert largest_error(p, q, 2) > 0.01


def distributions(draw):
    weights = st.lists(st.one_of(st.just(0.0), st.floats(1e-6, 1.0)), min_size=5, max_size=5).filter(lambda w: sum(w) > 0)
    p, q = (torch.tensor(draw(weights), dtype=torch.float64) for _ in range(2))
    return p / p.sum(), q / q.sum()


@hypothesis_settings(deadline=None)
@given(st.data())
def test_what_is_accepted_and_what_is_drawn_after_add_up(data):
    p, q = distributions(data.draw)
    rest = residual(p, q)
    torch.testing.assert_close(torch.minimum(p, q) + (1 - overlap(p, q)) * rest, p, atol=1e-12, rtol=0)
    assert rest.min() >= 0 and abs(float(rest.sum()) - 1) < 1e-12
    assert not (rest[p == 0] > 0).any()


def test_equal_distributions_leave_nothing_to_draw_but_the_target():
    p = torch.tensor([0.25, 0.75], dtype=torch.float64)
    assert residual(p, p).tolist() == p.tolist()
    assert residual(p, p * (1 + 1e-15)).tolist() == p.tolist()  # rounding alone
    assert accept(p[None], torch.stack((p, p)), [1], [1 - 2**-53])[0] == 1


def test_impossible_guesses_are_never_accepted():
    p, q = torch.tensor([[0.0, 1.0], [0.5, 0.5]]), torch.tensor([[1.0, 0.0]])
    accepted, rest = accept(q, p, [0], [0.0])
    assert accepted == 0 and rest.tolist() == [0.0, 1.0]


def test_rows_of_a_batch_have_their_own_residual():
    p = torch.tensor([[0.5, 0.5], [0.2, 0.8]])
    q = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    torch.testing.assert_close(residual(p, q), torch.tensor([[0.0, 1.0], [0.2, 0.8]]))
    torch.testing.assert_close(overlap(p, q), torch.tensor([0.6, 1.0]))


def test_expected_tokens_are_those_of_a_simulation():
    random = np.random.default_rng(0)
    for rate, guesses in ((0.3, 4), (0.8, 3), (1.0, 5), (0.0, 2)):
        right = random.random((20_000, guesses)) < rate
        counted = 1 + right.cumprod(axis=1).sum(axis=1).mean()
        assert abs(counted - expected_tokens(rate, guesses)) < 0.05
        if rate < 1:
            assert expected_tokens(rate, guesses) == pytest.approx((1 - rate ** (guesses + 1)) / (1 - rate))
    assert expected_speedup(0.8, 4, 0.0) == expected_tokens(0.8, 4)
    assert expected_speedup(1.0, 4, 0.25) == 2.5
