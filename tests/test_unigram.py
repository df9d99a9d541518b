"""Unigram: the best way among all there are, ids as the `tokenizers` library has them, training that never gets worse."""

import itertools
import json
import math
from collections import Counter
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from tests.any_text import ANY_TEXT, PARTS, chunks_of, many_texts
from tiny_transformer.tokenization.byte_pieces import BYTE_PIECES, fuse_bytes, to_byte_pieces
from tiny_transformer.tokenization.unigram import UnigramTokenizer
from tiny_transformer.tokenization.unigram_lattice import best_path, best_path_plain, build_trie, expected_plain, n_best, sample_path
from tiny_transformer.tokenization.unigram_training import Lattices, losses, maximize, seed_pieces, train_pieces

SOME_SCORES = st.dictionaries(st.text("abc", min_size=1, max_size=4), st.floats(-9, -0.1), max_size=12)
WORDS = st.dictionaries(st.text("abc", min_size=1, max_size=6), st.integers(1, 9), min_size=1, max_size=8)


def library(tokenizer: UnigramTokenizer) -> Tokenizer:
    """The same vocabulary and settings in `tokenizers`."""
    vocabulary = list(zip(tokenizer.pieces, tokenizer.scores, strict=True))
    theirs = Tokenizer(models.Unigram(vocabulary, tokenizer.ids[tokenizer.unknown], byte_fallback=tokenizer.byte_fallback))
    names = [getattr(normalizers, step["type"])() for step in tokenizer.normalizers]
    if names:
        theirs.normalizer = normalizers.Sequence(names)
    mark = pre_tokenizers.Metaspace(prepend_scheme=tokenizer.prepend, split=tokenizer.split)
    lines = [pre_tokenizers.Split("\n", "isolated")] if tokenizer.lines else []
    theirs.pre_tokenizer = pre_tokenizers.Sequence([*lines, mark])
    unmark = decoders.Metaspace(prepend_scheme=tokenizer.prepend)
    theirs.decoder = decoders.Sequence([unmark, decoders.ByteFallback()]) if tokenizer.byte_fallback else unmark
    theirs.add_special_tokens(list(tokenizer.special_tokens))
    return theirs


def all_ways(word: str, scores: dict[str, float], unknown: float) -> list[tuple[float, list[str]]]:
    """Every way to cut, by brute force; the score summed from the left."""
    ways = []
    for bars in itertools.product([False, True], repeat=max(len(word) - 1, 0)):
        places = [0, *(i + 1 for i, bar in enumerate(bars) if bar), len(word)]
        pieces = [word[a:b] for a, b in itertools.pairwise(places)] if word else []
        values = [scores.get(piece, unknown if len(piece) == 1 else None) for piece in pieces]
        if None not in values:
            ways.append((sum(values, start=0.0), pieces))
    return ways


# --- the lattice ----------------------------------------------------------------------------------------------------


@given(st.text("abcd", max_size=8), SOME_SCORES)
@example("aaaa", {"a": -1.0, "aa": -2.0})  # all ways alike
@settings(max_examples=500, deadline=None)
def test_the_best_way_is_the_best_of_all(word, scores):
    plain = best_path_plain(word, scores, -20.0)
    ways = all_ways(word, scores, -20.0)
    best = max(score for score, _ in ways)
    assert math.isclose(next(score for score, pieces in ways if pieces == plain), best, abs_tol=1e-9)
    assert best_path(word, build_trie(scores), -20.0) == plain
    assert "".join(plain) == word


@given(st.text("abcd", max_size=7), SOME_SCORES, st.integers(1, 12))
@settings(max_examples=400, deadline=None)
def test_the_n_best_ways_are_the_first_of_all(word, scores, n):
    found = n_best(word, build_trie(scores), -20.0, n)
    expected = sorted((score for score, _ in all_ways(word, scores, -20.0)), reverse=True)[:n]
    assert np.allclose([score for score, _ in found], expected)
    assert len({tuple(pieces) for _, pieces in found}) == len(found) == len(expected)
    for score, pieces in found:
        assert "".join(pieces) == word
        assert math.isclose(score, sum(scores.get(piece, -20.0) for piece in pieces), abs_tol=1e-9)


