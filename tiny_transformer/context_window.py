"""What a model is shown of a text that is longer than its context: one rule, for both engines.

    window_start(n) = 0 while n ≤ L, else the smallest multiple of ⌊L / 2⌋ (at least 1) that leaves at most L tokens

of a text of n tokens, for a model that looks at max_seq_len = L tokens at most. It depends on n alone, so cached and uncached
generation agree. The window grows to L tokens, then drops its older half: only then are all positions different ones, and the
cache is filled anew, once in L / 2 tokens. (A window that moved with every token would make every cached key wrong with every
token.) The model always sees at least half its context.

Left out: the cache (`kv_cache.py`), and who fills it (`sampling/decoder.py`, `numpy_engine/decoder.py`). Read before: nothing.
"""

PADDING = -1
"""Stands left of the shorter texts of a batch."""
RESERVE = 1024
"""Tokens that memory is taken for at first; it doubles when they are used up."""


def window_start(n: int, max_seq_len: int) -> int:
    """The first of the n tokens that the model is shown: the rule above.

    >>> [window_start(n, 8) for n in (1, 8, 9, 12, 13, 16, 17)]
    [0, 0, 4, 4, 8, 8, 12]
    """
    step = max(1, max_seq_len // 2)
    return 0 if n <= max_seq_len else -(-(n - max_seq_len) // step) * step


if __name__ == "__main__":
    text = "the quick brown fox jumps"
    for n in range(8, len(text), 2):
        start = window_start(n, 12)
        print(f"{n:2} tokens: {'·' * start}{text[start:n]}")
