"""The published texts: which there are, where they lie, and how they are fetched when they lie nowhere yet.

Search order: the folder that TINY_CORPORA names (`<name>.txt`), the cache, a download into the cache. The cache is
TINY_CACHE, else `$XDG_CACHE_HOME/tiny-transformer`, else `~/.cache/tiny-transformer`.
`python -m tiny_transformer.corpora.download shakespeare data/shakespeare.txt` puts one where you want it.
Read before: `transfer.py`, `archive.py`.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tiny_transformer.config import ConfigError, check, check_choice
from tiny_transformer.corpora.archive import extract_member
from tiny_transformer.corpora.corpus import Progress
from tiny_transformer.corpora.transfer import Client, DownloadError, Remote, sha256, transfer
from tiny_transformer.utils.atomic import atomic_save

WITHOUT_NETWORK = "pitches, python, pydoc, or a UTF-8 file of your own"


@dataclass(frozen=True)
class Published:
    """A text that others published and that never changes."""

    title: str
    remote: Remote
    """What is downloaded: the text, or an archive that holds it."""
    sha256: str | None
    """Of the text itself; None where only its archive's is known."""
    member: str | None = None
    """Its name inside the archive."""


_SHAKESPEARE = Remote(
    size=1_115_394,
    sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    mirrors=(
        "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        "https://cdn.jsdelivr.net/gh/karpathy/char-rnn@master/data/tinyshakespeare/input.txt",
        "https://storage.googleapis.com/download.tensorflow.org/data/shakespeare.txt",
    ),
)
# Merity et al. 2016, "Pointer Sentinel Mixture Models"; CC BY-SA
_WIKITEXT2 = Remote(
    size=4_475_746,
    sha256="92675f1d63015c1c8b51f1656a52d5bdbc33aafa60cc47a218a66e7ee817488c",
    mirrors=(
        "https://s3.amazonaws.com/research.metamind.io/wikitext/wikitext-2-v1.zip",
        "https://wikitext.smerity.com/wikitext-2-v1.zip",
        "https://apache-mxnet.s3-accelerate.dualstack.amazonaws.com/gluon/dataset/wikitext-2/wikitext-2-v1.zip",
    ),
)
LARGEST_MEMBER = 16_000_000

PUBLISHED: dict[str, Published] = {
    "shakespeare": Published("Tiny Shakespeare", _SHAKESPEARE, _SHAKESPEARE.sha256),
    "wikitext2-train": Published("WikiText-2, training part", _WIKITEXT2, None, "wikitext-2/wiki.train.tokens"),
    "wikitext2-valid": Published(
        "WikiText-2, validation part",
        _WIKITEXT2,
        "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
        "wikitext-2/wiki.valid.tokens",
    ),
    "wikitext2-test": Published(
        "WikiText-2, test part",
        _WIKITEXT2,
        "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0",
        "wikitext-2/wiki.test.tokens",
    ),
}
ALIASES = {"wikitext2": "wikitext2-train"}


@dataclass(frozen=True)
class Found:
    """A published text on this machine."""

    path: Path
    place: str
    """Where: "TINY_CORPORA", "the cache" or "downloaded into the cache"."""
    genuine: bool | None
    """Whether its SHA-256 is the published one; None where that is not known."""


def cache_dir() -> Path:
    """Where downloads are kept."""
    if own := os.environ.get("TINY_CACHE"):
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "tiny-transformer"


def find(name: str) -> Found | None:
    """The text in TINY_CORPORA or in the cache; None when it is in neither. A damaged file in the cache does not count."""
    check_choice("corpus", name, (*PUBLISHED, *ALIASES))
    full = ALIASES.get(name, name)
    for spelling in (name, full, *(alias for alias, meant in ALIASES.items() if meant == full)):
        folder = os.environ.get("TINY_CORPORA")
        if folder and (Path(folder) / f"{spelling}.txt").is_file():
            path = Path(folder) / f"{spelling}.txt"
            return Found(path, "TINY_CORPORA", _is_genuine(path, full))
    path = _cached(full)
    genuine = _is_genuine(path, full) if path.is_file() else False
    return None if genuine is False else Found(path, "the cache", genuine)


