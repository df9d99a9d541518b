"""The learning rate over time, held against straight formulas and PyTorch's own scheduler."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tiny_transformer.training.scheduler import lr_at

SCHEDULES = ("cosine", "wsd", "constant")


def rates(max_steps, **settings):
    return [lr_at(step, max_steps=max_steps, **settings) for step in range(max_steps)]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warmup_is_a_straight_line_that_never_starts_at_zero(schedule):
    values = rates(100, warmup_steps=10, learning_rate=3e-3, schedule=schedule)
    assert values[:10] == pytest.approx([3e-3 * (step + 1) / 10 for step in range(10)])
    assert values[9] == values[10] == pytest.approx(3e-3)


def test_cosine_equals_torch():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.5)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=39, eta_min=0.05)
    for step in range(40):
        assert lr_at(step, max_steps=40, learning_rate=0.5, min_lr_ratio=0.1) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        theirs.step()


def test_cosine_half_way_is_half_way():
    assert lr_at(60, max_steps=101, warmup_steps=20, min_lr_ratio=0.2) == pytest.approx(0.6)
    quarter = lr_at(40, max_steps=101, warmup_steps=20, min_lr_ratio=0.0)
    assert quarter == pytest.approx((1 + math.cos(math.pi / 4)) / 2)


def test_wsd_is_stable_then_a_straight_line_to_the_minimum():
    values = rates(100, warmup_steps=5, schedule="wsd", decay_share=0.2, min_lr_ratio=0.1)
    assert values[5:80] == [1.0] * 75
    steps = [before - after for before, after in pairwise(values[79:])]
    assert len(steps) == 20
    assert steps == pytest.approx([0.9 / 20] * 20)
    assert values[-1] == pytest.approx(0.1)


def test_wsd_whose_decay_meets_the_warmup():
    values = rates(10, warmup_steps=6, schedule="wsd", decay_share=1.0, min_lr_ratio=0.0)
    assert values == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1, 1, 2 / 3, 1 / 3, 0])


def test_wsd_without_decay_and_constant_stay_at_the_peak():
    assert rates(20, schedule="wsd", decay_share=0.0) == [1.0] * 20
    assert rates(20, schedule="constant", min_lr_ratio=0.0) == [1.0] * 20
    assert lr_at(10**6, max_steps=20, schedule="constant") == 1.0


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_corner_cases(schedule):
    # a run shorter than its warm-up only rises
    assert rates(3, warmup_steps=10, schedule=schedule) == pytest.approx([0.1, 0.2, 0.3])
    # one step, or a single step left for the decay: at the peak
    assert rates(1, schedule=schedule) == [1.0]
    assert rates(3, warmup_steps=2, schedule=schedule) == pytest.approx([0.5, 1.0, 1.0])
    assert rates(2, warmup_steps=2, schedule=schedule) == pytest.approx([0.5, 1.0])
    # no steps at all, and steps beyond the end: the minimum, whatever the warm-up
    end = 1.0 if schedule == "constant" else 0.25
    for step, max_steps, warmup in ((0, 0, 0), (0, 0, 10), (5, 3, 10), (100, 100, 10), (10**9, 100, 0)):
        assert lr_at(step, max_steps=max_steps, warmup_steps=warmup, schedule=schedule, min_lr_ratio=0.25) == pytest.approx(end)


@given(
    max_steps=st.integers(0, 300),
    warmup=st.integers(0, 350),
    ratio=st.floats(0, 1),
    share=st.floats(0, 1),
    schedule=st.sampled_from(SCHEDULES),
)
def test_shape_of_every_schedule(max_steps, warmup, ratio, share, schedule):
    settings = {"warmup_steps": warmup, "min_lr_ratio": ratio, "decay_share": share, "schedule": schedule}
    values = rates(max_steps, learning_rate=2.0, **settings)
    rise = min(warmup, max_steps)
    assert all(before < after for before, after in pairwise(values[:rise]))
    fall = values[rise:]
    assert all(before >= after for before, after in pairwise(fall))
    assert all(2.0 * ratio * (1 - 1e-12) <= value <= 2.0 * (1 + 1e-12) for value in fall)
    assert all(0 < value <= 2.0 * (1 + 1e-12) for value in values[:rise])
    if fall:
        assert fall[0] == pytest.approx(2.0)
        decays = schedule == "cosine" or (schedule == "wsd" and round(share * max_steps) > 0)
        if decays and len(fall) > 1:
            assert fall[-1] == pytest.approx(2.0 * ratio)
    # scales with the peak, and is a pure function of the step
    assert [0.5 * value for value in values] == pytest.approx(rates(max_steps, **settings))


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match=r"schedule='linear': it must be one of cosine, wsd, constant"):
        lr_at(5, max_steps=10, schedule="linear")
    with pytest.raises(ValueError, match="step=-1"):
        lr_at(-1, max_steps=10)


def test_unknown_schedule_is_refused_in_the_warmup_too():
    with pytest.raises(ValueError, match="one of cosine"):
        lr_at(0, max_steps=10, warmup_steps=5, schedule="linear")
