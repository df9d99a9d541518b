"""Positions: sinusoids by their formula, rotations by their law, ALiBi by the paper's numbers."""

import math

import pytest
import torch

from tests.options import small_config
from tiny_transformer.config import ModelConfig
from tiny_transformer.embeddings import (
    Embeddings,
    alibi_bias,
    alibi_slopes,
    apply_rotary,
    rotary_frequencies,
    rotation,
    sinusoidal_positions,
)
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.utils.reference import reference_path


@pytest.mark.parametrize("d_model", [1, 6, 7, 64])
def test_sinusoids_are_the_papers_formula(d_model):
    table, exact = sinusoidal_positions(40, d_model), sinusoidal_positions(40, d_model, torch.float64)
    assert table.shape == (40, d_model)
    assert torch.equal(table, exact.float())
    for position in (0, 1, 17, 39):
        for i in range(d_model):
            angle = position / 10_000 ** (2 * (i // 2) / d_model)
            expected = math.sin(angle) if i % 2 == 0 else math.cos(angle)
            assert exact[position, i].item() == pytest.approx(expected, abs=1e-12)


def test_a_shift_of_sinusoids_is_one_linear_map():
    """PE(pos + k) is a fixed rotation of PE(pos), whatever pos is (Vaswani et al. 2017, 3.5)."""
    table = sinusoidal_positions(60, 16).double()
    shift = torch.linalg.lstsq(table[:40], table[7:47]).solution
    torch.testing.assert_close(table[:50] @ shift, table[7:57], atol=1e-4, rtol=0)


def test_rotary_depends_on_the_difference_of_positions_only():
    query, key = torch.randn(2, 1, 16, dtype=torch.float64)
    products = [
        (apply_rotary(query, torch.tensor([start + 5])) @ apply_rotary(key, torch.tensor([start])).T).item() for start in (0, 3, 40)
    ]
    assert products == pytest.approx([products[0]] * 3, rel=1e-5)
    other = (apply_rotary(query, torch.tensor([6])) @ apply_rotary(key, torch.tensor([0])).T).item()
    assert other != pytest.approx(products[0], rel=1e-3)


def test_rotary_keeps_lengths_and_position_zero():
    x = torch.randn(2, 3, 5, 8)
    turned = apply_rotary(x, torch.arange(5))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(turned[:, :, 0], x[:, :, 0])
    assert not torch.allclose(turned[:, :, 1], x[:, :, 1])


def test_rotary_as_complex_multiplication():
    x = torch.randn(5, 8, dtype=torch.float64)
    pairs = torch.complex(x[:, :4], x[:, 4:])
    angles = torch.arange(5, dtype=torch.float64)[:, None] * 10_000.0 ** (-torch.arange(4, dtype=torch.float64) / 4)
    turned = pairs * torch.exp(1j * angles)
    torch.testing.assert_close(apply_rotary(x, torch.arange(5)), torch.cat([turned.real, turned.imag], -1), rtol=1e-5, atol=1e-5)


def test_rotary_takes_positions_row_by_row():
    x = torch.randn(2, 3, 4, 8)
    rows = torch.tensor([[0, 1, 2, 3], [5, 6, 7, 8]])
    turned = apply_rotary(x, rows)
    for row in range(2):
        torch.testing.assert_close(turned[row], apply_rotary(x[row], rows[row]))


def test_linear_scaling_stretches_every_wavelength():
    torch.testing.assert_close(rotary_frequencies(8, 1e4, {"type": "linear", "factor": 4.0}), rotary_frequencies(8, 1e4) / 4)


def test_llama3_scaling_equals_transformers():
    transformers = pytest.importorskip("transformers", reason="the peer that is compared with")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaling = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 512}
    config = transformers.LlamaConfig(
        hidden_size=64, num_attention_heads=2, rope_parameters={"rope_type": "llama3", "rope_theta": 500_000.0, **scaling}
    )
    theirs, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    ours = rotary_frequencies(32, 500_000.0, {"type": "llama3", **scaling})
    torch.testing.assert_close(ours.float(), theirs, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("heads", "slopes"),
    [
        (1, [2**-8]),
        (2, [2**-4, 2**-8]),
        (8, [2.0**-i for i in range(1, 9)]),
        (12, [2.0**-i for i in range(1, 9)] + [2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5]),
    ],
)
def test_alibi_slopes_are_the_papers(heads, slopes):
    assert alibi_slopes(heads).tolist() == pytest.approx(slopes)


def test_alibi_bias_counts_backwards_from_each_query():
    bias = alibi_bias(torch.tensor([1.0, 0.5]), 2, 4)
    assert bias[0].tolist() == [[-2, -1, 0, -1], [-3, -2, -1, 0]]
    assert torch.equal(bias[1], bias[0] / 2)


def test_embeddings_add_token_and_position():
    ids = torch.tensor([[3, 1, 3]])
    for option in ("gpt2", "sinusoidal", "rotary", "no positions"):
        layer = Embeddings(small_config(option))
        out = layer(ids, torch.arange(3))
        same = torch.equal(out[0, 0], out[0, 2])
        assert same == (option in ("rotary", "no positions"))  # those put no position into the vector
    layer = Embeddings(small_config("sinusoidal"))
    expected = layer.token(ids) * math.sqrt(24) + sinusoidal_positions(3, 24)
    torch.testing.assert_close(layer(ids, torch.arange(3)), expected)


def test_token_types_are_added_and_normalised():
    layer = Embeddings(ModelConfig(d_model=24, n_token_types=2))
    ids = torch.tensor([[3, 1]])
    default, second = layer(ids, torch.arange(2)), layer(ids, torch.arange(2), torch.tensor([[0, 1]]))
    assert torch.equal(default[0, 0], second[0, 0])
    assert not torch.allclose(default[0, 1], second[0, 1])
    torch.testing.assert_close(default.mean(-1), torch.zeros(1, 2), atol=1e-6, rtol=0)


def turned_alone(x, positions, theta=10_000.0):
    """Each vector by itself, a pair as a complex number times e^(i angle)."""
    half = x.size(-1) // 2
    angles = positions[..., None].double() * theta ** (-torch.arange(half, dtype=torch.float64) / half)
    turned = torch.complex(x[..., :half].double(), x[..., half:].double()) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat((turned.real, turned.imag), dim=-1).float()


def test_rows_with_positions_of_their_own_with_and_without_heads():
    x = torch.randn(2, 5, 8)
    positions = torch.stack((torch.arange(5), torch.arange(3, 8)))
    torch.testing.assert_close(apply_rotary(x, positions), turned_alone(x, positions))
    heads = x[:, None].expand(2, 3, 5, 8)
    torch.testing.assert_close(apply_rotary(heads, positions), turned_alone(heads, positions[:, None]))
    torch.testing.assert_close(apply_rotary(x, positions[:1]), turned_alone(x, positions[0]))
    torch.testing.assert_close(apply_rotary(x, range(5)), turned_alone(x, torch.arange(5)))


@pytest.mark.parametrize("positions", [torch.arange(4), torch.zeros(3, 5), torch.zeros(2, 1, 5), torch.tensor(1)])
def test_positions_that_do_not_belong_to_the_vectors(positions):
    with pytest.raises(ValueError, match="positions have shape"):
        apply_rotary(torch.randn(2, 5, 8), positions)


def test_odd_widths_have_no_pairs():
    with pytest.raises(ValueError, match="d_head=7.*even"):
        apply_rotary(torch.randn(5, 7), torch.arange(5))


# tables: as exact as the weights' type can hold


def exact_rotation(positions, d_head, theta=10_000.0):
    """Cosines by Python's own floats."""
    return [[math.cos(p * theta ** (-2 * i / d_head)) for i in range(d_head // 2)] for p in positions]


def test_rotations_are_exact_far_from_the_start():
    positions = torch.tensor([0, 1, 777, 4095, 100_000])
    frequencies = rotary_frequencies(16, 10_000.0)
    for dtype in (torch.float32, torch.float64):
        expected = torch.tensor(exact_rotation(positions.tolist(), 16), dtype=torch.float64)
        cos, sin = rotation(positions, frequencies, dtype)
        assert cos.dtype == sin.dtype == dtype
        torch.testing.assert_close(cos.double(), expected, rtol=0, atol=6e-8 if dtype == torch.float32 else 1e-10)
        torch.testing.assert_close(cos.double() ** 2 + sin.double() ** 2, torch.ones(5, 8, dtype=torch.float64), rtol=0, atol=2e-7)


@pytest.mark.parametrize(
    ("dtype", "table"), [(torch.float32, torch.float32), (torch.float64, torch.float64), (torch.bfloat16, torch.float32)]
)
def test_a_models_tables_follow_its_type(dtype, table):
    rotary = TinyTransformerLM(small_config("rotary", max_seq_len=2000), seed=0).to(dtype)
    assert rotary.cosines.dtype == rotary.sines.dtype == table
    expected = torch.tensor(exact_rotation(range(2000), 6), dtype=torch.float64)
    torch.testing.assert_close(rotary.cosines, expected.to(table), rtol=0, atol=6e-8 if table == torch.float32 else 1e-12)
    sinusoidal = TinyTransformerLM(small_config("sinusoidal"), seed=0).to(dtype)
    assert torch.equal(sinusoidal.embeddings.sinusoids, sinusoidal_positions(12, 24, torch.float64).to(dtype))
    alibi = TinyTransformerLM(small_config("alibi", n_heads=3), seed=0).to(dtype)
    assert torch.equal(alibi.slopes, torch.tensor([2**-4, 2**-8, 2**-2], dtype=table))
    back = rotary.float()
    assert torch.equal(back.cosines, expected.float())
    assert not {"cosines", "sines"} & set(back.state_dict())


def test_odd_numbers_of_heads_have_exact_slopes():
    assert alibi_slopes(6, torch.float64).tolist() == [2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8, 2.0**-1, 2.0**-3]
    assert alibi_slopes(32, torch.float64).tolist() == [2.0 ** (-i / 4) for i in range(1, 33)]


@torch.no_grad()
def test_rotary_reads_beyond_the_context_by_the_same_angles():
    """Rotary positions have no end: past max_seq_len the table is not enough, and the angles are the same."""
    short, long = (TinyTransformerLM(small_config("rotary", max_seq_len=n), seed=0).double().eval() for n in (5, 40))
    long.load_weights(short.weights())
    ids = torch.randint(17, (2, 30), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(short(ids), long(ids), rtol=0, atol=1e-12)
    with reference_path():
        torch.testing.assert_close(short(ids), long(ids), rtol=0, atol=1e-12)
