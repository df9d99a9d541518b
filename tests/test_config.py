"""Settings: presets are what they claim, and an impossible setting says got / must / remedy."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from tests.options import OPTIONS, small_config
from tiny_transformer.config import PRESETS, SAMPLING_PRESETS, ConfigError, DataConfig, ModelConfig, SampleConfig, TrainConfig, preset
from tiny_transformer.model import TinyTransformerLM


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("gpt2", 124_439_808),
        ("gpt2-medium", 354_823_168),
        ("gpt2-large", 774_030_080),
        ("gpt2-xl", 1_557_611_200),
        ("llama2-7b", 6_738_415_616),
        ("llama3-8b", 8_030_261_248),
        ("llama3.2-1b", 1_235_814_400),
        ("bert-base", 109_514_298),  # transformers' BertForMaskedLM; BertModel has a pooler of 590,592 in place of the head of 622,650
    ],
)
def test_published_parameter_counts(name, count):
    assert PRESETS[name].n_parameters == count


def test_lab_model_has_10_65_million_parameters_without_positions():
    config = PRESETS["baby-gpt"]
    assert config.n_parameters - config.max_seq_len * config.d_model == 10_646_784
    assert (config.n_layers, config.n_heads, config.d_model, config.max_seq_len, config.vocab_size) == (6, 6, 384, 256, 65)


def test_wikitext_model_has_27_million_only_when_untied():
    config = PRESETS["wikitext2-300d"]
    assert round(config.n_parameters / 1e6, 1) == 27.2
    tied = dataclasses.replace(config, tie_weights=True)
    assert 14e6 < dataclasses.replace(tied, d_ff=None).n_parameters < tied.n_parameters < 18e6


@pytest.mark.parametrize("name", PRESETS)
def test_counted_parameters_are_those_of_the_built_model(name):
    with torch.device("meta"):
        model = TinyTransformerLM(PRESETS[name])
    assert sum(p.numel() for p in model.parameters()) == PRESETS[name].n_parameters


@pytest.mark.parametrize("option", OPTIONS)
def test_counted_parameters_for_every_option(option):
    config = small_config(option)
    assert sum(p.numel() for p in TinyTransformerLM(config).parameters()) == config.n_parameters


@pytest.mark.parametrize("option", OPTIONS)
def test_config_travels_through_json(option):
    config = small_config(option)
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"d_model": 384, "n_heads": 5}, ["d_model=384 is not divisible by n_heads=5", "every head needs the same width", "n_heads=6"]),
        ({"n_heads": 6, "d_model": 12, "n_kv_heads": 4}, ["n_kv_heads=4", "Try n_kv_heads=3"]),
        ({"n_layers": 0}, ["n_layers=0", "at least 1"]),
        ({"d_model": 12.5}, ["d_model=12.5", "whole number"]),
        ({"vocab_size": True}, ["vocab_size=True"]),
        ({"dropout": 1.0}, ["dropout=1.0", "below 1"]),
        ({"dropout": math.nan}, ["dropout=nan"]),
        ({"activation": "swish"}, ["activation='swish'", "relu, gelu, gelu_tanh, relu2, swiglu"]),
        ({"position": "rotary", "d_head": 5}, ["d_head=5", "even", "d_head=6"]),
        ({"position": "rotary", "rope_scaling": {"type": "yarn"}}, ["'yarn'", "linear, llama3"]),
        ({"rope_scaling": {"type": "linear"}}, ["factor"]),
        ({"window": 0}, ["window=0"]),
        ({"norm_eps": 0.0}, ["norm_eps=0.0"]),
        ({"logit_softcap": -1.0}, ["logit_softcap=-1.0"]),
        ({"logit_softcap": "30"}, ["logit_softcap='30'", "must be a number", "leave it out"]),
        ({"dropout": "0.1"}, ["dropout='0.1'", "must be a number", "Try dropout=0.0"]),
        ({"dropout": None}, ["dropout=None", "must be a number"]),
        ({"causal": "no"}, ["causal='no'", "True or False"]),
        ({"tie_weights": 1}, ["tie_weights=1", "True or False"]),
        ({"n_token_types": 1.5}, ["n_token_types=1.5", "whole number"]),
        ({"rope_scaling": "linear"}, ["rope_scaling='linear'", "dict"]),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, ["factor=0", "positive"]),
        ({"rope_scaling": {"type": "linear", "factor": "2"}}, ["factor='2'", "positive"]),
    ],
)
def test_impossible_models_say_what_to_do(settings, words):
    with pytest.raises(ConfigError) as error:
        ModelConfig(**settings)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("cls", "settings"),
    [
        (TrainConfig, {"batch_size": 0}),
        (TrainConfig, {"learning_rate": 0.0}),
        (TrainConfig, {"learning_rate": math.nan}),
        (TrainConfig, {"beta1": 1.0}),
        (TrainConfig, {"accumulate": 40, "batch_size": 32}),
        (TrainConfig, {"schedule": "linear"}),
        (TrainConfig, {"max_steps": -1}),
        (TrainConfig, {"patience": 0}),
        (TrainConfig, {"patience": 1.5}),
        (TrainConfig, {"learning_rate": "fast"}),
        (TrainConfig, {"learning_rate": math.inf}),
        (TrainConfig, {"compile": "yes"}),
        (SampleConfig, {"seed": -1}),
        (SampleConfig, {"seed": 1.5}),
        (SampleConfig, {"top_k": 2.5}),
        (SampleConfig, {"temperature": "hot"}),
        (SampleConfig, {"repetition_penalty": math.inf}),
        (SampleConfig, {"max_tokens": 1.5}),
        (SampleConfig, {"stop": 5}),
        (DataConfig, {"corpus": 3}),
        (SampleConfig, {"temperature": -0.1}),
        (SampleConfig, {"temperature": math.nan}),
        (SampleConfig, {"top_k": 0}),
        (SampleConfig, {"top_p": 0.0}),
        (SampleConfig, {"top_p": 1.1}),
        (SampleConfig, {"min_p": -1.0}),
        (SampleConfig, {"repetition_penalty": 0.0}),
        (SampleConfig, {"beams": 0}),
        (SampleConfig, {"stop": ("",)}),
        (DataConfig, {"corpus": "shakespeare", "data": "x.txt"}),
        (DataConfig, {"val_share": 1.0}),
    ],
)
def test_impossible_settings_are_refused_in_one_line(cls, settings):
    with pytest.raises(ConfigError) as error:
        cls(**settings)
    assert all(name in str(error.value) or name == "stop" for name in list(settings)[:1])
    assert "\n" not in str(error.value)


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ConfigError, match="d_modle.*d_model"):
        ModelConfig.from_dict({"d_modle": 3})
    with pytest.raises(ConfigError, match="gpt3.*gpt2-xl"):
        preset("gpt3")


def test_swiglu_costs_what_two_matrices_cost():
    for d in (96, 384, 768, 4096):
        swiglu = ModelConfig(d_model=d, n_heads=1, activation="swiglu").ff_width
        assert swiglu % 32 == 0
        assert 8 * d / 3 <= swiglu < 8 * d / 3 + 32


def test_sampling_presets_are_the_three_moods():
    moods = {name: (config.temperature, config.top_k) for name, config in SAMPLING_PRESETS.items()}
    assert moods == {"focused": (0.3, 5), "balanced": (0.8, 40), "creative": (1.2, 200)}
    assert SampleConfig() == SAMPLING_PRESETS["balanced"]


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ModelConfig().d_model = 3  # type: ignore[misc]


def test_a_model_has_at_most_two_dozen_settings():
    assert len(dataclasses.fields(ModelConfig)) <= 24


def test_numbers_of_numpy_become_pythons():
    config = ModelConfig(vocab_size=np.arange(66).max(), dropout=np.float32(0.5))
    assert (type(config.vocab_size), type(config.dropout)) == (int, float)
    assert json.loads(json.dumps(config.to_dict()))["vocab_size"] == 65


@pytest.mark.parametrize("stop", ["\n\n", ["\n\n"], ("\n\n",)])
def test_one_stop_string_may_be_given_as_itself(stop):
    assert SampleConfig(stop=stop) == SampleConfig(stop=("\n\n",))
    assert hash(SampleConfig(stop=stop)) == hash(SampleConfig(stop=("\n\n",)))
