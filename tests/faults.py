"""The long campaigns: far more generated cases than the test suite has time for. Run with `make faults`.

Each line prints tried / failed, and all of it goes into one JSON report. The exit code is 1 when anything failed.

    python -m tests.faults --texts 1000000 --report faults.json
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from tests.any_text import many_texts
from tests.onnx_cases import onnx_campaign
from tests.test_unigram import library as unigram_twin
from tests.test_wordpiece import library as wordpiece_twin
from tests.tokenizer_campaign import campaign as bpe_campaign
from tiny_transformer import tokenization
from tiny_transformer.tokenization.base import Tokenizer

PART = 5_000
Counts = dict[str, int]


def pieces_campaign(kind: str, n: int, seed: int) -> Counts:
    """WordPiece or Unigram: `n` texts give the ids of Hugging Face's tokenizers with the same vocabulary."""
    ours, theirs = _pair(kind)
    failed = sum(ours.encode(text) != theirs.encode(text, add_special_tokens=False).ids for text in many_texts(n, seed))
    return {"tried": n, "failed": failed}


def _pair(kind: str) -> tuple[Tokenizer, object]:
    if kind not in _PAIRS:
        ours = tokenization.train(kind, " ".join(many_texts(400, seed=2)) * 2, 1500)
        _PAIRS[kind] = ours, (wordpiece_twin if kind == "wordpiece" else unigram_twin)(ours)
    return _PAIRS[kind]


_PAIRS: dict[str, tuple[Tokenizer, object]] = {}


def round_trip_campaign(n: int, seed: int) -> Counts:
    """Characters and bytes: every text comes back."""
    failed = 0
    for text in many_texts(n, seed):
        byte = tokenization.train("byte", "")
        char = tokenization.train("char", text) if text else byte
        failed += byte.decode(byte.encode(text)) != text or char.decode(char.encode(text)) != text
    return {"tried": n, "failed": failed}


def campaigns(texts: int) -> Iterator[tuple[str, Callable[..., Counts], int]]:
    """Name, function of (n, seed), and how many."""
    yield "BPE: round trip, streams, ids and cuts of tiktoken and tokenizers", bpe_campaign, texts
    yield "WordPiece: ids of tokenizers", partial(pieces_campaign, "wordpiece"), texts // 10
    yield "Unigram: ids of tokenizers", partial(pieces_campaign, "unigram"), texts // 10
    yield "characters and bytes: round trip", round_trip_campaign, texts // 10
    yield "ONNX: models with options by chance, checker and logits", onnx_campaign, texts // 10_000


def main() -> int:
    """Run all; print, write the report."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--texts", type=int, default=1_000_000, help="generated texts for BPE; a tenth for each of the others")
    parser.add_argument("--report", default="faults.json", help="where the report goes")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="another seed, other texts; the report names it")
    arguments = parser.parse_args()
    report = {"seed": arguments.seed, "results": {}}
    with ProcessPoolExecutor(arguments.jobs) as pool:
        for name, run, n in campaigns(arguments.texts):
            sizes = [min(PART, n - start) for start in range(0, n, PART)]
            total = {"tried": 0, "failed": 0}
            for part in pool.map(run, sizes, range(arguments.seed, arguments.seed + len(sizes))):
                total = {key: total[key] + part[key] for key in total}
                if sys.stderr.isatty():
                    print(f"\r{total['tried']:,} of {n:,}", end="", file=sys.stderr)
            print(f"{name:70} {total['tried']:>9,} tried {total['failed']:>6,} failed", flush=True)
            report["results"][name] = total
    Path(arguments.report).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return int(any(result["failed"] for result in report["results"].values()))


if __name__ == "__main__":
    sys.exit(main())
