"""One file out of a zip archive, with nothing left to the archive: not the target's name, not its size.

`ZipFile.extractall` writes where the archive says and as much as it says. Here the caller names the member, the target
and the most bytes it may have. Read before: `utils/atomic.py`.
"""

import shutil
import stat
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

from tiny_transformer.config import ConfigError, check
from tiny_transformer.utils.atomic import atomic_save


def extract_member(archive: Path, member: str, target: Path, *, max_bytes: int) -> None:
    """Write `member` of the zip file `archive` to `target`, whole or not at all. Its checksum (CRC-32) is verified.

    Raises ConfigError when the archive is damaged or has no such plain file, or when it unpacks to more than `max_bytes`.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            info = _find(opened, member, archive)
            check(
                info.file_size <= max_bytes,
                f"{member} has {info.file_size:,} bytes",
                f"at most {max_bytes:,} are expected",
                "Do not use it",
            )
            atomic_save(target, lambda file: _copy(opened, info, file))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise ConfigError(f"{archive} is damaged ({error}): it must be a zip file. Delete it and download it again") from error


def _find(opened: zipfile.ZipFile, member: str, archive: Path) -> zipfile.ZipInfo:
    found = [info for info in opened.infolist() if info.filename == member]
    check(len(found) == 1, f"{archive} has {len(found)} files called {member}", "it must have one", "Download it again")
    kind = stat.S_IFMT(found[0].external_attr >> 16)  # 0 when the archive does not say
    plain = not found[0].is_dir() and kind in (0, stat.S_IFREG) and not found[0].flag_bits & 1
    check(plain, f"{member} in {archive} is a folder, a link or encrypted", "it must be a plain file", "Download it again")
    return found[0]


def _copy(opened: zipfile.ZipFile, info: zipfile.ZipInfo, file: BinaryIO) -> None:
    """`zipfile` gives no more bytes than `info` says, and checks their CRC-32: a member that lies about its size is an error."""
    with opened.open(info) as source:
        shutil.copyfileobj(source, file)


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        made, target = Path(folder) / "made.zip", Path(folder) / "words.txt"
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as writing:
            writing.writestr("deep/words.txt", "word " * 1000)
        extract_member(made, "deep/words.txt", target, max_bytes=5000)
        print(f"{made.stat().st_size} bytes of archive became {target.stat().st_size} bytes of text")
        try:
            extract_member(made, "deep/words.txt", target, max_bytes=4999)
        except ConfigError as caught:
            print("caught:", caught)
