"""BPE: training against the plain version and against tokenizers, encoding against tiktoken, on a megabyte of natural text.

The text is Tiny Shakespeare from TINY_CORPORA, else one generated from a few thousand words with natural frequencies.
"""

import os
import random
from pathlib import Path

import tiktoken
import tokenizers

from benchmarks.harness import Result, compare
from tiny_transformer.tokenization import bpe_plain
from tiny_transformer.tokenization.bpe import BPETokenizer
from tiny_transformer.tokenization.splitting import PATTERNS, Splitter

SLOW_SHARE = 5
"""The version that is written to be read gets a fifth of the text: with all of it, it takes minutes. Both learn from the same fifth."""
FLOOR = 1.5
"""MB/s that encoding must reach."""


def text_of_a_megabyte() -> str:
    """The real text where there is one."""
    folder = os.environ.get("TINY_CORPORA")
    if folder and (Path(folder) / "shakespeare.txt").is_file():
        return (Path(folder) / "shakespeare.txt").read_text(encoding="utf-8")
    chance = random.Random(0)
    words = ["".join(chance.choices("etaoinshrdlucmfwypvbgk", k=chance.randint(2, 9))) for _ in range(12_000)]
    weights = [1 / (rank + 1) for rank in range(len(words))]
    return "".join(word + chance.choice([" ", " ", " ", " ", ", ", ".\n"]) for word in chance.choices(words, weights, k=180_000))


def theirs(text: str, size: int) -> tokenizers.Tokenizer:
    """Trained by Hugging Face's tokenizers, the same pieces."""
    twin = tokenizers.Tokenizer(tokenizers.models.BPE())
    twin.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    twin.train_from_iterator([text], tokenizers.trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False))
    return twin


def run() -> list[Result]:
    """Training to 512 tokens on a fifth (aim: 30 × plain) and to 4,096 (aim: a quarter of tokenizers' speed), encoding in MB/s."""
    text = text_of_a_megabyte()
    megabytes = len(text.encode()) / 1e6
    part = text[: len(text) // SLOW_SHARE]
    pieces = [piece.encode() for piece in Splitter("gpt2").split(part)]
    trained = BPETokenizer.train(text, 4096)
    ranks = {token: i for i, token in trained.vocab.items()}
    peer = tiktoken.Encoding("peer", pat_str=PATTERNS["gpt2"], mergeable_ranks=ranks, special_tokens={})
    if trained.encode(text) != peer.encode(text):
        raise RuntimeError("our ids are not tiktoken's: a comparison of speed would say nothing")

    def encode_cold() -> None:
        trained._cache = {}  # as if this were the first text
        trained.encode(text)

    slow: list[list[bpe_plain.Pair]] = []
    size = len(part.encode()) / 1e6
    results = [
        compare(
            f"BPE training to 512, {size:.1f} MB", lambda: BPETokenizer.train(part, 512), lambda: slow.append(bpe_plain.train(pieces, 256)),
            work=size, unit="MB/s", peer_name="plain version", rounds=1, warm_up=0, aim=30,
        ),
        compare(
            "BPE training to 4,096, 1.1 MB", lambda: BPETokenizer.train(text, 4096), lambda: theirs(text, 4096),
            work=megabytes, unit="MB/s", peer_name="tokenizers", rounds=5, warm_up=1, aim=0.25,
        ),
        compare(
            "BPE encoding, 1.1 MB, empty cache", encode_cold, lambda: peer.encode(text),
            work=megabytes, unit="MB/s", peer_name="tiktoken", rounds=7, warm_up=1,
        ),
        compare(
            "BPE encoding, 1.1 MB, again", lambda: trained.encode(text), lambda: peer.encode(text),
            work=megabytes, unit="MB/s", peer_name="tiktoken", rounds=7, warm_up=1,
        ),
    ]  # fmt: skip
    if BPETokenizer.train(part, 512).merges != slow[-1]:
        raise RuntimeError("our merges are not those of the plain version: a comparison of speed would say nothing")
    for result in results:
        print(result.line(), flush=True)
    reached = "reached" if results[2].ours >= FLOOR else "NOT reached"
    print(f"{'encoding at all':44} {results[2].ours:10,.1f} MB/s     aim {FLOOR} MB/s {reached}", flush=True)
    return results


if __name__ == "__main__":
    run()
