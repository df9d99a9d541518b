"""BERT (Devlin et al. 2019): reads both ways, norms after the branches, token types, and a head before its logits.

Its pooler and its next-sentence layer have no place here and stay behind: no logit depends on them. Read before: `family.py`.
"""

from dataclasses import replace

from tiny_transformer.config import ModelConfig, check
from tiny_transformer.pretrained.family import Demand, Family, Key, Values
from tiny_transformer.pretrained.gpt2 import ACTIVATIONS, equal_heads
from tiny_transformer.pretrained.names import rule, with_biases

LAYER = "bert.encoder.layer.N."


def _check_types(values: Values) -> Values:
    types = values.get("type_vocab_size", 2)
    check(types != 0, "config.json asks for type_vocab_size=0", "BERT without token types is not known here", "Choose another model")
    return {}


def _nearest(config: ModelConfig) -> ModelConfig:
    return replace(equal_heads(config), n_token_types=max(1, config.n_token_types))


def _write_dropout(config: ModelConfig) -> Values:
    return {"attention_probs_dropout_prob": 0.0}


BERT = Family(
    name="bert",
    title="BERT",
    architecture="BertForMaskedLM",
    keys=(
        Key("vocab_size", "vocab_size", 30522),
        Key("max_position_embeddings", "max_seq_len", 512),
        Key("hidden_size", "d_model", 768),
        Key("num_hidden_layers", "n_layers", 12),
        Key("num_attention_heads", "n_heads", 12),
        Key("intermediate_size", "d_ff", 3072),
        Key("hidden_act", "activation", "gelu", {"gelu": "gelu", **ACTIVATIONS}),
        Key("layer_norm_eps", "norm_eps", 1e-12),
        Key("hidden_dropout_prob", "dropout", 0.1),
        Key("type_vocab_size", "n_token_types", 2),
        Key("tie_word_embeddings", "tie_weights", True),
    ),
    fixed={"norm": "layer", "norm_position": "post", "position": "learned", "bias": "all", "causal": False},
    demands=(Demand("position_embedding_type", ("absolute",)),),
    table=(
        rule("bert.embeddings.word_embeddings.weight", "embeddings.token.weight"),
        rule("bert.embeddings.position_embeddings.weight", "embeddings.position.weight"),
        rule("bert.embeddings.token_type_embeddings.weight", "embeddings.token_type.weight"),
        *with_biases(
            [
                rule("bert.embeddings.LayerNorm.weight", "embeddings.norm.weight"),
                rule(LAYER + "attention.self.query.weight", "blocks.N.attention.W_query.weight"),
                rule(LAYER + "attention.self.key.weight", "blocks.N.attention.W_key.weight"),
                rule(LAYER + "attention.self.value.weight", "blocks.N.attention.W_value.weight"),
                rule(LAYER + "attention.output.dense.weight", "blocks.N.attention.out_proj.weight"),
                rule(LAYER + "attention.output.LayerNorm.weight", "blocks.N.norm1.weight"),
                rule(LAYER + "intermediate.dense.weight", "blocks.N.feedforward.up.weight"),
                rule(LAYER + "output.dense.weight", "blocks.N.feedforward.down.weight"),
                rule(LAYER + "output.LayerNorm.weight", "blocks.N.norm2.weight"),
                rule("cls.predictions.transform.dense.weight", "unembed.dense.weight"),
                rule("cls.predictions.transform.LayerNorm.weight", "unembed.norm.weight"),
            ]
        ),
        rule("cls.predictions.decoder.weight", "unembed.weight"),
        rule("cls.predictions.bias", "unembed.bias"),
    ),
    prefix="bert.",
    again={
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    },
    ignored=(r"bert\.embeddings\.position_ids",),
    left_behind=(r"bert\.pooler\.dense\.(weight|bias)", r"cls\.seq_relationship\.(weight|bias)"),
    respelled={".gamma": ".weight", ".beta": ".bias"},
    new=("unembed.dense.weight", "unembed.dense.bias", "unembed.norm.weight", "unembed.norm.bias", "unembed.bias"),
    read_more=_check_types,
    write_more=_write_dropout,
    nearest=_nearest,
)


if __name__ == "__main__":
    from tiny_transformer.pretrained.family import to_model_config
    from tiny_transformer.pretrained.names import rules_of

    config = to_model_config(BERT, {})
    rules = rules_of(BERT.table, config)
    print(f"BERT base: {config.n_parameters:,} parameters, {len(rules)} tensors")
    for one in (*rules[:3], *rules[-4:]):
        print(f"{one.theirs:48} {', '.join(one.ours)}")
