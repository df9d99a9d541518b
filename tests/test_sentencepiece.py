"""SentencePiece's own files: the ids and texts of the `sentencepiece` package, for BPE and Unigram in several settings."""

import functools
import io
import random

import pytest
from hypothesis import given, settings

from tests.any_text import ANY_TEXT, PARTS, many_texts
from tiny_transformer.config import ConfigError
from tiny_transformer.pretrained.tokenizer_files import read_tokenizer
from tiny_transformer.tokenization import from_dict
from tiny_transformer.tokenization.files import load_tokenizer
from tiny_transformer.tokenization.hugging_face import load_tokenizer_json, to_tokenizer_json
from tiny_transformer.tokenization.metaspace_bpe import MetaspaceBPE
from tiny_transformer.tokenization.sentencepiece_model import Piece, fields, load_sentencepiece, merges, read_model
from tiny_transformer.tokenization.unigram import UnigramTokenizer

sentencepiece = pytest.importorskip("sentencepiece", reason="the `test` extra has sentencepiece, the peer of its own files")

SPEECH = "to be or not that is the question whether tis nobler in mind suffer slings and arrows of outrageous fortune"
WORDS = [*PARTS, *SPEECH.split()]
PLAIN = {"normalization_rule_name": "identity"}
KEEP = {**PLAIN, "remove_extra_whitespaces": False}
SETTINGS = {
    "bpe, llama 2": {"model_type": "bpe", "byte_fallback": True, **KEEP, "split_digits": True, "allow_whitespace_only_pieces": True},
    "bpe": {"model_type": "bpe", **PLAIN},
    "bpe, no prefix, symbols": {"model_type": "bpe", **KEEP, "add_dummy_prefix": False, "user_defined_symbols": ["<sep>", "be", "<s"]},
    "bpe, across words": {"model_type": "bpe", **KEEP, "split_by_whitespace": False, "vocab_size": 300},
    "unigram": {"model_type": "unigram", **PLAIN},
    "unigram, bytes": {"model_type": "unigram", "byte_fallback": True, **KEEP, "vocab_size": 420},
    "unigram, no prefix, symbols": {"model_type": "unigram", **KEEP, "add_dummy_prefix": False, "user_defined_symbols": ["<sep>", "to"]},
    "unigram, no prefix": {"model_type": "unigram", **PLAIN, "add_dummy_prefix": False},
    "unigram, across words": {"model_type": "unigram", **KEEP, "split_by_whitespace": False},
}


def trained(**more):
    """A small model, as the bytes of its file."""
    choose, out = random.Random(5), io.BytesIO()
    lines = (" ".join(choose.choices(WORDS, k=9)).replace("\n", " ").replace("\x00", "") for _ in range(400))
    vocab_size = more.pop("vocab_size", 420 if more.get("byte_fallback") else 180)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=out, vocab_size=vocab_size, minloglevel=2, num_threads=1, hard_vocab_limit=False,
        character_coverage=0.98, **more,
    )  # fmt: skip
    return out.getvalue()


@functools.cache
def pair(name, folder):
    """(theirs, ours)"""
    file = folder / f"{name}.model"
    file.write_bytes(trained(**SETTINGS[name]))
    return sentencepiece.SentencePieceProcessor(model_file=str(file)), load_sentencepiece(file)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


def spelled(ours, ids):
    return [ours.pieces[i] for i in ids]


def assert_same(theirs, ours, text):
    """Control tokens are found in a text here, as in tokenizer.json, and there they are not: such texts are left out."""
    if any(token in text for token in ("<s>", "</s>", "<unk>")):
        return
    wanted, found = theirs.encode(text), ours.encode(text)
    assert spelled(ours, found) == spelled(ours, wanted)
    if theirs.unk_id() not in wanted and not text.lstrip(" ").startswith("▁"):
        assert ours.decode(found) == theirs.decode(wanted)


@pytest.mark.parametrize("name", SETTINGS)
@settings(max_examples=120, deadline=None, derandomize=True)
@given(text=ANY_TEXT)
def test_ids_and_text_are_the_package_s(name, text, folder):
    assert_same(*pair(name, folder), text)


@pytest.mark.parametrize("name", SETTINGS)
def test_on_many_more_texts(name, folder):
    theirs, ours = pair(name, folder)
    odd = ("", " ", "   ", "▁", " ▁ ", "a  b", " to  be<sep> or <sep><sep>not ", "bebe be", "<s<s", "tototo ")
    for text in (*many_texts(1500, seed=3), *odd):
        assert_same(theirs, ours, text)


@pytest.mark.parametrize("name", SETTINGS)
def test_it_travels_as_our_json_and_as_tokenizer_json(name, folder):
    """The `tokenizers` library reads what we write of it, with the same ids."""
    tokenizers = pytest.importorskip("tokenizers", reason="the `test` extra has it")
    import json

    _, ours = pair(name, folder)
    values = to_tokenizer_json(ours)
    library, back, again = tokenizers.Tokenizer.from_str(json.dumps(values)), load_tokenizer_json(values), from_dict(ours.to_dict())
    assert type(ours) is (MetaspaceBPE if name.startswith("bpe") else UnigramTokenizer)
    for text in (*many_texts(150, seed=4), " to  be<sep> or <sep><sep>not ", "<s>to be</s>"):
        ids = ours.encode(text)
        assert library.encode(text, add_special_tokens=False).ids == back.encode(text) == again.encode(text) == ids
        assert list(ours.encode_iterable([text[:3], text[3:7], text[7:]])) == ids, "in a stream too"