def test_of_equally_good_ways_the_last_piece_is_the_longer():
    assert best_path_plain("aaa", {"a": -1.0, "aa": -2.0, "aaa": -3.0}, -9) == ["aaa"]
    assert best_path_plain("aaa", {"a": -1.0, "aa": -2.0}, -9) == ["a", "aa"]


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 3.0])
def test_chance_takes_each_way_in_proportion(alpha):
    scores = {"a": -1.0, "b": -2.0, "c": -1.5, "ab": -2.5, "bc": -2.0, "abc": -4.0}
    ways = [(alpha * score, "|".join(pieces)) for score, pieces in all_ways("abcd", scores, -5.0)]
    total = sum(math.exp(score) for score, _ in ways)
    generator = np.random.default_rng(3)
    drawn = 6000
    counts = Counter("|".join(sample_path("abcd", build_trie(scores), -5.0, alpha, generator)) for _ in range(drawn))
    assert set(counts) <= {way for _, way in ways}
    surprise = sum((counts[way] - drawn * p) ** 2 / (drawn * p) for score, way in ways if (p := math.exp(score) / total))
    assert surprise < 18.5, "chi-square with 3 degrees of freedom: less than one in 2,000"


@given(WORDS, st.randoms(use_true_random=False))
@settings(max_examples=120, deadline=None)
def test_expected_counts_are_those_over_all_ways(words, chance):
    pieces = seed_pieces(words, 30, 4)
    scores = maximize(np.array([chance.random() + 0.01 for _ in pieces]))
    table = dict(zip(pieces, scores.tolist(), strict=True))
    log_total, expected = 0.0, Counter()
    for word, times in words.items():
        ways = [(math.exp(score), way) for score, way in all_ways(word, {**table}, -math.inf) if math.isfinite(score)]
        share = sum(p for p, _ in ways)
        log_total += times * math.log(share)
        for p, way in ways:
            for piece in way:
                expected[piece] += times * p / share
        log_plain, plain = expected_plain(word, table)
        assert math.isclose(log_plain, math.log(share), abs_tol=1e-9)
        for piece, value in plain.items():
            assert math.isclose(value, sum(p * way.count(piece) for p, way in ways) / share, abs_tol=1e-9)
    log_quick, quick = Lattices(words, pieces).expect(scores)
    assert math.isclose(log_quick, log_total, rel_tol=1e-9, abs_tol=1e-9)
    assert np.allclose(quick, [expected[piece] for piece in pieces])


# --- training -------------------------------------------------------------------------------------------------------


def words_of(text: str) -> Counter[str]:
    return Counter("▁" + word for word in text.split())


