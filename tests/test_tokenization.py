"""Characters to ids and back: exactly, in the same order everywhere, with a clear word about the unknown."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tiny_transformer import tokenization
from tiny_transformer.config import ConfigError
from tiny_transformer.tokenization.char import CharTokenizer, UnknownCharacterError

ANY_TEXT = st.text(st.characters(exclude_categories=()))  # lone surrogates, astral characters, unassigned ones too


@given(ANY_TEXT.filter(bool))
@example("\ud800\udc00")  # two lone surrogates, not one astral character
@example("\U00010000\uffff\ud800")
@example("\x00\r\n\u2028")
@settings(max_examples=300, deadline=None)
def test_round_trip_of_any_text(text):
    tokenizer = CharTokenizer.train(text)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert len(ids) == len(text)
    assert sorted(set(ids)) == list(range(tokenizer.vocab_size))
    assert tokenizer.encode_array(text).tolist() == ids == [sorted(set(text)).index(c) for c in text]


@given(ANY_TEXT.filter(bool), ANY_TEXT)
@settings(max_examples=300, deadline=None)
def test_the_first_unknown_character_is_named_with_its_position(known, text):
    tokenizer = CharTokenizer.train(known)
    first = next((i for i, c in enumerate(text) if c not in known), None)
    if first is None:
        assert tokenizer.decode(tokenizer.encode(text)) == text
        return
    with pytest.raises(UnknownCharacterError) as error:
        tokenizer.encode(text)
    assert (error.value.position, error.value.character) == (first, text[first])
    line, column = text[:first].count("\n") + 1, len(text[:first].rsplit("\n", 1)[-1]) + 1
    assert f"{text[first]!r} (U+{ord(text[first]):04X}) at position {first} (line {line}, column {column})" in str(error.value)


@pytest.mark.parametrize("unknown", ["\x00", "a", "n", "z", "\uffff", "😀"])
def test_characters_below_between_and_above_the_known_ones_are_unknown(unknown):
    with pytest.raises(UnknownCharacterError):
        CharTokenizer.train("bmy").encode("bmy" + unknown)


def test_the_message_says_where_and_what_to_do():
    with pytest.raises(UnknownCharacterError, match=r"'é' \(U\+00E9\) at position 9 \(line 2, column 4\).*'\\n abcdf'\. Leave it out"):
        CharTokenizer.train("abc\nfad ").encode("abc d\nfaaé")


def test_a_large_vocabulary_does_not_flood_the_message():
    tokenizer = CharTokenizer([chr(0x4E00 + i) for i in range(5000)])
    with pytest.raises(UnknownCharacterError, match="5000 characters") as error:
        tokenizer.encode("a")
    assert len(str(error.value)) < 300


def test_vocabulary_does_not_depend_on_hash_order():
    code = "from tiny_transformer.tokenization.char import CharTokenizer as C; print(C.train('Friends, Romans, countrymen!').to_dict())"
    printed = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": str(seed)}, capture_output=True, text=True, check=True
        ).stdout
        for seed in range(4)
    }
    assert len(printed) == 1
    assert " !,FRacdeimnorstuy" in printed.pop()


def test_ids_as_an_array():
    ids = CharTokenizer.train("abc").encode_array("cab")
    assert ids.dtype == np.int32
    assert ids.tolist() == [2, 0, 1]
    assert CharTokenizer.train("abc").encode_array("").tolist() == []


def test_it_travels_through_json():
    tokenizer = CharTokenizer.train('né"\\\n\ud800😀')
    again = tokenization.from_dict(json.loads(json.dumps(tokenizer.to_dict())))
    assert isinstance(again, CharTokenizer)
    assert again.symbols == tokenizer.symbols
    assert again.to_dict() == tokenizer.to_dict() == {"kind": "char", "symbols": "".join(tokenizer.symbols)}


@pytest.mark.parametrize("values", [{"kind": "morse"}, {}, {"kind": None}])
def test_an_unknown_kind_lists_the_known_ones(values):
    with pytest.raises(ConfigError, match="tokenizer kind.*char"):
        tokenization.from_dict(values)
    with pytest.raises(AttributeError, match="from_dictionary"):
        tokenization.from_dictionary  # noqa: B018


def test_symbols_in_any_order_keep_their_ids():
    tokenizer = CharTokenizer(["z", "a", "m"])
    assert tokenizer.encode("amz") == [1, 2, 0]
    assert tokenizer.decode(np.array([0, 1])) == "za"
    assert tokenization.from_dict(tokenizer.to_dict()).encode("amz") == [1, 2, 0]


@pytest.mark.parametrize("symbols", [[], ["ab"], ["a", "a"], [""]])
def test_impossible_vocabularies(symbols):
    with pytest.raises(ValueError, match="at least one, each a single character, none twice"):
        CharTokenizer(symbols)


def test_an_empty_text_teaches_nothing():
    with pytest.raises(ValueError, match="empty"):
        CharTokenizer.train("")


@pytest.mark.parametrize("wrong", [2, -1, 2**40])
def test_ids_outside_the_vocabulary(wrong):
    with pytest.raises(ValueError, match=f"id {wrong} is not in the vocabulary.*0 to 1"):
        CharTokenizer.train("ab").decode([0, wrong])


def test_there_are_no_special_tokens():
    special = CharTokenizer.train("ab").special
    assert {special.bos, special.eos, special.pad, special.unk, special.mask} == {None}
    assert CharTokenizer.train("ab").decode([]) == ""


def test_tiny_shakespeare_has_65_characters(corpora_dir):
    text = (corpora_dir / "shakespeare.txt").read_text(encoding="utf-8")
    tokenizer = CharTokenizer.train(text)
    assert tokenizer.vocab_size == 65
    assert tokenizer.decode(tokenizer.encode_array(text)) == text
