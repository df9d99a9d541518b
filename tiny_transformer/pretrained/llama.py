"""Llama and its kin: rotary positions, RMS norms, a gate in the feed-forward network, keys and values shared by several heads.

Llama 2 and 3 (Touvron et al. 2023, Grattafiori et al. 2024), Mistral (Jiang et al. 2023: a window), Qwen 2 and 2.5 (Yang et al. 2024:
biases on query, key and value), Qwen 3 (Yang et al. 2025: norms on queries and keys, heads of their own width). One table of names
serves all: `rules_of` takes the lines whose weights the model has. Read before: `family.py`.
"""

from dataclasses import replace
from typing import Any

from tiny_transformer.config import ModelConfig, check
from tiny_transformer.pretrained.family import Demand, Family, Key, Values, one_kind
from tiny_transformer.pretrained.names import rule, with_biases

SCALINGS: dict[str, tuple[str, ...]] = {
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}
"""The ways to stretch rotary positions that we have, and what each needs."""

TABLE = (
    rule("model.embed_tokens.weight", "embeddings.token.weight"),
    rule("model.layers.N.input_layernorm.weight", "blocks.N.norm1.weight"),
    *with_biases(
        [
            rule("model.layers.N.self_attn.q_proj.weight", "blocks.N.attention.W_query.weight"),
            rule("model.layers.N.self_attn.k_proj.weight", "blocks.N.attention.W_key.weight"),
            rule("model.layers.N.self_attn.v_proj.weight", "blocks.N.attention.W_value.weight"),
        ]
    ),
    rule("model.layers.N.self_attn.q_norm.weight", "blocks.N.attention.q_norm.weight"),
    rule("model.layers.N.self_attn.k_norm.weight", "blocks.N.attention.k_norm.weight"),
    *with_biases([rule("model.layers.N.self_attn.o_proj.weight", "blocks.N.attention.out_proj.weight")]),
    rule("model.layers.N.post_attention_layernorm.weight", "blocks.N.norm2.weight"),
    *with_biases(
        [
            rule("model.layers.N.mlp.gate_proj.weight", "blocks.N.feedforward.gate.weight"),
            rule("model.layers.N.mlp.up_proj.weight", "blocks.N.feedforward.up.weight"),
            rule("model.layers.N.mlp.down_proj.weight", "blocks.N.feedforward.down.weight"),
        ]
    ),
    rule("model.norm.weight", "norm.weight"),
    rule("lm_head.weight", "unembed.weight"),
)


def read_rope(values: Values) -> Values:
    """`rope_theta` and `rope_scaling`, from the older entries of these names or from the newer `rope_parameters`."""
    said = values.get("rope_parameters") or values.get("rope_scaling") or {}
    check(isinstance(said, dict), f"config.json asks for rope_scaling={said!r}", "it must be an object", "Choose another model")
    kind = said.get("rope_type", said.get("type", "default"))
    more = {name: value for name, value in said.items() if name not in ("rope_type", "type", "rope_theta") and value is not None}
    turned = more.pop("partial_rotary_factor", 1)
    check(turned == 1, f"config.json asks for partial_rotary_factor={turned!r}", "here all of a head is turned", "Choose another model")
    each = any(isinstance(value, dict) for value in said.values())
    check(not each, "config.json asks for rotary positions that differ by layer", "here all layers are alike", "Choose another model")
    theta = said.get("rope_theta", values.get("rope_theta", 10_000.0))
    if kind == "default":
        return {"rope_theta": theta, "rope_scaling": None}
    known = f"we have {', '.join(SCALINGS)}"
    check(kind in SCALINGS, f"config.json asks for rotary scaling of type {kind!r}", known, "Choose another model")
    if kind == "linear":
        more.pop("original_max_position_embeddings", None)  # it is there for information
    strange = ", ".join(sorted(set(more) - set(SCALINGS[kind])))
    check(not strange, f"config.json asks for rotary scaling {kind} with {strange}", "we have it without", "Choose another model")
    return {"rope_theta": theta, "rope_scaling": {"type": kind, **more}}


def write_rope(config: ModelConfig) -> Values:
    """The older entries, which every version reads."""
    scaling = config.rope_scaling
    said = None if scaling is None else {"rope_type": scaling["type"]} | {name: v for name, v in scaling.items() if name != "type"}
    return {"rope_theta": config.rope_theta, "rope_scaling": said}


def read_rope_and_biases(values: Values) -> Values:
    """Llama's biases: on all linear layers of a block or on none (and never in an RMS norm)."""
    attention, network = (bool(values.get(name)) for name in BIASES)
    both = f"config.json asks for attention_bias={attention} and mlp_bias={network}"
    check(attention == network, both, "here all linear layers have biases or none has", "Choose another model")
    return read_rope(values) | {"bias": "all" if attention else "none"}


def write_rope_and_biases(config: ModelConfig) -> Values:
    """The inverse."""
    return write_rope(config) | dict.fromkeys(BIASES, config.bias == "all")


def read_window(values: Values) -> Values:
    """Qwen's window: off unless `use_sliding_window`, and then for the layers from `max_window_layers` on."""
    wanted = values.get("sliding_window", 4096) if values.get("use_sliding_window", False) else None
    layers, first = values.get("num_hidden_layers", 32), values.get("max_window_layers", 28)
    kinds = values.get("layer_types") or ["full_attention" if layer < first else "sliding_attention" for layer in range(layers)]
    if wanted is None:
        kinds = ["full_attention" if kind == "sliding_attention" else kind for kind in kinds]
    kind = one_kind(kinds, "layers with")
    known = kind in ("full_attention", "sliding_attention", None)
    check(known, f"config.json asks for layers with {kind}", "we have full_attention and sliding_attention", "Choose another model")
    return {"window": wanted if kind == "sliding_attention" else None}


