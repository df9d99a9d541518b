"""Four bits: the published levels, brute force for the nearest one, packing that loses nothing, and how far off a number may be."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny_transformer import quantized
from tiny_transformer.config import ConfigError
from tiny_transformer.nf4 import Nf4, packed, quantize_nf4, unpacked
from tiny_transformer.quantized import chunks
from tiny_transformer.rounded_weights import Rounding, nf4_levels
from tiny_transformer.rounded_weights import unpacked as unpacked_by_numpy

PUBLISHED = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334, -0.09105003625154495,
    0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
]  # fmt: skip
"""QLoRA, appendix E."""
HALF_GAP = max(high - low for low, high in itertools.pairwise(PUBLISHED)) / 2
SIZES = st.integers(1, 7), st.integers(1, 150)


def matrix(out, columns, seed=0, spread=1.0):
    return torch.randn(out, columns, generator=torch.Generator().manual_seed(seed)) * spread


# levels


def test_the_levels_are_the_published_ones():
    assert np.abs(np.array(nf4_levels()) - PUBLISHED).max() < 3e-7


def test_the_levels_are_quantiles_of_the_normal_distribution():
    """By counting: the normal numbers below each level, scaled so that the largest level is the outermost quantile."""
    outermost = (29 / 30 + 31 / 32) / 2

    def share(x):
        return (1 + math.erf(x / math.sqrt(2))) / 2

    low, high = 0.0, 5.0
    for _ in range(80):  # where the share is `outermost`, by halving
        low, high = ((low + high) / 2, high) if share((low + high) / 2) < outermost else (low, (low + high) / 2)
    shares = [share(level * low) for level in nf4_levels()]
    assert np.allclose(np.diff(shares[7:]), (outermost - 0.5) / 8) and np.allclose(np.diff(shares[:8]), (outermost - 0.5) / 7)


# packing


@given(st.integers(0, 4), st.integers(1, 11), st.integers(0, 1000))
def test_packing_loses_nothing(rows, columns, seed):
    places = torch.randint(0, 16, (rows, columns), generator=torch.Generator().manual_seed(seed), dtype=torch.int32)
    pairs = packed(places)
    assert pairs.dtype == torch.uint8 and pairs.shape == (rows, -(-columns // 2))
    expected = torch.tensor(nf4_levels())[places.long()]
    assert torch.equal(unpacked(pairs, columns), expected)
    assert np.array_equal(unpacked_by_numpy(pairs.numpy(), columns), expected.numpy())


def test_every_byte_is_a_pair_the_first_in_the_lower_bits():
    pairs = torch.arange(256, dtype=torch.uint8).view(1, -1)
    levels = torch.tensor(nf4_levels())
    assert torch.equal(unpacked(pairs, 512).view(-1, 2), torch.stack([levels[torch.arange(256) % 16], levels[torch.arange(256) // 16]], 1))


# rounding


def brute(weight, block, scales):
    """The nearest level for every number, one after the other, in double precision: the values, not the places (there may be ties)."""
    out, columns = weight.shape
    width = -(-columns // -(-columns // block))
    best = np.empty((out, columns))
    for row, column in itertools.product(range(out), range(columns)):
        scale = float(scales[row, column // width])
        best[row, column] = min(abs(level * scale - float(weight[row, column])) for level in PUBLISHED)
    return best


@settings(max_examples=30)
@given(*SIZES, st.integers(1, 80), st.booleans(), st.sampled_from([1e-20, 1.0, 1e20]), st.integers(0, 1000))
def test_every_number_gets_the_nearest_level(out, columns, block, double, spread, seed):
    weight = matrix(out, columns, seed, spread)
    small = quantize_nf4(weight, block, double=double)
    error = (small.dequantize().double() - weight.double()).abs().numpy()
    largest = float(weight.abs().max())
    assert np.abs(error - brute(weight, block, small.float_scales())).max() <= 1e-6 * largest


@settings(max_examples=40)
@given(*SIZES, st.integers(1, 80), st.sampled_from([1e-20, 1e-3, 1.0, 1e20]), st.integers(0, 1000))
def test_no_number_is_off_by_more_than_half_the_widest_gap(out, columns, block, spread, seed):
    weight = matrix(out, columns, seed, spread)
    small = quantize_nf4(weight, block)
    assert small.shape == (out, columns) and small.values.shape == (out, -(-columns // 2))
    blocks = -(-columns // block)
    assert small.scales.shape == (out, blocks)
    width = -(-columns // blocks)
    for index, piece in enumerate(torch.split(weight, width, 1)):
        largest = piece.abs().amax(1)
        assert torch.equal(small.scales[:, index], largest)  # one scale per block, its largest number
        error = (small.dequantize()[:, index * width : (index + 1) * width] - piece).abs()
        assert (error <= largest[:, None] * HALF_GAP * (1 + 1e-5)).all()


@settings(max_examples=40)
@given(st.integers(1, 40), st.integers(1, 150), st.integers(1, 64), st.integers(0, 1000))
def test_rounded_scales_are_off_by_no_more_than_half_a_step(out, columns, block, seed):
    weight = matrix(out, columns, seed)
    plain, double = quantize_nf4(weight, block), quantize_nf4(weight, block, double=True)
    scales = plain.scales.flatten()
    groups = -(-len(scales) // 256)
    assert double.scales.dtype == torch.int8 and double.second.shape == (groups,) and double.mean.shape == (1,)
    assert torch.allclose(double.mean, scales.mean())
    for group, again in zip(
        torch.split(scales, -(-len(scales) // groups)), torch.split(double.float_scales().flatten(), -(-len(scales) // groups)), strict=True
    ):
        step = (group - scales.mean()).abs().max() / 127
        assert ((group - again).abs() <= step * 0.5 * (1 + 2**-6) + 1e-6).all()
    bound = plain.scales.max() * HALF_GAP + (double.float_scales() - plain.scales).abs().max() * (1 + HALF_GAP)
    assert (double.dequantize() - weight).abs().max() <= bound * (1 + 1e-5)


def test_a_block_does_not_feel_its_neighbours():
    weight = matrix(2, 128)
    weight[0, :64] *= 1000
    weight[1] = 0
    small = quantize_nf4(weight).dequantize()
    assert torch.equal(small[:1, 64:], quantize_nf4(weight[:1, 64:]).dequantize())
    assert torch.equal(small[1], torch.zeros(128))
    assert torch.equal(quantize_nf4(weight, double=True).dequantize()[1], torch.zeros(128))  # though its scale is not quite 0


def test_levels_times_a_scale_come_back_exactly():
    weight = torch.tensor([nf4_levels(), nf4_levels()[::-1]]) * torch.tensor([[0.5], [4.0]])
    assert torch.equal(quantize_nf4(weight, 16).dequantize(), weight)


def test_normal_numbers_use_all_levels_about_equally_and_better_than_even_ones():
    """What NF4 is for: less error on normal numbers than levels at equal distances."""
    weight = matrix(64, 1024)
    error = (quantize_nf4(weight).dequantize() - weight).square().mean()
    scales = weight.view(64, -1, 64).abs().amax(-1, keepdim=True)
    even = ((weight.view(64, -1, 64) / scales * 7).round() / 7 * scales).view_as(weight)
    assert error < 0.85 * (even - weight).square().mean()
    places = torch.bincount(torch.cat([quantize_nf4(weight).values & 15, quantize_nf4(weight).values >> 4]).flatten().int(), minlength=16)
    assert places.min() > 0.25 * places.float().mean()


def test_bits_per_weight():
    weight = matrix(64, 1024)
    assert quantize_nf4(weight).nbytes * 8 / weight.numel() == 4.5
    assert quantize_nf4(weight, 32).nbytes * 8 / weight.numel() == 5
    assert abs(quantize_nf4(weight, double=True).nbytes * 8 / weight.numel() - (4 + 1 / 8 + 4 * 8 / (64 * 256))) < 1e-3


@pytest.mark.parametrize("double", [False, True])
def test_a_large_matrix_is_rounded_in_pieces_as_a_whole(double, monkeypatch):
    weight = matrix(37, 100)
    whole = quantize_nf4(weight, double=double)
    monkeypatch.setattr(quantized, "CHUNK", 350)
    assert [piece.stop - piece.start for piece in chunks(37, 100)][:2] == [3, 3]
    for one, other in zip(whole, quantize_nf4(weight, double=double), strict=True):
        assert one is other is None or one == other if not isinstance(one, torch.Tensor) else torch.equal(one, other)
    for rows in (slice(0, 1), slice(5, 20), slice(30, 50)):
        assert torch.equal(whole.dequantize(rows=rows), whole.dequantize()[rows])


@given(st.integers(0, 50), st.integers(0, 50))
def test_chunks_cover_each_row_once(rows, columns):
    assert [row for piece in chunks(rows, columns) for row in range(rows)[piece]] == list(range(rows))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_other_types_of_numbers(dtype):
    weight = matrix(3, 70).to(dtype)
    small = quantize_nf4(weight)
    assert small.dequantize(dtype).dtype == dtype and small.scales.dtype == torch.float32
    assert torch.equal(small.dequantize(), quantize_nf4(weight.float()).dequantize())


def test_what_can_not_be_rounded():
    for bad in (torch.zeros(4), torch.zeros(0, 3), torch.tensor([[1.0, float("nan")]])):
        with pytest.raises(ValueError, match="it must be a matrix"):
            quantize_nf4(bad)
    with pytest.raises(ConfigError, match="block=0"):
        quantize_nf4(matrix(2, 2), 0)


# both engines, and settings


@settings(max_examples=40)
@given(*SIZES, st.integers(1, 80), st.booleans(), st.integers(0, 1000))
def test_numpy_makes_the_same_numbers_of_it_to_the_last_bit(out, columns, block, double, seed):
    small = quantize_nf4(matrix(out, columns, seed), block, double=double)
    stored = small.stored()
    stored.check("weight")
    assert stored.nbytes == small.nbytes and stored.bits == 4 and stored.shape == small.shape
    assert np.array_equal(stored.expand(), small.dequantize().numpy())


def test_settings_that_can_not_be():
    for wrong, words in (({"bits": 5}, "must be 8 or 4"), ({"block": 0}, "at least 1"), ({"double": True}, "only the scales of 4 bits")):
        with pytest.raises(ConfigError, match=words):
            Rounding(**wrong)
    names = ["blocks.0.attention.W_query.weight", "blocks.0.feedforward.down.weight"]
    assert Rounding(keep=("*.down.weight",)).chosen(names) == names[:1] and Rounding().chosen(names) == names
    with pytest.raises(ConfigError, match=r"keep='\*.up.weight': it must match"):
        Rounding(keep=("*.up.weight",)).chosen(names)
    with pytest.raises(ConfigError, match="something must be left"):
        Rounding(keep=("*",)).chosen(names)


def test_what_a_matrix_in_four_bits_says_of_itself():
    assert Nf4(torch.zeros(3, 2, dtype=torch.uint8), torch.zeros(3, 1), 3).shape == (3, 3)
