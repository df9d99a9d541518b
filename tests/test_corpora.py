"""Texts by name, by path and from standard input; what is passed over in the standard library; counts against brute force."""

import ast
import codecs
import hashlib
import io
import itertools
import math
import os
import subprocess
import sys
import sysconfig
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny_transformer import corpora
from tiny_transformer.config import ConfigError
from tiny_transformer.corpora import library, standard_library, transfer
from tiny_transformer.corpora.text_statistics import conditional_entropy, overlap, symbol_entropy
from tiny_transformer.corpora.textfile import read_text

ROOT = Path(__file__).resolve().parent.parent
REAL = Path(os.environ.get("TINY_CORPORA", "nowhere")) / "shakespeare.txt"


@pytest.fixture(autouse=True)
def nothing_outside(tmp_path, monkeypatch):
    """No network, an empty cache, no TINY_CORPORA; the work is done in an empty folder."""

    def unreachable(self, address, start):
        raise transfer.MirrorError("Name or service not known", offline=True)

    monkeypatch.setattr(transfer.Client, "open", unreachable)
    monkeypatch.setenv("TINY_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TINY_CORPORA", raising=False)
    monkeypatch.chdir(tmp_path)


def one_line(error):
    assert "\n" not in str(error.value)
    assert isinstance(error.value, ConfigError) and isinstance(error.value, ValueError)
    return str(error.value)


# -- the library -----------------------------------------------------------------------------------------------------


def test_names_and_descriptions():
    assert corpora.names() == (
        "pitches",
        "python",
        "pydoc",
        "shakespeare",
        "wikitext2",
        "wikitext2-test",
        "wikitext2-train",
        "wikitext2-valid",
    )
    infos = corpora.describe()
    assert sorted(info.name for info in infos) == sorted(corpora.names())
    assert [info.name for info in infos if info.offline] == ["pitches", "python", "pydoc"]
    assert "1.1 MB" in next(info.how for info in infos if info.name == "shakespeare")


def test_description_says_where_a_text_lies(tmp_path, monkeypatch):
    (tmp_path / "shakespeare.txt").write_text("To be.")
    monkeypatch.setenv("TINY_CORPORA", str(tmp_path))
    info = next(info for info in corpora.describe() if info.name == "shakespeare")
    assert info.offline and str(tmp_path / "shakespeare.txt") in info.how


@pytest.mark.parametrize("name", ["pitches", "python", "pydoc"])
def test_the_made_texts(name):
    small, large = corpora.load(name, size=30_000), corpora.load(name, size=60_000)
    assert len(small.text) == 30_000 and len(large.text) == 60_000
    assert large.text.startswith(small.text)
    assert small.name == name
    assert "30,000 characters" in small.source and "\n" not in small.source
    assert small.text.isascii() and len(set(large.text)) < 100
    assert (small.entropy is not None) == (name == "pitches")


@pytest.mark.parametrize("name", ["pitches", "python"])
def test_the_lab_sizes(name):
    assert len(corpora.load(name, size=400_000).text) == 400_000
    usual = corpora.load(name).text
    assert 1_000_000 <= len(usual) <= 1_000_000 + standard_library.LONGEST_FILE
    assert usual.endswith("\n\n")  # whole scenes, whole files


def test_a_published_text(tmp_path, monkeypatch):
    (tmp_path / "shakespeare.txt").write_bytes(b"To be,\r\nor not.\r\n")
    monkeypatch.setenv("TINY_CORPORA", str(tmp_path))
    corpus = corpora.load("shakespeare")
    assert corpus.text == "To be,\r\nor not.\r\n"
    assert "TINY_CORPORA, another text than the published one" in corpus.source
    assert corpora.load("shakespeare", size=5).text == "To be"


