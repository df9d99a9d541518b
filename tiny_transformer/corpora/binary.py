"""Is this text at all? What a file's first bytes say, so that nobody is told to re-encode a photograph.

Left out: reading (`textfile.py`, which says where a text is not UTF-8). Read before: nothing.
"""

import codecs

from tiny_transformer.config import ConfigError

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF8", "a GIF image"),
    (8, b"WEBP", "a WebP image"),
    (0, b"BM", "a BMP image"),
    (0, b"%PDF-", "a PDF document"),
    (0, b"PK\x03\x04", "a ZIP archive (or .docx, .xlsx, .epub, .jar, .pt: they are ZIP archives)"),
    (0, b"\x1f\x8b", "gzip-compressed"),
    (0, b"BZh", "bzip2-compressed"),
    (0, b"\xfd7zXZ\x00", "xz-compressed"),
    (0, b"\x28\xb5\x2f\xfd", "zstd-compressed"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"\x7fELF", "an ELF program"),
    (0, b"MZ", "a Windows program"),
    (0, b"\xcf\xfa\xed\xfe", "a macOS program"),
    (0, b"\xca\xfe\xba\xbe", "Java or macOS bytecode"),
    (0, b"SQLite format 3\x00", "an SQLite database"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"PAR1", "a Parquet table"),
    (0, b"ID3", "an MP3 recording"),
    (0, b"fLaC", "a FLAC recording"),
    (0, b"OggS", "an Ogg recording"),
    (8, b"WAVE", "a WAV recording"),
    (4, b"ftyp", "an MP4 or similar video"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Microsoft Office document"),
    (0, b"{\\rtf", "an RTF document"),
    (0, b"\x00asm", "WebAssembly"),
)
"""(offset, bytes, what a file with these bytes there is)."""
HEAD = 1 << 16
"""Bytes that are looked at."""
_MOST_CONTROLS = 0.1
_HARMLESS = b"\t\n\r\f\x1b\b"


def binary_kind(head: bytes) -> str | None:
    r"""What kind of binary file begins with `head`, or None for what may be text.

    >>> binary_kind(b"\x89PNG\r\n\x1a\n\x00\x00"), binary_kind("naïve\n".encode()), binary_kind(b"\x00\x01\x02\x03")
    ('a PNG image', None, 'no known kind, but full of control bytes')
    """
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return None  # text, of a kind that textfile.py names
    known = next((what for at, mark, what in _MAGIC if head[at : at + len(mark)] == mark), None)
    controls = sum((byte < 32 and byte not in _HARMLESS) or byte == 127 for byte in head)
    crowded = controls > _MOST_CONTROLS * len(head)
    if known is not None and (crowded or not _is_utf8(head) or known == "an RTF document"):
        return known  # a text may begin with BM, MZ or PK: it is binary only when the rest agrees
    if not crowded:
        return None if b"\x00" not in head or _is_utf8(head) else "no known kind, but with NUL bytes"
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if max(even, odd) > 0.2 * len(head) and min(even, odd) + controls - head.count(0) < 0.05 * len(head):
        return "UTF-16 without a byte order mark"
    return "no known kind, but full of control bytes"


def check_not_binary(head: bytes, name: str) -> None:
    """Raise ConfigError when `head`, the first bytes of `name`, are not those of a text."""
    kind = binary_kind(head)
    if kind is None:
        return
    remedies = {"UTF-16 without a byte order mark": "Save it as UTF-8, for example: iconv -f utf-16le -t utf-8 FILE > NEW"}
    if kind.endswith("compressed"):
        remedies[kind] = "Unpack it first"
    remedy = remedies.get(kind, "Take the text out of it first, or choose another file")
    raise ConfigError(f"{name} looks binary ({kind}): it must be a UTF-8 text file. {remedy}")


def _is_utf8(head: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # a last character that is cut off is no error
    except UnicodeDecodeError:
        return False
    return True


if __name__ == "__main__":
    for sample in (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\xff", b"BMW is a car maker.\n", "ab".encode("utf-16-le") * 9, bytes(range(32))):
        print(sample[:12], "→", binary_kind(sample))
