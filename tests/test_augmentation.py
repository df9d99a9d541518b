"""Noise: as much as was asked for, of the kind that was asked for, the same for the same seed and epoch, and never a new character."""

import subprocess
import sys
from collections import Counter
from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny_transformer.config import ConfigError
from tiny_transformer.corpora import augmentation
from tiny_transformer.corpora.augmentation import Augmentation, augment
from tiny_transformer.tokenization.char import CharTokenizer

NAMES = [field.name for field in fields(Augmentation)]
ON_CHARACTERS = [name for name in NAMES if name.endswith("characters")] + ["flip_case"]
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=80) | st.text(st.sampled_from("aAbB ß\n\t.語é\u2028"), max_size=80)
RATES = st.floats(0, 1)
LONG = "Shall I compare thee to a summer's day?\nThou art more lovely and more temperate:\n\n  Rough winds\tdo shake\n" * 200


def noisy(name, text, rate, seed=0, epoch=0, **more):
    return augment(text, Augmentation(**{name: rate}), seed, epoch, **more)


@given(ANY_TEXT, st.integers(0, 2**40), st.integers(0, 1000))
@settings(max_examples=200, deadline=None)
def test_rate_0_is_the_identity(text, seed, epoch):
    assert augment(text, Augmentation(), seed, epoch) == text
    for name in NAMES:
        function = getattr(augmentation, name)
        assert function(text, 0.0, np.random.default_rng(seed)) == text


@given(ANY_TEXT, st.fixed_dictionaries(dict.fromkeys(NAMES, RATES)), st.integers(0, 2**40), st.integers(0, 1000))
@settings(max_examples=300, deadline=None)
def test_no_new_character_and_the_same_text_again(text, rates, seed, epoch):
    made = Augmentation(**rates)
    out = augment(text, made, seed, epoch)
    assert set(out) <= set(text)
    assert augment(text, made, seed, epoch) == out
    assert out.count("\n") == text.count("\n"), "lines keep their places"
    if text:
        CharTokenizer.train(text).encode(out)


@given(ANY_TEXT, st.fixed_dictionaries(dict.fromkeys(NAMES, RATES)), st.text(st.sampled_from("aAbBz \nß"), max_size=6))
@settings(max_examples=200, deadline=None)
def test_characters_that_are_made_are_of_the_alphabet(text, rates, alphabet):
    """Those of the text that are not of it stay, or go: they are never made."""
    out = augment(text, Augmentation(**rates | dict.fromkeys(("insert_words", "swap_words"), 0.0)), 1, 0, alphabet=alphabet)
    before, after = Counter(text), Counter(out)
    assert all(after[c] <= before[c] for c in after if c not in alphabet)


def test_the_same_everywhere():
    code = "from tests.test_augmentation import LONG, NAMES, Augmentation, augment; import zlib; "
    code += "print(zlib.crc32(augment(LONG, Augmentation(**dict.fromkeys(NAMES, 0.1)), 3, 4).encode()))"
    printed = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in range(2)}
    assert len(printed) == 1, "not of the process: hash order plays no part"


@pytest.mark.parametrize("name", NAMES)
def test_epochs_and_seeds_differ(name):
    outs = {noisy(name, LONG, 0.1, seed, epoch) for seed in range(3) for epoch in range(3)}
    assert len(outs) == 9 and LONG not in outs


def test_one_kind_of_noise_leaves_the_draws_of_another_alone():
    both = Augmentation(flip_case=0.2, replace_characters=0.3)
    first = augment(LONG, replace(both, flip_case=0), 5, 6)
    flipped = augment(LONG, both, 5, 6)
    assert len(first) == len(flipped) and [a.lower() for a in first] == [b.lower() for b in flipped]


def test_streams_belong_to_kinds_not_to_places_in_line():
    text = "abcdefgh\n" * 200  # a word a line: swapping words does nothing here but to be switched on
    assert noisy("replace_characters", text, 0.3) == augment(text, Augmentation(replace_characters=0.3, swap_words=0.5), 0, 0) != text


# --- characters -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ON_CHARACTERS)
@pytest.mark.parametrize("rate", [0.05, 0.5, 1.0])
def test_white_space_is_neither_touched_nor_made(name, rate):
    out = noisy(name, LONG, rate)
    assert [c for c in out if c.isspace()] == [c for c in LONG if c.isspace()]
    if name not in ("drop_characters", "insert_characters"):
        assert [len(word) for word in out.split()] == [len(word) for word in LONG.split()]


def test_swapped_characters_are_neighbours():
    out = noisy("swap_characters", LONG, 0.1)
    assert sorted(out) == sorted(LONG)
    i = swaps = 0
    while i < len(LONG):
        if out[i] == LONG[i]:
            i += 1
        else:
            assert out[i : i + 2] == LONG[i + 1] + LONG[i]
            i, swaps = i + 2, swaps + 1
    pairs = sum(not (a + b).isspace() and not a.isspace() and not b.isspace() and a != b for a, b in pairwise(LONG))
    assert 0.08 < swaps / pairs < 0.1, "a little below the rate: overlapping pairs cannot both be swapped"
    assert noisy("swap_characters", "abcdef gh i", 1.0) == "badcfe hg i"
    assert noisy("swap_characters", "abcde", 1.0) == "badce"


