"""`tiny tokenizer decode`: ids as text. The text alone goes to standard output. Read before: tokenizer_encode.py."""

import json
import re
import sys
from dataclasses import dataclass
from typing import Any

import tyro

from tiny_transformer.cli.screen import visible
from tiny_transformer.cli.settings import parse
from tiny_transformer.cli.tokenizer_source import open_tokenizer
from tiny_transformer.config import ConfigError, check

DESCRIPTION = """\
Ids to text. Without ids they are read from standard input: numbers, the lines that encode writes, or its JSON.

  tiny tokenizer decode tok.json 1024 257 311
  tiny tokenizer encode tok.json --file play.txt --json | tiny tokenizer decode tok.json
"""


@dataclass(frozen=True, kw_only=True)
class DecodeSettings:
    """What `tiny tokenizer decode` accepts."""

    tokenizer: tyro.conf.Positional[str | None] = None
    """A tokenizer's file or folder, a run, or a checkpoint."""
    ids: tyro.conf.Positional[tuple[str, ...]] = ()
    """The ids; none: read from standard input."""
    json: bool = False
    """Print ids and text as JSON."""


def main(argv: list[str]) -> int:
    """Decode, print."""
    settings = parse(DecodeSettings, argv, command="tokenizer decode", description=DESCRIPTION)
    opened = open_tokenizer(settings.tokenizer, "decode")
    ids = numbers(" ".join(settings.ids)) if settings.ids else from_input()
    text = opened.tokenizer.decode(ids)
    if settings.json:
        print(json.dumps({"tokenizer": opened.name, "ids": ids, "text": text}))
    elif sys.stdout.isatty():
        print(visible(text))
    else:
        sys.stdout.write(text)  # nothing more: encode and decode in one pipe give the same file
    if hasattr(opened.tokenizer, "decode_bytes") and not _is_utf8(opened.tokenizer.decode_bytes(ids)):
        print("note: some of these bytes are no whole character; each such place is shown as \N{REPLACEMENT CHARACTER}", file=sys.stderr)
    return 0


def from_input() -> list[int]:
    """The ids on standard input. Raises ConfigError where there are none."""
    if sys.stdin.isatty():
        print("reading ids from the keyboard; Ctrl-D on a new line ends them", file=sys.stderr)
    text = sys.stdin.read()
    if text.lstrip()[:1] not in ("{", "["):
        return numbers("\n".join(line.partition("\t")[0] for line in text.split("\n")))
    try:
        found: Any = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"standard input is no JSON ({error}): it must be ids. Try the output of tiny tokenizer encode --json") from None
    found = found.get("ids") if isinstance(found, dict) else found
    right = isinstance(found, list) and all(isinstance(i, int) and not isinstance(i, bool) for i in found)
    check(right, "JSON without ids", 'it must be a list of whole numbers, alone or under "ids"', "Try tiny tokenizer encode --json")
    ids: list[int] = found
    return ids


def numbers(text: str) -> list[int]:
    """The ids in a text, with spaces or commas between them. Raises ConfigError for anything else, and for none."""
    words = re.split(r"[\s,]+", text.strip(" \n\t\r,[]"))
    check(words != [""], "no ids", "there is nothing to decode", "Pass some, for example: tiny tokenizer decode tok.json 1 2 3")
    wrong = next((word for word in words if not re.fullmatch(r"-?[0-9]{1,18}", word)), None)
    check(wrong is None, f"{visible(str(wrong))[:40]!r} is no id", "ids are whole numbers", "Pass for example 1 2 3")
    return [int(word) for word in words]


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
