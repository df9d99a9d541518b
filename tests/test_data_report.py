"""What a report says about a text: counted again in a slower way, or known because the text was made so."""

import json
import math
import os
import random
import re
import subprocess
import sys
import threading
import unicodedata
from collections import Counter
from html.parser import HTMLParser
from itertools import combinations

import numpy as np
import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tiny_transformer.cli.data_facts import sections
from tiny_transformer.cli.data_page import page
from tiny_transformer.cli.main import main
from tiny_transformer.config import ConfigError
from tiny_transformer.corpora import counting, writing_systems
from tiny_transformer.corpora.binary import binary_kind
from tiny_transformer.corpora.documents import Piece, join_documents, split_documents, split_lines, without
from tiny_transformer.corpora.duplicates import Copy, exact_copies, repetition
from tiny_transformer.corpora.inventory import find_leak, take_inventory
from tiny_transformer.corpora.near_duplicates import Shingling, banding, jaccard, near_copies, near_matches, shingles
from tiny_transformer.corpora.suspicious import kind_of, line_ends, not_normal, suspicious_characters, unify_line_ends
from tiny_transformer.corpora.text_statistics import symbol_entropy

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
TEXTS = st.text(st.sampled_from("ab \n\r\t\u2028é\x07"), max_size=60)


# --- documents and lines ------------------------------------------------------------------------------------------------


@given(TEXTS, st.sampled_from([None, "ab", "\n", "a\nb"]))
@settings(max_examples=300, deadline=None)
def test_documents_joined_are_the_text(text, separator):
    pieces = split_documents(text, separator)
    assert join_documents(pieces) == text
    assert "".join(split_lines(text)) == text
    if separator is None:
        assert not any(re.search(r"\n[^\S\n]*\n", piece.body.strip()) for piece in pieces), "no blank line within a document"
        assert all(piece.gap.strip() == "" for piece in pieces)
    else:
        assert not any(separator in piece.body for piece in pieces)


def test_documents_by_blank_lines_and_by_separator():
    assert [piece.key for piece in split_documents("\n\nA\nb\n \t\nC\r\n\r\nD\n")] == ["", "A\nb", "C", "D"]
    assert split_documents("  indented\n\n    too\n") == [Piece("  indented", "\n\n"), Piece("    too\n", "")]
    assert [piece.body for piece in split_documents("a<|end|>b\n\nc<|end|>", "<|end|>")] == ["a", "b\n\nc"]
    with pytest.raises(ConfigError, match="an empty document separator"):
        split_documents("a", "")


def test_white_space_without_end_is_no_trap():
    assert len(split_documents("a" + " \t" * 200_000 + "b")) == 1  # quadratic time would take minutes


def test_without_keeps_the_end_of_the_text():
    pieces = split_documents("A\n\nB\n\n\nC\n")
    assert join_documents(without(pieces, {2})) == "A\n\nB\n"
    assert join_documents(without(pieces, {0})) == "B\n\n\nC\n"
    assert join_documents(without(pieces, {0, 1, 2})) == ""


# --- counting -------------------------------------------------------------------------------------------------------------


@given(ANY_TEXT)
@settings(max_examples=200, deadline=None)
def test_characters_are_counted(text):
    counts = counting.count_characters(text)
    assert counts == Counter(text) and list(counts) == sorted(counts)
    if text:
        assert counting.entropy_of(list(counts.values())) == pytest.approx(symbol_entropy([ord(c) for c in text]))


def test_pieces_lose_nothing_and_cut_no_word(monkeypatch):
    text = "one two three\nfour five six\n" * 50 + "x" * 300
    pieces = list(counting.pieces(text, 100))
    assert "".join(pieces) == text and max(map(len, pieces)) <= 100
    assert all(piece.endswith("\n") for piece in pieces[:14])
    whole = counting.count_words(text)
    monkeypatch.setattr(counting, "pieces", lambda text: ["".join(text)])
    assert counting.count_words(text) == whole


def test_words():
    words = counting.count_words("The cat's hat, the CAT’s hat; naïve 42.\n")
    assert (words.tokens, words.types, words.once) == (8, 7, 6)
    assert words.commonest[0] == ("hat", 2)
    assert words.entropy == pytest.approx(math.log(8) - 2 / 8 * math.log(2))
    assert words.slope is None, "seven words are no curve"
    assert words.curve[0] == (1, 2) and words.curve[-1] == (7, 1)


