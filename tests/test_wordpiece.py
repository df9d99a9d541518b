"""WordPiece: ids and text as the `tokenizers` library has them on any text; the quick ways equal the plain ones."""

import json
from collections import Counter
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.implementations import BertWordPieceTokenizer

from tests.any_text import ANY_TEXT, PARTS, chunks_of, many_texts
from tiny_transformer.config import ConfigError
from tiny_transformer.tokenization import normalizing
from tiny_transformer.tokenization.normalizing import BERT, bert_normalize, bert_words, normalize
from tiny_transformer.tokenization.wordpiece import WordPieceTokenizer, longest_match_first
from tiny_transformer.tokenization.wordpiece_training import count, merge, merge_plain, merge_quick

_EDGES = {edge + by for block in normalizing.CHINESE for edge in block for by in (-1, 0, 1)}
_CODES = {*range(0xD800), *range(0xE000, 0x20000), *range(0x20000, 0x110000, 89), *_EDGES, 0x10FFFF}
EVERY_CHARACTER = [chr(code) for code in sorted(_CODES)]
"""All of planes 0 and 1 but surrogates; above them, where there are only ideographs, private use and nothing yet, a sample."""
CASED = {**BERT, "lowercase": False}
LETTERS = st.text("ab", min_size=1, max_size=4)
ODD = {**BERT, "clean_text": False, "handle_chinese_chars": False, "strip_accents": True, "lowercase": False}


def library(tokenizer: WordPieceTokenizer) -> Tokenizer:
    """The same vocabulary in `tokenizers`."""
    theirs = Tokenizer(models.WordPiece(tokenizer.ids, unk_token="[UNK]", max_input_chars_per_word=tokenizer.max_chars))
    (step,) = tokenizer.normalizers
    theirs.normalizer = normalizers.BertNormalizer(**{key: value for key, value in step.items() if key != "type"})
    theirs.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    theirs.decoder = decoders.WordPiece(cleanup=tokenizer.cleanup)
    theirs.add_special_tokens(list(tokenizer.special_tokens))
    return theirs


@pytest.fixture(scope="module")
def trained() -> dict[str, tuple[WordPieceTokenizer, Tokenizer]]:
    """Tokenizers that know much of what they are asked, each with its twin."""
    text = " ".join([*PARTS, "don't won't then there other . " * 3, *many_texts(60, seed=1)])
    made = {
        name: WordPieceTokenizer.train(text, 900, normalizers=[step], min_count=1, max_chars=max_chars)
        for name, step, max_chars in (("uncased", BERT, 100), ("cased", CASED, 7), ("odd", ODD, 20))
    }
    return {name: (tokenizer, library(tokenizer)) for name, tokenizer in made.items()}


# --- normalization and words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("glue", ["", "x", " \u0301"])
@pytest.mark.parametrize("step", [BERT, CASED, ODD], ids=["uncased", "cased", "odd"])
def test_every_character_there_is_is_normalized_as_in_the_library(glue, step):
    text = glue.join(EVERY_CHARACTER)
    options = {key: value for key, value in step.items() if key != "type"}
    assert bert_normalize(text, **options) == normalizers.BertNormalizer(**options).normalize_str(text)


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents"])
def test_every_character_there_is_in_the_other_steps(form):
    text = "x".join(EVERY_CHARACTER)
    assert normalize(text, [{"type": form}]) == getattr(normalizers, form)().normalize_str(text)


def test_every_character_there_is_parts_words_as_in_the_library():
    text = "x".join(EVERY_CHARACTER)
    assert bert_words(text) == [word for word, _ in pre_tokenizers.BertPreTokenizer().pre_tokenize_str(text)]


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("right", [True, False])
def test_strip_takes_unicode_s_white_space(left, right):
    for text in (f"{normalizing.WHITE}a{normalizing.WHITE}", "\x1c a \x1f", normalizing.WHITE, ""):
        ours = normalize(text, [{"type": "Strip", "strip_left": left, "strip_right": right}])
        assert ours == normalizers.Strip(left=left, right=right).normalize_str(text)


def test_steps_follow_one_another():
    steps = [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]
    theirs = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    for text in ("a b", "", " ", "▁ a"):
        assert normalize(text, steps) == theirs.normalize_str(text)
    assert normalize("a b", steps, begins=False) == "a▁b"


