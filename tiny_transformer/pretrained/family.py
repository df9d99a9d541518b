"""What a family of models is: how its config.json becomes a `ModelConfig` and back, and its table of names.

A config.json says many things. Those that we follow are `Key`s, and each maps a value both ways. Those that must have one value for our
network to be the same are `Demand`s: another value is refused by name, before a weight is read. The rest concerns
training or other programs. Read before: `names.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tiny_transformer.config import ConfigError, ModelConfig, check
from tiny_transformer.pretrained.names import Rule

Values = dict[str, Any]
OWN = "tiny_transformer"
"""The entry of config.json in which we keep a config's own words; other programs pass it over."""
FILLED_IN = {"n_kv_heads": "kv_heads", "d_head": "head_width", "d_ff": "ff_width"}
"""Where a field may be None for "the usual": what it comes to is written, since others have another usual."""


@dataclass(frozen=True)
class Key:
    """One entry of config.json and the field of `ModelConfig` that it is."""

    theirs: str
    ours: str
    default: Any = None
    """What it means when it is not there: their program's default."""
    choices: Mapping[str, str] | None = None
    """Their words for our words, where they differ; several of theirs may mean the same, and the first is written."""
    written: bool = True
    """Whether `write` says it too (older spellings are only read)."""

    def read(self, values: Values) -> Any:
        """Our value. Raises ConfigError for a word that we have none for."""
        value = values.get(self.theirs, self.default)
        if self.choices is None:
            return value
        known = isinstance(value, str) and value in self.choices
        must = f"we have {', '.join(self.choices)}"
        check(known, f"config.json asks for {self.theirs}={value!r}", must, "Choose another model")
        return self.choices[value]

    def write(self, config: ModelConfig) -> Any:
        """Their value; where they have no word for ours, their usual one."""
        value = getattr(config, FILLED_IN.get(self.ours, self.ours))
        if self.choices is None:
            return value
        words = [theirs for theirs, ours in self.choices.items() if ours == value]
        return words[0] if words else next(iter(self.choices))


@dataclass(frozen=True)
class Demand:
    """An entry of config.json that must have one of these values: then our network is the same as theirs."""

    theirs: str
    allowed: tuple[Any, ...]
    """The first is what it means when it is not there, and what is written."""


def _nothing(values: Values) -> Values:
    return {}


@dataclass(frozen=True)
class Family:
    """Models that differ in sizes only."""

    name: str
    """Their `model_type`."""
    title: str
    architecture: str
    """Their class with an output layer, which is written to config.json."""
    keys: tuple[Key, ...]
    fixed: Values
    """Fields of `ModelConfig` that are always so."""
    table: tuple[Rule, ...]
    prefix: str
    """Before most names where the model was saved with its output layer, and not before any where it was saved without."""
    demands: tuple[Demand, ...] = ()
    again: Mapping[str, str] = field(default_factory=dict)
    """Tensors that say once more what another one says (tied layers): theirs → theirs."""
    ignored: tuple[str, ...] = ()
    """Patterns of tensors that hold no weights: masks, positions, frequencies."""
    left_behind: tuple[str, ...] = ()
    """Patterns of weights that have no place here, and that the logits do not depend on."""
    respelled: Mapping[str, str] = field(default_factory=dict)
    """Old endings of names, and the present ones."""
    new: tuple[str, ...] = ()
    """Ours: all of these may be missing together, and then begin as in a new model."""
    read_more: Callable[[Values], Values] = _nothing
    """Fields that several entries decide together."""
    write_more: Callable[[ModelConfig], Values] = lambda config: {}
    """The inverse of `read_more`."""
    read_only: tuple[str, ...] = ()
    """Entries that `read_more` looks at."""
    nearest: Callable[[ModelConfig], ModelConfig] = lambda config: config
    """A config with sizes that the family can have: the same one wherever it can have it."""


COMMON = (
    Demand("quantization_config", (None,)),
    Demand("auto_map", (None,)),
    Demand("is_encoder_decoder", (False,)),
    Demand("is_decoder", (False,)),
    Demand("add_cross_attention", (False,)),
    Demand("num_experts", (None, 0)),
    Demand("num_local_experts", (None, 0, 1)),
    Demand("partial_rotary_factor", (1.0,)),
)
"""Demands on every family; they are not written. Code of the model's own, experts, numbers of few bits: none of these."""


def to_model_config(family: Family, values: Values) -> ModelConfig:
    """The architecture that a config.json describes. Raises ConfigError naming the first entry that we can't follow."""
    for demand in (*COMMON, *family.demands):
        found = values.get(demand.theirs)
        found = demand.allowed[0] if found is None else found
        must = f"for {family.title} we have {' or '.join(map(repr, demand.allowed))} only"
        met = any(found == allowed and isinstance(found, bool) == isinstance(allowed, bool) for allowed in demand.allowed)
        check(met, f"config.json asks for {demand.theirs}={_short(found)}", must, "Choose another model")
    fields: Values = {**family.fixed}
    for key in family.keys:
        if key.theirs in values or key.ours not in fields:
            fields[key.ours] = key.read(values)
    fields |= family.read_more(values)
    try:
        return _as_we_said_it(ModelConfig(**fields), values)
    except (ConfigError, TypeError) as error:
        raise ConfigError(f"config.json: {error}") from error


