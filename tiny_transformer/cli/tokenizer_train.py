"""`tiny tokenizer train`: learn a vocabulary from a text, say what was learned, write it. Read before: tokenization/registry.py."""

import json
import time
from dataclasses import dataclass
from typing import Any

import tyro
from rich.table import Table
from rich.text import Text

from tiny_transformer import tokenization
from tiny_transformer.cli.data_source import source_path, working
from tiny_transformer.cli.screen import Screen, table
from tiny_transformer.cli.settings import parse
from tiny_transformer.cli.texts import DEFAULT_PIECES
from tiny_transformer.cli.tokenizer_files import check_form, check_targets, targets, write
from tiny_transformer.cli.tokenizer_pieces import fact, shown, vocabulary
from tiny_transformer.cli.tokenizer_source import read_text, spread
from tiny_transformer.config import ConfigError, check, check_choice
from tiny_transformer.tokenization.registry import OWN_SIZE, TRAINED
from tiny_transformer.tokenization.special_tokens import check_special_tokens
from tiny_transformer.tokenization.splitting import Splitter
from tiny_transformer.training.dataset import split

DESCRIPTION = """\
Learn a vocabulary from a text. Kinds: char, byte, word, bpe, wordpiece, unigram.

  tiny tokenizer train --corpus shakespeare --kind bpe --vocab-size 4096 --out tok.json
  tiny tokenizer train --data my.txt --kind unigram --vocab-size 2000 --out uni.json
  tiny tokenizer train --data my.txt --special "<|endoftext|>" --split gpt4 --out tok.json
  tiny train --data my.txt --tokenizer-file tok.json --out runs/a     and a model with it

Forms: tiny (ours), huggingface (tokenizer.json), gpt2 (vocab.json and merges.txt in a
folder), tiktoken (a rank file), wordpiece (vocab.txt).
"""


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """What `tiny tokenizer train` accepts."""

    corpus: str | None = None
    """A built-in text (see tiny data list)."""
    data: str | None = None
    """A text file of your own, "-" for standard input."""
    kind: str = "bpe"
    """char, byte, word, bpe, wordpiece or unigram."""
    vocab_size: int | None = None
    """How many tokens, special ones included; default 2048. For char, byte and word the text decides, and this is a limit."""
    split: str | None = None
    """bpe: how text is cut before merging: gpt2 (default), gpt4, none, or a regular expression."""
    special: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Special tokens: each is one id, whatever stands around it."""
    val_share: float = 0.0
    """Do not look at this last share of the text; `tiny train` holds back 0.1."""
    size: int | None = None
    """Take this many characters only, from the start."""
    out: str | None = None
    """The file (--format gpt2: the folder) to write."""
    format: str = "tiny"
    """tiny, huggingface, gpt2, tiktoken or wordpiece."""
    overwrite: bool = False
    """Replace what is at --out."""
    show: int = 20
    """How many merges (or tokens) to show, the first and the last."""
    json: bool = False
    """Print the summary as JSON."""


@dataclass(frozen=True)
class Learned:
    """A trained tokenizer and what is known about the training."""

    tokenizer: Any
    merges: list[tuple[tuple[bytes, bytes], int]]
    """BPE: each merge with the count of its pair, in order."""
    seconds: float
    warning: str
    """Why there are fewer tokens than asked for; empty when there are as many."""


def main(argv: list[str]) -> int:
    """Learn, write, show."""
    settings = parse(TrainSettings, spread(argv, "--special"), command="tokenizer train", description=DESCRIPTION)
    check_settings(settings)
    paths = targets(settings.format, settings.out)
    check_targets(paths, overwrite=settings.overwrite, sources=[source_path(settings.corpus or settings.data)])
    with working(Screen(to_stderr=True)) as stage:
        corpus = read_text(settings.corpus, settings.data, "train", settings.size)
        text = split(corpus.text, settings.val_share)[0] if settings.val_share else corpus.text
        made = learn(settings, text, stage)
        stage("encoding the text with it", 0, 1)
        start = time.perf_counter()
        n_tokens = len(made.tokenizer.encode_array(text))
        encoding = time.perf_counter() - start
    left_out = write(made.tokenizer, settings.format, paths)
    facts = {
        "kind": settings.kind, "vocab_size": made.tokenizer.vocab_size, "asked_for": _wanted(settings),
        "special_tokens": dict(made.tokenizer.special_tokens), "source": corpus.source, "n_characters": len(text),
        "n_bytes": len(text.encode("utf-8")), "n_tokens": n_tokens, "seconds": made.seconds, "encoding_seconds": encoding,
        "merges": [[shown(left), shown(right), count] for (left, right), count in made.merges],
        "warnings": [line for line in (made.warning, left_out) if line], "files": [str(path) for path in paths],
    }  # fmt: skip
    if settings.json:
        print(json.dumps(facts))
        return 0
    show(facts, made, settings, Screen())
    return 0


def check_settings(settings: TrainSettings) -> None:
    """Raise ConfigError for what can't be, before a text is read."""
    check_choice("kind", settings.kind, TRAINED)
    check_form(settings.format, settings.kind)
    check(settings.split is None or settings.kind == "bpe", f"--split with --kind {settings.kind}", "only bpe has one", "Leave it out")
    check(0 <= settings.val_share < 1, f"val_share={settings.val_share}", "it must be at least 0 and below 1", "Try --val-share 0.1")
    check(settings.show >= 0, f"show={settings.show}", "it must be 0 or more", "Try --show 20")
    size = settings.vocab_size
    check(size is None or size >= 1, f"vocab_size={size}", "it must be at least 1", "Try --vocab-size 2048")
    check_special_tokens(settings.special)
    Splitter(settings.split or "gpt2")