# --- ids and text ---------------------------------------------------------------------------------------------------


@given(text=ANY_TEXT)
@example("a" * 100 + " " + "a" * 101)
@example("[CLS][SEP] [CLS]x[MASK]" + "e\u0301" * 99)
@settings(max_examples=600, deadline=None)
def test_ids_and_text_are_the_library_s(trained, text):
    for ours, theirs in trained.values():
        ids = theirs.encode(text).ids
        assert ours.encode(text) == ids
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=False)
        assert ours.decode(ids, skip_special=True) == theirs.decode(ids)


def test_ids_are_the_library_s_on_many_more_texts(trained):
    texts = many_texts(3000, seed=7)
    for ours, theirs in trained.values():
        expected = [encoding.ids for encoding in theirs.encode_batch(texts)]
        assert [ours.encode(text) for text in texts] == expected
        assert sum(ours.special.unk not in ids for ids in expected) > 500, "too few texts without an unknown word: a weak test"


def test_bert_s_own_front_end_agrees(trained, small_text):
    ours, _ = trained["uncased"]
    theirs = BertWordPieceTokenizer(ours.ids)
    assert ours.encode(small_text) == theirs.encode(small_text, add_special_tokens=False).ids


@given(st.text("ab", min_size=1, max_size=9), st.sets(LETTERS), st.sets(LETTERS))
@settings(max_examples=500, deadline=None)
def test_quick_matching_is_the_plain_one(word, heads, tails):
    pieces = ["[UNK]", *sorted(heads), *(f"##{tail}" for tail in sorted(tails))]
    tokenizer = WordPieceTokenizer(pieces, ["[UNK]"])
    plain = longest_match_first(word, set(pieces))
    assert [pieces[i] for i in tokenizer.encode(word)] == (["[UNK]"] if plain is None else plain)
    assert [pieces[i] for i in tokenizer.encode(f"{word} {word}")] == (["[UNK]"] if plain is None else plain) * 2


@given(ANY_TEXT, st.lists(st.integers(0, 9)), st.sampled_from(["uncased", "cased", "odd"]), st.sampled_from(["all", "none", ["[MASK]"]]))
@settings(max_examples=700, deadline=None)
def test_a_stream_is_the_joined_text_wherever_it_is_cut(trained, text, sizes, name, allowed):
    tokenizer, _ = trained[name]
    text = text + "[MASK] [MAS" + text
    assert list(tokenizer.encode_iterable(chunks_of(text, sizes), allowed)) == tokenizer.encode(text, allowed)


def test_a_stream_holds_no_more_than_a_word(trained):
    tokenizer, _ = trained["uncased"]
    longest = []
    inner = tokenizer._encode_segment
    tokenizer._encode_segment = lambda text, *flags: longest.append(len(text)) or inner(text, *flags)
    try:
        taken = list(tokenizer.encode_iterable("the other " for _ in range(3000)))
    finally:
        del tokenizer._encode_segment
    assert len(taken) == 6000
    assert max(longest) < 40


def test_steps_that_see_more_than_a_word_hold_the_stream_back():
    steps = [{"type": "Strip", "strip_left": True, "strip_right": True}, {"type": "Replace", "pattern": {"String": "b a"}, "content": "c"}]
    tokenizer = WordPieceTokenizer(["[UNK]", "a", "c", "##a", "##c"], ["[UNK]"], normalizers=steps)
    for text in ("ab a", " ab a b a "):
        assert list(tokenizer.encode_iterable(text)) == tokenizer.encode(text)


def test_clean_up_is_a_choice():
    pieces = ["[UNK]", "do", "not", "go", ".", "##es", "'", "s"]
    for cleanup in (True, False):
        ours = WordPieceTokenizer(pieces, ["[UNK]"], cleanup=cleanup)
        for ids in ([1, 2, 3, 5, 4], [5, 5, 3, 6, 7], [6, 7], [4, 4]):
            assert ours.decode(ids) == library(ours).decode(ids, skip_special_tokens=False)


def test_lone_surrogates_are_removed_not_fatal():
    assert bert_words(normalize("a\ud800b", [BERT])) == ["ab"]


# --- training -------------------------------------------------------------------------------------------------------


