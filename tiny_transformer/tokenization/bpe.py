"""Byte-level byte-pair encoding: the tokenizer of GPT-2, GPT-4, Llama 3 and most others.

A text is cut at its special tokens, then into pieces by a pattern (`splitting.py`), and in each piece merges join bytes to
tokens in the order in which they were learned (`bpe_plain.py` has the paper trail and an example by hand). The 256 bytes are
tokens, so nothing is unknown; what is frequent is short.

Speed comes from text repeating itself: a piece's ids are kept, so most pieces cost one look-up.
Left out: how merges are learned (`bpe_training.py`) and applied to a piece (`bpe_encoding.py`), files (`vocabulary_files.py`).
Read before: `bpe_plain.py`, `splitting.py`, `special_tokens.py`.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiny_transformer.config import check
from tiny_transformer.tokenization import vocabulary_files
from tiny_transformer.tokenization.bpe_encoding import PieceEncoder, SeamSplitter
from tiny_transformer.tokenization.bpe_plain import Pair, single_bytes
from tiny_transformer.tokenization.bpe_training import OnMerge, learn_merges
from tiny_transformer.tokenization.bpe_views import Tree, derivation, stages
from tiny_transformer.tokenization.special_tokens import allowed, check_special_tokens, numbered, roles, split_special
from tiny_transformer.tokenization.splitting import Splitter, to_utf8, well_formed
from tiny_transformer.tokenization.text_stream import CanSplit, slices, split_stream, text_chunks
from tiny_transformer.tokenization.vocabulary_files import FilePath

BYTES = 256
CACHE_PIECES = 1 << 17
"""How many pieces' ids are kept; when more come, the cache starts anew. Some 30 MB when full."""
LONG = 64
"""Characters above which a piece is unlikely to come again, and is not kept."""

SpecialTokenIds = Sequence[str] | Mapping[str, int]
Progress = Callable[[int, int], None]
"""Called while training with tokens learned so far, and how many are asked for."""


