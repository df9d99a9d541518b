"""What llama.cpp calls the weights and sizes of each architecture, and how they become ours and back.

Their matrices are (out, in) as ours are. One thing lies differently: "llama" turns neighbours (x_0, x_1), (x_2, x_3), … by the rotary
angles, we (and Hugging Face) the halves (x_0, x_{d/2}), …; so within each head the rows of query and key are interleaved. Qwen's are not.
Left out: the file (`gguf_format.py`), tokenizers (`gguf_tokenizer.py`). Read before: `names.py`, `expressing.py`.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tiny_transformer.config import ConfigError, ModelConfig, check
from tiny_transformer.numpy_engine.model import weight_shapes
from tiny_transformer.pretrained.expressing import express
from tiny_transformer.pretrained.gguf_numbers import Array
from tiny_transformer.pretrained.names import Rule, Shapes, rule, rules_of, with_biases

OWN = "tiny_transformer."
"""Our own values begin with this, as the specification asks."""
SCALING_KEY = OWN + "rope_scaling"
"""JSON: what Llama 3's factors were made from; the format has the factors only."""
WEIGHT_KEY = OWN + "weight."
"""Weights that the format has no tensor for (BERT's head): base64 of float32. Other readers refuse a file with tensors they don't know."""
ROPE_FACTORS = "rope_freqs.weight"
Values = dict[str, Any]


