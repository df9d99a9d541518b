"""Cleaning: what is broken is mended, what is right stays, and cleaning twice is cleaning once."""

import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tiny_transformer.cli.main import main
from tiny_transformer.config import ConfigError
from tiny_transformer.corpora import mojibake
from tiny_transformer.corpora.cleaning import STEPS, Cleaning, clean, resolve
from tiny_transformer.corpora.near_duplicates import Shingling

ALL = list(STEPS)
SHORT = Cleaning(min_length=1)


def misread(text: str, encoding: str) -> str:
    """`text` as UTF-8, read in the wrong encoding; the five bytes that Windows-1252 leaves out become controls, as in browsers."""
    return "".join(bytes([b]).decode(encoding, "ignore") or chr(b) for b in text.encode("utf-8"))


# --- mojibake -------------------------------------------------------------------------------------------------------------

SENTENCES = [
    "Ein Café in Zürich, größer als jenes in Köln: ärgerlich, aber schön.",
    "Le garçon a mangé une crème brûlée à l’hôtel, où l’été dure « longtemps ».",
    "Señor Muñoz, ¿dónde está el niño? ¡Aquí! Cuesta 20 € y pesa 3 µg.",
    "“It isn’t,” he said — ‘not yet’… and left. It’s 20 °C, ½ price™.",
    "Zażółć gęślą jaźń; Příliš žluťoučký kůň; Dragić i Đoković.",
    "Привет, мир! Съешь же ещё этих мягких французских булок.",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.",
    "いろはにほへと ちりぬるを。漢字も書く。",
    "שלום עולם, مرحبا بالعالم",
    "Emoji 😀🎉 and a family 👩‍👩‍👧.",
]
RIGHT = [
    *SENTENCES,
    "„MENÜ“ und „KAFFEE“, „GRÜẞE“, Fuß™, groß“ und Maß…",
    "le musée…», la clé”, voilà\xa0» et « là\xa0»; l’été…” déjà™",
    "CAFÉ™, CAFÉ® und CAFÉ»; NOËL™; MAÇÃ… e IRMÃ”, AMANHû; SÃ\xa0O",
    "3 × “x”, 4×½, 5ƒ, ƒ±, ¿Qué?, ±½, §§ 3–5, 10 €™, x²³, º ª, ¡¿",
    "Þór Ægisson á Íslandi, Ð“ 1, Ñ… uh",
    "PARÍS» É» Í« Ó™ Ú… Ü”",
]


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
@pytest.mark.parametrize("sentence", SENTENCES)
def test_misread_sentences_are_read_again(sentence, encoding):
    wrong = misread(sentence, encoding)
    assert wrong != sentence
    assert mojibake.repair(wrong).text == sentence
    assert mojibake.repair(f"All right.\n{wrong}\nRight, naïve.").text == f"All right.\n{sentence}\nRight, naïve."


@pytest.mark.parametrize("sentence", SENTENCES[:6])
def test_what_was_misread_twice_is_repaired_twice(sentence):
    assert mojibake.repair(misread(misread(sentence, "cp1252"), "cp1252")).text == sentence


@pytest.mark.parametrize("text", RIGHT)
def test_right_text_is_left_alone(text):
    assert mojibake.misread(text) == []
    assert mojibake.repair(text).text == text


def test_each_rule_alone():
    assert mojibake.repair("cafÃ© MENÜ“").text == "café MENÜ“", "beside real text that looks alike"
    assert mojibake.repair("MENÜ“ Ð¿Ñ€Ð¸").text == "MENÜ“ при", "sequences side by side"
    assert mojibake.repair("né…» itâ€™s").text == "né…» it’s", "known signs"
    assert mojibake.repair("20Â°C, Â£5, PÃ‰ROU").text == "20°C, £5, PÉROU", "Â and Ã"
    assert mojibake.repair("MAÃ‡Ã…").text == "MAÇÅ", "two sequences side by side are certain even in capitals"
    assert mojibake.repair("Ñ‚ Ñ‚Ð°Ð¼").text == "т там", "a line that is misread throughout"
    assert mojibake.repair("Ñ‚ Ñ‚Ð°Ð¼ ñ").text == "Ñ‚ там ñ", "and one that is not"