@pytest.mark.parametrize("rate", [0.02, 0.3])
def test_rates_of_characters_are_met(rate):
    visible = sum(not c.isspace() for c in LONG)
    near = pytest.approx(rate * visible, rel=0.1)
    assert len(LONG) - len(noisy("drop_characters", LONG, rate)) == near
    assert len(noisy("insert_characters", LONG, rate)) - len(LONG) == near
    replaced = noisy("replace_characters", LONG, rate)
    frequencies = np.array(list(Counter("".join(LONG.split())).values())) / visible
    by_itself = float((frequencies**2).sum())  # drawn again: no change to be seen
    assert sum(a != b for a, b in zip(LONG, replaced, strict=True)) == pytest.approx(rate * visible * (1 - by_itself), rel=0.1)
    assert noisy("drop_characters", "ab c\n", 1.0) == " \n"


def test_replacements_are_drawn_by_frequency():
    text = "a" * 9000 + "b" * 1000
    assert Counter(noisy("replace_characters", text, 1.0))["b"] == pytest.approx(1000, rel=0.15)
    inserted = Counter(noisy("insert_characters", text, 1.0)) - Counter(text)
    assert inserted["a"] + inserted["b"] == 10_000 and inserted["b"] == pytest.approx(1000, rel=0.15)


def test_an_inserted_character_follows_the_one_that_was_hit():
    out = noisy("insert_characters", "xyz", 1.0)
    assert len(out) == 6 and out[::2] == "xyz"


def test_case():
    text = "Aa bB Cd éÉ ßẞ ǆ 5.\n" * 500
    out = noisy("flip_case", text, 0.5)
    changed = [(a, b) for a, b in zip(text, out, strict=True) if a != b]
    assert all(b == a.swapcase() for a, b in changed)
    assert set(changed) == {("A", "a"), ("a", "A"), ("b", "B"), ("B", "b"), ("é", "É"), ("É", "é"), ("ẞ", "ß")}, "no D or c in the text"
    assert len(changed) == pytest.approx(0.5 * 500 * 7, rel=0.1)
    assert noisy("flip_case", "abc", 1.0) == "abc" and noisy("flip_case", "abc", 1.0, alphabet="ABc") == "ABc"


# --- words ----------------------------------------------------------------------------------------------------------------


def lines(text):
    return [line.split() for line in text.split("\n")]


def test_words_move_within_their_line():
    out = noisy("swap_words", LONG, 0.3)
    assert [sorted(a) for a in lines(out)] == [sorted(b) for b in lines(LONG)]
    assert out.split("\n")[2::4] == [""] * 200, "blank lines stay blank"
    moved = sum(a != b for x, y in zip(lines(out), lines(LONG), strict=True) for a, b in zip(x, y, strict=True))
    words = len(LONG.split())
    assert 0.4 < moved / words < 0.6, "each of 0.3 moves itself and another"
    assert noisy("swap_words", "one two", 1.0) == "one two", "two swaps undo each other"
    assert {noisy("swap_words", "one  two\tx", 0.4, seed) for seed in range(50)} > {"two  one\tx", "one  x\ttwo", "x  two\tone"}


def test_deleted_words():
    out = noisy("delete_words", LONG, 0.2)
    assert len(LONG.split()) - len(out.split()) == pytest.approx(0.2 * len(LONG.split()), rel=0.1)
    for kept, all_of in zip(lines(out), lines(LONG), strict=True):
        rest = iter(all_of)
        assert all(word in rest for word in kept), "in order"
        assert bool(kept) == bool(all_of), "one at least is left"
    outs = {noisy("delete_words", "  a b\tc \n", 0.5, seed) for seed in range(200)}
    assert outs == {"  a b\tc \n", "  a b \n", "  a c \n", "  b\tc \n", "  a \n", "  b \n", "  c \n"}
    assert {noisy("delete_words", "a b", 1.0, seed) for seed in range(20)} == {"a", "b"}


def test_inserted_words_are_of_the_line():
    out = noisy("insert_words", LONG, 0.2)
    assert len(out.split()) - len(LONG.split()) == pytest.approx(0.2 * len(LONG.split()), rel=0.1)
    for more, all_of in zip(lines(out), lines(LONG), strict=True):
        rest = iter(more)
        assert all(word in rest for word in all_of) and set(more) == set(all_of)
    outs = {noisy("insert_words", " a\tb ", 0.5, seed) for seed in range(300)}
    assert {" a a\tb ", " b a\tb ", " a b\tb ", " a\tb b ", " a\tb a "} < outs
    assert noisy("insert_words", "one", 1.0) == "one", "no blank in the text, none is made"
    assert noisy("insert_words", "one", 1.0, alphabet="eno ") == "one one"


def test_a_long_text_takes_linear_time():
    text = LONG * 40  # 800 KB; quadratic time would take minutes
    assert len(noisy("delete_words", text, 0.1)) < len(text)


# --- settings -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [-0.1, 1.5, float("nan"), "0.1", True])
@pytest.mark.parametrize("name", NAMES)
def test_rates_are_checked(name, wrong):
    with pytest.raises(ConfigError, match=name):
        Augmentation(**{name: wrong})


def test_settings():
    assert Augmentation().is_identity and not Augmentation(flip_case=0.1).is_identity
    assert set(augmentation._NOISES) == set(NAMES)
    with pytest.raises(ConfigError, match="neither can be negative"):
        augment("a", Augmentation(), -1, 0)
    with pytest.raises(AttributeError):
        Augmentation().flip_case = 0.5
