"""Generated texts against independent tokenizers: the same ids, the same text back, the same cuts. As many as one likes.

`campaign(20_000, seed=0)` in the tests, a million in `make faults`. Each text is made from the seed and its number alone, so a
failure can be looked at: `text_number(i, seed)`.
"""

import random
from collections.abc import Iterator
from functools import cache

import tiktoken
import tokenizers

from tiny_transformer.tokenization.bpe import BPETokenizer
from tiny_transformer.tokenization.splitting import PATTERNS, Splitter
from tiny_transformer.tokenization.vocabulary_files import spell

SPECIAL = ("<|endoftext|>", "<|end|>", "<pad>")  # none begins another: tiktoken does not say which it would take then
WORDS = [
    "the", "The", "THE", "then", "there", "they're", "I'll", "it's", "'tis", "we've", "ll", "s", "'s", "'S", "'Ll", "'vE",
    "na\u00efve", "1", "12", "123", "1234", "12345", "a", "an", "and", "of",
]  # fmt: skip
SPACES = ["\n", "\r\n", "\t", "  ", "   ", "\n\n", " \n", "\n ", "\u00a0", "\u2003", "\u3000", "\u0085", "\u2028", "\x1c", "\x0b", " "]
MARKS = [*".,;:!?'\"-()[]{}<>|/\\@#$%^&*_=+~`", "...", "--", "!?\n", "\u2014", "\u201c", "\u2019s", "\u00bf"]
UNUSUAL = [
    "\u0301", "\u0308\u0301", "e\u0301", "\u200d", "\ufe0f", "\u200b", "\ufeff", "\ufffd", "\x00", "\x7f",
    "\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f44d\U0001f3fd", "\U0001f1e9\U0001f1ea", "\u2764\ufe0f",
    "\u017f", "\u212a", "\u0130", "\u00df", "\u01c5", "\u02b0", "\u00b2", "\u2167", "\u0663", "\u09ea", "\U0001d7d8", "\u3007",
    "\u4f60\u597d", "\u4e16\u754c\u3002", "\u3053\u3093\u306b\u3061\u306f", "\uc548\ub155", "\u041f\u0440\u0438\u0432\u0435\u0442",
    "\u05e9\u05dc\u05d5\u05dd", "\u0645\u0631\u062d\u0628\u0627", "\u0928\u092e\u0938\u094d\u0924\u0947",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
    "\U00010348", "\U000323b0", "\u0558", "\U00011de0", "\U0010ffff", "\ue000", "\u0378",
]  # fmt: skip
"""Combining marks alone, joiners, emoji sequences, letters and numbers of many kinds, scripts, code points new and unassigned."""


def some_text(chance: random.Random) -> str:
    """Words, white space, marks, special tokens side by side, any code points, runs of one thing; mostly short."""
    parts: list[str] = []
    for _ in range(chance.randint(1, 8)):
        kind = chance.random()
        if kind < 0.35:
            parts.append(chance.choice(["", " "]) + chance.choice(WORDS))
        elif kind < 0.55:
            parts.append(chance.choice(SPACES))
        elif kind < 0.7:
            parts.append(chance.choice(MARKS))
        elif kind < 0.85:
            parts.append(chance.choice(UNUSUAL))
        elif kind < 0.9:
            parts.append("".join(chance.choices(SPECIAL, k=chance.randint(1, 3))))
        elif kind < 0.95:
            parts.append("".join(any_character(chance) for _ in range(chance.randint(1, 4))))
        else:
            unit = chance.choice([*WORDS, *SPACES, *UNUSUAL, "a", " ", "ab"])
            parts.append(unit * chance.choice([2, 3, 5, 30, 150]))
    return "".join(parts)


def any_character(chance: random.Random) -> str:
    """Any code point but surrogates, which other tokenizers refuse or cannot hold."""
    code = chance.randrange(chance.choice([0x80, 0x800, 0x10000, 0x110000]))
    return chr(code) if not 0xD800 <= code < 0xE000 else "\ufffd"


def text_number(i: int, seed: int) -> str:
    """The i-th text of a campaign."""
    return some_text(random.Random(f"{seed} {i}"))


@cache
def contestants() -> tuple[tuple[BPETokenizer, tiktoken.Encoding, tokenizers.Tokenizer], ...]:
    """Small tokenizers trained here, one per pattern, each with the same vocabulary in tiktoken and in tokenizers."""
    chance = random.Random(7)
    text = "".join(some_text(chance) for _ in range(1500)) + " the then there" * 20 + "aaaa" * 40 + " " * 70
    trained = [BPETokenizer.train(text, size, SPECIAL, split) for split, size in (("gpt2", 700), ("gpt4", 500), ("none", 600))]
    return tuple((ours, tiktoken_twin(ours), tokenizers_twin(ours)) for ours in trained)


