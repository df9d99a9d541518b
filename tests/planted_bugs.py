"""Planted bugs: each is a small, plausible mistake, and some test must fail for it. Run with `make planted-bugs`.

A test suite is as good as the bugs it finds. Each line below names a file, a piece of it, what a tired person might have
written instead, and the tests that must notice. The change is made in a copy of the tree, never in the tree itself.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent


class Bug(NamedTuple):
    """Replace `good` by `bad` in `file` (under tiny_transformer/); `tests` must then fail."""

    name: str
    file: str
    good: str
    bad: str
    tests: str


BUGS = [
    Bug("no 1/√d", "attention.py", " / math.sqrt(query.size(-1))  #", "  #", "attention"),
    Bug("mask after the softmax only", "attention.py", "scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)", "pass", "attention"),
    Bug("mask of numbers accepted and added", "attention.py", "    if mask.dtype != torch.bool:", "    if False:", "attention"),
    Bug("causal mask hides the present", "attention.py", "allowed &= distance >= 0", "allowed &= distance > 0", "attention"),
    Bug("causal mask shows one step of the future", "attention.py", "allowed &= distance >= 0", "allowed &= distance >= -1", "attention model"),
    Bug("window one too wide", "attention.py", "distance.abs() < window", "distance.abs() <= window", "attention"),
    Bug("cached queries at the start of the keys", "attention.py", "torch.arange(key_len - query_len, key_len", "torch.arange(0, query_len", "attention"),
    Bug("fused path forgets the extra mask", "attention.py", "allowed = join_masks(structure, mask)", "allowed = structure", "attention"),
    Bug("fused path drops the window", "attention.py", "window is not None and window >= keys", "window is not None", "attention"),
    Bug("head split by a bare view", "multi_head.py", "x.view(batch, seq, n_heads, width // n_heads).transpose(1, 2)", "x.view(batch, n_heads, seq, width // n_heads)", "multi_head model"),
    Bug("merge without the transpose", "multi_head.py", "x.transpose(1, 2).reshape(batch, seq", "x.reshape(batch, seq", "multi_head"),
    Bug("grouped heads interleaved the wrong way", "multi_head.py", "x[:, :, None].expand(batch, heads, times, seq, d_head)", "x[:, None].expand(batch, times, heads, seq, d_head)", "multi_head"),
    Bug("keys not rotated", "multi_head.py", "query, key = rotate(query), rotate(key)", "query = rotate(query)", "model kv_cache multi_head embeddings"),
    Bug("variance divides by d - 1", "normalization.py", "(x - mean).square().mean(-1, keepdim=True)", "x.var(-1, keepdim=True)", "normalization"),
    Bug("eps outside the root", "normalization.py", "torch.sqrt(variance + eps)", "(torch.sqrt(variance) + eps)", "normalization"),
    Bug("rms norm subtracts the mean", "normalization.py", "return x / torch.sqrt(x.square()", "x = x - x.mean(-1, keepdim=True)\n    return x / torch.sqrt(x.square()", "normalization"),
    Bug("post-norm in place of pre-norm", "transformer_block.py", "x = x + self.dropout(self.feedforward(self.norm2(x)))", "x = self.norm2(x + self.dropout(self.feedforward(x)))", "transformer_block"),
    Bug("residual forgotten", "transformer_block.py", "x = x + self.dropout(self.feedforward(self.norm2(x)))", "x = self.dropout(self.feedforward(self.norm2(x)))", "transformer_block"),
    Bug("gate and up swapped", "feedforward.py", "down(activation(gate(x)) * up(x))", "down(activation(up(x)) * gate(x))", "feedforward"),
    Bug("sine and cosine swapped", "embeddings.py", "out[:, 0::2] = angle.sin()", "out[:, 0::2] = angle.cos()", "embeddings"),
    Bug("rotation by interleaved halves", "embeddings.py", "torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)", "torch.stack((first * cos - second * sin, first * sin + second * cos), dim=-1).flatten(-2)", "embeddings"),
    Bug("ALiBi rewards distance", "embeddings.py", "return -slopes[:, None, None] * distance", "return slopes[:, None, None] * distance", "embeddings"),
    Bug("positions restart in cached decoding", "kv_cache.py", "torch.arange(self.length, self.length + seq_len, device", "torch.arange(0, seq_len, device", "kv_cache"),
    Bug("padded rows do not shift their positions", "kv_cache.py", "return (columns - self.padding[:, None]).clamp(min=0)", "return columns.expand(self.batch_size, -1)", "kv_cache"),
    Bug("padding columns visible", "kv_cache.py", "columns[None, :] >= self.padding[:, None]", "columns[None, :] >= 0 * self.padding[:, None]", "kv_cache"),
    Bug("tied output copied, not shared", "model.py", "self.weight = token if config.tie_weights else", "self.weight =", "model"),
    Bug("no norm before the output", "model.py", "out: Tensor = self.norm(x)", "out: Tensor = x", "model"),
    Bug("branches start too large", "initialization.py", "return 0.02 / math.sqrt(2 * config.n_layers)", "return 0.02", "initialization"),
    Bug("tied tokens as large as GPT-2's", "initialization.py", "return min(0.02, 1.7 / config.d_model)", "return 0.02", "initialization"),
    Bug("one generator for all weights", "initialization.py", "[seed, zlib.crc32(name.encode())]", "[seed]", "initialization"),
    Bug("parameter count forgets the positions", "config.py", " + self.max_seq_len * int(self.position == \"learned\")", "", "config"),
]  # fmt: skip


def copy_tree(target: Path) -> None:
    """What the tests need, without results and caches."""
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("tiny_transformer", "tests", "tools", "examples", "docs", "data"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=ignore)
    for path in ROOT.glob("*.*"):
        if path.is_file():
            shutil.copy(path, target)
    shutil.copy(ROOT / "Makefile", target)


def is_caught(bug: Bug, tree: Path) -> bool:
    """Plant the bug in `tree`, run its tests, take it out again. Raises ValueError when the piece is not there exactly once."""
    path = tree / "tiny_transformer" / bug.file
    original = path.read_text(encoding="utf-8")
    if original.count(bug.good) != 1:
        raise ValueError(f"{bug.name}: {bug.file} holds {bug.good!r} {original.count(bug.good)} times, must be once")
    path.write_text(original.replace(bug.good, bug.bad), encoding="utf-8")
    try:
        tests = [f"tests/test_{name}.py" for name in bug.tests.split()]
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
        return subprocess.run(command, cwd=tree, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode == 1
    finally:
        path.write_text(original, encoding="utf-8")


def main() -> int:
    """Plant every bug (or those whose name or file holds the given word); print the ones that no test noticed."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("only", nargs="?", default="", help="a word of the bug's name or file")
    only = parser.parse_args().only
    bugs = [bug for bug in BUGS if only in bug.name or only in bug.file]
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        copy_tree(Path(folder))
        for bug in bugs:
            caught = is_caught(bug, Path(folder))
            missed += not caught
            print(f"{'caught' if caught else 'MISSED'}  {bug.file:26} {bug.name}", flush=True)
    print(f"{len(bugs) - missed} of {len(bugs)} planted bugs caught")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
