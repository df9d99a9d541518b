"""Text in, cleaner text out, and exactly what was changed. The source is never touched: writing is the caller's business.

Every step has the name under which the report lists what it removes. A pass applies the chosen steps in the order of `STEPS`, and passes
go on until one changes nothing, so cleaning a cleaned text changes nothing. Read before: mojibake.py, suspicious.py, documents.py,
duplicates.py, near_duplicates.py.
"""

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from difflib import get_close_matches
from functools import partial
from typing import Any, NamedTuple

from tiny_transformer.config import ConfigError, check
from tiny_transformer.corpora import mojibake, suspicious
from tiny_transformer.corpora.documents import Piece, join_documents, split_documents, split_lines, without
from tiny_transformer.corpora.duplicates import Copy, exact_copies
from tiny_transformer.corpora.near_duplicates import Shingling, near_copies


@dataclass(frozen=True, kw_only=True)
class Cleaning:
    """How to look for what is removed."""

    separator: str | None = None
    """What stands between documents; None: blank lines."""
    min_length: int = 40
    """Shorter lines and documents are never removed as duplicates: a speaker's name, a heading, a closing bracket."""
    shingling: Shingling = field(default_factory=Shingling)


class Step(NamedTuple):
    """What a step made of the text."""

    text: str
    times: int
    example: str = ""


@dataclass(frozen=True)
class Change:
    """What one step did to a text, over all passes."""

    name: str
    what: str
    count: int = 0
    characters: int = 0
    """How many characters the text lost by it (negative: gained)."""
    example: str = ""


@dataclass(frozen=True)
class Cleaned:
    """A cleaned text and what was done."""

    text: str
    before: int
    """Characters of the source."""
    changes: tuple[Change, ...]
    """One for each step that was asked for, those that found nothing included."""
    passes: int

    def to_dict(self) -> dict[str, Any]:
        """The figures, without the text."""
        changes = [asdict(change) for change in self.changes]
        return {"before": self.before, "after": len(self.text), "passes": self.passes, "changes": changes}


def clean(text: str, names: Sequence[str], settings: Cleaning | None = None, stages: Callable[[str], None] | None = None) -> Cleaned:
    """Apply the steps called `names` until nothing changes.

    >>> clean("one\\n\\ntwo cafÃ©s\\n\\none\\n", ["duplicates", "mojibake"], Cleaning(min_length=1)).text
    'one\\n\\ntwo cafés\\n'

    Raises ConfigError for an unknown name, or none. The text that is left may be empty.
    """
    chosen, settings = resolve(names), settings or Cleaning()
    changes = {name: Change(name, STEPS[name][0]) for name in chosen}
    before, passes = len(text), 0
    while True:
        start, passes = text, passes + 1
        for name in chosen:
            if stages is not None:
                stages(name if passes == 1 else f"{name}, pass {passes}")
            made = STEPS[name][1](text, settings)
            change = changes[name]
            lost = change.characters + len(text) - len(made.text)
            changes[name] = replace(change, count=change.count + made.times, characters=lost, example=change.example or made.example)
            text = made.text
        if text == start:
            return Cleaned(text, before, tuple(changes.values()), passes)


def resolve(names: Sequence[str]) -> list[str]:
    """The names in the order in which they are applied. Raises ConfigError for none, or an unknown one, with the nearest that is known."""
    known = ", ".join(STEPS)
    check(bool(names), "nothing to remove", f"the known names are {known}", "Try --remove duplicates,mojibake, or --all")
    for name in names:
        if name not in STEPS:
            near = get_close_matches(name, STEPS, n=1)
            hint = f"Did you mean {near[0]}?" if near else "Pick from these"
            raise ConfigError(f"there is nothing called {name!r} to remove: the known names are {known}. {hint}")
    return [name for name in STEPS if name in names]


# --- steps ----------------------------------------------------------------------------------------------------------------


