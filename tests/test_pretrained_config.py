"""config.json both ways: their programs' defaults are ours, what we write they read as the same, what we can't do is refused by name."""

import dataclasses
import itertools
import json

import pytest
import torch

from tests.hugging_face import CASES, GPT2, LLAMA, LLAMA3, make, transformers
from tiny_transformer.config import PRESETS, ConfigError, ModelConfig
from tiny_transformer.pretrained.families import FAMILIES, family_of, read_config
from tiny_transformer.pretrained.family import to_hugging_face, to_model_config, unknown_entries


def resolved(config):
    values = config.to_dict() | {"n_kv_heads": config.kv_heads, "d_head": config.head_width, "d_ff": config.ff_width}
    return values


def as_written(name):
    """The case's config.json, as transformers writes it."""
    cls, settings = CASES[name]
    return json.loads(getattr(transformers, cls).config_class(**settings).to_json_string(use_diff=True))


@pytest.mark.parametrize("kind", FAMILIES)
def test_an_empty_config_json_means_what_it_means_to_them(kind):
    theirs = transformers.AutoConfig.for_model(kind).to_dict()
    assert resolved(to_model_config(FAMILIES[kind], {})) == resolved(to_model_config(FAMILIES[kind], theirs))


@pytest.mark.parametrize("name", CASES)
def test_each_entry_left_out_means_their_default(name):
    values = as_written(name)
    family = family_of({"model_type": CASES[name][0].split("For")[0].removesuffix("LMHeadModel").lower()})
    for key in [k for k in values if k not in ("architectures", "model_type", "transformers_version")]:
        rest = {k: v for k, v in values.items() if k != key}
        try:
            filled = transformers.AutoConfig.for_model(family.name, **{k: v for k, v in rest.items() if k != "model_type"}).to_dict()
        except Exception:
            continue
        assert resolved_or_refused(family, rest) == resolved_or_refused(family, filled), key


def resolved_or_refused(family, values):
    try:
        return resolved(to_model_config(family, values))
    except ConfigError:
        return "refused"


@pytest.mark.parametrize("name", CASES)
def test_what_is_written_is_read_as_the_same_by_both(name):
    theirs = make(name)
    family = FAMILIES[theirs.config.model_type]
    config = to_model_config(family, json.loads(theirs.config.to_json_string(use_diff=False)))
    written = json.loads(json.dumps(to_hugging_face(family, config)))
    assert resolved(to_model_config(family, written)) == resolved(config)
    assert family_of(written) is family
    again = transformers.AutoConfig.for_model(**written)
    made = type(theirs)(again).eval()
    made.load_state_dict(theirs.state_dict())
    ids = torch.arange(40)[None] % 97
    with torch.no_grad():
        assert torch.equal(made(ids).logits, theirs(ids).logits)


@pytest.mark.parametrize("name", CASES)
def test_nothing_in_their_files_is_unknown_to_us(name):
    cls, settings = CASES[name]
    values = json.loads(getattr(transformers, cls).config_class(**settings).to_json_string(use_diff=False))
    assert unknown_entries(FAMILIES[values["model_type"]], values) == []
    assert unknown_entries(FAMILIES[values["model_type"]], {**values, "attention_soup": 3}) == ["attention_soup"]


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        ("gpt2", {"activation_function": "quick_gelu"}, ["activation_function='quick_gelu'", "gelu_new"]),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, ["scale_attn_by_inverse_layer_idx=True"]),
        ("gpt2", {"scale_attn_weights": False}, ["scale_attn_weights=False"]),
        ("gpt2", {"add_cross_attention": True}, ["add_cross_attention=True"]),
        ("gpt2", {"n_head": 7}, ["n_heads=7", "768"]),
        ("llama", {"hidden_act": "gelu"}, ["hidden_act='gelu'", "silu"]),
        ("llama", {"attention_bias": True}, ["attention_bias=True", "mlp_bias=False"]),
        ("llama", {"mlp_bias": True}, ["attention_bias=False", "mlp_bias=True"]),
        ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, ["'dynamic'", "linear, llama3"]),
        ("llama", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}}, ["'yarn'"]),
        ("llama", {"rope_scaling": {**LLAMA3, "attention_factor": 2.0}}, ["llama3", "attention_factor"]),
        ("llama", {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, ["llama3", "low_freq_factor"]),
        ("llama", {"rope_scaling": 2.0}, ["rope_scaling=2.0"]),
        ("llama", {"partial_rotary_factor": 0.5}, ["partial_rotary_factor=0.5"]),
        ("llama", {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, ["partial_rotary_factor"]),
        ("llama", {"rope_parameters": {"full_attention": {"rope_type": "default"}}}, ["differ by layer"]),
        ("llama", {"quantization_config": {"quant_method": "gptq"}}, ["quantization_config"]),
        ("llama", {"auto_map": {"AutoModel": "theirs.Model"}}, ["auto_map"]),
        ("llama", {"num_local_experts": 8}, ["num_local_experts=8"]),
        ("qwen2", {"use_sliding_window": True, "max_window_layers": 16, "num_hidden_layers": 32}, ["full_attention and sliding_attention"]),
        ("qwen2", {"layer_types": ["full_attention", "linear_attention"]}, ["full_attention and linear_attention"]),
        ("qwen3", {"layer_types": ["chunked_attention"]}, ["chunked_attention"]),
        ("qwen3", {"attention_bias": True}, ["attention_bias=True"]),
        ("bert", {"position_embedding_type": "relative_key"}, ["position_embedding_type='relative_key'"]),
        ("bert", {"is_decoder": True}, ["is_decoder=True"]),
        ("bert", {"type_vocab_size": 0}, ["type_vocab_size=0"]),
        ("mistral", {"hidden_size": None}, ["d_model"]),
    ],
)
def test_what_we_do_not_have_is_refused_by_name_in_one_line(kind, change, words, tmp_path):
    with pytest.raises(ConfigError) as caught:
        to_model_config(FAMILIES[kind], change)
    line = str(caught.value)
    assert all(word in line for word in words) and "\n" not in line and len(line) < 300
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, **change}))  # and before the weights, which are not even there
    from tiny_transformer.pretrained import load_pretrained

    with pytest.raises(ConfigError, match="config.json"):
        load_pretrained(tmp_path)


