"""Packing: every token once, targets that belong to their inputs, and logits of the documents alone."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiny_transformer.config import ConfigError, ModelConfig
from tiny_transformer.tokenization.char import CharTokenizer
from tiny_transformer.training.dataset import IGNORE
from tiny_transformer.training.packing import document_mask, document_numbers, numbers_by_eos, pack, packed_batches, plan_rows, positions
from tiny_transformer.training.token_files import TokenFiles
from tiny_transformer.training.token_writer import write_token_files

METHODS = ["best-fit", "sequential"]
LENGTHS = st.lists(st.integers(0, 25), max_size=12)


def documents_of(lengths):
    """Ids that occur once in all documents: 100, 101, …"""
    edges = np.cumsum([100, *lengths])
    return [np.arange(a, b) for a, b in pairwise(edges)]


# ---------------------------------------------------------------- rows


@given(LENGTHS, st.integers(1, 12), st.sampled_from(METHODS))
def test_every_token_is_in_one_piece(lengths, seq_len, method):
    rows = plan_rows(lengths, seq_len, method)
    places = sorted((piece.document, piece.start + i) for row in rows for piece in row for i in range(piece.length))
    assert places == [(document, i) for document, length in enumerate(lengths) for i in range(length)]
    assert all(1 <= sum(piece.length for piece in row) <= seq_len for row in rows)
    assert rows == sorted(sorted(row) for row in rows)


@given(LENGTHS, st.integers(1, 12))
def test_only_documents_longer_than_a_row_are_cut(lengths, seq_len):
    for row in plan_rows(lengths, seq_len):
        for piece in row:
            rest = lengths[piece.document] % seq_len
            assert piece.start % seq_len == 0
            assert piece.length in (seq_len, rest)
            assert piece.length == seq_len or piece.start + rest == lengths[piece.document]


@given(LENGTHS, st.integers(1, 12))
def test_as_few_rows_as_best_fit_decreasing_done_slowly(lengths, seq_len):
    rooms = []
    rests = [length % seq_len for length in lengths if length % seq_len]
    for rest in sorted(rests, reverse=True):
        fitting = [room for room in rooms if room >= rest]
        if fitting:
            rooms.remove(min(fitting))
            rooms.append(min(fitting) - rest)
        else:
            rooms.append(seq_len - rest)
    rows = plan_rows(lengths, seq_len)
    mine = [seq_len - sum(piece.length for piece in row) for row in rows if row[0].length < seq_len]
    assert sorted(mine) == sorted(rooms)
    assert len(rows) == len(rooms) + sum(length // seq_len for length in lengths)


@given(LENGTHS, st.integers(1, 12))
def test_sequential_rows_have_no_padding_but_at_the_end(lengths, seq_len):
    sizes = [sum(piece.length for piece in row) for row in plan_rows(lengths, seq_len, "sequential")]
    assert len(sizes) == -(-sum(lengths) // seq_len)
    assert all(size == seq_len for size in sizes[:-1])


def test_the_example_by_hand():
    assert [[(p.document, p.length) for p in row] for row in plan_rows([4, 3, 2, 3], 6)] == [[(0, 4), (2, 2)], [(1, 3), (3, 3)]]
    rows = plan_rows([4, 3, 2, 3], 6, "sequential")
    assert [[(p.document, p.start, p.length) for p in row] for row in rows] == [[(0, 0, 4), (1, 0, 2)], [(1, 2, 1), (2, 0, 2), (3, 0, 3)]]


# ---------------------------------------------------------------- batches


@given(LENGTHS, st.integers(1, 12), st.sampled_from(METHODS), st.booleans())
def test_nothing_is_lost_and_nothing_doubled(lengths, seq_len, method, across):
    documents = documents_of(lengths)
    (inputs, targets), numbers = pack(documents, seq_len, method, across=across)
    assert inputs.shape == targets.shape == numbers.shape == (len(plan_rows(lengths, seq_len, method)), seq_len)
    assert inputs.dtype == targets.dtype == np.int64
    text = [i for document in documents for i in document.tolist()]
    real, asked = numbers >= 0, targets != IGNORE
    assert sorted(inputs[real].tolist()) == text
    assert not inputs[~real].any()
    assert not asked[~real].any()
    successors = {int(a): int(b) for document in documents for a, b in pairwise(document)}
    within = {int(i): int(t) for i, t in zip(inputs[asked], targets[asked], strict=True) if int(i) in successors}
    assert within == successors
    assert len(set(targets[asked].tolist())) == asked.sum()
    ends = {(int(i), int(t)) for i, t in zip(inputs[asked], targets[asked], strict=True) if int(i) not in successors}
    firsts = {int(document[0]): number for number, document in enumerate(documents) if len(document)}
    expected = {
        (int(inputs[row, i]), int(inputs[row, i + 1]))
        for row in range(len(inputs)) for i in range(seq_len - 1)
        if across and real[row, i + 1] and numbers[row, i] != numbers[row, i + 1] and int(inputs[row, i + 1]) in firsts
        and int(inputs[row, i]) not in successors
    }  # fmt: skip
    assert ends == expected
    for row, number in zip(inputs, numbers, strict=True):
        for token, document in zip(row.tolist(), number.tolist(), strict=True):
            assert document < 0 or token in documents[document]


@given(LENGTHS, st.integers(1, 12), st.integers(1, 4), st.sampled_from([None, 3]))
def test_batches_are_the_rows_in_order_or_shuffled(lengths, seq_len, batch_size, seed):
    documents = documents_of(lengths)
    whole = pack(documents, seq_len)
    batches = list(packed_batches(documents, seq_len, batch_size, seed=seed))
    assert all(len(packed.documents) == batch_size for packed in batches[:-1])
    rows = [(*zip(*packed.batch, strict=True),) for packed in batches]
    rows = [(i.tolist(), t.tolist()) for batch in rows for i, t in batch]
    theirs = [(i.tolist(), t.tolist()) for i, t in zip(*whole.batch, strict=True)]
    assert (rows if seed is None else sorted(rows)) == (theirs if seed is None else sorted(theirs))
    again = list(packed_batches(documents, seq_len, batch_size, seed=seed))
    assert all((a.documents == b.documents).all() for a, b in zip(batches, again, strict=True))


def test_a_seed_shuffles():
    documents = documents_of([6] * 40)
    orders = {tuple(packed.documents[0, 0] for packed in packed_batches(documents, 6, 1, seed=seed)) for seed in (None, 0, 1)}
    assert len(orders) == 3


def test_token_files_are_read_row_by_row(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("abcd"), n)) for n in (7, 30, 1, 12, 300)]
    tokenizer = CharTokenizer.train("abcd")
    files = write_token_files(texts, tokenizer, tmp_path / "tokens", shard_tokens=11)
    read, real = [], TokenFiles._read
    monkeypatch.setattr(TokenFiles, "_read", lambda self, start, stop: read.append(stop - start) or real(self, start, stop))
    ours = list(packed_batches(files.documents(), 16, 2))
    assert max(read) == 17
    theirs = packed_batches([tokenizer.encode_array(text) for text in texts], 16, 2)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a.batch, b.batch)
        np.testing.assert_array_equal(a.documents, b.documents)


@pytest.mark.parametrize(
    ("options", "message"),
    [((0,), "seq_len=0"), ((4, "worst-fit"), "method='worst-fit': it must be one of best-fit, sequential")],
)
def test_impossible_packings(options, message):
    with pytest.raises(ConfigError, match=message):
        pack(documents_of([3]), *options)
    with pytest.raises(ConfigError, match="batch_size=0"):
        list(packed_batches(documents_of([3]), 4, 0))


# ---------------------------------------------------------------- masks and positions

NUMBERS = st.integers(1, 8).flatmap(lambda n: st.lists(st.lists(st.integers(-1, 3), min_size=n, max_size=n), min_size=1, max_size=3))


@given(NUMBERS)
def test_masks_and_positions_by_brute_force(numbers):
    numbers = np.array(numbers)
    mask, places = document_mask(numbers), positions(numbers)
    assert mask.dtype == bool
    assert mask.shape == (*numbers.shape, numbers.shape[1])
    for row, documents in enumerate(numbers):
        for i, document in enumerate(documents):
            assert mask[row, i].tolist() == [other == document for other in documents]
            begin = i
            while begin and documents[begin - 1] == document:
                begin -= 1
            assert places[row, i] == i - begin


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8))
def test_numbers_from_starts_and_from_end_tokens(lengths):
    starts = np.cumsum([0, *lengths[:-1]])
    wanted = np.repeat(np.arange(len(lengths)), lengths)
    places = np.arange(sum(lengths))
    np.testing.assert_array_equal(document_numbers(starts, places), wanted)
    np.testing.assert_array_equal(document_numbers(starts, places[None]), wanted[None])
    inputs = np.ones(sum(lengths), dtype=int)
    inputs[np.cumsum(lengths) - 1] = 0
    np.testing.assert_array_equal(numbers_by_eos(inputs[None], eos=0), wanted[None])


# ---------------------------------------------------------------- the model


def model_of(position):
    import torch

    from tiny_transformer.model import TinyTransformerLM

    torch.manual_seed(0)
    more = {"n_heads": 4} if position == "alibi" else {}
    config = ModelConfig(**{"vocab_size": 40, "max_seq_len": 24, "d_model": 32, "n_layers": 3, "n_heads": 2, "position": position} | more)
    return TinyTransformerLM(config, seed=0).double().eval()


LENGTHS_HERE = [9, 5, 24, 3, 7, 1, 16]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("position", ["rotary", "alibi", "none"])
def test_packed_rows_give_the_logits_of_the_documents_alone(position, method):
    """Float64: the only differences are rotations by other angles with the same distances."""
    import torch

    model = model_of(position)
    documents = [np.random.default_rng(n).integers(0, 40, n) for n in LENGTHS_HERE]
    packed = pack(documents, 24, method)
    with torch.no_grad():
        masked = model(torch.from_numpy(packed.batch.inputs), torch.from_numpy(document_mask(packed.documents)))
        bare = model(torch.from_numpy(packed.batch.inputs))
        differing = 0
        for row, pieces in enumerate(plan_rows(LENGTHS_HERE, 24, method)):
            begin = 0
            for piece in pieces:
                ids = documents[piece.document][piece.start : piece.start + piece.length]
                alone = model(torch.from_numpy(ids)[None])[0]
                here = slice(begin, begin + piece.length)
                torch.testing.assert_close(masked[row, here], alone, rtol=0, atol=1e-6 if position == "rotary" else 1e-12)
                differing += begin > 0 and not torch.allclose(bare[row, here], alone, atol=1e-3)
                begin += piece.length
        assert differing  # without the mask they are not
        assert torch.isfinite(masked).all()


@pytest.mark.parametrize("position", ["learned", "sinusoidal"])
def test_positions_that_are_added_must_restart_too(position):
    """`hidden` counts from the row's start, so the mask alone is not enough; with `positions` the same parts give the same logits."""
    import torch

    model = model_of(position)
    documents = [np.random.default_rng(n).integers(0, 40, n) for n in (9, 5, 7)]
    packed = pack(documents, 24)
    ids, mask = torch.from_numpy(packed.batch.inputs), torch.from_numpy(document_mask(packed.documents))
    with torch.no_grad():
        masked = model(ids, mask)
        x = model.embeddings(ids, torch.from_numpy(positions(packed.documents)))
        for block in model.blocks:
            x = block(x, mask)
        restarted = model.unembed(model.norm(x))
        begin = 0
        for number, document in enumerate(documents):
            alone, here = model(torch.from_numpy(document)[None])[0], slice(begin, begin + len(document))
            torch.testing.assert_close(restarted[0, here], alone, rtol=0, atol=1e-12)
            assert torch.allclose(masked[0, here], alone, atol=1e-3) == (number == 0)
            begin += len(document)


def test_the_loss_of_packed_rows_is_that_of_the_documents():
    import torch

    from tiny_transformer.training.objectives import count_targets, cross_entropy

    model = model_of("rotary")
    documents = [np.random.default_rng(n).integers(0, 40, n) for n in LENGTHS_HERE]
    packed = pack(documents, 24)
    with torch.no_grad():
        logits = model(torch.from_numpy(packed.batch.inputs), torch.from_numpy(document_mask(packed.documents)))
        together = cross_entropy(logits, torch.from_numpy(packed.batch.targets), "sum")
        texts = [torch.from_numpy(document)[None] for document in documents if len(document) > 1]
        apart = sum(cross_entropy(model(text[:, :-1]), text[:, 1:], "sum") for text in texts)
    torch.testing.assert_close(together, apart, rtol=1e-7, atol=0)
    assert count_targets(packed.batch.targets) == sum(n - 1 for n in LENGTHS_HERE)
