"""All texts by name, and any file by its path: `load("shakespeare")`, `load("notes.txt")`, `load("-")`.

A known name is that corpus, even where a file of that name lies about (`./python` is the file). Three corpora are made
on this machine and need nothing else: `pitches`, `python` and `pydoc`. The others are published texts, looked for in
TINY_CORPORA, then in the cache, then on the web. Read before: `corpus.py`, `download.py`, `textfile.py`.
"""

import os
import platform
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from tiny_transformer.config import check
from tiny_transformer.corpora import pitches, standard_library
from tiny_transformer.corpora.corpus import Corpus, CorpusInfo, Progress
from tiny_transformer.corpora.download import ALIASES, PUBLISHED, fetch, find
from tiny_transformer.corpora.textfile import STANDARD_INPUT, nearest_path, read_text

USUAL_SIZE = 1_000_000
"""Characters of a made text when no size is asked for."""


@dataclass(frozen=True)
class _Made:
    """A corpus that is made on this machine, piece by piece."""

    title: str
    pieces: Callable[[], Iterator[str]]
    """Whole scenes, files or paragraphs."""
    where: Callable[[], str]
    entropy: Callable[[], float] | None = None


def _this_python() -> str:
    return f"Python {platform.python_version()} ({sysconfig.get_path('stdlib')})"


_MADE: dict[str, _Made] = {
    "pitches": _Made("tech start-up pitches", pitches.scenes, lambda: "made here by a grammar of known entropy", pitches.entropy),
    "python": _Made("Python source code", standard_library.python_sources, lambda: f"the standard library of {_this_python()}"),
    "pydoc": _Made("English documentation", standard_library.documentation, lambda: f"the standard library of {_this_python()}"),
}


def names() -> tuple[str, ...]:
    """Every name that `load` knows."""
    return (*_MADE, *sorted({*PUBLISHED, *ALIASES}))


def load(name_or_path: str | os.PathLike[str], *, size: int | None = None, progress: Progress | None = None) -> Corpus:
    """The text of that name, of that UTF-8 file, or of standard input ("-").

    `size` takes that many characters from the start (fewer when there are fewer). Without it files are read whole, and
    the made texts have about a million characters, or all there are. Calls progress(bytes, bytes in all) while downloading.
    Raises ConfigError, one line, when there is no such text or it can't be used.
    """
    check(size is None or size >= 1, f"size={size}", "it must be at least 1", "Try size=400000, or leave it out")
    name = os.fspath(name_or_path)
    if name in _MADE:
        return _make(name, size)
    if name in PUBLISHED or name in ALIASES:
        return _published(name, size, progress)
    _check_is_path(name)
    text = read_text(name, size)
    return Corpus(name, text, _source("standard input" if name == STANDARD_INPUT else f"the file {name}", text))


def describe() -> list[CorpusInfo]:
    """What there is, one entry per text, and how each would be had right now; opens no connection."""
    made = [CorpusInfo(name, _SUMMARIES[name], "made on this machine", True) for name in _MADE]
    return made + [_describe_published(name) for name in _SUMMARIES if name not in _MADE]


_SUMMARIES = {
    "pitches": "tech start-up pitches as short scenes; the source's exact entropy is known",
    "python": "source code of this Python's standard library",
    "pydoc": "English sentences from the documentation of this Python's standard library",
    "shakespeare": "Tiny Shakespeare: 1,115,394 characters of plays",
    "wikitext2": "WikiText-2, the training part: 2 million words of Wikipedia",
    "wikitext2-train": "another name of wikitext2",
    "wikitext2-valid": "WikiText-2, the validation part: 218 thousand words",
    "wikitext2-test": "WikiText-2, the test part: 246 thousand words",
}


def _describe_published(name: str) -> CorpusInfo:
    found = find(name)
    size = PUBLISHED[ALIASES.get(name, name)].remote.size
    how = f"a download of {size / 1e6:.1f} MB" if found is None else f"in {found.place}: {found.path}"
    return CorpusInfo(name, _SUMMARIES[name], how, found is not None)


def _make(name: str, size: int | None) -> Corpus:
    made = _MADE[name]
    pieces: list[str] = []
    length = 0
    for piece in made.pieces():
        pieces.append(piece)
        length += len(piece)
        if length >= (size or USUAL_SIZE):
            break
    text = "".join(pieces)[:size]
    return Corpus(name, text, _source(f"{made.title}, {made.where()}", text), made.entropy() if made.entropy else None)


def _published(name: str, size: int | None, progress: Progress | None) -> Corpus:
    found = fetch(name, progress=progress)
    text = read_text(found.path, size)
    title = PUBLISHED[ALIASES.get(name, name)].title
    verified = {True: ", SHA-256 verified", False: ", another text than the published one", None: ""}[found.genuine]
    return Corpus(name, text, _source(f"{title}, {found.path} ({found.place}{verified})", text))


def _source(what: str, text: str) -> str:
    return f"{what}: {len(text):,} characters"


def _check_is_path(name: str) -> None:
    """Tell a misspelt name from a path: a path has a separator or an ending, or is there."""
    if name == STANDARD_INPUT or _is_there(name) or Path(name).suffix or Path(name).name != name:
        return
    close = get_close_matches(name.lower(), names(), n=1)
    near = close[0] if close else nearest_path(Path(name))
    hint = f"Did you mean {near}?" if near else "Or name a UTF-8 file"
    check(False, f"there is no corpus and no file called {name!r}", f"the known names are {', '.join(names())}", hint)


def _is_there(name: str) -> bool:
    try:
        return name != "" and Path(name).exists()
    except OSError:  # a name that no file can have
        return False


if __name__ == "__main__":
    for info in describe():
        print(f"{info.name:16} {info.summary} [{info.how}]")
    print(load("pitches", size=300).source)
