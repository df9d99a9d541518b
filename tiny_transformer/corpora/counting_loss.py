"""How well counting alone predicts a text that was not counted: a yardstick that says how hard a text is, before any model is trained.

The estimate of a token is mixed from what followed its last three, two, one and no tokens in the training text, each as far as it has been
seen often enough (Witten & Bell 1991; Chen & Goodman 1999, section 2.5). On Tiny Shakespeare this reaches 1.77 nats per character;
`text_statistics.conditional_entropy` counts and measures on one text, which flatters when most combinations occur once.
Leaves out models. Read before: `text_statistics.py`.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiny_transformer.config import check

Whole = NDArray[np.integer[Any]]
ORDER = 4
"""Tokens of the longest combinations that are counted: three that are known and the one to predict."""


def ngram_loss(train_ids: Whole, val_ids: Whole, vocab_size: int, order: int = ORDER) -> float:
    """Mean loss in nats per token of predicting `val_ids` (m,) from counts of up to `order` tokens in `train_ids` (n,).

        p(w | h) = (count(h w) + kinds(h) · p(w | h without its first token)) / (count(h) + kinds(h))

    where kinds(h) is how many different tokens followed h; below no token at all stands 1 / vocab_size. The first
    tokens of `val_ids` are predicted from what comes before them in it.

    >>> round(ngram_loss(np.arange(400) % 4, np.arange(40) % 4, 4), 1)      # each follows from the one before
    0.1

    Raises ConfigError for a text below two tokens, or ids outside the vocabulary.
    """
    train, val = np.asarray(train_ids, dtype=np.int64), np.asarray(val_ids, dtype=np.int64)
    for name, ids in (("training", train), ("validation", val)):
        check(ids.ndim == 1 and len(ids) >= 2, f"a {name} text of shape {ids.shape}", "it must have 2 or more tokens", "Give more text")
        inside = ids.min() >= 0 and ids.max() < vocab_size
        check(bool(inside), f"ids {ids.min()} to {ids.max()}", f"they must lie in 0 to {vocab_size - 1}", "Use the model's tokenizer")
    chance = np.full(len(val), 1 / vocab_size)
    before_train: Whole = np.zeros(len(train), dtype=np.int64)  # the number of each token's history
    before_val: Whole = np.zeros(len(val), dtype=np.int64)
    for known in range(order):
        _mix(chance[known:], before_train, train[known:], before_val, val[known:], vocab_size)
        before_train, before_val = _longer(before_train, train, before_val, val, known)
    return float(-np.log(chance).mean())


def witten_bell(count: Any, total: Any, kinds: Any, shorter: Any) -> Any:
    """(count + kinds · shorter) / (total + kinds): a token's chance after a history that occurred `total` times, more than never.

    `count` of these times the token followed, `kinds` different tokens did, and `shorter` is the chance after the history without its
    first token. Numbers or arrays that broadcast (Witten & Bell 1991, method C; interpolated as in Chen & Goodman 1999, section 2.5).
    """
    return (count + kinds * shorter) / (total + kinds)


def _mix(
    chance: NDArray[np.float64], before_train: Whole, train: Whole, before_val: Whole, val: Whole, vocab_size: int
) -> None:
    """One step of the recursion, in place: `chance` of each token of `val` given its history, from that given a shorter one."""
    if len(train) == 0 or len(val) == 0:
        return
    pairs, counts = np.unique(before_train * vocab_size + train, return_counts=True)
    histories = pairs // vocab_size
    size = int(max(before_train.max(), before_val.max())) + 1
    total = np.bincount(histories, weights=counts, minlength=size)[before_val]
    kinds = np.bincount(histories, minlength=size)[before_val]
    wanted = before_val * vocab_size + val
    place = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
    seen = np.where(pairs[place] == wanted, counts[place], 0)
    there = total > 0  # a history that never occurred says nothing
    chance[there] = witten_bell(seen[there], total[there], kinds[there], chance[there])


def _longer(before_train: Whole, train: Whole, before_val: Whole, val: Whole, known: int) -> tuple[Whole, Whole]:
    """Histories one token longer, for every token but the first: numbered anew over both texts, so that numbers stay small."""
    size = int(max(train.max(), val.max())) + 1
    longer = [before[:-1] * size + ids[known:-1] for before, ids in ((before_train, train), (before_val, val))]
    _, numbers = np.unique(np.concatenate(longer), return_inverse=True)
    return numbers[: len(longer[0])], numbers[len(longer[0]) :]


if __name__ == "__main__":
    from tiny_transformer.corpora.pitches import entropy, text

    codes = np.unique(np.frombuffer(text(200_000).encode("utf-32-le"), dtype="<u4"), return_inverse=True)[1]
    size = int(codes.max()) + 1
    for order in (1, 2, 3, 4, 5):
        print(f"pitches, {order - 1} characters known: {ngram_loss(codes[:180_000], codes[180_000:], size, order):.3f} nats per character")
    print(f"the source itself: {entropy():.3f}")
