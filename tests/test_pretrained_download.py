"""`tiny download` against a local server that cuts, lies and stalls; the transfer itself is tested in test_download.py."""

import hashlib
import json
import os
import re
import threading
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tiny_transformer.cli.main import main
from tiny_transformer.config import PRESETS, ConfigError
from tiny_transformer.corpora.transfer import Client, DownloadError, Remote
from tiny_transformer.pretrained import published
from tiny_transformer.pretrained.families import FAMILIES, family_of, read_config
from tiny_transformer.pretrained.family import to_model_config

CONTENT = {name: bytes((i * i + len(name)) % 251 for i in range(size)) for name, size in
           (("vocab.json", 5_000), ("merges.txt", 3_000), ("model.safetensors", 200_000))}  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    """The first part of a path is how to behave, the last which file; `server.log` holds (path, Range)."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        behaviour, name = self.path.strip("/").split("/")
        self.server.log.append((self.path, self.headers.get("Range")))
        data, asked = CONTENT[name], self.headers.get("Range")
        if behaviour == "lies":
            data = bytes(len(data))
        if behaviour == "missing":
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        first = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked else 0
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(data) - first))
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        rest = data[first:]
        with suppress(BrokenPipeError, ConnectionResetError):
            if behaviour == "cuts" and len(rest) > 60_000:
                self.wfile.write(rest[:60_000])
                self.close_connection = True
            elif behaviour == "stalls" and len(rest) > 20_000:
                self.wfile.write(rest[:20_000])
                self.wfile.flush()
                self.server.released.wait(20)
                self.close_connection = True
            else:
                self.wfile.write(rest)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TINY_CACHE", str(tmp_path / "cache"))
    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.daemon_threads = True
    running.log, running.released = [], threading.Event()
    threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
    yield running
    running.released.set()
    running.shutdown()
    running.server_close()


CLIENT = Client(patience=0.4, loopback_http=True)


def serve(server, monkeypatch, *behaviours):
    """GPT-2's entry, its files replaced by ours, with one mirror for each behaviour."""
    here = f"http://127.0.0.1:{server.server_port}"
    files = {
        name: Remote(len(data), hashlib.sha256(data).hexdigest(), tuple(f"{here}/{behaviour}/{name}" for behaviour in behaviours))
        for name, data in CONTENT.items()
    }
    monkeypatch.setitem(published.PUBLISHED, "gpt2", replace(published.PUBLISHED["gpt2"], files=files))


@pytest.mark.parametrize("behaviours", [("good",), ("cuts",), ("lies", "good"), ("stalls", "good"), ("missing", "lies", "cuts")])
def test_whatever_the_servers_do_the_files_are_right(server, monkeypatch, behaviours):
    serve(server, monkeypatch, *behaviours)
    told = []
    assert published.find("gpt2") is None
    folder = published.download("gpt2", client=CLIENT, progress=lambda done, total: told.append((done, total)))
    assert {name: (folder / name).read_bytes() for name in CONTENT} == CONTENT
    assert published.find("gpt2") == folder == published.home("gpt2")
    assert sorted(path.name for path in folder.iterdir()) == sorted([*CONTENT, "config.json"])
    total = sum(map(len, CONTENT.values()))
    assert told[-1] == (total, total) and {t for _, t in told} == {total} and max(done for done, _ in told) == total


def test_config_json_is_gpt2s(server, monkeypatch):
    serve(server, monkeypatch, "good")
    values = read_config(published.download("gpt2", client=CLIENT))
    config = to_model_config(family_of(values), values)
    assert replace(config, d_ff=None, n_kv_heads=None, d_head=None) == PRESETS["gpt2"]
    assert config.n_parameters == 124_439_808


def test_a_second_time_nothing_is_fetched(server, monkeypatch, tmp_path):
    serve(server, monkeypatch, "good")
    folder = published.download("gpt2", tmp_path / "mine", client=CLIENT)
    before = len(server.log)
    (folder / "merges.txt").unlink()
    told = []
    published.download("gpt2", folder, client=CLIENT, progress=lambda done, total: told.append(done))
    assert [path for path, _ in server.log[before:]] == ["/good/merges.txt"]
    assert told[0] == sum(map(len, CONTENT.values())) - len(CONTENT["merges.txt"])
    assert published.find("gpt2") is None, "what lies elsewhere is not in the cache"


