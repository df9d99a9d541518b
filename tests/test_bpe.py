"""BPE: learned as the plain version learns, encoded as tiktoken and tokenizers encode, and everything comes back."""

import json
import os
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests import tokenizer_campaign
from tests.tokenizer_campaign import contestants, problems_with, some_text, tiktoken_twin, tokenizers_twin
from tiny_transformer import tokenization
from tiny_transformer.config import ConfigError
from tiny_transformer.tokenization import bpe, bpe_encoding, bpe_plain, bpe_training, splitting, text_stream
from tiny_transformer.tokenization.bpe import BPETokenizer
from tiny_transformer.tokenization.splitting import PATTERNS, Splitter

ANY_TEXT = st.text(st.characters(exclude_categories=()))  # lone surrogates too


@pytest.fixture(scope="module")
def play() -> BPETokenizer:
    """A small tokenizer with two special tokens."""
    return BPETokenizer.train("the then there other weather, they're never known to sail with them\n" * 3, 280, ["<|endoftext|>", "<pad>"])


# --- learning -------------------------------------------------------------------------------------------------------


def test_the_worked_example():
    merges = [(b"a", b"a"), (b"aa", b"a"), (b"aaa", b"b")]
    assert bpe_plain.train([b"aaabdaaabac"], 3) == bpe_training.learn_merges({b"aaabdaaabac": 1}, 3) == merges
    assert bpe_plain.encode(b"aaabdaaabac", merges) == [b"aaab", b"d", b"aaab", b"a", b"c"]
    tokenizer = BPETokenizer.train("aaabdaaabac", 259, split="none")
    assert tokenizer.merges == merges
    assert tokenizer.encode("aaabdaaabac") == [258, 100, 258, 97, 99]
    assert (tokenizer.vocab_size, tokenizer.why_smaller) == (259, "")
    assert tokenizer.vocab == {**{i: bytes([i]) for i in range(256)}, 256: b"aa", 257: b"aaa", 258: b"aaab"}


def by_definition(pieces: list[bytes], steps: int) -> list[tuple[bytes, bytes]]:
    """Merges straight from the words: recount everything, take the greatest (count, pair). Written apart from the library."""
    texts, merges = [[piece[i : i + 1] for i in range(len(piece))] for piece in pieces], []
    for _ in range(steps):
        counts = Counter(pair for text in texts for pair in pairwise(text))
        if not counts:
            break
        pair = max(counts, key=lambda pair: (counts[pair], pair[0], pair[1]))
        for text in texts:
            i = 0
            while i + 1 < len(text):
                if (text[i], text[i + 1]) == pair:
                    text[i : i + 2] = [pair[0] + pair[1]]
                i += 1
        merges.append(pair)
    return merges


def test_both_trainers_equal_the_definition_on_generated_pieces():
    chance = random.Random(0)
    for case in range(1200):
        alphabet = [b"a", b"ab", b"abc", bytes(range(256))][case % 4]
        pieces = [bytes(chance.choices(alphabet, k=chance.randint(0, 12))) for _ in range(chance.randint(1, 6))]
        pieces += chance.choices(pieces, k=3)
        steps = chance.randint(0, 20)
        expected = by_definition(pieces, steps)
        assert bpe_training.learn_merges(Counter(pieces), steps) == expected, pieces
        assert bpe_plain.train(pieces, steps) == expected, pieces


def test_training_on_text_equals_the_plain_version(small_text):
    for split in ("gpt2", "gpt4", "none"):
        text = small_text[: 8000 if split != "none" else 3000]
        pieces = [piece.encode() for piece in Splitter(split).split(text)]
        assert BPETokenizer.train(text, 330, split=split).merges == bpe_plain.train(pieces, 74)