def our_words(values: Values) -> ModelConfig | None:
    """The config as it was before it went out, where a config.json of ours keeps it; None where there is none, or it is damaged."""
    try:
        return ModelConfig.from_dict(values[OWN])
    except (ConfigError, TypeError, KeyError):
        return None


def _as_we_said_it(config: ModelConfig, values: Values) -> ModelConfig:
    """`config` in our own words, where these mean the same: which fields were left to their defaults, dropout, settings that do nothing.

    Biases are not taken from there: other programs may have trained those that went out as 0.
    """
    said = our_words(values)
    own = config if said is None else replace(said, bias=config.bias)
    return own if _resolved(without_idle(own)) == _resolved(config) else config


def without_idle(config: ModelConfig) -> ModelConfig:
    """Without settings that do nothing in this model: of rotary positions that it does not have, of a window as long as the context."""
    changes: Values = {}
    if config.position != "rotary":
        changes |= {"rope_theta": ModelConfig.rope_theta, "rope_scaling": None}
    if config.window is not None and config.window >= config.max_seq_len:
        changes["window"] = None
    return replace(config, **changes)


def to_hugging_face(family: Family, config: ModelConfig) -> Values:
    """The entries of config.json that describe `config`: the inverse of `to_model_config`.

    Raises ConfigError naming the fields that the family has no way to say.
    """
    unlike = differences(family, config)
    got = ", ".join(f"{name}={ours!r}" for name, (ours, _) in unlike.items())
    has = ", ".join(f"{name}={theirs!r}" for name, (_, theirs) in unlike.items())
    check(not unlike, got, f"{family.title} is {has}", "Choose another family")
    return _said(family, config)


def differences(family: Family, config: ModelConfig) -> dict[str, tuple[Any, Any]]:
    """The fields that the family has no way to say: the config's value and what it would have to be. Nothing: it can say all of it."""
    mine, theirs = _resolved(config), _resolved(to_model_config(family, _said(family, family.nearest(config))))
    return {name: (value, theirs[name]) for name, value in mine.items() if value != theirs[name]}


def _said(family: Family, config: ModelConfig) -> Values:
    """As much of `config` as the family's config.json says."""
    written = {key.theirs: key.write(config) for key in family.keys if key.written}
    demanded = {demand.theirs: demand.allowed[0] for demand in family.demands}
    return {"architectures": [family.architecture], "model_type": family.name, **demanded, **written, **family.write_more(config)}


def unknown_entries(family: Family, values: Values) -> list[str]:
    """Entries of config.json that neither we nor the format's general part know, and that say something."""
    known = {key.theirs for key in family.keys} | {demand.theirs for demand in (*COMMON, *family.demands)} | set(family.read_only)
    said = {name for name, value in values.items() if value not in (None, False, {}, [])}
    return sorted(said - known - GENERAL - {OWN})


def _resolved(config: ModelConfig) -> Values:
    """The fields with defaults filled in, so that saying a default does not count as a difference. Dropout concerns training only."""
    values = config.to_dict() | {name: getattr(config, full) for name, full in FILLED_IN.items()}
    return {name: value for name, value in values.items() if name != "dropout"}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


def one_kind(values: Sequence[str], got: str) -> str | None:
    """The only word in a list (what each layer is); None for an empty one. Raises ConfigError where layers differ."""
    kinds = sorted(set(values))
    check(len(kinds) <= 1, f"config.json asks for {got} {' and '.join(kinds)}", "here all layers are alike", "Choose another model")
    return kinds[0] if kinds else None


_GENERAL = """
_name_or_path architectures attention_dropout attention_probs_dropout_prob attn_pdrop bad_words_ids begin_suppress_tokens
bos_token_id chunk_size_feed_forward classifier_dropout cross_attention_hidden_size decoder_start_token_id diversity_penalty
do_sample dtype early_stopping embd_pdrop encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty
finetuning_task forced_bos_token_id forced_eos_token_id gradient_checkpointing hidden_dropout_prob id2label initializer_range
label2id language_model length_penalty max_length min_length model_type n_ctx no_repeat_ngram_size num_beam_groups num_beams
num_return_sequences output_attentions output_hidden_states output_scores pad_token_id predict_special_tokens prefix
pretraining_tp problem_type remove_invalid_values reorder_and_upcast_attn repetition_penalty resid_pdrop return_dict
return_dict_in_generate sep_token_id summary_activation summary_first_dropout summary_proj_to_labels summary_type summary_use_proj
suppress_tokens task_specific_params temperature tf_legacy_loss tokenizer_class top_k top_p torch_dtype torchscript
transformers_version typical_p use_bfloat16 use_cache
"""
GENERAL = frozenset(_GENERAL.split())
"""Entries that change no logits: training, generation, bookkeeping of other programs."""


if __name__ == "__main__":
    toy = Family(
        "toy", "Toy", "ToyForCausalLM", (Key("width", "d_model", 128), Key("act", "activation", "silu", {"silu": "swiglu"})),
        {"norm": "rms"}, (), "toy.", (Demand("parallel", (False,)),),
    )  # fmt: skip
    config = to_model_config(toy, {"width": 64})
    print(config.d_model, config.activation, config.norm, "->", to_hugging_face(toy, config))
    for values in ({"parallel": True}, {"act": "relu"}):
        try:
            to_model_config(toy, values)
        except ConfigError as error:
            print("caught:", error)
