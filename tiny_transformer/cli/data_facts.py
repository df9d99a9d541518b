"""What a data report says, as rows of text: the terminal and the page show the same ones. Read before: corpora/inventory.py."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tiny_transformer.corpora.inventory import Inventory, Leak

REPEATED = {
    "lines": ("lines", "duplicate-lines"),
    "near lines": ("lines, nearly", "near-duplicate-lines"),
    "documents": ("documents", "duplicates"),
    "near documents": ("documents, nearly", "near-duplicates"),
}
"""Kind of repetition → (in words, what `tiny data clean --remove` calls it)."""
SCRIPTS = {
    "Common": "Common (digits, punctuation, space)",
    "Inherited": "Inherited (accents that combine)",
    "Unknown": "Unknown (no script)",
}


class Row(NamedTuple):
    """One line of a table; `alarm`: worth a look."""

    cells: tuple[str, ...]
    alarm: bool = False


@dataclass(frozen=True)
class Section:
    """A table with a title."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Row]


def sections(report: Inventory) -> list[Section]:
    """All of a report, most important first."""
    made = [_size(report), _entropy(report), _lines(report), _scripts(report), _repeated(report), _oddities(report)]
    return made if report.leak is None else [*made, _leak(report.leak)]


def _size(report: Inventory) -> Section:
    characters, words = report.characters, report.words
    rows = [
        Row(("characters", f"{characters.tokens:,}", f"{characters.types:,}")),
        Row(("words", f"{words.tokens:,}", f"{words.types:,}")),
        Row(("words that occur once", f"{words.once:,}", f"{100 * words.once / max(1, words.types):.0f} % of them")),
        Row(("bytes (UTF-8)", f"{characters.bytes:,}", "")),
        Row(("documents", f"{report.documents:,}", "")),
    ]
    if words.slope is not None:
        slope = f"{words.slope:.2f}".replace("-", "−")
        rows.append(Row(("Zipf: slope of log frequency over log rank (natural text: about −1)", slope, "")))
    return Section("Size", ("", "in all", "different"), rows)


def _entropy(report: Inventory) -> Section:
    characters, words = report.characters, report.words
    sampled = characters.entropy_characters < characters.tokens
    before = "a character, when the one before is known" + (f" ({characters.entropy_characters:,} looked at)" if sampled else "")
    nats = [
        ("a character, all equally likely", math.log(characters.types)),
        ("a character, frequencies known", characters.entropy),
        *([(before, characters.conditional_entropy)] if characters.conditional_entropy is not None else []),
        *([("a word, frequencies known", words.entropy)] if words.tokens else []),
    ]
    rows = [Row((what, f"{value:.3f}", f"{value / math.log(2):.3f}")) for what, value in nats]
    return Section("How uncertain the next one is", ("", "nats", "bits"), rows)


def _lines(report: Inventory) -> Section:
    lines = report.lines
    rows = [
        Row(("lines", f"{lines.lines:,}")),
        Row(("blank", f"{lines.blank:,}")),
        Row(("length, mean", f"{lines.mean:.1f}")),
        Row(("length, median", f"{lines.median:,}")),
        Row(("95 % are at most", f"{lines.p95:,}")),
        Row(("99 % are at most", f"{lines.p99:,}")),
        Row(("longest", f"{lines.longest:,}")),
    ]
    return Section("Lines", ("", "characters"), rows)


def _scripts(report: Inventory) -> Section:
    total = report.characters.tokens
    rows = [Row((_script(name), f"{count:,}", _share(count / total))) for name, count in list(report.scripts.items())[:12]]
    if len(report.scripts) > 12:
        rest = list(report.scripts.values())[12:]
        rows.append(Row((f"{len(rest)} more", f"{sum(rest):,}", _share(sum(rest) / total))))
    count, examples = report.mixed_words
    if count:
        rows.append(Row((f"words that mix Latin with Cyrillic or Greek: {', '.join(examples)}", f"{count:,}", "")))
    return Section("Scripts", ("", "characters", "share"), rows)


def _repeated(report: Inventory) -> Section:
    shingling = report.shingling
    near = f"{100 * shingling.threshold:.0f} % of their runs of {shingling.n} {shingling.unit} in common"
    rows = []
    for kind, made in report.repeated.items():
        example = f"{made.examples[0][0]} × {_short(made.examples[0][1])}" if made.examples else ""
        name, command = REPEATED[kind]
        cells = (name, f"{made.copies:,} of {made.pieces:,}", _share(made.share), command, example)
        rows.append(Row(cells, alarm=made.copies > 0))
    title = f"Repeated, of {report.min_length} characters or more (nearly: {near})"
    return Section(title, ("", "copies", "share", "clean --remove", "most repeated"), rows)


def _oddities(report: Inventory) -> Section:
    rows = []
    for found in report.findings:
        where = "" if found.line is None else f"line {found.line:,}: "
        rows.append(Row((found.what, f"{found.count:,}", found.name, f"{where}{found.example}" if found.count else ""), found.count > 0))
    return Section("Odd characters", ("", "found", "clean --remove", "the first"), rows)


def _leak(leak: Leak) -> Section:
    example = "" if leak.near_example is None else f"{100 * leak.near_example[2]:.0f} % alike: {_short(leak.near_example[0])}"
    copied = "" if leak.example is None else _short(leak.example)
    rows = [
        Row(("training text", f"{leak.train_characters:,} characters", "")),
        Row(("validation text", f"{leak.val_characters:,} characters", "")),
        Row((f"copied from training, {leak.window} characters and more", _share(leak.share), copied), leak.share > 0),
        Row(("its documents like one of training", f"{leak.near:,} of {leak.documents:,}", example), leak.near > 0),
    ]
    return Section("Overlap of training and validation text", ("", "", "for example"), rows)


def _script(name: str) -> str:
    return SCRIPTS.get(name, name.replace("_", " "))


def _share(share: float) -> str:
    if 0 < share < 1e-5:
        return "< 0.001 %"
    return "0 %" if share == 0 else f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.1f} %"


def _short(text: str, most: int = 50) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= most else line[: most - 1] + "…")


if __name__ == "__main__":
    from tiny_transformer.corpora.inventory import take_inventory

    for part in sections(take_inventory("To be, or not to be.\n\nThat is the question.\n\n" * 3)):
        print(part.title)
        for row in part.rows:
            print("  ", " | ".join(row.cells))
