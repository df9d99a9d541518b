"""BPE to look at: the tree of one token, and a text after each merge that changes it.

Left out: how this is shown (`tiny tokenizer inspect`). Read before: `bpe_plain.py`.
"""

from collections.abc import Iterator, Sequence

from tiny_transformer.tokenization.bpe_plain import Pair, count_pairs, merge

Tree = bytes | tuple["Tree", "Tree"]
"""A token as it came about: a single byte (or a token that no merge made), or the two trees that were joined."""


def derivation(token: bytes, merges: Sequence[Pair]) -> Tree:
    """The tree of a token, by the first merge that makes it.

    >>> derivation(b"the", [(b"h", b"e"), (b"t", b"h"), (b"th", b"e")])
    ((b't', b'h'), b'e')
    """
    trees: dict[bytes, Tree] = {}
    for left, right in merges:  # halves come before what is made of them, so no recursion is needed
        if left + right in token and left + right not in trees:
            trees[left + right] = (trees.get(left, left), trees.get(right, right))
    return trees.get(token, token)


def stages(parts: Sequence[list[bytes]], ranks: dict[Pair, int]) -> Iterator[tuple[int | None, list[bytes]]]:
    """Each state of a text with the rank of the merge that led to it, beginning with (None, as given); pieces one after the other.

    A merge is applied in all pieces at once; the last state is what `encode` gives.
    """
    pieces = list(parts)
    rank: int | None = None
    while True:
        yield rank, [token for piece in pieces for token in piece]
        present = [pair for pair in count_pairs(pieces) if pair in ranks]
        if not present:
            return
        pair = min(present, key=ranks.__getitem__)
        rank = ranks[pair]
        pieces = [merge(piece, pair) for piece in pieces]


if __name__ == "__main__":
    from tiny_transformer.tokenization.bpe_plain import single_bytes, train

    text = b"the then there"
    merges = train([text], 6)
    for rank, tokens in stages([single_bytes(text)], {pair: rank for rank, pair in enumerate(merges)}):
        print(f"{'' if rank is None else rank!s:>2} {'|'.join(token.decode() for token in tokens)}")
    print("tree of", merges[-1], derivation(b"".join(merges[-1]), merges))