def fetch(name: str, *, progress: Progress | None = None, client: Client | None = None) -> Found:
    """The text from TINY_CORPORA or the cache, or downloaded now. Calls progress(bytes here, bytes in all) meanwhile.

    Raises DownloadError when it can't be had: one line that says why, and what can be used instead.
    """
    found = find(name)
    if found is not None:
        return found
    full = ALIASES.get(name, name)
    published = PUBLISHED[full]
    try:
        if published.member is None:
            transfer(published.remote, _cached(full), progress=progress, client=client)
        else:
            archive = cache_dir() / "corpora" / Path(published.remote.mirrors[0]).name
            transfer(published.remote, archive, progress=progress, client=client)
            extract_member(archive, published.member, _cached(full), max_bytes=LARGEST_MEMBER)
    except DownloadError as error:
        raise DownloadError(_cannot_be_had(name, error), offline=error.offline) from error
    except OSError as error:
        raise ConfigError(
            f"cannot write into the cache {cache_dir()} ({error.strerror or error}). Let TINY_CACHE name another folder"
        ) from error
    genuine = _is_genuine(_cached(full), full)
    check(genuine is not False, f"{name} was unpacked with another SHA-256", "it must be the published text", "Delete the cache")
    return Found(_cached(full), "downloaded into the cache", genuine)


def put(name: str, target: Path, *, progress: Progress | None = None, client: Client | None = None) -> str:
    """See to it that `target` is the published text; gives one line that says how it is so.

    Raises DownloadError when the text can't be had, ConfigError when another file is at `target` already.
    """
    check_choice("corpus", name, (*PUBLISHED, *ALIASES))
    full = ALIASES.get(name, name)
    title = PUBLISHED[full].title
    if target.exists():
        genuine = target.is_file() and _is_genuine(target, full)
        other = f"{target} is there but is not {title}: its SHA-256 differs"
        check(genuine is not False, other, "nothing is overwritten", "Move it away and try again")
        return f"{target} is there already: {title}" + (", SHA-256 verified" if genuine else "")
    found = fetch(name, progress=progress, client=client)
    check(found.genuine is not False, f"{found.path} is not {title}", "its SHA-256 differs", "Mend TINY_CORPORA, or unset it to download")
    target.parent.mkdir(parents=True, exist_ok=True)
    with found.path.open("rb") as source:
        atomic_save(target, lambda file: shutil.copyfileobj(source, file))
    return f"{target}: {title}, {target.stat().st_size:,} bytes, from {found.path} ({found.place})" + (
        ", SHA-256 verified" if found.genuine else ""
    )


def _cached(name: str) -> Path:
    return cache_dir() / "corpora" / f"{name}.txt"


def _is_genuine(path: Path, name: str) -> bool | None:
    wanted = PUBLISHED[name].sha256
    return None if wanted is None else sha256(path) == wanted


def _cannot_be_had(name: str, error: DownloadError) -> str:
    folder = os.environ.get("TINY_CORPORA")
    searched = f"TINY_CORPORA={folder} has no {name}.txt, and " if folder else ""
    reason = f"there is no network ({error})" if error.offline else f"no download worked ({error})"
    parts = [other for other in PUBLISHED if name.startswith("wikitext2") and other.startswith("wikitext2") and find(other)]
    here = (
        f"{' and '.join(parts)} {'is' if len(parts) == 1 else 'are'} here: name {'it' if len(parts) == 1 else 'one'} instead. "
        if parts
        else ""
    )
    return (
        f"{name} cannot be had: {searched}{reason}. {here}"
        f"Without a network use {WITHOUT_NETWORK}, or let TINY_CORPORA name a folder with {name}.txt"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m tiny_transformer.corpora.download NAME [FILE]`: 0 when FILE is the text, else 1 and one line."""
    parser = argparse.ArgumentParser(prog="python -m tiny_transformer.corpora.download", description="Fetch a published text, verified.")
    parser.add_argument("name", choices=(*PUBLISHED, *ALIASES))
    parser.add_argument("file", nargs="?", type=Path, help="where to put it; default: data/NAME.txt")
    arguments = parser.parse_args(argv)
    try:
        print(
            put(
                arguments.name, arguments.file or Path("data") / f"{arguments.name}.txt", progress=_percent if sys.stderr.isatty() else None
            )
        )
    except (ConfigError, OSError) as error:
        print(f"{arguments.name}: {error}" if isinstance(error, OSError) else error, file=sys.stderr)
        return 1
    return 0


def _percent(done: int, total: int) -> None:
    print(f"\r{done / total:4.0%} of {total / 1e6:.1f} MB", end="\n" if done >= total else "", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