def test_zipf_slope_of_a_power_law():
    for exponent in (0.7, 1.0, 1.3):
        counts = (1e7 / np.arange(1, 3000) ** exponent).astype(np.int64)
        assert counting.zipf_slope(counts) == pytest.approx(-exponent, abs=0.01)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.booleans())
@settings(max_examples=100, deadline=None)
def test_line_lengths(lengths, ended):
    text = "\n".join("x" * n for n in lengths) + "\n" * ended
    expected = text.split("\n")[:-1] if text.endswith("\n") or not text else text.split("\n")
    made = counting.line_lengths(text)
    sizes = sorted(map(len, expected))
    assert (made.lines, made.longest) == (len(expected), max(sizes, default=0))
    assert made.blank == sizes.count(0)
    if sizes:
        assert made.mean == pytest.approx(sum(sizes) / len(sizes)) and made.median == sizes[(len(sizes) - 1) // 2]
    for low, high, n in made.histogram:
        assert n == sum(low <= size < high for size in sizes)
    assert sum(n for _, _, n in made.histogram) == len(sizes)


# --- duplicates -----------------------------------------------------------------------------------------------------------


def test_exact_copies_point_to_the_first():
    texts = ["a b", "", "c", " a b\n", "c", "  ", "A b", "a b"]
    assert exact_copies(texts) == [Copy(3, 0), Copy(4, 2), Copy(7, 0)]
    made = repetition(texts, exact_copies(texts))
    assert (made.pieces, made.copies, made.characters) == (6, 3, 7)
    assert made.share == pytest.approx(7 / 14) and made.examples == ((3, "a b"), (2, "c"))


def test_shingles_and_jaccard_by_hand():
    three = Shingling(n=3)
    assert shingles("Two words", three) == {("two", "words", "")}
    assert shingles("... --", three) == frozenset()
    assert shingles("aBa", Shingling(unit="characters", n=2)) == {("a", "b"), ("b", "a")}
    assert jaccard(frozenset("abcd"), frozenset("cdef")) == pytest.approx(1 / 3)
    assert jaccard(frozenset(), frozenset()) == 0


def test_banding_finds_pairs_at_the_threshold():
    for threshold in (0.3, 0.5, 0.8, 0.9, 1.0):
        bands, rows = banding(threshold, 128)
        assert bands * rows <= 128 and 1 - (1 - threshold**rows) ** bands >= 0.99
        assert rows == 128 or 1 - (1 - threshold ** (rows + 1)) ** (128 // (rows + 1)) < 0.99, "no longer band would do"


def edited(words, changes, rng):
    made = list(words)
    for _ in range(changes):
        made[rng.randrange(len(made))] = f"new{rng.randrange(10**6)}"
    return made


def a_library(seed, unit="words"):
    """Forty originals and near copies of them with ever more changes, shuffled."""
    rng = random.Random(seed)
    texts = []
    for _ in range(40):
        words = [f"w{rng.randrange(500)}" for _ in range(rng.randint(3, 120))]
        texts += [words, *(edited(words, changes, rng) for changes in (1, 2, 4, 8))]
    rng.shuffle(texts)
    return [" ".join(words) for words in texts]


@pytest.mark.parametrize(("unit", "n", "threshold"), [("words", 3, 0.8), ("words", 1, 0.5), ("characters", 8, 0.7)])
def test_near_copies_are_those_of_all_pairs_compared(unit, n, threshold):
    texts = a_library(1)
    made = Shingling(unit=unit, n=n, threshold=threshold)
    sets = [shingles(text, made) for text in texts]
    found = near_copies(texts, made)
    gone = {copy.copy for copy in found}
    for copy in found:
        assert copy.original < copy.copy and copy.original not in gone, "the original is kept"
        assert copy.similarity == pytest.approx(jaccard(sets[copy.copy], sets[copy.original])) and copy.similarity >= threshold
    kept = [i for i in range(len(texts)) if i not in gone]
    missed = [(i, j) for i, j in combinations(kept, 2) if jaccard(sets[i], sets[j]) >= threshold]
    assert len(found) > 30 and len(missed) <= 0.01 * len(found) + 1, "one in a hundred at the threshold itself"
    assert near_copies([texts[i] for i in kept], made) == [], "what was kept has no near copies that can be found"


def test_near_copies_do_not_depend_on_their_neighbours_or_on_the_batch(monkeypatch):
    texts = a_library(2)
    found = near_copies(texts)
    monkeypatch.setattr("tiny_transformer.corpora.near_duplicates._AT_ONCE", 50)
    assert near_copies(texts) == found
    monkeypatch.undo()
    assert near_copies(["", *texts, "--"]) == [Copy(c.copy + 1, c.original + 1, c.similarity) for c in found]
    assert near_copies([]) == near_copies(["", "!"]) == near_copies(["only one text"]) == []


def test_a_thousand_of_one_template_are_compared_in_bounded_time(monkeypatch):
    compared = 0

    def counted(a, b):
        nonlocal compared
        compared += 1
        return jaccard(a, b)

    monkeypatch.setattr("tiny_transformer.corpora.near_duplicates.jaccard", counted)
    rng = random.Random(0)
    common = [f"word{i}" for i in range(60)]
    texts = [" ".join(edited(common, 4, rng)) for _ in range(1000)]
    near_copies(texts, Shingling(threshold=0.7))
    assert compared < 150 * len(texts), "without a bound it is nearly four hundred for each, and more with every text"


def test_near_matches_between_two_parts():
    train, val = ["the cat sat on the mat today", "a dog"], ["nothing alike here", "The cat sat on the mat, today!", "", "a dog"]
    assert near_matches(val, train) == [Copy(1, 0, 1.0), Copy(3, 1, 1.0)]
    assert near_matches([], train) == near_matches(val, []) == []
    assert near_matches(["x y z", "x y z"], ["u v w"]) == [], "copies within one part do not leak"


def test_shingling_is_checked():
    for wrong in ({"n": 0}, {"threshold": 0}, {"threshold": 1.5}, {"unit": "bytes"}, {"hashes": 1}, {"n": "3"}):
        with pytest.raises(ConfigError):
            Shingling(**wrong)


# --- odd characters -------------------------------------------------------------------------------------------------------


def test_kinds_of_suspicious_characters():
    kinds = {
        "\x00": "control", "\x1b": "control", "\x7f": "control", "\x81": "control", "\ufffd": "replacement", "\ue000": "private",
        "\U0010fffd": "private", "\uffff": "unassigned", "\u0378": "unassigned", "\ufeff": "byte order", "\u00ad": "invisible",
        "\u200b": "invisible",
    }  # fmt: skip
    for character, kind in kinds.items():
        assert kind_of(character).startswith(kind), ascii(character)
    for character in "a é\n\r\t\u2028語😀\u200d\u200c\u0301\xa0":
        assert kind_of(character) is None, ascii(character)
    assert kind_of("\U0001fae8") is None, "the shaking face is of Unicode 15: an older Python calls it unassigned"


@given(st.text(st.sampled_from("ab\n\x07\x00\ufffd\ufeff\ue000\u0378\u00adé"), max_size=40))
@settings(max_examples=200, deadline=None)
def test_suspicious_characters_are_counted_with_the_first_place(text):
    found = suspicious_characters(text, Counter(text))
    assert sum(f.count for f in found) == sum(kind_of(c) is not None for c in text)
    for finding in found:
        mine = [i for i, c in enumerate(text) if kind_of(c) == finding.what]
        assert finding.count == len(mine)
        assert finding.line == (text[: mine[0]].count("\n") + 1 if mine else None)


@given(st.text(st.sampled_from("a\n\r\u0085\u2028\u2029"), max_size=30))
@settings(max_examples=300, deadline=None)
def test_line_ends(text):
    lines = text.splitlines(keepends=True)  # Python's own idea of these ends
    counts = Counter(line[len(line.rstrip("\n\r\u0085\u2028\u2029")) :] for line in lines if line[-1] != "a")
    names = {"\n": "LF", "\r\n": "CRLF", "\r": "CR", "\u0085": "NEL", "\u2028": "U+2028", "\u2029": "U+2029"}
    assert line_ends(text) == {names[end]: counts[end] for end in names if counts[end]}
    assert unify_line_ends(text) == "".join(line.rstrip("\n\r\u0085\u2028\u2029") + "\n" * (line[-1] != "a") for line in lines)


@given(st.text(st.sampled_from("e\u0301é\n가\u1100\u1161"), max_size=20))
@settings(max_examples=200, deadline=None)
def test_lines_that_are_not_composed(text):
    wrong = [i for i, line in enumerate(text.split("\n"), 1) if unicodedata.normalize("NFC", line) != line]
    finding = not_normal(text)
    assert (finding.count, finding.line) == (len(wrong), wrong[0] if wrong else None)


# --- scripts --------------------------------------------------------------------------------------------------------------


def test_every_assigned_character_has_one_script():
    every = [chr(code) for code in range(0x32000) if not 0xD800 <= code < 0xF900]  # without surrogates and private use; above, few are
    found = writing_systems.scripts_of("".join(every))
    assigned = regex.compile(r"[^\p{Cn}\p{Co}]")
    without_script = [c for c in every if found[c] == "Unknown" and assigned.match(c)]
    assert not [c for c in without_script if unicodedata.category(c) != "Cn"], "only what is newer than this Python may be missing"
    assert len(without_script) < 500
    for character, script in {
        "a": "Latin",
        "ж": "Cyrillic",
        "Ω": "Greek",
        "漢": "Han",
        "ひ": "Hiragana",
        "ℵ": "Common",
        "\u0301": "Inherited",
    }.items():
        assert found[character] == script


def test_a_script_that_regex_does_not_know_is_passed_over(monkeypatch):
    monkeypatch.setattr(writing_systems, "_SCRIPTS", ["Elvish", "Latin"])
    assert writing_systems.scripts_of("aж") == {"a": "Latin", "ж": "Unknown"}


def test_script_counts_and_mixed_words():
    text = "paypal, пайпал, pаypal, а1b, αβγ5μm"  # the third has a Cyrillic а
    scripts = writing_systems.script_counts(Counter(text))
    assert scripts["Latin"] == 13 and scripts["Cyrillic"] == 8 and scripts["Greek"] == 4 and next(iter(scripts)) in ("Latin", "Common")
    assert writing_systems.mixed_words(text, scripts) == (2, ("pаypal", "αβγ5μm"))
    assert writing_systems.mixed_words("plain", {"Latin": 5}) == (0, ())


# --- binary files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "a PNG image"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "a PDF document"),
        (b"PK\x03\x04" + bytes(26), "a ZIP archive"),
        (b"RIFF\x10\x00\x00\x00WAVEfmt " + bytes(20), "a WAV recording"),
        (b"\x1f\x8b\x08\x00" + bytes(range(200)), "gzip-compressed"),
        (bytes(range(256)), "full of control bytes"),
        ("Wide text\n".encode("utf-16-le") * 5, "UTF-16"),
        ("Wide text\n".encode("utf-16-be") * 5, "UTF-16"),
        (b"caf\xe9 \x00\x00" + b"x" * 100, "NUL bytes"),
    ],
)
def test_binary_files_are_named(head, kind):
    assert kind in binary_kind(head)


