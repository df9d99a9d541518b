"""Files that are either there and whole, or not there: no reader and no power cut ever sees half of one.

The order is the whole point: write beside the target, flush, fsync the file, rename, fsync the directory. A rename
within one directory is atomic, so the name means the old contents or the new ones, never a mixture.
Read before: nothing.
"""

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO


def atomic_save(path: str | os.PathLike[str], write: Callable[[BinaryIO], None]) -> None:
    """Let `write(file)` fill a temporary file beside `path`, then give it that name.

    On any failure (an error in `write`, a full disk, Ctrl-C) the temporary file is removed, an older file at `path`
    is untouched, and the failure goes on to the caller. Raises OSError when the folder is missing or not writable.

    >>> atomic_save("note.txt", lambda file: file.write(b"whole or not at all"))  # doctest: +SKIP
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:  # x: must be new
            write(file)
            file.flush()
            os.fsync(file.fileno())
        rename_durably(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def rename_durably(source: Path, target: Path) -> None:
    """Rename within one directory, and make the new name survive a power cut. `source` must be fsynced already."""
    source.replace(target)
    if os.name == "posix":  # Windows cannot open a directory
        directory = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder) / "note.txt"
        atomic_save(note, lambda file: print(file.write(b"first"), "bytes written"))

        def fail(file: BinaryIO) -> None:
            """Break in the middle of a write."""
            file.write(b"sec")
            raise OSError("disk full")

        with suppress(OSError):
            atomic_save(note, fail)
        print("after a failed second save:", note.read_text(), "· files in the folder:", len(list(Path(folder).iterdir())))