def test_the_real_tiny_shakespeare(monkeypatch):
    if not REAL.is_file():
        pytest.skip("TINY_CORPORA names no folder with shakespeare.txt")
    monkeypatch.setenv("TINY_CORPORA", str(REAL.parent))
    corpus = corpora.load("shakespeare")
    assert (len(corpus.text), len(set(corpus.text))) == (1_115_394, 65)
    assert "SHA-256 verified" in corpus.source
    codes = np.frombuffer(corpus.text.encode("utf-32-le"), dtype="<u4")
    assert abs(symbol_entropy(codes) - 3.31) < 0.005
    assert abs(conditional_entropy(codes) - 2.45) < 0.005
    assert overlap(corpus.text[:1_003_854], corpus.text[1_003_854:]).share == 0


def test_a_made_stand_in_behaves_like_it():
    """The landmarks come down in their order on any text that has structure."""
    text = corpora.load("pitches", size=100_000).text
    codes = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    assert math.log(len(set(text))) > symbol_entropy(codes) > conditional_entropy(codes) > corpora.load("pitches", size=1).entropy
    assert overlap(text[:90_000], text[90_000:]).share < 0.02


def test_only_other_parts_are_here(tmp_path, monkeypatch):
    for part in ("valid", "test"):
        (tmp_path / f"wikitext2-{part}.txt").write_text(f" = {part} = \n")
    monkeypatch.setenv("TINY_CORPORA", str(tmp_path))
    assert corpora.load("wikitext2-valid").text == " = valid = \n"
    with pytest.raises(ConfigError) as error:
        corpora.load("wikitext2")
    assert "wikitext2-valid and wikitext2-test are here: name one instead" in one_line(error)


def test_offline_is_one_line():
    with pytest.raises(ConfigError) as error:
        corpora.load("shakespeare")
    line = one_line(error)
    assert line.startswith("shakespeare cannot be had: there is no network")
    assert all(word in line for word in ("pitches", "python", "pydoc", "file of your own", "TINY_CORPORA"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("shakespear", "Did you mean shakespeare?"),
        ("PyDoc", "Did you mean pydoc?"),
        ("wikitext", "Did you mean wikitext2?"),
        ("qqq", "Or name a UTF-8 file"),
        ("", "Or name a UTF-8 file"),
    ],
)
def test_unknown_names_list_the_known_ones(name, words):
    with pytest.raises(ConfigError) as error:
        corpora.load(name)
    line = one_line(error)
    assert f"no corpus and no file called {name!r}" in line
    assert ", ".join(corpora.names()) in line and line.endswith(words)


def test_a_name_wins_over_a_file_of_that_name(tmp_path):
    (tmp_path / "pitches").write_text("mine")
    assert corpora.load("pitches", size=100).text != "mine"
    assert corpora.load("./pitches").text == "mine"
    (tmp_path / "qqq").write_text("also mine")
    assert corpora.load("qqq").text == "also mine"


@pytest.mark.parametrize("size", [0, -1])
def test_size_must_be_positive(size):
    with pytest.raises(ConfigError, match=f"size={size}: it must be at least 1"):
        corpora.load("pitches", size=size)


# -- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["plain", "a\r\nb\rc\n", "grüße €uro 𝄞\u2028x\x85\x0b", " ", "\ufeff twice"])
def test_files_are_read_exactly(tmp_path, text):
    (tmp_path / "x.txt").write_bytes(text.encode())
    expected = text.removeprefix("\ufeff")
    corpus = corpora.load(tmp_path / "x.txt")
    assert corpus.text == expected
    assert corpus.source == f"the file {tmp_path / 'x.txt'}: {len(expected):,} characters"
    assert [corpora.load(tmp_path / "x.txt", size=size).text for size in range(1, 8)] == [expected[:size] for size in range(1, 8)]


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "x.txt").write_bytes(codecs.BOM_UTF8 + "né".encode())
    assert corpora.load("x.txt").text == "né"
    assert corpora.load("x.txt", size=2).text == "né"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"caf\xe9 au lait", "byte 0xe9 at offset 3 "),
        (codecs.BOM_UTF8 + b"caf\xe9", "byte 0xe9 at offset 6 "),
        ("text".encode("utf-16"), "byte 0xff at offset 0 cannot stand there. Save it as UTF-8, for example: iconv -f utf-16 -t utf-8"),
        (b"cut \xe2\x82", "byte 0xe2 at offset 4 "),
        (b"\xed\xa0\x80", "byte 0xed at offset 0 "),
        (b"", "x.txt is empty: there must be text to learn from"),
        (codecs.BOM_UTF8, "x.txt is empty: there must be text to learn from"),
    ],
)
def test_what_is_no_text(tmp_path, data, words):
    (tmp_path / "x.txt").write_bytes(data)
    for size in (None, 1000):
        with pytest.raises(ConfigError) as error:
            corpora.load("x.txt", size=size)
        assert words in one_line(error)


