"""GPT-2's and tiktoken's files: what others read and write is what we write and read; damage is one line with its place."""

import base64
import json
import os
import random
from pathlib import Path

import pytest
import tiktoken
import tiktoken.load
import tokenizers

from tests.tokenizer_campaign import some_text
from tiny_transformer.config import ConfigError
from tiny_transformer.tokenization import vocabulary_files
from tiny_transformer.tokenization.bpe import BPETokenizer
from tiny_transformer.tokenization.vocabulary_files import CHARACTER_TO_BYTE, recover_merges, spell, unspell


@pytest.fixture(scope="module")
def trained() -> BPETokenizer:
    """A small tokenizer with special tokens."""
    chance = random.Random(3)
    return BPETokenizer.train("".join(some_text(chance) for _ in range(400)), 500, ["<|endoftext|>", "<|a b|>"])


def test_the_spelling_is_gpt2s():
    assert set(CHARACTER_TO_BYTE) == set(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    assert spell(b" the\n\x00\xad") == "ĠtheĊĀŃ"
    byte_level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    text = "".join(map(chr, [*range(0x100), 0x7FF, 0x800, 0xD7FF, 0xFFFD, 0x10000, 0x10FFFF, *range(0x1000, 0xD000, 0x333)]))
    assert spell(text.encode()) == "".join(piece for piece, _ in byte_level.pre_tokenize_str(text))
    assert unspell(spell(bytes(range(256)))) == bytes(range(256))
    with pytest.raises(ValueError, match="' ', which stands for no byte"):
        unspell("a b")


@pytest.mark.parametrize("version", [True, False])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_gpt2_files_out_and_in(tmp_path, trained, version, ends):
    vocab, merges = tmp_path / "vocab.json", tmp_path / "merges.txt"
    trained.write_gpt2_files(vocab, merges)
    assert merges.read_text(encoding="utf-8").startswith("#version: 0.2\n")
    if not version:
        merges.write_text(merges.read_text(encoding="utf-8").partition("\n")[2], encoding="utf-8", newline=ends)
    again = BPETokenizer.from_gpt2_files(vocab, merges, ["<|endoftext|>", "<|a b|>"])
    assert (again.vocab, again.merges, again.special_tokens) == (trained.vocab, trained.merges, trained.special_tokens)
    if version:
        twin = tokenizers.Tokenizer(tokenizers.models.BPE.from_file(str(vocab), str(merges)))
        twin.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        twin.add_special_tokens(["<|endoftext|>", "<|a b|>"])
        chance = random.Random(5)
        for _ in range(300):
            text = some_text(chance)
            assert again.encode(text) == twin.encode(text).ids


def test_special_tokens_of_gpt2_files(tmp_path, trained):
    vocab, merges = tmp_path / "vocab.json", tmp_path / "merges.txt"
    plain = BPETokenizer({i: trained.vocab[i] for i in range(498)}, trained.merges, ["<|endoftext|>"])
    plain.write_gpt2_files(vocab, merges)
    assert BPETokenizer.from_gpt2_files(vocab, merges).special_tokens == {"<|endoftext|>": 498}
    assert BPETokenizer.from_gpt2_files(vocab, merges, []).special_tokens == {}
    assert BPETokenizer.from_gpt2_files(vocab, merges, ["<pad>"]).special_tokens == {"<pad>": 499}
    BPETokenizer({i: trained.vocab[i] for i in range(498)}, trained.merges).write_gpt2_files(vocab, merges)
    assert BPETokenizer.from_gpt2_files(vocab, merges).special_tokens == {}
    with pytest.raises(ConfigError, match="token 233 is spelled like a special token"):
        BPETokenizer({i: bytes([i]) for i in range(256)}, [], ["é"]).write_gpt2_files(vocab, merges)


GOOD_VOCAB = '{"a": 0,\n "b": 1,\n "ab": 2}'


@pytest.mark.parametrize(
    ("vocab", "merges", "says"),
    [
        ('{"a": 0,\n "b": 1,\n', "a b\n", "vocab.json, line 3: no JSON"),
        ("[1]", "", "vocab.json, line 1: it must be a JSON object"),
        ("{}", "", "vocab.json, line 1: it must be a JSON object"),
        ('{"a": 0,\n "b c": 1}', "", "vocab.json, line 2: 'b c' holds ' '"),
        ('{"a": 0,\n "é语": 1}', "", "vocab.json, line 2: 'é语' holds '语'"),
        ('{"a": 0,\n "b": 0}', "", "vocab.json, line 2: 'b' has the id 0, and so has another"),
        ('{"a": 0,\n "b": "1"}', "", "vocab.json, line 2: 'b' has the id '1'"),
        ('{"a": 0,\n "b": -1}', "", "vocab.json, line 2: 'b' has the id -1"),
        ('{"a": 0,\n "b": true}', "", "vocab.json, line 2: 'b' has the id True"),
        (GOOD_VOCAB, "a b\na", "merges.txt, line 2: 'a' is not two tokens"),
        (GOOD_VOCAB, "#version: 0.2\na b\n\na b c\n", "merges.txt, line 4: 'a b c' is not two tokens"),
        (GOOD_VOCAB, "a  b", "merges.txt, line 1: 'a  b' is not two tokens"),
        (GOOD_VOCAB, "b a", "merges.txt, line 1: 'ba' is not in the vocabulary"),
        (GOOD_VOCAB, "a c", "merges.txt, line 1: 'c' is not in the vocabulary"),
        (GOOD_VOCAB, "a 语", "merges.txt, line 1: '语' holds '语', which stands for no byte"),
        (GOOD_VOCAB, "a b\n#version: 0.2", "merges.txt, line 2: '#version:' is not in the vocabulary"),
        (GOOD_VOCAB, b"a b\n\xff", "merges.txt, line 2: byte 0xFF is not UTF-8"),
        (b"\x00\xff", "", "vocab.json, line 1: byte 0xFF is not UTF-8"),
    ],
)
def test_damaged_gpt2_files_are_one_line(tmp_path, vocab, merges, says):
    for name, content in (("vocab.json", vocab), ("merges.txt", merges)):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as error:
        BPETokenizer.from_gpt2_files(tmp_path / "vocab.json", tmp_path / "merges.txt")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_rank_files_out_and_in(tmp_path, trained, monkeypatch):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    path = tmp_path / "small.tiktoken"
    trained.write_tiktoken(path)
    ranks = tiktoken.load.load_tiktoken_bpe(str(path))
    assert ranks == {token: i for i, token in trained.vocab.items() if i < 498}
    again = BPETokenizer.from_tiktoken(path, ["<|endoftext|>", "<|a b|>"], split="gpt2")
    assert (again.vocab, again.merges, again.special_tokens) == (trained.vocab, trained.merges, trained.special_tokens)
    assert BPETokenizer.from_tiktoken(path).split == "gpt4"
    assert BPETokenizer.from_tiktoken(path, {"<|endoftext|>": 1000}).encode("<|endoftext|>") == [1000]


def test_gpt2s_own_files_travel_through_ranks(tmp_path):
    folder = os.environ.get("TINY_GPT2")
    if not folder:
        pytest.skip("TINY_GPT2 must name a folder with GPT-2's vocab.json and merges.txt")
    gpt2 = BPETokenizer.from_gpt2_files(f"{folder}/vocab.json", f"{folder}/merges.txt")
    gpt2.write_tiktoken(tmp_path / "gpt2.tiktoken")
    again = BPETokenizer.from_tiktoken(tmp_path / "gpt2.tiktoken", {"<|endoftext|>": 50256}, split="gpt2")
    assert (again.merges, again.vocab, again.special_tokens) == (gpt2.merges, gpt2.vocab, gpt2.special_tokens)
    gpt2.write_gpt2_files(tmp_path / "vocab.json", tmp_path / "merges.txt")
    theirs = (Path(folder) / "vocab.json").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "vocab.json").read_text(encoding="utf-8")) == json.loads(theirs)