@given(
    st.dictionaries(st.text("abc", min_size=1, max_size=7), st.integers(1, 9), min_size=1, max_size=9),
    st.integers(1, 40), st.sampled_from(["likelihood", "frequency"]), st.integers(1, 4),
)  # fmt: skip
@settings(max_examples=500, deadline=None)
def test_quick_training_is_the_plain_one(counts, size, score, min_count):
    assert merge_quick(counts, size, score, min_count) == merge_plain(counts, size, score, min_count)


@given(st.dictionaries(st.text("abc", min_size=2, max_size=7), st.integers(1, 9), min_size=1, max_size=9))
@settings(max_examples=300, deadline=None)
def test_each_pair_is_the_best_by_exact_arithmetic(counts):
    """Fractions for the score, and no counting of ours."""
    pieces = merge_plain(counts, 1000, "likelihood", 1)
    words = {word: [word[0], *("##" + letter for letter in word[1:])] for word in counts}
    made = len({part for parts in words.values() for part in parts})
    while True:
        flat = Counter(part for word, parts in words.items() for part in parts * counts[word])
        pairs = Counter(pair for word, parts in words.items() for pair in list(pairwise(parts)) * counts[word])
        if not pairs:
            break
        best = max(pairs, key=lambda pair: (Fraction(pairs[pair], flat[pair[0]] * flat[pair[1]]), pairs[pair], pair))
        words = {word: merge(parts, best) for word, parts in words.items()}
        joined = best[0] + best[1][2:]
        if joined not in pieces[:made]:
            assert pieces[made] == joined
            made += 1
    assert made == len(pieces)


def test_merge_and_count_by_hand():
    assert merge(["a", "##a", "##a", "##a"], ("##a", "##a")) == ["a", "##aa", "##a"]
    assert merge(["a", "##b"], ("a", "##a")) == ["a", "##b"]
    singles, pairs = count({"aa": ["a", "##a"], "a": ["a"]}, {"aa": 2, "a": 3})
    assert singles == {"a": 5, "##a": 2}
    assert pairs == {("a", "##a"): 2}


def test_trained_by_frequency_it_compresses_like_the_library_s():
    text = Path(__file__).read_text(encoding="utf-8").replace("_", " ")
    ours = WordPieceTokenizer.train(text, 500, score="frequency", normalizers=[CASED])
    theirs = BertWordPieceTokenizer(lowercase=False)
    theirs.train_from_iterator([text], vocab_size=500, min_frequency=2, show_progress=False, special_tokens=list(ours.special_tokens))
    common = set(ours.pieces) & set(theirs.get_vocab())
    assert len(common) > 0.85 * 500  # theirs holds each character twice, with and without ##
    lengths = len(ours.encode(text, "none")), len(theirs.encode(text, add_special_tokens=False).ids)
    assert 0.97 < lengths[0] / lengths[1] < 1.03


