"""Dividing a text: nothing lost, nothing twice, the same document always on the same side."""

import hashlib
import json
import os
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny_transformer.cli.main import main
from tiny_transformer.config import ConfigError
from tiny_transformer.corpora.dividing import by_document, by_group, by_position, place_of
from tiny_transformer.corpora.documents import split_documents
from tiny_transformer.training.dataset import split

SPEAKERS = ["ROMEO", "JULIET", "NURSE", "DUKE", "MERCUTIO", "TYBALT", "PARIS", "BENVOLIO"]
PLAY = "\n\n" + "".join(f"{SPEAKERS[i * i % 7]}:\nSpeech {i} is not like any other.\n\n" for i in range(400)) + "EPILOGUE\n"


def bodies(text):
    return [piece.key for piece in split_documents(text) if piece.key]


@given(st.text(min_size=20, max_size=200), st.floats(0.1, 0.9))
@settings(max_examples=200, deadline=None)
def test_by_position_is_what_training_does(text, share):
    train, val = split(text, share)
    try:
        made = by_position(text, share)
    except ConfigError:
        assert not train.strip() or not val.strip()
        return
    assert (made.train, made.val, made.test) == (train, val, "")
    assert list(made.parts()) == ["train", "val"]


def test_by_position_with_a_test_part():
    made = by_position(PLAY, 0.2, 0.1)
    assert made.train + made.val + made.test == PLAY
    assert len(made.test) == pytest.approx(0.1 * len(PLAY), abs=1) and len(made.val) == pytest.approx(0.2 * len(PLAY), abs=1)


@given(st.integers(0, 10**6), st.floats(0.1, 0.5), st.sampled_from([0.0, 0.2]))
@settings(max_examples=60, deadline=None)
def test_documents_are_dealt_out_whole_once_and_in_order(seed, val_share, test_share):
    made = by_document(PLAY, val_share, test_share, seed=seed)
    parts = [bodies(part) for part in made.parts().values()]
    assert sorted(chain(*parts)) == sorted(bodies(PLAY))
    assert sum(map(len, made.parts().values())) == len(PLAY), "the white space is there too"
    order = {body: place for place, body in enumerate(bodies(PLAY))}
    assert all([order[b] for b in part] == sorted(order[b] for b in part) for part in parts)
    assert list(made.documents.values())[: len(parts)] == [len(part) for part in parts]


def test_the_shares_are_met_on_average():
    sizes = [by_document(PLAY, 0.2, 0.1, seed=seed).documents for seed in range(40)]
    assert sum(s["val"] for s in sizes) / 40 == pytest.approx(0.2 * 401, rel=0.05)
    assert sum(s["test"] for s in sizes) / 40 == pytest.approx(0.1 * 401, rel=0.08)
    assert len({by_document(PLAY, seed=seed).val for seed in range(10)}) == 10


def test_a_document_stays_where_it_is_when_others_come():
    before = by_document(PLAY, 0.3, seed=5)
    more = "NEW:\nA speech at the front.\n\n" + PLAY + "\nNEW:\nAnd one at the end.\n"
    after = by_document(more, 0.3, seed=5)
    assert set(bodies(before.train)) <= set(bodies(after.train)) and set(bodies(before.val)) <= set(bodies(after.val))


def test_copies_of_a_document_go_together():
    text = "".join(f"Document number {i % 50}.\n" + "\n" * (1 + i % 3) for i in range(200))
    made = by_document(text, 0.3, 0.2, seed=1)
    parts = [set(bodies(part)) for part in made.parts().values()]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2]) and all(parts)


@pytest.mark.parametrize("key", [r"^(\w+):$", r"\A\w+"])
def test_a_group_is_on_one_side(key):
    made = by_group(PLAY, key, 0.4, 0.2, seed=2)
    speakers = [{body.split(":")[0] for body in bodies(part) if ":" in body} for part in made.parts().values()]
    assert all(speakers) and sum(map(len, speakers)) == len(set().union(*speakers)) == 7 - 3
    assert sorted(chain(*(bodies(part) for part in made.parts().values()))) == sorted(bodies(PLAY))
    assert made.without_key == (1 if "(" in key else 0), "the epilogue has no speaker"
    assert sum(made.groups.values()) == 4 + 1


def test_a_group_does_not_depend_on_the_documents_in_it():
    one = by_group("A: x\n\nB: y\n\nC: z\n\nD: u\n\n", r"^(\w):", 0.5, seed=3)
    many = by_group("A: p\n\nA: q\n\nB: r\n\nC: s\n\nD: u\n\nB: t\n\n", r"^(\w):", 0.5, seed=3)
    for part in ("train", "val"):
        assert {body[0] for body in bodies(getattr(one, part))} == {body[0] for body in bodies(getattr(many, part))}


