"""Downloads against a local server that cuts, lies, stalls and redirects; safe unpacking; atomic files; the shell script."""

import contextlib
import hashlib
import io
import os
import re
import shutil
import ssl
import stat
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tiny_transformer.config import ConfigError
from tiny_transformer.corpora import download, transfer
from tiny_transformer.corpora.archive import extract_member
from tiny_transformer.corpora.download import PUBLISHED, cache_dir, fetch, find, main, put
from tiny_transformer.corpora.transfer import Client, DownloadError, Remote
from tiny_transformer.utils.atomic import atomic_save

ROOT = Path(__file__).resolve().parent.parent
DATA = bytes(i * i % 251 for i in range(200_000))
PATIENCE = 0.4


class Handler(BaseHTTPRequestHandler):
    """Each path is one way to behave; `server.log` holds (path, Range, bytes of body sent)."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.sent = 0
        self.asked = self.headers.get("Range")
        number = sum(path == self.path for path, *_ in self.server.log)
        entry = [self.path, self.asked, None]
        self.server.log.append(entry)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            getattr(self, self.path.strip("/").replace("-", "_"))(number)
        entry[2] = self.sent

    def log_message(self, *args):
        pass

    def start(self, status, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def body(self, data):
        self.wfile.write(data)
        self.wfile.flush()
        self.sent += len(data)

    def hang_up(self):
        self.close_connection = True

    def answer(self, data=DATA):
        """As a server should: the rest from `Range`, or everything. Gives what is to be sent."""
        if self.asked:
            first = int(re.fullmatch(r"bytes=(\d+)-", self.asked)[1])
            self.start(206, Content_Length=len(data) - first, Content_Range=f"bytes {first}-{len(data) - 1}/{len(data)}")
            return data[first:]
        self.start(200, Content_Length=len(data))
        return data

    def good(self, number):
        self.body(self.answer())

    def cut(self, number):
        rest = self.answer()
        self.body(rest if number >= 2 else rest[:70_000])
        self.hang_up()

    def always_cut(self, number):
        self.body(self.answer()[:10])
        self.hang_up()

    def often_cut(self, number):
        self.body(self.answer()[:2000])
        self.hang_up()

    def dead(self, number):
        self.hang_up()

    def no_range(self, number):
        self.start(200, Content_Length=len(DATA))
        self.body(DATA[:90_000] if number == 0 else DATA)
        self.hang_up()

    def other_range(self, number):
        if self.asked:
            self.start(206, Content_Length=len(DATA) - 5, Content_Range=f"bytes 5-{len(DATA) - 1}/{len(DATA)}")
            self.body(DATA[5:])
        else:
            self.body(self.answer())

    def status_416(self, number):
        if self.asked:
            self.start(416, Content_Length=0, Content_Range=f"bytes */{len(DATA)}")
        else:
            self.body(self.answer())

    def lies(self, number):
        self.body(self.answer(bytes(len(DATA))))

    def short(self, number):
        self.body(self.answer(DATA[:-1]))

    def longer(self, number):
        self.body(self.answer(DATA + b"more"))

    def endless(self, number):
        self.start(200, Connection="close")  # no length
        self.hang_up()
        for _ in range(1000):
            self.body(DATA)

    def no_length(self, number):
        self.start(200, Connection="close")
        self.hang_up()
        self.body(DATA)

    def stall(self, number):
        self.body(self.answer()[: 0 if self.asked else 50_000])
        self.server.released.wait(20)
        self.hang_up()

    def silent(self, number):
        self.server.released.wait(20)
        self.hang_up()

    def trickle(self, number):
        rest = self.answer()
        while not self.server.released.wait(0.05):
            self.body(rest[:1])
            rest = rest[1:]
        self.hang_up()

    def missing(self, number):
        self.start(404, Content_Length=0)

    def broken(self, number):
        self.start(500, Content_Length=0)

    def moved(self, number):
        self.start(302, Content_Length=0, Location=f"http://127.0.0.1:{self.server.server_port}/good")

    def moved_to_http(self, number):
        self.start(301, Content_Length=0, Location="http://example.org/good")

    def moved_to_file(self, number):
        self.start(301, Content_Length=0, Location="file:///etc/passwd")

    def in_circles(self, number):
        self.start(302, Content_Length=0, Location=f"http://127.0.0.1:{self.server.server_port}/in-circles")


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.daemon_threads = True
    running.log = []
    running.released = threading.Event()
    thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield running
    running.released.set()
    running.shutdown()
    running.server_close()


def remote(server, *paths, data=DATA):
    mirrors = tuple(f"http://127.0.0.1:{server.server_port}/{path}" for path in paths)
    return Remote(size=len(data), sha256=hashlib.sha256(data).hexdigest(), mirrors=mirrors)


def get(server, target, *paths, **options):
    transfer.transfer(remote(server, *paths), target, client=Client(patience=PATIENCE, loopback_http=True), **options)


def requests(server):
    """What was asked for, once every answer has ended."""
    server.released.set()
    deadline = time.monotonic() + 5
    while any(sent is None for *_, sent in server.log) and time.monotonic() < deadline:  # a handler may still be writing its line
        time.sleep(0.01)
    return [tuple(entry) for entry in server.log]


@pytest.fixture
def target(tmp_path):
    return tmp_path / "deep" / "text.txt"


def files(target):
    return sorted(path.name for path in target.parent.iterdir())


def test_a_good_server(server, target):
    seen = []
    get(server, target, "good", progress=lambda done, total: seen.append((done, total)))
    assert target.read_bytes() == DATA
    assert files(target) == ["text.txt"]
    assert requests(server) == [("/good", None, len(DATA))]
    assert seen[0] == (0, len(DATA)) and seen[-1] == (len(DATA), len(DATA))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_nothing_is_asked_for_twice(server, target):
    get(server, target, "good")
    get(server, target, "good")
    assert len(requests(server)) == 1


def test_an_answer_that_is_cut_is_continued_not_repeated(server, target):
    get(server, target, "cut")
    assert target.read_bytes() == DATA
    assert requests(server) == [("/cut", None, 70_000), ("/cut", "bytes=70000-", 70_000), ("/cut", "bytes=140000-", 60_000)]


def test_a_later_run_continues_an_earlier_one(server, target):
    with pytest.raises(DownloadError, match=r"127.0.0.1:\d+: stalled after 50,000 of 200,000 bytes"):
        get(server, target, "stall")
    assert files(target) == ["text.txt.part"]
    get(server, target, "good")
    assert target.read_bytes() == DATA
    assert files(target) == ["text.txt"]
    assert requests(server)[-1] == ("/good", "bytes=50000-", 150_000)


def test_the_next_mirror_continues_what_the_first_began(server, target):
    get(server, target, "stall", "good")
    assert target.read_bytes() == DATA
    assert sum(sent for path, _, sent in requests(server) if path == "/good") == 150_000


def test_a_server_that_ignores_ranges_starts_over(server, target):
    get(server, target, "no-range")
    assert target.read_bytes() == DATA
    assert [(asked, sent) for _, asked, sent in requests(server)] == [(None, 90_000), ("bytes=90000-", 200_000)]


@pytest.mark.parametrize("path", ["other-range", "status-416"])
def test_a_part_that_cannot_be_continued_is_dropped(server, target, path):
    target.parent.mkdir()
    target.with_name("text.txt.part").write_bytes(DATA[:1000])
    get(server, target, path)
    assert target.read_bytes() == DATA
    assert [asked for _, asked, _ in requests(server)] == ["bytes=1000-", None]


@pytest.mark.parametrize("stale", [b"wrong" * 100, bytes(len(DATA)), bytes(len(DATA) + 5)])
def test_a_wrong_part_is_found_out_and_fetched_again(server, target, stale):
    target.parent.mkdir()
    target.with_name("text.txt.part").write_bytes(stale)
    get(server, target, "good")
    assert target.read_bytes() == DATA
    assert files(target) == ["text.txt"]


def test_a_whole_part_needs_no_server(server, target):
    target.parent.mkdir()
    target.with_name("text.txt.part").write_bytes(DATA)
    get(server, target, "good")
    assert target.read_bytes() == DATA
    assert requests(server) == []


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("lies", r"sends other bytes \(wrong SHA-256\)"),
        ("short", "offers 199,999 bytes, they must be 200,000"),
        ("longer", "offers 200,004 bytes, they must be 200,000"),
        ("endless", r"sends other bytes \(wrong SHA-256\)"),
        ("missing", "HTTP status 404"),
        ("broken", "HTTP status 500"),
        ("silent", "stalled"),
        ("dead", "the connection broke"),
        ("moved-to-http", "http address refused, only https is accepted"),
        ("moved-to-file", "HTTP status 301"),
        ("in-circles", "HTTP status 302"),
        ("always-cut", "ended after 10 of 200,000 bytes"),
        ("often-cut", "broke off 5 times"),
        ("trickle", "stalled after"),
    ],
)
def test_a_bad_mirror_is_named_and_the_next_one_is_asked(server, target, path, reason):
    with pytest.raises(DownloadError, match=rf"^127.0.0.1:\d+: {reason}") as caught:
        get(server, target, path)
    assert "\n" not in str(caught.value)
    assert not caught.value.offline
    assert not target.exists()
    get(server, target, path, "good")
    assert target.read_bytes() == DATA
    assert files(target) == ["text.txt"]


def test_no_length_is_no_problem(server, target):
    get(server, target, "no-length")
    assert target.read_bytes() == DATA


def test_an_endless_answer_is_not_read_to_its_end(server, target):
    with pytest.raises(DownloadError):
        get(server, target, "endless")
    assert sum(sent for _, _, sent in requests(server)) < 100 * len(DATA)  # of 1,000; the rest sits in buffers


def test_redirections_are_followed(server, target):
    get(server, target, "moved")
    assert target.read_bytes() == DATA


def test_all_faults_are_told_in_one_line(server, target):
    with pytest.raises(DownloadError) as caught:
        get(server, target, "missing", "lies", "missing")
    host = f"127.0.0.1:{server.server_port}"
    assert str(caught.value) == f"{host}, {host}: HTTP status 404; {host}: sends other bytes (wrong SHA-256)"


def test_plain_http_is_refused_by_default(server, target):
    with pytest.raises(DownloadError, match="http address refused, only https is accepted"):
        transfer.transfer(remote(server, "good"), target)
    assert requests(server) == []
    for address in ("http://example.org/x", "ftp://127.0.0.1/x", "http://127.0.0.1.example.org/x", "x"):
        with pytest.raises(transfer.MirrorError):
            Client(loopback_http=True).check_address(address)


def test_https_and_its_certificate(server, target, tmp_path, monkeypatch):
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command to make a certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*make.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    secure = Remote(len(DATA), hashlib.sha256(DATA).hexdigest(), (f"https://127.0.0.1:{server.server_port}/good",))
    with pytest.raises(DownloadError, match=r"127.0.0.1:\d+: .*certificate verify failed") as caught:
        transfer.transfer(secure, target, client=Client(patience=5))
    assert not caught.value.offline
    assert not target.exists()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))  # trusted from here on
    transfer.transfer(secure, target, client=Client(patience=5))
    assert target.read_bytes() == DATA


def test_no_server_at_all_is_offline(server, target):
    closed = Remote(size=1, sha256="", mirrors=("http://127.0.0.1:1/x",))
    with pytest.raises(DownloadError) as caught:
        transfer.transfer(closed, target, client=Client(loopback_http=True))
    assert caught.value.offline
    with pytest.raises(DownloadError) as caught:
        both = replace(remote(server, "missing"), mirrors=(*closed.mirrors, *remote(server, "missing").mirrors))
        transfer.transfer(both, target, client=Client(loopback_http=True))
    assert not caught.value.offline


def test_the_target_never_exists_half_written(server, target):
    """Whenever anyone looks, the target is absent or whole; an older wrong file is replaced only by the right one."""
    looks = []

    def look(done, total):
        looks.append(target.read_bytes() if target.exists() else None)

    get(server, target, "cut", progress=look)
    assert len(looks) > 4 and set(looks) == {None}
    target.write_bytes(b"older")
    looks.clear()
    get(server, target, "good", progress=look)
    assert len(looks) > 4 and set(looks) == {b"older"}
    assert target.read_bytes() == DATA


def test_interrupted_by_the_keyboard(server, target):
    def interrupt(done, total):
        if done > 100_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(server, target, "good", progress=interrupt)
    assert files(target) == ["text.txt.part"]
    get(server, target, "good")
    assert target.read_bytes() == DATA
    _, asked, sent = requests(server)[-1]
    assert asked is not None and sent < 100_000


def test_two_at_once_fetch_once(server, target):
    threads = [threading.Thread(target=get, args=(server, target, "good")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert target.read_bytes() == DATA
    assert len(requests(server)) == 1


def test_a_full_disk_is_one_line(server, target, monkeypatch):
    def full(part, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(transfer, "_commit", full)
    with pytest.raises(DownloadError, match=r"cannot write .*text.txt \(No space left on device\): it needs 200,000 bytes. Make room"):
        get(server, target, "good")
    assert not target.exists()


# -- archives --------------------------------------------------------------------------------------------------------


def zip_file(path, members, *, mode=None, flags=0):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            if mode is not None:
                info.external_attr = mode << 16
            archive.writestr(info, data)
    return path


def test_one_member_is_unpacked(tmp_path):
    made = zip_file(tmp_path / "a.zip", [("in/x.txt", b"words " * 50), ("../../evil.txt", b"evil")])
    extract_member(made, "in/x.txt", tmp_path / "x.txt", max_bytes=300)
    assert (tmp_path / "x.txt").read_bytes() == b"words " * 50
    extract_member(made, "../../evil.txt", tmp_path / "tame.txt", max_bytes=300)  # its name decides nothing
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "tame.txt", "x.txt"]
    assert not (tmp_path / "../../evil.txt").resolve().exists()


def test_unpacking_has_limits(tmp_path):
    bomb = zip_file(tmp_path / "bomb.zip", [("x", bytes(10_000_000))])
    with pytest.raises(ConfigError, match="x has 10,000,000 bytes: at most 1,000 are expected"):
        extract_member(bomb, "x", tmp_path / "x", max_bytes=1000)
    data = bytearray(bomb.read_bytes())  # the same, and it says that it is small
    small = (500).to_bytes(4, "little")
    real = (10_000_000).to_bytes(4, "little")
    assert data.count(real) == 2
    (tmp_path / "lying.zip").write_bytes(bytes(data).replace(real, small))
    with pytest.raises(ConfigError):
        extract_member(tmp_path / "lying.zip", "x", tmp_path / "x", max_bytes=1000)
    assert not (tmp_path / "x").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bomb.zip", "lying.zip"]


@pytest.mark.parametrize(("members", "mode"), [([("y", b"")], None), ([("x/", b"")], None), ([("x", b"/etc/passwd")], 0o120777)])
def test_links_folders_and_missing_members_are_refused(tmp_path, members, mode):
    made = zip_file(tmp_path / "a.zip", members, mode=mode)
    with pytest.raises(ConfigError, match=r"has 0 files called x|a folder, a link or encrypted"):
        extract_member(made, members[0][0] if mode or members[0][0] == "x/" else "x", tmp_path / "x", max_bytes=100)
    assert not (tmp_path / "x").exists()


def test_encrypted_members_are_refused(tmp_path):
    made = zip_file(tmp_path / "a.zip", [("x", b"words")])
    data = bytearray(made.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + flags] |= 1
    made.write_bytes(data)
    with pytest.raises(ConfigError, match="a folder, a link or encrypted"):
        extract_member(made, "x", tmp_path / "x", max_bytes=100)


def test_two_members_of_one_name_are_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        made = zip_file(tmp_path / "a.zip", [("x", b"one"), ("x", b"two")])
    with pytest.raises(ConfigError, match="has 2 files called x"):
        extract_member(made, "x", tmp_path / "x", max_bytes=100)


def test_damaged_archives_are_one_line(tmp_path):
    made = zip_file(tmp_path / "a.zip", [("x", os.urandom(5000))])
    whole = made.read_bytes()
    for wrong in (b"", b"no zip at all", whole[:-30], whole[:2000] + bytes([whole[2000] ^ 1]) + whole[2001:]):
        made.write_bytes(wrong)
        with pytest.raises(ConfigError, match=r"a.zip is damaged \(.*\): it must be a zip file. Delete it and download it again"):
            extract_member(made, "x", tmp_path / "x", max_bytes=10_000)
        assert not (tmp_path / "x").exists()


# -- the published texts ---------------------------------------------------------------------------------------------


@pytest.fixture
def places(tmp_path, monkeypatch):
    """An empty cache and no TINY_CORPORA."""
    monkeypatch.setenv("TINY_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TINY_CORPORA", raising=False)
    return tmp_path


TEXT = b"To be, or not to be.\n" * 300


@pytest.fixture
def stand_ins(server, places, monkeypatch):
    """The published texts, replaced by small ones on the local server."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for part in ("train", "valid", "test"):
            archive.writestr(f"wikitext-2/wiki.{part}.tokens", f" = {part} = \n" * 40)
    served = {"text": TEXT, "archive.zip": packed.getvalue()}
    monkeypatch.setattr(Handler, "text", lambda self, number: self.body(self.answer(TEXT)), raising=False)
    monkeypatch.setattr(Handler, "archive.zip", lambda self, number: self.body(self.answer(packed.getvalue())), raising=False)
    for name, published in PUBLISHED.items():
        path = "text" if published.member is None else "archive.zip"
        content = TEXT if published.member is None else (" = " + published.member.split(".")[1] + " = \n").encode() * 40
        known = hashlib.sha256(content).hexdigest() if published.sha256 else None
        monkeypatch.setitem(PUBLISHED, name, replace(published, remote=remote(server, path, data=served[path]), sha256=known))
    return Client(patience=PATIENCE, loopback_http=True)


