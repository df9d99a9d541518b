"""What `tiny data report`, `clean` and `split` share: reading a text, saying what is going on, and never writing over a source.

Read before: corpora/library.py, corpora/binary.py, screen.py.
"""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.progress import BarColumn, Progress, SpinnerColumn

from tiny_transformer import corpora
from tiny_transformer.cli.screen import Screen, downloading
from tiny_transformer.config import check
from tiny_transformer.corpora.binary import HEAD, check_not_binary
from tiny_transformer.corpora.corpus import Corpus
from tiny_transformer.corpora.download import ALIASES, PUBLISHED, find
from tiny_transformer.corpora.inventory import Stages
from tiny_transformer.corpora.near_duplicates import Shingling


def read(name: str | None, command: str, size: int | None = None) -> Corpus:
    """A built-in text or a file, whole and unchanged. Raises ConfigError for none, a missing, empty, binary or wrongly encoded one."""
    check(name is not None, f"{command} without a file", "it needs a text", f"Try: tiny data {command} my.txt, or see tiny data list")
    name = name or ""
    binary = _binary(name)
    with downloading(Screen(to_stderr=True), name) as progress:
        corpus = corpora.load(name, size=size, progress=progress)
    if not binary:
        check_not_binary(corpus.text[:HEAD].encode("utf-8"), "standard input" if name == "-" else name)
    return corpus


def _binary(name: str) -> bool:
    """Complain about a binary file before anyone tries to decode it; False where there is no file to look into.

    A pipe (`<(command)`) is no file to look into: what is read from it here would be gone.
    """
    if name == "-":
        peek = getattr(sys.stdin.buffer, "peek", lambda size: b"")  # looks without taking
        check_not_binary(peek(HEAD)[:HEAD], "standard input")
        return False
    if any(info.name == name for info in corpora.describe()):
        return False
    return check_binary_file(Path(name))


def check_binary_file(path: Path) -> bool:
    """Raise ConfigError for a file that is no text; False where there is none that can be looked into."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            head = file.read(HEAD)
    except (OSError, ValueError):  # complained about when it is read
        return False
    check_not_binary(head, str(path))
    return True


@contextlib.contextmanager
def working(screen: Screen) -> Iterator[Stages]:
    """`with working(screen) as stage:` shows what is being done: a moving line on a terminal, nothing elsewhere."""
    columns = (SpinnerColumn(), "{task.description}", BarColumn(bar_width=24))
    bar = Progress(*columns, console=screen.console, transient=True, disable=not screen.live)
    task = bar.add_task("reading", total=None)

    def stage(what: str, done: int = 0, total: int = 0) -> None:
        bar.update(task, description=what, completed=done, total=total if total > 1 else None)

    bar.start()
    try:
        yield stage
    finally:
        bar.stop()


def source_path(name: str | None) -> Path | None:
    """The file that a text is read from; None for texts that are no file here. Standard input may be a file: `< my.txt`."""
    if name is None:
        return None
    if name == "-":
        return Path("/dev/stdin")
    if name in PUBLISHED or name in ALIASES:
        found = find(name)
        return None if found is None else Path(found.path)
    return None if any(info.name == name for info in corpora.describe()) else Path(name)


def check_other_file(target: Path, source: Path | None) -> None:
    """Raise ConfigError when writing `target` would change `source`: the same name, a link to it, or another name of the same file."""
    if source is None or not source.exists():
        return
    same = target.resolve() == source.resolve() or (target.exists() and target.samefile(source))
    check(
        not same,
        f"{target} is the source itself",
        "the source is never changed",
        f"Choose another name, such as {beside(source.resolve())}",
    )


def beside(source: Path) -> Path:
    """A name for a cleaned file: my.txt → my.clean.txt."""
    return source.with_name(f"{source.stem}.clean{source.suffix or '.txt'}")


def unescape(separator: str | None) -> str | None:
    r"""A separator as typed on a command line: \n, \t, \r and \\ mean what they mean elsewhere."""
    if separator is None:
        return None
    parts = separator.split("\\\\")
    for typed, meant in (("\\n", "\n"), ("\\t", "\t"), ("\\r", "\r")):
        parts = [part.replace(typed, meant) for part in parts]
    return "\\".join(parts)


def shingling(described: str, threshold: float) -> Shingling:
    """`words:3` or `characters:8` as settings. Raises ConfigError."""
    unit, colon, n = described.partition(":")
    right = unit in ("words", "characters") and (not colon or n.isdecimal())
    check(right, f"shingles={described!r}", "it must be words:N or characters:N", "Try --shingles words:3")
    made = int(n) if n else {"words": 3, "characters": 8}[unit]
    return Shingling(unit="words" if unit == "words" else "characters", n=made, threshold=threshold)


if __name__ == "__main__":
    print(shingling("characters:8", 0.9), repr(unescape(r"<end>\n")), beside(Path("my.txt")), file=sys.stdout)
