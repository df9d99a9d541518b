"""A hundred megabytes of text to token files: how fast, and in how much memory, beside tiktoken with everything in memory.

The text is that of `tokenizers_bpe.py` again and again with its lines shuffled, so it repeats its words more than a real one would.
Each side runs in a process of its own, so that its peak of memory is its own.
"""

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import Result
from benchmarks.tokenizers_bpe import text_of_a_megabyte
from benchmarks.watch import Watch
from tiny_transformer.tokenization.bpe import BPETokenizer
from tiny_transformer.tokenization.files import save_tokenizer

MEGABYTES = 100
MOST_MEMORY = 300
"""MB that writing may take, whatever the size of the text."""

COMMON = """
import json, resource, sys, time
from pathlib import Path
import numpy as np
from tiny_transformer.tokenization.files import load_tokenizer
text, tokenizer, out = Path(sys.argv[1]), load_tokenizer(sys.argv[2]), sys.argv[3]
"""
OURS = """
from tiny_transformer.training.token_writer import write_token_files
begun = time.perf_counter()
tokens = len(write_token_files(text, tokenizer, out, workers=int(sys.argv[4])))
"""
THEIRS = """
import tiktoken
from tiny_transformer.tokenization.splitting import PATTERNS
ranks = {token: i for i, token in tokenizer.vocab.items()}
peer = tiktoken.Encoding("peer", pat_str=PATTERNS["gpt2"], mergeable_ranks=ranks, special_tokens={})
begun = time.perf_counter()
ids = np.array(peer.encode_ordinary(text.read_text(encoding="utf-8")), dtype=np.uint16)
ids.tofile(out)
tokens = len(ids)
"""
REPORT = """
seconds = time.perf_counter() - begun
status = Path("/proc/self/status")  # getrusage's peak would include that of the process which started this one
if status.exists():
    peak = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"seconds": seconds, "tokens": tokens, "memory": peak / 1024}))
"""


def measure(code: str, *arguments: object) -> dict[str, float]:
    """Run a piece of code in a process of its own: its seconds, tokens and peak of memory in MB."""
    command = [sys.executable, "-c", COMMON + code + REPORT, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def write_text(path: Path) -> float:
    """A file of MEGABYTES; returns its size in MB."""
    lines = text_of_a_megabyte().splitlines(keepends=True)
    chance = random.Random(0)
    with path.open("w", encoding="utf-8", newline="") as file:
        while file.tell() < MEGABYTES * 1e6:
            chance.shuffle(lines)
            file.writelines(lines)
    return path.stat().st_size / 1e6


def run() -> list[Result]:
    """One process, then two, against tiktoken in one."""
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = write_text(folder / "text.txt")
        save_tokenizer(BPETokenizer.train(text_of_a_megabyte(), 4096), folder / "tokenizer.json")
        watch = Watch()
        peer = measure(THEIRS, folder / "text.txt", folder / "tokenizer.json", folder / "peer.bin")
        for workers in (1, 2):
            ours = measure(OURS, folder / "text.txt", folder / "tokenizer.json", folder / f"tokens{workers}", workers)
            if ours["tokens"] != peer["tokens"]:
                raise RuntimeError(f"ours has {ours['tokens']} tokens, tiktoken {peer['tokens']}: the comparison would say nothing")
            ratio = peer["seconds"] / ours["seconds"]
            memory = f"peak memory of the writing process {ours['memory']:.0f} MB, tiktoken with all in memory {peer['memory']:.0f} MB"
            result = Result(
                name=f"token files, {size:.0f} MB, {workers} process{'es' * (workers > 1)}", unit="MB/s", ours=size / ours["seconds"],
                peer=size / peer["seconds"], peer_name="tiktoken", ratio=ratio, low=ratio, high=ratio, notes=memory,
                extra={"memory_mb": ours["memory"], "peer_memory_mb": peer["memory"]}, others=watch.others(),
            )  # fmt: skip
            results.append(result)
            reached = "reached" if ours["memory"] < MOST_MEMORY else "NOT reached"
            print(f"{result.line()}\n{'':44} {memory}, aim below {MOST_MEMORY} {reached}", flush=True)
    return results


if __name__ == "__main__":
    run()
