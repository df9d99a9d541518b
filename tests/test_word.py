"""Whole words: every character in exactly one token, the unknown counted, special tokens, streams."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.any_text import chunks_of
from tiny_transformer.config import ConfigError
from tiny_transformer.tokenization.special_tokens import split_special_stream
from tiny_transformer.tokenization.word import WordTokenizer

ANY = st.text(st.characters(exclude_categories=()), max_size=40)
PARTS = ["a", "don't", " ", "  ", "\n", "é", "e\u0301", "נ", "।", "👩‍👩‍👧", "🏳️‍🌈", "_x1", "’", "中文", "\x1c", "\u2028", "<s>"]
WORDY = st.lists(st.sampled_from(PARTS)).map("".join)


@given(ANY | WORDY)
@settings(max_examples=1200, deadline=None)
def test_text_comes_back_when_all_words_are_known(text):
    tokenizer = WordTokenizer.train(text + "\nx", special_tokens=["<s>"])
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.unknown_share(text) == 0
    assert WordTokenizer.train("<s>" + text).decode(WordTokenizer.train("<s>" + text).encode(text)) == text


@given(WORDY, st.lists(st.integers(1, 6)), st.sampled_from(["natural", "wikitext"]), st.sampled_from(["all", "none", ["<s>"]]))
@settings(max_examples=800, deadline=None)
def test_a_stream_is_the_joined_text_wherever_it_is_cut(text, sizes, style, allowed):
    tokenizer = WordTokenizer.train("a don't \n é 中文 ' _x1 ", special_tokens=["<s>", "<s>a"], style=style)
    assert list(tokenizer.encode_iterable(chunks_of(text, sizes), allowed)) == tokenizer.encode(text, allowed)


@given(st.lists(st.sampled_from(["a", "ab", "abc", "bca", "<", "<<", "x"]), max_size=12), st.integers(1, 5))
@settings(max_examples=500, deadline=None)
def test_special_tokens_in_a_stream(parts, size):
    text, tokens = "".join(parts), ["ab", "abca", "<<", "b"]
    whole = WordTokenizer.train("z", special_tokens=tokens)
    streamed = list(split_special_stream([text[i : i + size] for i in range(0, len(text), size)], tokens))
    assert "".join(part for part, _ in streamed) == text
    ids = whole.encode(text)
    expected = [whole.pieces[i] for i in ids if whole.pieces[i] in tokens]
    assert [part for part, is_special in streamed if is_special] == expected


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("The cat, the cat!", ["The", " cat", ",", " the", " cat", "!"]),
        ("don't  stop\n", ["don't", " ", " stop", "\n"]),
        ("'tis rock'n'roll'", ["'", "tis", " rock'n'roll", "'"]),
        ("naïve cafe\u0301 नमस्ते", ["naïve", " cafe\u0301", " नमस्ते"]),
        ("3.14 $5", ["3", ".", "14", " $", "5"]),
    ],
)
def test_where_words_begin_and_end(text, tokens):
    tokenizer = WordTokenizer.train(text)
    assert [tokenizer.pieces[i] for i in tokenizer.encode(text)] == tokens


def test_frequent_words_come_first_and_rare_ones_are_left_out():
    assert WordTokenizer.train("b " * 3 + "b").pieces == ["<unk>", " b", "b"]
    tokenizer = WordTokenizer.train(" b b b a a c c d", vocab_size=4)
    assert tokenizer.pieces == ["<unk>", " b", " a", " c"]
    assert WordTokenizer.train(" b b b a a c c d", min_count=2).pieces == ["<unk>", " b", " a", " c"]
    assert WordTokenizer.train(" b b b a a c c d", min_count=3).pieces == ["<unk>", " b"]
    assert WordTokenizer.train(" b b", vocab_size=100).vocab_size == 2


def test_the_unknown_is_counted_and_named():
    tokenizer = WordTokenizer.train(" b a")
    found = tokenizer.unknowns(" b z z y <unk>")
    assert (found.words, found.unknown, found.masked, found.most) == (6, 4, 1, [(" z", 2), (" ", 1), (" y", 1)])
    assert tokenizer.unknown_share(" b z z y") == 3 / 4
    assert tokenizer.unknown_share("") == 0
    assert tokenizer.encode(" b z") == [tokenizer.ids[" b"], tokenizer.special.unk]
    assert tokenizer.unknowns(" z y x", most=1).most == [(" x", 1)]


LINES = " \n = A title = \n \n The <unk> of cats , twice . \n"


def test_wikitext_style_comes_back_as_it_was():
    tokenizer = WordTokenizer.train(LINES, style="wikitext")
    ids = tokenizer.encode(LINES)
    assert tokenizer.decode(ids) == LINES
    assert [tokenizer.pieces[i] for i in ids][:7] == ["<eos>", "=", "A", "title", "=", "<eos>", "<eos>"]
    assert tokenizer.special.eos == tokenizer.ids["<eos>"] == 1
    assert tokenizer.special.unk == 0
    assert tokenizer.unknowns(LINES).masked == 1
    assert tokenizer.unknowns(LINES).unknown == 0
    assert tokenizer.encode("The cats") == [tokenizer.ids["The"], tokenizer.ids["cats"]]
    assert tokenizer.encode("dogs\n") == [0, 1]
    assert "\n" not in tokenizer.pieces


def test_wikitext_style_counts_like_a_plain_split():
    tokenizer = WordTokenizer.train(LINES, style="wikitext")
    counts = Counter(word for line in LINES.splitlines() for word in [*line.split(), "<eos>"])
    assert set(counts) == set(tokenizer.pieces)


def test_wikitext_2(corpora_dir):
    text = (corpora_dir / "wikitext2-valid.txt").read_text(encoding="utf-8")
    tokenizer = WordTokenizer.train(text, style="wikitext")
    expected = [word for line in text.split("\n")[:-1] for word in [*line.split(), "<eos>"]]
    ids = tokenizer.encode_array(text)
    assert ids.dtype == np.int32
    assert [tokenizer.pieces[i] for i in ids] == expected
    assert tokenizer.decode(ids) == text
    other = (corpora_dir / "wikitext2-test.txt").read_text(encoding="utf-8")
    assert 0 < tokenizer.unknown_share(other) < 0.2


@pytest.mark.parametrize("style", ["natural", "wikitext"])
def test_it_travels_through_json(style):
    tokenizer = WordTokenizer.train("a é\n", special_tokens=["<s>", "</s>"], style=style)
    values = json.loads(json.dumps(tokenizer.to_dict()))
    assert values["kind"] == "word"
    again = WordTokenizer.from_dict(values)
    assert again.to_dict() == tokenizer.to_dict()
    assert again.special == tokenizer.special
    assert again.encode("<s>a é b\n") == tokenizer.encode("<s>a é b\n")


def test_more_special_tokens_leave_the_old_ids():
    tokenizer = WordTokenizer.train("one two", special_tokens=["<s>"])
    more = tokenizer.with_special_tokens(["<|im_start|>", " two"])
    assert more.pieces == [*tokenizer.pieces, "<|im_start|>"]
    assert list(more.special_tokens) == ["<unk>", "<s>", "<|im_start|>", " two"]
    assert more.encode("one two<|im_start|>") == [*tokenizer.encode("one two"), tokenizer.vocab_size]
    assert more.decode(more.encode("one<|im_start|> two"), skip_special=True) == "one"
    assert "<|im_start|>" not in tokenizer.special_tokens


def test_special_tokens_are_allowed_one_by_one():
    tokenizer = WordTokenizer.train("< > s b /", special_tokens=["<s>", "<b>"])
    s, b = tokenizer.special_tokens["<s>"], tokenizer.special_tokens["<b>"]
    assert tokenizer.encode("<s><b>") == [s, b]
    assert s in tokenizer.encode("<s><b>", ["<s>"])
    assert b not in tokenizer.encode("<s><b>", ["<s>"])
    assert not {s, b} & set(tokenizer.encode("<s><b>", "none"))
    assert tokenizer.decode([s, b, s], skip_special=True) == ""
    for wrong, words in (("some", "all.*none"), (["<x>"], "'<x>'.*<unk>, <s>, <b>")):
        with pytest.raises(ConfigError, match=words):
            tokenizer.encode("a", wrong)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: WordTokenizer.train(""), "without words"),
        (lambda: WordTokenizer.train("\n \n", style="wikitext"), "without words"),
        (lambda: WordTokenizer.train("a", vocab_size=1), "vocab_size=1: there are 1 special tokens.*at least 2"),
        (lambda: WordTokenizer.train("a a", min_count=5), "min_count=5: no word occurs more than 1 times"),
        (lambda: WordTokenizer.train("a", style="poem"), "style='poem'.*natural, wikitext"),
        (lambda: WordTokenizer(["<unk>", "a", "a"]), "piece 'a' twice"),
        (lambda: WordTokenizer(["<unk>", ""]), "each of them text"),
        (lambda: WordTokenizer([]), "at least one"),
        (lambda: WordTokenizer(["a"], []), "unknown token '<unk>'"),
        (lambda: WordTokenizer(["a", "<unk>"], []), "'<unk>': it must be among the special tokens"),
        (lambda: WordTokenizer(["a", "<unk>"], ["<unk>"], style="wikitext"), "'<eos>': it must be among"),
        (lambda: WordTokenizer(["<unk>", "a"], ["<unk>", "<s>"]), "special token '<s>'.*in the vocabulary"),
        (lambda: WordTokenizer.train("a").with_special_tokens(["x", "x"]), "special token 'x' occurs"),
        (lambda: WordTokenizer.train("a").decode([7]), "id 7 is not in the vocabulary.*0 to 1"),
        (lambda: WordTokenizer.train("a").decode([-1]), "id -1"),
        (lambda: WordTokenizer.from_dict({"kind": "word"}), "saved word tokenizer that does not open"),
        (lambda: WordTokenizer.from_dict({"kind": "word", "pieces": ["<unk>"], "colour": 1}), "does not open.*colour"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_in_one_line(make, words):
    with pytest.raises(ValueError, match=words) as error:
        make()
    assert "\n" not in str(error.value)
