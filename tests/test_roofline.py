"""Counted beside measured: bounds, rates, and nothing lost when parts are put together."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.options import OPTIONS, small_config
from tiny_transformer.roofline import FORWARD, FUSED_ATTENTION, Ceilings, rows, sum_row, together
from tiny_transformer.step_cost import ATTENTION, PARTS, Work, step_cost, token_cost, total

HERE = Ceilings(flop_per_second=100.0, bytes_per_second=10.0)


def one(work, seconds, part="activation"):
    return rows({(part, "forward"): seconds}, {(part, "forward"): work}, HERE)[0]


def test_worked_by_hand():
    """200 operations at 100/s are 2 s, 50 bytes at 10/s are 5 s: 5 s at least. It took 10."""
    row = one(Work(150, 50, 50), 10.0)
    assert (row.bound, row.share_of_ceiling, row.limited_by) == (5.0, 0.5, "memory")
    assert (row.flop_per_second, row.bytes_per_second, row.share, row.total) == (20.0, 5.0, 1.0, 10.0)


@pytest.mark.parametrize(
    ("work", "seconds", "limit"),
    [
        (Work(1000, 0, 50), 20.0, "compute"),
        (Work(1000, 0, 50), 29.0, "compute"),
        (Work(1000, 0, 50), 31.0, "overhead"),
        (Work(0, 10, 50), 5.0, "memory"),
        (Work(0, 10, 50), 2.0, "memory"),
        (Work(0, 10, 50), 16.0, "overhead"),
        (Work(), 1.0, ""),
    ],
)
def test_what_limits(work, seconds, limit):
    assert one(work, seconds).limited_by == limit


def test_the_phases_have_bounds_of_their_own():
    """2 s of operations forward and 3 s of bytes backward are 5 s, not max(2, 3)."""
    costs = {("norms", "forward"): Work(200, 0, 0), ("norms", "backward"): Work(0, 0, 30)}
    row = rows({("norms", "forward"): 4.0, ("norms", "backward"): 6.0}, costs, HERE)[0]
    assert (row.bound, row.share_of_ceiling) == (5.0, 0.5)
    assert sum_row([row, row]).bound == 10.0


def test_fused_attention_is_the_sum_of_three():
    costs = step_cost(small_config(), 3)
    merged = together(costs, {(FUSED_ATTENTION, "forward"): 1.0})
    for phase in ("forward", "backward"):
        assert merged[FUSED_ATTENTION, phase] == sum((costs[part, phase] for part in ATTENTION), Work())
    assert not {part for part, _ in merged} & set(ATTENTION)
    assert together(costs, {("softmax", "forward"): 1.0}) == costs


def test_a_compiled_model_is_everything_but_loss_and_update():
    costs = step_cost(small_config(), 3)
    merged = together(costs, {(FORWARD, "forward"): 1.0})
    assert {part for part, _ in merged} == {FORWARD, "loss", "clipping", "optimizer"}
    assert merged["loss", "forward"] == costs["loss", "forward"]
    inside = [work for (part, phase), work in costs.items() if phase == "backward" and part != "loss"]
    assert merged[FORWARD, "backward"] == sum(inside, Work())


def test_a_part_without_a_measured_time_is_shown():
    """Counted, but too quick or not run: its row has a bound and no rate."""
    row = next(row for row in rows({("norms", "forward"): 1.0}, token_cost(small_config(), 1, 5), HERE) if row.part == "unembed")
    assert row.bound > 0 == row.total == row.flop_per_second == row.bytes_per_second == row.share_of_ceiling


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(OPTIONS)), st.sampled_from(["fused", "readable", "compiled"]), st.data())
def test_nothing_is_lost(option, way, data):
    """All costs and all times arrive in the rows, in the order of a step, and the shares add up to one."""
    costs = step_cost(small_config(option), 3, fused=way != "readable")
    seconds = st.floats(1e-6, 10.0)
    if way == "compiled":
        keys = [(FORWARD, "forward"), (FORWARD, "backward"), ("loss", "forward"), ("clipping", "update"), ("optimizer", "update")]
    else:
        keys = list(costs)
        if way == "fused":
            keys = [key for key in keys if key[0] not in ATTENTION] + [(FUSED_ATTENTION, "forward"), (FUSED_ATTENTION, "backward")]
    times = {key: data.draw(seconds) for key in [*keys, ("other", "forward"), ("batch", "forward"), ("new", "forward")]}
    made = rows(times, costs, HERE)
    assert sum_row(made).work == total(costs)
    assert sum_row(made).total == pytest.approx(sum(times.values()))
    assert sum(row.share for row in made) == pytest.approx(1)
    assert len({row.part for row in made}) == len(made)
    order = [part for part in [FORWARD, *PARTS, "batch", "other", "new"] if part in {row.part for row in made}]
    assert [row.part for row in made if row.part != FUSED_ATTENTION] == order
    assert all(row.bound > 0 for row in made if row.part in PARTS)
