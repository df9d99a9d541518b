"""One table of all kinds, and the character tokenizer's part in it: special tokens, streams, training by name."""

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny_transformer import tokenization
from tiny_transformer.config import ConfigError
from tiny_transformer.tokenization import registry
from tiny_transformer.tokenization.char import CharTokenizer, UnknownCharacterError
from tiny_transformer.tokenization.special_tokens import allowed, numbered, roles, split_special, split_special_stream

TEXT = "to be or not to be, that is the question: whether 'tis nobler in the mind to suffer the slings and arrows " * 4


@pytest.mark.parametrize(("kind", "size"), [("char", None), ("char", 60), ("byte", None), ("bpe", 300)])
def test_every_kind_is_trained_saved_and_read_by_name(kind, size):
    tokenizer = tokenization.train(kind, TEXT, size, special_tokens=["<pad>"])
    assert isinstance(tokenizer, registry.class_of(kind))
    ids = tokenizer.encode("to be<pad>")
    assert tokenizer.decode(ids) == "to be<pad>"
    assert ids == tokenizer.encode_array("to be<pad>").tolist() == list(tokenizer.encode_iterable(["to b", "e<p", "ad>"]))
    assert tokenizer.special.pad == ids[-1] == tokenizer.vocab_size - 1
    values = json.loads(json.dumps(tokenizer.to_dict()))
    assert values["kind"] == kind
    assert tokenization.from_dict(values).encode("to be<pad>") == ids


def test_what_is_asked_for_wrongly_is_one_line():
    for call, says in [
        (lambda: tokenization.train("morse", TEXT), "tokenizer kind='morse': it must be one of char, byte, word, bpe, wordpiece, unigram"),
        (lambda: tokenization.train("bpe", TEXT), "the bpe tokenizer learns its vocabulary"),
        (lambda: tokenization.train("bpe", TEXT, 300, splits="gpt2"), "option 'splits': the bpe tokenizer is trained with split, on_merge"),
        (lambda: tokenization.train("byte", TEXT, split="gpt2"), "option 'split': the byte tokenizer is trained with no options"),
        (lambda: tokenization.train("char", TEXT, 5), "vocab_size=5: the text has "),
        (lambda: tokenization.from_dict({"kind": "bpe"}), "a saved bpe tokenizer without 'vocab'"),
    ]:
        with pytest.raises(ValueError) as error:
            call()
        assert says in str(error.value)
        assert "\n" not in str(error.value)
    assert tokenization.train("bpe", TEXT, 300, split="none").split == "none"


def test_a_kind_is_loaded_only_when_asked_for():
    code = "import sys; from tiny_transformer import tokenization as t; t.train('char', 'a'); print([m for m in sys.modules if 'bpe' in m])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_characters_with_special_tokens():
    tokenizer = CharTokenizer.train("ab<s>ba", special_tokens=["<s>", "</s>"])
    assert (tokenizer.symbols, tokenizer.vocab_size) == (["a", "b"], 4)
    assert tokenizer.encode("<s>ab</s><s>") == [2, 0, 1, 3, 2]
    with pytest.raises(UnknownCharacterError, match="'<' .U.003C. at position 1 "):
        tokenizer.encode("a<s>", allowed_special="none")
    with pytest.raises(UnknownCharacterError, match="'x' .U.0078. at position 5 .line 1, column 6.*'ab'"):
        tokenizer.encode("<s>abx")
    assert tokenizer.with_special_tokens(["<pad>", "<s>"]).encode("a<pad>") == [0, 4]
    assert CharTokenizer.from_dict(tokenizer.to_dict()).encode("<s>ab</s>") == [2, 0, 1, 3]
    with pytest.raises(ValueError, match="empty"):
        CharTokenizer.train("<s>", special_tokens=["<s>"])
    assert CharTokenizer.train("ab", 2).vocab_size == 2


TOKENS = st.lists(st.text("ab<", min_size=1, max_size=4), max_size=4, unique=True)


@given(st.text("ab<", max_size=30), TOKENS, st.integers(1, 7))
@settings(max_examples=800, deadline=None)
def test_texts_are_cut_at_special_tokens_longest_first(text, tokens, step):
    expected, ordinary, i = [], "", 0
    while i <= len(text):
        found = max((token for token in tokens if text.startswith(token, i)), key=len, default="") if i < len(text) else ""
        if (found or i == len(text)) and ordinary:
            expected, ordinary = [*expected, (ordinary, False)], ""
        if found:
            expected.append((found, True))
        elif i < len(text):
            ordinary += text[i]
        i += len(found) or 1
    assert list(split_special(text, tokens)) == expected
    joined: list[tuple[str, bool]] = []
    for piece, is_special in split_special_stream((text[i : i + step] for i in range(0, len(text), step)), tokens):
        assert piece
        if joined and not is_special and not joined[-1][1]:
            joined[-1] = (joined[-1][0] + piece, False)
        else:
            joined.append((piece, is_special))
    assert joined == expected


def test_ids_roles_and_permission():
    assert numbered(["<s>", "a", "</s>"], 256, {"a": 97}) == {"<s>": 256, "a": 97, "</s>": 257}
    assert numbered({"<s>": 7}, 256) == {"<s>": 7}
    found = roles({"[CLS]": 1, "[SEP]": 2, "[PAD]": 0, "[UNK]": 3, "[MASK]": 4, "<s>": 9})
    assert (found.bos, found.eos, found.pad, found.unk, found.mask) == (9, 2, 0, 3, 4)
    assert allowed({"<s>": 1}, "all") == {"<s>": 1}
    assert allowed({"<s>": 1}, "none") == allowed({"<s>": 1}, []) == {}
    with pytest.raises(ConfigError, match="'<x>'.*special tokens are: none"):
        allowed({}, ["<x>"])
