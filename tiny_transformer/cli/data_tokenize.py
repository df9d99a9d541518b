"""`tiny data tokenize` and `tiny data verify`: a text of any size as token files, and whether they are whole.

Read before: training/token_writer.py, training/token_files.py.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import tyro
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from tiny_transformer import tokenization
from tiny_transformer.cli.data_source import check_binary_file, unescape
from tiny_transformer.cli.screen import Screen
from tiny_transformer.cli.settings import parse
from tiny_transformer.config import TokenizerKind, check
from tiny_transformer.tokenization.base import Tokenizer
from tiny_transformer.tokenization.bpe import BPETokenizer
from tiny_transformer.tokenization.files import load_tokenizer
from tiny_transformer.tokenization.text_stream import text_chunks
from tiny_transformer.training import token_files
from tiny_transformer.training.token_writer import Progress, write_token_files

DESCRIPTION = """\
Turn text files of any size into token files: numbers on disk that training
reads where they lie. Memory stays flat, several processes may work, and the
folder appears when it is whole.

  tiny data tokenize big.txt --tokenizer bpe --vocab-size 4096 --out tokens
  tiny data tokenize a.txt b.txt --tokenizer-file tok.json --workers 2 --out tokens
  tiny data verify tokens
  tiny train --data tokens --out checkpoints/big
