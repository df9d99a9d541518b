"""A file from the web to the disk: the right bytes, all of them, or a clear reason why not.

The rules: https only, redirections included; size and SHA-256 are known beforehand; several mirrors, tried in turn; what
has arrived is kept in `<target>.part` and continued, not fetched again; a server that stalls is given up; the target's
name appears by a rename, after the digest was checked, so it is never half a file.
Leaves out which files there are (`download.py`). Read before: `utils/atomic.py`.
"""

import hashlib
import http.client
import os
import ssl
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from tiny_transformer.config import ConfigError
from tiny_transformer.corpora.corpus import Progress
from tiny_transformer.utils.atomic import rename_durably

if sys.platform != "win32":
    import fcntl

CHUNK = 1 << 16
LEAST_BYTES = 1024
"""A server must send this much within `patience` seconds: one byte now and then counts as a stall."""
ATTEMPTS = 5
"""How often one mirror may be asked to go on after it broke off."""


RANGE_NOT_SATISFIABLE = 416


class DownloadError(ConfigError):
    """A file could not be had; the message says why, mirror by mirror. `offline`: no mirror could even be reached."""

    def __init__(self, message: str, *, offline: bool = False) -> None:
        super().__init__(message)
        self.offline = offline


class MirrorError(Exception):
    """What is wrong with one mirror. `offline`: it could not even be reached."""

    def __init__(self, reason: str, *, offline: bool = False) -> None:
        super().__init__(reason)
        self.offline = offline


@dataclass(frozen=True)
class Remote:
    """A file on the web that never changes."""

    size: int
    """In bytes."""
    sha256: str
    mirrors: tuple[str, ...]
    """Addresses of the same bytes, tried in this order."""


