"""The objective and its loss: equal to PyTorch's in values and gradients, on both paths."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny_transformer.training.dataset import IGNORE
from tiny_transformer.training.objectives import causal, count_targets, cross_entropy
from tiny_transformer.utils.reference import reference_path


@pytest.fixture(params=["readable", "fused"])
def path(request):
    """Both implementations."""
    if request.param == "readable":
        with reference_path():
            yield
    else:
        yield


def example(shape=(3, 5), vocab=11, ignored=0.3, seed=0, scale=1.0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    logits = (scale * torch.randn(*shape, vocab, generator=generator)).to(dtype).requires_grad_()
    targets = torch.randint(vocab, shape, generator=generator)
    targets[torch.rand(shape, generator=generator) < ignored] = IGNORE
    return logits, targets


def value_and_gradient(function, logits):
    copy = logits.detach().clone().requires_grad_()
    value = function(copy)
    value.backward()
    return value.detach(), copy.grad


# ---------------------------------------------------------------- cross_entropy


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 4), (1, 1)])
@pytest.mark.parametrize("ignored", [0.0, 0.4])
def test_equals_pytorch_in_value_and_gradient(path, reduction, shape, ignored):
    logits, targets = example(shape, ignored=ignored, seed=sum(shape), dtype=torch.float64)
    ours = value_and_gradient(lambda x: cross_entropy(x, targets, reduction), logits)
    theirs = value_and_gradient(
        lambda x: F.cross_entropy(x.reshape(-1, 11), targets.reshape(-1), ignore_index=IGNORE, reduction=reduction), logits
    )
    if not (targets != IGNORE).any() and reduction == "mean":
        theirs = torch.zeros((), dtype=torch.float64), torch.zeros_like(logits)  # theirs is nan
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-12, atol=1e-12)


def test_equals_the_formula_written_out(path):
    logits, targets = example()
    total, asked = 0.0, 0
    for row, target in zip(logits.detach().double().reshape(-1, 11), targets.reshape(-1).tolist(), strict=True):
        if target != IGNORE:
            total += math.log(sum(math.exp(x) for x in row.tolist())) - row[target].item()
            asked += 1
    assert cross_entropy(logits, targets).item() == pytest.approx(total / asked, rel=1e-6)
    assert cross_entropy(logits, targets, "sum").item() == pytest.approx(total, rel=1e-6)
    assert asked == count_targets(targets) == count_targets(targets.numpy())


def test_knowing_nothing_costs_ln_v(path):
    assert cross_entropy(torch.zeros(2, 3, 65), torch.zeros(2, 3, dtype=torch.long)).item() == pytest.approx(math.log(65))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_nothing_asked_is_zero_with_zero_gradient(path, reduction):
    logits, _ = example()
    value, gradient = value_and_gradient(lambda x: cross_entropy(x, torch.full((3, 5), IGNORE), reduction), logits)
    assert value.item() == 0
    assert torch.equal(gradient, torch.zeros_like(logits))


def test_ignored_places_have_no_gradient_and_no_influence(path):
    logits, targets = example(ignored=0.5)
    value, gradient = value_and_gradient(lambda x: cross_entropy(x, targets), logits)
    assert (gradient[targets == IGNORE] == 0).all()
    assert (gradient[targets != IGNORE].abs().sum(-1) > 0).all()
    changed = logits.detach().clone()
    changed[targets == IGNORE] = 1e4
    assert cross_entropy(changed, targets).item() == pytest.approx(value.item())


def test_parts_of_different_sizes_add_up_to_the_whole(path):
    """Sums, divided once by all targets: the mean of means is another number."""
    logits, targets = example((6, 9), ignored=0.5, dtype=torch.float64)
    whole = cross_entropy(logits, targets).item()
    parts = [slice(0, 1), slice(1, 6)]
    sums = [cross_entropy(logits[part], targets[part], "sum").item() for part in parts]
    means = [cross_entropy(logits[part], targets[part]).item() for part in parts]
    assert sum(sums) / count_targets(targets) == pytest.approx(whole, rel=1e-12)
    assert sum(means) / 2 != pytest.approx(whole, rel=1e-3)


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_huge_logits_are_safe(path, size):
    logits = torch.zeros(1, 3)
    logits[0, 0] = size
    for target in range(3):
        value, gradient = value_and_gradient(lambda x, t=target: cross_entropy(x, torch.tensor([t])), logits)
        expected = F.cross_entropy(logits.double(), torch.tensor([target])).item()
        assert value.item() == pytest.approx(expected, rel=1e-6, abs=1e-6)
        assert gradient.isfinite().all()


def test_all_logits_shifted_by_ten_thousand_change_nothing(path):
    logits = torch.arange(12.0).view(3, 4)
    targets = torch.tensor([0, 3, 1])
    for shift in (1e4, -1e4):
        assert cross_entropy(logits + shift, targets).item() == pytest.approx(cross_entropy(logits, targets).item(), abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_summed_in_float32(path, dtype):
    logits, targets = example((64, 32), vocab=300, ignored=0.1, dtype=dtype)
    value, gradient = value_and_gradient(lambda x: cross_entropy(x, targets), logits)
    expected, exact = value_and_gradient(lambda x: cross_entropy(x, targets), logits.detach().double())
    assert value.dtype == torch.float32
    assert gradient.dtype == dtype
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(gradient.double(), exact, rtol=2**-7, atol=1e-7)


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 6), st.integers(2, 20), st.floats(0, 1), st.integers(0, 2**31), st.floats(0.01, 100))
def test_the_two_paths_agree(batch, seq, vocab, ignored, seed, scale):
    logits, targets = example((batch, seq), vocab, ignored, seed, scale, torch.float64)
    fused = value_and_gradient(lambda x: cross_entropy(x, targets), logits)
    with reference_path():
        readable = value_and_gradient(lambda x: cross_entropy(x, targets), logits)
    torch.testing.assert_close(readable[0], fused[0])
    torch.testing.assert_close(readable[1], fused[1])


@pytest.mark.parametrize("shape", [(3, 4), (5, 3), (15,), (3, 5, 1), (3, 5, 11), ()])
def test_shapes_that_do_not_belong_together_are_refused(path, shape):
    logits, _ = example()
    with pytest.raises(ValueError, match=r"logits have shape \(3, 5, 11\).*must have.*\(3, 5\)"):
        cross_entropy(logits, torch.zeros(shape, dtype=torch.long))


def test_one_prediction_alone(path):
    logits = torch.tensor([1.0, 2.0, 3.0])
    assert cross_entropy(logits, torch.tensor(2)).item() == pytest.approx(-torch.log_softmax(logits, 0)[2].item())


@pytest.mark.parametrize("target", [11, -1])
def test_a_target_outside_the_vocabulary_is_an_error(path, target):
    logits, targets = example(ignored=0)
    targets[0, 0] = target
    with pytest.raises(ValueError, match=f"a target is {target}: .*0 to 10"):
        cross_entropy(logits, targets)


# ---------------------------------------------------------------- causal


@given(st.integers(1, 5), st.integers(1, 12), st.integers(0, 2**31))
def test_causal_asks_for_the_next_token(batch, seq, seed):
    ids = np.random.default_rng(seed).integers(0, 50_000, (batch, seq + 1)).astype(np.uint16)
    inputs, targets = causal(ids)
    assert inputs.shape == targets.shape == (batch, seq)
    assert inputs.dtype == targets.dtype == np.int64
    for row in range(batch):
        for t in range(seq):
            assert inputs[row, t] == ids[row, t]
            assert targets[row, t] == ids[row, t + 1]


@pytest.mark.parametrize("shape", [(5,), (2, 1), (2, 3, 4)])
def test_causal_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match=r"must be \(batch, seq \+ 1\)"):
        causal(np.zeros(shape, np.int64))


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8])
def test_targets_of_any_whole_number_type(path, dtype):
    logits, targets = example(ignored=0)
    assert torch.equal(cross_entropy(logits, targets.to(dtype)), cross_entropy(logits, targets))
    assert torch.equal(cross_entropy(logits, targets.numpy()), cross_entropy(logits, targets))


def test_an_unknown_reduction_is_refused():
    logits, targets = example()
    with pytest.raises(ValueError, match="reduction='none'.*mean, sum"):
        cross_entropy(logits, targets, reduction="none")