@pytest.mark.parametrize("kind", ["mixtral", "qwen2_moe", "gemma2", "roberta", "opt", None, 3, ["gpt2"]])
def test_other_families_are_refused_and_the_known_ones_listed(kind):
    with pytest.raises(ConfigError, match="gpt2, llama, mistral, qwen2, qwen3, bert"):
        family_of({"model_type": kind})


def test_a_very_old_config_json_says_its_class_only():
    assert family_of({"architectures": ["GPT2LMHeadModel"]}) is FAMILIES["gpt2"]


@pytest.mark.parametrize("content", ["{", "[]", "\xff", "3"])
def test_a_damaged_config_json_is_named(content, tmp_path):
    (tmp_path / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"config\.json"):
        read_config(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"has no config\.json"):
        read_config(tmp_path)
    with pytest.raises(ConfigError, match="there is no directory"):
        read_config(tmp_path / "nowhere")


SETTINGS = [
    {"rope_theta": 5e5},
    {"rope_scaling": {"type": "linear", "factor": 3.0}},
    {"rope_scaling": {"type": "llama3", **{name: value for name, value in LLAMA3.items() if name != "rope_type"}}},
    {"tie_weights": True}, {"n_kv_heads": 1}, {"d_head": 6}, {"d_ff": 11}, {"norm_eps": 0.5}, {"max_seq_len": 5}, {"vocab_size": 3},
]  # fmt: skip
LLAMAS = ModelConfig(activation="swiglu", norm="rms", position="rotary", bias="none", tie_weights=False, norm_eps=1e-6)


@pytest.mark.parametrize(("kind", "more"), list(itertools.product(["llama", "mistral", "qwen2", "qwen3"], SETTINGS)))
def test_every_setting_survives_the_way_there_and_back(kind, more):
    base = {"qwen2": {"bias": "qkv"}, "qwen3": {"qk_norm": True}}.get(kind, {})
    windows = [None] if kind == "llama" else [None, 9]
    for window in windows:
        config = dataclasses.replace(LLAMAS, **base, **more, window=window)
        again = to_model_config(FAMILIES[kind], json.loads(json.dumps(to_hugging_face(FAMILIES[kind], config))))
        assert resolved(again) == resolved(config)
        theirs = transformers.AutoConfig.for_model(**to_hugging_face(FAMILIES[kind], config)).to_dict()
        assert resolved(to_model_config(FAMILIES[kind], theirs)) == resolved(config)


@pytest.mark.parametrize(
    ("kind", "change", "word"),
    [
        ("gpt2", {"norm": "rms"}, "norm='rms'"), ("gpt2", {"activation": "swiglu"}, "activation='swiglu'"),
        ("gpt2", {"d_head": 5}, "d_head=5"), ("gpt2", {"window": 5}, "window=5"), ("gpt2", {"logit_softcap": 2.0}, "logit_softcap=2.0"),
        ("gpt2", {"ngram_rows": (9,)}, "ngram_rows"), ("gpt2", {"position": "alibi"}, "position='alibi'"),
        ("gpt2", {"qk_norm": True}, "qk_norm=True"), ("gpt2", {"causal": False}, "causal=False"), ("gpt2", {"bias": "none"}, "bias='none'"),
        ("bert", {"n_token_types": 0}, "n_token_types=0"), ("bert", {"causal": True}, "causal=True"),
    ],
)  # fmt: skip
def test_what_a_family_can_not_say_is_refused_by_name(kind, change, word):
    config = dataclasses.replace(PRESETS["bert-base"] if kind == "bert" else PRESETS["gpt2"], **change)
    with pytest.raises(ConfigError, match=word.replace("'", ".")):
        to_hugging_face(FAMILIES[kind], config)


def test_cases_are_the_families():
    assert {make_kind(cls) for cls, _ in CASES.values()} == set(FAMILIES)
    assert GPT2["n_embd"] % GPT2["n_head"] == 0 and LLAMA["hidden_size"] // LLAMA["num_attention_heads"] == 8


def make_kind(cls):
    return getattr(transformers, cls).config_class.model_type