@pytest.mark.parametrize(
    "head",
    [b"", b"BMW and MZ and PK\x03\x04 in a text about magic numbers", b"caf\xe9", "né".encode(), b"\x1b[31mred\x1b[0m\n", b"\xff\xfeW\x00"],
)
def test_text_is_not_called_binary(head):
    assert binary_kind(head) is None


# --- all of it ------------------------------------------------------------------------------------------------------------


PLAY = "".join(f"ROMEO:\nWords number {i} of a long speech, spoken at night.\n\n" for i in range(30))
ODD = "A caf\u00c3\u00a9 with a bell \x07 and a \ufeff mark.\r\nA decomposed e\u0301.\n"


def test_inventory_counts_what_was_planted():
    speech = "This very long speech stands here twice, and that is once too often for a report."
    text = PLAY + speech + "\n\n" + ODD + "\n" + speech + "\n\n" + speech.replace("very ", "") + "\n"
    made = take_inventory(text, "planted", shingling=Shingling(threshold=0.7), train_val=(PLAY, ODD))
    assert made.repeated["documents"].copies == 1 and made.repeated["near documents"].copies == 1
    assert made.repeated["lines"].copies == 1 and made.repeated["near lines"].copies == 1
    assert made.repeated["documents"].examples == ((2, speech),)
    found = {finding.what: finding.count for finding in made.findings}
    expected = {"misread UTF-8": 1, "control characters": 1, "byte order marks inside": 1, "lines that are not NFC": 1,
                "unusual line ends": 1}  # fmt: skip
    assert {what: count for what, count in found.items() if count} == expected
    assert made.documents == 34 and made.characters.tokens == len(text) and made.characters.bytes == len(text.encode())
    assert json.loads(json.dumps(made.to_dict()))["scripts"]["Latin"] == len(re.findall("[A-Za-zé\u00c3]", text))
    with pytest.raises(ConfigError, match="is empty"):
        take_inventory("")


