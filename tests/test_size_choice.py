"""Choosing a size: the count of operations against the model's own matrices, speeds against known machines, the choice by search."""

import math
from dataclasses import replace

import numpy as np
import pytest

from tiny_transformer.config import PRESETS, ConfigError, TrainConfig
from tiny_transformer.recipes import recipe
from tiny_transformer.training.loss_law import Constants, Law, Point, loss_at
from tiny_transformer.training.size_choice import (
    BEYOND,
    BROADEST,
    LEAST_STEPS,
    SLIMMEST,
    Candidate,
    Speed,
    Task,
    afterwards_seconds,
    allowed,
    block_parameters,
    candidates,
    choose,
    judge,
    resized,
    trained,
)

BASE = PRESETS["cpu"]
LAW = Law(Constants(), np.zeros((8, 8)), 0.01, runs=9, largest=4e6, yardstick=1.8)
TASK = Task(180.0, LAW, unique=10**6)


def candidate(d_model=128, n_layers=4, context=128, batch=16):
    return Candidate(resized(BASE, d_model, n_layers, max(1, d_model // 32), context), batch)


def machine(power, overhead=0.0):
    """A machine that makes `power` operations a second and needs `overhead` seconds more for a step."""
    return lambda option: option.flop / power + overhead


def timed(seconds, *options):
    speed = Speed()
    for option in options:
        speed.add(option, seconds(option))
    return speed


# --- counting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cpu", "baby-gpt", "llama3.2-1b", "gpt2", "vaswani"])
def test_parameters_of_the_blocks_are_those_of_the_weights(name):
    import torch

    from tiny_transformer.model import TinyTransformerLM

    config = replace(PRESETS[name], n_layers=3, vocab_size=100, max_seq_len=32)
    with torch.device("meta"):
        weights = TinyTransformerLM(config).weights()
    assert block_parameters(config) == sum(weight.numel() for key, weight in weights.items() if key.startswith("blocks."))


def test_operations_of_a_step_are_those_of_its_products():
    """Counted from the shapes of every product in a forward pass, times three."""
    config, batch = replace(BASE, vocab_size=65), 16
    t, d, ff = config.max_seq_len, config.d_model, config.ff_width
    linear = 2 * t * (4 * d * d + 2 * d * ff) * config.n_layers
    attention = 2 * (2 * t * t * d) / 2 * config.n_layers  # scores and mix, half behind the mask
    forward = linear + attention + 2 * t * d * config.vocab_size
    assert Candidate(config, batch).flop == pytest.approx(3 * batch * forward, rel=0.01)  # norms have a few parameters too


# --- speed ------------------------------------------------------------------------------------------------------------


def test_what_was_timed_comes_back():
    speed = timed(machine(1e11, 0.004), candidate(), candidate(64, 2))
    assert speed.seconds(candidate()) == machine(1e11, 0.004)(candidate())
    assert speed.tokens_per_second(candidate()) == 16 * 128 / speed.seconds(candidate())
    assert speed.knows(candidate(64, 2))
    assert not speed.knows(candidate(64, 3))


@pytest.mark.parametrize("overhead", [0.0, 0.002, 0.02])
def test_a_machine_is_estimated_from_three_sizes(overhead):
    """From compute-bound to mostly idle: within a third, over a range of sixty times the work."""
    truth = machine(1e11, overhead)
    speed = timed(truth, candidate(64, 2, 64, 16), candidate(192, 4), candidate(128, 4))
    for option in (candidate(96, 3), candidate(128, 3, 64, 32), candidate(160, 4), candidate(256, 5), candidate(64, 3, 128, 32)):
        assert speed.seconds(option) == pytest.approx(truth(option), rel=0.35)


def test_a_timing_corrects_its_surroundings():
    speed = timed(machine(1e11), candidate(64, 2), candidate(128, 4))
    before = speed.seconds(candidate(384, 6))
    speed.add(candidate(320, 6), 3 * speed.seconds(candidate(320, 6)))
    assert speed.seconds(candidate(384, 6)) > 1.8 * before
    with pytest.raises(ConfigError, match="no step was timed"):
        Speed().seconds(candidate())


# --- what may be chosen -----------------------------------------------------------------------------------------------


def test_candidates_are_sizes_of_the_same_model():
    options = list(candidates(BASE, 16, frozenset()))
    assert len({(o.model.d_model, o.model.n_layers, o.model.max_seq_len, o.batch_size) for o in options}) == len(options) > 300
    for option in options:
        assert option.model.head_width == 32
        assert SLIMMEST <= option.model.d_model / option.model.n_layers <= BROADEST
        same = replace(option.model, d_model=128, n_layers=4, n_heads=4, max_seq_len=128)
        assert same == BASE


@pytest.mark.parametrize(
    ("fixed", "values"),
    [({"d_model"}, {"d_model": 128}), ({"n_layers", "batch_size"}, {"n_layers": 4}), ({"max_seq_len"}, {"max_seq_len": 128}),
     ({"n_heads"}, {"n_heads": 4}), ({"d_model", "n_layers", "n_heads", "max_seq_len", "batch_size"}, {"d_model": 128})],
)  # fmt: skip
def test_what_is_fixed_stays(fixed, values):
    options = list(candidates(BASE, 16, frozenset(fixed)))
    assert options
    for option in options:
        assert all(getattr(option.model, name) == value for name, value in values.items())
        assert "batch_size" not in fixed or option.batch_size == 16
    assert (len(options) == 1) == (len(fixed) == 5)
    assert "d_model" in fixed or len({option.model.d_model for option in options}) > 1


def test_widths_that_were_set_apart_keep_their_proportion():
    base = replace(BASE, d_ff=200, n_kv_heads=2)
    made = resized(base, 256, 6, 8, 64)
    assert (made.d_ff, made.n_kv_heads, made.n_heads, made.n_layers, made.max_seq_len) == (400, 4, 8, 6, 64)
    assert resized(base, 96, 3, 3, 64).n_kv_heads == 3  # no group of two fits three heads
    assert resized(replace(BASE, d_head=48), 256, 6, 8, 64).head_width == 48


def test_far_larger_than_measured_too_long_or_too_big_is_left_out():
    options = list(candidates(BASE, 16, frozenset()))
    kept = allowed(options, LAW, 10**6, lambda option: True)
    assert max(block_parameters(option.model) for option in kept) <= BEYOND * LAW.largest
    assert max(block_parameters(option.model) for option in options) > BEYOND * LAW.largest
    assert max(option.model.max_seq_len for option in allowed(options, LAW, 200, lambda option: True)) == 128
    assert all(option.batch_size <= 32 for option in allowed(options, LAW, 10**6, lambda option: option.batch_size <= 32))
    huge = list(candidates(replace(BASE, d_model=2048, n_layers=24, n_heads=64), 16, frozenset({"d_model", "n_layers"})))
    assert allowed(huge, LAW, 10**6, lambda option: True) == huge  # asked for is asked for


# --- the choice -------------------------------------------------------------------------------------------------------


def test_the_choice_is_the_best_of_all():
    options = allowed(list(candidates(BASE, 16, frozenset())), LAW, 10**6, lambda option: True)
    speed = timed(machine(1e11, 0.003), candidate(64, 2, 64, 16), candidate(192, 4))
    best = choose(options, speed, TASK)
    for option in options:
        seconds = speed.seconds(option)
        steps = int((180 * 0.975 - 2.5) / seconds)
        if steps < LEAST_STEPS:
            continue
        sizes = {"parameters": block_parameters(option.model), "context": option.model.max_seq_len, "batch": option.step_tokens}
        point = Point(tokens=steps * option.step_tokens, unique=10**6, **sizes)
        assert best.loss <= loss_at(point, Constants()) + 1e-12
    assert best.tokens == best.steps * best.candidate.step_tokens


def test_more_time_and_faster_machines_get_larger_models():
    options = allowed(list(candidates(BASE, 16, frozenset())), LAW, 10**6, lambda option: True)
    sizes = {}
    for power in (2e10, 1e11, 1e13):
        speed = timed(machine(power), candidate(64, 2, 64, 16), candidate(192, 4))
        for seconds in (20, 180, 1800):
            sizes[power, seconds] = choose(options, speed, replace(TASK, seconds=seconds))
    size = {key: block_parameters(choice.candidate.model) for key, choice in sizes.items()}
    for power in (2e10, 1e11, 1e13):
        assert size[power, 20] <= size[power, 180] <= size[power, 1800]
    assert size[2e10, 20] < size[1e11, 180] < size[1e13, 1800]
    assert sizes[1e11, 20].loss > sizes[1e11, 180].loss > sizes[1e11, 1800].loss


def test_no_room_at_all_takes_the_most_steps():
    options = [candidate(), candidate(64, 2, 64, 4)]
    speed = timed(lambda option: 1.0 if option == candidate() else 0.5, *options)
    assert choose(options, speed, replace(TASK, seconds=20)).candidate == options[1]
    with pytest.raises(ConfigError, match="no size is left"):
        choose([], speed, TASK)


def test_compiling_is_chosen_when_it_pays():
    options, speed = [candidate()], timed(machine(1e11), candidate())
    task = replace(TASK, compiled_gain=1.5, compile_seconds=60)
    short, long = (choose(options, speed, replace(task, seconds=seconds), compiling=(False, True)) for seconds in (120, 300))
    assert (short.compiled, long.compiled) == (False, True)
    assert long.tokens_per_second == pytest.approx(1.5 * short.tokens_per_second)
    assert long.steps == int(((300 - 60) * 0.975 - 2.5) * 1.5 / speed.seconds(candidate()))
    assert not choose(options, speed, replace(task, seconds=300)).compiled
    assert choose(options, speed, replace(task, seconds=120), compiling=(True,)).compiled


# --- the settings -----------------------------------------------------------------------------------------------------


def test_settings_follow_the_choice():
    base = recipe("quick").training
    choice = judge(candidate(256, 6, 128, 32), timed(lambda option: 0.05, candidate(256, 6, 128, 32)), TASK)
    made = trained(base, 128, choice, frozenset())
    assert made.learning_rate == base.learning_rate / 2  # twice as wide
    assert (made.batch_size, made.max_steps, made.warmup_steps) == (32, choice.steps, 50)
    assert math.ceil(choice.steps / made.eval_every) == 6
    spent = 6 * 2 * made.eval_tokens / 3 / choice.tokens_per_second
    assert spent <= 0.025 * 180 * 1.01
    assert made.save_every * 0.05 == pytest.approx(120, rel=0.05)
    assert replace(made, **{name: getattr(base, name) for name in
        ("learning_rate", "batch_size", "max_steps", "warmup_steps", "eval_every", "eval_tokens", "save_every")}) == base  # fmt: skip
    short = trained(base, 128, replace(choice, steps=100), frozenset())
    assert short.warmup_steps == 10


def test_settings_that_flags_fix_stay():
    base = TrainConfig(learning_rate=0.5, eval_every=7, batch_size=3, accumulate=3, compile=True)
    choice = judge(candidate(), timed(lambda option: 0.05, candidate()), TASK)
    made = trained(base, 64, choice, frozenset({"learning_rate", "eval_every", "compile"}))
    assert (made.learning_rate, made.eval_every, made.compile) == (0.5, 7, True)
    assert made.batch_size == 16
    assert not trained(base, 64, choice, frozenset()).compile


def test_what_comes_after_is_said():
    choice = judge(candidate(), timed(lambda option: 0.1, candidate()), TASK)
    settings = TrainConfig(eval_tokens=20_000)
    # 2 × 20,000 tokens and the whole 100,000, at three times the speed of training
    assert afterwards_seconds(choice, settings, 100_000) == pytest.approx(1 + 140_000 / (3 * 20_480))
