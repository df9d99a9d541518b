"""A text divided into training, validation and test part: by position, by document, or by group of documents.

By position the last part is held back, as training does it by itself. By document, each document goes where a hash of (seed, document)
sends it: the same document always goes to the same side, however many are added, and copies of it go with it. By group, the hash is
that of a key found in the document (a speaker, an author, a title), so near copies within a group never face each other.
Left out: writing files. Read before: documents.py.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b

from tiny_transformer.config import check
from tiny_transformer.corpora.documents import Piece, join_documents, split_documents

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Division:
    """The parts of a text. Together they hold every character of it, once."""

    train: str
    val: str
    test: str
    documents: dict[str, int]
    """Part → how many documents it holds; empty when the text was cut by position."""
    groups: dict[str, int]
    """Part → how many groups it holds; empty unless divided by group."""
    without_key: int = 0
    """Documents in which the group's pattern found nothing: each is a group of its own."""

    def parts(self) -> dict[str, str]:
        """Name → text of the parts; test is left out when none was asked for."""
        return {name: text for name, text in zip(PARTS, (self.train, self.val, self.test), strict=True) if text or name != "test"}


def by_position(text: str, val_share: float = 0.1, test_share: float = 0.0) -> Division:
    """First the training part, then the validation part, last the test part. Without a test part this is what training does.

    >>> by_position("0123456789", val_share=0.2, test_share=0.1).parts()
    {'train': '0123456', 'val': '78', 'test': '9'}

    Raises ConfigError for shares that leave a part without a character.
    """
    check_shares(val_share, test_share)
    first, second = int(len(text) * (1 - val_share - test_share)), int(len(text) * (1 - test_share))
    return _checked(Division(text[:first], text[first:second], text[second:], {}, {}), test_share)


def by_document(text: str, val_share: float = 0.1, test_share: float = 0.0, *, seed: int = 0, separator: str | None = None) -> Division:
    """Whole documents, each by its own hash. The shares are met on average: of n documents, within about sqrt(n share).

    Raises ConfigError when a part would be empty.
    """
    return _by_key(text, lambda body: None, val_share, test_share, seed, separator, grouped=False)


def by_group(
    text: str, key: str, val_share: float = 0.1, test_share: float = 0.0, *, seed: int = 0, separator: str | None = None
) -> Division:
    r"""All documents of a group on one side. `key` is a regular expression: a document's group is its first match, or what stands
    in the match's first parenthesis; ^ and $ match at lines.

    >>> parts = by_group("A: x\n\nB: y\n\nA: z\n\nC: u\n\n", r"^(\w+):", val_share=0.4, seed=4).parts()
    >>> parts["train"].count("A:"), parts["val"].count("A:")
    (2, 0)

    Raises ConfigError for a pattern that can't be read or matches no document, and when a part would be empty.
    """
    try:
        pattern = re.compile(key, re.MULTILINE)
    except re.error as error:
        check(False, f"group key {key!r}", f"it must be a regular expression ({error})", r"Try '^(\w+):'")

    def find(body: str) -> str | None:
        match = pattern.search(body)
        return None if match is None else (match[1] or "") if pattern.groups else match[0]

    return _by_key(text, find, val_share, test_share, seed, separator, grouped=True)


def place_of(key: str, seed: int) -> float:
    """A number from 0 to 1 that depends on nothing but `key` and `seed`: 64 bits of BLAKE2b.

    >>> place_of("ROMEO", 0) == place_of("ROMEO", 0) != place_of("ROMEO", 1)
    True
    """
    hashed = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8, key=str(seed).encode()).digest()
    return int.from_bytes(hashed, "big") / 2**64


def check_shares(val_share: float, test_share: float) -> None:
    """Raise ConfigError unless both shares are possible and leave something to train on."""
    check(0 < val_share < 1, f"val_share={val_share}", "it must be between 0 and 1", "Try --val-share 0.1")
    check(0 <= test_share < 1, f"test_share={test_share}", "it must be at least 0 and below 1", "Try --test-share 0.1")
    both = val_share + test_share
    check(both < 1, f"val_share={val_share} and test_share={test_share}", "together they must be below 1", "Leave some text to train on")


def _by_key(
    text: str, find: Callable[[str], str | None], val_share: float, test_share: float, seed: int, separator: str | None, *, grouped: bool
) -> Division:
    check_shares(val_share, test_share)
    pieces: dict[str, list[Piece]] = {name: [] for name in PARTS}
    groups: dict[str, set[str]] = {name: set() for name in PARTS}
    without_key = 0
    for piece in split_documents(text, separator):
        if not piece.key:  # white space only: it stays with the training text
            pieces["train"].append(piece)
            continue
        group = find(piece.key)
        without_key += group is None
        key = f"document {piece.key}" if group is None else f"group {group}"
        place = place_of(key, seed)
        name = "test" if place < test_share else "val" if place < test_share + val_share else "train"
        pieces[name].append(piece)
        groups[name].add(key)
    counts = {name: sum(bool(piece.key) for piece in part) for name, part in pieces.items()}
    total = sum(counts.values())
    matched = not grouped or without_key < total
    check(matched, f"the group key matches none of {total:,} documents", "it must find the group", "Try another --group-key")
    made = Division(
        train=join_documents(pieces["train"]),
        val=join_documents(pieces["val"]),
        test=join_documents(pieces["test"]),
        documents=counts,
        groups={name: len(found) for name, found in groups.items()} if grouped else {},
        without_key=without_key if grouped else 0,
    )
    kind = f"{sum(made.groups.values()):,} groups" if grouped else f"{total:,} documents"
    return _checked(made, test_share, kind)


def _checked(made: Division, test_share: float, kind: str | None = None) -> Division:
    for name in PARTS if test_share else PARTS[:2]:
        text: str = getattr(made, name)
        remedy = "Use a longer text" if kind is None else "Try another --seed or a larger share, or --by position"
        check(bool(text.strip()), f"the {name} part of {kind or 'the text'} is empty", "every part must hold some text", remedy)
    return made


if __name__ == "__main__":
    from tiny_transformer.corpora.pitches import text as pitches

    sample = pitches(50_000)
    for title, made in (
        ("by position", by_position(sample)),
        ("by document", by_document(sample)),
        ("by group", by_group(sample, r"\A(.+)\n")),
    ):
        print(f"{title:12}", {name: len(part) for name, part in made.parts().items()}, made.documents, made.groups)
