"""WordPiece (Schuster & Nakajima 2012; BERT, Devlin et al. 2019): the longest piece that fits, again and again.

Left out: learning the pieces (`wordpiece_training.py`), normalization and words (`normalizing.py`), and matching in one pass
(Song et al. 2021), which gives the same ids. Read before: `pieces.py`.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from tiny_transformer.config import check, check_choice
from tiny_transformer.tokenization.normalizing import BERT, Step, bert_words, check_steps, is_local, normalize
from tiny_transformer.tokenization.pieces import PieceTokenizer
from tiny_transformer.tokenization.special_tokens import split_special
from tiny_transformer.tokenization.wordpiece_training import Score, first_pieces, merge_quick
from tiny_transformer.utils.atomic import atomic_save

BERT_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CACHE = 1 << 16
"""How many words are remembered with their pieces."""


def longest_match_first(word: str, pieces: Collection[str], prefix: str = "##") -> list[str] | None:
    """The plain version: at each place the longest piece that fits; None when none does. Pieces inside the word carry the prefix.

    By hand, with un, ##aff, ##able, ##a, ##b: "unaffable" begins with no piece longer than "un"; of "affable" the longest is "##aff";
    "##able" is the rest. "unable" is un + ##able; "unbend" is unknown as a whole, for nothing begins "end".

    >>> longest_match_first("unaffable", {"un", "##aff", "##able", "##a", "##b"})
    ['un', '##aff', '##able']
    """
    found: list[str] = []
    start = 0
    while start < len(word):
        ends = range(len(word), start, -1)
        candidates = ((end, (prefix if start else "") + word[start:end]) for end in ends)
        start, piece = next(((end, piece) for end, piece in candidates if piece in pieces), (0, ""))
        if not piece:
            return None
        found.append(piece)
    return found


class WordPieceTokenizer(PieceTokenizer):
    """Text is normalized, cut into words at white space and punctuation, and each word into pieces from the left.

    The ids are those of the `tokenizers` library with BertNormalizer and BertPreTokenizer. What is lost on the way does not come back:
    white space, and with the default normalization capitals and accents; a word with an unknown character, or of more than `max_chars`
    characters, is one `[UNK]`. `decode` writes what that library writes: pieces joined, words with a space between, and with
    `cleanup` no space before . , ? ! and English endings such as 's.

    >>> tokenizer = WordPieceTokenizer(["[UNK]", "un", "##aff", "##able", "!"], ["[UNK]"])
    >>> tokenizer.encode("Unaffable! Unkind"), tokenizer.decode([1, 2, 3, 4])
    ([1, 2, 3, 4, 0], 'unaffable!')
    """

    kind = "wordpiece"

    def __init__(
        self, pieces: Sequence[str], special_tokens: Sequence[str] = (), *, unknown: str = "[UNK]", prefix: str = "##",
        max_chars: int = 100, normalizers: Sequence[Step] = (BERT,), cleanup: bool = True,
    ) -> None:  # fmt: skip
        """Pieces in the order of their ids. Raises ConfigError where `unknown` is not one of them or a normalizer is unknown."""
        super().__init__(pieces, special_tokens, unknown)
        check(bool(prefix), f"prefix={prefix!r}", "it must not be empty", "BERT's is ##")
        self.prefix, self.max_chars, self.normalizers, self.cleanup = prefix, max_chars, check_steps(normalizers), cleanup
        self._ordinary = {piece: i for piece, i in self.ids.items() if piece not in self.special_tokens}
        self._longest = max(map(len, self._ordinary), default=0)
        self._cache: dict[str, list[int]] = {}
        self._cuttable = is_local(self.normalizers) and all(step["type"] != "Replace" for step in self.normalizers)

    @classmethod
    def train(
        cls, text: str, vocab_size: int, special_tokens: Sequence[str] = BERT_SPECIAL, *, score: Score = "frequency", min_count: int = 2,
        normalizers: Sequence[Step] = (BERT,), max_chars: int = 100,
    ) -> "WordPieceTokenizer":  # fmt: skip
        """Special tokens, then characters, then joined pairs; `score` and `min_count` as in `wordpiece_training.merge_plain`.

        "likelihood" is the paper's score; "frequency", as in Hugging Face's tokenizers, makes texts about half as long and is the default.

        `[UNK]` is added where missing. Where no pair occurs `min_count` times any more, the vocabulary stays smaller and `why_smaller`
        says why.
        Raises ConfigError for a text without words, and a `vocab_size` below the special tokens and characters.
        """
        check_choice("score", score, ("likelihood", "frequency"))
        special = [*special_tokens, *(token for token in ("[UNK]",) if token not in special_tokens)]
        steps = check_steps(normalizers)
        parts = (part for part, is_special in split_special(text, special) if not is_special)
        counts = Counter(word for part in parts for word in bert_words(normalize(part, steps)) if len(word) <= max_chars)
        check(bool(counts), "a text without words", "there must be some to learn pieces from", "Pass some text")
        alphabet = {piece for word in counts for piece in first_pieces(word)} - set(special)
        least = len(special) + len(alphabet)
        must = f"{len(special)} special tokens and {len(alphabet)} characters (each at the beginning of words and inside) need {least}"
        check(vocab_size >= least, f"vocab_size={vocab_size}", must, f"Ask for {least} or more")
        pieces = [piece for piece in merge_quick(counts, vocab_size, score, min_count) if piece not in special]
        tokenizer = cls([*special, *pieces][:vocab_size], special, normalizers=steps, max_chars=max_chars)
        if tokenizer.vocab_size < vocab_size:
            reason = f"no pair of neighbours occurs {min_count} times any more"
            tokenizer.why_smaller = f"{tokenizer.vocab_size} pieces, not {vocab_size}: {reason}"
        return tokenizer

    def _encode_segment(self, text: str, begins_text: bool, begins_segment: bool) -> list[int]:
        words = bert_words(normalize(text, self.normalizers, begins=begins_segment))
        return [i for word in words for i in self._cache.get(word) or self._word(word)]

    def _word(self, word: str) -> list[int]:
        """`longest_match_first`, never trying more characters than the longest piece has, and remembered."""
        ids: list[int] = []
        start, inside = 0, ""
        while start < len(word) and len(word) <= self.max_chars:
            end = min(len(word), start + self._longest)
            while end > start and inside + word[start:end] not in self._ordinary:
                end -= 1
            if end == start:
                break
            ids.append(self._ordinary[inside + word[start:end]])
            start, inside = end, self.prefix
        if start < len(word):
            ids = [self.ids[str(self.unknown)]]
        if len(self._cache) >= CACHE:
            self._cache.clear()
        self._cache[word] = ids
        return ids

    def _safe_cut(self, text: str) -> int:
        return max(0, *(text.rfind(space) for space in " \t\n\r")) if self._cuttable else 0

    def _join(self, pieces: list[str]) -> str:
        parts = [
            piece if i == 0 else piece.replace(self.prefix, "", 1) if piece.startswith(self.prefix) else " " + piece
            for i, piece in enumerate(pieces)
        ]
        return "".join(map(clean_up, parts) if self.cleanup else parts)

    def _options(self) -> dict[str, Any]:
        return {
            "unknown": self.unknown, "prefix": self.prefix, "max_chars": self.max_chars, "normalizers": self.normalizers,
            "cleanup": self.cleanup,
        }  # fmt: skip

    @classmethod
    def from_vocab_file(cls, path: str | Path, **options: Any) -> "WordPieceTokenizer":
        """From BERT's vocab.txt: one piece a line, the line (from 0) is its id. Options as in `__init__`.

        Special are those of BERT's five that the file has. Raises ConfigError for a file that is no such vocabulary.
        """
        try:
            lines = Path(path).read_text(encoding="utf-8").split("\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8 text (byte {error.start}): a vocab.txt holds one piece a line") from error
        lines = [line.removesuffix("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]
        special = options.pop("special_tokens", None) or [token for token in BERT_SPECIAL if token in lines]
        return cls(lines, special, **options)

    def save_vocab_file(self, path: str | Path) -> None:
        """Write vocab.txt. Settings are not in it. Raises ConfigError for a piece with a line end in it."""
        broken = next((piece for piece in self.pieces if "\n" in piece or piece.endswith("\r")), None)
        check(broken is None, f"piece {broken!r}", "vocab.txt holds one piece a line", "Save tokenizer.json instead")
        data = "".join(piece + "\n" for piece in self.pieces).encode()

        def write(file: BinaryIO) -> None:
            file.write(data)

        atomic_save(path, write)


def clean_up(text: str) -> str:
    """English as it is written, as far as a table goes; the one of the `tokenizers` library's WordPiece decoder."""
    for spaced in (".", "?", "!", ","):
        text = text.replace(" " + spaced, spaced)
    text = text.replace(" ' ", "'").replace(" n't", "n't").replace(" 'm", "'m").replace(" do not", " don't")
    return text.replace(" 's", "'s").replace(" 've", "'ve").replace(" 're", "'re")


if __name__ == "__main__":
    tokenizer = WordPieceTokenizer.train("the hugs of a bug, the pun of a pug: hugging pugs, bugging puns. " * 9, vocab_size=50)
    ids = tokenizer.encode("The pug hugs bugs, punning.")
    print([tokenizer.pieces[i] for i in ids])
    print(tokenizer.decode(ids), "|", tokenizer.why_smaller or f"{tokenizer.vocab_size} pieces")
