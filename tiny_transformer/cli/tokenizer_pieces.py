"""Tokens as people see them: any tokenizer's pieces as bytes and as visible text, and a sequence of them in colours.

Left out: how a text becomes tokens. Read before: tokenization/base.py, screen.py.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from tiny_transformer.cli.screen import visible
from tiny_transformer.tokenization.registry import KINDS

COLOURS = tuple(f"black on {colour}" for colour in ("#ffe680", "#80ff80", "#8be9fd", "#ff9de6", "#e0e0e0"))
"""Neighbouring tokens never have the same one, not even on a terminal with sixteen colours."""
MARKS = {" ": "·", "\n": "⏎", "\t": "⇥"}
"""How white space is shown."""


def kind_of(tokenizer: Any) -> str:
    """The kind, as in a saved tokenizer."""
    by_class = {name: kind for kind, (_, name) in KINDS.items()}
    return by_class.get(type(tokenizer).__name__) or getattr(tokenizer, "kind", "") or "normalized"


def core(tokenizer: Any) -> Any:
    """The tokenizer that holds the vocabulary: the one behind a normalization, else itself."""
    return getattr(tokenizer, "inner", tokenizer)


def vocabulary(tokenizer: Any) -> dict[int, bytes]:
    """Each id's token, as bytes: BPE's and byte tokens exactly, others in UTF-8, spelled as in their vocabulary (▁the, ##ing)."""
    inner = core(tokenizer)
    if hasattr(inner, "vocab"):
        return dict(sorted(inner.vocab.items()))
    if hasattr(inner, "pieces"):
        return {i: piece.encode("utf-8", "replace") for i, piece in enumerate(inner.pieces)}
    one: Any = getattr(inner, "decode_bytes", lambda ids: inner.decode(ids).encode("utf-8", "replace"))
    return {i: one([i]) for i in range(inner.vocab_size)}


def token(tokenizer: Any, i: int) -> bytes:
    """One id's token, as in `vocabulary`. Raises ValueError for an id that is not in use."""
    inner = core(tokenizer)
    if hasattr(inner, "decode_bytes"):
        found: bytes = inner.decode_bytes([i])
        return found
    text = inner.decode([i])  # complains about an id out of range
    return str(inner.pieces[i] if hasattr(inner, "pieces") else text).encode("utf-8", "replace")


def shown(piece: bytes) -> str:
    r"""A token as one visible line: spaces ·, line ends ⏎, bytes that are no whole character \xNN, controls as pictures.

    >>> shown(b" the\n"), shown("é".encode()[:1])
    ('·the⏎', '\\xc3')
    """
    text = piece.decode("utf-8", "backslashreplace")
    return visible("".join(MARKS.get(character, character) for character in text))


def unshown(text: str) -> str:
    """The text that `shown` showed, as far as it can be told."""
    for character, mark in MARKS.items():
        text = text.replace(mark, character)
    return text


def coloured(pieces: Sequence[bytes], ids: Sequence[int], width: int) -> Text:
    """Tokens side by side, each on its colour, its id below; a new row at the edge and after a line end."""
    page, upper, lower, used = Text(), Text(), Text(), 0

    def flush() -> None:
        nonlocal upper, lower, used
        if used:
            page.append_text(upper).append("\n").append_text(lower).append("\n")
        upper, lower, used = Text(), Text(), 0

    for place, (piece, i) in enumerate(zip(pieces, ids, strict=True)):
        text, number = _short(shown(piece), width), str(i)
        room = max(cell_len(text), len(number)) + 1
        if used + room > width:
            flush()
        upper.append(text, style=COLOURS[place % len(COLOURS)]).append(" " * (room - cell_len(text)))
        lower.append(number.ljust(room), style="dim")
        used += room
        if piece.endswith(b"\n"):
            flush()
    flush()
    page.right_crop(1)
    return page


def _short(text: str, width: int) -> str:
    return text if cell_len(text) < width else text[: max(1, width // 2 - 2)] + "…"


def fact(name: str, text: str) -> Table:
    """A name and what there is to say about it, in two columns, so that a long text is not wrapped below its name."""
    row = Table.grid(padding=(0, 2))
    row.add_column(width=14, no_wrap=True)
    row.add_column(overflow="fold")
    row.add_row(Text(name), Text(visible(text)))
    return row


def joined(pieces: Iterable[bytes], new: bytes | None = None) -> Text:
    """Tokens in a row with bars between them; those that equal `new` stand out."""
    line = Text(overflow="fold")
    for place, piece in enumerate(pieces):
        line.append("|" if place else "", style="dim").append(shown(piece), style="bold cyan" if piece == new else "")
    return line


if __name__ == "__main__":
    from rich.console import Console

    from tiny_transformer.tokenization.bpe import BPETokenizer

    tokenizer = BPETokenizer.train("She sells sea shells by the sea shore; the shells she sells are sea shells.\n" * 3, 290)
    ids = tokenizer.encode("She sells é\nsea shells")
    Console().print(coloured([token(tokenizer, i) for i in ids], ids, 60))