def test_places_are_spread_evenly_and_are_the_same_tomorrow():
    places = [place_of(f"key {i}", 0) for i in range(4000)]
    assert all(0 <= place < 1 for place in places)
    for low in (0.0, 0.25, 0.5, 0.75):
        assert sum(low <= place < low + 0.25 for place in places) == pytest.approx(1000, abs=120)
    digest = hashlib.blake2b(b"ROMEO", digest_size=8, key=b"7").digest()
    assert place_of("ROMEO", 7) == int.from_bytes(digest, "big") / 2**64


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: by_position("abc", 0), "val_share=0"),
        (lambda: by_position("abc", 1), "val_share=1"),
        (lambda: by_position("abc", 0.5, -0.1), "test_share=-0.1"),
        (lambda: by_position("abc", 0.5, 0.5), "together they must be below 1"),
        (lambda: by_position("abc", 0.1, 0.1), "the val part of the text is empty"),
        (lambda: by_document("only one\n"), "part of 1 documents is empty"),
        (lambda: by_group("A: x\n\nA: y\n", r"^(\w):"), "part of 1 groups is empty"),
        (lambda: by_group(PLAY, r"^Chapter (\d+)"), "matches none of 401 documents"),
        (lambda: by_group(PLAY, r"^(\w+:"), "it must be a regular expression"),
    ],
)
def test_what_cannot_be_divided(make, words):
    with pytest.raises(ConfigError) as error:
        make()
    assert words in str(error.value)


# --- the command ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "play.txt"
    path.write_bytes(PLAY.encode())
    return path


def test_split_writes_parts_and_a_record(file, tmp_path, capsys):
    out = tmp_path / "parts"
    argv = ["data", "split", str(file), "--by", "group", "--group-key", r"^(\w+):", "--val-share", "0.4", "--test-share", "0.2"]
    assert main([*argv, "--seed", "2", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "by group" in shown and "warning: the group key matched nothing in 1 documents" in shown
    record = json.loads((out / "split.json").read_text(encoding="utf-8"))
    made = by_group(PLAY, r"^(\w+):", 0.4, 0.2, seed=2)
    for name, text in made.parts().items():
        written = (out / f"{name}.txt").read_bytes()
        assert written == text.encode() and record["parts"][name]["sha256"] == hashlib.sha256(written).hexdigest()
        assert record["parts"][name]["documents"] == made.documents[name]
    assert record["source"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (record["by"], record["seed"], record["group_key"]) == ("group", 2, r"^(\w+):")
    assert file.read_bytes() == PLAY.encode()


def test_a_leak_is_reported(tmp_path, capsys):
    speech = "This is a long speech about number {}, which nobody ever gave and nobody will give."
    text = "".join(speech.format(i) + "\n\n" for i in range(60)) + speech.format(3).replace("nobody will", "no one will") + "\n"
    (tmp_path / "t.txt").write_text(text, encoding="utf-8")
    assert main(["data", "split", str(tmp_path / "t.txt"), "--out", str(tmp_path / "p"), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["parts"]["train"]["leak"] is None
    assert record["parts"]["val"]["leak"]["documents"] >= 6 and record["parts"]["val"]["leak"]["near"] == 0
    (tmp_path / "t.txt").write_text(text + "\n" + speech.format(3).upper() + "\n", encoding="utf-8")
    assert main(["data", "split", str(tmp_path / "t.txt"), "--out", str(tmp_path / "p")]) == 0
    assert "1 of" in (out := capsys.readouterr().out) and "100% alike: 'THIS IS A LONG" in out


def test_without_a_test_part_an_old_one_may_not_lie_there(file, tmp_path, capsys):
    out = tmp_path / "parts"
    assert main(["data", "split", str(file), "--test-share", "0.1", "--out", str(out)]) == 0
    assert main(["data", "split", str(file), "--out", str(out)]) == 2
    assert "test.txt is of another split" in capsys.readouterr().err
    (out / "test.txt").unlink()
    assert main(["data", "split", str(file), "--out", str(out)]) == 0
    train, val = split(PLAY)
    assert ((out / "train.txt").read_bytes(), (out / "val.txt").read_bytes()) == (train.encode(), val.encode())


def test_the_source_is_never_touched(tmp_path, capsys):
    out = tmp_path / "parts"
    out.mkdir()
    (out / "train.txt").write_bytes(PLAY.encode())
    assert main(["data", "split", str(out / "train.txt"), "--out", str(out)]) == 2
    (tmp_path / "play.txt").write_bytes(PLAY.encode())
    os.link(tmp_path / "play.txt", out / "val.txt")
    assert main(["data", "split", str(tmp_path / "play.txt"), "--out", str(out)]) == 2
    assert capsys.readouterr().err.count("is the source itself") == 2
    assert (tmp_path / "play.txt").read_bytes() == (out / "train.txt").read_bytes() == PLAY.encode()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "no --out"),
        (["--out", "p", "--by", "author"], "by='author': it must be one of position, document, group"),
        (["--out", "p", "--by", "group"], "--by group without --group-key"),
        (["--out", "p", "--group-key", "x"], "--group-key without --by group"),
        (["--out", "p", "--by", "group", "--group-key", "("], "it must be a regular expression"),
        (["--out", "p", "--val-share", "0"], "val_share=0.0"),
        (["--out", "play.txt"], "is a file: the parts need a folder"),
    ],
)
def test_bad_flags_are_one_line(argv, words, file, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["data", "split", "play.txt", *argv]) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["play.txt"]