class BPETokenizer:
    """Ids by merges. Trained here, bytes 0 to 255 are ids 0 to 255, the merges follow in order, then the special tokens.

    >>> tokenizer = BPETokenizer.train("the then there", vocab_size=260, special_tokens=["</s>"])
    >>> tokenizer.merges
    [(b't', b'h'), (b'th', b'e'), (b' ', b'the')]
    >>> tokenizer.encode("the other</s>"), tokenizer.decode([258, 114])
    ([257, 32, 111, 257, 114, 259], ' ther')
    """

    def __init__(
        self, vocab: Mapping[int, bytes], merges: Sequence[Pair], special_tokens: SpecialTokenIds = (), *, split: str = "gpt2"
    ) -> None:
        """Take each id's bytes, the merges in order, and the special tokens.

        A special token whose bytes are in `vocab` has that id; the others get the next ids in order, or those that a mapping
        gives. `split` is "gpt2", "gpt4", "none", or a regular expression. Raises ConfigError for a vocabulary with two ids for
        the same bytes, merges of tokens that it lacks, ids given twice, and an unknown split.
        """
        self.merges = [(bytes(left), bytes(right)) for left, right in merges]
        self.split = split
        self.why_smaller = ""
        """After training: why there are fewer tokens than asked for; empty when there are as many."""
        self.vocab = {int(i): bytes(token) for i, token in vocab.items()}
        """Id → bytes, special tokens too."""
        ids = self._ids = {token: i for i, token in self.vocab.items()}
        check(len(ids) == len(self.vocab), f"{len(self.vocab)} ids for {len(ids)} tokens", "each must have one id", "Remove the others")
        check(min(self.vocab, default=-1) >= 0, f"ids from {min(self.vocab, default=None)}", "they run from 0", "Number the tokens from 0")
        taken = {token: ids[to_utf8(token)] for token in check_special_tokens(special_tokens) if to_utf8(token) in ids}
        self.template: dict[str, list[str]] | None = None
        """What a tokenizer.json puts around a text: told, not done by `encode`."""
        self.special_tokens: Mapping[str, int] = numbered(special_tokens, max(self.vocab, default=-1) + 1, taken)
        for token, i in self.special_tokens.items():
            other = self.vocab.setdefault(i, to_utf8(token))
            check(other == to_utf8(token) and i >= 0, f"special token {token!r} with id {i}", f"that id is {other!r}", "Give it a free id")
        self.special = roles(self.special_tokens)
        self.vocab_size = max(self.vocab) + 1
        """The largest id and one more: the width of a model's output. Files of others may leave some ids unused."""
        self.encoder = PieceEncoder(ids, self.merges)
        self._splitter: CanSplit = SeamSplitter(left + right for left, right in self.merges) if split == "none" else Splitter(split)
        self._cache: dict[str, tuple[int, ...]] = {}

    # --- training ---------------------------------------------------------------------------------------------------

    @classmethod
    def train(
        cls, text: str, vocab_size: int, special_tokens: Sequence[str] = (), split: str = "gpt2",
        on_merge: OnMerge | None = None, progress: Progress | None = None,
    ) -> "BPETokenizer":  # fmt: skip
        """Learn merges from `text` until there are `vocab_size` tokens, special ones included.

        Special tokens in the text separate its documents, and are never merged with anything. A tie between pairs goes to the
        lexicographically greatest. Where no pair is left before `vocab_size` is reached, `why_smaller` says so. `on_merge` is
        called with the rank, the pair and its count, `progress` with the tokens learned and asked for.

        Raises ValueError for an empty text, and ConfigError for a `vocab_size` below 256 and the special tokens.
        """
        if not text:
            raise ValueError("the text is empty: there is nothing to learn from. Pass some text")
        return cls._learn([text], vocab_size, special_tokens, split, on_merge, progress)

    @classmethod
    def train_from_file(
        cls, path: FilePath, vocab_size: int, special_tokens: Sequence[str] = (), split: str = "gpt2",
        on_merge: OnMerge | None = None, progress: Progress | None = None,
    ) -> "BPETokenizer":  # fmt: skip
        """`train` on a UTF-8 file, which may be larger than memory: only the distinct pieces are kept. Line ends stay as they are.

        With split="none" the pieces are whole documents. Raises ValueError also for a file that is empty or not UTF-8.
        """
        return cls._learn(text_chunks(path), vocab_size, special_tokens, split, on_merge, progress)

    @classmethod
    def _learn(
        cls, chunks: Iterable[str], vocab_size: int, special_tokens: Sequence[str], split: str,
        on_merge: OnMerge | None, progress: Progress | None,
    ) -> "BPETokenizer":  # fmt: skip
        special_tokens = check_special_tokens(special_tokens)
        separate = sum(len(to_utf8(token)) > 1 for token in special_tokens)  # a single byte has its id already
        new_tokens = vocab_size - BYTES - separate
        must = f"byte-level BPE needs {BYTES + separate} or more, for {BYTES} bytes and {separate} special tokens"
        check(new_tokens >= 0, f"vocab_size={vocab_size}", must, f"Try {max(512, 2 * (BYTES + separate))}")
        counts: Counter[str] = Counter()
        for part in split_stream(chunks, special_tokens, Splitter(split)):
            if not isinstance(part, str):
                counts.update(part)

        def report(rank: int, pair: Pair, count: int) -> None:
            if on_merge is not None:
                on_merge(rank, pair, count)
            if progress is not None:
                progress(rank + 1, new_tokens)

        merges = learn_merges({piece.encode(): count for piece, count in counts.items()}, new_tokens, report)
        tokens = [*single_bytes(bytes(range(BYTES))), *dict.fromkeys(left + right for left, right in merges)]
        tokenizer = cls(dict(enumerate(tokens)), merges, special_tokens, split=split)
        if tokenizer.vocab_size < vocab_size:
            short = f"vocab_size={vocab_size} was asked for, {tokenizer.vocab_size} reached"
            tokenizer.why_smaller = f"{short}: after {len(merges)} merges every piece of the text is one token. Pass more text"
        return tokenizer

    # --- text to ids and back ---------------------------------------------------------------------------------------

    def encode(self, text: str, allowed_special: str | Collection[str] = "all") -> list[int]:
        """Text to ids. `allowed_special` is "all", "none", or the special tokens to look for; others are ordinary text.

        Lone surrogates, which have no UTF-8, count as U+FFFD; all other text comes back exactly. Raises ConfigError for an
        unknown special token in `allowed_special`.
        """
        return list(self.encode_iterable(slices(text), allowed_special))

    def encode_array(self, text: str, allowed_special: str | Collection[str] = "all") -> NDArray[np.int32]:
        """`encode` as an array (n,) int32."""
        return np.fromiter(self.encode_iterable(slices(text), allowed_special), dtype=np.int32)

    def encode_iterable(self, chunks: Iterable[str], allowed_special: str | Collection[str] = "all") -> Iterator[int]:
        """The ids of the joined chunks, wherever they are cut, holding no more than a block of text and the longest piece.

        That is constant memory for "gpt2" and "gpt4", and in practice for "none"; a regular expression of one's own may look
        anywhere, so with one the text between two special tokens is held.
        """
        special = allowed(self.special_tokens, allowed_special)
        return chain.from_iterable(
            (special[part],) if isinstance(part, str) else self._looked_up(part) for part in split_stream(chunks, special, self._splitter)
        )

    def pieces(self, text: str) -> list[str]:
        """Ordinary text, cut by the split pattern: no token reaches across."""
        return self._splitter.split(well_formed(text))

    def _looked_up(self, pieces: list[str]) -> Iterator[int]:
        """The ids of the pieces, each different piece encoded once."""
        known = self._cache  # held here: another thread may start a new one
        new = {piece: tuple(self.encoder.encode(piece.encode())) for piece in set(pieces).difference(known)}
        if len(known) + len(new) > CACHE_PIECES:
            known = self._cache = {}
            new |= {piece: tuple(self.encoder.encode(piece.encode())) for piece in set(pieces).difference(new)}
        if len(new) <= CACHE_PIECES and all(len(piece) <= LONG for piece in new):
            known.update(new)
            return chain.from_iterable(map(known.__getitem__, pieces))
        known.update({piece: ids for piece, ids in new.items() if len(piece) <= LONG} if len(new) <= CACHE_PIECES else {})
        return chain.from_iterable(new[piece] if piece in new else known[piece] for piece in pieces)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Ids to bytes, exactly. Raises ValueError for an id outside the vocabulary."""
        listed = ids.tolist() if isinstance(ids, np.ndarray) else [int(i) for i in ids]
        try:
            return b"".join(map(self.vocab.__getitem__, listed))
        except KeyError as error:
            raise ValueError(f"id {error} is not in the vocabulary: ids must lie in 0 to {self.vocab_size - 1}, and be in use") from error

    def decode(self, ids: Iterable[int]) -> str:
        """Ids to text; bytes that are no UTF-8 are shown as U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    # --- change, look, save -----------------------------------------------------------------------------------------

    def with_special_tokens(self, tokens: Sequence[str]) -> "BPETokenizer":
        """A tokenizer with more special tokens behind all ids; no id changes, and text without them is encoded as before.

        As when made: one whose bytes are a token already keeps that token's id.
        """
        taken = {token: self._ids[to_utf8(token)] for token in tokens if to_utf8(token) in self._ids}
        new = numbered([token for token in check_special_tokens(tokens) if token not in self.special_tokens], self.vocab_size, taken)
        more = BPETokenizer(self.vocab, self.merges, {**self.special_tokens, **new}, split=self.split)
        more.template = self.template
        return more

    def derivation(self, token_id: int) -> Tree:
        """How a token was merged, as nested pairs of bytes: ((b"t", b"h"), b"e"). Raises ValueError for an unknown id."""
        return derivation(self.decode_bytes([token_id]), self.merges)

    def stages(self, text: str) -> Iterator[tuple[int | None, list[bytes]]]:
        """The tokens of `text` after each merge that changes it, with the merge's rank; first (None, the single bytes)."""
        parts: list[list[bytes]] = []
        for part, is_special in split_special(well_formed(text), self.special_tokens):
            pieces = [part] if is_special else self._splitter.split(part)
            parts += [[piece.encode()] if is_special else single_bytes(piece.encode()) for piece in pieces]
        return stages(parts, {pair: rank for rank, pair in enumerate(self.merges)})

    def to_dict(self) -> dict[str, Any]:
        """{"kind": "bpe", "split", "vocab" and "merges" spelled as in GPT-2's files, "special_tokens": text → id}."""
        return {
            "kind": "bpe",
            "split": self.split,
            "vocab": {vocabulary_files.spell(token): i for token, i in self._ids.items()},
            "merges": [f"{vocabulary_files.spell(left)} {vocabulary_files.spell(right)}" for left, right in self.merges],
            "special_tokens": dict(self.special_tokens),
            **({} if self.template is None else {"template": self.template}),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "BPETokenizer":
        """From `to_dict`'s values."""
        unspell = vocabulary_files.unspell
        vocab = {i: unspell(token) for token, i in values["vocab"].items()}
        merges = [(unspell(left), unspell(right)) for left, right in (line.split(" ") for line in values["merges"])]
        tokenizer = cls(vocab, merges, values["special_tokens"], split=values["split"])
        tokenizer.template = values.get("template")
        return tokenizer

    @classmethod
    def from_gpt2_files(
        cls, vocab: FilePath, merges: FilePath, special_tokens: SpecialTokenIds | None = None, split: str = "gpt2"
    ) -> "BPETokenizer":
        """From vocab.json and merges.txt; by default <|endoftext|> is special if it is there. Raises ConfigError naming file and line."""
        entries = vocabulary_files.read_gpt2_vocab(vocab, ["<|endoftext|>"] if special_tokens is None else special_tokens)
        if special_tokens is None:
            special_tokens = [token for token in ["<|endoftext|>"] if token.encode() in entries.values()]
        return cls(entries, vocabulary_files.read_gpt2_merges(merges, entries), special_tokens, split=split)

    def write_gpt2_files(self, vocab: FilePath, merges: FilePath) -> None:
        """Write vocab.json and merges.txt; `split` is not in them."""
        vocabulary_files.write_gpt2_files(vocab, merges, self.vocab, self.merges, self.special_tokens)

    @classmethod
    def from_tiktoken(cls, path: FilePath, special_tokens: SpecialTokenIds = (), split: str = "gpt4") -> "BPETokenizer":
        """From a rank file, which holds neither special tokens nor pattern. Raises ConfigError naming file and line."""
        ranks = vocabulary_files.read_tiktoken(path)
        return cls({rank: token for token, rank in ranks.items()}, vocabulary_files.recover_merges(ranks), special_tokens, split=split)

    def write_tiktoken(self, path: FilePath) -> None:
        """Write a rank file; special tokens and `split` are not in it. Raises ConfigError where ranks do not imply the merges."""
        made = {left + right for left, right in self.merges}
        special = {i for i in self.special_tokens.values() if len(self.vocab[i]) > 1 and self.vocab[i] not in made}
        ranks = {token: i for token, i in self._ids.items() if i not in special}
        implied = vocabulary_files.recover_merges(ranks) == self.merges
        check(implied, "merges in another order than the ids", "a rank file cannot hold them", "Write vocab.json and merges.txt")
        vocabulary_files.write_tiktoken(path, ranks)


if __name__ == "__main__":
    text = "She sells sea shells by the sea shore; the shells she sells are sea shells for sure.\n" * 3
    tokenizer = BPETokenizer.train(text, 290, ["<|endoftext|>"], on_merge=lambda rank, pair, count: print(f"{count}×{pair}", end=" "))
    ids = tokenizer.encode("sea shells<|endoftext|>")
    print("\n", ids, [tokenizer.decode([i]) for i in ids], tokenizer.why_smaller or "vocabulary size reached")
    for rank, tokens in tokenizer.stages("sea shells"):
        print(f"{'' if rank is None else rank:>3} {b'|'.join(tokens).decode()}")
    print("the tree of", repr(tokenizer.decode([ids[1]])), tokenizer.derivation(ids[1]))
