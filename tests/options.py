"""A grid of small model settings that holds every option at least once, for tests that must hold for all of them."""

from tiny_transformer.config import ModelConfig

SMALL = {"vocab_size": 17, "max_seq_len": 12, "d_model": 24, "n_layers": 2, "n_heads": 4}

OPTIONS: dict[str, dict] = {
    "gpt2": {},
    "no bias": {"bias": "none"},
    "qkv bias": {"bias": "qkv"},
    "untied": {"tie_weights": False},
    "rms": {"norm": "rms"},
    "post": {"norm_position": "post"},
    "post rms": {"norm_position": "post", "norm": "rms", "bias": "none"},
    "relu": {"activation": "relu"},
    "gelu_tanh": {"activation": "gelu_tanh"},
    "relu2": {"activation": "relu2"},
    "swiglu": {"activation": "swiglu"},
    "sinusoidal": {"position": "sinusoidal"},
    "rotary": {"position": "rotary"},
    "alibi": {"position": "alibi"},
    "no positions": {"position": "none"},
    "grouped": {"n_kv_heads": 2},
    "one kv head": {"n_kv_heads": 1, "position": "rotary"},
    "wide heads": {"d_head": 10},
    "qk_norm": {"qk_norm": True},
    "window": {"window": 3},
    "window alibi": {"window": 4, "position": "alibi"},
    "window rotary grouped": {"window": 5, "position": "rotary", "n_kv_heads": 2},
    "softcap": {"logit_softcap": 2.0},
    "linear rope": {"position": "rotary", "rope_scaling": {"type": "linear", "factor": 4.0}},
    "llama3 rope": {
        "position": "rotary",
        "rope_scaling": {
            "type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8,
        },
    },
    "token types": {"n_token_types": 2},
    "token types rms": {"n_token_types": 3, "norm": "rms", "bias": "none"},
    "pairs": {"ngram_rows": (289,)},
    "pairs and triples, shared": {"ngram_rows": (50, 31), "position": "rotary"},
    "pairs, sinusoidal, token types": {"ngram_rows": (289,), "position": "sinusoidal", "n_token_types": 2},
    "modern": {
        "position": "rotary", "norm": "rms", "qk_norm": True, "activation": "relu2", "bias": "none", "logit_softcap": 15.0,
    },
}


def small_config(option: str = "gpt2", **more: object) -> ModelConfig:
    """The small model with one named option, and perhaps more."""
    return ModelConfig(**{**SMALL, **OPTIONS[option], **more})
