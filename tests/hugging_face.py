"""Small random models made by transformers, one for each way in which the families differ, as directories on disk."""

import functools
import tempfile
from pathlib import Path

import pytest
import torch

transformers = pytest.importorskip("transformers", reason="the `test` extra has transformers, the peer of imported weights")
transformers.logging.set_verbosity_error()

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
GPT2 = {"vocab_size": 97, "n_positions": 96, "n_embd": 40, "n_layer": 2, "n_head": 5}
LLAMA = {
    "vocab_size": 97, "max_position_embeddings": 96, "hidden_size": 48, "intermediate_size": 72, "num_hidden_layers": 2,
    "num_attention_heads": 6, "num_key_value_heads": 2,
}  # fmt: skip
BERT = {
    "vocab_size": 97, "max_position_embeddings": 64, "hidden_size": 40, "intermediate_size": 56, "num_hidden_layers": 2,
    "num_attention_heads": 5,
}  # fmt: skip

CASES = {
    "gpt2": ("GPT2LMHeadModel", GPT2),
    "gpt2, untied, own width": ("GPT2LMHeadModel", {**GPT2, "n_inner": 72, "tie_word_embeddings": False, "activation_function": "gelu"}),
    "llama, grouped": ("LlamaForCausalLM", LLAMA),
    "llama, one kv head, tied, odd width": (
        "LlamaForCausalLM",
        {**LLAMA, "hidden_size": 49, "num_attention_heads": 7, "num_key_value_heads": 1, "head_dim": 10, "tie_word_embeddings": True},
    ),
    "llama 3": ("LlamaForCausalLM", {**LLAMA, "rope_parameters": {"rope_theta": 500.0, **LLAMA3}}),
    "llama, linear": ("LlamaForCausalLM", {**LLAMA, "rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}}),
    "llama, biases": ("LlamaForCausalLM", {**LLAMA, "attention_bias": True, "mlp_bias": True}),
    "mistral, window": ("MistralForCausalLM", {**LLAMA, "sliding_window": 7, "head_dim": 12}),
    "mistral, no window": ("MistralForCausalLM", {**LLAMA, "sliding_window": None, "rms_norm_eps": 1e-3}),
    "qwen2": ("Qwen2ForCausalLM", {**LLAMA, "tie_word_embeddings": True, "sliding_window": 7, "use_sliding_window": False}),
    "qwen2, window": ("Qwen2ForCausalLM", {**LLAMA, "sliding_window": 7, "use_sliding_window": True, "max_window_layers": 0}),
    "qwen3": ("Qwen3ForCausalLM", {**LLAMA, "head_dim": 14, "num_key_value_heads": 1}),
    "bert": ("BertForMaskedLM", BERT),
    "bert, three types, relu": ("BertForMaskedLM", {**BERT, "type_vocab_size": 3, "hidden_act": "relu", "layer_norm_eps": 1e-3}),
}
CAUSAL = [name for name, (kind, _) in CASES.items() if not kind.startswith("Bert")]


def make(name: str, **more: object) -> "transformers.PreTrainedModel":
    """The case's model, in evaluation mode, every weight random (norms and biases too): nothing can hide in a 0 or a 1."""
    kind, settings = CASES[name]
    cls = getattr(transformers, kind)
    torch.manual_seed(len(name))
    model = cls(cls.config_class(**{**settings, **more}))
    with torch.no_grad():
        for key, weight in model.named_parameters():
            table = weight.dim() == 2 and len(weight) == model.config.vocab_size  # large ones would make each token predict itself
            weight.normal_(1.0 if weight.dim() == 1 and key.endswith("weight") else 0.0, 0.08 if table else 0.25)
    return model.eval()


def rounded(name: str, dtype: torch.dtype) -> "transformers.PreTrainedModel":
    """The case's model with weights that `dtype` can hold, still computing in float32 (as a whole it would round its rotations too)."""
    model = make(name)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.to(dtype))
    return model


@functools.cache
def stored(name: str) -> tuple["transformers.PreTrainedModel", Path]:
    """The case's model and a directory that it was saved to."""
    model, folder = make(name), Path(_home().name) / name.replace(" ", "_").replace(",", "")
    model.save_pretrained(folder)
    return model, folder


@functools.cache
def _home() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory()
