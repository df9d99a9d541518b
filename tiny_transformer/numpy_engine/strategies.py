"""How the next token is chosen: filters from logits to logits, their order, and the draw. Mirrors `sampling/strategies.py`.

Every filter takes and returns (…, vocab) and sets what it removes to -inf. Where two tokens are equally likely, the one with the
lower id counts as the likelier, everywhere: so greedy, top-k and top-p keep exact and repeatable sets, the same as PyTorch's.
Left out: the model and the loop around it (`generator.py`). Read before: `SampleConfig` in `config.py`, `sampling_rules.py`.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tiny_transformer.config import SampleConfig
from tiny_transformer.numpy_engine.linear import Array
from tiny_transformer.sampling_rules import (
    FIRST_LOOK,
    HIGHEST,
    ROUNDING,
    SMALLEST_TEMPERATURE,
    as_rows,
    check_finite,
    check_previous,
    check_setting,
)


def apply_temperature(logits: Array, temperature: float) -> Array:
    """logits / temperature: below 1 sharper, above 1 flatter. Shape (…, vocab).

    Temperature 0 is the limit, greedy: the likeliest token gets 0 and all others -inf.

    >>> apply_temperature(np.array([1.0, 3.0, 3.0]), 0).tolist()
    [-inf, 0.0, -inf]

    Raises ConfigError for a negative or infinite temperature.
    """
    check_setting("temperature", temperature)
    if temperature >= SMALLEST_TEMPERATURE:
        return logits / temperature
    likeliest = logits.argmax(-1)[..., None]  # the first one where there are several
    out = np.full_like(logits, -np.inf)
    np.put_along_axis(out, likeliest, 0.0, axis=-1)
    return out


def top_k(logits: Array, k: int | None) -> Array:
    """Keep exactly the k likeliest tokens (Fan et al. 2018). Shape (…, vocab).

    None, or a k as large as the vocabulary, keeps all.

    >>> top_k(np.array([[1.0, 2.0, 3.0], [6.0, 5.0, 4.0]]), 2).tolist()
    [[-inf, 2.0, 3.0], [6.0, 5.0, -inf]]

    Raises ConfigError for k below 1.
    """
    check_setting("top_k", k)
    if k is None or k >= logits.shape[-1]:
        return logits
    kth = np.partition(logits, -k, axis=-1)[..., -k, None]  # (…, 1): each row is compared with its own k-th value
    return _keep_likeliest(logits, kth, k)


def top_p(logits: Array, p: float | None) -> Array:
    """Keep the smallest set of likeliest tokens whose probability reaches p (Holtzman et al. 2020, "nucleus"). Shape (…, vocab).

    The token that crosses p is kept, so at least one always is. None or 1 keeps all.

    >>> np.exp(top_p(np.log([0.5, 0.3, 0.2]), 0.6)).tolist()[2]       # 0.5 is not enough, 0.5 + 0.3 is
    0.0

    Raises ConfigError for p outside (0, 1].
    """
    check_setting("top_p", p)
    if p is None or p == 1:
        return logits
    vocab = logits.shape[-1]
    exact = logits.astype(np.float64)
    whole = _logsumexp(exact)  # (…, 1)
    for candidates in sorted({min(FIRST_LOOK, vocab), vocab}):
        values = _likeliest(exact, candidates)  # (…, candidates), likeliest first
        with np.errstate(invalid="ignore"):  # a damaged model's NaN is an error in `choose`
            reached = np.exp(values - whole).cumsum(-1)  # (…, candidates)
        if candidates == vocab or (reached[..., -1] >= p).all():
            break
    # A token stays while those before it have not reached p: all that fall short, and the one that crosses.
    count = np.minimum((reached < p * (1 - ROUNDING)).sum(-1, keepdims=True) + 1, candidates)  # (…, 1)
    return _keep_likeliest(logits, np.take_along_axis(values, count - 1, axis=-1).astype(logits.dtype), count)


def min_p(logits: Array, p: float | None) -> Array:
    """Keep tokens at least p times as likely as the likeliest one (Nguyen et al. 2024). Shape (…, vocab). None keeps all.

    A ratio of probabilities is a difference of logits, so no softmax is needed.

    Raises ConfigError for p outside (0, 1].
    """
    check_setting("min_p", p)
    if p is None:
        return logits
    least = logits.max(-1, keepdims=True) + math.log(p)  # (…, 1)
    return _masked(logits, logits < least)


def repetition_penalty(logits: Array, previous_ids: Array | Sequence[Any], penalty: float) -> Array:
    """Make tokens that already occurred less likely: positive logits divided, negative ones multiplied (Keskar et al. 2019, 4.1).

    Shapes: logits (…, vocab) and previous_ids (…, n) with the same leading dimensions; entries of -1 are padding. Lists of
    ids, one per row and of any lengths, are taken too; for a single row (n,) is enough. How often a token occurred makes no
    difference.

    >>> repetition_penalty(np.array([2.0, -1.0, 3.0]), [0, 1, 1], 2.0).tolist()
    [1.0, -2.0, 3.0]

    Raises ConfigError for a penalty that is not positive, and ValueError for ids outside the vocabulary.
    """
    check_setting("repetition_penalty", penalty)
    if penalty == 1:
        return logits
    ids = previous_ids if isinstance(previous_ids, np.ndarray) else as_rows(previous_ids)
    vocab = logits.shape[-1]
    if logits.size == vocab and math.prod(ids.shape[:-1]) == 1:  # one row of each, with or without a batch dimension
        ids = ids.reshape(*logits.shape[:-1], -1)
    lowest, highest = (int(ids.min()), int(ids.max())) if ids.size else (-1, -1)
    check_previous(ids.shape, logits.shape, lowest, highest)
    seen = np.zeros((*logits.shape[:-1], vocab + 1), dtype=bool)
    np.put_along_axis(seen, np.where(ids < 0, vocab, ids), True, axis=-1)  # padding falls into the extra column
    return np.where(seen[..., :vocab], np.where(logits > 0, logits / penalty, logits * penalty), logits)


def next_token_distribution(logits: Array, previous_ids: Array | Sequence[Any] | None, config: SampleConfig) -> Array:
    """What the next token is drawn from: (…, vocab) logits to (…, vocab) probabilities. The one place that fixes the order.

    1. Repetition penalty: it depends on the sign of the model's own logits, so it comes before anything moves them.
    2. Temperature: before top-p and min-p, since these look at probabilities, and must see the ones that will be drawn from.
    3. Top-k, 4. top-p, 5. min-p: each sees what the one before left over, renormalised. Top-k first: it is the cheapest.
    6. Softmax, which turns what was removed into exact zeros.
    """
    if config.repetition_penalty != 1 and previous_ids is not None:
        logits = repetition_penalty(logits, previous_ids, config.repetition_penalty)
    if config.temperature != 1:
        logits = apply_temperature(logits, config.temperature)
    logits = top_k(logits, config.top_k)
    logits = top_p(logits, config.top_p)
    logits = min_p(logits, config.min_p)
    with np.errstate(invalid="ignore"):  # a damaged model's NaN is an error in `choose`
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        probabilities: Array = weights / weights.sum(-1, keepdims=True)
    return probabilities


def choose(probabilities: Array, u: Array | float) -> Array:
    """The token at height u of the cumulated probabilities: (…, vocab) and u (…) in [0, 1) to ids (…).

    Cumulated in float64, where 50,000 small numbers still add up. A token of probability zero is never chosen, for any u:
    it is left out of the comparison, and u is kept below the sum that was really reached. Probabilities need not sum to 1.

    >>> int(choose(np.array([0.25, 0.0, 0.75]), 0.25))
    2

    Raises ValueError where no token has a probability (a broken model's NaN).
    """
    exact = probabilities.astype(np.float64)
    height = np.minimum(np.asarray(u, dtype=np.float64), HIGHEST)[..., None]  # (…, 1)
    reached = np.where(exact > 0, exact.cumsum(-1), -np.inf)  # (…, vocab)
    whole = reached.max(-1, keepdims=True)  # (…, 1)
    check_finite(float(whole.sum()))
    ids: Array = (reached > height * whole).argmax(-1)  # the first one above
    return ids


def pick(logits: Array, previous_ids: Array | None, config: SampleConfig, u: Array | float) -> Array:
    """The next token of each row, `choose(next_token_distribution(…), u)`, by the shortest way: (…, vocab) to ids (…).

    Greedy needs no distribution. With top-k on a large vocabulary everything after the first cut works on k numbers, not 50,000.
    """
    if config.repetition_penalty != 1 and previous_ids is not None:
        logits = repetition_penalty(logits, previous_ids, config.repetition_penalty)
    if config.temperature < SMALLEST_TEMPERATURE:
        check_finite(float(logits.max(-1).sum()))
        ids: Array = logits.argmax(-1)
        return ids
    short = _shortlist(logits, config.top_k)
    if short is None:
        return choose(next_token_distribution(logits, None, config), u)
    place = choose(next_token_distribution(np.take_along_axis(logits, short, axis=-1), None, config), u)  # (…), in the short list
    return np.take_along_axis(short, place[..., None], axis=-1)[..., 0]


def _shortlist(logits: Array, k: int | None) -> Array | None:
    """The ids that top-k keeps, in ascending order (…, k); None where the list would not be short, or a tie makes it ambiguous."""
    if k is None or 4 * k >= logits.shape[-1]:
        return None
    ids = np.argpartition(logits, (-k - 1, -k), axis=-1)[..., -k - 1 :]  # the (k+1)-th likeliest, the k-th, then the others
    values = np.take_along_axis(logits, ids[..., :2], axis=-1)
    if (values[..., 0] == values[..., 1]).any():
        return None
    return np.sort(ids[..., 1:], axis=-1)


def _keep_likeliest(logits: Array, least: Array, count: Array | int) -> Array:
    """Keep `count` tokens of each row: those above `least`, the count-th largest value, and of the ties with it the first ones."""
    below = logits < least
    wanted = count * (logits.size // logits.shape[-1]) if isinstance(count, int) else int(count.sum())
    if logits.size - np.count_nonzero(below) == wanted:
        return _masked(logits, below)  # no ties to settle
    ties = logits == least
    room = count - (logits > least).sum(-1, keepdims=True)  # (…, 1), for ties
    return _masked(logits, below | (ties & (ties.cumsum(-1) > room)))


def _masked(logits: Array, hidden: Array) -> Array:
    """Logits with -inf where `hidden`."""
    return np.where(hidden, logits.dtype.type(-np.inf), logits)


def _likeliest(logits: Array, count: int) -> Array:
    """The `count` largest values of each row, the largest first: (…, vocab) to (…, count)."""
    values = np.partition(logits, -count, axis=-1)[..., -count:] if count < logits.shape[-1] else logits
    return np.sort(values, axis=-1)[..., ::-1]


def _logsumexp(x: Array) -> Array:
    """log Σ exp(x) over the last dimension, left as 1."""
    highest = x.max(-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        total: Array = highest + np.log(np.exp(x - highest).sum(-1, keepdims=True))
    return total


if __name__ == "__main__":
    logits = np.array([[2.0, 1.0, 0.5, -1.0]])
    previous = np.array([[0, 0, 3]])
    print("logits", logits.shape, logits.tolist())
    for settings in (
        SampleConfig(temperature=1, top_k=None),
        SampleConfig(temperature=0.5, top_k=2),
        SampleConfig(temperature=1, top_k=None, top_p=0.8),
        SampleConfig(temperature=1, top_k=None, min_p=0.3),
        SampleConfig(temperature=1, top_k=None, repetition_penalty=2.0),
        SampleConfig(temperature=0),
    ):
        probabilities = next_token_distribution(logits, previous, settings)
        print(probabilities[0].round(3).tolist(), "u = 0.7 chooses", choose(probabilities, np.array([0.7])).tolist())