"""

END = "<|endoftext|>"
"""The token behind each document, where there are several and the tokenizer is learned here."""
LEARN_FROM = 20_000_000
"""Characters that a tokenizer is learned from, from the beginning, unless it can learn from a stream (bpe)."""


@dataclass(frozen=True, kw_only=True)
class TokenizeSettings:
    """What `tiny data tokenize` accepts."""

    files: tyro.conf.Positional[tuple[str, ...]] = ()
    """Text files, UTF-8; each is a document, or as many as --document-separator makes of it."""
    out: str | None = None
    """The new folder."""
    tokenizer: TokenizerKind = "bpe"
    """Learn this kind of tokenizer from the files."""
    vocab_size: int | None = None
    """How many tokens it learns; default: 2048."""
    tokenizer_file: str | None = None
    """Use the tokenizer in this file instead."""
    document_separator: str | None = None
    """What stands between two documents, for example <|endoftext|>; \\n is read as a line end."""
    shard_tokens: int = 100_000_000
    """Tokens in one file."""
    workers: int = 1
    """Processes that encode."""
    json: bool = False
    """Print the result as JSON."""


def main(argv: list[str]) -> int:
    """Check, learn a tokenizer where none is given, write."""
    settings = parse(TokenizeSettings, argv, command="data tokenize", description=DESCRIPTION)
    check(bool(settings.files), "tokenize without a file", "it needs a text", "Try: tiny data tokenize my.txt --out tokens")
    check(settings.out is not None, "tokenize without --out", "the token files need a folder", "Try --out tokens")
    out = Path(settings.out or "")
    check(not out.exists(), f"{out} is there already", "token files are written to a new folder", "Choose another name")
    paths = [Path(name) for name in settings.files]
    for path in paths:
        check_binary_file(path)
    screen = Screen(to_stderr=settings.json)
    tokenizer = _tokenizer(settings, paths, screen)
    begun = time.perf_counter()
    with _bar(screen) as progress:
        files = write_token_files(
            paths, tokenizer, out, shard_tokens=settings.shard_tokens, workers=settings.workers,
            document_separator=unescape(settings.document_separator), progress=progress,
        )  # fmt: skip
    seconds, size = time.perf_counter() - begun, sum(path.stat().st_size for path in paths)
    facts = {**_facts(files), "bytes": size, "seconds": round(seconds, 2), "megabytes_per_second": round(size / 1e6 / seconds, 2)}
    if settings.json:
        print(json.dumps(facts))
        return 0
    _say(screen, facts)
    screen.say(f"written in {seconds:.1f} s, {facts['megabytes_per_second']:.2f} MB of text a second")
    screen.say(f"train on it: tiny train --data {out} --out checkpoints/{out.name}")
    return 0


def verify(argv: list[str]) -> int:
    """`tiny data verify FOLDER`: read every byte and compare it with what the index says."""
    settings = parse(VerifySettings, argv, command="data verify", description=DESCRIPTION)
    check(settings.folder is not None, "verify without a folder", "it needs token files", "Try: tiny data verify tokens")
    facts = _facts(token_files.verify(settings.folder or ""))
    if settings.json:
        print(json.dumps({**facts, "whole": True}))
        return 0
    screen = Screen()
    _say(screen, facts)
    screen.say("whole: sizes, digests, ids, documents and tokenizer agree with the index", style="bold green")
    return 0


@dataclass(frozen=True, kw_only=True)
class VerifySettings:
    """What `tiny data verify` accepts."""

    folder: tyro.conf.Positional[str | None] = None
    """A folder of token files."""
    json: bool = False
    """Print the result as JSON."""


def _tokenizer(settings: TokenizeSettings, paths: list[Path], screen: Screen) -> Tokenizer:
    """The given one, or one learned from the files."""
    if settings.tokenizer_file is not None:
        check(settings.vocab_size is None, "--vocab-size with --tokenizer-file", "the file has its own vocabulary", "Leave one out")
        return load_tokenizer(settings.tokenizer_file)
    size = settings.vocab_size
    if size is None and settings.tokenizer not in ("char", "byte", "word"):
        size = 2048
    screen.say(f"learning {settings.tokenizer} tokens from {', '.join(map(str, paths))} …", style="dim")
    special = [END] if settings.document_separator is not None and settings.tokenizer != "wordpiece" else None  # that one has [SEP]
    if settings.tokenizer == "bpe" and len(paths) == 1:
        return BPETokenizer.train_from_file(paths[0], size or 2048, special or ())
    learned: Tokenizer = tokenization.train(settings.tokenizer, "".join(_beginning(paths)), size, special)
    return learned


def _beginning(paths: list[Path]) -> Iterator[str]:
    """The first LEARN_FROM characters of the files, an equal part of each."""
    for path in paths:
        left = LEARN_FROM // len(paths)
        for chunk in islice(text_chunks(path), left // (1 << 20) + 1):
            yield chunk[:left]
            left -= len(chunk)
            if left <= 0:
                break


def _facts(files: token_files.TokenFiles) -> dict[str, Any]:
    index = files.index
    return {
        "folder": str(files.folder), "tokens": len(files), "documents": sum(shard.n_documents for shard in index.shards),
        "shards": len(index.shards), "dtype": index.dtype, "vocab_size": index.vocab_size, "tokenizer_sha256": index.tokenizer_sha256,
    }  # fmt: skip


def _say(screen: Screen, facts: dict[str, Any]) -> None:
    shards = "1 shard" if facts["shards"] == 1 else f"{facts['shards']:,} shards"
    screen.say(f"{facts['folder']}: {facts['tokens']:,} tokens, {facts['documents']:,} documents, {shards} of {facts['dtype']}")
    screen.say(f"vocabulary of {facts['vocab_size']:,}, tokenizer {facts['tokenizer_sha256'][:12]}…", style="dim")


@contextmanager
def _bar(screen: Screen) -> Iterator[Any]:
    """A callback for `write_token_files` that moves a bar on a terminal, and does nothing elsewhere."""
    if not screen.live:
        yield None
        return
    said, left = TextColumn("{task.fields[said]}"), TimeRemainingColumn(compact=True)
    with Bar(TextColumn("writing tokens"), BarColumn(bar_width=None), said, left, console=screen.console, transient=True) as bar:
        task = bar.add_task("", total=None, said="")

        def progress(now: Progress) -> None:
            bar.update(task, total=now.bytes_total, completed=now.bytes_read, said=f"{now.n_tokens:,} tokens")

        yield progress