def write_window(config: ModelConfig) -> Values:
    """The inverse: a window for all layers or for none."""
    windowed = config.window is not None
    return {"use_sliding_window": windowed, "sliding_window": config.window, "max_window_layers": 0 if windowed else config.n_layers}


def read_rope_and_window(values: Values) -> Values:
    """Both, for Qwen."""
    return read_rope(values) | read_window(values)


def write_rope_and_window(config: ModelConfig) -> Values:
    """The inverse."""
    return write_rope(config) | write_window(config)


def _nearest(config: ModelConfig) -> ModelConfig:
    """With heads that rotary positions can turn: of even width."""
    return replace(config, d_head=config.head_width + config.head_width % 2)


def _whole_heads(config: ModelConfig) -> ModelConfig:
    """And for Llama as many heads as divide the width: its own program refuses others, although `head_dim` is free."""
    width = config.d_model
    heads = max(n for n in range(1, min(config.n_heads, width) + 1) if width % n == 0)
    return _nearest(config if heads == config.n_heads else replace(config, n_heads=heads, n_kv_heads=None, d_head=config.head_width))


def _family(name: str, title: str, architecture: str, defaults: Values, *more_keys: Key, **more: Any) -> Family:
    """What all have in common; `defaults` are those of their own program."""
    keys = (
        Key("vocab_size", "vocab_size", defaults["vocab_size"]),
        Key("max_position_embeddings", "max_seq_len", defaults["max_position_embeddings"]),
        Key("hidden_size", "d_model", 4096),
        Key("num_hidden_layers", "n_layers", 32),
        Key("num_attention_heads", "n_heads", 32),
        Key("num_key_value_heads", "n_kv_heads", defaults["num_key_value_heads"]),
        Key("head_dim", "d_head", defaults.get("head_dim")),
        Key("intermediate_size", "d_ff", defaults["intermediate_size"]),
        Key("hidden_act", "activation", "silu", {"silu": "swiglu", "swish": "swiglu"}),
        Key("rms_norm_eps", "norm_eps", 1e-6),
        Key("tie_word_embeddings", "tie_weights", False),
    )
    fixed = {"norm": "rms", "norm_position": "pre", "position": "rotary", "bias": "none", "causal": True, "dropout": 0.0}
    settings: dict[str, Any] = {"read_more": read_rope, "write_more": write_rope, "fixed": fixed, "nearest": _nearest, **more}
    windows = QWENS_WINDOW if settings["read_more"] is read_rope_and_window else ()
    biases = BIASES if settings["read_more"] is read_rope_and_biases else ()
    return Family(
        name=name, title=title, architecture=architecture, keys=(*keys, *more_keys), table=TABLE, prefix="model.",
        again={"lm_head.weight": "model.embed_tokens.weight"},
        ignored=(r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq",),
        read_only=("rope_theta", "rope_scaling", "rope_parameters", *windows, *biases),
        **settings,
    )  # fmt: skip


BIASES = ("attention_bias", "mlp_bias")
QWENS_WINDOW = ("use_sliding_window", "sliding_window", "max_window_layers", "layer_types")

LLAMA = _family(
    "llama", "Llama", "LlamaForCausalLM",
    {"vocab_size": 32000, "max_position_embeddings": 2048, "num_key_value_heads": None, "intermediate_size": 11008},
    read_more=read_rope_and_biases, write_more=write_rope_and_biases, nearest=_whole_heads,
)  # fmt: skip
MISTRAL = _family(
    "mistral", "Mistral", "MistralForCausalLM",
    {"vocab_size": 32000, "max_position_embeddings": 131072, "num_key_value_heads": 8, "intermediate_size": 14336},
    Key("sliding_window", "window", 4096),
)  # fmt: skip
_QWEN = {"vocab_size": 151936, "max_position_embeddings": 32768, "num_key_value_heads": 32, "intermediate_size": 22016}
QWEN2 = _family(
    "qwen2", "Qwen 2 and 2.5", "Qwen2ForCausalLM", _QWEN, read_more=read_rope_and_window, write_more=write_rope_and_window,
    fixed={**LLAMA.fixed, "bias": "qkv"},
)  # fmt: skip
QWEN3 = _family(
    "qwen3", "Qwen 3", "Qwen3ForCausalLM", {**_QWEN, "head_dim": 128}, read_more=read_rope_and_window, write_more=write_rope_and_window,
    fixed={**LLAMA.fixed, "qk_norm": True}, demands=(Demand("attention_bias", (False,)),),
)  # fmt: skip


if __name__ == "__main__":
    from tiny_transformer.config import PRESETS, ConfigError
    from tiny_transformer.pretrained.family import to_hugging_face, to_model_config

    values = to_hugging_face(LLAMA, PRESETS["llama3.2-1b"])
    print({name: value for name, value in values.items() if "rope" in name or "head" in name})
    print(f"{to_model_config(LLAMA, values).n_parameters:,} parameters, as the real one has")
    try:
        to_model_config(LLAMA, {"rope_scaling": {"type": "yarn", "factor": 4.0}})
    except ConfigError as error:
        print("caught:", error)