def test_the_pins():
    for published in PUBLISHED.values():
        assert len(published.remote.mirrors) >= 2
        assert len({mirror.split("/")[2] for mirror in published.remote.mirrors}) >= 2  # different hosts
        assert all(mirror.startswith("https://") for mirror in published.remote.mirrors)
        assert re.fullmatch("[0-9a-f]{64}", published.remote.sha256)
    assert PUBLISHED["shakespeare"].remote.size == 1_115_394
    assert PUBLISHED["shakespeare"].sha256 == "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
    assert PUBLISHED["wikitext2-train"].remote.size == 4_475_746


@pytest.mark.parametrize("name", [name for name, published in PUBLISHED.items() if published.sha256])
def test_the_pins_fit_the_real_texts(name):
    path = Path(os.environ.get("TINY_CORPORA", "nowhere")) / f"{name}.txt"
    if not path.is_file():
        pytest.skip(f"TINY_CORPORA names no folder with {name}.txt")
    assert transfer.sha256(path) == PUBLISHED[name].sha256


def test_cache_dir(monkeypatch):
    monkeypatch.setenv("TINY_CACHE", "/x/own")
    assert cache_dir() == Path("/x/own")
    monkeypatch.delenv("TINY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x/shared")
    assert cache_dir() == Path("/x/shared/tiny-transformer")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path.home() / ".cache" / "tiny-transformer"


