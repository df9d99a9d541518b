"""The law: each of its parts against what it must do, the fit against laws that are known, the file against another reader."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiny_transformer.config import ConfigError
from tiny_transformer.training import loss_law
from tiny_transformer.training.loss_law import NAMES, Constants, Law, Point, effective_tokens, fit, law_for, loss_at, read

POINT = Point(parameters=1e6, tokens=1e6, context=128, batch=2000, unique=1e7)
TRUTH = Constants(
    floor=1.25, size_loss=0.1, size_power=0.4, data_loss=0.5, data_power=0.5, context_loss=5, large_batch=6000, repeats=12
)

positive = st.floats(1e4, 1e9)


def grid():
    points = [
        Point(parameters=n, tokens=d, context=128, batch=2048, unique=1e6) for n in (1e5, 4e5, 1.6e6, 6.4e6) for d in (3e5, 1e6, 4e6, 2e7)
    ]
    points += [replace(POINT, context=context) for context in (32, 64, 256)] + [replace(POINT, batch=batch) for batch in (500, 8000, 32000)]
    return points + [replace(POINT, unique=1e5, tokens=d) for d in (1e6, 4e6)]


# --- the law ----------------------------------------------------------------------------------------------------------


def test_the_law_is_the_sum_in_its_docstring():
    c = TRUTH
    repeats = 4e6 / 1e6 - 1
    worth = 1e6 * (1 + 12 * (1 - math.exp(-repeats / 12))) / (1 + 2048 / 6000)
    by_hand = 1.25 + 0.1 * 0.25**-0.4 + 0.5 * (worth / 1e6) ** -0.5 + 5 / 64
    point = Point(parameters=2.5e5, tokens=4e6, context=64, batch=2048, unique=1e6)
    assert loss_at(point, c) == pytest.approx(by_hand, rel=1e-12)


def test_repeats_follow_muennighoff():
    c = replace(TRUTH, large_batch=1e18)
    assert effective_tokens(replace(POINT, tokens=5e6, unique=1e7), c) == pytest.approx(5e6)  # less than the text: all of it is new
    assert effective_tokens(replace(POINT, tokens=1e7, unique=1e7), c) == pytest.approx(1e7)
    twice = effective_tokens(replace(POINT, tokens=2e7, unique=1e7), c)
    assert twice == pytest.approx(1e7 + 1e7 * 12 * (1 - math.exp(-1 / 12)))
    assert 1.9e7 < twice < 2e7  # the first repeat is nearly as good as new text
    assert effective_tokens(replace(POINT, tokens=1e12, unique=1e7), c) == pytest.approx(1e7 * 13)  # and there is an end


@given(n=positive, d=positive, unique=positive, batch=st.floats(1, 1e6), context=st.floats(1, 4096), more=st.floats(1.01, 100))
def test_more_never_hurts_but_a_larger_batch(n, d, unique, batch, context, more):
    point = Point(parameters=n, tokens=d, unique=unique, batch=batch, context=context)
    loss = loss_at(point, TRUTH)
    for name in ("parameters", "tokens", "unique", "context"):
        assert loss_at(replace(point, **{name: more * getattr(point, name)}), TRUTH) <= loss * (1 + 1e-12)
    assert loss_at(replace(point, batch=more * batch), TRUTH) > loss
    assert loss > TRUTH.floor


# --- the fit ----------------------------------------------------------------------------------------------------------


def test_a_law_is_found_again_from_runs_without_noise():
    points = grid()
    law = fit(points, [loss_at(point, TRUTH) for point in points], yardstick=1.8)
    assert law.scatter < 0.002
    for goal in (replace(POINT, parameters=3e6, tokens=4e7), replace(POINT, parameters=2e5, tokens=5e5, batch=4000)):
        loss, low, high = law.expect(goal)
        assert loss == pytest.approx(loss_at(goal, TRUTH), rel=0.01)
        assert low < loss < high
    for name in ("data_loss", "data_power", "size_loss", "large_batch"):
        assert getattr(law.constants, name) == pytest.approx(getattr(TRUTH, name), rel=0.25), name


def test_the_interval_holds_what_comes_nine_times_out_of_ten():
    points, inside, goal = grid(), 0, replace(POINT, parameters=2e6, tokens=1e7)
    generator = np.random.default_rng(3)
    draws, loss_law.DRAWS = loss_law.DRAWS, 15
    try:
        for seed in range(12):
            truth = Constants(**{name: getattr(TRUTH, name) * math.exp(0.1 * generator.normal()) for name in NAMES})
            losses = [loss_at(point, truth) * math.exp(0.01 * generator.normal()) for point in points]
            _, low, high = fit(points, losses, 1.8, seed=seed).expect(goal)
            inside += low <= loss_at(goal, truth) * math.exp(0.01 * generator.normal()) <= high
    finally:
        loss_law.DRAWS = draws
    assert inside >= 9


def test_one_run_that_went_wrong_does_not_bend_the_law():
    points = grid()
    losses = [loss_at(point, TRUTH) for point in points]
    losses[5] *= 2
    law = fit(points, losses, yardstick=1.8)
    off = [abs(law.expect(point)[0] / loss_at(point, TRUTH) - 1) for point in points]
    assert max(off) < 0.05
    assert law.scatter > 0.1  # and it is said that it does not fit


def test_what_the_runs_do_not_show_stays_where_it_began_and_is_unsure():
    # one context, one batch, no repeats
    points = [replace(POINT, parameters=n, tokens=d) for n in (1e5, 1e6, 1e7) for d in (1e6, 3e6, 1e7)]
    law = fit(points, [loss_at(point, TRUTH) for point in points], yardstick=1.8)
    uncertainty = law.uncertainty()
    assert law.constants.repeats == pytest.approx(Constants().repeats, rel=0.05)
    assert uncertainty["repeats"] > 0.35
    assert uncertainty["data_power"] < 0.3
    seen = fit(grid(), [loss_at(point, TRUTH) for point in grid()], yardstick=1.8)
    assert seen.uncertainty()["context_loss"] < uncertainty["context_loss"] / 2


def test_fewer_than_four_runs_are_refused():
    with pytest.raises(ConfigError, match="3 runs: a law needs 4 or more. Measure more: tiny law measure"):
        fit(grid()[:3], [2.0, 1.9, 1.8], 1.8)


# --- what is expected -------------------------------------------------------------------------------------------------


def some_law(**changes):
    values = {"covariance": np.zeros((8, 8)), "scatter": 0.02, "runs": 9, "largest": 4e6, "yardstick": 1.8} | changes
    return Law(TRUTH, **values)


def test_the_interval_comes_from_scatter_spread_and_covariance():
    point, law = POINT, some_law()
    loss, low, high = law.expect(point)
    assert loss == loss_at(point, TRUTH)
    assert (low, high) == pytest.approx((loss * math.exp(-1.645 * 0.02), loss * math.exp(1.645 * 0.02)))
    wide = law.expect(point, spread=0.1)
    assert wide[2] == pytest.approx(loss * math.exp(1.645 * math.hypot(0.02, 0.1)))
    covariance = np.zeros((8, 8))
    covariance[0, 0] = 0.1**2  # the floor by 10 %: of the loss that is 10 % × floor / loss
    unsure = some_law(covariance=covariance).expect(point)
    assert unsure[2] == pytest.approx(loss * math.exp(1.645 * math.hypot(0.02, 0.1 * TRUTH.floor / loss)), rel=1e-6)


def test_another_text_is_scaled_by_what_counting_reaches_on_it():
    law = some_law()
    assert law.expect(POINT, yardstick=0.9)[0] == pytest.approx(0.5 * law.expect(POINT)[0])
    assert law.expect(POINT, yardstick=1.8) == law.expect(POINT)


# --- the file ---------------------------------------------------------------------------------------------------------


def test_a_law_survives_its_file(tmp_path):
    points = grid()
    law = fit(points, [loss_at(point, TRUTH) for point in points], yardstick=1.8)
    path = tmp_path / "law.json"
    path.write_text(json.dumps({"laws": {"mine": law.to_dict() | {"fitted": "today"}}, "runs": []}))
    again, name = law_for("mine", "quick", path)
    assert name == "mine"
    assert again.expect(POINT) == pytest.approx(law.expect(POINT), rel=2e-3)
    assert law_for("another", "mine", path)[1] == "mine"
    assert law_for(None, "nobody's", path)[1] == "mine"


def test_what_is_no_law_file_is_said_in_one_line(tmp_path):
    with pytest.raises(ConfigError, match="there is no law file .*: runs must have been measured. Try: tiny law measure"):
        read(tmp_path / "none.json")
    for content in ("{", "[]", "3", '{"laws": []}', '{"laws": {}, "runs": {}}'):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(ConfigError, match="is no law file"):
            read(tmp_path / "bad.json")
    (tmp_path / "empty.json").write_text('{"laws": {}, "runs": []}')
    with pytest.raises(ConfigError, match="holds no fitted law"):
        law_for("quick", "quick", tmp_path / "empty.json")


def test_the_packages_law_is_the_fit_of_the_packages_runs():
    from tiny_transformer.cli.law_runs import fit_all

    content = read()
    laws = {name: Law.from_dict(values) for name, values in content["laws"].items()}
    fitted = fit_all(json.loads(json.dumps(content)))
    assert set(laws) == set(fitted)
    for name, law in laws.items():
        assert law.scatter < 0.04, "the law does not fit its runs"
        assert law.expect(POINT) == pytest.approx(fitted[name].expect(POINT), rel=5e-3)
        assert law.runs == sum((run["recipe"], run["corpus"]) == (name, "shakespeare") and run["steps"] >= 100 for run in content["runs"])
