"""`tiny tokenizer`: each action on real, small tokenizers; what it counts is counted again in another way."""

import io
import json
import re
import subprocess
import sys
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from tests.any_text import ANY_TEXT
from tiny_transformer import tokenization
from tiny_transformer.cli import tokenizer_facts, tokenizer_measures, tokenizer_pieces, tokenizer_source, tokenizer_views
from tiny_transformer.cli.main import main
from tiny_transformer.cli.screen import plain_text
from tiny_transformer.config import ConfigError, ModelConfig
from tiny_transformer.numpy_engine import checkpoint as numpy_checkpoints
from tiny_transformer.numpy_engine.model import TinyTransformerLM as NumpyModel
from tiny_transformer.numpy_engine.model import init_weights
from tiny_transformer.tokenization.bpe import BPETokenizer
from tiny_transformer.tokenization.bpe_plain import merge, single_bytes
from tiny_transformer.tokenization.byte_pieces import BYTE_PIECES
from tiny_transformer.tokenization.files import load_tokenizer, save_tokenizer
from tiny_transformer.tokenization.metaspace_bpe import MetaspaceBPE
from tiny_transformer.tokenization.normalized import NormalizedTokenizer
from tiny_transformer.tokenization.splitting import Splitter
from tiny_transformer.tokenization.unigram import UnigramTokenizer
from tiny_transformer.tokenization.wordpiece import WordPieceTokenizer, longest_match_first

PUGS = "the hugs of a bug, the pun of a pug: hugging pugs, bugging puns, he hugs the bun. " * 9
SIZES = {"char": None, "byte": None, "word": None, "bpe": 300, "wordpiece": 90, "unigram": 80}


@pytest.fixture(scope="module")
def play(tmp_path_factory, small_text):
    """The text as a file."""
    path = tmp_path_factory.mktemp("texts") / "play.txt"
    path.write_text(small_text, encoding="utf-8", newline="")
    return path


@pytest.fixture(scope="module")
def bpe(small_text):
    return BPETokenizer.train(small_text, 300, ["<|endoftext|>", "<|user|>"])


@pytest.fixture(scope="module")
def saved(tmp_path_factory, bpe):
    path = tmp_path_factory.mktemp("tokenizers") / "bpe.json"
    save_tokenizer(bpe, path)
    return path


@pytest.fixture
def tiny(capsys):
    """`tiny tokenizer …` in this process: (exit code, standard output, standard error)."""

    def run(*argv):
        capsys.readouterr()
        code = main(["tokenizer", *map(str, argv)])
        return (code, *capsys.readouterr())

    return run


def done(result):
    assert result[0] == 0, result[2]
    return result[1]


# --- train --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SIZES)
def test_train_writes_what_the_library_learns(tiny, tmp_path, play, small_text, kind):
    out = tmp_path / "new" / "tok.json"
    asked = ["--vocab-size", SIZES[kind]] if SIZES[kind] else []
    told = json.loads(done(tiny("train", "--data", play, "--kind", kind, *asked, "--out", out, "--json")))
    expected = tokenization.train(kind, small_text, SIZES[kind])
    assert load_tokenizer(out).to_dict() == expected.to_dict()
    assert told["vocab_size"] == expected.vocab_size and told["asked_for"] == SIZES[kind]
    assert told["n_tokens"] == len(expected.encode(small_text))
    assert told["n_bytes"] == len(small_text.encode()) and told["files"] == [str(out)]


def test_the_counts_of_merges_are_those_of_their_pairs(tiny, tmp_path, play, small_text):
    told = json.loads(done(tiny("train", "--data", play, "--vocab-size", 290, "--out", tmp_path / "t.json", "--json")))
    pieces = [(single_bytes(piece.encode()), n) for piece, n in Counter(Splitter("gpt2").split(small_text)).items()]
    tokenizer = load_tokenizer(tmp_path / "t.json")
    assert len(told["merges"]) == len(tokenizer.merges) == 34
    for pair, (left, right, count) in zip(tokenizer.merges, told["merges"], strict=True):
        assert (left, right) == tuple(map(tokenizer_pieces.shown, pair))
        assert count == sum(n * sum(found == pair for found in pairwise(piece)) for piece, n in pieces)
        pieces = [(merge(piece, pair), n) for piece, n in pieces]


def test_train_shows_first_and_last_merges_and_warns_when_the_text_has_no_more(tiny, tmp_path):
    text = tmp_path / "short.txt"
    text.write_text("the then there the then there")
    out = done(tiny("train", "--data", text, "--vocab-size", 400, "--out", tmp_path / "t.json", "--show", 3))
    assert re.search(r"│ 0 +│ t \+ h +│ th +│ +6 │", out) and "…" in out
    assert "warning: vocab_size=400 was asked for, " in out
    for kind in ("word", "unigram", "wordpiece"):
        more = ["--overwrite", "--kind", kind]
        assert "warning: " in done(tiny("train", "--data", text, "--vocab-size", 400, "--out", tmp_path / "t.json", *more))


