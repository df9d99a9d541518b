"""What stands in a text more than once, word for word. Linear in time; white space around a piece does not count.

A model sees a repeated piece more often than the others and learns it by heart (Lee et al. 2022, "Deduplicating Training Data
Makes Language Models Better"). Left out: pieces that are only nearly the same (`near_duplicates.py`). Read before: `documents.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Copy(NamedTuple):
    """Piece number `copy` repeats the earlier piece number `original`."""

    copy: int
    original: int
    similarity: float = 1.0
    """Jaccard similarity; 1 for the same words in the same order."""


@dataclass(frozen=True)
class Repetition:
    """How much of a text is repetition, counted in pieces of one kind (lines, documents)."""

    pieces: int
    """Pieces that were looked at."""
    copies: int
    """Pieces that repeat an earlier one: what removing duplicates would take out."""
    characters: int
    """Characters in those copies."""
    share: float
    """Their share of the characters that were looked at."""
    examples: tuple[tuple[int, str], ...]
    """The most repeated ones, each with how often it occurs in all."""


def exact_copies(texts: Sequence[str]) -> list[Copy]:
    """Every text that stood there before, with the place of its first occurrence; empty texts are no copies.

    >>> exact_copies(["to be", "or not", "to be ", "", ""])
    [Copy(copy=2, original=0, similarity=1.0)]
    """
    first: dict[str, int] = {}
    copies = []
    for place, text in enumerate(texts):
        key = text.strip()
        if key and first.setdefault(key, place) != place:
            copies.append(Copy(place, first[key]))
    return copies


def repetition(texts: Sequence[str], copies: Sequence[Copy], most: int = 5) -> Repetition:
    """What some copies, exact or near, add up to; `most` examples, the most repeated first."""
    groups: dict[int, int] = {}
    for copy in copies:
        groups[copy.original] = groups.get(copy.original, 1) + 1
    often = sorted(groups.items(), key=lambda item: (-item[1], item[0]))[:most]
    sizes = [len(text.strip()) for text in texts]
    characters = sum(sizes[copy.copy] for copy in copies)
    return Repetition(
        pieces=sum(size > 0 for size in sizes),
        copies=len(copies),
        characters=characters,
        share=characters / max(1, sum(sizes)),
        examples=tuple((count, texts[place].strip()) for place, count in often),
    )


if __name__ == "__main__":
    lines = ["Exeunt.", "To be, or not to be", "Exeunt.", "that is the question", "Exeunt."]
    print(exact_copies(lines))
    print(repetition(lines, exact_copies(lines)))