def test_search_order(server, stand_ins, places, monkeypatch):
    first = fetch("shakespeare", client=stand_ins)
    assert (first.path.read_bytes(), first.place, first.genuine) == (TEXT, "downloaded into the cache", True)
    assert fetch("shakespeare", client=stand_ins).place == "the cache"
    (places / "mine").mkdir()
    monkeypatch.setenv("TINY_CORPORA", str(places / "mine"))
    assert fetch("shakespeare").place == "the cache"  # nothing in the folder
    (places / "mine" / "shakespeare.txt").write_text("Another text.")
    found = fetch("shakespeare")
    assert (found.path, found.place, found.genuine) == (places / "mine" / "shakespeare.txt", "TINY_CORPORA", False)
    assert len(requests(server)) == 1


def test_a_damaged_cache_is_fetched_again(server, stand_ins):
    path = fetch("shakespeare", client=stand_ins).path
    path.write_bytes(TEXT[:-1] + b"?")
    assert find("shakespeare") is None
    assert fetch("shakespeare", client=stand_ins).path.read_bytes() == TEXT
    assert len(requests(server)) == 2


def test_parts_of_an_archive(server, stand_ins, places):
    train = fetch("wikitext2", client=stand_ins)
    assert train.path.read_text().startswith(" = train = \n")
    assert train.genuine is None
    assert fetch("wikitext2-train", client=stand_ins).path == train.path
    assert fetch("wikitext2-test", client=stand_ins).path.read_text().startswith(" = test = \n")
    assert len(requests(server)) == 1  # the archive is kept


