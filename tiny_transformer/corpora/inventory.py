"""Everything that `tiny data report` says about a text, as one value: counted, and nothing changed.

Each part is counted by a module of its own; here they are put together. All of it is exact except the conditional entropy, which of
a text beyond ten million characters looks at ten stretches (`entropy_characters` says how many characters those are).
Read before: counting.py, duplicates.py, near_duplicates.py, suspicious.py, mojibake.py, writing_systems.py.
"""

import unicodedata
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from tiny_transformer.config import check
from tiny_transformer.corpora import counting, mojibake, suspicious, writing_systems
from tiny_transformer.corpora.counting import LineLengths, WordCounts
from tiny_transformer.corpora.documents import split_documents
from tiny_transformer.corpora.duplicates import Copy, Repetition, exact_copies, repetition
from tiny_transformer.corpora.near_duplicates import Shingling, near_copies, near_matches
from tiny_transformer.corpora.suspicious import Finding
from tiny_transformer.corpora.text_statistics import conditional_entropy, overlap

Stages = Callable[[str, int, int], None]
"""Called with (what is being done, done, of how many) while a long text is looked at."""

MIN_LENGTH = 40
"""Shorter lines and documents repeat by their nature: a speaker's name, a heading, a closing bracket."""
ENTROPY_AT_MOST = 10_000_000


@dataclass(frozen=True)
class Characters:
    """The characters (code points) of a text."""

    tokens: int
    types: int
    bytes: int
    entropy: float
    """H(X), nats: only frequencies are known."""
    conditional_entropy: float | None
    """H(X' | X), nats: the character before is known. None for a text of one character."""
    entropy_characters: int
    """How many characters the conditional entropy was measured on."""
    commonest: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Leak:
    """What of a validation text the training text gives away."""

    train_characters: int
    val_characters: int
    share: float
    """Share of the validation text that also stands in the training text, word for word."""
    window: int
    """In stretches of at least this many characters."""
    example: str | None
    documents: int
    """Validation documents of at least `min_length` characters."""
    near: int
    """Of those, the ones that nearly or exactly repeat a training document."""
    near_example: tuple[str, str, float] | None
    """(validation document, training document, similarity) of the most similar pair."""


@dataclass(frozen=True)
class Inventory:
    """A text, counted."""

    name: str
    characters: Characters
    words: WordCounts
    lines: LineLengths
    documents: int
    repeated: dict[str, Repetition]
    """Of "lines", "near lines", "documents", "near documents": those of at least `min_length` characters."""
    min_length: int
    shingling: Shingling
    findings: tuple[Finding, ...]
    line_ends: dict[str, int]
    scripts: dict[str, int]
    mixed_words: tuple[int, tuple[str, ...]]
    leak: Leak | None = None
    unicode_version: str = field(default=unicodedata.unidata_version)
    """Of the tables that say which code points are assigned."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values."""
        return asdict(self)


def take_inventory(
    text: str,
    name: str = "text",
    *,
    separator: str | None = None,
    shingling: Shingling | None = None,
    min_length: int = MIN_LENGTH,
    train_val: tuple[str, str] | None = None,
    stages: Stages | None = None,
) -> Inventory:
    """Count everything. `train_val`: two parts (or two texts) whose overlap is measured as well.

    Takes about 3 s for a million characters. Raises ConfigError for an empty text.
    """
    check(bool(text), f"{name} is empty", "there must be text to report on", "Choose another file")
    shingling, stages = shingling or Shingling(), stages or (lambda what, done, total: None)
    stages("counting characters", 0, 1)
    counts = counting.count_characters(text)
    characters = _characters(text, counts)
    stages("counting words and lines", 0, 1)
    words, lines = counting.count_words(text), counting.line_lengths(text)
    stages("looking for odd characters", 0, 1)
    findings, ends = find_oddities(text, counts)
    scripts = writing_systems.script_counts(counts)
    documents = [piece.key for piece in split_documents(text, separator) if piece.key]
    leak = None
    if train_val is not None:
        leak = find_leak(*train_val, separator=separator, shingling=shingling, min_length=min_length, stages=stages)
    repeated = {
        **_repeated("lines", [line for line in text.split("\n") if len(line.strip()) >= min_length], shingling, stages),
        **_repeated("documents", [body for body in documents if len(body) >= min_length], shingling, stages),
    }
    return Inventory(
        name=name,
        characters=characters,
        words=words,
        lines=lines,
        documents=len(documents),
        repeated=repeated,
        min_length=min_length,
        shingling=shingling,
        findings=findings,
        line_ends=ends,
        scripts=scripts,
        mixed_words=writing_systems.mixed_words(text, scripts),
        leak=leak,
    )