def _marks(name: str, text: str, settings: Cleaning) -> Step:
    cleaned = suspicious.remove_kind(text, name)
    return Step(cleaned, len(text) - len(cleaned), suspicious.code_points(set(text) - set(cleaned)))


def _line_ends(text: str, settings: Cleaning) -> Step:
    ends = suspicious.line_ends(text)
    other = sum(count for end, count in ends.items() if end != "LF")
    return Step(suspicious.unify_line_ends(text), other, ", ".join(end for end in ends if end != "LF")) if other else Step(text, 0)


def _mojibake(text: str, settings: Cleaning) -> Step:
    made = mojibake.repair(text)
    return Step(made.text, made.runs, "; ".join(f"{wrong!r} → {right!r}" for wrong, right in made.examples[:2]))


def _normalization(text: str, settings: Cleaning) -> Step:
    found = suspicious.not_normal(text)
    return Step(unicodedata.normalize("NFC", text), found.count, found.example) if found.count else Step(text, 0)


def _lines(find: Callable[[Sequence[str]], list[Copy]], text: str, settings: Cleaning) -> Step:
    """Lines that repeat go, their line feed with them. Line ends between documents stay, so no two documents grow together."""
    lines = split_lines(text)
    long = [place for place, line in enumerate(lines) if len(line.strip()) >= settings.min_length]
    gone = {long[copy.copy] for copy in find([lines[place] for place in long])}
    if not gone:
        return Step(text, 0)
    return Step("".join(line for place, line in enumerate(lines) if place not in gone), len(gone), _first(lines, gone))


def _documents(find: Callable[[Sequence[str]], list[Copy]], text: str, settings: Cleaning) -> Step:
    pieces = split_documents(text, settings.separator)
    long = [place for place, piece in enumerate(pieces) if len(piece.key) >= settings.min_length]
    gone = {long[copy.copy] for copy in find([pieces[place].key for place in long])}
    kept: list[Piece] = without(pieces, gone)
    return Step(join_documents(kept), len(gone), _first([piece.body for piece in pieces], gone)) if gone else Step(text, 0)


def _first(texts: Sequence[str], places: set[int]) -> str:
    shown = " ".join(texts[min(places)].split())
    return shown if len(shown) <= 60 else shown[:59] + "…"


def _near(cut: Callable[..., Step], text: str, settings: Cleaning) -> Step:
    return cut(lambda texts: near_copies(texts, settings.shingling), text, settings)


STEPS: dict[str, tuple[str, Callable[[str, Cleaning], Step]]] = {
    "byte-order-marks": ("byte order marks inside the text", partial(_marks, "byte-order-marks")),
    "line-ends": ("line ends other than a line feed", _line_ends),
    "mojibake": ("UTF-8 read as Windows-1252, repaired", _mojibake),
    "unprintable": ("control, private-use, unassigned and U+FFFD characters", partial(_marks, "unprintable")),
    "invisible": ("soft hyphens, zero-width spaces, word joiners", partial(_marks, "invisible")),
    "normalization": ("lines brought to NFC", _normalization),
    "duplicates": ("documents that stood there before", partial(_documents, exact_copies)),
    "near-duplicates": ("documents nearly like an earlier one", partial(_near, _documents)),
    "duplicate-lines": ("long lines that stood there before", partial(_lines, exact_copies)),
    "near-duplicate-lines": ("long lines nearly like an earlier one", partial(_near, _lines)),
}
"""Name → (what it counts, the step), in the order of application: characters first, so that pieces are compared when they are clean;
documents before lines, so that a document of one line goes with the blank line after it."""


if __name__ == "__main__":
    sample = "A cafÃ©\x07 in Paris.\r\n\r\nThe same day.\n\nA cafÃ© in Paris.\n"
    made = clean(sample, list(STEPS), Cleaning(min_length=10))
    print(repr(made.text), f"after {made.passes} passes")
    for change in made.changes:
        print(f"{change.count:3} {change.name:22} {change.example}")
