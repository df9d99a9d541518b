"""`tiny data report`: what a text is made of, and what is wrong with it. Read before: corpora/inventory.py, data_facts.py."""

import json
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.table import Table
from rich.text import Text

from tiny_transformer.cli.data_facts import Section, sections
from tiny_transformer.cli.data_source import check_other_file, read, shingling, source_path, unescape, working
from tiny_transformer.cli.screen import Screen, table, visible
from tiny_transformer.cli.settings import parse
from tiny_transformer.cli.texts import save_text
from tiny_transformer.config import check
from tiny_transformer.corpora.inventory import Inventory, Stages, take_inventory

DESCRIPTION = """\
Look at a text before a model learns it: how much there is, how uncertain, how repetitive, and what is broken in it.

  tiny data report my.txt
  tiny data report my.txt --html report.html    one page with pictures, nothing else needed
  tiny data report train.txt --val val.txt      and how much of one stands in the other
"""


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """What `tiny data report` accepts."""

    file: tyro.conf.Positional[str | None] = None
    """A text file, "-" for standard input, or a built-in text."""
    val: str | None = None
    """A validation text, to be compared with FILE."""
    val_share: float = 0.1
    """Without --val: compare this last part of FILE with what stands before it, as training divides it; 0 compares nothing."""
    document_separator: str | None = None
    """What stands between two documents, such as "<|endoftext|>"; default: blank lines."""
    min_length: int = 40
    """Lines and documents shorter than this are not looked at for duplicates: names and headings repeat by their nature."""
    shingles: str = "words:3"
    """What near copies are compared by: words:N, or characters:N for scripts without spaces."""
    threshold: float = 0.8
    """How much of two texts' shingles must be common to call them nearly the same."""
    size: int | None = None
    """Take this many characters only, from the start."""
    json: bool = False
    """Print the report as JSON."""
    html: str | None = None
    """Write the report as a page with pictures."""


def main(argv: list[str]) -> int:
    """Count, show."""
    settings = parse(ReportSettings, argv, command="data report", description=DESCRIPTION)
    if settings.html is not None:
        check(settings.html != "", "--html without a name", "the page needs a file", "Try --html report.html")
        for name in (settings.file, settings.val):
            check_other_file(Path(settings.html), source_path(name))
    with working(Screen(to_stderr=True)) as stage:
        report, source = make(settings, stage)
        if settings.html is not None:
            stage("drawing", 0, 1)
            from tiny_transformer.cli.data_page import page

            save_text(settings.html, page(report, source))
    if settings.json:
        print(json.dumps(report.to_dict()))
        return 0
    screen = Screen()
    show(report, source, screen)
    if settings.html is not None:
        screen.say(f"page: {settings.html}")
    return 0


def make(settings: ReportSettings, stage: Stages) -> tuple[Inventory, str]:
    """The report, and where the text comes from. Raises ConfigError."""
    share = settings.val_share
    check(0 <= share < 1, f"val_share={share}", "it must be at least 0 and below 1", "Try --val-share 0.1, or 0 to compare nothing")
    check(settings.min_length >= 1, f"min_length={settings.min_length}", "it must be at least 1", "Try --min-length 40")
    near = shingling(settings.shingles, settings.threshold)
    corpus = read(settings.file, "report", settings.size)
    pair = None
    if settings.val is not None:
        pair = (corpus.text, read(settings.val, "report").text)
    elif share > 0 and (cut := int(len(corpus.text) * (1 - share))):
        pair = (corpus.text[:cut], corpus.text[cut:])
    made = take_inventory(
        corpus.text, corpus.name, separator=unescape(settings.document_separator), shingling=near, min_length=settings.min_length,
        train_val=pair, stages=stage,
    )  # fmt: skip
    return made, corpus.source


def show(report: Inventory, source: str, screen: Screen) -> None:
    """The report as tables."""
    screen.heading(visible(report.name))
    screen.say(visible(source), style="dim")
    for section in sections(report):
        screen.say()
        screen.say(drawn(section))
    found = list(dict.fromkeys(finding.name for finding in report.findings if finding.count))
    screen.say()
    if found or any(made.copies for made in report.repeated.values()):
        screen.say("To remove what is marked: tiny data clean FILE --out NEW --remove NAME,NAME,… (or --all)", style="dim")
    else:
        screen.say("Nothing to clean.", style="dim")


def drawn(section: Section) -> Table:
    """A section as a table for a terminal."""
    made = table(*section.columns, title=section.title)
    for place, column in enumerate(made.columns):
        words = section.columns[place] in ("clean --remove", "the first", "most repeated", "for example")
        column.justify = "left" if words or not place else "right"
        column.no_wrap = 0 < place < len(made.columns) - 1
    for row in section.rows:
        first, *others = (Text(visible(cell)) for cell in row.cells)
        others[-1].no_wrap, others[-1].overflow = True, "ellipsis"  # in a narrow terminal an example may be cut, a figure not
        made.add_row(first, *others, style="yellow" if row.alarm else "")
    return made
