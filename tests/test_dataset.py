"""Batches: every start equally likely, targets one step later, every evaluation target once, order from (seed, step) alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiny_transformer.training.dataset import IGNORE, Batch, batch_at, get_batch, split, windows


def random_ids(n, seed=0, vocab=65, dtype=np.int32):
    return np.random.default_rng(seed).integers(0, vocab, n).astype(dtype)


def starts_of(batch, ids, seq_len):
    """Where each row was cut from; `ids` must hold no number twice."""
    order = np.argsort(ids)
    return order[np.searchsorted(ids, batch.inputs[:, 0], sorter=order)].tolist()


# ---------------------------------------------------------------- get_batch


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64])
def test_targets_are_the_inputs_one_step_later(dtype):
    ids = random_ids(500, dtype=dtype)
    batch = get_batch(ids, 16, 12, np.random.default_rng(1))
    assert isinstance(batch, Batch)
    assert batch.inputs.shape == batch.targets.shape == (16, 12)
    assert batch.inputs.dtype == batch.targets.dtype == np.int64
    windows_there = {tuple(ids[i : i + 13].tolist()) for i in range(500 - 12)}
    for inputs, targets in zip(*batch, strict=True):
        assert (*inputs.tolist(), targets[-1]) in windows_there
        assert inputs[1:].tolist() == targets[:-1].tolist()


def test_every_start_is_equally_likely_the_last_one_included():
    """Chi-square against the uniform distribution over exactly len - seq_len starts."""
    ids, seq_len, draws = np.random.default_rng(3).permutation(1000)[:40], 8, 64_000
    batch = get_batch(ids, draws, seq_len, np.random.default_rng(0))
    counts = np.bincount(starts_of(batch, ids, seq_len), minlength=40)
    n = len(ids) - seq_len  # starts 0 … 31
    assert (counts[:n] > 0).all()
    assert (counts[n:] == 0).all()
    expected = draws / n
    chi_square = ((counts[:n] - expected) ** 2 / expected).sum()
    assert chi_square < 70  # 31 degrees of freedom: below 61.1 with probability 0.999, a missing start makes 2,000


@given(st.integers(1, 12), st.integers(0, 8), st.integers(0, 2**32))
def test_the_first_and_the_last_token_are_reached_and_nothing_beyond(seq_len, spare, seed):
    ids = np.random.default_rng(seed).permutation(10_000)[: seq_len + 1 + spare]
    batch = get_batch(ids, 400, seq_len, np.random.default_rng(seed))
    starts = starts_of(batch, ids, seq_len)
    assert (min(starts), max(starts)) == (0, spare)
    assert (batch.targets[:, -1] == ids[-1]).any()


def test_the_only_window():
    ids = random_ids(9)
    batch = get_batch(ids, 3, 8, np.random.default_rng(0))
    assert batch.inputs.tolist() == [ids[:-1].tolist()] * 3
    assert batch.targets.tolist() == [ids[1:].tolist()] * 3


@pytest.mark.parametrize("n", [0, 1, 8])
def test_a_text_too_short_is_refused(n):
    with pytest.raises(ValueError, match=rf"has {n} tokens.*max_seq_len=8.*need 9"):
        get_batch(random_ids(n), 2, 8, np.random.default_rng(0))


def test_the_remedy_for_a_short_text_works():
    with pytest.raises(ValueError, match=r"or max_seq_len=7$"):
        get_batch(random_ids(8), 2, 8, np.random.default_rng(0))
    get_batch(random_ids(8), 2, 7, np.random.default_rng(0))


def test_lists_and_files_on_disk_will_do(tmp_path):
    ids = random_ids(100, dtype=np.uint16)
    ids.tofile(tmp_path / "ids")
    on_disk = np.memmap(tmp_path / "ids", dtype=np.uint16, mode="r")
    batches = [get_batch(some, 4, 5, np.random.default_rng(0)) for some in (ids, ids.tolist(), on_disk)]
    for batch in batches[1:]:
        np.testing.assert_array_equal(batch.inputs, batches[0].inputs)
    with pytest.raises(ValueError, match="ids has shape"):
        get_batch(ids.reshape(10, 10), 4, 5, np.random.default_rng(0))


def test_a_batch_is_no_view_of_the_text():
    ids = random_ids(50, dtype=np.int64)
    before = ids.copy()
    get_batch(ids, 4, 8, np.random.default_rng(0)).inputs[:] = -1
    np.testing.assert_array_equal(ids, before)


# ---------------------------------------------------------------- batch_at


def test_a_batch_is_a_pure_function_of_seed_and_step():
    ids = random_ids(1000)
    np.random.seed(0)
    first = batch_at(ids, 8, 16, seed=5, step=70)
    np.random.seed(1)
    for step in range(69, 72):
        batch_at(ids, 8, 16, seed=5, step=step)
    again = batch_at(ids, 8, 16, seed=5, step=70)
    np.testing.assert_array_equal(first.inputs, again.inputs)
    np.testing.assert_array_equal(first.targets, again.targets)


def test_every_seed_and_step_has_its_own_batch():
    ids = np.random.default_rng(0).permutation(100_000)
    seen = {tuple(starts_of(batch_at(ids, 4, 8, seed, step), ids, 8)) for seed in range(12) for step in range(12)}
    assert len(seen) == 144  # (1, 2) and (2, 1) differ too


@given(st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8]), st.integers(1, 5), st.integers(1, 24), st.integers(0, 2**32), st.integers(0, 10**6))
def test_ranks_and_micro_batches_share_out_one_global_batch(world, accumulate, batch_size, seed, step):
    """However the rows are dealt out, together they are the batch of a single process."""
    ids = random_ids(300)
    whole = batch_at(ids, batch_size, 6, seed, step)
    dealt = [
        part.inputs
        for rank_rows in np.array_split(np.arange(batch_size), world)
        for rows in np.array_split(rank_rows, accumulate)
        for part in [Batch(*(array[rows] for array in batch_at(ids, batch_size, 6, seed, step)))]
    ]
    np.testing.assert_array_equal(np.concatenate(dealt), whole.inputs)


# ---------------------------------------------------------------- windows


@given(st.integers(0, 200), st.integers(1, 20), st.integers(1, 9))
def test_every_token_but_the_first_is_a_target_exactly_once_in_order(n, seq_len, batch_size):
    ids = random_ids(n, seed=n)
    batches = list(windows(ids, seq_len, batch_size))
    targets = np.concatenate([batch.targets.ravel() for batch in batches] or [np.zeros(0, int)])
    inputs = np.concatenate([batch.inputs.ravel() for batch in batches] or [np.zeros(0, int)])
    asked = targets != IGNORE
    assert targets[asked].tolist() == ids[1:].tolist()
    assert inputs[asked].tolist() == ids[:-1].tolist()
    assert (inputs[~asked] == 0).all()  # a valid id
    assert asked[: max(0, n - 1)].all()  # padding at the end only
    assert sum((~asked).tolist()) < seq_len
    for batch in batches:
        assert batch.inputs.shape == batch.targets.shape
        assert batch.inputs.shape[1] == seq_len
        assert 1 <= batch.inputs.shape[0] <= batch_size
        assert batch.inputs.dtype == batch.targets.dtype == np.int64
    assert all(batch.inputs.shape[0] == batch_size for batch in batches[:-1])


def test_windows_do_not_depend_on_the_batch_size():
    ids = random_ids(123)
    one, many = (np.concatenate([batch.inputs for batch in windows(ids, 7, size)]) for size in (1, 5))
    np.testing.assert_array_equal(one, many)


@given(st.integers(0, 120), st.integers(1, 20), st.integers(1, 9), st.data())
def test_with_any_stride_every_target_counts_once_with_enough_context(n, seq_len, batch_size, data):
    stride = data.draw(st.integers(1, seq_len))
    ids = np.random.default_rng(n).permutation(1000)[:n]
    place = {token: i for i, token in enumerate(ids.tolist())}
    batches, asked_places = list(windows(ids, seq_len, batch_size, stride)), []
    rows = [(inputs, targets) for batch in batches for inputs, targets in zip(*batch, strict=True)]
    for number, (inputs, targets) in enumerate(rows):
        assert inputs.dtype == targets.dtype == np.int64
        for position in np.flatnonzero(targets != IGNORE):
            target = place[int(targets[position])]
            asked_places.append(target)
            assert inputs[: position + 1].tolist() == ids[target - 1 - position : target].tolist()  # what it is predicted from
            assert number == 0 or position >= seq_len - stride
        assert place.get(int(inputs[0])) == number * stride
    assert asked_places == list(range(1, n))
    assert all(len(batch.inputs) == batch_size for batch in batches[:-1])


def test_a_stride_as_long_as_the_window_is_no_stride():
    ids = random_ids(123)
    for plain, strided in zip(windows(ids, 7, 3), windows(ids, 7, 3, stride=7), strict=True):
        np.testing.assert_array_equal(plain, strided)


@pytest.mark.parametrize("options", [(8, 0), (0, 2), (8, 2, 0), (8, 2, 9), (8, 2, -1)])
def test_windows_of_impossible_sizes(options):
    with pytest.raises(ValueError, match=r"must be at least 1|must lie in 1 to seq_len=8, or targets are left out. Try 4"):
        list(windows(random_ids(50), *options))


def test_a_window_is_no_view_of_the_text():
    ids = random_ids(50, dtype=np.int64)
    before = ids.copy()
    for batch in windows(ids, 8, 2, 4):
        batch.inputs[:] = batch.targets[:] = -1
    np.testing.assert_array_equal(ids, before)


# ---------------------------------------------------------------- split


@given(st.text(max_size=300), st.floats(0, 0.99))
def test_a_split_is_contiguous_and_complete(text, share):
    train, val = split(text, share)
    assert train + val == text
    assert abs(len(val) - share * len(text)) <= 1
    train_ids, val_ids = split(np.arange(len(text)), share)
    assert (len(train_ids), len(val_ids)) == (len(train), len(val))


def test_text_and_ids_are_split_at_the_same_place():
    train, val = split("x" * 1_115_394)
    assert (len(train), len(val)) == (1_003_854, 111_540)
    assert [len(part) for part in split(np.zeros(1_115_394, np.int32))] == [1_003_854, 111_540]


def test_tiny_shakespeare_itself(corpora_dir):
    train, val = split((corpora_dir / "shakespeare.txt").read_text(encoding="utf-8"))
    assert (len(train), len(val)) == (1_003_854, 111_540)


# ---------------------------------------------------------------- sizes and kinds


@pytest.mark.parametrize("sizes", [(0, 4), (-1, 4), (2, 0), (2, -3)])
def test_sizes_below_one_are_refused(sizes):
    with pytest.raises(ValueError, match="must be at least 1"):
        get_batch(random_ids(50), *sizes, np.random.default_rng(0))


@pytest.mark.parametrize("other", [7, None, np.random.RandomState(0)])
def test_another_kind_of_generator_is_refused(other):
    with pytest.raises(ValueError, match=r"generator is a .*must be a numpy.random.Generator.*default_rng"):
        get_batch(random_ids(50), 2, 4, other)


def test_lists_of_ids_are_taken():
    ids = random_ids(50)
    ours, theirs = (get_batch(form, 4, 8, np.random.default_rng(0)) for form in (ids, ids.tolist()))
    np.testing.assert_array_equal(ours, theirs)