@given(WORDS, st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_no_round_makes_the_text_less_likely(words, chance):
    pieces = seed_pieces(words, 30, 4)
    lattices = Lattices(words, pieces)
    scores = maximize(np.array([chance.random() + 0.01 for _ in pieces]))
    before = -math.inf
    for _ in range(5):
        likelihood, expected = lattices.expect(scores)
        assert likelihood > before - 1e-6
        before, scores = likelihood, maximize(expected)
        assert math.isclose(np.exp(scores).sum(), 1.0)


@given(WORDS)
@settings(max_examples=300, deadline=None)
def test_seeds_are_the_substrings_that_cover_most(words):
    counts = Counter()
    for word, times in words.items():
        for i, j in itertools.combinations(range(len(word) + 1), 2):
            counts[word[i:j]] += times
    seeds = seed_pieces(words, 5, 3)
    longer = sorted((-n * len(piece), piece) for piece, n in counts.items() if 2 <= len(piece) <= 3 and n >= 2)[:5]
    assert seeds == [*sorted(piece for piece in counts if len(piece) == 1), *(piece for _, piece in longer)]


def test_edges_of_dropped_pieces_go(small_text):
    words = words_of(small_text)
    pieces = seed_pieces(words, 200, 8)
    kept = np.array([len(piece) == 1 or i % 3 > 0 for i, piece in enumerate(pieces)])
    lattices = Lattices(words, pieces)
    lattices.keep(kept)
    left = [piece for piece, stays in zip(pieces, kept, strict=True) if stays]
    scores = maximize(np.arange(1.0, len(left) + 1))
    again = Lattices(words, left)
    assert lattices.expect(scores)[0] == pytest.approx(again.expect(scores)[0])
    assert np.allclose(lattices.expect(scores)[1], again.expect(scores)[1])


def test_long_words_and_rare_pieces_stay_in_range():
    words = {"ab" * 150: 3, "a": 1, "b": 100_000}
    likelihood, expected = Lattices(words, ["a", "b"]).expect(np.log([1e-4, 1 - 1e-4]))
    assert likelihood == pytest.approx(451 * math.log(1e-4) + (450 + 100_000) * math.log(1 - 1e-4))
    assert np.allclose(expected, [451, 100_450])


def test_a_loss_is_what_dropping_costs():
    """Against the likelihood itself: where each word is one piece and its replacement is the only other way, the estimate is exact."""
    pieces, expected = ["ab", "cd", "a", "b", "c", "d"], np.array([8.0, 3.0, 2.0, 2.0, 1.0, 1.0])

    def likelihood(counts: np.ndarray) -> float:
        return float((counts * np.log(counts / counts.sum())).sum())

    found = losses(pieces, maximize(expected), expected)
    for i, change in ((0, [0, 0, 8, 8, 0, 0]), (1, [0, 0, 0, 0, 3, 3])):
        after = np.delete(expected + change, i)
        # The estimate holds the other pieces' scores, and so leaves out how they change.
        replaced = sum(math.log((expected + change)[j] / after.sum()) for j in np.flatnonzero(change))
        assert found[i] == pytest.approx(expected[i] * (math.log(expected[i] / 17) - replaced))
        assert found[i] > 0
        assert likelihood(after) < likelihood(expected)
    assert np.isinf(found[2:]).all()


def test_it_learns_the_words_that_made_the_text():
    choose = np.random.default_rng(0)
    syllables = ["ka", "lo", "mir", "tesh", "u"]
    words = Counter("▁" + "".join(choose.choice(syllables, size=choose.integers(1, 4), p=[0.4, 0.2, 0.2, 0.1, 0.1])) for _ in range(3000))
    learned = [piece for piece, _ in train_pieces(words, 26, seed_size=400)]
    assert {"ka", "lo", "mir", "tesh"} <= {piece.strip("▁") for piece in learned}
    assert len(learned) == 26


def test_the_size_is_reached_and_scores_are_logarithms_of_probabilities(small_text):
    tokenizer = UnigramTokenizer.train(small_text, 150, ["<s>", "</s>"])
    assert (tokenizer.vocab_size, tokenizer.why_smaller) == (150, "")
    assert tokenizer.pieces[:3] == ["<s>", "</s>", "<unk>"]
    assert sum(map(math.exp, tokenizer.scores[3:])) == pytest.approx(1)
    assert tokenizer.scores[3:] == sorted(tokenizer.scores[3:], reverse=True)
    assert tokenizer.decode(tokenizer.encode(small_text)) == small_text
    assert len(small_text) / len(tokenizer.encode(small_text)) > 2.5
    assert not any("\n" in piece and piece != "\n" for piece in tokenizer.pieces)
    few = UnigramTokenizer.train("ab ab", 50)
    assert few.why_smaller == f"{few.vocab_size} pieces, not 50: no more substrings occur twice"
    assert any("\n" in piece and piece != "\n" for piece in UnigramTokenizer.train(small_text, 150, lines=False).pieces)


def test_rare_characters_may_be_left_to_bytes(small_text):
    text = small_text + "é語"
    full = UnigramTokenizer.train(text, 120)
    assert {"é", "語"} <= set(full.pieces)
    part = UnigramTokenizer.train(text, 400, character_coverage=0.999, byte_fallback=True)
    assert not {"é", "語"} & set(part.pieces)
    assert part.decode(part.encode(text)) == text
    assert part.encode("語") == [part.ids[piece] for piece in ("<0xE8>", "<0xAA>", "<0x9E>")]
    literal = "<0x41> <0xE8>"  # comes back where its characters are pieces
    part = UnigramTokenizer.train(small_text + literal, 400, byte_fallback=True)
    assert part.decode(part.encode(literal)) == literal


# --- ids and text ---------------------------------------------------------------------------------------------------

SETTINGS = {
    "never": {"prepend": "never", "split": True},
    "lines": {"prepend": "never", "lines": True},
    "first": {"prepend": "first"},
    "always": {"prepend": "always", "normalizers": [{"type": "NFKC"}]},
    "whole": {"prepend": "always", "split": False},
    "bytes": {"byte_fallback": True, "normalizers": [{"type": "NFD"}, {"type": "Lowercase"}, {"type": "StripAccents"}]},
}


@lru_cache
def twins() -> dict[str, tuple[UnigramTokenizer, Tokenizer]]:
    """One vocabulary under all settings, each with its twin. A quarter of the scores are equal, so there are ties."""
    text = " ".join([*PARTS, *many_texts(200, seed=2)]) * 2
    learned = UnigramTokenizer.train(text, 1500, character_coverage=0.97, seed_size=3000, lines=False)
    pieces = [*learned.pieces, "<s>", "</s>", *(piece for piece in BYTE_PIECES)]
    scores = [*(score if i % 4 else round(score) for i, score in enumerate(learned.scores)), 0.0, 0.0, *[0.0] * 256]
    made = {}
    for name, options in SETTINGS.items():
        tokenizer = UnigramTokenizer(pieces, scores, ["<s>", "</s>"] + ["<unk>"] * (name != "first"), **options)
        made[name] = (tokenizer, library(tokenizer))
    return made


@given(ANY_TEXT)
@example("<unk>")
@example("\U0010fffe<unk>\U0010ffff<unk> <unk>")
@example("<0x41><0xE8><s> <s>▁<s>x</s>")
@settings(max_examples=200, deadline=None)
def test_ids_and_text_are_the_library_s(text):
    for name, (ours, theirs) in twins().items():
        ids = theirs.encode(text).ids
        assert ours.encode(text) == ids, name
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=False), name


