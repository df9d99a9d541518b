"""Training that ends by the clock. The clock is a fake one that moves when the engine computes, evaluates or writes."""

import time
from dataclasses import asdict, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiny_transformer.config import ConfigError, ModelConfig, TrainConfig
from tiny_transformer.numpy_engine.model import TinyTransformerLM, init_weights
from tiny_transformer.numpy_engine.trainer import Trainer
from tiny_transformer.run import Run
from tiny_transformer.training.listener import Listener, TrainingError
from tiny_transformer.training.scheduler import lr_at, lr_at_share
from tiny_transformer.training.time_budget import RECENT, TimeBudget

CONFIG = ModelConfig(vocab_size=7, max_seq_len=4, d_model=8, n_layers=1, n_heads=1)
IDS = np.random.default_rng(0).integers(7, size=300)
SETTINGS = TrainConfig(
    minutes=1.0, batch_size=2, warmup_steps=3, schedule="wsd", decay_share=0.4, eval_every=25, eval_tokens=40, save_every=20, log_every=1
)


class Clock:
    """Stands in for time.perf_counter everywhere; `pass_by` moves it."""

    def __init__(self, monkeypatch, now=1000.0):
        self.now = now
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def pass_by(self, seconds):
        self.now += seconds


class Timed(Trainer):
    """A NumPy trainer on a fake clock: `step_seconds(step)` for a step, `eval_seconds` for each of the two texts, `compile_seconds`."""

    clock: Clock
    eval_seconds = 0.0
    compile_seconds = 0.0
    first_step_seconds = 0.0

    def step_seconds(self, step):
        return 0.5

    def _prepare(self):
        self.clock.pass_by(self.compile_seconds)

    def _loss_and_norm(self, micro_batches, asked):
        self.clock.pass_by(self.step_seconds(self.progress.step) + (self.first_step_seconds if self.progress.step == 0 else 0.0))
        return super()._loss_and_norm(micro_batches, asked)

    def evaluate(self, ids, max_tokens=None, stride=None):
        self.clock.pass_by(self.eval_seconds)
        return super().evaluate(ids, max_tokens, stride)


class Record(Listener):
    def __init__(self):
        self.rates, self.evaluations, self.warnings, self.at = [], [], [], []

    def on_step(self, step, loss, lr, grad_norm, tokens_per_second):
        self.rates.append(lr)

    def on_eval(self, step, train_loss, val_loss, is_best):
        self.evaluations.append(step)

    def on_warning(self, text):
        self.warnings.append(text)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def timed(clock, settings=SETTINGS, kind=Timed, run=None, **traits):
    trainer = kind(TinyTransformerLM(CONFIG, init_weights(CONFIG, 0)), None, IDS[:250], IDS[250:], settings, run=run, listener=Record())
    trainer.clock = clock
    for name, value in traits.items():
        setattr(trainer, name, value)
    return trainer


def last_step_at(trainer):
    """Seconds from the start to the end of the last step, by the result."""
    return trainer.fit().trained_seconds


# --- the curve --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["cosine", "wsd", "constant"])
def test_the_curve_over_the_share_is_that_over_the_steps(schedule):
    """A run of even steps by the clock has the rates of a run by steps, whose warm-up is short beside it."""
    settings = {"warmup_steps": 1, "schedule": schedule, "decay_share": 0.25, "min_lr_ratio": 0.1, "learning_rate": 3e-3}
    by_steps = [lr_at(step, max_steps=4001, **settings) for step in range(4001)]
    by_share = [lr_at_share(step, step / 4000, **settings) for step in range(4001)]
    assert by_share == pytest.approx(by_steps, abs=3e-6)


@given(
    shares=st.lists(st.floats(0, 1), min_size=1, max_size=30).map(sorted), warmup=st.integers(0, 40), ratio=st.floats(0, 1),
    decay=st.floats(0, 1), schedule=st.sampled_from(["cosine", "wsd", "constant"]),
)  # fmt: skip
def test_rates_rise_once_and_fall_once(shares, warmup, ratio, decay, schedule):
    settings = {"warmup_steps": warmup, "min_lr_ratio": ratio, "decay_share": decay, "schedule": schedule, "learning_rate": 2.0}
    rates = [lr_at_share(step, share, **settings) for step, share in enumerate(shares)]
    falls = [before > after * (1 + 1e-12) for before, after in pairwise(rates)]
    assert falls == sorted(falls) or all(before >= after for before, after in pairwise(rates[falls.index(True) :]))
    assert all(0 < rate <= 2.0 for rate in rates) or ratio == 0
    falls_at_all = schedule == "cosine" or (schedule == "wsd" and decay > 0)
    assert lr_at_share(10**6, 1.0, **settings) == pytest.approx(2.0 * ratio if falls_at_all else 2.0)