@pytest.mark.parametrize(
    ("pieces", "first"),
    [
        ([b"ab", b"ba"], (b"b", b"a")),
        ([b"ab", b"ac"], (b"a", b"c")),
        ([b"\xff\x00", b"\xfe\xff"], (b"\xff", b"\x00")),
        ([b"ab", b"ab", b"zz"], (b"a", b"b")),
    ],
)
def test_ties_go_to_the_lexicographically_greatest_pair(pieces, first):
    assert bpe_training.learn_merges(Counter(pieces), 1) == bpe_plain.train(pieces, 1) == [first]


def test_of_two_tokens_the_longer_is_the_greater_when_it_begins_with_the_other():
    keys = [bpe_training.order_key(token) for token in (b"", b"\x00", b"\x00\x00", b"\x00\xff", b"a", b"ab", b"b", b"\xff", b"\xff\xff")]
    assert keys == sorted(keys, reverse=True)
    pieces = [b"aab", b"aab", b"aa", b"ab"]  # aa 3, ab 3: (a, b) first; then (a, ab) 2 and (a, a) 1
    assert bpe_training.learn_merges(Counter(pieces), 3) == by_definition(pieces, 3)


def test_callbacks_see_each_merge_with_its_count(small_text):
    seen, steps = [], []
    tokenizer = BPETokenizer.train(
        small_text, 300, ["<pad>"], on_merge=lambda *merge: seen.append(merge), progress=lambda *step: steps.append(step)
    )
    assert [(rank, pair) for rank, pair, _ in seen] == list(enumerate(tokenizer.merges))
    assert steps == [(done, 43) for done in range(1, 44)]
    parts = [bpe_plain.single_bytes(piece.encode()) for piece in Splitter("gpt2").split(small_text)]
    for _, pair, count in seen:
        assert bpe_plain.count_pairs(parts)[pair] == count
        parts = [bpe_plain.merge(piece, pair) for piece in parts]


def test_the_size_is_reached_exactly_or_the_reason_is_told(small_text):
    for size in (256, 257, 300, 315):
        tokenizer = BPETokenizer.train(small_text, size)
        assert (tokenizer.vocab_size, len(tokenizer.vocab), tokenizer.why_smaller) == (size, size, "")
    short = BPETokenizer.train("to be or not", 5000, ["<pad>"])
    assert short.vocab_size == len(short.vocab) == 256 + len(short.merges) + 1 < 5000
    assert f"vocab_size=5000 was asked for, {short.vocab_size} reached: after {len(short.merges)} merges" in short.why_smaller
    assert all(len(short.encode(piece)) == 1 for piece in ("to", " be", " or", " not"))


@pytest.mark.parametrize(("size", "special", "least"), [(255, [], 256), (0, [], 256), (-1, [], 256), (257, ["<s>", "</s>"], 258)])
def test_a_size_below_the_alphabet_is_refused_in_one_line(size, special, least):
    with pytest.raises(ConfigError, match=f"vocab_size={size}: byte-level BPE needs {least} or more.*Try 5") as error:
        BPETokenizer.train("some text", size, special)
    assert "\n" not in str(error.value)


def test_special_tokens_separate_documents_and_are_never_merged():
    text = "ab<|x|>ab<|x|>" * 20
    tokenizer = BPETokenizer.train(text, 400, ["<|x|>"], split="none")
    assert tokenizer.merges == [(b"a", b"b")]
    assert tokenizer.encode(text) == [256, 257] * 40
    assert tokenizer.special_tokens == {"<|x|>": 257}
    with pytest.raises(ValueError, match="empty"):
        BPETokenizer.train("", 300)
    assert BPETokenizer.train("<|x|>", 300, ["<|x|>"]).merges == []


def test_a_special_token_of_one_byte_keeps_the_id_of_the_byte():
    tokenizer = BPETokenizer.train("ab\nab\nab", 258, ["\n", "<s>"])
    assert (tokenizer.vocab_size, tokenizer.special_tokens, tokenizer.encode("ab\n<s>")) == (258, {"\n": 10, "<s>": 257}, [256, 10, 257])
    again = BPETokenizer.from_dict(json.loads(json.dumps(tokenizer.to_dict())))
    assert again.encode("ab\n<s>") == [256, 10, 257]
    assert again.with_special_tokens(["</s>"]).encode("\n</s>", allowed_special=["</s>"]) == [10, 258]


