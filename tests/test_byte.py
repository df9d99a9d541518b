"""Bytes as ids: Python's own UTF-8 is the oracle."""

import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tiny_transformer import tokenization
from tiny_transformer.config import ConfigError
from tiny_transformer.tokenization.byte import ByteTokenizer

ANY_TEXT = st.text(st.characters(exclude_categories=()))
SPECIAL = ["<s>", "</s>", "<s"]


@given(ANY_TEXT, st.lists(st.integers(0, 30)))
@example("\ud83d\ude00", [1])
@example("\ude00\ud83d", [1, 1])
@settings(max_examples=400, deadline=None)
def test_ids_are_the_bytes(text, cuts):
    tokenizer = ByteTokenizer()
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert tokenizer.encode(text) == tokenizer.encode_array(text).tolist() == list(whole.encode())
    assert tokenizer.decode(tokenizer.encode(text)) == whole
    chunks = [text[begin:end] for begin, end in zip([0, *sorted(cuts)], [*sorted(cuts), None], strict=True)]
    assert list(tokenizer.encode_iterable(chunks)) == list(whole.encode())


@given(st.lists(st.sampled_from(["<s>", "</s>", "<s", "<", "/s>", ">", "s", "é", "a"])).map("".join), st.integers(1, 5))
@settings(max_examples=400, deadline=None)
def test_special_tokens_longest_first(text, step):
    tokenizer = ByteTokenizer(SPECIAL)
    expected, i = [], 0
    while i < len(text):
        found = max((token for token in SPECIAL if text.startswith(token, i)), key=len, default="")
        expected += [256 + SPECIAL.index(found)] if found else text[i].encode()
        i += len(found) or 1
    assert tokenizer.encode(text) == expected
    assert list(tokenizer.encode_iterable(text[i : i + step] for i in range(0, len(text), step))) == expected
    assert tokenizer.encode(text, "none") == list(text.encode())
    assert tokenizer.decode(expected) == text


@given(st.lists(st.integers(0, 258)))
@settings(max_examples=300, deadline=None)
def test_any_ids_decode(ids):
    tokenizer = ByteTokenizer(SPECIAL)
    data = b"".join(bytes([i]) if i < 256 else SPECIAL[i - 256].encode() for i in ids)
    assert tokenizer.decode_bytes(ids) == data
    assert tokenizer.decode(np.array(ids, dtype=np.int64)) == data.decode("utf-8", errors="replace")


@pytest.mark.parametrize("wrong", [-1, 257, 2**40])
def test_ids_outside_the_vocabulary(wrong):
    with pytest.raises(ValueError, match=f"id {wrong} is not in the vocabulary.*0 to 256"):
        ByteTokenizer(["<s>"]).decode([0, wrong])


def test_allow_list_roles_and_growth():
    tokenizer = ByteTokenizer(["<s>", "</s>"])
    assert tokenizer.encode("<s></s>", allowed_special=["</s>"]) == [*b"<s>", 257]
    assert (tokenizer.special.bos, tokenizer.special.eos, tokenizer.special.pad) == (256, 257, None)
    more = tokenizer.with_special_tokens(["<pad>", "</s>"])
    assert (more.vocab_size, more.encode("<s></s><pad>")) == (259, [256, 257, 258])
    assert tokenizer.vocab_size == 258
    assert tokenizer.encode_array("é<s>").dtype == tokenizer.encode_array("").dtype == np.int32
    with pytest.raises(ConfigError, match="special token '<x>': this vocabulary's special tokens are: <s>, </s>"):
        tokenizer.encode("a", allowed_special=["<x>"])


def test_training_learns_nothing_and_checks_the_size():
    assert ByteTokenizer.train("whatever").to_dict() == ByteTokenizer.train().to_dict() == ByteTokenizer().to_dict()
    assert ByteTokenizer.train("", 257, ["<s>"]).vocab_size == 257
    with pytest.raises(ConfigError, match="vocab_size=256: the byte tokenizer has 257 tokens"):
        ByteTokenizer.train("", 256, ["<s>"])


def test_it_travels_through_json():
    tokenizer = ByteTokenizer(["<s>", "é"])
    again = tokenization.from_dict(json.loads(json.dumps(tokenizer.to_dict())))
    assert isinstance(again, ByteTokenizer)
    assert again.encode("é<s>") == [257, 256]