def test_places_and_counts():
    text = "ok\ncafÃ© and dÃ©jÃ\xa0 vu\nitâ€™s\n"
    found = mojibake.misread(text)
    assert [(text[m.start : m.start + len(m.wrong)], m.right) for m in found] == [
        ("Ã©", "é"), ("Ã©", "é"), ("Ã\xa0", "à"), ("â€™", "’")
    ]  # fmt: skip
    made = mojibake.repair(text)
    assert (made.text, made.runs, made.characters) == ("ok\ncafé and déjà vu\nit’s\n", 4, 9)
    assert made.examples == (("Ã©", "é"), ("Ã\xa0", "à"), ("â€™", "’"))


@pytest.mark.parametrize("text", ["xÀ¯", "xà\x80\x80", "xí\xa0\x80í°\x80", "xô\x90\x80\x80", "xõ\x80\x80\x80", "xÃ", "xâ€", "xÂ a"])
def test_what_is_no_utf8_is_no_mojibake(text):
    """Overlong forms, surrogates, numbers beyond Unicode, bytes that are missing."""
    assert mojibake.repair(text).text == text


ODD_TEXT = st.text(st.sampled_from("aB \nÃ©Â°â€™ðŸ˜\x80Ð¿ÑéÜ“»\xa0à"), max_size=40)


@given(ODD_TEXT | st.text(st.characters(min_codepoint=0x20, max_codepoint=0x2122), max_size=30))
@settings(max_examples=500, deadline=None)
@example("ÃƒÂƒÃ‚Â©")
def test_repair_is_idempotent_and_never_longer(text):
    made = mojibake.repair(text)
    assert mojibake.repair(made.text).text == made.text
    assert len(made.text) + made.runs <= len(text) or made.runs == 0
    assert (made.text == text) == (made.runs == 0)


@given(st.text(st.characters(max_codepoint=0x7F), max_size=50))
@settings(max_examples=50, deadline=None)
def test_ascii_is_never_touched(text):
    assert mojibake.repair(text).text == text


# --- cleaning -------------------------------------------------------------------------------------------------------------


def only(text, name, **more):
    made = clean(text, [name], Cleaning(**{"min_length": 1, **more}))
    (change,) = made.changes
    return made.text, change.count, change.characters


@pytest.mark.parametrize(
    ("name", "text", "expected", "count"),
    [
        ("byte-order-marks", "a\ufeffb\ufeff\n", "ab\n", 2),
        ("line-ends", "a\r\nb\rc\u2028d\n", "a\nb\nc\nd\n", 3),
        ("mojibake", "cafÃ©s\n", "cafés\n", 1),
        ("unprintable", "a\x07b\ufffdc\ue000d\uffff\x00\t\r\n", "abcd\t\r\n", 5),
        ("invisible", "soft\u00adhyphen zero\u200bwidth 👩\u200d👧\n", "softhyphen zerowidth 👩\u200d👧\n", 2),
        ("normalization", "e\u0301\nok\ne\u0301e\u0301\n", "é\nok\néé\n", 2),
        ("duplicate-lines", "a\nb\n\na \nc\n", "a\nb\n\nc\n", 1),
        ("near-duplicate-lines", "one two three four five\nx\nOne two, three four five!\n", "one two three four five\nx\n", 1),
        ("duplicates", "a\nb\n\nc\n\na\nb\n\na\n", "a\nb\n\nc\n\na\n", 1),
        ("near-duplicates", "one two\nthree four five\n\nx\n\nOne two three\nfour five\n", "one two\nthree four five\n\nx\n", 1),
    ],
)
def test_each_step_alone(name, text, expected, count):
    assert only(text, name) == (expected, count, len(text) - len(expected))
    assert only(expected, name) == (expected, 0, 0)
    everything_else = clean(text, [step for step in ALL if step != name and not step.endswith(("lines", "duplicates"))], SHORT)
    assert everything_else.text == text or name == "unprintable", "no other step touches it"


def test_names_are_resolved_in_the_order_of_application():
    assert resolve(["duplicates", "mojibake", "duplicates"]) == ["mojibake", "duplicates"]
    with pytest.raises(ConfigError, match="there is nothing called 'duplicate' to remove.*duplicate-lines.*Did you mean duplicates"):
        resolve(["duplicate"])
    with pytest.raises(ConfigError, match="nothing to remove"):
        resolve([])


def test_short_pieces_stay():
    text = "ROMEO:\nA line\n\nROMEO:\nA line\n\n" + "A line that is long enough to be looked at, twice.\n\n" * 2
    made = clean(text, ALL)
    assert made.text == text[: text.rindex("A line that")]
    assert clean(text, ["duplicates"], Cleaning(min_length=5)).text.count("ROMEO") == 1


