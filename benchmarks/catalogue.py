"""What each comparison means in one sentence, where it belongs, and how long its benchmark may take.

A comparison is known by how its name begins, so that old lines of history.jsonl keep their meaning. One that nobody has
described here stands under its own module, with the first sentence of that module. Read before: `harness.py`.
"""

import ast
from pathlib import Path
from typing import NamedTuple

LIMIT = 15 * 60
"""Seconds that `make bench` may take on two cores."""

BUDGETS = {
    "startup": 10, "training": 270, "generation": 150, "speculative": 100, "numpy_engine": 80, "tokenizers_bpe": 100, "token_files": 60,
}  # fmt: skip
"""Seconds each benchmark may take of it: together less, for machines that are slower for an hour. Most of training's go to compilers."""
OTHERWISE = 60
"""Seconds for one that is not in the list."""

RENAMED: dict[str, str | None] = {"BPE training to 512, 1.1 MB": None}
"""Comparisons that have another name now, and (None) those that nobody makes any more: old name → new one."""


class Kind(NamedTuple):
    """All comparisons whose names begin alike."""

    begins: str
    group: str
    means: str


KINDS = (
    Kind("tiny --help", "startup", "From the shell to the list of commands, beside a Python that does nothing: it cannot be above 1."),
    Kind(
        "training step, ", "training",
        "One whole training step in float32: forward, backward, clipping, fused AdamW; the same shape, batch and optimizer on both sides.",
    ),
    Kind(
        "generation, ", "generation",
        "200 tokens behind a prompt of 16, top-k sampling, keys and values cached; the same shape and batch on both sides.",
    ),
    Kind("speculative", "speculative", "A small model drafts, the large one checks: the same distribution, beside the large one alone."),
    Kind(
        "NumPy training step, ", "numpy_engine",
        "One whole training step of the engine without PyTorch, backward passes by hand, beside PyTorch eager with the same model.",
    ),
    Kind(
        "BPE training to 512", "tokenizers_bpe",
        "Learning 256 merges from a fifth of the text, beside the version that is written to be read.",
    ),
    Kind("BPE training to 4,096", "tokenizers_bpe", "Learning 3,840 merges, beside Hugging Face's tokenizers (Rust)."),
    Kind("BPE encoding, 1.1 MB, empty cache", "tokenizers_bpe", "A megabyte of text to ids, never seen before, beside tiktoken (Rust)."),
    Kind("BPE encoding, 1.1 MB, again", "tokenizers_bpe", "The same once more, when every piece is remembered."),
    Kind("token files, ", "token_files", "A text of any size to files of ids in little memory, beside tiktoken with everything in memory."),
    Kind(
        "recipe ", "recipe",
        "The loss of `tiny train --recipe` over the whole validation text, the mean of its seeds, as a share of what counting four "
        "characters at a time reaches there; in brackets the best and the worst seed.",
    ),
    Kind("GPU, GPT-2 124M", "gpu", "GPT-2's smallest size at context 1,024 with our model, Trainer and AdamW: share of the GPU's peak."),
    Kind("GPU, 6 × 384, training", "gpu", "The lab's model in bfloat16, compiled, beside the same Trainer in float32 without a compiler."),
    Kind("GPU, 6 × 384, time to", "gpu", "Seconds until the loss is near the entropy of the text's source, beside the same plain way."),
)  # fmt: skip

APART = ("recipe", "gpu")
"""What `make bench` leaves out: it takes too long, or needs another machine. Each is a command of its own."""

TITLES = {
    "startup": "Starting", "training": "Training", "generation": "Generation", "speculative": "Speculative decoding",
    "numpy_engine": "The NumPy engine", "tokenizers_bpe": "BPE", "token_files": "Token files", "recipe": "Recipes", "gpu": "GPU",
}  # fmt: skip


def kind_of(name: str) -> Kind | None:
    """The longest beginning that fits."""
    return max((kind for kind in KINDS if name.startswith(kind.begins)), key=lambda kind: len(kind.begins), default=None)


def group_of(name: str, group: str = "") -> str:
    """Where a comparison belongs: what its result says, else what its name says."""
    kind = kind_of(name)
    return group or (kind.group if kind else "other")


def means(name: str, group: str = "") -> str:
    """The comparison in one sentence."""
    kind = kind_of(name)
    return kind.means if kind else first_sentence(group_of(name, group))


def first_sentence(module: str) -> str:
    """How a benchmark's file begins; it is read, not imported: a peer may be missing."""
    path = Path(__file__).with_name(f"{module}.py")
    text = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "") if path.is_file() else ""
    return " ".join(text.split("\n\n")[0].split())


def title(group: str) -> str:
    """A group's heading."""
    return TITLES.get(group, group.replace("_", " ").capitalize())


def command(group: str) -> str:
    """What measures it again."""
    if group == "other":
        return "make bench"
    return f"python -m benchmarks.{group}" if group in APART else f"python -m benchmarks {group}"


def budget(name: str) -> float:
    """Seconds that a benchmark may take."""
    return BUDGETS.get(name, OTHERWISE)


if __name__ == "__main__":
    for name in BUDGETS:
        print(f"{title(name):22} {budget(name):4.0f} s  {first_sentence(name)[:100]}")
