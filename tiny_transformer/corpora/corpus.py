"""A text and what is known about it. Leaves out where it comes from (`library.py`). Read before: nothing."""

from collections.abc import Callable
from dataclasses import dataclass

Progress = Callable[[int, int], None]
"""Called now and then with (bytes done, bytes in all) while a text is downloaded."""


@dataclass(frozen=True)
class Corpus:
    """A text, ready to be split and encoded."""

    name: str
    """The name or path it was asked for by."""
    text: str
    """All of it, exactly as it stands in the file."""
    source: str
    """One line: which text this is, how long, and where it was found."""
    entropy: float | None = None
    """The source's exact entropy in nats per character, where it can be known: no model's loss stays below it."""


@dataclass(frozen=True)
class CorpusInfo:
    """One line of `tiny data list`."""

    name: str
    """What to ask for."""
    summary: str
    """What it holds."""
    how: str
    """How it is had, here and now: made on this machine, found in a file, or by a download of so many bytes."""
    offline: bool
    """True when `load(name)` needs no network, here and now."""


if __name__ == "__main__":
    print(Corpus(name="abc", text="abcabc", source="six letters, made up", entropy=0.0))