def test_folders_and_missing_files(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "shakespeare.txt").write_text("x")
    for wrong, words in [
        ("data", "data is a folder: it must be a UTF-8 text file"),
        ("data/shakspeare.txt", f"Did you mean {Path('data/shakespeare.txt')}?"),
        ("dta/shakespeare.txt", "Did you mean data?"),
        ("data/other", "there is no file data/other"),
        ("/no/such/place.txt", "there is no file /no/such/place.txt"),
        ("data/shakespeare.txt/x", "cannot be read (Not a directory)"),
        ("nul\0.txt", "cannot be read (embedded null byte)"),
        ("x" * 300 + ".txt", "cannot be read (File name too long)"),
    ]:
        with pytest.raises(ConfigError) as error:
            corpora.load(wrong)
        assert words in one_line(error), wrong


def test_unreadable_files(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    (tmp_path / "x.txt").write_text("x")
    (tmp_path / "x.txt").chmod(0)
    with pytest.raises(ConfigError, match="cannot be read"):
        corpora.load("x.txt")


def test_standard_input(monkeypatch):
    def give(data):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="ascii", newline=None))

    give("grüße\r\n".encode())
    corpus = corpora.load("-")
    assert (corpus.text, corpus.source) == ("grüße\r\n", "standard input: 7 characters")
    give("grüße".encode())
    assert corpora.load("-", size=3).text == "grü"
    for data, words in [(b"", "standard input is empty"), (b"\xff", "standard input is not UTF-8: byte 0xff at offset 0")]:
        give(data)
        with pytest.raises(ConfigError) as error:
            corpora.load("-")
        assert words in one_line(error)


def test_standard_input_of_a_process():
    code = "from tiny_transformer import corpora; print(ascii(corpora.load('-').text))"
    run = subprocess.run(
        [sys.executable, "-c", code], input="né\r\n".encode(), capture_output=True, cwd=ROOT, env={"LC_ALL": "C"}, check=True
    )
    assert run.stdout.decode().strip() == ascii("né\r\n")


def test_only_the_beginning_of_a_large_file_is_read(tmp_path, monkeypatch):
    path = tmp_path / "large.txt"
    path.write_bytes("é".encode() * 1000 + b"\xff" * 1000)
    assert read_text(path, size=100) == "é" * 100


# -- the standard library --------------------------------------------------------------------------------------------


@pytest.fixture
def small_library(tmp_path):
    """A folder like the standard library's, with everything that is to be passed over."""
    root = tmp_path / "lib"
    kept = {f"module{i}.py": f'"""Module number {i} says a sentence of English for the test."""\nx = {i}\n' for i in range(6)}
    kept["package/inner.py"] = "y = 1\n\n\n\n\n"
    skipped = dict.fromkeys(
        [
            "test/a.py",
            "unittest/test/b.py",
            "tkinter/tests/c.py",
            "site-packages/d.py",
            "dist-packages/e.py",
            "encodings/f.py",
            "lib2to3/g.py",
            "config-3.11-x/h.py",
            "_sysconfigdata_x.py",
            "html/entities.py",
            "notes.txt",
            "__pycache__/i.py",
            "idlelib/j.py",
        ],
        "skipped = 1\n",
    )
    odd = {"accents.py": "# é\n", "long.py": "x = 1\n" * 20_000, "empty.py": " \n", "feed.py": "x = 1\n\x0cy = 2\n"}
    for name, text in (kept | skipped | odd).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    (root / "latin.py").write_bytes(b"# \xe9\n")
    (root / "windows.py").write_bytes(b"z = 1\r\n")
    return root, {**kept, "windows.py": "z = 1\n"}