def test_short_pieces_are_not_looked_at():
    text = "ROMEO:\n\nROMEO:\n\n" + "x" * 39 + "\n\n" + "x" * 39 + "\n"
    made = take_inventory(text)
    assert [r.copies for r in made.repeated.values()] == [0, 0, 0, 0]
    assert take_inventory(text, min_length=39).repeated["documents"].copies == 1
    assert take_inventory(text, min_length=1).repeated["lines"].copies == 2


def test_the_entropy_of_a_long_text_is_measured_on_stretches(monkeypatch, small_text):
    whole = take_inventory(small_text)
    monkeypatch.setattr("tiny_transformer.corpora.inventory.ENTROPY_AT_MOST", 10_000)
    part = take_inventory(small_text)
    assert part.characters.entropy_characters == 10_000 and whole.characters.entropy_characters == len(small_text)
    assert part.characters.entropy == whole.characters.entropy, "frequencies are of all of it"
    assert part.characters.conditional_entropy == pytest.approx(whole.characters.conditional_entropy, abs=0.05)


def test_a_leak_is_found_word_for_word_and_nearly():
    ours = "It was a bright cold day in April, and the clocks were striking thirteen, as far as anyone could hear."
    leak = find_leak(
        PLAY + ours + "\n", "Something else entirely, and long enough to be looked at.\n\n" + ours.replace("cold", "warm") + "\n", window=32
    )
    assert leak.share > 0.3 and leak.example in ours
    assert (leak.near, leak.documents) == (0, 2), "one of 20 words changed: 3 of 18 shingles each, J = 15/21"
    leak = find_leak(PLAY + ours, ours.replace("cold", "warm"), shingling=Shingling(threshold=0.7))
    assert leak.near == 1 and leak.near_example == (ours.replace("cold", "warm"), ours, pytest.approx(15 / 21))