def test_a_repair_lets_duplicates_be_seen():
    made = clean("A café by the sea.\n\nB\n\nA cafÃ© by\x07 the sea.\n", ["duplicates", "mojibake", "unprintable"], SHORT)
    assert made.text == "A café by the sea.\n\nB\n"
    assert [(change.name, change.count) for change in made.changes] == [("mojibake", 1), ("unprintable", 1), ("duplicates", 1)]


def test_what_one_pass_uncovers_the_next_removes():
    text = "a \u00c3\ufeff\u00a9 b\n"  # the mark hides the mojibake; without it, and with it removed last, a second pass is needed
    assert clean(text, ["mojibake", "byte-order-marks"], SHORT).text == "a é b\n"
    made = clean("A\u0303\u00a9\n", ["mojibake", "normalization"], SHORT)  # NFC makes Ã of A and a tilde, and so mojibake
    assert made.text == "é\n" and made.passes == 3


def test_characters_add_up():
    rng = random.Random(3)
    pieces = ["A cafÃ© by the sea", "e\u0301t\u0301", "bell \x07", "x\r", "A cafe by the sea, then", "A café by the sea", "\n", "\n\n"]
    text = "".join(rng.choice(pieces) + rng.choice(["\n", "\n\n", "\r\n"]) for _ in range(200))
    made = clean(text, ALL, SHORT)
    assert made.before == len(text)
    assert sum(change.characters for change in made.changes) == len(text) - len(made.text)
    assert made.to_dict()["after"] == len(made.text)


MESSY = st.lists(
    st.sampled_from(
        [
            "the cat sat on the mat",
            "The cat sat on the mat!",
            "the cat sat on a mat",
            "a b c",
            "a b",
            "ROMEO:",
            "|",
            " ",
            "\n",
            "\n\n",
            "cafÃ©",
            "café",
            "é",
            "Ã©",
            "Ã",
            "©",
            "\x07",
            "\ufeff",
            "�",
            "\r\n",
            "\r",
            "\u2028",
        ]
    ),
    max_size=40,
).map("".join)


@given(
    MESSY | st.text(max_size=40),
    st.sets(st.sampled_from(ALL), min_size=1).map(list) | st.just(ALL),
    st.sampled_from([None, "|", "\n", "|\n"]),
    st.sampled_from([1, 5, 40]),
    st.sampled_from([0.5, 0.8, 1.0]),
)
@settings(max_examples=250, deadline=None)
def test_cleaning_a_cleaned_text_changes_nothing(text, names, separator, min_length, threshold):
    how = Cleaning(separator=separator, min_length=min_length, shingling=Shingling(threshold=threshold))
    once = clean(text, names, how)
    twice = clean(once.text, names, how)
    assert twice.text == once.text and twice.passes == 1
    assert all(change.count == 0 and change.characters == 0 for change in twice.changes)


def test_many_near_copies_cleaned_once_are_clean():
    """More near copies than a bucket compares: the bound must not hide what a second look would find."""
    rng = random.Random(0)
    common = [f"word{i}" for i in range(30)]
    texts = []
    for _ in range(300):
        words = list(common)
        for _ in range(rng.randint(0, 9)):
            words[rng.randrange(30)] = f"new{rng.randrange(50)}"
        texts.append(" ".join(words))
    how = Cleaning(shingling=Shingling(threshold=0.5))
    once = clean("\n\n".join(texts), ["near-duplicates", "near-duplicate-lines"], how)
    assert 1 < len(once.text.split("\n\n")) < 300
    assert clean(once.text, ["near-duplicates", "near-duplicate-lines"], how).text == once.text


def test_clean_real_texts_change_little(corpora_dir):
    for name in ("shakespeare.txt", "wikitext2-valid.txt"):
        text = (corpora_dir / name).read_bytes().decode()
        made = clean(text, ALL)
        counts = {change.name: change.count for change in made.changes}
        assert not any(counts[step] for step in ALL if not step.endswith(("lines", "duplicates")))
        assert 0.999 * len(text) < len(made.text) <= len(text)


# --- the command ----------------------------------------------------------------------------------------------------------