def tiktoken_twin(ours: BPETokenizer) -> tiktoken.Encoding:
    """The same vocabulary in tiktoken."""
    ranks = {token: i for i, token in ours.vocab.items() if i not in ours.special_tokens.values()}
    pattern = PATTERNS.get(ours.split, ours.split) or r"[\s\S]+"
    return tiktoken.Encoding("twin", pat_str=pattern, mergeable_ranks=ranks, special_tokens=dict(ours.special_tokens))


def tokenizers_twin(ours: BPETokenizer) -> tokenizers.Tokenizer:
    """The same vocabulary in Hugging Face's tokenizers."""
    special = set(ours.special_tokens.values())
    model = tokenizers.models.BPE(
        vocab={spell(token): i for i, token in ours.vocab.items() if i not in special},
        merges=[(spell(left), spell(right)) for left, right in ours.merges],
    )
    twin = tokenizers.Tokenizer(model)
    pattern = PATTERNS.get(ours.split, ours.split)
    cut = [tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")] if pattern else []
    twin.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [*cut, tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    twin.decoder = tokenizers.decoders.ByteLevel()
    twin.add_special_tokens([tokenizers.AddedToken(token, special=True, normalized=False) for token in ours.special_tokens])
    return twin


def problems_with(text: str, ours: BPETokenizer, tik: tiktoken.Encoding, hf: tokenizers.Tokenizer | None, cut: int) -> Iterator[str]:
    """What is wrong with how `text` is treated, in words. `hf` may be left out; the stream is cut at two places that `cut` picks."""
    ids = ours.encode(text)
    if ours.decode(ids) != text:
        yield f"{ours.split}: {text!r} comes back as {ours.decode(ids)!r}"
    if ids != tik.encode(text, allowed_special="all"):
        yield f"{ours.split}: {text!r} is {ids}, in tiktoken {tik.encode(text, allowed_special='all')}"
    ordinary = ours.encode(text, allowed_special="none")
    if ordinary != tik.encode_ordinary(text):
        yield f"{ours.split}: without special tokens {text!r} is {ordinary}, in tiktoken {tik.encode_ordinary(text)}"
    first, second = sorted((cut % (len(text) + 1), cut // 7 % (len(text) + 1)))
    streamed = list(ours.encode_iterable([text[:first], text[first:second], text[second:]]))
    if streamed != ids:
        yield f"{ours.split}: {text!r} cut at {first} and {second} is {streamed}, whole {ids}"
    pieces, rest = ours._splitter.settled(text[:second])
    if pieces != ours._splitter.split(text)[: len(pieces)] or "".join(pieces) + rest != text[:second]:
        yield f"{ours.split}: of {text[:second]!r} the pieces {pieces} are not settled, for {text[second:]!r} follows"
    if hf is not None:
        yield from problems_with_tokenizers(text, ids, ours, hf)


def problems_with_tokenizers(text: str, ids: list[int], ours: BPETokenizer, hf: tokenizers.Tokenizer) -> Iterator[str]:
    """The same against tokenizers, and piece by piece where the text is cut."""
    if ids != hf.encode(text).ids:
        yield f"{ours.split}: {text!r} is {ids}, in tokenizers {hf.encode(text).ids}"
    if PATTERNS.get(ours.split):
        pieces = Splitter(ours.split).split(text)
        theirs = [text[begin:end] for _, (begin, end) in hf.pre_tokenizer[0].pre_tokenize_str(text)]
        if pieces != theirs or "".join(pieces) != text:
            yield f"{ours.split}: {text!r} is cut into {pieces}, by tokenizers into {theirs}"


def problems_of(i: int, seed: int) -> list[str]:
    """What is wrong with the i-th text: each pattern in turn, every fourth text against tokenizers too."""
    ours, tik, hf = contestants()[i % 3]
    return list(problems_with(text_number(i, seed), ours, tik, hf if i % 4 == 0 else None, cut=i * 7919))


def campaign(n: int, seed: int) -> dict[str, int]:
    """Try `n` texts: how many were tried, and for how many something was wrong."""
    return {"tried": n, "failed": sum(bool(problems_of(i, seed)) for i in range(n))}


if __name__ == "__main__":
    for number in range(3000):
        for problem in problems_of(number, seed=1):
            print(number, problem)
    print(campaign(3000, seed=2))