def test_ids_are_the_library_s_on_many_more_texts():
    texts = [part + "<s>" * (i % 3) + part[::-1] for i, part in enumerate(many_texts(1500, seed=5))]
    for name, (ours, theirs) in twins().items():
        expected = [encoding.ids for encoding in theirs.encode_batch(texts)]
        assert [ours.encode(text) for text in texts] == expected, name
    assert sum(0 not in ids for ids in expected) > 100


@given(st.lists(st.integers(0, 2000), max_size=20))
@settings(max_examples=300, deadline=None)
def test_any_ids_decode_as_in_the_library(numbers):
    for name, (ours, theirs) in twins().items():
        ids = [number % ours.vocab_size for number in numbers]
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=False), name
        assert ours.decode(ids, skip_special=True) == theirs.decode(ids), name


@given(ANY_TEXT.filter(lambda text: "▁" not in text))
@settings(max_examples=60, deadline=None)
def test_text_comes_back(text):
    known = UnigramTokenizer.train(text + " x\n", 300, seed_size=400)
    assert known.decode(known.encode(text)) == text
    pieces = ["<unk>", *BYTE_PIECES, "▁", "a", "b", "ab", "the"]
    spelled = UnigramTokenizer(pieces, [0.0] + [-1000.0] * 256 + [-3.0] * 5, ["<unk>"], byte_fallback=True)
    assert spelled.decode(spelled.encode(text, "none")) == text