def test_a_directory_with_this_file_alone(folder, tmp_path):
    theirs, _ = pair("bpe, llama 2", folder)
    (tmp_path / "tokenizer.model").write_bytes((folder / "bpe, llama 2.model").read_bytes())
    for found in (read_tokenizer(tmp_path, "llama", 1000), load_tokenizer(tmp_path), load_tokenizer(tmp_path / "tokenizer.model")):
        assert found.encode("to be, 東京 👍") == theirs.encode("to be, 東京 👍")
        assert (found.special.bos, found.special.eos, found.special.unk) == (theirs.bos_id(), theirs.eos_id(), theirs.unk_id())
    with pytest.raises(ConfigError, match="every token must have a place"):
        read_tokenizer(tmp_path, "llama", 10)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"model_type": "bpe"}, ["nmt_nfkc", "identity"]),
        ({"model_type": "unigram", "normalization_rule_name": "nfkc_cf"}, ["nfkc_cf"]),
        ({"model_type": "char", **PLAIN}, ["kind 4", "Unigram and BPE"]),
        ({"model_type": "word", **PLAIN}, ["kind 3"]),
        ({"model_type": "bpe", **PLAIN, "treat_whitespace_as_suffix": True}, ["treat_whitespace_as_suffix"]),
        ({"model_type": "bpe", **KEEP, "user_defined_symbols": ["<sep>"]}, ["'<sep>'", "add_dummy_prefix"]),
        ({"model_type": "bpe", **KEEP, "add_dummy_prefix": False, "user_defined_symbols": ["▁▁"]}, ["symbols ▁▁", "no space"]),
        ({"model_type": "bpe", **PLAIN, "add_dummy_prefix": False, "user_defined_symbols": ["<x>"]}, ["'<x>'", "remove_extra_whitespaces"]),
    ],
)
def test_what_we_do_not_have_is_refused_by_name(more, words, tmp_path):
    file = tmp_path / "tokenizer.model"
    file.write_bytes(trained(**more))
    with pytest.raises(ConfigError) as caught:
        load_sentencepiece(file)
    line = str(caught.value)
    assert all(word in line for word in [*words, str(file)]) and "\n" not in line


def message(*pieces):
    """A file with these pieces alone, by the package's own classes."""
    from sentencepiece import sentencepiece_model_pb2 as schema

    made = schema.ModelProto()
    for text, score, kind in pieces:
        made.pieces.add(piece=text, score=score, type=kind)
    made.trainer_spec.model_type = 2
    made.normalizer_spec.name = "identity"
    return made


SOME = [("<unk>", 0.0, 2), ("▁", -1.0, 1), ("a", -2.0, 1), ("b", -3.0, 1)]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ([("ab", -0.5, 1), ("ba", -0.5, 1)], "the same score"), ([("ac", -0.5, 1)], "pieces with 'c'"),
        ([("ab", -0.5, 5)], "unused piece 'ab'"), ([("<u>", 0.0, 2)], "2 unknown pieces"),
    ],
)  # fmt: skip
def test_odd_vocabularies_are_refused(more, words, tmp_path):
    file = tmp_path / "tokenizer.model"
    file.write_bytes(message(*SOME, *more).SerializeToString())
    with pytest.raises(ConfigError, match=words):
        load_sentencepiece(file)


def test_what_a_file_says_is_what_their_schema_reads(folder):
    from sentencepiece import sentencepiece_model_pb2 as schema

    for name, asked in SETTINGS.items():
        pair(name, folder)
        file = folder / f"{name}.model"
        wanted, found = schema.ModelProto.FromString(file.read_bytes()), read_model(file)
        assert found.pieces == [Piece(piece.piece, piece.score, piece.type) for piece in wanted.pieces]
        assert (found.kind, found.byte_fallback) == (wanted.trainer_spec.model_type, wanted.trainer_spec.byte_fallback)
        assert (found.dummy_prefix, found.one_space) == (asked.get("add_dummy_prefix", True), asked.get("remove_extra_whitespaces", True))


def test_merges_by_score_and_every_way_to_make_a_piece():
    pieces = [Piece("a", -9), Piece("b", -8), Piece("ab", -2), Piece("bab", -1), Piece("abab", -3), Piece("zz", -1)]
    assert merges(pieces) == [("b", "ab"), ("a", "b"), ("ab", "ab"), ("a", "bab")]


def test_damaged_files_are_one_line(folder, tmp_path):
    pair("bpe", folder)
    content, file = (folder / "bpe.model").read_bytes(), tmp_path / "x.model"
    broken = [b"", b"\x00", b"{}", b"\xff" * 40, content[:-1], content[:100], b"\x0a\xff\xff\xff\xff\x0f", b"\x0b" + content, content[3:]]
    for data in broken:
        file.write_bytes(data)
        with pytest.raises(ConfigError, match=r"x\.model") as caught:
            load_sentencepiece(file)
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="can't be read"):
        load_sentencepiece(tmp_path / "none.model")
    with pytest.raises(ValueError, match="without an end"):
        list(fields(b"\x80" * 11))
