"""`tiny data clean`: write a cleaned copy of a text, and say what was changed. Read before: corpora/cleaning.py."""

import json
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.text import Text

from tiny_transformer.cli.data_source import beside, check_other_file, read, shingling, source_path, unescape, working
from tiny_transformer.cli.screen import Screen, table, visible
from tiny_transformer.cli.settings import parse
from tiny_transformer.cli.texts import save_text
from tiny_transformer.config import check
from tiny_transformer.corpora.cleaning import STEPS, Cleaned, Cleaning, clean, resolve

DESCRIPTION = (
    """\
Write a cleaner copy of a text. The source is never changed; cleaning the copy again changes nothing.

  tiny data clean my.txt --out my.clean.txt --all
  tiny data clean my.txt --out my.clean.txt --remove mojibake,duplicates

What can be removed or repaired:
"""
    + "\n".join(f"  {name:22}{what}" for name, (what, _) in STEPS.items())
    + "\n"
)


@dataclass(frozen=True, kw_only=True)
class CleanSettings:
    """What `tiny data clean` accepts."""

    file: tyro.conf.Positional[str | None] = None
    """A text file, "-" for standard input, or a built-in text."""
    out: str | None = None
    """Where the cleaned text goes: another file than the source."""
    remove: str | None = None
    """What to remove or repair, separated by commas."""
    all: bool = False
    """Remove and repair everything there is a name for."""
    document_separator: str | None = None
    """What stands between two documents, such as "<|endoftext|>"; default: blank lines."""
    min_length: int = 40
    """Lines and documents shorter than this are never removed as duplicates: names and headings repeat by their nature."""
    shingles: str = "words:3"
    """What near copies are compared by: words:N, or characters:N for scripts without spaces."""
    threshold: float = 0.8
    """How much of two texts' shingles must be common to call them nearly the same."""
    json: bool = False
    """Print what was done as JSON."""


def main(argv: list[str]) -> int:
    """Clean, write, show."""
    settings = parse(CleanSettings, argv, command="data clean", description=DESCRIPTION)
    names = chosen(settings)
    cleaning = Cleaning(
        separator=unescape(settings.document_separator), min_length=settings.min_length,
        shingling=shingling(settings.shingles, settings.threshold),
    )  # fmt: skip
    source = source_path(settings.file)
    hint = f"Try --out {beside(source)}" if source and settings.file != "-" else "Try --out clean.txt"
    check(bool(settings.out), "no --out", "the cleaned text needs a file", hint)
    target = Path(settings.out or "")
    check_other_file(target, source)
    with working(Screen(to_stderr=True)) as stage:
        corpus = read(settings.file, "clean")
        made = clean(corpus.text, names, cleaning, stages=lambda what: stage(what, 0, 1))
        check(bool(made.text.strip()), f"{corpus.name} would be empty when cleaned", "something must be left", "Remove fewer kinds")
        save_text(target, made.text)
    if settings.json:
        print(json.dumps({"source": corpus.source, "out": str(target), **made.to_dict()}))
    else:
        show(made, corpus.source, target, Screen())
    return 0


def chosen(settings: CleanSettings) -> list[str]:
    """The names of the steps to take. Raises ConfigError for none, unknown ones, or both ways of naming them."""
    check(not (settings.all and settings.remove), "--all and --remove", "one of them says what to remove", "Leave one out")
    names = [name.strip() for name in (settings.remove or "").split(",") if name.strip()]
    return resolve(list(STEPS) if settings.all else names)


def show(made: Cleaned, source: str, target: Path, screen: Screen) -> None:
    """What was done, as a table."""
    screen.say(f"source  {visible(source)} (unchanged)")
    screen.say(f"copy    {target}: {len(made.text):,} characters, {removed(made)}")
    screen.say()
    rows = table("removed or repaired", "how many", "characters", "the first")
    rows.columns[-1].justify = "left"
    for column in rows.columns[:-1]:
        column.no_wrap = True
    for change in made.changes:
        characters = "" if not change.count else f"{-change.characters:+,}" if change.characters else "±0"
        style = "yellow" if change.count else "dim"
        example = Text(visible(change.example), no_wrap=True, overflow="ellipsis")
        rows.add_row(change.name, f"{change.count:,}", characters.replace("-", "−"), example, style=style)
    screen.say(rows)


def removed(made: Cleaned) -> str:
    """The difference in words."""
    less = made.before - len(made.text)
    if not any(change.count for change in made.changes):
        return "the same as the source: nothing was found"
    return f"{abs(less):,} {'fewer' if less >= 0 else 'more'} ({abs(less) / made.before:.2%})"