@given(ANY_TEXT, st.lists(st.integers(0, 9)), st.sampled_from(sorted(SETTINGS)), st.sampled_from(["all", "none", ["<s>"]]))
@settings(max_examples=400, deadline=None)
def test_a_stream_is_the_joined_text_wherever_it_is_cut(text, sizes, name, allowed):
    tokenizer, _ = twins()[name]
    text = f"{text}<s> <s{text}"
    assert list(tokenizer.encode_iterable(chunks_of(text, sizes), allowed)) == tokenizer.encode(text, allowed)


def test_a_stream_holds_no_more_than_a_word():
    tokenizer, _ = twins()["never"]
    longest = []
    inner = tokenizer._encode_segment
    tokenizer._encode_segment = lambda text, *flags: longest.append(len(text)) or inner(text, *flags)
    try:
        taken = list(tokenizer.encode_iterable("the other " for _ in range(3000)))
    finally:
        del tokenizer._encode_segment
    assert taken == tokenizer.encode("the other " * 3000)
    assert max(longest) < 40


def test_spaces_that_a_step_changes_are_no_places_to_cut():
    pieces = ["<unk>", "▁", "a", "_", "a_a", "▁a"]
    for old, new in ((" ", "_"), (" ", "▁"), ("a", " "), ("a a", "b"), ("▁", "a")):
        step = {"type": "Replace", "pattern": {"String": old}, "content": new}
        tokenizer = UnigramTokenizer(pieces, [0.0, -1.0, -2.0, -3.0, -1.0, -1.5], ["<unk>"], normalizers=[step])
        for text in ("a a a", " a▁a a", "a_a a_a"):
            assert list(tokenizer.encode_iterable(text)) == tokenizer.encode(text)
    steps = [{"type": "Prepend", "prepend": "▁"}]
    tokenizer = UnigramTokenizer(pieces, [0.0, -1.0, -2.0, -3.0, -1.0, -1.5], ["<unk>"], normalizers=steps)
    assert list(tokenizer.encode_iterable("a a<unk>a a")) == tokenizer.encode("a a<unk>a a") == [5, 5, 0, 5, 5]


def test_sampling_and_the_n_best():
    tokenizer = UnigramTokenizer(["<unk>", "▁", "h", "u", "g", "▁hu", "hug"], [0, -2, -4, -4, -4, -4, -5], ["<unk>"])
    assert tokenizer.nbest(" hug", 2) == [(-7.0, [1, 6]), (-8.0, [5, 4])]
    assert tokenizer.nbest("hug hug", 3)[0] == (-12.0, [6, 1, 6])
    assert len(tokenizer.nbest("hug hug", 50)) == 2 * 3
    assert tokenizer.nbest(" hug", 1)[0][1] == tokenizer.encode(" hug")
    generator = np.random.default_rng(0)
    seen = {tuple(tokenizer.sample(" hug?", 0.3, generator)) for _ in range(200)}
    assert seen == {(1, 6, 0), (5, 4, 0), (1, 2, 3, 4, 0)}
    assert {tokenizer.decode(ids) for ids in seen} == {" hug<unk>"}
    assert all(tokenizer.sample(" hug", 50.0, generator) == [1, 6] for _ in range(20))
    again = [tokenizer.sample(" hug hug", 0.3, np.random.default_rng(5)) for _ in range(2)]
    assert again[0] == again[1]


def test_bytes():
    assert fuse_bytes(to_byte_pieces("aé語👍")) == ["aé語👍"]
    assert fuse_bytes(["<0xFF>", "<0xe8>", "<0x41>"]) == ["\ufffd", "<0xe8>", "A"]
    assert to_byte_pieces("\ud800") == ["<0xEF>", "<0xBF>", "<0xBD>"]
    assert fuse_bytes([]) == []