def _wanted(settings: TrainSettings) -> int | None:
    return settings.vocab_size if settings.kind in OWN_SIZE else settings.vocab_size or DEFAULT_PIECES


def learn(settings: TrainSettings, text: str, stage: Any) -> Learned:
    """Train. Raises ConfigError for a vocabulary size below what must be in, and an empty text."""
    merges: list[tuple[tuple[bytes, bytes], int]] = []
    options: dict[str, Any] = {}
    if settings.kind == "bpe":
        options = {
            "split": settings.split or "gpt2",
            "on_merge": lambda rank, pair, count: merges.append((pair, count)),
            "progress": lambda done, total: stage("merging", done, total),
        }
    stage(f"learning {settings.kind} from {len(text):,} characters", 0, 1)
    wanted, start = _wanted(settings), time.perf_counter()
    special = settings.special or None
    try:
        tokenizer: Any = tokenization.train(settings.kind, text, wanted, special, **options)
    except RecursionError:
        raise ConfigError("this text can't be learned from: its pieces are too deep. Try --split gpt2") from None
    seconds = time.perf_counter() - start
    short = wanted is not None and tokenizer.vocab_size < wanted and settings.kind != "byte"
    reason = getattr(tokenizer, "why_smaller", "") or f"{tokenizer.vocab_size} tokens, not {wanted}: the text has no more {settings.kind}s"
    return Learned(tokenizer, merges, seconds, reason if short else "")


def show(facts: dict[str, Any], made: Learned, settings: TrainSettings, screen: Screen) -> None:
    """The summary."""
    kind = f"{settings.kind}, split {made.tokenizer.split}" if settings.kind == "bpe" else settings.kind
    screen.say(fact("kind", kind))
    screen.say(fact("vocabulary", make_up(made.tokenizer)))
    screen.say(fact("text", facts["source"]))
    held = f", {settings.val_share:.0%} held back" if settings.val_share else ""
    screen.say(fact("learned in", f"{made.seconds:.2f} s from {facts['n_characters']:,} characters{held}"))
    ratio = facts["n_bytes"] / max(facts["n_tokens"], 1)
    encoded = f"{facts['n_tokens']:,} tokens, {ratio:.2f} bytes per token, in {facts['encoding_seconds']:.2f} s"
    screen.say(fact("encoded", encoded))
    if settings.show:
        screen.say()
        screen.say(merge_table(made, settings.show) if made.merges else token_table(made.tokenizer, settings.show))
    for line in facts["warnings"]:
        screen.warn(line)
    screen.say(fact("written", f"{', '.join(facts['files'])} ({settings.format})"))


def make_up(tokenizer: Any) -> str:
    """What a vocabulary consists of, in one line."""
    special = len(getattr(tokenizer, "special_tokens", ()))
    merges = len(tokenizer.merges) if hasattr(tokenizer, "merges") else None
    more = [*([f"{merges:,} merges"] if merges is not None else []), f"{special} special"]
    return f"{tokenizer.vocab_size:,} tokens ({', '.join(more)})"


def merge_table(made: Learned, most: int) -> Table:
    """The first and the last merges with their counts."""
    rows = table("merge", "pair", "token", "count", title="learned, one by one")
    rows.columns[1].justify = rows.columns[2].justify = "left"
    for rank in ends(len(made.merges), most):
        if rank is None:
            rows.add_row("…", style="dim")
            continue
        (left, right), count = made.merges[rank]
        rows.add_row(str(rank), Text(f"{shown(left)} + {shown(right)}"), Text(shown(left + right)), f"{count:,}")
    return rows


def token_table(tokenizer: Any, most: int) -> Table:
    """The first and the last tokens, for kinds without merges."""
    pieces = vocabulary(tokenizer)
    scores = getattr(tokenizer, "scores", None)
    rows = table("id", "token", *(["log p"] if scores else []), title="the vocabulary")
    rows.columns[1].justify = "left"
    listed = list(pieces.items())
    for place in ends(len(listed), most):
        if place is None:
            rows.add_row("…", style="dim")
            continue
        i, piece = listed[place]
        rows.add_row(str(i), Text(shown(piece)), *([f"{scores[i]:.2f}"] if scores else []))
    return rows


def ends(n: int, most: int) -> list[int | None]:
    """The places to show of `n`: the first and the last, None for the gap between."""
    if n <= most:
        return list(range(n))
    first = (most + 1) // 2
    return [*range(first), None, *range(n - (most - first), n)]