def test_offline_names_what_can_be_used(places, monkeypatch):
    def nothing_answers(self, address, start):
        raise transfer.MirrorError("Name or service not known", offline=True)

    monkeypatch.setattr(Client, "open", nothing_answers)
    with pytest.raises(DownloadError) as caught:
        fetch("shakespeare")
    line = str(caught.value)
    assert "\n" not in line and "there is no network" in line
    assert all(word in line for word in ("pitches", "python", "pydoc", "file of your own", "TINY_CORPORA"))
    (places / "mine").mkdir()
    monkeypatch.setenv("TINY_CORPORA", str(places / "mine"))
    (places / "mine" / "wikitext2-valid.txt").write_text("x")
    with pytest.raises(DownloadError, match=r"has no wikitext2.txt.*wikitext2-valid is here: name it instead"):
        fetch("wikitext2")
    (places / "mine" / "wikitext2-test.txt").write_text("x")
    with pytest.raises(DownloadError, match="wikitext2-valid and wikitext2-test are here: name one instead"):
        fetch("wikitext2")
    (places / "mine" / "wikitext2-train.txt").write_text("the training part")
    assert fetch("wikitext2").path == fetch("wikitext2-train").path == places / "mine" / "wikitext2-train.txt"
    (places / "mine" / "wikitext2-train.txt").unlink()
    (places / "mine" / "wikitext2.txt").write_text("the training part")
    assert fetch("wikitext2").path == fetch("wikitext2-train").path == places / "mine" / "wikitext2.txt"


