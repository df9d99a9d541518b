"""Repetition, copying, perplexity: against brute force and closed forms."""

import math
import shlex
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny_transformer.cli.main import main
from tiny_transformer.config import ConfigError
from tiny_transformer.evaluation.perplexity import bits_per_byte, perplexity
from tiny_transformer.evaluation.repetition import Repetition, Source, average, repetition, usual
from tiny_transformer.evaluation.validation_loss import Measured

WORDS = st.lists(st.sampled_from(["a", "b", "c", "ü", "d."]), max_size=24)


def stands_in(part: list[str], whole: list[str]) -> int:
    return next((i for i in range(len(whole) - len(part) + 1) if whole[i : i + len(part)] == part), -1)


@settings(deadline=None, max_examples=300)
@given(WORDS, WORDS)
def test_the_longest_run_is_that_of_brute_force(sample, source):
    every = [(start, end) for start in range(len(sample)) for end in range(start + 1, len(sample) + 1)]
    shared = [(start, end) for start, end in every if stands_in(sample[start:end], source) >= 0]
    best = max(shared, key=lambda run: (run[1] - run[0], -run[0]), default=None)
    found = Source(" ".join(source)).longest_run(sample)
    if best is None:
        assert found == (0, 0, -1)
    else:
        start, end = best
        assert found == (end - start, start, stands_in(sample[start:end], source))


@settings(deadline=None, max_examples=200)
@given(WORDS, WORDS)
def test_the_counts_are_those_of_a_counter(words, source):
    found = repetition("  ".join(words) + "\n", Source("\n".join(source)))
    assert found.words == len(words)
    for n, share in ((1, found.distinct_1), (2, found.distinct_2), (3, found.distinct_3)):
        grams = Counter(" ".join(words[i : i + n]) for i in range(len(words) - n + 1))
        assert share == pytest.approx(len(grams) / grams.total() if grams else 0)
    fours = Counter(" ".join(words[i : i + 4]) for i in range(len(words) - 3))
    again = sum(count - 1 for count in fours.values())
    assert found.repeated_4 == pytest.approx(again / fours.total() if fours else 0, abs=1e-12)
    assert found.copied == len(found.copy.split())


def test_going_in_circles_and_never_twice():
    circles, fresh = repetition("so it goes on and " * 40), repetition(" ".join(f"w{i}" for i in range(200)))
    assert circles.repeated_4 > 0.97 and circles.distinct_1 == 5 / 200
    assert fresh.repeated_4 == 0 and fresh.distinct_1 == fresh.distinct_2 == fresh.distinct_3 == 1
    assert fresh.copied is None and "not here" in str(fresh)


def test_the_mean_of_texts_shows_their_longest_copy():
    source = Source("a b c d e")
    mean = average([repetition("x a b", source), repetition("b c d y z", source)])
    assert (mean.words, mean.copied, mean.copy) == (4, 2.5, "b c d")
    assert str(mean).endswith("longest run from the training text 2.5 words on average, at most 3: 'b c d'")
    assert str(repetition("x a b", source)).endswith("longest run from the training text 2 words: 'a b'")
    assert str(repetition("x y", source)).endswith("longest run from the training text 0 words")
    assert average([repetition("a b")]).copied is None
    with pytest.raises(ConfigError, match="no texts"):
        average([])


def test_people_are_measured_on_passages_of_the_same_length():
    text = " ".join(f"w{i}" for i in range(95)) + " w0" * 5
    found = usual(text, 10, passages=3)  # from words 0, 45 and 90
    expected = [repetition(" ".join(text.split()[start : start + 10])) for start in (0, 45, 90)]
    assert found == average(expected) and found.words == 10 and expected[2].repeated_4 > 0
    assert usual("a b c", 4) is None
    assert isinstance(usual("a b c", 3), Repetition)
    with pytest.raises(ConfigError, match="words=0"):
        usual("a", 0)


def test_perplexity_is_the_exponential_of_the_loss_and_of_its_ends():
    found = perplexity(Measured(math.log(90), 0.01, 5000))
    assert found.value == pytest.approx(90)
    assert (found.low, found.high) == (pytest.approx(90 * math.exp(-0.0196), rel=1e-5), pytest.approx(90 * math.exp(0.0196), rel=1e-5))
    assert str(found) == "90.0 (95 %: 88.3 to 91.8)"
    assert perplexity(Measured(0.384, 0.0, 10)).value == pytest.approx(1.468, abs=1e-3)
    assert perplexity(Measured(2.0, math.inf, 1)).high == math.inf


def test_bits_per_byte_do_not_depend_on_how_a_text_is_cut():
    nats = 120.0
    by_words, by_letters = Measured(nats / 30, 0.1, 30), Measured(nats / 150, 0.02, 150)
    for found in (bits_per_byte(by_words, 200), bits_per_byte(by_letters, 200)):
        assert found.value == pytest.approx(nats / math.log(2) / 200)
        assert found.high - found.value == pytest.approx(1.96 * 3.0 / math.log(2) / 200, rel=1e-4)
        assert found.low + found.high == pytest.approx(2 * found.value)
    with pytest.raises(ConfigError, match="n_bytes=0"):
        bits_per_byte(by_words, 0)


def test_tiny_generate_measures_what_it_writes(tmp_path, capsys, small_text):
    (tmp_path / "t.txt").write_text(small_text)
    run = str(tmp_path / "run")
    flags = shlex.split("--tokenizer word --d-model 16 --n-layers 1 --n-heads 2 --max-seq-len 16 --batch-size 8 --max-steps 3")
    assert main(["train", "--data", str(tmp_path / "t.txt"), "--out", run, *flags]) == 0
    capsys.readouterr()
    for more in ([], ["--stream"], ["--output", str(tmp_path / "o.txt")]):
        assert main(["generate", run, "--prompt", "The king", "--seed", "1", "--max-tokens", "30", "--measure", *more]) == 0
        out, err = capsys.readouterr()
        text = (tmp_path / "o.txt").read_text() if "--output" in more else out
        learned = small_text[: int(len(small_text) * 0.9)]
        assert str(repetition(text.rstrip("\n").removeprefix("The king"), Source(learned))) in err