def test_training_from_a_file_equals_training_from_text(tmp_path, small_text, monkeypatch):
    text = (small_text + "né 😀\r\n\n  \r\n<|endoftext|>" * 3) * 8
    path = tmp_path / "text.txt"
    path.write_bytes(text.encode())
    expected = BPETokenizer.train(text, 320, ["<|endoftext|>"])
    assert BPETokenizer.train_from_file(path, 320, ["<|endoftext|>"]).to_dict() == expected.to_dict()
    for size in (1, 2, 3, 1000):
        assert "".join(text_stream.text_chunks(path, size)) == text
    monkeypatch.setattr(text_stream, "BLOCK", 50)
    monkeypatch.setattr(bpe, "text_chunks", lambda path: text_stream.text_chunks(path, 777))
    assert BPETokenizer.train_from_file(path, 320, ["<|endoftext|>"]).to_dict() == expected.to_dict()


@pytest.mark.parametrize(
    ("data", "says"),
    [(b"", "empty"), (b"ab\xffcd", "byte 2 .0xFF. is not UTF-8"), ("aé".encode()[:2], "byte 1 .0xC3. is not UTF-8"), (b"\x80", "byte 0 ")],
)
def test_a_file_that_is_no_text_is_one_line(tmp_path, data, says):
    path = tmp_path / "bad.txt"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"bad.txt: .*{says}") as error:
        BPETokenizer.train_from_file(path, 300)
    assert "\n" not in str(error.value)
    if data:
        with pytest.raises(ValueError, match=says):
            list(text_stream.text_chunks(path, 1))


# --- encoding -------------------------------------------------------------------------------------------------------


def test_generated_texts_are_as_in_tiktoken_and_tokenizers():
    wrong = [problem for i in range(12_000) for problem in tokenizer_campaign.problems_of(i, seed=0)]
    assert wrong == []
    assert tokenizer_campaign.campaign(99, seed=3) == {"tried": 99, "failed": 0}


@given(ANY_TEXT, st.integers(0, 10**6))
@example("\ud83d\ude00 \ud83d", 1)
@example("\ud83d<|end|>\ude00", 9)
@example("\n  ", 1)
@example("a\n \n  <pad>", 8)
@settings(max_examples=400, deadline=None)
def test_any_text_at_all(text, cut):
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # what is no character becomes U+FFFD
    for ours, tik, hf in contestants():
        assert list(problems_with(whole, ours, tik, hf, cut)) == []
        assert ours.encode(text) == ours.encode(whole) == tik.encode(text, allowed_special="all")
        assert list(ours.encode_iterable(text)) == ours.encode(text)  # one character at a time, halves of a pair too


def test_merges_go_by_rank_and_then_from_the_left():
    chance = random.Random(1)
    for case in range(5000):
        pieces = [bytes(chance.choices(b"ab" if case % 2 else b"abcd", k=chance.randint(2, 14))) for _ in range(3)]
        merges = bpe_plain.train(pieces, chance.randint(1, 12))
        ids = {token: i for i, token in enumerate([*bpe_plain.single_bytes(bytes(range(256))), *(a + b for a, b in merges)])}
        encoder = bpe_encoding.PieceEncoder(ids, merges)
        text = bytes(chance.choices(b"abcd", k=chance.randint(0, 20)))
        expected = [ids[token] for token in bpe_plain.encode(text, merges)]
        single = list(text)
        assert encoder.encode(text) == encoder._search(list(single)) == encoder._with_heap(list(single)) == expected, (text, merges)


