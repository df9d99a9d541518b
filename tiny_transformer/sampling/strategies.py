"""How the next token is chosen: filters from logits to logits, their order, and the draw.

Every filter takes and returns (…, vocab) and sets what it removes to -inf. Where two tokens are equally likely, the one with the
lower id counts as the likelier, everywhere: so greedy, top-k and top-p keep exact and repeatable sets.
Left out: the model and the loop around it (`generator.py`). Read before: `SampleConfig` in `config.py`, `sampling_rules.py`.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tiny_transformer.config import SampleConfig
from tiny_transformer.numpy_engine import strategies as by_numpy
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

FEW = 16_384
"""As many logits, or fewer, are NumPy's work in `pick`."""


def apply_temperature(logits: Tensor, temperature: float) -> Tensor:
    """logits / temperature: below 1 sharper, above 1 flatter. Shape (…, vocab).

    Temperature 0 is the limit, greedy: the likeliest token gets 0 and all others -inf.

    >>> apply_temperature(torch.tensor([1.0, 3.0, 3.0]), 0).tolist()
    [-inf, 0.0, -inf]

    Raises ConfigError for a negative or infinite temperature.
    """
    check_setting("temperature", temperature)
    if temperature >= SMALLEST_TEMPERATURE:
        return logits / temperature
    likeliest = logits.argmax(-1, keepdim=True)  # the first one where there are several
    return torch.full_like(logits, -torch.inf).scatter(-1, likeliest, 0.0)


def top_k(logits: Tensor, k: int | None) -> Tensor:
    """Keep exactly the k likeliest tokens (Fan et al. 2018). Shape (…, vocab).

    None, or a k as large as the vocabulary, keeps all.

    >>> top_k(torch.tensor([[1.0, 2.0, 3.0], [6.0, 5.0, 4.0]]), 2).tolist()
    [[-inf, 2.0, 3.0], [6.0, 5.0, -inf]]

    Raises ConfigError for k below 1.
    """
    check_setting("top_k", k)
    if k is None or k >= logits.size(-1):
        return logits
    kth = torch.topk(logits, k, dim=-1).values[..., -1:]  # (…, 1): each row is compared with its own k-th value
    return _keep_likeliest(logits, kth, k)


def top_p(logits: Tensor, p: float | None) -> Tensor:
    """Keep the smallest set of likeliest tokens whose probability reaches p (Holtzman et al. 2020, "nucleus"). Shape (…, vocab).

    The token that crosses p is kept, so at least one always is. None or 1 keeps all.

    >>> top_p(torch.tensor([0.5, 0.3, 0.2]).log(), 0.6).exp().tolist()[2]       # 0.5 is not enough, 0.5 + 0.3 is
    0.0

    Raises ConfigError for p outside (0, 1].
    """
    check_setting("top_p", p)
    if p is None or p == 1:
        return logits
    vocab = logits.size(-1)
    exact = _float64(logits)
    whole = exact.logsumexp(-1, keepdim=True)  # (…, 1)
    for candidates in sorted({min(FIRST_LOOK, vocab), vocab}):
        values = torch.topk(exact, candidates, dim=-1).values  # (…, candidates), likeliest first
        reached = (values - whole).exp().cumsum(-1)  # (…, candidates)
        if candidates == vocab or bool((reached[..., -1] >= p).all()):
            break
    # A token stays while those before it have not reached p: all that fall short, and the one that crosses.
    count = ((reached < p * (1 - ROUNDING)).sum(-1, keepdim=True) + 1).clamp(max=candidates)  # (…, 1)
    return _keep_likeliest(logits, values.gather(-1, count - 1).to(logits), count.to(logits.device))


def min_p(logits: Tensor, p: float | None) -> Tensor:
    """Keep tokens at least p times as likely as the likeliest one (Nguyen et al. 2024). Shape (…, vocab). None keeps all.

    A ratio of probabilities is a difference of logits, so no softmax is needed.

    Raises ConfigError for p outside (0, 1].
    """
    check_setting("min_p", p)
    if p is None:
        return logits
    least = logits.amax(-1, keepdim=True) + math.log(p)  # (…, 1)
    return logits.masked_fill(logits < least, -torch.inf)


def repetition_penalty(logits: Tensor, previous_ids: Tensor | Sequence[Any], penalty: float) -> Tensor:
    """Make tokens that already occurred less likely: positive logits divided, negative ones multiplied (Keskar et al. 2019, 4.1).

    Shapes: logits (…, vocab) and previous_ids (…, n) with the same leading dimensions; entries of -1 are padding. Lists of
    ids, one per row and of any lengths, are taken too; for a single row (n,) is enough. How often a token occurred makes no
    difference.

    >>> repetition_penalty(torch.tensor([2.0, -1.0, 3.0]), [0, 1, 1], 2.0).tolist()
    [1.0, -2.0, 3.0]

    Raises ConfigError for a penalty that is not positive, and ValueError for ids outside the vocabulary.
    """
    check_setting("repetition_penalty", penalty)
    if penalty == 1:
        return logits
    ids = previous_ids if isinstance(previous_ids, Tensor) else torch.from_numpy(as_rows(previous_ids))
    ids = ids.to(logits.device, torch.long)
    vocab = logits.size(-1)
    if logits.numel() == vocab and ids.shape[:-1].numel() == 1:  # one row of each, with or without a batch dimension
        ids = ids.reshape(*logits.shape[:-1], -1)
    lowest, highest = (int(ids.min()), int(ids.max())) if ids.numel() else (-1, -1)
    check_previous(tuple(ids.shape), tuple(logits.shape), lowest, highest)
    seen = torch.zeros(*logits.shape[:-1], vocab + 1, dtype=torch.bool, device=logits.device)
    seen = seen.scatter(-1, ids.masked_fill(ids < 0, vocab), True)[..., :vocab]  # padding falls into the extra column
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def next_token_distribution(logits: Tensor, previous_ids: Tensor | Sequence[Any] | None, config: SampleConfig) -> Tensor:
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
    return torch.softmax(logits, dim=-1)