DIRTY = (
    "A cafÃ© by the sea, where the waves are high and loud.\r\n\r\nAnother one.\n\nA café by the sea, where the waves are high and loud.\n"
)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "my.txt"
    path.write_bytes(DIRTY.encode())
    return path


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_source_is_never_touched(file, tmp_path, capsys):
    before, stat = digest(file), file.stat()
    assert main(["data", "clean", str(file), "--out", str(tmp_path / "new.txt"), "--all"]) == 0
    assert digest(file) == before and file.stat().st_mtime_ns == stat.st_mtime_ns
    assert (tmp_path / "new.txt").read_bytes() == "A café by the sea, where the waves are high and loud.\n\nAnother one.\n".encode()
    out = capsys.readouterr().out
    assert "(unchanged)" in out and "'Ã©' → 'é'" in out and "duplicate-lines" in out
    assert main(["data", "clean", str(tmp_path / "new.txt"), "--out", str(tmp_path / "newer.txt"), "--all"]) == 0
    assert digest(tmp_path / "newer.txt") == digest(tmp_path / "new.txt")
    assert "the same as the source" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my.txt", "new.txt", "newer.txt"], "nothing is left over"


def test_out_must_be_another_file_whatever_its_name(file, tmp_path, capsys, monkeypatch):
    before = digest(file)
    (tmp_path / "soft.txt").symlink_to(file)
    os.link(file, tmp_path / "hard.txt")
    (tmp_path / "folder").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    for out in ("my.txt", "./my.txt", "soft.txt", "hard.txt", "folder/my.txt", str(file)):
        assert main(["data", "clean", str(file), "--out", out, "--all"]) == 2
        err = capsys.readouterr().err
        assert "is the source itself: the source is never changed. Choose another name, such as" in err and err.count("\n") == 1
    assert main(["data", "clean", "soft.txt", "--out", "my.txt", "--all"]) == 2
    assert digest(file) == before and (tmp_path / "soft.txt").is_symlink()


@pytest.mark.skipif(not Path("/dev/stdin").exists(), reason="this system has no /dev/stdin by which a file could be recognised")
def test_a_file_on_standard_input_is_a_source_too(file, tmp_path):
    command = [sys.executable, "-m", "tiny_transformer.cli.main", "data", "clean", "-", "--all", "--out"]
    for out, code in ((file, 2), (tmp_path / "new.txt", 0)):
        with file.open("rb") as stdin:
            result = subprocess.run([*command, str(out)], stdin=stdin, capture_output=True, text=True)
        assert result.returncode == code, result.stderr
    assert file.read_bytes() == DIRTY.encode()
    piped = subprocess.run([*command, str(tmp_path / "piped.txt")], input=DIRTY.encode(), capture_output=True)
    assert piped.returncode == 0 and digest(tmp_path / "piped.txt") == digest(tmp_path / "new.txt")


def test_a_published_text_is_a_source_too(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TINY_CORPORA", str(tmp_path))
    (tmp_path / "shakespeare.txt").write_text("ROMEO:\nMy own copy of it, which is not the published one.\n", encoding="utf-8")
    assert main(["data", "clean", "shakespeare", "--out", str(tmp_path / "shakespeare.txt"), "--all"]) == 2
    assert "is the source itself" in capsys.readouterr().err


def test_clean_as_json(file, tmp_path, capsys):
    assert main(["data", "clean", str(file), "--out", str(tmp_path / "new.txt"), "--remove", "mojibake, line-ends", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert [(change["name"], change["count"]) for change in made["changes"]] == [("line-ends", 2), ("mojibake", 1)]
    assert made["before"] - made["after"] == 3 and made["out"].endswith("new.txt")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--out", "new.txt"], "nothing to remove"),
        (["--out", "new.txt", "--remove", "mojibak"], "Did you mean mojibake?"),
        (["--out", "new.txt", "--remove", "mojibake,xyz"], "there is nothing called 'xyz'"),
        (["--out", "new.txt", "--remove", "mojibake", "--all"], "--all and --remove"),
        (["--all"], "no --out: the cleaned text needs a file. Try --out"),
        (["--out", ".", "--all"], "is a folder"),
    ],
)
def test_bad_flags_are_one_line(argv, words, file, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["data", "clean", str(file), *argv]) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["my.txt"]


def test_nothing_left_is_an_error(tmp_path, capsys):
    (tmp_path / "bells.txt").write_bytes("\ufffd\ufffd\n".encode())
    assert main(["data", "clean", str(tmp_path / "bells.txt"), "--out", str(tmp_path / "new.txt"), "--all"]) == 2
    assert "would be empty" in capsys.readouterr().err and not (tmp_path / "new.txt").exists()