def test_merges_in_any_order_are_as_in_tokenizers():
    chance = random.Random(2)
    for _ in range(300):
        tokens = [*bpe_plain.single_bytes(bytes(range(256)))]
        merges = []
        for _ in range(8):
            pair = chance.choice([b"a", b"b", *tokens[256:]]), chance.choice([b"a", b"b", *tokens[256:]])
            if pair[0] + pair[1] not in tokens:
                tokens.append(pair[0] + pair[1])
                merges.append(pair)
        chance.shuffle(merges)
        ours = BPETokenizer(dict(enumerate(tokens)), merges, ["<s>"])
        twin = tokenizers_twin(ours)
        for _ in range(4):
            text = "".join(chance.choices("aab", k=chance.randint(1, 140)))
            assert ours.encode(text) == twin.encode(text).ids, (merges, text)


def test_a_long_run_of_one_letter_takes_about_n_steps():
    ours, tik, _ = contestants()[0]
    run = "a" * 100_000
    assert ours.encode(run) == tik.encode(run)

    class Counting(dict):
        """Counts how often it is asked."""

        asked = 0

        def get(self, *arguments):
            """As a dict's."""
            Counting.asked += 1
            return super().get(*arguments)

    encoder = bpe_encoding.PieceEncoder({token: i for i, token in ours.vocab.items()}, ours.merges)
    encoder._ranks = Counting(encoder._ranks)
    encoder.encode(run.encode())
    assert 100_000 <= Counting.asked < 500_000