@pytest.mark.parametrize("places", [(0, 3), (3, 3), (4, 3), (10, 1), (10, 0), (9, 4)])
def test_ends_are_the_first_and_the_last(places):
    from tiny_transformer.cli.tokenizer_train import ends

    n, most = places
    found = ends(n, most)
    shown = [place for place in found if place is not None]
    assert len(shown) == min(n, most) and shown == sorted(set(shown))
    if n > most:
        first = shown[: (most + 1) // 2]
        assert first == list(range(len(first))) and shown[len(first) :] == list(range(n - most // 2, n))


def test_val_share_and_size_leave_text_out(tiny, tmp_path):
    text = tmp_path / "halves.txt"
    text.write_text("a" * 500 + "b" * 500)
    done(tiny("train", "--data", text, "--kind", "char", "--out", tmp_path / "a.json", "--val-share", 0.5))
    assert load_tokenizer(tmp_path / "a.json").symbols == ["a"]
    done(tiny("train", "--data", text, "--kind", "char", "--out", tmp_path / "b.json", "--size", 501))
    assert load_tokenizer(tmp_path / "b.json").symbols == ["a", "b"]


@pytest.mark.parametrize("kind", SIZES)
def test_huggingface_files_give_the_same_ids_there(tiny, tmp_path, play, small_text, kind):
    tokenizers = pytest.importorskip("tokenizers")
    out = tmp_path / "tokenizer.json"
    asked = ["--vocab-size", SIZES[kind]] if SIZES[kind] else []
    done(tiny("train", "--data", play, "--kind", kind, *asked, "--out", out, "--format", "huggingface", "--show", 0))
    theirs = tokenizers.Tokenizer.from_file(str(out))
    told = json.loads(done(tiny("encode", tmp_path, "--text", small_text[:400], "--json")))
    assert told["ids"] == theirs.encode(small_text[:400], add_special_tokens=False).ids


def test_other_forms_and_what_they_leave_out(tiny, tmp_path, play, small_text):
    ids, expected = {}, BPETokenizer.train(small_text, 300, ["<|endoftext|>", "<|user|>"], split="gpt4")
    for form, out in (("gpt2", "folder"), ("tiktoken", "ranks.tiktoken")):
        told = done(tiny("train", "--data", play, "--vocab-size", 300, "--special", "<|endoftext|>", "<|user|>", "--split", "gpt4",
                         "--out", tmp_path / out, "--format", form))  # fmt: skip
        assert ("the split pattern (gpt4)" in told) == (form == "gpt2") and "<|user|>" in told
        assert ("(<|user|>)" if form == "gpt2" else "(<|endoftext|>, <|user|>)") in told
        ids[form] = json.loads(done(tiny("encode", tmp_path / out, "--text", "The king fears the sea", "--json")))["ids"]
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == ["merges.txt", "vocab.json"]
    assert ids["gpt2"] == ids["tiktoken"] == expected.encode("The king fears the sea")
    done(tiny("train", "--data", play, "--kind", "wordpiece", "--vocab-size", 90, "--out", tmp_path / "vocab.txt", "--format", "wordpiece"))
    assert load_tokenizer(tmp_path / "vocab.txt").vocab_size == 90


@pytest.mark.parametrize(
    "spelled", [["--special", "<a>", "<b>"], ["--special", "<a>", "--special", "<b>"], ["--special=<a>", "--special", "<b>"]]
)
def test_special_tokens_can_be_given_together_or_one_by_one(tiny, tmp_path, play, spelled):
    done(tiny("train", *spelled, "--data", play, "--vocab-size", 270, "--out", tmp_path / "t.json"))
    assert load_tokenizer(tmp_path / "t.json").special_tokens == {"<a>": 268, "<b>": 269}


@given(st.lists(st.sampled_from(["--special", "--out", "a", "b", "--special=c", "-1"]), max_size=7))
def test_spread_moves_values_to_their_flag_and_nothing_else(argv):
    spelled = tokenizer_source.spread(argv, "--special")
    assert all(spelled[i + 1 : i + 2] == [] or spelled[i + 1].startswith("--") for i, token in enumerate(spelled) if token == "--special")
    back = [part for token in spelled for part in (token.split("=", 1) if token.startswith("--special=") else [token])]
    flat = [part for token in argv for part in (token.split("=", 1) if token.startswith("--special=") else [token])]
    assert [part for part in back if part != "--special"] == [part for part in flat if part != "--special"]


def test_nothing_is_replaced_unasked_and_sources_never(tiny, tmp_path, play):
    out = tmp_path / "t.json"
    out.write_text("mine")
    code, _, err = tiny("train", "--data", play, "--kind", "char", "--out", out)
    assert code == 2 and "is there already" in err and out.read_text() == "mine"
    done(tiny("train", "--data", play, "--kind", "char", "--out", out, "--overwrite"))
    link = tmp_path / "link.txt"
    link.symlink_to(play)
    before = play.read_bytes()
    second = tmp_path / "second.txt"
    second.hardlink_to(play)
    for name in (play, link, second):
        code, _, err = tiny("train", "--data", play, "--kind", "char", "--out", name, "--overwrite")
        assert code == 2 and "is the source itself" in err and play.read_bytes() == before
    code, _, err = tiny("extend", out, "--special", "<x>", "--out", out, "--overwrite")
    assert code == 2 and "is the source itself" in err


# --- encode and decode --------------------------------------------------------------------------------------------------


def test_encode_says_what_the_tokenizer_says(tiny, saved, bpe):
    text = "The king é\n<|user|>"
    code, out, err = tiny("encode", saved, "--text", text)
    lines = [line.split("\t") for line in out.splitlines()]
    assert code == 0 and [int(i) for i, _ in lines] == bpe.encode(text)
    assert [token for _, token in lines][-4:] == ["\\xc3", "\\xa9", "⏎", "<|user|>"] and lines[1][1].startswith("·")
    assert f"{len(lines)} tokens for 19 characters, 20 bytes: {20 / len(lines):.2f} bytes per token; decodes to the same text" in err
    told = json.loads(done(tiny("encode", saved, "--text", text, "--json")))
    assert (told["ids"], told["tokens"]) == (bpe.encode(text), [token for _, token in lines])


@pytest.mark.parametrize(("flags", "n"), [([], 2), (["all"], 2), (["none"], 0), (["<|user|>"], 1), (["<|endoftext|>", "<|user|>"], 2)])
def test_special_tokens_count_as_such_where_allowed(tiny, saved, bpe, flags, n):
    given_flags = ["--allowed-special", *flags] if flags else []
    told = json.loads(done(tiny("encode", saved, "--text", "a<|user|><|endoftext|>", *given_flags, "--json")))
    assert sum(i in bpe.special_tokens.values() for i in told["ids"]) == n


@settings(max_examples=40, deadline=None)
@given(text=ANY_TEXT.filter(bool), form=st.sampled_from(["lines", "json", "ids"]))
def test_what_encode_writes_decode_reads_exactly(saved, text, form):
    out, monkey = io.StringIO(), pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", io.StringIO())
        assert main(["tokenizer", "encode", str(saved), f"--text={text}", *(["--json"] if form == "json" else [])]) == 0
        written = out.getvalue()
        if form == "ids":
            written = ", ".join(line.split("\t")[0] for line in written.split("\n"))
        back = io.StringIO()
        patch.setattr(sys, "stdin", io.StringIO(written))
        patch.setattr(sys, "stdout", back)
        assert main(["tokenizer", "decode", str(saved)]) == 0
    assert back.getvalue() == text


def test_decode_takes_ids_and_says_where_bytes_are_no_text(tiny, saved, bpe):
    ids = bpe.encode("The king")
    assert tiny("decode", saved, *ids) == (0, "The king", "")
    assert tiny("decode", saved, ",".join(map(str, ids)))[1] == "The king"
    code, out, err = tiny("decode", saved, 195)
    assert (code, out) == (0, "\N{REPLACEMENT CHARACTER}") and "no whole character" in err
    assert json.loads(done(tiny("decode", saved, 97, "--json")))["text"] == "a"


@given(ANY_TEXT, st.integers(20, 90))
@settings(max_examples=60, deadline=None)
def test_coloured_tokens_stand_above_their_ids(text, width):
    tokenizer = tokenization.train("byte", "")
    ids = tokenizer.encode(text)
    pieces = [tokenizer_pieces.token(tokenizer, i) for i in ids]
    page = tokenizer_pieces.coloured(pieces, ids, width)
    lines = page.plain.split("\n") if page.plain else []
    assert [int(i) for below in lines[1::2] for i in below.split()] == ids
    assert all(cell_len(line) <= width for line in lines)
    spans = [span for span in page.spans if "on" in str(span.style)]
    assert len(spans) == len(ids) and all(a.style != b.style for a, b in pairwise(spans))
    places, at = [], 0
    for line in lines[::2]:
        places += [cell_len(page.plain[at : span.start]) for span in spans if at <= span.start < at + len(line)]
        at += len(line) + 1 + len(lines[lines.index(line) + 1]) + 1 if lines.count(line) == 1 else 0
        if lines.count(line) != 1:
            return  # equal rows: their places can't be told apart this way
    starts = [match.start() for below in lines[1::2] for match in re.finditer(r"\d+", below)]
    assert places == starts


def test_shown_has_no_control_character_and_comes_back():
    assert tokenizer_pieces.shown(b"\x1b[31m a\n\tb\x7f") == "␛[31m·a⏎⇥b␡"
    assert tokenizer_pieces.shown("日".encode()[:2]) == "\\xe6\\x97"
    assert tokenizer_pieces.unshown("·a⏎⇥b") == " a\n\tb"


# --- inspect ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["gpt2", "none", "[.!?]+"])
def test_counts_on_the_training_text_are_those_of_training(tmp_path, tiny, small_text, split):
    counted = {}
    text = (small_text + "aaaaaa aaaa <s>aaaaa")[-6000:]
    tokenizer = BPETokenizer.train(text, 300, ["<s>"], split=split, on_merge=lambda rank, pair, count: counted.update({rank: count}))
    assert tokenizer_facts.merge_counts(tokenizer, text) == counted
    assert not tokenizer_facts.merge_counts(tokenizer.with_special_tokens(["The king"]), "The kingThe king"), "special tokens are no text"
    save_tokenizer(tokenizer, tmp_path / "t.json")
    (tmp_path / "text.txt").write_text(text, encoding="utf-8", newline="")
    told = json.loads(done(tiny("inspect", tmp_path / "t.json", "--data", tmp_path / "text.txt", "--merges", 500, "--json")))
    occurs = Counter(tokenizer.encode(text))
    assert [row["joined"] for row in told["listed"]] == list(counted.values())
    assert [row["occurs"] for row in told["listed"]] == [occurs[row["id"]] for row in told["listed"]]
    assert told["usage"]["n_never_used"] == sum(occurs[i] == 0 for i in range(tokenizer.vocab_size)) == len(told["usage"]["never_used"])
    assert told["usage"]["n_tokens"] == occurs.total()
    assert told["usage"]["bytes_per_token"] == pytest.approx(len(text.encode()) / occurs.total())


def test_inspect_lists_the_merges_asked_for(tiny, saved, bpe):
    told = json.loads(done(tiny("inspect", saved, "--merges", 4, "--from", 7, "--json")))
    assert [row["merge"] for row in told["listed"]] == [7, 8, 9, 10]
    assert [row["id"] for row in told["listed"]] == [263, 264, 265, 266]
    assert told["special_tokens"] == [
        {"token": "<|endoftext|>", "id": 298, "roles": ["eos"]},
        {"token": "<|user|>", "id": 299, "roles": []},
    ]
    texts = [bpe.decode([i]) for i in range(298)]
    assert told["share_that_start_a_word"] == sum(bool(re.match(r" [^\W\d_]", text)) for text in texts) / 298
    assert len(told["longest"][0]) == max(len(text) for text in texts)
    out = done(tiny("inspect", saved))
    assert "42 merges" in out and "<|endoftext|> 298 (eos)" in out and out.count("│ ") > 30


@pytest.mark.parametrize(("kind", "share"), [("wordpiece", None), ("unigram", None), ("word", None), ("char", None), ("byte", None)])
def test_inspect_knows_every_kind(tiny, tmp_path, play, small_text, kind, share):
    tokenizer = tokenization.train(kind, small_text, SIZES[kind])
    save_tokenizer(tokenizer, tmp_path / "t.json")
    told = json.loads(done(tiny("inspect", tmp_path / "t.json", "--data", play, "--json", "--merges", 1000)))
    assert told["kind"] == kind and len(told["listed"]) == tokenizer.vocab_size
    counts = Counter(tokenizer.encode(small_text))
    assert {row["id"]: row["occurs"] for row in told["listed"]} == {i: counts[i] for i in range(tokenizer.vocab_size)}
    out = done(tiny("inspect", tmp_path / "t.json", "--text", "The king", "--token", "0", "--data", play))
    assert "tokens" in out or "most probable" in out


@settings(max_examples=60, deadline=None)
@given(ANY_TEXT.filter(bool))
def test_bpe_steps_take_boundaries_away_one_merge_after_the_other(bpe, text):
    seen = tokenizer_views.steps(bpe, text)
    assert [bpe.vocab[i] for i in bpe.encode(text)] == seen[-1].pieces
    ranks = [int(step.what.removeprefix("merge ")) for step in seen[1:]]
    assert seen[0].what == "begin"
    for before, after, rank in zip(seen[:-1], seen[1:], ranks, strict=True):
        assert ends_of(after.pieces) < ends_of(before.pieces)
        assert after.new == b"".join(bpe.merges[rank]) and after.new in after.pieces


def ends_of(pieces):
    return set(np.cumsum([len(piece) for piece in pieces]).tolist())


def metaspace_bpe():
    pieces = ["<unk>", "<s>", *BYTE_PIECES, *"▁helowrd", "he", "ll", "hell", "hello", "▁hello", "▁w", "lo", "el"]
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("▁", "hello"), ("▁", "w"), ("l", "o"), ("e", "l")]
    return MetaspaceBPE(pieces, merges, ["<unk>", "<s>"], prepend="always", split=False, byte_fallback=True)


@pytest.mark.parametrize("text", ["hello world", "<s>hello é hello", "llllo well he", "wellow"])
def test_metaspace_bpe_has_its_steps_and_trees_too(text):
    tokenizer = metaspace_bpe()
    seen = tokenizer_views.steps(tokenizer, text)
    assert seen[-1].pieces == [tokenizer.pieces[i].encode() for i in tokenizer.encode(text)]
    tree = plain_text(tokenizer_views.token_tree(tokenizer, tokenizer_facts.find_token(tokenizer, " hello")))
    assert tree.startswith("▁hello  id 270, merge 4") and re.findall(r"── (\S)  ", tree) == ["▁", "h", "e", "l", "l", "o"]


@settings(max_examples=100)
@given(
    st.text("abc", min_size=1, max_size=9),
    st.sets(st.sampled_from(["a", "b", "ab", "##a", "##b", "##ab", "##c", "##bc", "c", "abc", "##abc"])),
)
def test_wordpieces_steps_are_its_choices(word, pieces):
    found = list(tokenizer_views.greedy_steps(word, pieces, "##"))
    expected = longest_match_first(word, pieces)
    if expected is None:
        assert found[-1][0] == ""
    else:
        assert [piece for piece, _, _ in found] == expected and found[-1][1] == ""
    rest = len(word)
    for piece, left, tried in found:
        assert tried == (rest if not piece else rest - len(piece.removeprefix("##")) + 1)
        rest = len(left)


def test_the_last_step_of_wordpiece_is_what_encode_gives(small_text):
    tokenizer = WordPieceTokenizer.train(small_text, 90)
    text = "The KING, unkingly 日本 [SEP] " + "k" * 101
    seen = tokenizer_views.steps(tokenizer, text)
    assert [piece.decode() for piece in seen[-1].pieces] == [tokenizer.pieces[i] for i in tokenizer.encode(text)]
    assert seen[-1].what == "tokens" and any("nothing begins 日" in step.what for step in seen)
    assert any(step.what == "longer than 100" for step in seen)


@pytest.mark.parametrize("byte_fallback", [False, True])
def test_unigrams_best_way_is_what_encode_gives_and_its_scores_add_up(byte_fallback):
    tokenizer = UnigramTokenizer.train(PUGS, 60 + 256 * byte_fallback, byte_fallback=byte_fallback)
    for text in ("the bugs hug", "bun 日本 pug"):
        seen = tokenizer_views.steps(tokenizer, text, 4)
        assert [piece.decode() for piece in seen[0].pieces] == [tokenizer.pieces[i] for i in tokenizer.encode(text)]
        scores = [float(step.what) for step in seen]
        assert len(scores) == 4 and scores == sorted(scores, reverse=True)
        told = tokenizer_views.sum_of_scores(tokenizer, text)
        parts, _, total = told.rpartition(" = ")
        assert sum(float(part.split(" ")[-1]) for part in parts.split(" + ")) == pytest.approx(float(total), abs=0.1)
        assert float(total) == scores[0]


def test_a_normalized_tokenizer_is_shown_as_it_reads(bpe):
    tokenizer = NormalizedTokenizer(bpe, [{"type": "Lowercase"}])
    assert tokenizer_views.steps(tokenizer, "THE<|user|>")[-1].pieces == [bpe.vocab[i] for i in bpe.encode("the<|user|>")]
    assert tokenizer_pieces.kind_of(tokenizer) == "normalized" and tokenizer_facts.about(tokenizer)["n_merges"] == 42
    assert tokenizer_facts.merge_counts(tokenizer, "THE king") == tokenizer_facts.merge_counts(bpe, "the king")


def test_the_tree_of_a_token(tiny, saved, bpe):
    longest = max((i for i in range(298)), key=lambda i: len(bpe.vocab[i]))
    tree = json.loads(done(tiny("inspect", saved, "--token", longest, "--json")))["tree"]
    ids = [int(re.search(r"id (\d+)", line)[1]) for line in tree]
    leaves = [i for i, line in zip(ids, tree, strict=True) if "merge" not in line]
    assert ids[0] == longest and bytes(leaves) == bpe.vocab[longest]
    assert len(tree) == 2 * len(leaves) - 1 and any("└──" in line for line in tree)
    for line in tree:
        if found := re.search(r"id (\d+), merge (\d+)", line):
            assert b"".join(bpe.merges[int(found[2])]) == bpe.vocab[int(found[1])]


def test_a_tree_may_be_deeper_than_pythons_stack():
    n = 1500
    tokens = [*(bytes([value]) for value in range(256)), *(b"a" * k for k in range(2, n + 1))]
    tokenizer = BPETokenizer(dict(enumerate(tokens)), [(b"a" * k, b"a") for k in range(1, n)])
    drawn = tokenizer_views.token_tree(tokenizer, 256 + n - 2)
    depth, node = 0, drawn
    while node.children:
        node, depth = node.children[0], depth + 1
    assert depth == n - 1


@pytest.mark.parametrize(
    ("word", "token"),
    [("97", b"a"), ("a", b"a"), (" ", b" "), ("·", b" "), ("Ġ", b" "), ("⏎", b"\n"), ("Ċ", b"\n"), ("<|user|>", b"<|user|>")],
)
def test_a_token_is_found_by_id_by_text_and_as_shown(bpe, word, token):
    assert bpe.vocab[tokenizer_facts.find_token(bpe, word)] == token


def test_unigrams_token_shows_how_it_would_be_written_without():
    tokenizer = UnigramTokenizer.train(PUGS, 40)
    i = max((i for i, piece in enumerate(tokenizer.pieces) if piece != "<unk>"), key=lambda i: len(tokenizer.pieces[i]))
    lines = plain_text(tokenizer_views.token_tree(tokenizer, i)).split("\n")
    assert len(lines) == 4 and all("without it" in line for line in lines[1:])
    pieces = lines[1].split("without it")[1].split()[0].split("|")
    assert "".join(pieces) == tokenizer.pieces[i] and len(pieces) > 1


# --- compare ------------------------------------------------------------------------------------------------------------


def test_measures_by_hand():
    text = "the cat, the dog\n"
    made = tokenizer_measures.measure(tokenization.train("char", text), "char", "c", text)
    assert (made.n_tokens, made.bytes_per_token, made.tokens_per_word, made.whole_words, made.unknown, made.exact) == (17, 1, 3, 0, 0, True)
    words = tokenization.train("word", "the a, cat the\n")
    made = tokenizer_measures.measure(words, "word", "c", " the cat, the dog\n")
    assert made.n_tokens == 6 and made.unknown == pytest.approx(1 / 6) and made.exact is False
    assert made.tokens_per_word == 1 and made.whole_words == 3 / 4  # all but the dog
    assert made.seconds_per_mb > 0 and made.vocab_size == words.vocab_size
    made = tokenizer_measures.measure(tokenization.train("char", "abc"), "char", "c", "abd")
    assert made.n_tokens is None and "'d'" in made.problem
    assert tokenizer_measures.words(words, "12 !") == (None, None)
    made = tokenizer_measures.measure(tokenization.train("byte", ""), "byte", "c", "déjà vu")
    assert (made.n_bytes, made.n_tokens, made.bytes_per_token, made.tokens_per_word) == (9, 9, 1, 4), "bytes, not characters"


def test_fertility_equals_a_count_over_all_words(bpe, small_text):
    text = small_text[:3000]
    found = re.findall(r"[A-Za-z]+(?:'[A-Za-z]+)*", text)
    numbers = [len(bpe.encode(" " + word)) - (bpe.encode(" " + word)[0] == 32) for word in found]
    fertility, whole = tokenizer_measures.words(bpe, text)
    assert fertility == pytest.approx(np.mean(numbers)) and whole == pytest.approx(np.mean([n == 1 for n in numbers]))


def test_speed_is_that_of_a_tokenizer_that_has_seen_nothing(bpe):
    seen = []

    class Spy(BPETokenizer):
        def encode_array(self, text, allowed_special="all"):
            seen.append((id(self), len(self._cache)))
            return super().encode_array(text, allowed_special)

    spy = Spy(bpe.vocab, bpe.merges, split=bpe.split)
    assert tokenizer_measures.encoding_time(spy, "the king fears the king") > 0
    assert len({who for who, _ in seen}) == 3 and {size for _, size in seen} == {0} and not spy._cache


def test_compare_trains_on_the_first_part_and_measures_the_last(tiny, tmp_path):
    text, other = tmp_path / "a.txt", tmp_path / "b.txt"
    text.write_text("known words here " * 90 + "zebra " * 28 + "ab")
    other.write_text("é" * 200)
    told = json.loads(done(tiny("compare", "char", "word", "bpe:270", "--data", text, "--data", other, "--json", "--size", 1700)))
    rows = {(row["tokenizer"], row["corpus"]): row for row in told["measures"]}
    assert len(rows) == 6 and rows["word", str(text)]["n_bytes"] == 170
    assert rows["word", str(text)]["unknown"] > 0.9, "zebras are unknown: they stand in the last tenth only"
    assert rows["char", str(text)]["exact"] is True, "an alphabet is that of the whole text"
    assert rows["char", str(other)]["n_tokens"] is None and "'é'" in rows["char", str(other)]["problem"]
    assert rows["bpe:270", str(other)]["n_bytes"] == 40 and rows["bpe:270", str(other)]["exact"]
    expected = BPETokenizer.train(text.read_text()[:1530], 270)
    assert rows["bpe:270", str(text)]["n_tokens"] == len(expected.encode(text.read_text()[1530:1700]))
    assert told["about"].startswith("trained on the first 90%")


def test_compare_of_files_measures_the_whole_text_and_draws(tiny, tmp_path, saved, play, small_text, bpe):
    picture = tmp_path / "new" / "compared.png"
    code, out, _ = tiny("compare", saved, "--data", play, "--out", picture)
    assert code == 0 and f"{len(bpe.encode(small_text)):,}" in out and "measured on all of" in out
    assert picture.read_bytes()[:4] == b"\x89PNG" and picture.with_suffix(".svg").read_text().startswith("<?xml")
    table = [line for line in out.splitlines() if line.startswith(("│", "╭"))]
    assert "bytes/" in out and len(table) == 4


def test_the_table_fits_a_terminal_of_80_columns():
    from rich.console import Console

    from tiny_transformer.cli.tokenizer_compare import NAME_WIDTH, drawn

    row = tokenizer_measures.Measured(
        tokenizer="a/very/long/path/to/tok.json", kind="bpe", corpus="c", n_bytes=10**7, vocab_size=50257, n_tokens=9_999_999,
        bytes_per_token=4.25, tokens_per_word=1.25, whole_words=0.999, unknown=0.0, exact=False, seconds_per_mb=12.25,
    )  # fmt: skip
    console = Console(width=80, file=io.StringIO())
    console.print(drawn([row], "c", NAME_WIDTH))
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 7 and "…th/to/tok.json" in lines[5] and "9,999,999" in lines[5] and "12.25" in lines[5]


def test_the_picture_shows_every_measure():
    from tiny_transformer.cli.tokenizer_plot import comparison

    row = tokenizer_measures.Measured(
        tokenizer="t", kind="bpe", corpus="c", n_bytes=10, vocab_size=300, n_tokens=4, bytes_per_token=2.5, tokens_per_word=1.5,
        whole_words=0.5, unknown=0.25, exact=True, seconds_per_mb=0.7,
    )  # fmt: skip
    lost = tokenizer_measures.Measured(tokenizer="$t$", kind="char", corpus="d", n_bytes=10, vocab_size=3, problem="no")
    figure = comparison([row, lost], "caption")
    texts = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert texts[0][0] == "2.50  (25% unknown)" and texts[1][0] == "1.50" and texts[2][0] == "0.70"
    assert all(found.count("can't read it") == 3 for found in texts), "of two tokenizers and two texts one was measured"
    widths = [[bar.get_width() for bar in axes.patches] for axes in figure.axes]
    assert [max(found) for found in widths] == [2.5, 1.5, 0.7]


# --- extend -------------------------------------------------------------------------------------------------------------


def test_extending_a_file_keeps_all_ids(tiny, tmp_path, saved, bpe, small_text):
    out = tmp_path / "more.json"
    told = json.loads(done(tiny("extend", saved, "--special", "<|bot|>", "a", "--out", out, "--json")))
    assert told["added"] == {"<|bot|>": 300, "a": 97} and told["vocab_size"] == [300, 301]
    more = load_tokenizer(out)
    assert more.encode("the king<|bot|>", "all")[-1] == 300
    assert more.encode(small_text[:500], ["<|bot|>"]) == bpe.encode(small_text[:500])


def test_a_tokenizer_json_stays_one(tiny, tmp_path, play):
    tokenizers = pytest.importorskip("tokenizers")
    source = tmp_path / "tokenizer.json"
    done(tiny("train", "--data", play, "--vocab-size", 270, "--out", source, "--format", "huggingface"))
    done(tiny("extend", tmp_path, "--special", "<|bot|>", "--out", tmp_path / "more.json"))
    assert tokenizers.Tokenizer.from_file(str(tmp_path / "more.json")).encode("<|bot|>").ids == [270]
    code, _, err = tiny("extend", tmp_path, "--special", "<|bot|>", "--out", source, "--overwrite")
    assert code == 2 and "is the source itself" in err, "the folder was named, its file is the source"


def a_model(tmp_path, tokenizer, suffix, **more):
    """A run with random weights that are large enough for a text that is not all one letter."""
    config = ModelConfig(vocab_size=tokenizer.vocab_size, d_model=24, n_layers=2, n_heads=4, max_seq_len=32, **more)
    weights = {name: weight * 4 for name, weight in init_weights(config, 3).items()}
    file = tmp_path / f"best{suffix}"
    if suffix == ".pt":
        import torch

        from tiny_transformer.utils import checkpoint as checkpoints

        made = checkpoints.Checkpoint(config, tokenizer.to_dict(), {name: torch.from_numpy(w) for name, w in weights.items()},
                                      step=7, lineage={"corpus": "play"}, training={"step": 7})  # fmt: skip
        checkpoints.save(file, made)
    else:
        numpy_checkpoints.save(file, numpy_checkpoints.Checkpoint(config, tokenizer.to_dict(), weights, step=7, lineage={"corpus": "play"}))
    return file


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_extending_a_model_changes_nothing_that_it_does(tiny, tmp_path, capsys, bpe, suffix, tied):
    from tiny_transformer import run

    source, out = a_model(tmp_path, bpe, suffix, tie_weights=tied), tmp_path / f"more{suffix}"
    told = done(tiny("extend", tmp_path, "--special", "<|bot|>", "<|sys|>", "--out", out))
    assert "<|bot|>  id 300" in told and "300 before, 302 now" in told
    assert ("training can't be resumed" in told) == (suffix == ".pt")
    before, after = run.read(source), run.read(out)
    assert after.config.vocab_size == 302 and after.lineage == {
        "corpus": "play", "parent": str(source), "added_tokens": {"<|bot|>": 300, "<|sys|>": 301},
    }  # fmt: skip
    assert after.step == 7 and after.training is None
    ids = np.array([bpe.encode("The king fears my sea, the ")])
    logits = [NumpyModel(made.config, run.as_numpy(made).weights).forward(ids) for made in (before, after)]
    np.testing.assert_array_equal(logits[0], logits[1][..., :300])
    engine = ["--engine", "numpy"] if suffix == ".safetensors" else []
    texts = []
    for file in (source, out):
        assert main(["generate", str(file), "--prompt", "The ", "--temperature", "0", "--max-tokens", "20", *engine]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] and len(texts[0]) > 10
    told = json.loads(done(tiny("encode", out, "--text", "The <|bot|>", "--json")))
    assert told["ids"][-1] == 300


def test_bfloat16_and_spare_rows_survive(tiny, tmp_path, bpe):
    import torch

    from tiny_transformer.utils import checkpoint as checkpoints

    source = a_model(tmp_path, bpe, ".pt")
    made = checkpoints.load(source)
    made.weights = {name: weight.bfloat16() for name, weight in made.weights.items()}
    checkpoints.save(source, made)
    done(tiny("extend", source, "--special", "<x>", "--out", tmp_path / "x.pt"))
    new = checkpoints.load(tmp_path / "x.pt").weights["embeddings.token.weight"]
    assert new.dtype == torch.bfloat16 and torch.equal(new[:300], made.weights["embeddings.token.weight"]) and len(new) == 301
    made.config = ModelConfig(**{**made.config.to_dict(), "vocab_size": 320})
    made.weights["embeddings.token.weight"] = torch.cat([new[:300], torch.zeros(20, 24)])
    checkpoints.save(source, made)
    done(tiny("extend", source, "--special", "<x>", "--out", tmp_path / "y.pt"))
    assert checkpoints.load(tmp_path / "y.pt").config.vocab_size == 320, "a model with spare rows has room"


# --- what goes wrong ----------------------------------------------------------------------------------------------------


@pytest.fixture
def troubled(tmp_path, saved, play):
    """A folder of files that are no use, to be named in the arguments below."""
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "latin1.txt").write_bytes("café\n".encode("latin-1") * 9)
    (tmp_path / "picture.txt").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    (tmp_path / "cut.json").write_bytes(saved.read_bytes()[:500])
    (tmp_path / "no.json").write_text('{"kind": "bpe"}')
    (tmp_path / "bad.safetensors").write_bytes(b"\x00" * 90)
    (tmp_path / "folder").mkdir()
    return {"DIR": tmp_path, "TOK": saved, "TEXT": play}


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ("trian", "there is no action 'trian'. Did you mean train?"),
        ("train --data TEXT --kind bep --out DIR/x.json", "kind='bep'"),
        ("train --data TEXT --vocab-size 100 --out DIR/x.json", "byte-level BPE needs 256 or more"),
        ("train --data TEXT --vocab-size 100 --special <x> --out DIR/x.json", "256 bytes and 1 special"),
        ("train --data TEXT --kind unigram --vocab-size 5 --out DIR/x.json", "characters need"),
        ("train --data TEXT --kind wordpiece --vocab-size 5 --out DIR/x.json", "characters"),
        ("train --data TEXT --kind char --vocab-size 5 --out DIR/x.json", "different characters"),
        ("train --data TEXT --vocab-size 0 --out DIR/x.json", "vocab_size=0"),
        ("train --data TEXT --vocab-size many --out DIR/x.json", "--vocab-size: "),
        ("train --data TEXT --split gtp2 --out DIR/x.json", "split='gtp2'"),
        ("train --data TEXT --split gpt2 --kind char --out DIR/x.json", "only bpe has one"),
        ("train --data TEXT --special <x> <x> --out DIR/x.json", "occurs more than once"),
        ("train --data TEXT --format gtp2 --out DIR/x.json", "format"),
        ("train --data TEXT --format gpt2 --kind char --out DIR/x", "it can be saved as tiny, huggingface"),
        ("train --data TEXT --format gpt2 --out DIR/x.json", "go into a folder"),
        ("train --data TEXT --format wordpiece --kind wordpiece --out DIR/x.json", "vocab.txt"),
        ("train --data TEXT --val-share 1 --out DIR/x.json", "val_share=1.0"),
        ("train --data TEXT --show -1 --out DIR/x.json", "show=-1"),
        ("train --data TEXT", "no --out"),
        ("train --data TEXT --out DIR/folder", "is a folder"),
        ("train --data TEXT --out DIR/empty.txt/x.json", "is a file, and no folder"),
        ("train --out DIR/x.json", "train without a text"),
        ("train --data TEXT --corpus pitches --out DIR/x.json", "one text is enough"),
        ("train --data DIR/empty.txt --out DIR/x.json", "empty"),
        ("train --data DIR/latin1.txt --out DIR/x.json", "UTF-8"),
        ("train --data DIR/picture.txt --out DIR/x.json", "looks binary (a PNG image)"),
        ("train --data DIR/none.txt --out DIR/x.json", "there is no file"),
        ("train --corpus shakespear --out DIR/x.json", "shakespear"),
        ("encode", "encode without a tokenizer"),
        ("encode TOK", "encode without a text"),
        ("encode TOK --text=", "an empty text"),
        ("encode TOK --text a --file TEXT", "one text is enough"),
        ("encode TOK --text a --allowed-special <nix>", "special token '<nix>'"),
        ("encode TOK --file DIR/picture.txt", "looks binary"),
        ("encode TOK --txt a", "there is no flag --txt. Did you mean --text?"),
        ("encode DIR/none.json --text a", "there is no tokenizer at"),
        ("encode DIR/no.jso --text a", "Did you mean"),
        ("encode DIR/cut.json --text a", "is damaged"),
        ("encode DIR/no.json --text a", "the part is missing"),
        ("encode DIR/picture.txt --text a", "is not UTF-8"),
        ("encode DIR/empty.txt --text a", "is no tokenizer"),
        ("encode DIR/folder --text a", "holds no tokenizer"),
        ("encode DIR/bad.safetensors --text a", "damaged"),
        ("decode TOK 300", "id 300 is not in the vocabulary"),
        ("decode TOK -1", "id -1 is not in the vocabulary"),
        ("decode TOK 1 two 3", "'two' is no id"),
        ("inspect TOK --token 300", "token 300: ids lie in 0 to 299"),
        ("inspect TOK --token xyz", "'xyz' is no token: it is encoded as 'x' 120, 'y' 121, 'z' 122"),
        ("inspect TOK --from 42", "there are 42"),
        ("inspect TOK --merges -1", "merges=-1"),
        ("inspect TOK --ways 0", "ways=0"),
        ("inspect TOK --text=", "an empty text"),
        ("inspect TOK --data DIR/latin1.txt", "UTF-8"),
        ("compare --data TEXT", "no tokenizers"),
        ("compare TOK", "compare without a text"),
        ("compare bep:300 --data TEXT", "tokenizer kind 'bep'"),
        ("compare bpe:x --data TEXT", "Try bpe:2048"),
        ("compare bpe:0 --data TEXT", "Try bpe:2048"),
        ("compare bpe:100 --data TEXT", "byte-level BPE needs 256"),
        ("compare TOK --data TEXT --val-share 0", "val_share=0.0"),
        ("compare TOK --data DIR/empty.txt", "empty"),
        ("extend", "extend without a tokenizer"),
        ("extend --special <x> TOK --out DIR/x.json", "stands before the flags"),
        ("extend TOK --out DIR/x.json", "no --special"),
        ("extend TOK --special <|user|> --out DIR/x.json", "it is one already"),
        ("extend TOK --special <x> <x> --out DIR/x.json", "more than once"),
        ("extend TOK --special <x>", "no --out"),
        ("extend TOK --special <x> --out DIR/no.json", "is there already"),
        ("extend TOK --special <x> --format wordpiece --out DIR/vocab.txt", "it can be saved as"),
    ],
)
def test_bad_input_is_one_line(tiny, troubled, argv, says):
    words = [troubled[word] if word in troubled else word.replace("DIR", str(troubled["DIR"])) for word in argv.split(" ")]
    before = {path: path.is_file() and path.read_bytes() for path in troubled["DIR"].rglob("*")}
    code, out, err = tiny(*words)
    assert code == 2 and out == "" and err.count("\n") == 1 and err.startswith("tiny tokenizer: "), (out, err)
    assert any(part in err for part in says.split("|")) or says in err, err
    assert {path: path.is_file() and path.read_bytes() for path in troubled["DIR"].rglob("*")} == before, "nothing is written"


