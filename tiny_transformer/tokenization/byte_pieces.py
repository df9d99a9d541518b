"""Byte fallback: what a vocabulary lacks is written as the bytes of its UTF-8, each a piece of its own, `<0x00>` to `<0xFF>`.

Kudo & Richardson (2018), SentencePiece; Llama 2 does it. Left out: byte-level BPE, where bytes are all there is. Read before: nothing.
"""

import re
from collections.abc import Iterable

BYTE_PIECES = [f"<0x{byte:02X}>" for byte in range(256)]
_SURROGATE = re.compile("[\ud800-\udfff]")
_BYTES = {piece: byte for byte, piece in enumerate(BYTE_PIECES)}


def to_byte_pieces(text: str) -> list[str]:
    """The bytes of `text`. A lone surrogate, which is no character, is written as U+FFFD.

    >>> to_byte_pieces("é")
    ['<0xC3>', '<0xA9>']
    """
    return [BYTE_PIECES[byte] for byte in _SURROGATE.sub("\ufffd", text).encode()]


def fuse_bytes(pieces: Iterable[str]) -> list[str]:
    """Byte pieces that stand together become their text, or as many U+FFFD as they are when they are none; others stay.

    >>> fuse_bytes(["a", "<0xC3>", "<0xA9>", "<0xC3>", "b", "<0xA9>"])
    ['a', '\ufffd\ufffd\ufffd', 'b', '\ufffd']
    """
    fused: list[str] = []
    held = bytearray()
    for piece in [*pieces, ""]:  # the empty one at the end lets go of what is held
        if piece in _BYTES:
            held.append(_BYTES[piece])
            continue
        if held:
            try:
                fused.append(held.decode("utf-8"))
            except UnicodeDecodeError:
                fused.append("\ufffd" * len(held))
            held.clear()
        fused.append(piece)
    return fused[:-1]


if __name__ == "__main__":
    for text in ("né", "語", "👍"):
        print(text, to_byte_pieces(text), fuse_bytes(to_byte_pieces(text)))
