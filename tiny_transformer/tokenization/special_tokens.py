"""Special tokens: strings that stand for one id each, whatever the text around them.

What each conventional name means, how a text is cut at special tokens (whole, or while it streams in), and which of them a
caller allows. Left out: how the text between them is encoded. Read before: `base.py`.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

from tiny_transformer.config import ConfigError, check
from tiny_transformer.tokenization.base import SpecialTokens

ROLES: dict[str, tuple[str, ...]] = {
    "bos": ("<s>", "<bos>", "<|bos|>", "<|startoftext|>", "<|begin_of_text|>", "[BOS]", "[CLS]"),
    "eos": ("</s>", "<eos>", "<|eos|>", "<|endoftext|>", "<|end_of_text|>", "[EOS]", "[SEP]"),
    "pad": ("<pad>", "<|pad|>", "[PAD]"),
    "unk": ("<unk>", "<|unk|>", "[UNK]"),
    "mask": ("<mask>", "<|mask|>", "[MASK]"),
}
"""Names in use (GPT-2, BERT, RoBERTa, Llama, …) and what they mean; where a vocabulary has several, the first counts."""


def roles(tokens: Mapping[str, int]) -> SpecialTokens:
    """Which ids begin, end, pad, stand for the unknown and hide, found by the tokens' conventional names.

    >>> roles({"<|endoftext|>": 50256, "<|user|>": 50257})
    SpecialTokens(bos=None, eos=50256, pad=None, unk=None, mask=None)
    """
    return SpecialTokens(**{role: next((tokens[name] for name in names if name in tokens), None) for role, names in ROLES.items()})


def check_special_tokens(tokens: Iterable[str]) -> tuple[str, ...]:
    """The tokens as a tuple. Raises ConfigError when one is empty, is no text, or occurs twice."""
    check(not isinstance(tokens, str), f"special_tokens={tokens!r}", "it must be a list of strings", "Put it in brackets")
    tokens = tuple(tokens)
    for token in tokens:
        check(isinstance(token, str) and token != "", f"special token {token!r}", "it must be text, one character or more", "Leave it out")
        check(tokens.count(token) == 1, f"special token {token!r} occurs more than once", "each must be there once", "Remove the others")
    return tokens


def allowed(special: Mapping[str, int], allowed_special: str | Collection[str]) -> Mapping[str, int]:
    """The special tokens that a caller allows: "all", "none", or a collection of strings. Raises ConfigError for an unknown one.

    >>> allowed({"<s>": 256, "</s>": 257}, ["</s>"])
    {'</s>': 257}
    """
    if isinstance(allowed_special, str):
        if allowed_special in ("all", "none"):
            return special if allowed_special == "all" else {}
        must = "it must be 'all', 'none' or a list of strings"
        raise ConfigError(f"allowed_special={allowed_special!r}: {must}. Put a single one in brackets")
    for token in allowed_special:
        known = ", ".join(list(special)[:20]) or "none"
        check(token in special, f"special token {token!r}", f"this vocabulary's special tokens are: {known}", "Allow some of these")
    return {token: special[token] for token in special if token in set(allowed_special)}


@lru_cache(maxsize=64)
def _pattern(tokens: frozenset[str]) -> re.Pattern[str]:
    """Any of the tokens. Longest first: of alternatives a regular expression takes the first that fits."""
    return re.compile("|".join(re.escape(token) for token in sorted(tokens, key=lambda token: (-len(token), token))))


def split_special(text: str, tokens: Collection[str]) -> Iterator[tuple[str, bool]]:
    """The pieces of `text` in order, with True for a special token; at each place the longest token counts. No piece is empty.

    >>> list(split_special("a<s><s>b</s>", ["<s>", "</s>"]))
    [('a', False), ('<s>', True), ('<s>', True), ('b', False), ('</s>', True)]
    """
    begin = 0
    if tokens:
        for match in _pattern(frozenset(tokens)).finditer(text):
            if match.start() > begin:
                yield text[begin : match.start()], False
            yield match.group(), True
            begin = match.end()
    if begin < len(text):
        yield text[begin:], False


def split_special_stream(chunks: Iterable[str], tokens: Collection[str]) -> Iterator[tuple[str, bool]]:
    """`split_special` of the joined chunks, in constant memory. Ordinary text may come in several pieces, one after the other.

    A token may lie across chunks, and a longer one may begin like a shorter: a place is decided only when as many characters
    as the longest token has are there to look at.

    >>> list(split_special_stream(["a<", "s", "><s", ">b"], ["<s>"]))
    [('a', False), ('<s>', True), ('<s>', True), ('b', False)]
    """
    longest = max((len(token) for token in tokens), default=1)
    held = ""
    for chunk in chunks:
        held += chunk
        decided = len(held) - longest + 1  # the places before this one have enough text behind them
        if decided <= 0:
            continue
        begin = 0
        for match in _pattern(frozenset(tokens)).finditer(held) if tokens else ():
            if match.start() >= decided:
                break
            if match.start() > begin:
                yield held[begin : match.start()], False
            yield match.group(), True
            begin = match.end()
        if begin < decided:
            yield held[begin:decided], False
        held = held[max(begin, decided) :]
    yield from split_special(held, tokens)


def numbered(special_tokens: Sequence[str] | Mapping[str, int], first: int, taken: Mapping[str, int] | None = None) -> dict[str, int]:
    """An id for each special token: its own where a mapping or `taken` gives one, else the next from `first` on.

    >>> numbered(["<s>", "a", "</s>"], 256, taken={"a": 97})
    {'<s>': 256, 'a': 97, '</s>': 257}
    """
    tokens, taken = check_special_tokens(special_tokens), taken or {}
    if isinstance(special_tokens, Mapping):
        return {token: int(special_tokens[token]) for token in tokens}
    ids = {}
    for token in tokens:
        ids[token] = taken.get(token, first)
        first += token not in taken
    return ids


if __name__ == "__main__":
    special = numbered(["<|endoftext|>", "<|user|>", "<pad>"], 256)
    print("ids  ", special)
    print("roles", roles(special))
    for piece, is_special in split_special("Who is there?<|endoftext|><|user|>Nay, answer me", special):
        print(f"{'special' if is_special else 'text':8} {piece!r}")
    try:
        allowed(special, ["<|usr|>"])
    except ConfigError as error:
        print("caught:", error)
