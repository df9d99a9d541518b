"""What a vocabulary holds, and what a text makes of it: special tokens, long ones, word beginnings, merges with counts, unused tokens.

Left out: how this is shown (tokenizer_inspect.py). Read before: tokenizer_pieces.py, tokenization/bpe_views.py.
"""

from collections import Counter
from dataclasses import asdict
from itertools import pairwise
from typing import Any, NamedTuple

from tiny_transformer.cli.tokenizer_pieces import core, kind_of, shown, unshown, vocabulary
from tiny_transformer.config import check
from tiny_transformer.tokenization.bpe_encoding import SeamSplitter
from tiny_transformer.tokenization.bpe_plain import Pair, single_bytes
from tiny_transformer.tokenization.bpe_views import stages
from tiny_transformer.tokenization.normalizing import normalize
from tiny_transformer.tokenization.special_tokens import split_special
from tiny_transformer.tokenization.splitting import Splitter, well_formed
from tiny_transformer.tokenization.vocabulary_files import CHARACTER_TO_BYTE, unspell


class Merge(NamedTuple):
    """One merge of a BPE vocabulary."""

    rank: int
    left: bytes
    right: bytes
    id: int
    """The id of what it makes."""


def merges_of(tokenizer: Any) -> list[Merge]:
    """The merges in order, for both kinds of BPE; none for the other kinds."""
    inner = core(tokenizer)
    ids = {piece: i for i, piece in vocabulary(tokenizer).items()}
    pairs = ((_as_bytes(left), _as_bytes(right)) for left, right in getattr(inner, "merges", ()))
    return [Merge(rank, left, right, ids[left + right]) for rank, (left, right) in enumerate(pairs)]


def _as_bytes(half: str | bytes) -> bytes:
    return half.encode() if isinstance(half, str) else half


def about(tokenizer: Any, longest: int = 10) -> dict[str, Any]:
    """What can be said without a text."""
    pieces, special = vocabulary(tokenizer), dict(getattr(tokenizer, "special_tokens", {}))
    roles: dict[int, list[str]] = {}
    for role, i in asdict(tokenizer.special).items():
        if i is not None:
            roles.setdefault(i, []).append(role)
    ordinary = {i: piece for i, piece in pieces.items() if i not in special.values()}
    by_length = sorted(ordinary, key=lambda i: (len(set(ordinary[i])) < 4, -len(shown(ordinary[i])), i))[:longest]  # rules of ---- last
    return {
        "kind": kind_of(tokenizer),
        "split": getattr(core(tokenizer), "split", None) if kind_of(core(tokenizer)) == "bpe" else None,
        "vocab_size": tokenizer.vocab_size,
        "n_merges": len(getattr(core(tokenizer), "merges", ())),
        "special_tokens": [{"token": token, "id": i, "roles": roles.get(i, [])} for token, i in special.items()],
        "longest": [shown(ordinary[i]) for i in by_length],
        "share_that_start_a_word": _word_starts(tokenizer, ordinary),
    }


def _word_starts(tokenizer: Any, ordinary: dict[int, bytes]) -> float | None:
    """Share of the ordinary tokens that can only stand where a word begins; None for kinds that do not mark it."""
    kind, inner = kind_of(core(tokenizer)), core(tokenizer)
    if kind in ("char", "byte") or not ordinary:
        return None
    texts = [piece.decode("utf-8", "replace") for piece in ordinary.values()]
    if kind == "wordpiece":
        found = [text[:1].isalnum() and not text.startswith(inner.prefix) for text in texts]
    else:
        mark = getattr(inner, "space", " ")
        found = [text[:1] == mark and text[1:2].isalpha() for text in texts]
    return sum(found) / len(texts)


def text_pieces(tokenizer: Any, text: str) -> Counter[str]:
    """The pieces that a byte-level BPE cuts a text into before merging, with how often each occurs. Special tokens are left out."""
    inner = core(tokenizer)
    cutter = SeamSplitter(left + right for left, right in inner.merges) if inner.split == "none" else Splitter(inner.split)
    counts: Counter[str] = Counter()
    for part, is_special in split_special(text, inner.special_tokens):
        if not is_special:
            counts.update(cutter.split(well_formed(normalize(part, getattr(tokenizer, "normalizers", ())))))
    return counts


def merge_counts(tokenizer: Any, text: str) -> Counter[int]:
    """How often each merge's pair stood in the text when it was its turn, by rank: on the training text the counts of training."""
    ranks: dict[Pair, int] = {pair: rank for rank, pair in enumerate(core(tokenizer).merges)}
    counts: Counter[int] = Counter()
    for piece, times in text_pieces(tokenizer, text).items():
        before: list[bytes] = []
        for rank, tokens in stages([single_bytes(piece.encode())], ranks):
            if rank is not None:
                pair = core(tokenizer).merges[rank]
                counts[rank] += times * sum(neighbours == pair for neighbours in pairwise(before))
            before = tokens
    return counts


def find_token(tokenizer: Any, word: str) -> int:
    """The id that a person means: a number is an id, anything else the token's text, as typed, as shown, or as GPT-2's files spell it.

    Raises ConfigError for an id out of range, and for a text that is no token, saying which tokens it is made of.
    """
    pieces = vocabulary(tokenizer)
    if word.isascii() and word.lstrip("-").isdigit():
        check(int(word) in pieces, f"token {word}", f"ids lie in 0 to {tokenizer.vocab_size - 1}, and must be in use", "Name one of these")
        return int(word)
    ids = {piece: i for i, piece in pieces.items()}
    mark = getattr(core(tokenizer), "space", " ")
    spelled = [
        word.encode("utf-8", "replace"),
        unshown(word).encode("utf-8", "replace"),
        word.replace(" ", mark).encode("utf-8", "replace"),
    ]
    if all(character in CHARACTER_TO_BYTE for character in word):
        spelled.append(unspell(word))
    for candidate in spelled:
        if candidate in ids:
            return ids[candidate]
    try:
        parts = [f"{shown(pieces[i])!r} {i}" for i in tokenizer.encode(word)]
    except ValueError:
        parts = []
    made = f"it is encoded as {', '.join(parts[:6])}{' …' if len(parts) > 6 else ''}" if parts else "it is not in the vocabulary"
    check(False, f"{word!r} is no token", made, "Name a token, or its id")
    raise AssertionError


if __name__ == "__main__":
    from tiny_transformer.tokenization.bpe import BPETokenizer

    text = "she sells sea shells by the sea shore; the shells she sells are sea shells"
    tokenizer = BPETokenizer.train(text, 268, ["</s>"])
    counts = merge_counts(tokenizer, text)
    for merge in merges_of(tokenizer):
        print(f"{merge.rank:2} {shown(merge.left):>3} + {shown(merge.right):4} {counts[merge.rank]:2}×")
    print(about(tokenizer))
