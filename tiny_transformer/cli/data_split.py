"""`tiny data split`: training, validation and test part as files, and a record of how they were made. Read before: corpora/dividing.py."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro

from tiny_transformer.cli.data_source import check_other_file, read, source_path, unescape, working
from tiny_transformer.cli.screen import Screen, table, visible
from tiny_transformer.cli.settings import parse
from tiny_transformer.cli.texts import save_text
from tiny_transformer.config import check, check_choice
from tiny_transformer.corpora.dividing import PARTS, Division, by_document, by_group, by_position, check_shares
from tiny_transformer.corpora.inventory import Leak, find_leak

WAYS = ("position", "document", "group")
RECORD = "split.json"

DESCRIPTION = r"""
Divide a text into train.txt, val.txt and, if you like, test.txt; split.json says how.

  tiny data split my.txt --out parts                     the last tenth is held back
  tiny data split my.txt --by document --out parts       whole documents, each by its own hash
  tiny data split plays.txt --by group --group-key '^([A-Z ]+):' --out parts    all of a speaker on one side
""".lstrip()


@dataclass(frozen=True, kw_only=True)
class SplitSettings:
    """What `tiny data split` accepts."""

    file: tyro.conf.Positional[str | None] = None
    """A text file, "-" for standard input, or a built-in text."""
    by: str = "position"
    """position (the last part is held back), document, or group."""
    val_share: float = 0.1
    """Share held back to validate with."""
    test_share: float = 0.0
    """Share held back for a last test."""
    seed: int = 0
    """Another seed deals documents and groups out differently; position has none."""
    group_key: str | None = None
    """With --by group: a regular expression; its first parenthesis, or all of it, names the group of a document."""
    document_separator: str | None = None
    """What stands between two documents, such as "<|endoftext|>"; default: blank lines."""
    out: str | None = None
    """The folder for the parts."""
    json: bool = False
    """Print the record as JSON."""


def main(argv: list[str]) -> int:
    """Divide, write, show."""
    settings = parse(SplitSettings, argv, command="data split", description=DESCRIPTION)
    check_settings(settings)
    folder = Path(settings.out or "")
    targets = {name: folder / f"{name}.txt" for name in PARTS}
    for target in (*targets.values(), folder / RECORD):
        check_other_file(target, source_path(settings.file))
    stale = targets["test"].exists() and settings.test_share == 0
    check(not stale, f"{targets['test']} is of another split", "it may hold what is training text now", "Remove it, or change --out")
    with working(Screen(to_stderr=True)) as stage:
        corpus = read(settings.file, "split")
        stage("dividing", 0, 1)
        made = divide(corpus.text, settings)
        leaks = {
            name: find_leak(made.train, part, separator=unescape(settings.document_separator), stages=stage)
            for name, part in made.parts().items()
            if name != "train"
        }
        record = describe(made, leaks, settings, corpus.source, corpus.text)
        for name, part in made.parts().items():
            save_text(targets[name], part)
        save_text(folder / RECORD, json.dumps(record, indent=2) + "\n")
    if settings.json:
        print(json.dumps(record))
    else:
        show(record, folder, Screen())
    return 0


def check_settings(settings: SplitSettings) -> None:
    """Raise ConfigError for settings that can't be, before any work."""
    check_choice("by", settings.by, WAYS)
    check_shares(settings.val_share, settings.test_share)
    check(bool(settings.out), "no --out", "the parts need a folder", "Try --out parts")
    check(not Path(settings.out or "").is_file(), f"{settings.out} is a file", "the parts need a folder", "Try --out parts")
    grouped = settings.by == "group"
    check(grouped == (settings.group_key is not None), *_key_complaint(grouped))


def _key_complaint(grouped: bool) -> tuple[str, str, str]:
    if grouped:
        return "--by group without --group-key", "something must say which documents belong together", r"Try --group-key '^(\w+):'"
    return "--group-key without --by group", "only groups have a key", "Add --by group"


def divide(text: str, settings: SplitSettings) -> Division:
    """The parts."""
    shares = (settings.val_share, settings.test_share)
    if settings.by == "position":
        return by_position(text, *shares)
    more: dict[str, Any] = {"seed": settings.seed, "separator": unescape(settings.document_separator)}
    if settings.by == "document":
        return by_document(text, *shares, **more)
    return by_group(text, settings.group_key or "", *shares, **more)


def describe(made: Division, leaks: dict[str, Leak], settings: SplitSettings, source: str, text: str) -> dict[str, Any]:
    """All that is needed to make the parts again, and to see that they are these."""
    parts = {
        name: {
            "file": f"{name}.txt",
            "characters": len(part),
            "share": len(part) / len(text),
            "documents": made.documents.get(name),
            "groups": made.groups.get(name),
            "sha256": _digest(part),
            "leak": asdict(leaks[name]) if name in leaks else None,
        }
        for name, part in made.parts().items()
    }
    keys = ("by", "val_share", "test_share", "seed", "group_key", "document_separator")
    return {
        "source": {"text": source, "characters": len(text), "sha256": _digest(text)},
        **{key: getattr(settings, key) for key in keys},
        "documents_without_key": made.without_key,
        "parts": parts,
    }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def show(record: dict[str, Any], folder: Path, screen: Screen) -> None:
    """The parts as a table, and what leaks between them."""
    screen.say(f"source  {visible(record['source']['text'])}")
    screen.say(f"parts   {folder}, by {record['by']}; {RECORD} says how")
    counted = [key for key in ("documents", "groups") if record["parts"]["train"][key]]
    rows = table("part", "characters", "share", *counted, "also in training", "documents nearly so")
    for name, part in record["parts"].items():
        leak = part["leak"]
        found = ("", "") if leak is None else (f"{leak['share']:.2%}", f"{leak['near']:,} of {leak['documents']:,}")
        alarm = leak is not None and (leak["share"] > 0 or leak["near"] > 0)
        cells = (name, f"{part['characters']:,}", f"{part['share']:.1%}", *(f"{part[key]:,}" for key in counted), *found)
        rows.add_row(*cells, style="yellow" if alarm else "")
    screen.say(rows)
    if record["documents_without_key"]:
        screen.warn(f"the group key matched nothing in {record['documents_without_key']:,} documents: each of them is a group of its own")
    for name, part in record["parts"].items():
        wanted = record.get(f"{name}_share")
        if wanted and abs(part["share"] - wanted) > wanted / 2:
            screen.warn(f"{name} has {part['share']:.1%} of the text instead of {wanted:.1%}: few and large pieces. Try another --seed")
        if part["leak"] and part["leak"]["near_example"]:
            ours, theirs, similarity = part["leak"]["near_example"]
            screen.say(f"{similarity:.0%} alike: {visible(_short(ours))} ({name}) and {visible(_short(theirs))} (train)", style="dim")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= 60 else line[:59] + "…")
