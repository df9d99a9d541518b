"""Token files: what was encoded comes back from any place, whatever the shards, pieces and processes; damage is found and named."""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.token_tools import Bytes, Fake, Pairs, Pieces
from tiny_transformer.config import ConfigError
from tiny_transformer.tokenization.char import CharTokenizer
from tiny_transformer.training import token_writer
from tiny_transformer.training.dataset import batch_at, get_batch, split, windows
from tiny_transformer.training.document_pieces import SafeCut, read_segments, safe_cut
from tiny_transformer.training.token_files import TokenFiles, TokenFilesError, verify
from tiny_transformer.training.token_index import canonical_json, ids_dtype, tokenizer_hash
from tiny_transformer.training.token_writer import write_token_files

LETTERS = CharTokenizer([*map(chr, range(9, 127)), "é", "日", "\u0301", "😀"])
TEXT = st.text(st.sampled_from("ab1 \n.é日|"), max_size=60)
WILD = st.text(st.sampled_from("abA12 \n\r\t.,'!|é日\u0301😀²_ſ'sll\u3000\xa0"), max_size=60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A new name for each call."""
    root, names = tmp_path_factory.mktemp("tokens"), iter(range(10**9))
    return lambda: root / f"tokens-{next(names)}"


@pytest.fixture(autouse=True, scope="module")
def synced():
    """Waiting for the disk takes most of the time and proves nothing here; what would have been synced is noted."""
    done, patch, files = [], pytest.MonkeyPatch(), Path("/proc/self/fd")
    patch.setattr(os, "fsync", lambda number: done.append(str((files / str(number)).readlink()) if files.is_dir() else ""))
    yield done
    patch.undo()


def contents(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


# ---------------------------------------------------------------- round trip


@given(st.lists(TEXT, min_size=1, max_size=5), st.sampled_from([None, "|", "\n\n", "a|a"]), st.integers(1, 40), st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_what_was_written_comes_back(folder, texts, separator, shard_tokens, piece_chars):
    documents = [part for text in texts for part in (text.split(separator) if separator else [text]) if part]
    for tokenizer in (LETTERS, Bytes()):
        options = {"shard_tokens": shard_tokens, "piece_chars": piece_chars, "document_separator": separator}
        if not documents:
            with pytest.raises(ConfigError, match="hold no text"):
                write_token_files(texts, tokenizer, folder(), **options)
            continue
        eos = [] if tokenizer.special.eos is None else [tokenizer.special.eos]
        encoded = [tokenizer.encode(document) + eos for document in documents]
        files = write_token_files(texts, tokenizer, folder(), **options)
        assert files[:].tolist() == [i for ids in encoded for i in ids]
        assert [document[:].tolist() for document in files.documents()] == encoded
        assert files.documents().lengths.tolist() == [len(ids) for ids in encoded]
        assert files.index.n_documents == len(documents)
        assert [shard.n_tokens for shard in files.index.shards[:-1]] == [shard_tokens] * (len(files.index.shards) - 1)
        shutil.rmtree(files.folder)


@given(TEXT.filter(bool), st.integers(1, 9))
@settings(max_examples=30, deadline=None)
def test_a_text_and_a_file_with_it_are_the_same(folder, text, piece_chars):
    path = folder()
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    first = write_token_files(path, LETTERS, folder(), piece_chars=piece_chars)
    second = write_token_files(iter([text]), LETTERS, folder())
    assert contents(first.folder) == contents(second.folder)
    assert first.tokenizer().decode(first) == text
    verify(first.folder)


def test_any_number_of_processes_writes_the_same_bytes(folder, small_text):
    path = folder()
    path.write_text(small_text)
    tokenizer = CharTokenizer.train(small_text)
    options = {"document_separator": "\n\n", "shard_tokens": 3000}
    one = write_token_files([path, "ROMEO:\nThe end"], tokenizer, folder(), **options)
    two = write_token_files([path, "ROMEO:\nThe end"], tokenizer, folder(), workers=2, piece_chars=500, **options)
    assert contents(one.folder) == contents(two.folder)
    assert len(one.index.shards) == 7
    with pytest.raises(ConfigError, match="text 2.*'#'") as error:  # an error comes back from a process
        write_token_files([small_text, "#"], tokenizer, folder(), workers=2)
    assert "\n" not in str(error.value)

    def fail(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        write_token_files(small_text, tokenizer, folder(), workers=2, piece_chars=500, progress=fail)
    assert caught.tb  # which keeps alive all that was going on
    assert not multiprocessing.active_children()


def test_a_process_that_cannot_start_is_a_line(folder):
    code = f"""
from tiny_transformer.tokenization.char import CharTokenizer
from tiny_transformer.training.token_writer import write_token_files
write_token_files("abc", CharTokenizer.train("abc"), {str(folder())!r}, workers=2)
"""
    script = folder()
    script.write_text(code)
    result = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1].endswith('a script needs `if __name__ == "__main__":`. Use workers=1 to do without')


def test_ids_are_as_wide_as_the_vocabulary_asks(folder):
    symbols = [chr(0x10000 + i) for i in range(2**16 + 1)]
    narrow = write_token_files(symbols[-2], CharTokenizer(symbols[:-1]), folder())
    wide = write_token_files(symbols[-1], CharTokenizer(symbols), folder())
    assert (narrow.dtype, wide.dtype) == (np.uint16, np.uint32)
    assert ((narrow.folder / "shard-00000.bin").read_bytes(), (wide.folder / "shard-00000.bin").read_bytes()) == (b"\xff\xff", b"\0\0\1\0")
    assert (narrow[0], wide[0]) == (2**16 - 1, 2**16)
    with pytest.raises(ValueError, match="at most 32 bits"):
        ids_dtype(2**32 + 1)


def test_the_files_are_what_the_description_says(folder):
    files = write_token_files(["abcab", "c"], Bytes(), folder(), shard_tokens=4)
    assert sorted(contents(files.folder)) == [
        "index.json", "shard-00000.bin", "shard-00000.docs.bin", "shard-00001.bin", "shard-00001.docs.bin", "tokenizer.json",
    ]  # fmt: skip
    assert np.fromfile(files.folder / "shard-00000.bin", "<u2").tolist() == [97, 98, 99, 97]
    assert np.fromfile(files.folder / "shard-00001.bin", "<u2").tolist() == [98, 256, 99, 256]
    assert np.fromfile(files.folder / "shard-00001.docs.bin", "<u8").tolist() == [2]
    index = json.loads((files.folder / "index.json").read_text())
    assert (index["dtype"], index["n_tokens"], index["n_documents"], index["eos"]) == ("<u2", 8, 2, 256)
    assert index["tokenizer_sha256"] == tokenizer_hash(Bytes())
    assert (files.folder / "tokenizer.json").read_bytes() == canonical_json(Bytes().to_dict())
    bare = write_token_files(["abcab", "c"], Bytes(), folder(), append_eos=False)
    assert bare[:].tolist() == [97, 98, 99, 97, 98, 99]
    assert bare.document_starts.tolist() == [0, 5]


def test_all_of_it_reaches_the_disk_before_it_gets_its_name(folder, synced):
    synced.clear()
    files = write_token_files(["abcab", "c"], LETTERS, folder(), shard_tokens=4)
    if not any(synced):
        pytest.skip("this system does not say which file a number belongs to")
    *inside, parent = synced
    names = {Path(path).name for path in inside}
    assert names == {*contents(files.folder), Path(inside[-1]).name}
    assert inside[-1].endswith(".tmp")
    assert Path(parent) == files.folder.parent


def test_the_hash_knows_the_tokenizer_not_the_order_of_its_keys():
    first, second = Fake(), Fake()
    first.values, second.values = {"kind": "x", "a": 1}, {"a": 1, "kind": "x"}
    assert tokenizer_hash(first) == tokenizer_hash(second)
    assert tokenizer_hash(CharTokenizer("ab")) != tokenizer_hash(CharTokenizer("ba"))


def test_tiny_shakespeare_itself(corpora_dir, folder):
    path = corpora_dir / "shakespeare.txt"
    text = path.read_text(encoding="utf-8")
    tokenizer = CharTokenizer.train(text)
    files = write_token_files(path, tokenizer, folder(), shard_tokens=300_000)
    np.testing.assert_array_equal(files[:], tokenizer.encode_array(text))
    assert [len(part) for part in split(files)] == [1_003_854, 111_540]
    verify(files.folder)


# ---------------------------------------------------------------- reading


@pytest.fixture(scope="module")
def example(folder):
    """1,000 ids in shards of 64 and the same as an array."""
    text = "".join(np.random.default_rng(0).choice(list("abcdefgh"), 1000))
    files = write_token_files([text[:333], text[333:400], text[400:]], LETTERS, folder(), shard_tokens=64)
    return files, LETTERS.encode_array(text)


ANY_INT = st.none() | st.integers(-1100, 1100)


@given(ANY_INT, ANY_INT, st.none() | st.integers(-70, 70).filter(bool))
@settings(deadline=None)
def test_slices_are_those_of_an_array(example, start, stop, step):
    files, array = example
    np.testing.assert_array_equal(files[start:stop:step], array[start:stop:step])


@given(st.lists(st.integers(-1000, 999), min_size=1, max_size=12), st.data())
@settings(deadline=None)
def test_places_are_those_of_an_array(example, places, data):
    files, array = example
    shape = data.draw(st.sampled_from([(len(places),), (1, len(places)), (len(places), 1)]))
    where = np.array(places).reshape(shape)
    np.testing.assert_array_equal(files[where], array[where])
    assert files[places[0]] == array[places[0]]
    assert isinstance(files[places[0]], int)


@pytest.mark.parametrize("where", [1000, -1001, [0, 1000], "a", 0.5, np.array([0.0]), None])
def test_places_beyond_the_ends(example, where):
    with pytest.raises(IndexError):
        example[0][where]


@given(st.integers(0, 1000), st.integers(0, 1000), st.data())
@settings(deadline=None)
def test_parts_are_files_of_their_own(example, start, stop, data):
    files, array = example
    if start > stop:
        with pytest.raises(ValueError, match="0 ≤ start ≤ stop"):
            files.part(start, stop)
        return
    part, ids = files.part(start, stop), array[start:stop]
    np.testing.assert_array_equal(np.asarray(part), ids)
    np.testing.assert_array_equal(part[np.arange(len(part))], ids)
    assert list(part) == ids.tolist()
    again = part.part(len(part) // 3, len(part))
    np.testing.assert_array_equal(again[:], ids[len(part) // 3 :])
    starts = [] if start == stop else [0, *(edge - start for edge in (333, 400) if start < edge < stop)]
    assert part.document_starts.tolist() == starts
    assert [len(document) for document in part.documents()] == part.documents().lengths.tolist()
    np.testing.assert_array_equal(np.concatenate([ids[:0], *(document[:] for document in part.documents())]), ids)


def test_documents_by_number(example):
    documents = example[0].documents()
    assert [len(documents[i]) for i in (0, 1, 2, -1)] == [333, 67, 600, 600]
    for wrong in (3, -4):
        with pytest.raises(IndexError, match="there are 3"):
            documents[wrong]


def test_batches_are_those_of_the_array(example):
    files, array = example
    for step in range(20):
        np.testing.assert_array_equal(batch_at(files, 6, 70, 1, step), batch_at(array, 6, 70, 1, step))
    np.testing.assert_array_equal(get_batch(files, 3, 999, np.random.default_rng(0)), get_batch(array, 3, 999, np.random.default_rng(0)))
    for seq_len, batch_size, stride in [(70, 2, None), (33, 5, 10), (999, 1, 1), (1500, 2, 7)]:
        pairs = zip(windows(files, seq_len, batch_size, stride), windows(array, seq_len, batch_size, stride), strict=True)
        for ours, theirs in pairs:
            np.testing.assert_array_equal(ours, theirs)
            assert ours.inputs.dtype == ours.targets.dtype == np.int64
    for ours, theirs in zip(split(files, 0.3), split(array, 0.3), strict=True):
        assert isinstance(ours, TokenFiles)
        np.testing.assert_array_equal(ours[:], theirs)


def test_batches_read_no_more_than_they_need(example, monkeypatch):
    files, _ = example
    read = []
    real = TokenFiles._read
    monkeypatch.setattr(TokenFiles, "_read", lambda self, start, stop: read.append(stop - start) or real(self, start, stop))
    monkeypatch.setattr(TokenFiles, "__array__", None)
    list(windows(files, 10, 2))
    assert max(read) == 21
    read.clear()
    train, _ = split(files)
    batch_at(train, 4, 8, 0, 0)
    assert not read


def test_a_part_that_is_too_short(example):
    with pytest.raises(ValueError, match="has 5 tokens.*max_seq_len=8"):
        batch_at(example[0].part(0, 5), 2, 8, 0, 0)


# ---------------------------------------------------------------- where a document may be cut


@given(WILD, WILD)
@settings(max_examples=400, deadline=None)
def test_safe_places_are_safe(first, second):
    text = first + second
    for tokenizer in (Pieces("gpt2"), Pieces("gpt4"), Bytes()):
        cut = SafeCut(tokenizer)
        for limit in range(len(text) + 1):
            place = cut(text, limit)
            assert 0 <= place <= limit
            if place:
                assert tokenizer.encode(text[:place]) + tokenizer.encode(text[place:]) == tokenizer.encode(text)
        assert cut.possible  # and trying a place has never found it unsafe


def test_the_last_safe_place_is_taken():
    assert safe_cut("one two. three four.", Pieces()) == len("one two. three")
    assert safe_cut("one two. three four.", Pieces(), limit=8) == len("one")
    assert safe_cut("one\ntwo", Pieces()) == 3
    assert safe_cut("...\n\n...  ", Pieces()) == 0
    assert safe_cut("abc def", CharTokenizer.train("abc def")) == 7
    assert safe_cut("", Pieces()) == safe_cut("", CharTokenizer.train("a")) == 0


@pytest.mark.parametrize(
    ("values", "possible"),
    [
        ({"kind": "byte", "special_tokens": ["<s>"]}, True),
        ({"kind": "byte", "special_tokens": ["<a b>"]}, False),
        ({"kind": "bpe", "split": "none"}, False),
        ({"kind": "bpe", "split": r"\w+\s"}, False),
        ({"kind": "bpe"}, False),
        ({"kind": "wordpiece", "normalizers": [{"type": "BertNormalizer"}, {"type": "NFC"}]}, True),
        ({"kind": "wordpiece", "normalizers": [{"type": "Replace"}]}, False),
        ({"kind": "unigram", "prepend": "never", "split": True, "lines": True, "normalizers": []}, True),
        ({"kind": "unigram", "prepend": "first", "split": True, "lines": False}, False),
        ({"kind": "unigram", "prepend": "never", "split": False, "lines": True}, False),
        ({"kind": "morse"}, False),
    ],
)
def test_which_tokenizers_can_be_cut(values, possible):
    tokenizer = Bytes()
    tokenizer.values = values
    assert SafeCut(tokenizer).possible is possible
    assert safe_cut("one two", tokenizer) == (3 if possible else 0)


def test_a_place_is_tried_before_it_is_trusted():
    """A setting that nobody here knows of: a space put before every text."""
    tokenizer = Bytes()
    tokenizer.encode = lambda text: list(b" " + text.encode())
    assert safe_cut("one two", tokenizer) == 0


@given(st.lists(WILD, min_size=1, max_size=4), st.integers(1, 20), st.integers(1, 50))
@settings(max_examples=25, deadline=None)
def test_the_pieces_do_not_change_the_ids(folder, texts, piece_chars, shard_tokens):
    text = " ".join(texts) + "x"
    plain = Fake()
    plain.values, plain.encode = Pairs.values, Pairs().encode  # no encode_iterable
    for tokenizer in (Pieces("gpt2"), Pieces("gpt4"), Pairs(), plain):
        files = write_token_files(text, tokenizer, folder(), piece_chars=piece_chars, shard_tokens=shard_tokens)
        assert files[:].tolist() == tokenizer.encode(text)
        assert files.document_starts.tolist() == [0]
        shutil.rmtree(files.folder)


def test_a_document_that_cannot_be_cut_is_read_as_a_stream(folder):
    text = "abcdefg hij" * 1000 + "|short"
    tokenizer = Pairs()
    files = write_token_files(text, tokenizer, folder(), piece_chars=100, document_separator="|")
    assert tokenizer.longest <= 500
    assert files.index.n_documents == 2
    assert files[:].tolist() == Pairs().encode("abcdefg hij" * 1000) + Pairs().encode("short")


def late_encoders(monkeypatch, tokenizer, waiting, most):
    """In place of other processes: pieces are encoded when they are waited for; how many waited is noted."""

    class Encoders:
        def __init__(self, *_):
            pass

        __enter__ = lambda self: self  # noqa: E731
        __exit__ = __init__

        def submit(self, piece):
            waiting.add(id(piece))
            most.append(len(waiting))
            return lambda: waiting.discard(id(piece)) or token_writer._encode(tokenizer, piece)

    monkeypatch.setattr(token_writer, "_Encoders", Encoders)


def test_the_stream_ends_where_a_safe_place_is_found_again(folder, monkeypatch):
    """5,000 marks without a place to cut, then words: only the marks are read as a stream."""
    streamed = []

    class Both(Pieces):
        def encode_iterable(self, chunks):
            streamed.append("".join(chunks))
            return iter(self.encode(streamed[-1]))

    text = "word " * 300 + ".!?" * 1700 + " word" * 300
    late_encoders(monkeypatch, Both(), set(), [])
    for workers in (1, 3):  # with more than one, earlier pieces are still on their way when the stream begins
        files = write_token_files(text, Both(), folder(), piece_chars=200, workers=workers)
        assert files[:].tolist() == Pieces().encode(text)
    assert len(streamed) == 2
    assert 5000 < len(streamed[0]) < 6500


@given(st.text(st.sampled_from("ab|"), max_size=40), st.sampled_from(["|", "||", "a|", "ab|ab"]), st.integers(1, 7))
def test_documents_are_those_of_str_split(text, separator, piece_chars):
    documents, part = [], ""
    for segment in read_segments([text], separator, piece_chars, SafeCut(LETTERS)):
        assert text[segment.start :].startswith(segment.text)
        part += segment.text
        if segment.ends:
            documents.append(part)
            part = ""
    assert part == ""
    assert documents == text.split(separator)


# ---------------------------------------------------------------- size


def test_memory_does_not_grow_with_the_text(folder, small_text):
    """Four times the text, the same peak."""
    tokenizer, peaks = CharTokenizer.train(small_text), []
    for times in (6, 24):
        path = folder()
        path.write_text(small_text * times)
        tracemalloc.start()
        write_token_files(path, tokenizer, folder(), piece_chars=1 << 14, document_separator="\n\n", shard_tokens=1 << 18)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[0] < 1.5e6
    assert peaks[1] < 1.2 * peaks[0]


def test_no_more_pieces_wait_than_the_processes_need(folder, monkeypatch):
    """The source is read only as fast as ids come back."""
    most = []
    late_encoders(monkeypatch, LETTERS, set(), most)
    files = write_token_files("ab " * 1000, LETTERS, folder(), workers=3, piece_chars=30)
    assert len(files) == 3000
    assert max(most) == 8
    assert len(most) > 50


def test_progress_is_told(folder):
    path, told = folder(), []
    path.write_text("aé日\n" * 500)
    files = write_token_files(path, LETTERS, folder(), piece_chars=100, document_separator="\n", progress=told.append)
    assert told == sorted(told)
    assert len(told) > 10
    assert told[-1] == (3500, 3500, 1500, 500) == (path.stat().st_size, told[0].bytes_total, len(files), files.index.n_documents)
    told.clear()
    write_token_files(["aé", "日"], LETTERS, folder(), progress=told.append)
    assert (told[-1].bytes_read, told[-1].bytes_total) == (6, None)
    told.clear()
    tokenizer = Pairs()
    tokenizer.special = Bytes.special
    streamed = write_token_files("abc d" * 100_000, tokenizer, folder(), piece_chars=1000, progress=told.append)
    assert len(told) > 3  # while it is read, not only behind it
    assert told[-1] == (500_000, None, len(streamed), 1)


# ---------------------------------------------------------------- whole or not at all


def test_a_failure_leaves_nothing(folder):
    target = folder()
    for error in (KeyboardInterrupt, OSError, RuntimeError):

        def fail(progress, error=error):
            raise error

        with pytest.raises(error):
            write_token_files("ab " * 100, LETTERS, target, piece_chars=10, progress=fail)
        assert not [path for path in target.parent.iterdir() if target.name in path.name]
    with pytest.raises(ConfigError, match="text 1.*U\\+0416"):
        write_token_files("ab Ж", LETTERS, target)
    assert not [path for path in target.parent.iterdir() if target.name in path.name]


def test_a_killed_writer_leaves_no_folder_of_that_name(folder):
    target = folder()
    code = (
        "import os; from tiny_transformer.tokenization.char import CharTokenizer as C\n"
        "from tiny_transformer.training.token_writer import write_token_files as w\n"
        f"w('ab '*100, C.train('ab '), {str(target)!r}, piece_chars=10, progress=lambda p: p.n_tokens > 100 and os._exit(9))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 9
    assert not target.exists()
    write_token_files("ab", LETTERS, target)
    verify(target)


def test_nothing_is_written_over(folder):
    target = folder()
    target.mkdir()
    with pytest.raises(ConfigError, match="is there already.*Choose another name"):
        write_token_files("ab", LETTERS, target)
    (dangling := folder()).symlink_to("nowhere")
    with pytest.raises(ConfigError, match="is there already"):
        write_token_files("ab", LETTERS, dangling)
    late = folder()
    with pytest.raises(ConfigError, match="appeared meanwhile"):
        write_token_files("ab", LETTERS, late, progress=lambda _: late.mkdir(exist_ok=True))
    assert list(late.iterdir()) == []


# ---------------------------------------------------------------- damage


FILES = ["shard-00000.bin", "shard-00001.bin", "shard-00015.docs.bin", "shard-00000.docs.bin", "index.json", "tokenizer.json"]
WAYS = ["flip", "cut", "more", "gone"]


@given(st.sampled_from(FILES), st.floats(0, 1, exclude_max=True), st.integers(1, 255), st.sampled_from(WAYS))
@settings(max_examples=60, deadline=None)
def test_damage_is_one_line_that_names_the_file(example, folder, name, where, change, how):
    files, array = example
    copy = folder()
    shutil.copytree(files.folder, copy)
    path = copy / name
    data = bytearray(path.read_bytes())
    if how == "gone":
        path.unlink()
    else:
        place = int(where * len(data))
        data = data[:place] if how == "cut" else data + b"}" if how == "more" else data
        if how == "flip" and data:
            data[place] ^= change
        path.write_bytes(data)
    try:
        opened = verify(copy)
    except TokenFilesError as error:
        assert "\n" not in str(error)
        assert str(copy) in str(error)
        assert name == "index.json" or str(path) in str(error)
    else:  # white space of the index, or a file that was empty
        assert name == "index.json" or bytes(data) == (files.folder / name).read_bytes()
        np.testing.assert_array_equal(opened[:], array)
        assert opened.document_starts.tolist() == files.document_starts.tolist()
    shutil.rmtree(copy)


def damaged(files, target, **changes):
    """A copy whose index says something else."""
    shutil.copytree(files.folder, target)
    index = json.loads((target / "index.json").read_text()) | changes
    (target / "index.json").write_text(json.dumps(index))
    return target


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "has format 2: this program reads format 1"),
        ({"dtype": "<u4"}, "dtype <u4 does not belong to vocab_size"),
        ({"dtype": "words"}, "is damaged"),
        ({"n_tokens": 999}, "do not add up"),
        ({"n_documents": 4}, "do not add up"),
        ({"n_tokens": -1}, "no whole number"),
        ({"n_tokens": 1000.0}, "no whole number"),
        ({"shard_tokens": 63}, "not full"),
        ({"shards": []}, "do not add up"),
        ({"shards": None}, "is damaged"),
        ({"eos": 3}, "another vocab_size or eos"),
        ({"eos": 5000}, "eos=5000 is no id"),
        ({"vocab_size": 121}, "another vocab_size or eos"),
        ({"vocab_size": 5}, "holds id .*: the vocabulary has ids 0 to 4"),
        ({"vocab_size": 0}, "is damaged"),
        ({"tokenizer_sha256": "0" * 64}, "tokenizer.json is damaged"),
    ],
)
def test_an_index_that_contradicts_itself_or_the_files(example, folder, changes, message):
    with pytest.raises(TokenFilesError, match=message) as error:
        verify(damaged(example[0], folder(), **changes))
    assert "\n" not in str(error.value)


def test_no_index_and_no_folder(folder, tmp_path):
    for path in (folder(), tmp_path):
        with pytest.raises(TokenFilesError, match=r"holds no token files: it must be a folder with index.json"):
            TokenFiles(path)


def resigned(files, target, name, numbers, dtype):
    """A copy with other numbers in one file and the digest to match: what only a faulty writer makes."""
    import hashlib

    shutil.copytree(files.folder, target)
    np.array(numbers, dtype).tofile(target / name)
    index = json.loads((target / "index.json").read_text())
    key = "docs_sha256" if ".docs" in name else "sha256"
    index["shards"][0][key] = hashlib.sha256((target / name).read_bytes()).hexdigest()
    (target / "index.json").write_text(json.dumps(index))
    return target


def test_what_digests_cannot_see(folder):
    files = write_token_files(["ab", "cd", "ef"], LETTERS, folder())
    verify(resigned(files, folder(), "shard-00000.docs.bin", [0, 2, 4], "<u8"))
    for starts in ([0, 4, 2], [0, 2, 2], [1, 2, 4], [0, 2, 6]):
        with pytest.raises(TokenFilesError, match="docs.bin is damaged: its places do not rise"):
            verify(resigned(files, folder(), "shard-00000.docs.bin", starts, "<u8"))
    with pytest.raises(TokenFilesError, match="shard-00000.bin holds id 999"):
        verify(resigned(files, folder(), "shard-00000.bin", [0, 1, 2, 3, 4, 999], "<u2"))


# ---------------------------------------------------------------- bad input


@given(st.binary(max_size=60), st.integers(1, 9))
@settings(max_examples=100, deadline=None)
def test_what_is_not_utf8_is_named_with_its_offset(folder, data, size):
    path = folder()
    path.write_bytes(b"a" + data)
    try:
        text = (b"a" + data).decode()
    except UnicodeDecodeError as error:
        with pytest.raises(ConfigError, match=f"is not UTF-8: byte 0x{(b'a' + data)[error.start]:02x} at offset {error.start} ") as caught:
            list(read_segments([path], None, size, SafeCut(Bytes())))
        assert "\n" not in str(caught.value)
    else:
        assert "".join(segment.text for segment in read_segments([path], None, size, SafeCut(Bytes()))) == text


def test_bad_input_is_one_line(folder, tmp_path):
    (tmp_path / "corpus.txt").write_text("ab ab")
    (tmp_path / "empty.txt").write_text("")
    wide, odd, below = Bytes(), Bytes(), Bytes()
    wide.vocab_size, odd.values, below.encode = 50, {"kind": "morse"}, lambda text: [1, -1]
    cases = [
        (tmp_path / "corpse.txt", LETTERS, {}, r"there is no file .*corpse.txt.*Did you mean .*corpus.txt\?"),
        (iter([tmp_path / "corpse.txt"]), LETTERS, {}, "there is no file"),
        (tmp_path, LETTERS, {}, "is no file: it must be a UTF-8 text file"),
        (str(tmp_path / "corpus.txt"), LETTERS, {}, r"is the name of a file: a string is taken as a text. Pass Path\("),
        (tmp_path / "empty.txt", LETTERS, {}, "the sources hold no text: there must be at least one token"),
        ([], LETTERS, {}, "the sources hold no text"),
        ("", LETTERS, {}, "the sources hold no text"),
        ([b"ab"], LETTERS, {}, "a source is b'ab': it must be a Path or a text"),
        (iter([7]), LETTERS, {}, "a source is 7"),
        ("ab", wide, {}, "the tokenizer gave ids 97 to 98: vocab_size=50 allows 0 to 49"),
        ("ab", below, {}, "the tokenizer gave ids -1 to 1"),
        ("ab", LETTERS, {"shard_tokens": 0}, "shard_tokens=0: it must be a whole number of at least 1"),
        ("ab", LETTERS, {"workers": 1.5}, "workers=1.5"),
        ("ab", LETTERS, {"document_separator": ""}, "document_separator=''"),
        ("ab", odd, {"workers": 2}, "tokenizer kind='morse'"),
        (tmp_path / "corpus.txt", CharTokenizer("b "), {"piece_chars": 3}, r"corpus.txt: character 'a' .*at position 0"),
        (tmp_path / "corpus.txt", CharTokenizer("a "), {"piece_chars": 1}, r"counted from character 1 of the file\): character 'b'"),
    ]
    for sources, tokenizer, options, message in cases:
        target = folder()
        with pytest.raises(ConfigError, match=message) as error:
            write_token_files(sources, tokenizer, target, **options)
        assert "\n" not in str(error.value)
        assert not target.exists()


def test_a_path_may_be_any_path_object(folder, tmp_path):
    class Name(os.PathLike):
        def __fspath__(self):
            return str(tmp_path / "a.txt")

    Path(Name()).write_text("ab")
    assert len(write_token_files(Name(), LETTERS, folder())) == 2