def test_what_has_arrived_is_kept_and_continued(server, monkeypatch, tmp_path):
    serve(server, monkeypatch, "stalls")
    with pytest.raises(DownloadError, match=r"gpt2 cannot be had: model\.safetensors: .*broke off 5 times") as caught:
        published.download("gpt2", tmp_path / "mine", client=CLIENT)
    assert "\n" not in str(caught.value) and not caught.value.offline
    part = tmp_path / "mine" / "model.safetensors.part"
    arrived = part.stat().st_size
    assert arrived == 100_000 and CONTENT["model.safetensors"].startswith(part.read_bytes())
    assert not (tmp_path / "mine" / "model.safetensors").exists() and not (tmp_path / "mine" / "config.json").exists()
    serve(server, monkeypatch, "good")
    published.download("gpt2", tmp_path / "mine", client=CLIENT)
    assert server.log[-1] == ("/good/model.safetensors", f"bytes={arrived}-")


def test_lies_alone_are_refused(server, monkeypatch, tmp_path):
    serve(server, monkeypatch, "lies", "missing")
    with pytest.raises(DownloadError, match=r"vocab\.json: .*wrong SHA-256.*404"):
        published.download("gpt2", tmp_path / "mine", client=CLIENT)
    assert list((tmp_path / "mine").glob("*.json")) == []


@pytest.mark.parametrize("name", [*CONTENT, "config.json"])
def test_another_file_is_never_overwritten(server, monkeypatch, tmp_path, name):
    serve(server, monkeypatch, "good")
    (tmp_path / name).write_text('{"model_type": "bert"}')
    with pytest.raises(ConfigError, match=f"has another {name}"):
        published.download("gpt2", tmp_path, client=CLIENT)
    assert (tmp_path / name).read_text() == '{"model_type": "bert"}'
    assert server.log == []


def test_no_network_is_said_in_one_line(monkeypatch, tmp_path):
    files = {"vocab.json": Remote(5, "0" * 64, ("https://no-such-host.invalid/a",))}
    monkeypatch.setitem(published.PUBLISHED, "gpt2", replace(published.PUBLISHED["gpt2"], files=files))
    with pytest.raises(DownloadError, match="there is no network"):
        published.download("gpt2", tmp_path, client=CLIENT)
    with pytest.raises(ConfigError, match="model='gpt3'.*gpt2"):
        published.download("gpt3", tmp_path)


def test_the_pins_are_whole():
    """https, several mirrors, SHA-256s, and a directory that our loader knows."""
    for name, model in published.PUBLISHED.items():
        assert model.family in FAMILIES and model.preset in PRESETS and name
        assert "model.safetensors" in model.files
        for remote in model.files.values():
            assert re.fullmatch("[0-9a-f]{64}", remote.sha256) and len(set(remote.mirrors)) >= 2
            assert all(mirror.startswith("https://") for mirror in remote.mirrors)
    # four bytes for each parameter, and a header
    pinned = published.PUBLISHED["gpt2"].files["model.safetensors"].size
    buffers = 12 * 1024 * 1024 * 4  # the masks that GPT-2's file holds beside its weights
    assert pinned > 4 * 124_439_808 and pinned - 4 * 124_439_808 - buffers < 20_000


def test_the_pins_of_the_tokenizer_are_those_of_the_real_files(tmp_path):
    folder = os.environ.get("TINY_GPT2")
    if not folder:
        pytest.skip("TINY_GPT2 is not set: it must name a folder with GPT-2's vocab.json and merges.txt")
    files = published.PUBLISHED["gpt2"].files
    vocab, merges = (Path(folder) / name for name in ("vocab.json", "merges.txt"))
    assert hashlib.sha256(vocab.read_bytes()).hexdigest() == files["vocab.json"].sha256
    text = merges.read_bytes()
    first = b"" if text.startswith(b"#version") else b"#version: 0.2\n"  # some copies lack their first line
    assert len(first + text) == files["merges.txt"].size
    assert hashlib.sha256(first + text).hexdigest() == files["merges.txt"].sha256


def test_the_command(server, monkeypatch, tmp_path, capsys):
    serve(server, monkeypatch, "cuts")
    real = published.transfer
    monkeypatch.setattr(published, "transfer", lambda *a, **k: real(*a, **{**k, "client": CLIENT}))
    assert main(["download"]) == 0
    assert "gpt2" in capsys.readouterr().out
    assert main(["download", "gpt2", "--out", str(tmp_path / "mine")]) == 0
    out = capsys.readouterr().out
    assert f"tiny import {tmp_path / 'mine'}" in " ".join(out.split()) and "SHA-256" in out
    assert json.loads((tmp_path / "mine" / "config.json").read_text())["model_type"] == "gpt2"
    assert main(["download", "gpt5"]) == 2
    assert "gpt2" in capsys.readouterr().err
    assert main(["import", "gpt2", str(tmp_path / "run")]) == 2
    assert "tiny download gpt2" in capsys.readouterr().err