@dataclass(frozen=True)
class Client:
    """How to talk to servers."""

    patience: float = 20.0
    """Seconds to wait for a connection, for an answer, and for the next bytes."""
    loopback_http: bool = False
    """Allow plain http to this machine itself: for tests, never otherwise."""

    def check_address(self, address: str) -> None:
        """Raise MirrorError unless the address is https (or loopback, where that is allowed)."""
        parts = urlsplit(address)
        local = self.loopback_http and parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")
        if parts.scheme != "https" and not local:
            raise MirrorError(f"{parts.scheme or 'no'} address refused, only https is accepted")

    def open(self, address: str, start: int) -> Any:
        """The answer to a request for everything from byte `start` on. Proxies of the environment are used."""
        self.check_address(address)
        request = urllib.request.Request(address, headers={"User-Agent": "tiny-transformer", "Accept-Encoding": "identity"})
        if start:
            request.add_header("Range", f"bytes={start}-")
        opener = urllib.request.build_opener(_CheckedRedirects(self))
        with _as_mirror_error():
            try:
                return opener.open(request, timeout=self.patience)
            except urllib.error.HTTPError as error:
                if error.code != RANGE_NOT_SATISFIABLE:
                    raise
                return error  # an answer like any other: it says something about the part


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    def __init__(self, client: Client) -> None:
        self.client = client

    def redirect_request(self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str) -> Any:
        self.client.check_address(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def transfer(remote: Remote, target: Path, *, progress: Progress | None = None, client: Client | None = None) -> None:
    """Fetch `remote` to `target`, continuing an earlier try. Calls progress(bytes here, bytes in all) now and then.

    Raises DownloadError with one line: what each mirror did wrong, or why the disk would not take the file.
    """
    faults: list[tuple[str, MirrorError]] = []
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone_in(target.parent):
            for mirror in remote.mirrors:
                if is_genuine(target, remote):  # another process may have been faster
                    return
                try:
                    _from_mirror(remote, mirror, target, progress or _silent, client or Client())
                    return
                except MirrorError as fault:
                    faults.append((mirror, fault))
    except OSError as error:
        raise DownloadError(f"cannot write {target} ({error.strerror or error}): it needs {remote.size:,} bytes. Make room") from error
    hosts: dict[str, list[str]] = {}
    for mirror, reason in faults:
        hosts.setdefault(str(reason), []).append(urlsplit(mirror).netloc)
    reasons = "; ".join(f"{', '.join(at)}: {words}" for words, at in hosts.items())
    raise DownloadError(reasons, offline=all(reason.offline for _, reason in faults))


def is_genuine(path: Path, remote: Remote) -> bool:
    """True when the file is there, with the right size and SHA-256."""
    return path.is_file() and path.stat().st_size == remote.size and sha256(path) == remote.sha256


def sha256(path: Path) -> str:
    """The file's SHA-256, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _from_mirror(remote: Remote, mirror: str, target: Path, progress: Progress, client: Client) -> None:
    """Fetch, verify, rename. An answer that breaks off is continued as long as each try brings enough."""
    part = target.with_name(target.name + ".part")
    all_its_own = False  # every byte of the part came from this mirror
    for _ in range(ATTEMPTS):
        before = _size(part)
        fault = None
        if before < remote.size:
            try:
                all_its_own |= _receive(remote, mirror, part, progress, client) == 0
            except _BrokenOffError as broken:
                all_its_own |= broken.start == 0
                fault = broken
            except _WrongRangeError:
                if before == 0:
                    raise
                part.unlink()  # it cannot continue ours: from the beginning, then
                continue
        if _size(part) == remote.size and is_genuine(part, remote):
            _commit(part, target)
            return
        if _size(part) >= remote.size:
            part.unlink()  # wrong bytes: of this mirror, or of whoever sent the beginning
            if all_its_own:
                raise MirrorError("sends other bytes (wrong SHA-256)")
        elif fault is not None and fault.gained < LEAST_BYTES:
            raise fault
    raise MirrorError(f"broke off {ATTEMPTS} times")


class _WrongRangeError(MirrorError):
    """The answer is not the rest that was asked for."""


class _BrokenOffError(MirrorError):
    """The answer ended or stalled before all of it was here."""

    def __init__(self, reason: str, start: int, gained: int) -> None:
        super().__init__(reason)
        self.start = start
        self.gained = gained


def _receive(remote: Remote, mirror: str, part: Path, progress: Progress, client: Client) -> int:
    """Ask for what is missing and write it to `part`; gives the byte that the answer began at."""
    start = _size(part)
    with client.open(mirror, start) as response:
        start = _first_byte(response, start, remote)
        done = start
        with part.open("r+b" if start else "wb") as file:
            file.seek(start)
            progress(done, remote.size)
            try:
                for chunk in _chunks(response, client.patience):
                    file.write(chunk)
                    done += len(chunk)
                    progress(min(done, remote.size), remote.size)
                    if done > remote.size:
                        break
            except MirrorError as fault:
                raise _BrokenOffError(f"{fault} after {done:,} of {remote.size:,} bytes", start, done - start) from fault
    if done < remote.size:
        raise _BrokenOffError(f"ended after {done:,} of {remote.size:,} bytes", start, done - start)
    return start


def _first_byte(response: Any, asked: int, remote: Remote) -> int:
    """Where in the file this answer begins: where it was asked to, or at 0 when the server ignores ranges.

    Raises MirrorError when it is neither, or when the length that is promised can't be right.
    """
    start = asked if response.status == 206 else 0
    range_sent = response.headers.get("Content-Range")
    if response.status == RANGE_NOT_SATISFIABLE or (
        response.status == 206 and range_sent != f"bytes {asked}-{remote.size - 1}/{remote.size}"
    ):
        raise _WrongRangeError(f"sends another range than asked for ({range_sent})")
    if response.status not in (200, 206):
        raise MirrorError(f"HTTP status {response.status}")
    if response.length is not None and start + response.length != remote.size:
        raise MirrorError(f"offers {start + response.length:,} bytes, they must be {remote.size:,}")
    return start


def _chunks(response: Any, patience: float) -> Iterator[bytes]:
    """The body as it arrives. Raises MirrorError when it breaks, or when too little comes for too long."""
    since, received = time.monotonic(), 0
    while True:
        with _as_mirror_error():
            chunk = response.read1(CHUNK)
        if not chunk:
            return
        yield chunk
        received += len(chunk)
        if time.monotonic() - since > patience:
            if received < LEAST_BYTES:
                raise MirrorError("stalled")
            since, received = time.monotonic(), 0


@contextmanager
def _as_mirror_error() -> Iterator[None]:
    """Everything that can go wrong on the network, as a MirrorError in plain words."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        raise MirrorError(f"HTTP status {error.code}") from error
    except urllib.error.URLError as error:
        reached = isinstance(error.reason, ssl.SSLError)
        raise MirrorError(getattr(error.reason, "strerror", None) or str(error.reason), offline=not reached) from error
    except TimeoutError as error:
        raise MirrorError("stalled") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise MirrorError(f"the connection broke ({error or type(error).__name__})") from error


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process transfers into this folder (where the system has such locks)."""
    if sys.platform == "win32":
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network folders have no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _commit(part: Path, target: Path) -> None:
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    rename_durably(part, target)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _silent(done: int, total: int) -> None:
    """Progress that nobody looks at."""


if __name__ == "__main__":
    nowhere = Remote(size=5, sha256="", mirrors=("http://example.org/five", "https://no-such-host.invalid/five"))
    try:
        transfer(nowhere, Path(tempfile.mkdtemp()) / "five")
    except DownloadError as caught:
        print("caught:", caught)