def test_the_size_is_reached_or_the_reason_said(small_text):
    tokenizer = WordPieceTokenizer.train(small_text, 90)
    assert (tokenizer.vocab_size, tokenizer.why_smaller) == (90, "")
    assert tokenizer.pieces[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    few = WordPieceTokenizer.train("ab ab", 50)
    assert few.vocab_size == 5 + 3
    assert few.why_smaller == "8 pieces, not 50: no pair of neighbours occurs 2 times any more"
    assert WordPieceTokenizer.train(small_text, 90, ()).pieces[0] == "[UNK]"
    assert WordPieceTokenizer.train("a [SEP] b", 9).pieces == [*tokenizer.pieces[:5], "a", "b"]


def test_real_text_round_trips_up_to_what_is_lost(corpora_dir):
    text = (corpora_dir / "shakespeare.txt").read_text(encoding="utf-8")[:200_000]
    tokenizer = WordPieceTokenizer.train(text, 1000, score="frequency")
    ids = tokenizer.encode(text)
    assert tokenizer.special.unk not in ids
    assert ids == library(tokenizer).encode(text).ids
    assert tokenizer.encode(tokenizer.decode(ids)) == ids


# --- files and errors -----------------------------------------------------------------------------------------------


def test_vocab_txt_in_and_out(trained, tmp_path):
    tokenizer, _ = trained["uncased"]
    tokenizer.save_vocab_file(tmp_path / "vocab.txt")
    again = WordPieceTokenizer.from_vocab_file(tmp_path / "vocab.txt")
    assert again.pieces == tokenizer.pieces
    assert again.special == tokenizer.special
    assert {again.special.bos, again.special.eos, again.special.pad, again.special.unk, again.special.mask} == {2, 3, 0, 1, 4}
    theirs = BertWordPieceTokenizer(str(tmp_path / "vocab.txt"))
    assert theirs.encode("the other [MASK]", add_special_tokens=False).ids == again.encode("the other [MASK]")
    (tmp_path / "windows.txt").write_bytes(b"[UNK]\r\na\r\n##b")
    assert WordPieceTokenizer.from_vocab_file(tmp_path / "windows.txt", normalizers=[CASED]).pieces == ["[UNK]", "a", "##b"]


def test_it_travels_through_json(trained):
    for tokenizer, _ in trained.values():
        values = json.loads(json.dumps(tokenizer.to_dict()))
        again = WordPieceTokenizer.from_dict(values)
        assert values["kind"] == "wordpiece"
        assert again.to_dict() == tokenizer.to_dict()
        assert again.encode("The crème 東京") == tokenizer.encode("The crème 東京")


def test_more_special_tokens_leave_the_old_ids(trained):
    tokenizer, _ = trained["uncased"]
    more = tokenizer.with_special_tokens(["<tool>"])
    assert more.encode("the<tool>other") == [*tokenizer.encode("the"), tokenizer.vocab_size, *tokenizer.encode("other")]
    assert more.normalizers == tokenizer.normalizers


def test_special_text_that_is_not_allowed_is_ordinary():
    tokenizer = WordPieceTokenizer(["[UNK]", "sep", "a"], ["[UNK]", "sep"])
    assert tokenizer.encode("sep a") == [1, 2]
    assert tokenizer.encode("sep a", "none") == [0, 2]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: WordPieceTokenizer.train("", 100), "without words"),
        (lambda: WordPieceTokenizer.train("\u0301 \x00", 100), "without words"),
        (lambda: WordPieceTokenizer.train("abc", 7), "vocab_size=7: 5 special tokens and 3 characters .* need 8. Ask for 8 or more"),
        (lambda: WordPieceTokenizer.train("abc", 70, score="best"), "score='best'.*likelihood, frequency"),
        (lambda: WordPieceTokenizer(["a"]), r"unknown token '\[UNK\]'"),
        (lambda: WordPieceTokenizer(["[UNK]"], prefix=""), "must not be empty"),
        (lambda: WordPieceTokenizer(["[UNK]"], normalizers=[{"type": "Precompiled"}]), "normalizer 'Precompiled'.*BertNormalizer, NFC"),
        (lambda: WordPieceTokenizer(["[UNK]"], normalizers=["NFC"]), "normalizer None"),
        (lambda: WordPieceTokenizer(["[UNK]"], normalizers=[{"type": "NFC", "form": 1}]), "NFC must hold"),
        (lambda: WordPieceTokenizer(["[UNK]"], normalizers=[{"type": "BertNormalizer"}]), "must hold.*clean_text"),
        (
            lambda: WordPieceTokenizer(["[UNK]"], normalizers=[{"type": "Replace", "pattern": {"Regex": "a+"}, "content": ""}]),
            "Replace with.*Regex patterns are not honoured",
        ),
        (lambda: WordPieceTokenizer(["[UNK]"]).decode([1]), "id 1 is not in the vocabulary"),
        (lambda: WordPieceTokenizer(["[UNK]"]).encode("a", ["[SEP]"]), r"special token '\[SEP\]'.*none"),
        (lambda: WordPieceTokenizer(["[UNK]", "a\nb"]).save_vocab_file("nowhere"), "one piece a line"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_in_one_line(make, words):
    with pytest.raises(ConfigError if "id 1" not in words else ValueError, match=words) as error:
        make()
    assert "\n" not in str(error.value)


def test_a_vocabulary_file_that_is_none(tmp_path):
    (tmp_path / "vocab.txt").write_bytes(b"[UNK]\n\xff\xfe")
    with pytest.raises(ValueError, match=r"vocab.txt is not UTF-8 text \(byte 6\)"):
        WordPieceTokenizer.from_vocab_file(tmp_path / "vocab.txt")
    (tmp_path / "vocab.txt").write_bytes(b"[UNK]\n\na\n")
    with pytest.raises(ConfigError, match="each of them text"):
        WordPieceTokenizer.from_vocab_file(tmp_path / "vocab.txt")
