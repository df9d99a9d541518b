"""A draft without a network: the next token from counts of what followed the last few tokens before.

It counts in a text that it is given once (the training text, say) and in the text so far, which helps wherever a text repeats itself:
that part alone is known as prompt lookup (Saxena 2023). Contexts of all lengths up to `order` are mixed by Witten and Bell's rule.
Left out: what the guesses are good for (`speculative.py`). Read before: `corpora/counting_loss.py`.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tiny_transformer.config import check
from tiny_transformer.corpora.counting_loss import witten_bell


class NgramDraft:
    """p(token | last m tokens), for m = 0 to `order` mixed into one distribution that leaves no token out.

        p_m(w) = (count_m(w) + kinds_m · p_(m-1)(w)) / (total_m + kinds_m)          with p_(-1) = 1 / vocab

    A context is trusted by how often it occurred (total), and mistrusted by how many different tokens (kinds) followed it
    (Witten & Bell 1991, method C; interpolated as in Chen & Goodman 1998, section 2.4).
    """

    def __init__(self, vocab_size: int, text: Sequence[int] | NDArray[np.integer] = (), order: int = 5) -> None:
        """Count `text`, ids below vocab_size. Half a second for a million; nothing but sorted arrays is kept.

        Raises ConfigError for an order below 0. A large vocabulary takes a shorter one: an n-gram must fit into 63 bits.
        """
        check(order >= 0, f"order={order}", "it must be 0 or more", "Try order=5")
        self.vocab_size = vocab_size
        self.order = order
        while self.order and vocab_size ** (self.order + 1) >= 2**63:
            self.order -= 1
        ids = np.asarray(text, dtype=np.int64)
        self._tables = [self._table(ids, length + 1) for length in range(self.order + 1)]

    def logits(self, ids: Sequence[int]) -> Tensor:
        """Log-probabilities of the token after `ids`: (1, vocab) float64."""
        return torch.from_numpy(np.log(self.probabilities(ids)))[None]

    def probabilities(self, ids: Sequence[int]) -> NDArray[np.float64]:
        """The mixture above: (vocab,), all above zero."""
        mixed = np.full(self.vocab_size, 1 / self.vocab_size)
        for counts in self._counts(np.asarray(ids, dtype=np.int64)):
            total, kinds = counts.sum(), np.count_nonzero(counts)
            if total == 0:
                break  # what never occurred did not occur within anything longer
            mixed = witten_bell(counts, total, kinds, mixed)
        return mixed

    def _counts(self, ids: NDArray[np.int64]) -> Iterator[NDArray[np.float64]]:
        """How often each token followed the last 0, 1, … tokens: (vocab,), in the counted text and in `ids` together."""
        places = np.arange(len(ids))  # those tokens of the text so far before which the last m tokens stand
        context = 0  # the last m tokens as digits of one number
        for m, (keys, times) in enumerate(self._tables[: len(ids) + 1]):
            if m:
                before = ids[len(ids) - m]
                context += int(before) * self.vocab_size ** (m - 1)
                places = places[places >= m]
                places = places[ids[places - m] == before]
            first = context * self.vocab_size
            low, high = np.searchsorted(keys, (first, first + self.vocab_size))
            counts = np.bincount(ids[places], minlength=self.vocab_size).astype(np.float64)
            counts[keys[low:high] - first] += times[low:high]
            yield counts

    def _table(self, ids: NDArray[np.int64], n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Every n-gram as a number whose digits are its tokens, in ascending order, and how often it occurs."""
        if len(ids) < n:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        keys = np.zeros(len(ids) - n + 1, np.int64)
        for digit in range(n):
            keys = keys * self.vocab_size + ids[digit : len(ids) - n + 1 + digit]
        return np.unique(keys, return_counts=True)


if __name__ == "__main__":
    from tiny_transformer.tokenization.char import CharTokenizer

    text = "the king is dead, long live the king, and the queen is well, long live the queen. "
    tokenizer = CharTokenizer.train(text)
    draft = NgramDraft(tokenizer.vocab_size, tokenizer.encode(text))
    for start in ("the ", "the qu", "long live the k", "a"):
        probabilities = draft.probabilities(tokenizer.encode(start))
        best = probabilities.argsort()[::-1][:3]
        print(f"{start!r:18}", "  ".join(f"{tokenizer.decode([int(token)])!r} {probabilities[token]:.2f}" for token in best))
    lookup = NgramDraft(tokenizer.vocab_size)
    again = lookup.probabilities(tokenizer.encode("the queen is dead, the q"))[tokenizer.encode("u")]
    print("'u' by the text so far alone, after 'the queen is dead, the q':", again.round(2).tolist())