def find_oddities(text: str, counts: dict[str, int]) -> tuple[tuple[Finding, ...], dict[str, int]]:
    """Suspicious characters, misread UTF-8, mixed line ends, and lines that are not NFC; and how lines end."""
    misread = mojibake.misread(text)
    first = misread[0] if misread else None
    ends = suspicious.line_ends(text)
    other = sum(ends.values()) - max(ends.values(), default=0)
    shown = ", ".join(f"{n:,} {end}" for end, n in ends.items()) if other else ""
    return (
        Finding(
            "mojibake", "misread UTF-8", len(misread), None if first is None else text.count("\n", 0, first.start) + 1,
            "" if first is None else f"{first.wrong!r} for {first.right!r}",
        ),
        *suspicious.suspicious_characters(text, counts),
        Finding("line-ends", "unusual line ends", other, None, shown),
        suspicious.not_normal(text),
    ), ends  # fmt: skip


def find_leak(
    train: str,
    val: str,
    *,
    separator: str | None = None,
    shingling: Shingling | None = None,
    min_length: int = MIN_LENGTH,
    window: int = 64,
    stages: Stages | None = None,
) -> Leak:
    """How much of `val` also stands in `train`: word for word, and as documents that are nearly the same."""
    stages = stages or (lambda what, done, total: None)
    stages("comparing training and validation text", 0, 1)
    copied = overlap(train, val, window)
    ours, theirs = ([p.key for p in split_documents(part, separator) if len(p.key) >= max(1, min_length)] for part in (val, train))
    found = near_matches(ours, theirs, shingling, lambda done, total: stages("comparing documents", done, total))
    best = max(found, key=lambda match: match.similarity, default=None)
    return Leak(
        train_characters=len(train),
        val_characters=len(val),
        share=copied.share,
        window=window,
        example=copied.example,
        documents=len(ours),
        near=len(found),
        near_example=None if best is None else (ours[best.copy], theirs[best.original], best.similarity),
    )


def _characters(text: str, counts: dict[str, int]) -> Characters:
    sample = _stretches(text, ENTROPY_AT_MOST)
    codes = np.frombuffer(sample.encode("utf-32-le", "surrogatepass"), "<u4")
    return Characters(
        tokens=len(text),
        types=len(counts),
        bytes=sum(n * _utf8_size(ord(c)) for c, n in counts.items()),
        entropy=counting.entropy_of(list(counts.values())),
        conditional_entropy=conditional_entropy(codes.astype(np.int64)) if len(codes) > 1 else None,
        entropy_characters=len(sample),
        commonest=tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:20]),
    )


def _utf8_size(code: int) -> int:
    return 1 + (code > 0x7F) + (code > 0x7FF) + (code > 0xFFFF)


def _stretches(text: str, most: int, parts: int = 10) -> str:
    """All of a text, or evenly spaced stretches of it that have `most` characters together."""
    if len(text) <= most:
        return text
    size = most // parts
    return "".join(text[start : start + size] for start in np.linspace(0, len(text) - size, parts).astype(int).tolist())


def _repeated(what: str, texts: list[str], shingling: Shingling, stages: Stages) -> dict[str, Repetition]:
    """Exact copies, and near copies among what is left without them."""
    stages(f"comparing {what}", 0, len(texts))
    copies = exact_copies(texts)
    gone = {copy.copy for copy in copies}
    distinct = [place for place in range(len(texts)) if place not in gone]
    near = near_copies([texts[place] for place in distinct], shingling, lambda done, total: stages(f"comparing {what}", done, total))
    placed = [Copy(distinct[copy.copy], distinct[copy.original], copy.similarity) for copy in near]
    return {what: repetition(texts, copies), f"near {what}": repetition(texts, placed)}


if __name__ == "__main__":
    from tiny_transformer.corpora.pitches import text as pitches

    made = take_inventory(pitches(60_000), "pitches")
    print(made.characters.types, "characters,", made.words.types, "words,", made.documents, "documents,", made.scripts)
    for kind, repeats in made.repeated.items():
        print(f"{kind:15} {repeats.copies} of {repeats.pieces}")