def test_real_texts(corpora_dir):
    made = take_inventory((corpora_dir / "shakespeare.txt").read_bytes().decode())
    assert made.characters.entropy == pytest.approx(3.3128, abs=1e-4) and made.characters.conditional_entropy == pytest.approx(
        2.4526, abs=1e-4
    )
    assert (made.characters.types, made.lines.lines, made.documents) == (65, 40_000, 7_222)
    assert -1.1 < made.words.slope < -0.9
    assert sum(finding.count for finding in made.findings) == 0
    wiki = (corpora_dir / "wikitext2-valid.txt").read_bytes().decode()
    assert sum(finding.count for finding in take_inventory(wiki).findings) == 0, "accents, dashes and IPA are no mojibake"


# --- the command ----------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Collects tags and complains about those that are not closed in order."""

    VOID = ("meta", "use", "path", "br", "rect")

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.ids, self.text = [], Counter(), [], []

    def handle_starttag(self, tag, attributes):
        self.seen[tag] += 1
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.seen[tag] += 1

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "play.txt"
    path.write_bytes((PLAY + ODD + "\nA <b>bold</b> [red]line[/red] & more, repeated below for all to see.\n" * 2).encode())
    return path


def test_report_as_table(file, capsys):
    assert main(["data", "report", str(file)]) == 0
    out = capsys.readouterr().out
    for title in ("Size", "How uncertain", "Lines", "Scripts", "Repeated", "Odd characters", "Overlap of training and validation"):
        assert title in out
    assert "[red]line[/red]" in out and "line 91: 'Ã©' for 'é'" in out and "\x07" not in out