def test_real_text_comes_back(corpora_dir):
    text = (corpora_dir / "shakespeare.txt").read_text(encoding="utf-8")[:150_000]
    tokenizer = UnigramTokenizer.train(text, 1000)
    ids = tokenizer.encode_array(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.vocab_size == 1000
    assert ids.tolist() == library(tokenizer).encode(text).ids
    assert len(text) / len(ids) > 2.5


# --- travel and errors ----------------------------------------------------------------------------------------------


def test_it_travels_through_json():
    for tokenizer, _ in twins().values():
        values = json.loads(json.dumps(tokenizer.to_dict()))
        assert values["kind"] == "unigram"
        again = UnigramTokenizer.from_dict(values)
        assert again.to_dict() == tokenizer.to_dict()
        assert again.encode("The <s>crème 東京\n") == tokenizer.encode("The <s>crème 東京\n")


def test_more_special_tokens_leave_the_old_ids():
    for tokenizer, _ in twins().values():
        more = tokenizer.with_special_tokens(["<tool>", "<0x41>"])
        assert more.vocab_size == tokenizer.vocab_size + 1
        assert more.encode("other<tool>ab") == [*tokenizer.encode("other"), tokenizer.vocab_size, *more.encode("<tool>ab")[1:]]
        assert more.encode("<0x41>") == [tokenizer.ids["<0x41>"]]
        assert more.pieces[:-1] == tokenizer.pieces
        assert more.scores[:-1] == tokenizer.scores


def test_special_text_that_is_not_allowed_is_ordinary():
    tokenizer = UnigramTokenizer(["<unk>", "<", "s", ">", "<s>"], [0.0, -1.0, -1.0, -1.0, 0.0], ["<unk>", "<s>"])
    assert tokenizer.encode("<s>") == [4]
    assert tokenizer.encode("<s>", "none") == tokenizer.encode("<s>", ["<unk>"]) == [1, 2, 3]


def made(**options: object) -> UnigramTokenizer:
    return UnigramTokenizer(["<unk>", "a"], [0.0, -1.0], ["<unk>"], **options)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: UnigramTokenizer.train("", 100), "an empty text"),
        (lambda: UnigramTokenizer.train("abc", 3), "vocab_size=3: 1 special and byte pieces and 3 characters need 4. Ask for 4 or more"),
        (lambda: UnigramTokenizer.train("abc", 100, byte_fallback=True), "257 special and byte pieces"),
        (lambda: UnigramTokenizer.train("abc", 100, character_coverage=0), "character_coverage=0"),
        (lambda: UnigramTokenizer.train("abc", 100, prepend="often"), "prepend='often'.*never, first, always"),
        (lambda: made(lines=True, prepend="always"), "lines with prepend='always'"),
        (lambda: made(byte_fallback=True), "byte_fallback without '<0x00>'"),
        (lambda: made(space="__"), "space='__': it must be one character"),
        (lambda: UnigramTokenizer(["a"], [-1.0]), "unknown token '<unk>'"),
        (lambda: UnigramTokenizer(["<unk>", "a"], [0.0]), "1 scores for 2 pieces"),
        (lambda: UnigramTokenizer(["<unk>", "a"], [0.0, math.nan]), "a finite number"),
        (lambda: UnigramTokenizer(["a"], [-1.0], unknown=None).encode("ab"), r"'b' \(U\+0062\) is no piece, and .* no unknown token"),
        (lambda: made().decode([2]), "id 2 is not in the vocabulary"),
        (lambda: made().encode("a", ["<s>"]), "special token '<s>'"),
        (lambda: UnigramTokenizer.from_dict({"kind": "unigram", "pieces": ["a"]}), "saved unigram tokenizer that does not open"),
        (lambda: UnigramTokenizer.from_dict({"kind": "unigram", "pieces": 1, "scores": 2}), "saved unigram tokenizer that does not open"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_in_one_line(make, words):
    with pytest.raises(ValueError, match=words) as error:
        make()
    assert "\n" not in str(error.value)