@pytest.mark.parametrize("text", ["", " \n", "{", "[1, 2.5]", '{"id": [1]}', "[true]"])
def test_standard_input_without_ids_is_one_line(tiny, monkeypatch, saved, text):
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    code, out, err = tiny("decode", saved)
    assert code == 2 and out == "" and err.count("\n") == 1


def test_a_model_is_written_by_its_own_engine_and_needs_a_tokenizer(tiny, tmp_path, bpe):
    source = a_model(tmp_path, bpe, ".safetensors")
    code, _, err = tiny("extend", source, "--special", "<x>", "--out", tmp_path / "x.pt")
    assert code == 2 and "Try --out" in err and "x.safetensors" in err
    code, _, err = tiny("extend", source, "--special", "<x>", "--out", source, "--overwrite")
    assert code == 2 and "is the source itself" in err
    bare = numpy_checkpoints.load(source)
    bare.tokenizer = None
    numpy_checkpoints.save(tmp_path / "bare.safetensors", bare)
    code, _, err = tiny("encode", tmp_path / "bare.safetensors", "--text", "a")
    assert code == 2 and "holds no tokenizer" in err


def test_a_kind_that_a_form_cannot_hold_says_which_can(tmp_path):
    from tiny_transformer.cli.tokenizer_files import write

    write(metaspace_bpe(), "tiny", [tmp_path / "x.json"])
    assert load_tokenizer(tmp_path / "x.json").encode("a") == metaspace_bpe().encode("a")
    with pytest.raises(ConfigError, match="it can be saved as tiny, huggingface"):
        write(metaspace_bpe(), "tiktoken", [tmp_path / "x.tiktoken"])


def test_help_of_every_action_and_none(tiny, capsys):
    assert "tiny tokenizer train --corpus" in done(tiny()) == done(tiny("--help"))
    for action in ("train", "encode", "decode", "inspect", "compare", "extend"):
        out = done(tiny(action, "--help"))
        assert f"tiny tokenizer {action}" in out and "--json" in out


def test_no_action_loads_pytorch_for_a_numpy_run(tmp_path, play, bpe):
    model = a_model(tmp_path, bpe, ".safetensors")
    lines = [
        ["train", "--data", str(play), "--kind", "char", "--out", str(tmp_path / "c.json")],
        ["encode", str(model), "--text", "The king"],
        ["decode", str(model), "97"],
        ["inspect", str(model), "--text", "The king"],
        ["compare", str(model), "char", "--data", str(play), "--size", "4000"],
        ["extend", str(model), "--special", "<x>", "--out", str(tmp_path / "x.safetensors")],
    ]
    code = f"import sys; from tiny_transformer.cli.main import main\nfor a in {lines!r}:\n    assert main(['tokenizer', *a]) == 0\n" \
           "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules"  # fmt: skip
    finished = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