def test_long_runs_of_other_things():
    for unit in (" ", "\n", "ab", "é", "😀", "1", ".", " the", "\u0301", "'", " \n"):
        text = unit * (3000 // len(unit)) + "x"
        for ours, tik, hf in contestants():
            assert list(problems_with(text, ours, tik, hf, cut=12345)) == []


def test_the_cuts_are_those_of_tokenizers_for_every_code_point():
    """Also a guard: a newer `regex` package that knows more letters must not change any id."""
    characters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    for split, text in (("gpt2", "".join(characters)), ("gpt4", "'".join(characters[:0x3000]) + " ".join(characters[0x80:0x3000]))):
        theirs = tokenizers.pre_tokenizers.Split(tokenizers.Regex(PATTERNS[split]), "isolated").pre_tokenize_str(text)
        assert Splitter(split).split(text) == [text[begin:end] for _, (begin, end) in theirs]


def test_known_cuts():
    text = "I've  got 1234 TOKENS'LL\n\n  end \n "
    assert Splitter("gpt2").split(text) == ["I", "'ve", " ", " got", " 1234", " TOKENS", "'", "LL", "\n\n ", " end", " \n "]
    assert Splitter("gpt4").split(text) == ["I", "'ve", " ", " got", " ", "123", "4", " TOKENS", "'LL", "\n\n", " ", " end", " \n "]
    assert Splitter("none").split(text) == [text]
    assert Splitter("none").split("") == Splitter("gpt2").split("") == []
    assert Splitter(r"\d+").split("ab12c3") == ["ab", "12", "c", "3"]
    assert Splitter(r"x*").split("axb") == ["a", "x", "b"]
    assert Splitter(r"\p{L}+").split("a\u0558b") == ["a", "\u0558", "b"]  # a letter only since Unicode 17


@pytest.mark.parametrize(("split", "says"), [("gpt3", "one of gpt2, gpt4, none"), ("", "one of gpt2"), ("(", "no regular expression")])
def test_an_unknown_split_is_one_line(split, says):
    with pytest.raises(ConfigError, match=says) as error:
        BPETokenizer.train("text", 300, split=split)
    assert "\n" not in str(error.value)


def test_an_expression_of_ones_own_is_as_in_tokenizers(small_text):
    ours = BPETokenizer.train(small_text, 320, ["<pad>"], split=r"\s+|\w+|[^\w\s]+")
    tik, hf = tiktoken_twin(ours), tokenizers_twin(ours)
    for i in range(300):
        assert list(problems_with(tokenizer_campaign.text_number(i, 5).replace("<", "("), ours, tik, hf, i * 97)) == []


def test_streams_in_small_blocks_give_the_same_ids(monkeypatch):
    for block in (1, 5, 40):
        monkeypatch.setattr(text_stream, "BLOCK", block)
        for i in range(300):
            text, step = tokenizer_campaign.text_number(i, seed=block), 1 + i % 7
            ours, tik, _ = contestants()[i % 3]
            streamed = list(ours.encode_iterable(text[begin : begin + step] for begin in range(0, len(text), step)))
            assert streamed == ours.encode(text) == tik.encode(text, allowed_special="all"), (text, step)


def test_a_stream_is_never_held_whole(monkeypatch, small_text):
    monkeypatch.setattr(text_stream, "BLOCK", 500)
    taken = [0]

    def chunks():
        for begin in range(0, len(text), 37):
            taken[0] = begin
            yield text[begin : begin + 37]

    text = small_text + "你好。世界！" * 500 + "\n" * 50 + small_text[:3000]
    for split in ("gpt2", "gpt4", "none"):
        tokenizer = BPETokenizer.train(small_text, 300, ["<pad>"], split=split)
        done, ids = 0, []
        for token in tokenizer.encode_iterable(chunks()):
            ids.append(token)
            done += len(tokenizer.vocab[token])
            if done < len(small_text):  # bytes are characters so far
                assert taken[0] - done < 1200
        assert ids == tokenizer.encode(text)


def test_the_cache_is_bounded_and_changes_nothing(monkeypatch, small_text, play):
    expected = play.encode(small_text)
    monkeypatch.setattr(bpe, "CACHE_PIECES", 20)
    monkeypatch.setattr(text_stream, "BLOCK", 100)
    fresh = BPETokenizer.from_dict(play.to_dict())
    ids, sizes = [], set()
    for token in fresh.encode_iterable(small_text[i : i + 50] for i in range(0, len(small_text), 50)):
        ids.append(token)
        sizes.add(len(fresh._cache))
    assert ids == expected
    assert 10 < max(sizes) <= 20
    assert fresh.encode("the the " * 5) == play.encode("the the " * 5)
    fresh._cache = {}
    fresh.encode("x" * 65 + " " + "y" * 64)
    assert set(fresh._cache) == set()
    fresh.encode("y" * 64)
    assert set(fresh._cache) == {"y" * 64}
    monkeypatch.setattr(bpe, "LONG", 3)
    fresh._cache = {}
    assert fresh.encode("the there the there") == play.encode("the there the there")
    assert set(fresh._cache) <= {"the"}


def test_special_tokens_by_allow_list(play):
    text = "the<|endoftext|><pad><pad>the"
    the = play.encode("the")
    end, pad = play.special_tokens["<|endoftext|>"], play.special_tokens["<pad>"]
    assert play.encode(text) == play.encode_array(text).tolist() == [*the, end, pad, pad, *the]
    assert play.encode(text, allowed_special=["<pad>"]) == [*the, *play.encode("<|endoftext|>", "none"), pad, pad, *the]
    assert max(play.encode(text, allowed_special="none")) < end
    assert play.decode(play.encode(text, "none")) == play.decode(play.encode(text)) == text
    assert (play.special.eos, play.special.pad, play.special.bos) == (end, pad, None)
    for wrong in (["<|sep|>"], "<pad>"):
        with pytest.raises(ConfigError, match="special") as error:
            play.encode(text, allowed_special=wrong)
        assert "\n" not in str(error.value)


def test_arrays(play):
    assert play.encode_array("the then").dtype == np.int32
    assert play.encode_array("").shape == (0,)
    assert play.decode(play.encode_array("the then")) == "the then"


# --- decoding, changing, looking ------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 279)), st.binary())
@settings(max_examples=300, deadline=None)
def test_any_ids_and_any_bytes_decode(play, ids, data):
    expected = b"".join(play.vocab[i] for i in ids)
    assert play.decode_bytes(ids) == expected
    assert play.decode(ids) == expected.decode("utf-8", errors="replace")
    assert play.decode_bytes(data) == data


@pytest.mark.parametrize("wrong", [280, -1, 2**40])
def test_ids_outside_the_vocabulary(play, wrong):
    for ids in ([0, wrong], np.array([0, wrong])):
        with pytest.raises(ValueError, match=f"id {wrong} is not in the vocabulary: ids must lie in 0 to 279"):
            play.decode(ids)


def test_more_special_tokens_change_no_id(play, small_text):
    more = play.with_special_tokens(["<|user|>", "<pad>", "<|bot|>"])
    assert more.vocab_size == play.vocab_size + 2
    assert more.special_tokens == {**play.special_tokens, "<|user|>": 280, "<|bot|>": 281}
    assert {i: token for i, token in more.vocab.items() if i < 280} == play.vocab
    assert more.encode(small_text) == play.encode(small_text)
    assert more.encode("<|user|>the<|endoftext|>") == [280, *play.encode("the<|endoftext|>")]
    assert play.vocab_size == 280


def test_it_travels_through_json(play, small_text):
    for split in ("gpt2", "gpt4", "none", r"\w+"):
        tokenizer = BPETokenizer.train(small_text[:2000], 290, ["<s>", "é"], split=split)
        again = tokenization.from_dict(json.loads(json.dumps(tokenizer.to_dict())))
        assert isinstance(again, BPETokenizer)
        assert (again.vocab, again.merges, again.special_tokens, again.split) == (
            tokenizer.vocab, tokenizer.merges, tokenizer.special_tokens, split,
        )  # fmt: skip
        assert again.to_dict() == tokenizer.to_dict()
        assert again.encode("né<s> the") == tokenizer.encode("né<s> the")
    assert tokenization.from_dict(play.with_special_tokens(["<|user|>"]).to_dict()).encode("<|user|>") == [280]


def test_the_tree_of_a_token(play):
    def leaves(tree):
        return [tree] if isinstance(tree, bytes) else leaves(tree[0]) + leaves(tree[1])

    tokens = [*bpe_plain.single_bytes(bytes(range(256))), b"he", b"th", b"the"]
    tokenizer = BPETokenizer(dict(enumerate(tokens)), [(b"h", b"e"), (b"t", b"h"), (b"th", b"e")])
    assert tokenizer.derivation(258) == ((b"t", b"h"), b"e")
    assert tokenizer.derivation(65) == b"A"
    for i, token in play.vocab.items():
        tree = play.derivation(i)
        assert b"".join(leaves(tree)) == token
        if i >= 256 and i < 278:
            assert all(len(leaf) == 1 for leaf in leaves(tree))
    assert play.derivation(279) == b"<pad>"
    with pytest.raises(ValueError, match="not in the vocabulary"):
        play.derivation(280)


def test_a_text_after_each_merge(play):
    text = "the weather<pad>, né"
    seen = list(play.stages(text))
    assert seen[0] == (None, [*(bytes([b]) for b in b"the weather"), b"<pad>", *(bytes([b]) for b in ", né".encode())])
    assert [rank for rank, _ in seen[1:]] == sorted({rank for rank, _ in seen[1:]})
    for (_, before), (rank, after) in pairwise(seen):
        assert b"".join(after) == text.encode()
        assert len(after) < len(before)
        assert b"".join(play.merges[rank]) in after
    assert seen[-1][1] == [play.vocab[i] for i in play.encode(text)]


@pytest.mark.parametrize(
    ("vocab", "merges", "special", "says"),
    [
        ({0: b"a", 1: b"a"}, [], [], "2 ids for 1 tokens"),
        ({-1: b"a"}, [], [], "ids from -1"),
        ({}, [], [], "ids from None"),
        ({0: b"a", 1: b"b"}, [(b"a", b"b")], [], "b'ab' is not in the vocabulary"),
        ({0: b"a", 1: b"ab"}, [(b"a", b"b")], [], "b'b' is not in the vocabulary"),
        ({0: b"a"}, [], {"<s>": 0}, "that id is b'a'"),
        ({0: b"a"}, [], {"<s>": -1}, "'<s>' with id -1"),
        ({0: b"a"}, [], ["<s>", "<s>"], "more than once"),
        ({0: b"a"}, [], [""], "must be text"),
        ({0: b"a"}, [], "<s>", "list of strings"),
    ],
)
def test_impossible_vocabularies_are_one_line(vocab, merges, special, says):
    with pytest.raises(ConfigError, match=says) as error:
        BPETokenizer(vocab, merges, special)
    assert "\n" not in str(error.value)


def test_small_and_sparse_vocabularies():
    tokenizer = BPETokenizer({0: b"a", 5: b"b", 2: b"ab"}, [(b"a", b"b")], ["ab", "<s>"])
    assert (tokenizer.vocab_size, tokenizer.special_tokens) == (7, {"ab": 2, "<s>": 6})
    assert tokenizer.encode("baab<s>") == [5, 0, 2, 6]
    with pytest.raises(ValueError, match="byte 0x63 is not in the vocabulary"):
        tokenizer.encode("abc")
    with pytest.raises(ValueError, match="id 3 is not in the vocabulary.*in use"):
        tokenizer.decode([3])


# --- real vocabularies and texts ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gpt2() -> BPETokenizer:
    """GPT-2's own vocabulary."""
    folder = os.environ.get("TINY_GPT2")
    if not folder or not (Path(folder) / "merges.txt").is_file():
        pytest.skip("TINY_GPT2 must name a folder with GPT-2's vocab.json and merges.txt")
    return BPETokenizer.from_gpt2_files(Path(folder) / "vocab.json", Path(folder) / "merges.txt")


def test_gpt2_gives_gpt2s_ids(gpt2, corpora_dir):
    assert (gpt2.vocab_size, gpt2.special.eos) == (50257, 50256)
    assert gpt2.encode("Hello world") == [15496, 995]
    assert gpt2.encode("<|endoftext|><|endoftext|>") == [50256, 50256]
    tik = tiktoken_twin(gpt2)
    text = (corpora_dir / "wikitext2-valid.txt").read_text(encoding="utf-8")[:400_000]
    ids = gpt2.encode(text)
    assert ids == tik.encode(text)
    assert gpt2.decode(ids) == text
    chance = random.Random(4)
    for _ in range(500):
        some = some_text(chance)
        assert gpt2.encode(some) == tik.encode(some, allowed_special="all")
    assert gpt2.encode("a" * 100_000) == tik.encode("a" * 100_000)


def test_tiny_shakespeare_is_learned_as_counted_by_tokenizers(corpora_dir):
    """tokenizers breaks ties otherwise, so the counts are compared: as long as there is no tie, they are the same list."""
    text = (corpora_dir / "shakespeare.txt").read_text(encoding="utf-8")[:400_000]
    counts = []
    ours = BPETokenizer.train(text, 512, on_merge=lambda rank, pair, count: counts.append(count))
    twin = tokenizers.Tokenizer(tokenizers.models.BPE())
    twin.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    twin.train_from_iterator([text], tokenizers.trainers.BpeTrainer(vocab_size=512, initial_alphabet=alphabet, show_progress=False))
    theirs = [tuple(splitting.to_utf8(half) for half in pair) for pair in json.loads(twin.to_str())["model"]["merges"]]
    untied = next(i for i, (one, other) in enumerate(pairwise(counts)) if one == other)
    assert untied > 40
    assert [b"".join(pair).replace("Ġ".encode(), b" ").replace("Ċ".encode(), b"\n") for pair in theirs[:untied]] == [
        b"".join(pair) for pair in ours.merges[:untied]
    ]
    assert counts == sorted(counts, reverse=True)
    assert abs(len(ours.encode(text)) - len(twin.encode(text).ids)) < 0.001 * len(text)