def test_merges_that_are_no_ranks_are_not_written(tmp_path):
    vocab = {i: bytes([i]) for i in range(256)} | {256: b"ab", 257: b"bc"}
    swapped = BPETokenizer(vocab, [(b"b", b"c"), (b"a", b"b")])
    with pytest.raises(ConfigError, match="another order than the ids"):
        swapped.write_tiktoken(tmp_path / "no.tiktoken")
    assert not (tmp_path / "no.tiktoken").exists()
    with pytest.raises(ConfigError, match="token 'abc' .rank 3.: lower ranks make 3 parts"):
        recover_merges({b"a": 0, b"b": 1, b"c": 2, b"abc": 3})
    ranks = {b"a": 0, b"b": 1, b"c": 2, b"bc": 3, b"ab": 4, b"abc": 5}
    assert recover_merges(ranks) == [(b"b", b"c"), (b"a", b"b"), (b"a", b"bc")]


def line(token: bytes, rank: object) -> str:
    """A line of a rank file."""
    return f"{base64.b64encode(token).decode()} {rank}\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "line 1: there are no ranks"),
        (line(b"a", 0) + "YQ\n", "line 2: 'YQ' is not base64 and a rank"),
        (line(b"a", 0) + "Y* 1\n", "line 2: 'Y* 1' is not base64"),
        (line(b"a", 0) + "\n" + line(b"b", "x"), "line 3: 'Yg== x' is not base64"),
        (line(b"a", 0) + line(b"a", 1), "line 2: 'YQ== 1': each token"),
        (line(b"a", 0) + line(b"b", 0), "line 2: 'Yg== 0': each token"),
        (line(b"a", -1), "line 1: 'YQ== -1': each token"),
        ("a b c\n", "line 1: 'a b c' is not base64"),
    ],
)
def test_damaged_rank_files_are_one_line(tmp_path, text, says):
    path = tmp_path / "bad.tiktoken"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        BPETokenizer.from_tiktoken(path)
    assert f"bad.tiktoken, {says}" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_failed_write_leaves_the_old_file(tmp_path, trained, monkeypatch):
    path = tmp_path / "small.tiktoken"
    trained.write_tiktoken(path)
    before = path.read_bytes()
    monkeypatch.setattr(vocabulary_files.base64, "b64encode", lambda token: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trained.write_tiktoken(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["small.tiktoken"]