def test_an_unwritable_cache_is_one_line(server, stand_ins, places, monkeypatch):
    (places / "file").write_text("")
    monkeypatch.setenv("TINY_CACHE", str(places / "file" / "cache"))
    for name in ("shakespeare", "wikitext2"):
        with pytest.raises(ConfigError, match="cannot write .*Not a directory"):
            fetch(name, client=stand_ins)


def test_put(server, stand_ins, places):
    target = places / "data" / "shakespeare.txt"
    assert "SHA-256 verified" in put("shakespeare", target, client=stand_ins)
    assert target.read_bytes() == TEXT
    assert put("shakespeare", target, client=stand_ins) == f"{target} is there already: Tiny Shakespeare, SHA-256 verified"
    target.write_bytes(TEXT[:100])
    with pytest.raises(ConfigError, match="is there but is not Tiny Shakespeare: .*Move it away"):
        put("shakespeare", target, client=stand_ins)
    assert target.read_bytes() == TEXT[:100]


def test_put_takes_no_other_text(stand_ins, places, monkeypatch):
    (places / "shakespeare.txt").write_text("Another text.")
    monkeypatch.setenv("TINY_CORPORA", str(places))
    with pytest.raises(ConfigError, match="is not Tiny Shakespeare: its SHA-256 differs"):
        put("shakespeare", places / "target.txt", client=stand_ins)
    assert not (places / "target.txt").exists()