def test_whole_files_and_which_are_passed_over(small_library):
    root, kept = small_library
    pieces = list(standard_library.python_sources(root))
    assert sorted(pieces) == sorted(text.rstrip() + "\n\n\n" for text in kept.values())
    order = sorted(kept, key=lambda name: hashlib.sha256(name.encode()).digest())
    assert pieces == [kept[name].rstrip() + "\n\n\n" for name in order]
    assert pieces != sorted(pieces)


def test_a_python_without_sources(tmp_path):
    with pytest.raises(ConfigError, match="comes without its library's sources"):
        list(standard_library.python_sources(tmp_path))


def test_prose_comes_once(tmp_path):
    (tmp_path / "a.py").write_text(
        '"""One sentence of English is here for the test.\n\nAnother one, of the\n  same kind, is indented.\n"""\n'
    )
    (tmp_path / "b.py").write_text('def f():\n    """One sentence of English\n    is here for the test."""\n')
    (tmp_path / "c.py").write_text("this does not parse (\n")
    (tmp_path / "pydoc_data").mkdir()
    (tmp_path / "pydoc_data" / "topics.py").write_text("topics = {'x': 'Title\\n\\n   A topic is a sentence for the help function.\\n'}\n")
    found = list(standard_library.documentation(tmp_path))
    assert sorted(found) == ["A topic is a sentence for the help function.\n\n", "One sentence of English is here for the test.\n\n"]


def test_docstrings_equal_a_plain_walk():
    source = (Path(sysconfig.get_path("stdlib")) / "argparse.py").read_text(encoding="utf-8")
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    expected = [ast.get_docstring(node) for node in ast.walk(ast.parse(source)) if isinstance(node, kinds) and ast.get_docstring(node)]
    found = list(standard_library.docstrings(source))
    assert sorted(found) == sorted(expected) and len(found) > 10
    nested = 'class A:\n    "a"\n    if True:\n        def f(self):\n            "f"\n            def g():\n                "g"\n'
    assert list(standard_library.docstrings(nested)) == ["a", "f", "g"]


@pytest.mark.parametrize(
    ("paragraph", "expected"),
    [
        ("Return the number of items in the queue, and wait for more.", True),
        ("Return the number of items\nin the queue, and wait for more.", True),
        ("\nReturn the number of items in the queue, and wait for more.\n", True),
        ("Return the number of items:\n    in the queue, and wait for more.", False),
        ("return the number of items in the queue, and wait for more.", False),
        ("Return the number of items in the queue and wait for more", False),
        ("Return queue_size of the queue, and then wait for more of it.", False),
        (">>> Return the number of items in the queue, and wait for more.", False),
        ("Too short for a sentence.", False),
        ("Returns a naïve number of items in the queue and waits for more.", False),
        ("A 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 of them.", False),
        ("Changed in version 3.9: the function waits for more of the items.", False),
    ],
)
def test_is_prose(paragraph, expected):
    assert standard_library.is_prose(paragraph) is expected


def test_pydoc_reads_as_english():
    text = corpora.load("pydoc", size=100_000).text
    paragraphs = text.split("\n\n")[:-1]
    assert len(paragraphs) == len(set(paragraphs)) > 500
    words = Counter(text.lower().split())
    common = sum(
        words[word]
        for word in (
            "the",
            "of",
            "a",
            "to",
            "is",
            "in",
            "and",
            "for",
            "an",
            "be",
            "if",
            "this",
            "that",
            "with",
            "are",
            "it",
            "as",
            "not",
            "or",
            "by",
            "on",
            "from",
        )
    )
    assert common / sum(words.values()) > 0.3  # as in English; source code has less than a twentieth
    code = Counter(corpora.load("python", size=100_000).text.lower().split())
    assert sum(code[word] for word in ("the", "of", "a", "to")) / sum(code.values()) < 0.1