@dataclass(frozen=True)
class Interleaved(Rule):
    """A rule whose rows are, in each head, (0, d/2, 1, d/2 + 1, …) of ours."""

    d_head: int = 2

    def split(self, theirs: Array, shapes: Shapes) -> dict[str, Array]:
        """Their tensor as ours. `join` is the inverse."""
        pairs = theirs.reshape(-1, self.d_head // 2, 2, *theirs.shape[1:])  # (heads, pairs, first and second, …)
        return super().split(pairs.swapaxes(1, 2).reshape(theirs.shape), shapes)

    def join(self, ours: Mapping[str, Array]) -> Array:
        """Our tensors as theirs."""
        halves = super().join(ours)
        pairs = halves.reshape(-1, 2, self.d_head // 2, *halves.shape[1:])  # (heads, first and second, pairs, …)
        return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(halves.shape))


@dataclass(frozen=True)
class Architecture:
    """A `general.architecture`."""

    name: str
    sizes: Mapping[str, str]
    """Value, after "NAME." → property of `ModelConfig`; the first that has a field is read, the others must agree."""
    fixed: Values
    """Fields of `ModelConfig` that are always so."""
    table: tuple[Rule, ...]
    interleaved: bool = False
    rope_factors: bool = False
    """Whether its programs look at the tensor of rotary factors."""
    said: Values = field(default_factory=dict)
    """More that is written, after "NAME."; another value is refused."""
    heads: tuple[str, ...] = ()
    """Ours that go along as values."""


FIELDS = {"kv_heads": "n_kv_heads", "head_width": "d_head", "ff_width": "d_ff"}
"""Properties with a default filled in → the fields."""
SIZES = {
    "context_length": "max_seq_len", "embedding_length": "d_model", "block_count": "n_layers", "feed_forward_length": "ff_width",
    "attention.head_count": "n_heads",
}  # fmt: skip
LLAMA_SIZES = {
    **SIZES, "attention.head_count_kv": "kv_heads", "attention.key_length": "head_width", "attention.value_length": "head_width",
    "rope.dimension_count": "head_width", "attention.layer_norm_rms_epsilon": "norm_eps", "rope.freq_base": "rope_theta",
}  # fmt: skip
LAYER_SIZES = {**SIZES, "attention.layer_norm_epsilon": "norm_eps"}
NEUTRAL = (
    "vocab_size",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
    "pooling_type",
    "tensor_data_layout",
    "rope.scaling.attn_factor",
)
"""Values of an architecture that change no weight and no logit, or are looked at elsewhere."""

_QKV = tuple(
    rule(f"blk.N.attn_{short}.weight", f"blocks.N.attention.W_{long}.weight")
    for short, long in (("q", "query"), ("k", "key"), ("v", "value"))
)
_OUT = rule("blk.N.attn_output.weight", "blocks.N.attention.out_proj.weight")
_GATE = rule("blk.N.ffn_gate.weight", "blocks.N.feedforward.gate.weight")
_UP = rule("blk.N.ffn_up.weight", "blocks.N.feedforward.up.weight")
_DOWN = rule("blk.N.ffn_down.weight", "blocks.N.feedforward.down.weight")
_TOKEN, _POSITION = rule("token_embd.weight", "embeddings.token.weight"), rule("position_embd.weight", "embeddings.position.weight")
_PRE = (rule("blk.N.attn_norm.weight", "blocks.N.norm1.weight"), rule("blk.N.ffn_norm.weight", "blocks.N.norm2.weight"))
_END, _OUTPUT = rule("output_norm.weight", "norm.weight"), rule("output.weight", "unembed.weight")

LLAMA_TABLE = (
    _TOKEN, *_PRE, _END, _OUTPUT, *with_biases((*_QKV, _OUT, _GATE, _UP, _DOWN)),
    rule("blk.N.attn_q_norm.weight", "blocks.N.attention.q_norm.weight"),
    rule("blk.N.attn_k_norm.weight", "blocks.N.attention.k_norm.weight"),
)  # fmt: skip
GPT2_TABLE = (
    _TOKEN, _POSITION, _OUTPUT,
    *with_biases((*_PRE, Rule("blk.N.attn_qkv.weight", tuple(one.ours[0] for one in _QKV)), _OUT, _UP, _DOWN, _END)),
)  # fmt: skip
BERT_TABLE = (
    _TOKEN, _POSITION, rule("token_types.weight", "embeddings.token_type.weight"),
    *with_biases(
        (
            rule("token_embd_norm.weight", "embeddings.norm.weight"), *_QKV, _OUT,
            rule("blk.N.attn_output_norm.weight", "blocks.N.norm1.weight"),
            _UP, _DOWN, rule("blk.N.layer_output_norm.weight", "blocks.N.norm2.weight"),
        )
    ),
)  # fmt: skip
FULL_PRECISION = ("position_embd.weight", "token_types.weight")
"""Matrices that programs add up without multiplying: they stay float32, as vectors do."""
BERT_HEAD = ("unembed.dense.weight", "unembed.dense.bias", "unembed.norm.weight", "unembed.norm.bias", "unembed.bias", "unembed.weight")

_ROTARY = {"norm": "rms", "norm_position": "pre", "position": "rotary", "activation": "swiglu"}
ARCHITECTURES: dict[str, Architecture] = {
    one.name: one
    for one in (
        Architecture(
            "gpt2", LAYER_SIZES,
            {"norm": "layer", "norm_position": "pre", "position": "learned", "activation": "gelu_tanh", "bias": "all"}, GPT2_TABLE,
        ),
        Architecture("llama", LLAMA_SIZES, _ROTARY, LLAMA_TABLE, interleaved=True, rope_factors=True),
        Architecture("qwen2", LLAMA_SIZES, {**_ROTARY, "bias": "qkv"}, LLAMA_TABLE),
        Architecture("qwen3", LLAMA_SIZES, {**_ROTARY, "bias": "none", "qk_norm": True}, LLAMA_TABLE),
        Architecture(
            "bert", LAYER_SIZES,
            {"norm": "layer", "norm_position": "post", "position": "learned", "activation": "gelu", "bias": "all", "causal": False},
            BERT_TABLE, said={"attention.causal": False}, heads=BERT_HEAD,
        ),
    )
}  # fmt: skip
"""By their names. An architecture's activation is the one that its program has: llama.cpp's GPT-2 always has the tanh form."""
OF_FAMILY = {"mistral": "llama"}
"""Families whose architecture has another name."""


def architecture_of(config: ModelConfig) -> tuple[Architecture, ModelConfig, tuple[str, ...]]:
    """The architecture that says a model, the config as it will be read back, and what to tell a person.

    Raises ConfigError in one line where no family can say it, or the architecture can't say what the family can.
    """
    expression = express(config)
    family = expression.family
    one = ARCHITECTURES[OF_FAMILY.get(family.name, family.name)]
    same = replace(expression.config, dropout=0.0)
    values = values_of(one, same) | {WEIGHT_KEY + name: "" for name in head_of(one, same)}
    again = config_of(one, values, tensor_names(one, same), same.vocab_size, same.n_token_types)
    mine, theirs = _resolved(same), _resolved(again)
    unlike = [f"{name}={value!r}" for name, value in mine.items() if theirs[name] != value]
    has = ", ".join(f"{name}={theirs[name]!r}" for name, value in mine.items() if theirs[name] != value)
    others = "Train a model so, or choose the format hf, safetensors, npz or onnx"
    check(not unlike, ", ".join(unlike), f"GGUF's {one.name} has {has}", others)
    return one, same, expression.notes


def _resolved(config: ModelConfig) -> Values:
    return config.to_dict() | {name: getattr(config, full) for full, name in FIELDS.items()}


def rules_for(one: Architecture, config: ModelConfig) -> list[Rule]:
    """The table written out for a model; names that the model does not have are left out."""
    queries = {"W_query", "W_key"}
    rules = rules_of(one.table, config)
    if not one.interleaved:
        return rules
    return [Interleaved(r.theirs, r.ours, d_head=config.head_width) if queries & set(r.ours[0].split(".")) else r for r in rules]


def tensor_names(one: Architecture, config: ModelConfig) -> list[str]:
    """Their names of a model's tensors."""
    scaled = [ROPE_FACTORS] if one.rope_factors and (config.rope_scaling or {}).get("type") == "llama3" else []
    return [r.theirs for r in rules_for(one, config)] + scaled


def head_of(one: Architecture, config: ModelConfig) -> list[str]:
    """Our names of a model's weights that go along as values."""
    shapes = weight_shapes(config)
    return [name for name in one.heads if name in shapes]


# --- the values -------------------------------------------------------------------------------------------------------


def values_of(one: Architecture, config: ModelConfig) -> Values:
    """A config as the file's values: float32 fractions, as they will be read."""
    values: Values = {f"{one.name}.{key}": getattr(config, name) for key, name in one.sizes.items()}
    values |= {f"{one.name}.{key}": value for key, value in one.said.items()} | {f"{one.name}.vocab_size": config.vocab_size}
    values = {key: float(str(np.float32(value))) if isinstance(value, float) else value for key, value in values.items()}
    scaling = config.rope_scaling or {}
    if scaling.get("type") == "linear":
        values |= {f"{one.name}.rope.scaling.type": "linear", f"{one.name}.rope.scaling.factor": float(scaling["factor"])}
    elif scaling and one.rope_factors:
        values[SCALING_KEY] = json.dumps(scaling)
    if config.n_token_types:
        values["tokenizer.ggml.token_type_count"] = config.n_token_types
    return values


def config_of(one: Architecture, values: Values, tensors: Collection[str], vocab_size: int, token_types: int = 0) -> ModelConfig:
    """The config that a file's values and its tensors' names say: the inverse of `values_of`.

    Raises ConfigError naming the first value that is missing or asks for what we don't have.
    """
    found: Values = {key.removeprefix(one.name + "."): value for key, value in values.items() if key.startswith(one.name + ".")}
    fields: Values = {**one.fixed, "vocab_size": vocab_size, "n_token_types": token_types}
    for key, name in one.sizes.items():
        said = found.pop(key, None)
        if said is not None:
            before = fields.setdefault(FIELDS.get(name, name), said)
            check(before == said, f"the file says {one.name}.{key}={said!r}", f"for its other sizes it must be {before!r}", "Get it again")
    fields["rope_scaling"] = _read_scaling(one, found, values, tensors)
    for key, value in one.said.items():
        said = found.pop(key, value)
        check(said == value, f"the file asks for {one.name}.{key}={said!r}", f"for {one.name} we have {value!r}", "Choose another model")
    unknown = [f"{one.name}.{key}={value!r}" for key, value in found.items() if key not in NEUTRAL and value not in (0, 0.0, "none", False)]
    check(not unknown, f"the file asks for {', '.join(unknown)[:200]}", f"for {one.name} that is not known here", "Choose another model")
    fields["tie_weights"] = "output.weight" not in tensors and "unembed.weight" not in {key.removeprefix(WEIGHT_KEY) for key in values}
    if "bias" not in fields:
        fields["bias"] = "all" if "blk.0.ffn_up.bias" in tensors else "qkv" if "blk.0.attn_q.bias" in tensors else "none"
    missing = [key for key, name in one.sizes.items() if key in SIZES and FIELDS.get(name, name) not in fields]
    check(not missing, f"the file does not say {', '.join(missing)}", f"{one.name} needs it", "Get it again")
    try:
        return ModelConfig(**fields)
    except (ConfigError, TypeError) as error:
        raise ConfigError(f"the file's values: {error}") from error


def _read_scaling(one: Architecture, found: Values, values: Values, tensors: Collection[str]) -> Values | None:
    """How rotary positions are stretched. Takes what it reads out of `found`."""
    kind, factor = found.pop("rope.scaling.type", "none"), found.pop("rope.scaling.factor", None)
    old = found.pop("rope.scale_linear", None)
    if ROPE_FACTORS in tensors:
        lost = "what its factors were made from must be there too"
        check(SCALING_KEY in values, f"the file has {ROPE_FACTORS}", lost, "Get the model's Hugging Face directory")
        scaling: Values = json.loads(values[SCALING_KEY])
        return scaling
    got = f"the file asks for {one.name}.rope.scaling.type={kind!r}"
    check(kind in ("none", "linear"), got, "we have none and linear", "Choose another model")
    factor = old if factor is None else factor
    return {"type": "linear", "factor": factor} if factor is not None and (kind == "linear" or old is not None) and factor != 1 else None


if __name__ == "__main__":
    config = ModelConfig(
        norm="rms", position="rotary", activation="swiglu", bias="none", n_kv_heads=2, tie_weights=False, n_layers=1, rope_theta=500_000.0
    )
    one = architecture_of(config)[0]
    print(one.name, values_of(one, config))
    for r in rules_for(one, config)[:6]:
        print(f"{r.theirs:24} {type(r).__name__:12} {', '.join(r.ours)}")
    try:
        architecture_of(ModelConfig(position="alibi"))
    except ConfigError as error:
        print("caught:", error)
