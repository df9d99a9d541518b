"""Recipes: settings only, valid, and where the guide expects them."""

import subprocess
import sys
from dataclasses import FrozenInstanceError, asdict, fields, replace

import pytest

from tiny_transformer.config import ConfigError, ModelConfig, TrainConfig
from tiny_transformer.recipes import PROMPTS, RECIPES, Longer, Recipe, recipe


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_complete(name):
    made = RECIPES[name]
    assert made.name == name and made.summary and made.out.startswith("checkpoints/")
    assert (made.data.corpus is None) != (made.data.data is None)
    assert made.data.corpus in PROMPTS
    assert made.fallback_corpus is None or made.fallback_corpus in PROMPTS


@pytest.mark.parametrize("name", RECIPES)
def test_steps_are_used_up_by_evaluations_and_saves(name):
    training = RECIPES[name].training
    if training.minutes is not None:  # by the clock: an evaluation or a save on the way takes time from the steps
        assert training.minutes > 0 and min(training.eval_every, training.save_every) > 10_000 * training.minutes
        return
    assert training.eval_every <= training.max_steps and training.save_every <= training.max_steps
    assert training.warmup_steps < training.max_steps


@pytest.mark.parametrize(("minutes", "width"), [(0.5, 128), (2.5, 128), (7.9, 128), (8, 192), (10, 192), (60, 192)])
def test_the_speedrun_has_sizes_for_its_time(minutes, width):
    base, made = RECIPES["speedrun"], RECIPES["speedrun"].lasting(minutes)
    assert made.training.minutes == minutes and made.model.d_model == width
    sizes = {"d_model", "n_layers", "n_heads"} if width != base.model.d_model else set()
    assert {name for name, value in asdict(made.model).items() if value != getattr(base.model, name)} <= sizes
    longer = {} if width == base.model.d_model else {"batch_size": 16, "counted_share": 0.3}
    assert made.training == replace(base.training, minutes=minutes, **longer)


def test_of_several_longer_ones_the_last_that_is_reached():
    sizes = [Longer(minutes=m, d_model=8 * m, n_layers=m, n_heads=m, batch_size=m) for m in (4, 8, 16)]
    made = replace(RECIPES["speedrun"], longer=tuple(sizes))
    assert [made.lasting(m).model.d_model for m in (4, 7, 8, 15, 16, 99)] == [32, 32, 64, 64, 128, 128]


@pytest.mark.parametrize("name", RECIPES)
def test_longer_sizes_are_in_rising_order_and_for_recipes_by_the_clock(name):
    made = RECIPES[name]
    assert [one.minutes for one in made.longer] == sorted({one.minutes for one in made.longer})
    assert not made.longer or made.training.minutes < made.longer[0].minutes


def test_the_guides_places():
    assert RECIPES["shakespeare"].out == "checkpoints/shakespeare"
    assert RECIPES["shakespeare"].log_too == "experiments/shakespeare/logs.txt"
    assert RECIPES["shakespeare"].training.max_steps == 10_000
    assert RECIPES["quick"].out == "checkpoints/demo" and RECIPES["quick"].also_save == "demo_model.pt"
    assert RECIPES["quick"].training.max_steps == 2000


def test_the_labs_model():
    lab = RECIPES["lab"]
    model = lab.model
    assert (model.n_layers, model.n_heads, model.d_model, model.max_seq_len) == (6, 6, 384, 256)
    assert lab.training.batch_size * model.max_seq_len == 16_384
    assert model.dropout == 0.2 and lab.training.max_steps == 5000
    assert abs(model.n_parameters - model.d_model * model.max_seq_len - 10.65e6) < 0.01e6


def test_nanogpts_laptop_setting():
    laptop = RECIPES["laptop"]
    model, training = laptop.model, laptop.training
    assert (model.n_layers, model.d_model, model.max_seq_len, training.batch_size, training.max_steps) == (4, 128, 64, 12, 2000)


def test_a_recipe_is_frozen_and_can_be_changed_by_making_a_new_one():
    with pytest.raises(FrozenInstanceError):
        RECIPES["demo"].name = "other"
    changed = replace(RECIPES["demo"], training=replace(RECIPES["demo"].training, max_steps=3))
    assert changed.training.max_steps == 3 and RECIPES["demo"].training.max_steps != 3


def test_only_an_offline_text_stands_in():
    for made in RECIPES.values():
        assert made.fallback_corpus in (None, "pitches")
    assert RECIPES["demo"].fallback_corpus == "pitches"


def test_an_unknown_recipe_lists_the_known_ones():
    with pytest.raises(ConfigError) as caught:
        recipe("shakespear")
    assert all(name in str(caught.value) for name in RECIPES)


def test_every_field_says_what_it_is():
    assert {f.name for f in fields(Recipe)} >= {"name", "summary", "data", "model", "training", "out", "prompt"}
    assert all(isinstance(r.model, ModelConfig) and isinstance(r.training, TrainConfig) for r in RECIPES.values())


def test_recipes_need_no_engine():
    code = "import sys, tiny_transformer.recipes; sys.exit(bool({'torch', 'numpy', 'tyro', 'rich'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