def test_the_same_order_for_every_hash_seed():
    code = "import zlib; from tiny_transformer import corpora; print(zlib.crc32(corpora.load('python', size=50_000).text.encode()))"
    runs = [
        subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, cwd=ROOT, capture_output=True, text=True)
        for seed in "12"
    ]
    assert runs[0].stdout == runs[1].stdout != ""


# -- statistics ------------------------------------------------------------------------------------------------------


def brute_entropy(items):
    counts = Counter(items)
    return -sum(count / len(items) * math.log(count / len(items)) for count in counts.values())


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-(10**9), 10**9) | st.integers(0, 3), min_size=2, max_size=60))
def test_entropies_equal_brute_force(ids):
    assert math.isclose(symbol_entropy(ids), brute_entropy(ids), abs_tol=1e-12)
    by_previous = {}
    for before, after in itertools.pairwise(ids):
        by_previous.setdefault(before, []).append(after)
    expected = sum(len(after) / (len(ids) - 1) * brute_entropy(after) for after in by_previous.values())
    assert math.isclose(conditional_entropy(ids), expected, abs_tol=1e-12)


def test_known_entropies():
    assert symbol_entropy([5]) == 0 and math.copysign(1, symbol_entropy([5])) == 1
    assert math.isclose(symbol_entropy(np.arange(65)), math.log(65))
    rng = np.random.default_rng(0)
    independent = rng.integers(0, 4, 200_000, dtype=np.int32)
    assert abs(conditional_entropy(independent) - math.log(4)) < 1e-3
    assert conditional_entropy(np.tile([0, 1, 2], 100).astype(np.uint8)) == 0  # 255 would overflow if pairs were counted in bytes
    assert math.isclose(conditional_entropy(np.array([255, 0, 255, 1] * 50, dtype=np.uint8)), brute_conditional([255, 0, 255, 1] * 50))


def brute_conditional(ids):
    return brute_entropy(list(itertools.pairwise(ids))) - brute_entropy(ids[:-1])


@pytest.mark.parametrize(
    ("function", "ids"), [(symbol_entropy, []), (conditional_entropy, [1]), (symbol_entropy, [[1, 2]]), (symbol_entropy, [0.5])]
)
def test_entropies_refuse_what_is_no_row_of_numbers(function, ids):
    with pytest.raises(ConfigError, match="they must be"):
        function(ids)


@settings(max_examples=200, deadline=None)
@given(st.text("ab", max_size=30), st.text("ab", max_size=30), st.integers(1, 6))
def test_overlap_equals_plain_search(train, val, n):
    windows = [val[i : i + n] for i in range(0, len(val), n) if len(val[i : i + n]) == n]
    found = overlap(train, val, n=n)
    assert found.windows == len(windows)
    assert found.share == (sum(window in train for window in windows) / len(windows) if windows else 0)
    assert found.example == next((window for window in windows if window in train), None)


def test_overlap_finds_a_copied_passage_wherever_it_begins():
    rng = np.random.default_rng(1)
    train, val = ("".join(map(chr, rng.integers(97, 123, n))) for n in (20_000, 4_000))
    assert overlap(train, val).share == 0
    for at in range(0, 128, 7):
        copied = val[:1000] + train[5000 + at : 5127 + at] + val[1000 + at :]
        assert overlap(train, copied).share > 0
    whole = overlap(train + val, val)
    assert whole.share == 1
    assert str(whole).startswith("100.0% of the validation text also stands in the training text") and "\n" not in str(whole)
    assert str(overlap(train, val)) == "no 64 characters of the validation text stand in the training text"
    assert overlap(train, "short").share == 0
    with pytest.raises(ConfigError, match="n=0"):
        overlap(train, val, n=0)


# -- the front door --------------------------------------------------------------------------------------------------


def test_front_door():
    assert corpora.load is library.load
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = corpora.lode
    code = "import sys; from tiny_transformer import corpora; corpora.load('pitches', size=10); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("file", ["library", "standard_library", "text_statistics", "textfile"])
def test_demos(file):
    run = subprocess.run([sys.executable, f"tiny_transformer/corpora/{file}.py"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout
