"""Any UTF-8 file, or standard input, as text: exactly as it stands, and one clear line when it is none.

Nothing is changed on the way (no newline is translated), except that a UTF-8 byte order mark at the start, which is
no character of the text, is left out. Read before: nothing.
"""

import codecs
import sys
from difflib import get_close_matches
from pathlib import Path

from tiny_transformer.config import ConfigError, check

STANDARD_INPUT = "-"
_OTHER_MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def read_text(path: str | Path, size: int | None = None) -> str:
    """The first `size` characters (default: all) of a file, or of standard input when `path` is "-".

    Raises ConfigError when it does not exist (with the nearest name that does), is a folder, can't be read, is empty,
    or is not UTF-8 (with the offset of the first wrong byte).
    """
    name = "standard input" if str(path) == STANDARD_INPUT else str(path)
    limit = None if size is None else 4 * size + len(codecs.BOM_UTF8)  # a character has at most 4 bytes in UTF-8
    data = _read_bytes(path, limit)
    remedy = "Pipe it in: cat FILE | tiny …" if str(path) == STANDARD_INPUT else "Choose another file"
    check(bool(data.removeprefix(codecs.BOM_UTF8)), f"{name} is empty", "there must be text to learn from", remedy)
    return decode(data, name, complete=limit is None or len(data) < limit)[:size]


def decode(data: bytes, name: str, *, complete: bool = True) -> str:
    """UTF-8 bytes as text, without a byte order mark. With `complete=False` a last character that is cut off is left out.

    Raises ConfigError naming `name` and the offset of the first byte that is wrong.
    """
    text = data.removeprefix(codecs.BOM_UTF8)
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(text, final=complete)
    except UnicodeDecodeError as error:
        at = error.start + len(data) - len(text)
        encoding = next((known for mark, known in _OTHER_MARKS.items() if data.startswith(mark)), "latin-1")
        raise ConfigError(
            f"{name} is not UTF-8: byte 0x{data[at]:02x} at offset {at} cannot stand there. "
            f"Save it as UTF-8, for example: iconv -f {encoding} -t utf-8 FILE > NEW"
        ) from None


def nearest_path(path: Path) -> Path | None:
    """The existing path that looks most like `path`: first the deepest folder that exists, then the closest name in it."""
    folder = path.parent
    wanted = path.name
    while not folder.is_dir():
        wanted = folder.name
        if folder == folder.parent:
            return None
        folder = folder.parent
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return None
    close = get_close_matches(wanted, names, n=1, cutoff=0.6)
    return folder / close[0] if close else None


def _read_bytes(path: str | Path, limit: int | None) -> bytes:
    size = -1 if limit is None else limit
    try:
        if str(path) == STANDARD_INPUT:
            return sys.stdin.buffer.read(size)
        with Path(path).open("rb") as file:
            return file.read(size)
    except FileNotFoundError:
        near = nearest_path(Path(path))
        hint = f"Did you mean {near}?" if near else "Mend the path"
        raise ConfigError(f"there is no file {path}: it must be a UTF-8 text file. {hint}") from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder: it must be a UTF-8 text file. Name a file in it") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL in it
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path} cannot be read ({reason}): it must be a UTF-8 text file. Check its name and permissions") from None


if __name__ == "__main__":
    print(repr(read_text(__file__, size=40)))
    for wrong in ("textfile.pi", "."):
        try:
            read_text(Path(__file__).parent / wrong)
        except ConfigError as caught:
            print("caught:", caught)