def test_report_as_json(file, capsys):
    assert main(["data", "report", str(file), "--json", "--val-share", "0"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["leak"] is None and made["lines"]["lines"] == 96 and made["repeated"]["lines"]["copies"] == 1
    assert main(["data", "report", str(file), "--json", "--val", str(file)]) == 0
    assert json.loads(capsys.readouterr().out)["leak"]["share"] == 1
    assert main(["data", "report", str(file), "--json", "--document-separator", r"\n", "--shingles", "characters:5"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["shingling"]["unit"] == "characters" and made["documents"] == 64


def test_report_as_one_page(file, tmp_path, capsys):
    target = tmp_path / "out" / "report.html"
    assert main(["data", "report", str(file), "--html", str(target)]) == 0
    html = target.read_text(encoding="utf-8")
    parser = Page()
    parser.feed(html)
    assert (
        parser.open == []
        and parser.seen["svg"] == 4
        and parser.seen["script"] == parser.seen["img"] == parser.seen["link"] == parser.seen["b"] - 7 == 0
    )
    assert len(set(parser.ids)) == len(parser.ids), "ids of four pictures on one page"
    assert not re.search(r"(?:src|href)=\"(?!#)|https?://|@import|url\((?!#)", html), "nothing from elsewhere"
    assert "prefers-color-scheme: dark" in html
    drawings = html[html.index("<svg") :]
    assert not re.findall(r"#[0-9a-f]{6}\b", drawings), "every colour of a drawing is one of the page's"
    assert any("<b>bold</b> [red]line" in text for text in parser.text)
    capsys.readouterr()
    assert main(["data", "report", str(file), "--html", str(file)]) == 2
    assert "is the source itself" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_read_once_and_whole(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    text = "word " * 50_000
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_text(text, encoding="utf-8"), daemon=True)
    writer.start()
    assert main(["data", "report", str(tmp_path / "pipe"), "--json"]) == 0
    writer.join()
    assert json.loads(capsys.readouterr().out)["characters"]["tokens"] == len(text)


def test_binary_standard_input_is_named():
    command = [sys.executable, "-m", "tiny_transformer.cli.main", "data", "report", "-"]
    result = subprocess.run(command, input=b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + bytes(9000), capture_output=True)
    assert result.returncode == 2 and b"standard input looks binary (a PDF document)" in result.stderr
    result = subprocess.run([*command, "--json"], input=PLAY.encode() * 20, capture_output=True)
    assert json.loads(result.stdout)["characters"]["tokens"] == 20 * len(PLAY)


def test_a_file_of_a_built_in_name_is_not_looked_into(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pitches").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\x00")
    assert main(["data", "report", "pitches", "--size", "3000", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["characters"]["tokens"] == 3000


@given(ANY_TEXT.filter(bool))
@settings(max_examples=60, deadline=None)
@example("x")
@example(" \n")
def test_any_text_can_be_reported_on(text):
    made = take_inventory(text, "any", train_val=(text, text))
    json.dumps(made.to_dict())
    assert all(len(row.cells) == len(part.columns) for part in sections(made) for row in part.rows)


@pytest.mark.parametrize("text", ["x", " \n", "\x00", "語" * 50, "$a_b^c$ \\frac & < > $\n" * 9])
def test_any_text_makes_a_page(text):
    parser = Page()
    parser.feed(page(take_inventory(text, "a <b>"), "from & to"))
    assert parser.open == [] and parser.seen["svg"] == 4


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"caf\xe9\n", "is not UTF-8: byte 0xe9 at offset 3"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00", "looks binary (a PNG image): it must be a UTF-8 text file"),
        (b"\x1f\x8b\x08\x00" + bytes(range(200)), "Unpack it first"),
        ("hello".encode("utf-16-le") * 20, "iconv -f utf-16le"),
        ("hello".encode("utf-16"), "is not UTF-8: byte 0xff"),
    ],
)
@pytest.mark.parametrize("command", ["report", "clean", "split"])
def test_bad_input_is_one_line(command, content, words, tmp_path, capsys):
    path = tmp_path / "bad"
    path.write_bytes(content)
    more = {"report": [], "clean": ["--all", "--out", str(tmp_path / "new")], "split": ["--out", str(tmp_path / "new")]}[command]
    assert main(["data", command, str(path), *more]) == 2
    out, err = capsys.readouterr()
    assert words in err and err.count("\n") == 1 and out == ""
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "report without a file"),
        (["FILE", "--shingles", "bytes:3"], "words:N or characters:N"),
        (["FILE", "--shingles", "words:x"], "words:N or characters:N"),
        (["FILE", "--threshold", "2"], "threshold=2.0"),
        (["FILE", "--val-share", "1"], "val_share=1.0"),
        (["FILE", "--min-length", "0"], "min_length=0"),
        (["FILE", "--document-separator", ""], "an empty document separator"),
        (["missing.txt"], "there is no file"),
    ],
)
def test_bad_flags_are_one_line(argv, words, file, capsys):
    assert main(["data", "report", *(str(file) if a == "FILE" else a for a in argv)]) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1


def test_unknown_actions_name_the_near_one(capsys):
    assert main(["data", "raport"]) == 2
    assert "Did you mean report?" in capsys.readouterr().err
