"""GPT-2 (Radford et al. 2019): learned positions, layer norms before the branches, biases everywhere, tied output.

Its matrices are stored as (in, out), and query, key and value are one of them. Read before: `family.py`.
"""

from dataclasses import replace

from tiny_transformer.config import ModelConfig
from tiny_transformer.pretrained.family import Demand, Family, Key, Values
from tiny_transformer.pretrained.names import rule, with_biases

ACTIVATIONS = {
    "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh", "gelu": "gelu", "relu": "relu", "relu2": "relu2",
}  # fmt: skip
"""Their names and ours, for networks without a gate."""


def equal_heads(config: ModelConfig) -> ModelConfig:
    """With heads that fill the width and have keys and values of their own: older families know no others."""
    width = config.d_model
    fills = config.n_heads * config.head_width == width
    heads = config.n_heads if fills else max(n for n in range(1, min(config.n_heads, width) + 1) if width % n == 0)
    return replace(config, n_heads=heads, n_kv_heads=None, d_head=None, position="learned", rope_scaling=None)


def write_dropout(config: ModelConfig) -> Values:
    """Ours stands after the embeddings and on each branch (`resid_pdrop`), never on the attention's weights."""
    return {"embd_pdrop": config.dropout, "attn_pdrop": 0.0}


GPT2 = Family(
    name="gpt2",
    title="GPT-2",
    architecture="GPT2LMHeadModel",
    keys=(
        Key("vocab_size", "vocab_size", 50257),
        Key("n_positions", "max_seq_len", 1024),
        Key("n_embd", "d_model", 768),
        Key("n_layer", "n_layers", 12),
        Key("n_head", "n_heads", 12),
        Key("n_inner", "d_ff", None),
        Key("activation_function", "activation", "gelu_new", ACTIVATIONS),
        Key("layer_norm_epsilon", "norm_eps", 1e-5),
        Key("resid_pdrop", "dropout", 0.1),
        Key("tie_word_embeddings", "tie_weights", True),
    ),
    fixed={"norm": "layer", "norm_position": "pre", "position": "learned", "bias": "all", "causal": True},
    demands=(Demand("scale_attn_weights", (True,)), Demand("scale_attn_by_inverse_layer_idx", (False,))),
    table=(
        rule("transformer.wte.weight", "embeddings.token.weight"),
        rule("transformer.wpe.weight", "embeddings.position.weight"),
        *with_biases(
            [
                rule("transformer.h.N.ln_1.weight", "blocks.N.norm1.weight"),
                rule(
                    "transformer.h.N.attn.c_attn.weight",
                    "blocks.N.attention.W_query.weight", "blocks.N.attention.W_key.weight", "blocks.N.attention.W_value.weight",
                    transposed=True,
                ),
                rule("transformer.h.N.attn.c_proj.weight", "blocks.N.attention.out_proj.weight", transposed=True),
                rule("transformer.h.N.ln_2.weight", "blocks.N.norm2.weight"),
                rule("transformer.h.N.mlp.c_fc.weight", "blocks.N.feedforward.up.weight", transposed=True),
                rule("transformer.h.N.mlp.c_proj.weight", "blocks.N.feedforward.down.weight", transposed=True),
                rule("transformer.ln_f.weight", "norm.weight"),
            ]
        ),
        rule("lm_head.weight", "unembed.weight"),
    ),
    prefix="transformer.",
    again={"lm_head.weight": "transformer.wte.weight"},
    ignored=(r"transformer\.h\.\d+\.attn\.(masked_)?bias",),
    write_more=write_dropout,
    nearest=equal_heads,
)  # fmt: skip


if __name__ == "__main__":
    from tiny_transformer.pretrained.family import to_hugging_face, to_model_config
    from tiny_transformer.pretrained.names import rules_of

    config = to_model_config(GPT2, {"n_layer": 1})
    print(f"{config.n_parameters:,} parameters in one layer and the tables")
    for one in rules_of(GPT2.table, config)[:6]:
        print(f"{one.theirs:36} {'turned' if one.transposed else '':6} {', '.join(one.ours)}")
    print(to_hugging_face(GPT2, config))
