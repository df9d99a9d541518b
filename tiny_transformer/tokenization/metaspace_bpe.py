"""BPE over characters with "▁" for spaces and bytes for the rest: SentencePiece's BPE, as Llama 2, Mistral and Gemma write it.

Byte-level BPE (`bpe.py`) merges bytes and can spell anything; here characters are merged, and bytes step in where a character is no
piece. Left out: learning merges, for such vocabularies come from files (`hugging_face.py`). Read before: `metaspace.py`.
"""

import heapq
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from tiny_transformer.config import check
from tiny_transformer.tokenization.byte_pieces import to_byte_pieces
from tiny_transformer.tokenization.metaspace import MetaspaceTokenizer
from tiny_transformer.tokenization.normalizing import is_local

Pair = tuple[str, str]


def merge_plain(symbols: Sequence[str], ranks: Mapping[Pair, int]) -> list[str]:
    """The plain version (Sennrich et al. 2016): the pair of neighbours with the lowest rank, the leftmost, becomes one; and again.

    By hand, ranks (l, o) 0, (h, e) 1, (he, l) 2, (l, lo) 3: h e l l o → h e l lo → he l lo → hel lo; (l, lo) finds no l left.

    >>> merge_plain("hello", {("l", "o"): 0, ("h", "e"): 1, ("he", "l"): 2, ("l", "lo"): 3})
    ['hel', 'lo']
    """
    symbols = list(symbols)
    while True:
        found = [(ranks[pair], place) for place, pair in enumerate(pairwise(symbols)) if pair in ranks]
        if not found:
            return symbols
        _, place = min(found)
        symbols[place : place + 2] = [symbols[place] + symbols[place + 1]]


def merge_quick(symbols: Sequence[str], ranks: Mapping[Pair, int]) -> list[str]:
    """The same in n log n: a queue of pairs by rank and place, and for each symbol where its neighbours are."""
    parts: list[str] = list(symbols)
    n = len(parts)
    before, after = list(range(-1, n - 1)), list(range(1, n + 1))
    queue = [(ranks[pair], place) for place, pair in enumerate(pairwise(parts)) if pair in ranks]
    heapq.heapify(queue)
    while queue:
        rank, left = heapq.heappop(queue)
        right = after[left] if parts[left] else n
        if right >= n or ranks.get((parts[left], parts[right])) != rank:
            continue  # one of the two has been merged meanwhile
        parts[left], parts[right] = parts[left] + parts[right], ""
        after[left] = after[right]
        if after[right] < n:
            before[after[right]] = left
        for place in (before[left], left):
            if place >= 0 and after[place] < n:
                pair = (parts[place], parts[after[place]])
                if pair in ranks:
                    heapq.heappush(queue, (ranks[pair], place))
    return [part for part in parts if part]


class MetaspaceBPE(MetaspaceTokenizer):
    """Settings are `MetaspaceTokenizer`'s and `fuse_unknown`: unknown characters in a row become one token.

    Such vocabularies often do not split (`split` False), so in principle merges reach over the whole text. Where no piece holds a "▁"
    behind another character, and "▁" is a piece, none does reach from word to word, and words are merged one by one all the same.

    >>> tokenizer = MetaspaceBPE(["<unk>", "▁", "h", "i", "▁h", "▁hi"], [("▁", "h"), ("▁h", "i")], ["<unk>"], prepend="first")
    >>> tokenizer.encode("hi hi"), tokenizer.decode([5, 5])
    ([5, 5], 'hi hi')
    """

    kind = "metaspace_bpe"

    def __init__(
        self, pieces: Sequence[str], merges: Sequence[Sequence[str]], special_tokens: Sequence[str] = (), *, fuse_unknown: bool = True,
        **settings: Any,
    ) -> None:  # fmt: skip
        """Pieces in the order of their ids, merges in the order of their ranks. Raises ConfigError for a merge of what are no pieces."""
        self.merges: list[Pair] = [(left, right) for left, right in merges]
        super().__init__(pieces, special_tokens, **settings)
        for rank, (left, right) in enumerate(self.merges):
            lacking = next((piece for piece in (left, right, left + right) if piece not in self.ids), None)
            remedy = "Use the vocabulary that belongs to these merges"
            check(lacking is None, f"merge {rank} of {left!r} and {right!r}", f"{lacking!r} must be a piece", remedy)
        self.ranks = {pair: rank for rank, pair in enumerate(self.merges)}
        self.fuse_unknown = fuse_unknown

    def _find_ids(self, word: str) -> list[int]:
        ids: list[int] = []
        symbols: list[str] = []
        for character in word:
            if character in self._ordinary:
                symbols.append(character)
            elif self.byte_fallback:
                symbols += to_byte_pieces(character)
            else:
                unknown = self._unknown_ids(character)
                ids += self._merged(symbols)
                if not (self.fuse_unknown and not symbols and ids):
                    ids += unknown
                symbols = []
        return ids + self._merged(symbols)

    def _merged(self, symbols: Sequence[str]) -> list[int]:
        return [self.ids[piece] for piece in merge_quick(symbols, self.ranks)]

    def _joins_words(self) -> bool:
        """Whether a piece could reach from one word into the next."""
        mark = re.escape(self.space)
        return self.space not in self._ordinary or any(re.search(f"[^{mark}]{mark}", left + right) for left, right in self.merges)

    def _word_pattern(self) -> str:
        if self.split or self.lines or self._joins_words():
            return super()._word_pattern()
        mark = re.escape(self.space)
        return f"{mark}+[^{mark}]*|[^{mark}]+"

    def _safe_cut(self, text: str) -> int:
        """Without `split`: before the first space of several, when normalization only marks spaces."""
        marks_only = is_local(self.normalizers)
        marks_only = marks_only and all(step["type"] == "Prepend" or step.get("content") == self.space for step in self.normalizers)
        if self.split or self.lines or not marks_only or self._joins_words():
            return super()._safe_cut(text)
        spaces = [*" ", self.space, *(step["pattern"]["String"] for step in self.normalizers if step["type"] == "Replace")]
        if any(len(space) > 1 for space in spaces):
            return 0
        places = (place for place in range(len(text) - 1, 0, -1) if text[place] in spaces and text[place - 1] not in spaces)
        return next(places, 0)

    def _more_pieces(self, tokens: Sequence[str]) -> dict[str, Any]:
        return {"pieces": [*self.pieces, *tokens], "merges": [list(pair) for pair in self.merges]}

    def _options(self) -> dict[str, Any]:
        return {**super()._options(), "fuse_unknown": self.fuse_unknown}


if __name__ == "__main__":
    pieces = ["<unk>", "<s>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁helowrd", "he", "ll", "hell", "hello", "▁hello", "▁w"]
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("▁", "hello"), ("▁", "w")]
    tokenizer = MetaspaceBPE(pieces, merges, ["<unk>", "<s>"], prepend="always", split=False, byte_fallback=True)
    for text in ("hello world", "<s>hello é"):
        ids = tokenizer.encode(text)
        print([tokenizer.pieces[i] for i in ids], repr(tokenizer.decode(ids)))
