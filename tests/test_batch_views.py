"""Views of training data: aligned, complete, and equal to what training really does."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from tiny_transformer.config import ConfigError
from tiny_transformer.tokenization.char import CharTokenizer
from tiny_transformer.training import batch_views
from tiny_transformer.training.batch_views import (
    SHADES,
    Coverage,
    coverage,
    coverage_report,
    expected_share,
    frequency_table,
    show,
    token_counts,
    token_text,
)
from tiny_transformer.training.dataset import IGNORE, Batch, batch_at, windows
from tiny_transformer.training.token_writer import write_token_files

TEXTS = ["a", "bcd", "␣the", r"\n", "日本", "e\u0301", "."]

# ---------------------------------------------------------------- a batch


def test_a_batch_can_be_looked_at():
    picture = show(next(windows(np.array([0, 1, 2, 0]), 4, 1)), ["a", "b", r"\n"].__getitem__)
    assert picture.splitlines() == [r"0 inputs  a b  \n a", r"0 targets b \n a  ·"]


@given(st.integers(1, 20), st.integers(1, 3), st.integers(20, 60), st.integers(0, 99))
def test_every_target_stands_below_its_input(seq_len, rows, width, seed):
    inputs, targets = np.random.default_rng(seed).integers(0, len(TEXTS), (2, rows, seq_len))
    targets[:, ::3] = IGNORE
    lines = show(Batch(inputs, targets), TEXTS.__getitem__, width).splitlines()
    assert all(cell_len(line) <= width for line in lines)
    names = [line[:10] for line in lines]
    assert names[::2] == sorted(names[::2])
    assert all((a[2:], b[2:]) == ("inputs  ", "targets ") for a, b in zip(names[::2], names[1::2], strict=True))
    for row in range(rows):
        above, below = ([line for line in lines if line.startswith(f"{row} {name}")] for name in ("inputs", "targets"))
        seen = [cells_of(line) for line in above]
        asked = [cells_of(line) for line in below]
        for one, other in zip(seen, asked, strict=True):
            assert [column for column, _ in one] == [column for column, _ in other]
        assert [text for line in seen for _, text in line] == [TEXTS[i] for i in inputs[row]]
        assert [text for line in asked for _, text in line] == ["·" if i == IGNORE else TEXTS[i] for i in targets[row]]


def cells_of(line):
    """The texts of a line with the terminal column each begins in; no text of TEXTS holds a space."""
    found, column = [], 0
    for word in line[10:].split(" "):
        if word:
            found.append((column, word))
        column += cell_len(word) + 1
    return found


def test_a_token_wider_than_the_line_stands_alone():
    lines = show(Batch(np.array([[0, 1, 0]]), np.array([[1, 0, 0]])), ["a", "b" * 50].__getitem__, 30).splitlines()
    assert [len(line) for line in lines] == [11, 60, 60, 11, 11, 11]


def test_signs_that_cannot_be_seen():
    tokenizer = CharTokenizer.train(" \n\t\x00é")
    assert [token_text(tokenizer)(i) for i in tokenizer.encode(" \n\t\x00é")] == ["␣", r"\n", r"\t", r"\x00", "é"]


# ---------------------------------------------------------------- how often


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 7))
def test_counts_are_counts(ids, at_once):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_views, "_AT_ONCE", at_once)
        counts = token_counts(np.array(ids, dtype=np.int32), 10)
    assert counts.tolist() == [Counter(ids)[i] for i in range(10)]


def test_counts_of_token_files(tmp_path):
    files = write_token_files("banana", CharTokenizer.train("banana"), tmp_path / "tokens", shard_tokens=4)
    assert token_counts(files, 3).tolist() == [3, 1, 2]
    for wrong in ([3], [-1]):
        with pytest.raises(ConfigError, match="must lie in 0 to 2"):
            token_counts(np.array(wrong), 3)


def test_a_table_of_frequencies():
    counts = np.array([0, 50, 5, 0, 30, 10, 5, 0, 0, 0, 0])
    assert frequency_table(counts, lambda i: f"<{i}>", top=2).splitlines() == [
        "     id        count    share  together  token",
        "      1           50  50.000%    50.00%  <1>",
        "      4           30  30.000%    80.00%  <4>",
        "      … 2 more",
        "      6            5   5.000%            <6>",
        "never seen: 6 of 11 ids: 0, 3, 7-10",
    ]
    full = frequency_table(np.array([1, 1]), str, top=5)
    rows = [f"{i:7} {1:12} {'50.000%':>8} {together:>9}  {i}" for i, together in ((0, "50.00%"), (1, "100.00%"))]
    assert full.splitlines()[1:] == [*rows, "never seen: 0 of 2 ids"]
    assert frequency_table(np.zeros(3, dtype=int), str).splitlines()[1:] == ["never seen: 3 of 3 ids: 0-2"]
    many = frequency_table(np.arange(60) % 2, str, top=1).splitlines()[-1]
    assert many == "never seen: 30 of 60 ids: " + ", ".join(str(i) for i in range(0, 24, 2)) + ", …"


# ---------------------------------------------------------------- what has been seen


@given(st.integers(1, 9), st.integers(1, 30), st.integers(1, 4), st.integers(0, 12), st.integers(0, 2**32))
def test_visits_are_those_of_the_batches_themselves(seq_len, spare, batch_size, steps, seed):
    n = seq_len + spare
    counts = np.zeros(n, dtype=int)
    for step in range(steps):
        np.add.at(counts, batch_at(np.arange(n), batch_size, seq_len, seed, step).targets, 1)
    seen = coverage(n, batch_size, seq_len, seed, steps)
    assert counts[0] == 0
    assert seen.visits.tolist() == counts[1:].tolist()
    assert seen.share == np.mean(counts[1:] > 0)
    assert seen.asked == counts.sum() == steps * batch_size * seq_len
    assert seen.epochs == pytest.approx(counts.sum() / (n - 1))
    assert seen.histogram.tolist() == [Counter(counts[1:].tolist())[i] for i in range(counts.max() + 1)]
    assert seen.expected == expected_share(n, seq_len, steps * batch_size)


@given(st.integers(1, 9), st.integers(1, 20), st.integers(0, 50))
def test_the_expected_share_by_brute_force(seq_len, starts, n_windows):
    n = seq_len + starts
    shares = [1 - (1 - sum(s < j <= s + seq_len for s in range(starts)) / starts) ** n_windows for j in range(1, n)]
    assert expected_share(n, seq_len, n_windows) == pytest.approx(np.mean(shares), abs=1e-12)


def test_the_expected_share_is_the_mean_over_seeds():
    seen = [coverage(500, 2, 20, seed, 15) for seed in range(400)]
    spread = np.std([one.share for one in seen]) / 20  # of the mean of 400
    assert abs(np.mean([one.share for one in seen]) - seen[0].expected) < 4 * spread


def test_texts_too_short_and_steps_below_none():
    with pytest.raises(ValueError, match="has 8 tokens"):
        coverage(8, 2, 8, 0, 1)
    with pytest.raises(ConfigError, match="one window must fit"):
        coverage(8, 2, 8, 0, 0)
    with pytest.raises(ConfigError, match="steps=-1"):
        coverage(80, 2, 8, 0, -1)


def test_a_report_of_what_was_seen():
    visits = np.array([0] * 50 + [1] * 25 + [2] * 24 + [0], dtype=np.int32)
    lines = coverage_report(Coverage(visits, 0.5, 3, 73), width=44).splitlines()
    assert lines[:2] == ["3 steps ask for 73 targets: 0.73 epochs", "seen at least once: 49.00% of 100 tokens (expected 50.00%)"]
    assert lines[2:5] == [f"  {n} times            {count} {'█' * bar}" for n, count, bar in ((0, 51, 20), (1, 25, 10), (2, 24, 9))]
    assert len(lines[5]) == len(lines[6]) == 44
    assert set(lines[5][:21]) == {" "}
    assert set(lines[5][23:43]) == {"█"}
    assert lines[5][43] in SHADES[1:-1]
    assert lines[6].split() == ["start", "end"]


def test_a_report_of_many_visits_and_of_a_short_text():
    lines = coverage_report(Coverage(np.arange(20, dtype=np.int32), 0.5, 1, 190)).splitlines()
    assert lines[11].startswith(" 9+ times")
    assert int(lines[11].split()[2]) == 11
    assert len(lines[12]) == 20
    assert lines[12] == " " + "█" * 19
    assert "0 steps" in coverage_report(coverage(10, 2, 4, 0, 0))


@given(st.integers(1, 10_000), st.integers(0, 10_000))
def test_only_nothing_looks_like_nothing_and_only_all_like_all(n, k):
    shade = SHADES[batch_views._shade(min(k, n) / n)]
    assert (shade == " ") == (k == 0)
    assert (shade == "█") == (k >= n)
