"""`tiny tokenizer encode`: a text as tokens, in colours on a terminal, as lines elsewhere. Read before: tokenizer_pieces.py."""

import json
import sys
from dataclasses import dataclass
from typing import Any

import tyro

from tiny_transformer.cli.data_source import read
from tiny_transformer.cli.screen import Screen
from tiny_transformer.cli.settings import parse
from tiny_transformer.cli.tokenizer_pieces import coloured, kind_of, shown, token
from tiny_transformer.cli.tokenizer_source import open_tokenizer, spread
from tiny_transformer.config import check

DESCRIPTION = """\
Text to ids. A terminal shows the tokens in colours with their ids below; a pipe gets a line for each: id, tab, token.
White space is shown as · (space), ⏎ (line end) and ⇥ (tab). Counts go to standard error.

  tiny tokenizer encode tok.json --text "to be or not to be"
  tiny tokenizer encode tok.json --file play.txt | tiny tokenizer decode tok.json
  tiny tokenizer encode gpt2/ --text "<|endoftext|>" --allowed-special none
"""

MOST_SHOWN = 2000
"""Tokens that a terminal is given; a pipe gets all."""


@dataclass(frozen=True, kw_only=True)
class EncodeSettings:
    """What `tiny tokenizer encode` accepts."""

    tokenizer: tyro.conf.Positional[str | None] = None
    """A tokenizer's file or folder, a run, or a checkpoint."""
    text: str | None = None
    """The text itself."""
    file: str | None = None
    """A text file, "-" for standard input, or a built-in text."""
    allowed_special: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """all (default), none, or those special tokens that count as such; others are ordinary text."""
    json: bool = False
    """Print ids, tokens and counts as JSON."""


def main(argv: list[str]) -> int:
    """Encode, show."""
    settings = parse(EncodeSettings, spread(argv, "--allowed-special"), command="tokenizer encode", description=DESCRIPTION)
    opened = open_tokenizer(settings.tokenizer, "encode")
    check(settings.text is None or settings.file is None, "--text and --file", "one text is enough", "Leave one out")
    given = settings.text is not None or settings.file is not None
    check(given, "encode without a text", "it needs one", 'Try --text "to be", or --file FILE')
    check(settings.text != "", "an empty text", "there is nothing to encode", "Pass some text")
    text = settings.text if settings.text is not None else read(settings.file, "encode").text
    allowed = settings.allowed_special
    ids = opened.tokenizer.encode(text, allowed[0] if allowed in (("all",), ("none",)) else allowed or "all")
    facts = {"tokenizer": opened.name, "kind": kind_of(opened.tokenizer), **counts(opened.tokenizer, text, ids), "ids": ids}
    pieces = [token(opened.tokenizer, i) for i in ids]
    if settings.json:
        print(json.dumps({**facts, "tokens": [shown(piece) for piece in pieces]}))
        return 0
    screen = Screen()
    if screen.live:
        screen.say(coloured(pieces[:MOST_SHOWN], ids[:MOST_SHOWN], screen.console.width))
        screen.say(f"… and {len(ids) - MOST_SHOWN:,} more: --json, or a pipe, gives all" if len(ids) > MOST_SHOWN else "", style="dim")
    else:
        sys.stdout.writelines(f"{i}\t{shown(piece)}\n" for i, piece in zip(ids, pieces, strict=True))
    Screen(to_stderr=True).say(in_words(facts), style="dim")
    return 0


def counts(tokenizer: Any, text: str, ids: list[int]) -> dict[str, Any]:
    """How much text became how many tokens, and whether it comes back."""
    size, unknown = len(text.encode("utf-8", "replace")), tokenizer.special.unk
    return {
        "n_tokens": len(ids),
        "n_characters": len(text),
        "n_bytes": size,
        "bytes_per_token": size / max(len(ids), 1),
        "n_unknown": 0 if unknown is None else ids.count(unknown),
        "round_trip": tokenizer.decode(ids) == text,
    }


def in_words(facts: dict[str, Any]) -> str:
    """The counts as a line."""
    back = "decodes to the same text" if facts["round_trip"] else "does not decode to the same text"
    unknown = f", {facts['n_unknown']:,} unknown" if facts["n_unknown"] else ""
    much = f"{facts['n_tokens']:,} tokens for {facts['n_characters']:,} characters, {facts['n_bytes']:,} bytes"
    return f"{much}: {facts['bytes_per_token']:.2f} bytes per token{unknown}; {back}"