def test_main(places, monkeypatch, capsys):
    monkeypatch.setitem(PUBLISHED, "shakespeare", replace(PUBLISHED["shakespeare"], sha256=hashlib.sha256(TEXT).hexdigest()))
    (places / "mine").mkdir()
    (places / "mine" / "shakespeare.txt").write_bytes(TEXT)
    monkeypatch.setenv("TINY_CORPORA", str(places / "mine"))
    target = places / "out" / "text.txt"
    assert main(["shakespeare", str(target)]) == 0
    assert str(target) in capsys.readouterr().out
    assert main(["shakespeare", str(target / "below")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    monkeypatch.chdir(places)
    assert main(["shakespeare"]) == 0
    assert (places / "data" / "shakespeare.txt").read_bytes() == TEXT


def script(tmp_path, **environment):
    """Run the script from a copy of the tree, so that it writes there."""
    copy = tmp_path / "tree"
    if not copy.exists():
        (copy / "data").mkdir(parents=True)
        (copy / "data" / "download_shakespeare.sh").write_bytes((ROOT / "data" / "download_shakespeare.sh").read_bytes())
        (copy / "tiny_transformer").symlink_to(ROOT / "tiny_transformer")
        (copy / ".venv" / "bin").mkdir(parents=True)
        (copy / ".venv" / "bin" / "python").symlink_to(sys.executable)
    base = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TINY_CACHE": str(tmp_path / "cache"), "https_proxy": "http://127.0.0.1:1"}
    command = ["bash", str(copy / "data" / "download_shakespeare.sh")]
    run = subprocess.run(command, cwd="/", env={**base, **environment}, capture_output=True, text=True, check=False)
    return run, copy / "data" / "shakespeare.txt"


def test_script_without_any_network(tmp_path):
    run, target = script(tmp_path)
    assert run.returncode == 1
    assert run.stdout == ""
    assert run.stderr.count("\n") == 1
    assert "pitches, python, pydoc" in run.stderr
    assert not target.exists()


def test_script_with_the_text(tmp_path):
    folder = os.environ.get("TINY_CORPORA")
    if not folder or not (Path(folder) / "shakespeare.txt").is_file():
        pytest.skip("TINY_CORPORA names no folder with shakespeare.txt")
    run, target = script(tmp_path, TINY_CORPORA=folder)
    assert (run.returncode, run.stderr) == (0, "")
    assert str(target) in run.stdout and "verified" in run.stdout
    assert transfer.sha256(target) == PUBLISHED["shakespeare"].sha256
    run, _ = script(tmp_path)
    assert run.returncode == 0 and "is there already" in run.stdout


# -- atomic files ----------------------------------------------------------------------------------------------------


def test_atomic_save_writes_and_replaces(tmp_path):
    path = tmp_path / "x.bin"
    for content in (b"first", b"second"):
        atomic_save(path, lambda file, content=content: file.write(content))
        assert path.read_bytes() == content
        assert list(tmp_path.iterdir()) == [path]
    usual = tmp_path / "usual"
    usual.write_bytes(b"")
    assert path.stat().st_mode == usual.stat().st_mode


@pytest.mark.parametrize("failure", [OSError(28, "No space left"), KeyboardInterrupt(), ValueError("no")])
def test_atomic_save_leaves_the_old_file_when_it_fails(tmp_path, failure):
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")

    def fail(file):
        file.write(b"new, half")
        assert path.read_bytes() == b"old"
        raise failure

    with pytest.raises(type(failure)):
        atomic_save(path, fail)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_save_syncs_in_the_right_order(tmp_path, monkeypatch):
    steps = []
    sync, rename = os.fsync, Path.replace
    monkeypatch.setattr(
        os, "fsync", lambda handle: (steps.append("sync folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "sync file"), sync(handle))
    )
    monkeypatch.setattr(Path, "replace", lambda self, target: (steps.append("rename"), rename(self, target))[1])
    atomic_save(tmp_path / "x", lambda file: file.write(b"x"))
    expected = ["sync file", "rename", "sync folder"]
    assert steps == expected
    steps.clear()
    part = tmp_path / "y.part"
    part.write_bytes(b"y")
    transfer._commit(part, tmp_path / "y")
    assert steps == expected


def test_atomic_save_into_no_folder(tmp_path):
    with pytest.raises(OSError):
        atomic_save(tmp_path / "none" / "x", lambda file: file.write(b"x"))


@pytest.mark.parametrize(
    "file", ["utils/atomic.py", "corpora/archive.py", "corpora/transfer.py", "corpora/grammar.py", "corpora/corpus.py"]
)
def test_demos(file):
    run = subprocess.run([sys.executable, f"tiny_transformer/{file}"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout


def test_nothing_needs_more_than_python():
    code = "import sys; from tiny_transformer.corpora import download; sys.exit(sorted({'torch', 'numpy', 'rich'} & set(sys.modules)) or 0)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    assert download.main is main