def test_what_the_curve_refuses():
    for step, share in ((-1, 0.5), (0, -0.1), (0, 1.1)):
        with pytest.raises(ValueError, match="a share lies between 0 and 1"):
            lr_at_share(step, share)
    with pytest.raises(ValueError, match="one of cosine"):
        lr_at_share(0, 0.5, schedule="linear")


# --- the budget by itself ---------------------------------------------------------------------------------------------


def test_a_budget_counts_from_the_commands_start(clock):
    budget = TimeBudget(60, started=clock.now - 12)
    assert (budget.used, budget.left) == (12, 48)
    clock.pass_by(8)
    budget.note_step(8)
    assert (budget.used, budget.learned, budget.share()) == (20, 0, 0)  # the first step may have compiled
    clock.pass_by(10)
    assert (budget.learned, budget.share()) == (10, 0.25)


def test_the_next_step_is_as_long_as_the_median_of_the_recent_ones(clock):
    budget = TimeBudget(60)
    assert budget.step_seconds == 0
    for seconds in (40, 1, 1, 30, 1):
        budget.note_step(seconds)
    assert budget.step_seconds == 1
    for _ in range(RECENT // 2 + 1):
        budget.note_step(5)
    assert budget.step_seconds == 5


@given(times=st.lists(st.floats(0, 9), min_size=1, max_size=40), before=st.floats(0, 30))
def test_the_share_never_goes_back_and_ends_at_one(times, before):
    now = [0.0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "perf_counter", lambda: now[0])
        budget, shares = TimeBudget(50, used=before, learned=before / 2), []
        for seconds in times:
            now[0] += seconds
            budget.note_step(seconds)
            shares.append(budget.share())
        assert all(earlier <= later for earlier, later in pairwise(shares))
        assert shares[0] >= 0
        assert shares[-1] <= 1
        now[0] += 50
        assert budget.share() == 1
        assert budget.is_over()


# --- the budget in the training loop ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.05, 0.5, 7.0])
def test_training_ends_within_half_a_step_of_its_minutes(clock, seconds):
    trainer = timed(clock, step_seconds=lambda step: seconds)
    result = trainer.fit()
    assert abs(result.trained_seconds - 60) <= seconds / 2 + 1e-9
    assert result.steps == round(60 / seconds)
    assert result.stopped == "finished"


def test_the_start_of_the_command_counts(clock):
    trainer = timed(clock, compile_seconds=20.0)
    trainer.command_started = clock.now - 10
    result = trainer.fit()
    assert result.trained_seconds == pytest.approx(60, abs=0.25)
    assert result.steps == 60  # 30 s are left for steps of half a second
    assert trainer.listener.rates[3] == SETTINGS.learning_rate  # and none of the schedule is lost to it


def test_steps_of_a_run_by_steps_are_those_of_lr_at(clock):
    trainer = timed(clock, replace(SETTINGS, minutes=None, max_steps=10))
    result = trainer.fit()
    assert trainer.listener.rates == [
        lr_at(step, max_steps=10, learning_rate=1e-3, warmup_steps=3, schedule="wsd", decay_share=0.4) for step in range(10)
    ]
    assert (result.steps, result.trained_seconds, trainer.budget) == (10, None, None)


def test_the_schedule_rises_falls_and_is_done_at_the_end(clock):
    trainer = timed(clock)
    trainer.fit()
    rates = trainer.listener.rates
    assert rates[:3] == pytest.approx([1e-3 / 3, 2e-3 / 3, 1e-3])
    assert all(before >= after for before, after in pairwise(rates[2:]))
    assert rates[-1] == pytest.approx(1e-4, rel=0.1)
    stable = sum(rate == 1e-3 for rate in rates) / len(rates)
    assert stable == pytest.approx(0.6, abs=0.03)


def test_a_machine_that_slows_down_half_way_still_ends_on_time_with_its_decay_done(clock):
    trainer = timed(clock, step_seconds=lambda step: 0.5 if step < 40 else 2.0)
    result = trainer.fit()
    assert abs(result.trained_seconds - 60) <= 1.0
    assert result.steps == 60  # 40 in the first 20 s, 20 in the other 40
    rates = trainer.listener.rates
    assert rates[-1] == pytest.approx(1e-4, rel=0.5)
    assert rates[-1] < 2e-4 < rates[50]
    assert all(before >= after for before, after in pairwise(rates[3:]))


def test_a_slow_first_step_takes_nothing_of_the_schedule(clock):
    trainer = timed(clock, first_step_seconds=30.0)
    result = trainer.fit()
    assert result.trained_seconds == pytest.approx(60, abs=0.25)
    rates = trainer.listener.rates
    assert sum(rate == 1e-3 for rate in rates) / len(rates) == pytest.approx(0.6, abs=0.05)


def test_evaluations_count_as_time_but_not_as_steps(clock):
    trainer = timed(clock, eval_seconds=2.0)
    result = trainer.fit()
    # 4 s at steps 0, 25, 50, 75: 16 s; the one after the last step is not counted
    assert result.trained_seconds == pytest.approx(60, abs=0.25)
    assert result.steps == (60 - 16) * 2
    assert trainer.listener.evaluations == [0, 25, 50, 75, result.steps]
    assert result.seconds == pytest.approx(60 + 4 + 2, abs=0.25)


def test_an_evaluation_that_no_longer_fits_waits_for_the_end(clock):
    trainer = timed(clock, replace(SETTINGS, eval_every=110), eval_seconds=2.5)
    result = trainer.fit()
    assert result.trained_seconds == pytest.approx(60, abs=0.25)
    assert trainer.listener.evaluations == [0, 110]
    # step 105 comes at 5 + 52.5 s: with 5 s of evaluation after it the run would end late
    trainer = timed(clock, replace(SETTINGS, eval_every=105), eval_seconds=2.5)
    assert trainer.fit().trained_seconds == pytest.approx(60, abs=0.25)
    assert trainer.listener.evaluations == [0, 110]


def test_patience_still_ends_a_run(clock):
    result = timed(clock, replace(SETTINGS, patience=1, eval_every=1, learning_rate=10.0, warmup_steps=0)).fit()
    assert result.stopped == "early"
    assert result.trained_seconds < 60


def test_a_run_that_is_resumed_goes_on_with_the_rest(clock, tmp_path):
    class Halted(Timed):
        def _is_over(self):
            return self.progress.step == 30 or super()._is_over()

    settings = replace(SETTINGS, save_every=1000)
    run = Run.create(tmp_path / "run", {})
    first = timed(clock, settings, Halted, run)
    first.command_started = clock.now - 5
    first.fit()
    assert first.progress.used == pytest.approx(20)
    clock.pass_by(10_000)  # the night between two sessions costs nothing
    second = Timed.resume(run, IDS[:250], IDS[250:], listener=Record())
    second.clock, second.command_started = clock, clock.now - 10
    second.compile_seconds = 4.0
    result = second.fit()
    assert result.trained_seconds == pytest.approx(60, abs=0.25)
    assert result.steps == 30 + 26 * 2  # 20 s are gone, 14 go again before the first step
    rates = first.listener.rates + second.listener.rates
    assert all(before >= after for before, after in pairwise(rates[3:]))
    assert rates[-1] == pytest.approx(1e-4, rel=0.1)
    again = Timed.resume(run, IDS[:250], IDS[250:], listener=Record())
    again.clock = clock
    assert again.fit().steps == result.steps  # complete: no step is made
    more = Timed.resume(run, IDS[:250], IDS[250:], replace(settings, minutes=1.5), listener=Record())
    more.clock = clock
    assert more.fit().steps == result.steps + 60
    assert any("minutes 1.5 instead of 1.0" in text for text in more.listener.warnings)


def test_a_budget_that_is_gone_before_the_first_step_is_one_line(clock):
    trainer = timed(clock, replace(SETTINGS, minutes=0.1), compile_seconds=40.0)
    with pytest.raises(TrainingError) as caught:
        trainer.fit()
    message = str(caught.value)
    assert message == (
        "minutes=0.1 is 6.0 s, and 40.0 s had gone before the first step: there must be time to learn. Try minutes=1.4"
    )
    assert trainer.progress.step == 0


def test_a_first_step_longer_than_the_budget_is_made_and_told(clock):
    trainer = timed(clock, replace(SETTINGS, minutes=0.1), first_step_seconds=30.0)
    result = trainer.fit()
    assert (result.steps, result.stopped) == (1, "finished")
    assert trainer.listener.warnings == [
        "minutes=0.1 is 6.0 s, and the first step ended after 30.5 s: no other was made. Give it more minutes, a smaller model, or leave "
        "compile out"
    ]
    assert not timed(clock, replace(SETTINGS, minutes=None, max_steps=1)).fit().trained_seconds


def test_metrics_and_state_record_the_clock(clock, tmp_path):
    run = Run.create(tmp_path / "run", {"training": asdict(SETTINGS)})
    trainer = timed(clock, run=run, eval_seconds=1.0)
    result = trainer.fit()
    lines = run.metrics()
    assert [line["seconds_used"] for line in lines if "loss" in line][:2] == [2.5, 3.0]
    assert lines[-1]["trained_seconds"] == round(result.trained_seconds, 2)
    assert trainer.checkpoint().training["progress"]["used"] == result.trained_seconds
    assert trainer.checkpoint().training["settings"]["minutes"] == 1.0
    saved = Timed.resume(run, IDS[:250], IDS[250:], listener=Record())
    assert (saved.progress.step, saved.progress.used) == (result.steps, result.trained_seconds)
    assert saved.progress.val_loss == result.val_loss  # saved after the last evaluation, not before


def test_minutes_must_be_positive():
    for minutes in (0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ConfigError, match=r"minutes=.*: it must be positive. Try minutes=3"):
            TrainConfig(minutes=minutes)
    assert TrainConfig(minutes=3).minutes == 3