def choose(probabilities: Tensor, u: Tensor | float) -> Tensor:
    """The token at height u of the cumulated probabilities: (…, vocab) and u (…) in [0, 1) to ids (…).

    Cumulated in float64, where 50,000 small numbers still add up. A token of probability zero is never chosen, for any u:
    it is left out of the comparison, and u is kept below the sum that was really reached. Probabilities need not sum to 1.

    >>> choose(torch.tensor([0.25, 0.0, 0.75]), torch.tensor(0.25)).item()
    2

    Raises ValueError where no token has a probability (a broken model's NaN).
    """
    exact = _float64(probabilities)
    height = torch.as_tensor(u, dtype=torch.float64, device=exact.device).clamp(max=HIGHEST)[..., None]  # (…, 1)
    reached = torch.where(exact > 0, exact.cumsum(-1), -torch.inf)  # (…, vocab)
    whole = reached.amax(-1, keepdim=True)  # (…, 1)
    check_finite(float(whole.sum()))
    return (reached > height * whole).view(torch.uint8).argmax(-1).to(probabilities.device)  # the first one above


def pick(logits: Tensor, previous_ids: Tensor | None, config: SampleConfig, u: Tensor | float) -> Tensor:
    """The next token of each row, `choose(next_token_distribution(…), u)`, by the shortest way: (…, vocab) to ids (…).

    Greedy needs no distribution. With top-k on a large vocabulary everything after the first cut works on k numbers, not 50,000.
    Few numbers on a processor are NumPy's work: the same rules (`numpy_engine/strategies.py`) in half the time, nearly all of
    which is the starting of operations.
    """
    if logits.device.type == "cpu" and logits.dtype == torch.float32 and logits.numel() <= FEW:
        before = None if previous_ids is None else previous_ids.numpy()
        height = u.numpy() if isinstance(u, Tensor) else u
        return torch.from_numpy(np.asarray(by_numpy.pick(logits.detach().numpy(), before, config, height)))
    if config.repetition_penalty != 1 and previous_ids is not None:
        logits = repetition_penalty(logits, previous_ids, config.repetition_penalty)
    if config.temperature < SMALLEST_TEMPERATURE:
        best, ids = logits.max(-1)
        check_finite(float(best.sum()))
        return ids
    short = _shortlist(logits, config.top_k)
    if short is None:
        return choose(next_token_distribution(logits, None, config), u)
    place = choose(next_token_distribution(logits.gather(-1, short), None, config), u)  # (…), in the short list
    return short.gather(-1, place[..., None])[..., 0]


def _shortlist(logits: Tensor, k: int | None) -> Tensor | None:
    """The ids that top-k keeps, in ascending order (…, k); None where the list would not be short, or a tie makes it ambiguous."""
    if k is None or 4 * k >= logits.size(-1):
        return None
    values, ids = torch.topk(logits, k + 1, dim=-1)
    if bool((values[..., -1] == values[..., -2]).any()):
        return None
    return ids[..., :-1].sort(dim=-1).values


def _keep_likeliest(logits: Tensor, least: Tensor, count: Tensor | int) -> Tensor:
    """Keep `count` tokens of each row: those above `least`, the count-th largest value, and of the ties with it the first ones."""
    below = logits < least
    wanted = count * (logits.numel() // logits.size(-1)) if isinstance(count, int) else int(count.sum())
    if logits.numel() - int(below.count_nonzero()) == wanted:
        return logits.masked_fill(below, -torch.inf)  # no ties to settle
    ties = logits == least
    room = count - (logits > least).sum(-1, keepdim=True)  # (…, 1), for ties
    return logits.masked_fill(below | (ties & (ties.cumsum(-1) > room)), -torch.inf)


def _float64(x: Tensor) -> Tensor:
    return x.cpu().double() if x.device.type == "mps" else x.double()  # Apple's GPUs have no float64


if __name__ == "__main__":
    logits = torch.tensor([[2.0, 1.0, 0.5, -1.0]])
    previous = torch.tensor([[0, 0, 3]])
    print("logits", tuple(logits.shape), logits.tolist())
    for settings in (
        SampleConfig(temperature=1, top_k=None),
        SampleConfig(temperature=0.5, top_k=2),
        SampleConfig(temperature=1, top_k=None, top_p=0.8),
        SampleConfig(temperature=1, top_k=None, min_p=0.3),
        SampleConfig(temperature=1, top_k=None, repetition_penalty=2.0),
        SampleConfig(temperature=0),
    ):
        probabilities = next_token_distribution(logits, previous, settings)
        print([round(p, 3) for p in probabilities[0].tolist()], "u = 0.7 chooses", choose(probabilities, torch.tensor([0.7])).tolist())
