"""GGUF: read by the `gguf` package with names, shapes, values and numbers right, by transformers with the same logits, and by us."""

import hashlib
import json
import math
import struct
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.hugging_face import CASES, LLAMA, make, transformers
from tests.options import OPTIONS, small_config
from tiny_transformer import pretrained, run, tokenization
from tiny_transformer.cli.main import main
from tiny_transformer.config import ConfigError, ModelConfig
from tiny_transformer.embeddings import rotary_frequencies
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.pretrained import gguf_numbers
from tiny_transformer.pretrained.chat_template import ChatTemplate
from tiny_transformer.pretrained.gguf_file import DTYPES, open_gguf, read_gguf, weights_of, write_gguf
from tiny_transformer.pretrained.gguf_format import GGUFFile, write_file
from tiny_transformer.pretrained.gguf_names import ARCHITECTURES, WEIGHT_KEY, architecture_of
from tiny_transformer.pretrained.gguf_tokenizer import OWN_KEY, from_values, recover_merges, to_values
from tiny_transformer.tokenization.bpe import BPETokenizer
from tiny_transformer.tokenization.hugging_face_bpe import LLAMA3, QWEN2
from tiny_transformer.tokenization.metaspace_bpe import MetaspaceBPE
from tiny_transformer.tokenization.normalized import NormalizedTokenizer
from tiny_transformer.tokenization.wordpiece import WordPieceTokenizer
from tiny_transformer.utils.checkpoint import Checkpoint

gguf = pytest.importorskip("gguf", reason="the `test` extra has gguf, the peer of these files")

SMALL = {"vocab_size": 40, "max_seq_len": 24, "d_model": 32, "n_layers": 2, "n_heads": 4, "d_ff": 64}
MODERN = {"norm": "rms", "position": "rotary", "activation": "swiglu", "bias": "none"}
SCALING = {"type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
CONFIGS = {
    "gpt2": ModelConfig(**SMALL, activation="gelu_tanh"),
    "gpt2, untied": ModelConfig(**SMALL, activation="gelu_tanh", tie_weights=False, norm_eps=1e-3),
    "llama": ModelConfig(**SMALL, **MODERN, tie_weights=False, n_kv_heads=2, rope_theta=5e5, norm_eps=1e-6),
    "llama, tied, wide heads": ModelConfig(**SMALL, **MODERN, d_head=10, n_kv_heads=1),
    "llama, biases": ModelConfig(**SMALL, **{**MODERN, "bias": "all"}),
    "llama, linear": ModelConfig(**SMALL, **MODERN, rope_scaling={"type": "linear", "factor": 4.0}),
    "llama, llama3": ModelConfig(**SMALL, **MODERN, rope_scaling=SCALING, rope_theta=500.0),
    "qwen2": ModelConfig(**SMALL, **{**MODERN, "bias": "qkv"}, n_kv_heads=2),
    "qwen3": ModelConfig(**SMALL, **MODERN, qk_norm=True, d_head=16, tie_weights=False),
    "bert": ModelConfig(**SMALL, norm_position="post", causal=False, n_token_types=2, norm_eps=1e-12),
    "bert, untied": ModelConfig(**SMALL, norm_position="post", causal=False, n_token_types=3, tie_weights=False),
}


def random_model(config, seed=0):
    """Every weight random, norms and biases too: nothing can hide in a 0 or a 1."""
    model = TinyTransformerLM(config, seed=seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3)
    return model


def written(tmp_path, case="llama", tokenizer=None, **how):
    model, path = random_model(CONFIGS[case]), tmp_path / "model.gguf"
    notes = write_gguf(model, path, tokenizer, **how)
    return model, path, notes


def value(reader, name):
    return reader.get_field(name).contents()


# --- the package gguf -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGS)
def test_the_package_reads_names_shapes_and_numbers(tmp_path, name):
    model, path, _ = written(tmp_path, name)
    reader, config = gguf.GGUFReader(path), model.config
    kind = value(reader, "general.architecture")
    assert kind == name.split(",")[0]
    known = gguf.get_tensor_name_map({v: k for k, v in gguf.MODEL_ARCH_NAMES.items()}[kind], config.n_layers)
    allowed = {
        gguf.TENSOR_NAMES[t].format(bid=b) for t in gguf.MODEL_TENSORS[gguf.MODEL_ARCH[kind.upper()]] for b in range(config.n_layers)
    }
    found = {tensor.name: tensor for tensor in reader.tensors}
    assert len(found) == len(reader.tensors)
    for full, tensor in found.items():
        assert full.rpartition(".")[0] in allowed and known.get_name(full.rpartition(".")[0]) is not None
        assert tensor.tensor_type == gguf.GGMLQuantizationType.F32
        assert tensor.data_offset % 32 == 0
    numbers = sum(t.data.size for n, t in found.items() if n != "rope_freqs.weight")
    head = sum(w.numel() for n, w in model.weights().items() if n.startswith("unembed.") and config.output_head)
    assert numbers + head == config.n_parameters
    np.testing.assert_array_equal(found["token_embd.weight"].data, model.weights()["embeddings.token.weight"].numpy())
    assert tuple(found["blk.1.ffn_up.weight"].shape) == (config.d_model, config.ff_width)  # the fastest dimension first
    np.testing.assert_array_equal(found["blk.1.ffn_up.weight"].data, model.weights()["blocks.1.feedforward.up.weight"].numpy())
    assert ("output.weight" in found) == (not config.tie_weights and not config.output_head)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_values_say_what_the_model_is(tmp_path, name):
    model, path, _ = written(tmp_path, name, name="Hamlet")
    reader, config, kind = gguf.GGUFReader(path), model.config, name.split(",")[0]
    said = {key.removeprefix(kind + "."): field.contents() for key, field in reader.fields.items() if key.startswith(kind + ".")}
    wanted = {
        "context_length": 24, "embedding_length": 32, "block_count": 2, "feed_forward_length": 64, "attention.head_count": 4,
        "vocab_size": 40,
    }  # fmt: skip
    assert {key: said[key] for key in wanted} == wanted
    if kind in ("gpt2", "bert"):
        assert said["attention.layer_norm_epsilon"] == pytest.approx(config.norm_eps, rel=1e-6)
    else:
        assert said["attention.layer_norm_rms_epsilon"] == pytest.approx(config.norm_eps, rel=1e-6)
        assert said["attention.head_count_kv"] == config.kv_heads and said["rope.freq_base"] == config.rope_theta
        assert said["rope.dimension_count"] == said["attention.key_length"] == said["attention.value_length"] == config.head_width
    if name == "llama, linear":
        assert (said["rope.scaling.type"], said["rope.scaling.factor"]) == ("linear", 4.0)
    if kind == "bert":
        assert said["attention.causal"] is False and value(reader, "tokenizer.ggml.token_type_count") == config.n_token_types
    assert value(reader, "general.name") == "Hamlet" and value(reader, "general.file_type") == gguf.LlamaFileType.ALL_F32
    standard = [v for group in (gguf.Keys.General, gguf.Keys.LLM, gguf.Keys.Attention, gguf.Keys.Rope, gguf.Keys.Tokenizer)
                for k, v in vars(group).items() if not k.startswith("_")]  # fmt: skip
    ours = [key for key in reader.fields if key.startswith("tiny_transformer.")]
    assert {key.replace(kind + ".", "{arch}.", 1) for key in reader.fields if key not in ours and not key.startswith("GGUF.")} <= set(
        standard
    )
    assert all(key.startswith(("tiny_transformer.weight.unembed.", "tiny_transformer.rope_scaling")) for key in ours)


def test_types_of_the_values_are_those_of_their_own_writer(tmp_path):
    words = MetaspaceBPE(["<unk>", "▁", "a", "▁a"], [("▁", "a")], ["<unk>"], split=False, prepend="first")
    _, path, _ = written(tmp_path, tokenizer=words, dtype="q8_0")
    reader, types = gguf.GGUFReader(path), gguf.GGUFValueType
    wanted = {
        "general.architecture": [types.STRING], "general.file_type": [types.UINT32], "general.quantization_version": [types.UINT32],
        "llama.context_length": [types.UINT32], "llama.rope.freq_base": [types.FLOAT32],
        "tokenizer.ggml.tokens": [types.ARRAY, types.STRING],
        "tokenizer.ggml.scores": [types.ARRAY, types.FLOAT32], "tokenizer.ggml.token_type": [types.ARRAY, types.INT32],
        "tokenizer.ggml.add_space_prefix": [types.BOOL], "tokenizer.ggml.unknown_token_id": [types.UINT32],
    }  # fmt: skip
    assert {key: reader.get_field(key).types for key in wanted} == wanted


def test_the_factors_of_llama_3_are_those_of_transformers(tmp_path):
    _, path, _ = written(tmp_path, "llama, llama3")
    (factors,) = [tensor.data for tensor in gguf.GGUFReader(path).tensors if tensor.name == "rope_freqs.weight"]
    said = {"rope_type" if key == "type" else key: value for key, value in SCALING.items()}
    config = transformers.LlamaConfig(hidden_size=32, num_attention_heads=4, rope_parameters={"rope_theta": 500.0, **said})
    scaled, _ = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    np.testing.assert_allclose(rotary_frequencies(8, 500.0).numpy() / factors, scaled.numpy(), rtol=1e-6)
    assert factors.max() == 8 and factors.min() == 1


# --- numbers ----------------------------------------------------------------------------------------------------------


BLOCKS = hnp.arrays(np.float32, st.tuples(st.integers(1, 4), st.sampled_from([32, 96])), elements=st.floats(-1e4, 1e4, width=32))


@pytest.mark.filterwarnings("ignore::RuntimeWarning:gguf")  # the package divides by scales that are nearly 0
@given(BLOCKS)
@settings(max_examples=150, deadline=None)
def test_numbers_are_rounded_as_the_package_rounds_them(numbers):
    for name, kind in gguf_numbers.KINDS.items():
        theirs = gguf.GGMLQuantizationType[name]
        packed = gguf_numbers.pack(numbers, name)
        assert packed.nbytes == gguf_numbers.stored_bytes(name, numbers.shape)
        assert int(theirs) == kind.number and gguf.GGML_QUANT_SIZES[theirs] == (kind.block, kind.size)
        wanted = numbers.astype(np.float16) if name == "F16" else gguf.quants.quantize(numbers, theirs)
        np.testing.assert_array_equal(packed, np.ascontiguousarray(wanted).reshape(-1).view(np.uint8))
        back = gguf_numbers.unpack(packed, name, numbers.shape)
        expected = wanted.astype(np.float32) if name == "F16" else gguf.quants.dequantize(wanted, theirs)
        np.testing.assert_array_equal(back, expected)
        assert gguf_numbers.pack(back, name).tobytes() == packed.tobytes() or name == "Q8_0"


def test_halves_and_what_is_just_below_are_rounded_as_the_package_rounds_them():
    """With a largest number of 127 the scale is 1, and a block holds what is to be rounded."""
    numbers = np.array([127, *(k + h for k in range(5) for h in (0.5, -0.5, 0.25)), *np.zeros(16)], np.float32)
    numbers = np.stack([numbers, -numbers, np.nextafter(numbers, np.float32(0)), np.nextafter(numbers, np.float32(1000)), 0 * numbers])
    numbers[:, 0] = 127
    wanted = gguf.quants.quantize(numbers, gguf.GGMLQuantizationType.Q8_0)
    np.testing.assert_array_equal(gguf_numbers.pack(numbers, "Q8_0"), wanted.reshape(-1))
    assert gguf_numbers.pack(np.float32([[127, 0.5, -1.5, *[0.0] * 29]]), "Q8_0")[2:6].view(np.int8).tolist() == [127, 1, -2, 0]


def test_an_eight_bit_number_is_off_by_half_a_scale_at_most():
    numbers = np.random.default_rng(0).standard_normal((50, 64)).astype(np.float32)
    error = np.abs(gguf_numbers.unpack(gguf_numbers.pack(numbers, "Q8_0"), "Q8_0", numbers.shape) - numbers).reshape(-1, 32)
    scale = np.abs(numbers.reshape(-1, 32)).max(1) / 127
    assert (error.max(1) <= scale * (0.5 + 127 * 2**-11) + 1e-7).all() and error.max() > 0.2 * scale.max()


@pytest.mark.parametrize(("kind", "number"), [("F16", 7e4), ("Q8_0", 1e7), ("Q8_0", np.inf), ("Q8_0", np.nan)])
def test_numbers_that_do_not_fit_are_refused_by_the_tensor_s_name(kind, number):
    numbers = np.zeros((1, 32), np.float32)
    numbers[0, 3] = number
    with pytest.raises(ConfigError, match=r"output\.weight holds .* Choose bfloat16 or float32"):
        gguf_numbers.pack(numbers, kind, "output.weight")


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_type_of_numbers_in_a_file(tmp_path, dtype):
    """Matrices in the type; vectors and what is only added in float32; what is no multiple of 32 wide in float16 instead of eight bits."""
    config = replace(CONFIGS["gpt2"], d_ff=48)
    model, path = random_model(config), tmp_path / "model.gguf"
    write_gguf(model, path, dtype=dtype)
    reader = gguf.GGUFReader(path)
    kinds = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    matrix = DTYPES[dtype]
    assert kinds["token_embd.weight"] == kinds["blk.0.attn_qkv.weight"] == kinds["blk.1.ffn_up.weight"] == matrix
    assert kinds["blk.0.ffn_down.weight"] == ("F16" if matrix == "Q8_0" else matrix)
    assert kinds["position_embd.weight"] == kinds["blk.0.attn_qkv.bias"] == kinds["output_norm.weight"] == "F32"
    wanted = {"float32": "ALL_F32", "float16": "MOSTLY_F16", "bfloat16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}[dtype]
    assert value(reader, "general.file_type") == gguf.LlamaFileType[wanted]
    assert ("general.quantization_version" in reader.fields) == (dtype == "q8_0")
    ours = {name: GGUFFile(path).array(name) for name in kinds}
    for tensor in reader.tensors:
        np.testing.assert_array_equal(
            ours[tensor.name], gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(ours[tensor.name].shape)
        )
    again, _ = read_gguf(path)
    ids = torch.arange(20)[None]
    assert (again(ids) - model(ids)).abs().max() < {"float32": 1e-9, "float16": 0.1, "bfloat16": 1.0, "q8_0": 1.0}[dtype]
    write_gguf(again, tmp_path / "again.gguf", dtype=dtype, name=value(reader, "general.name"))
    assert (tmp_path / "again.gguf").read_bytes() == path.read_bytes() or dtype == "q8_0"


# --- back and forth ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGS)
def test_back_and_forth_is_the_identity(tmp_path, name):
    model, path, notes = written(tmp_path, name)
    again, tokenizer = pretrained.load_pretrained(path)
    assert tokenizer is None and not again.training
    filled = {"n_kv_heads": model.config.kv_heads, "d_head": model.config.head_width, "d_ff": model.config.ff_width}
    assert replace(again.config, **filled) == replace(model.config, **filled)
    weights = again.weights()
    assert list(weights) == list(model.weights())
    assert all(torch.equal(weights[name], weight) for name, weight in model.weights().items())
    assert bool(notes) == name.startswith("bert")


def test_other_types_of_weights_on_reading(tmp_path):
    model, path, _ = written(tmp_path)
    half, _ = read_gguf(path, torch.bfloat16)
    assert all(torch.equal(half.weights()[name], weight.bfloat16()) for name, weight in model.weights().items())


def test_bert_without_its_head_begins_it_anew(tmp_path):
    """As a BERT that others have converted: the format ends before the head."""
    model, path, _ = written(tmp_path, "bert")
    file = GGUFFile(path)
    values = {key: v for key, v in file.values.items() if not key.startswith(WEIGHT_KEY)}
    tensors = {name: ("F32", entry.shape, lambda name=name: file.array(name)) for name, entry in file.entries.items()}
    write_file(tmp_path / "other.gguf", values, tensors)
    again, _ = read_gguf(tmp_path / "other.gguf")
    ids = torch.arange(20)[None]
    assert torch.equal(again.hidden(ids), model.hidden(ids)) and not torch.equal(again(ids), model(ids))
    assert sorted(open_gguf(tmp_path / "other.gguf").new) == sorted(name for name in model.weights() if name.startswith("unembed."))


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_is_either_the_same_afterwards_or_refused_with_a_reason(tmp_path, option):
    model = random_model(small_config(option))
    try:
        write_gguf(model, tmp_path / "m.gguf")
    except ConfigError as error:
        assert "\n" not in str(error) and not list(tmp_path.iterdir())
        assert any(f"{key}=" in str(error) for key in [*OPTIONS[option], "activation"])
        return
    again, _ = read_gguf(tmp_path / "m.gguf")
    ids = torch.randint(17, (2, 12), generator=torch.Generator().manual_seed(0))
    assert (again(ids) - model(ids)).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"activation": "gelu"}, "activation='gelu': GGUF's gpt2 has activation='gelu_tanh'"),
        ({"activation": "relu"}, "activation='relu'"),
        ({**MODERN, "window": 5}, "window=5: GGUF's llama has window=None"),
        ({**MODERN, "bias": "qkv", "rope_scaling": SCALING}, "GGUF's qwen2 has rope_scaling=None"),
        ({**MODERN, "norm_eps": 1.000000001e-5}, "norm_eps=1.000000001e-05"),
        ({"position": "alibi"}, "position='alibi'"),
    ],
)
def test_what_an_architecture_can_not_say_is_refused(change, words):
    with pytest.raises(ConfigError, match="\\. (Train|Choose)") as caught:
        architecture_of(ModelConfig(**{**SMALL, "activation": "gelu_tanh", **change}))
    assert words in str(caught.value)


# --- transformers -----------------------------------------------------------------------------------------------------


ORACLE = {
    "llama, grouped": {}, "llama, one kv head, tied, odd width": {}, "qwen2": {"head_dim": None},
    "qwen3": {"head_dim": 128}, "gpt2": {"n_positions": 1024},
    "gpt2, untied, own width": {"n_positions": 1024, "n_inner": None, "activation_function": "gelu_new"},
}  # fmt: skip
"""What transformers can read of such a file: for GPT-2 not the context, for Qwen 3 not the width of a head."""


def read_by_transformers(like, path):
    """What from_pretrained(…, gguf_file=…) does, but for the memory it saves, which would need one package more."""
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    said = {"vocab_size": like.config.vocab_size, **load_gguf_checkpoint(path)["config"]}  # for GPT-2 it looks at the tokenizer
    config = like.config_class(**said)
    model = type(like)(config)
    found = load_gguf_checkpoint(path, return_tensors=True, model_to_load=model)["tensors"]
    lacking = model.load_state_dict(found, strict=False).missing_keys
    assert set(lacking) <= ({"lm_head.weight"} if config.tie_word_embeddings else set())
    model.tie_weights()
    return model.eval()


@pytest.mark.parametrize("name", ORACLE)
def test_from_transformers_through_us_to_gguf_and_back_to_transformers(tmp_path, name):
    changes = {key: value for key, value in ORACLE[name].items() if value is not None or key == "n_inner"}
    theirs = make(name, **changes)
    theirs.save_pretrained(tmp_path / "hf")
    ours, _ = pretrained.load_pretrained(tmp_path / "hf")
    write_gguf(ours, tmp_path / "model.gguf", byte_level(ours.config.vocab_size))
    again = read_by_transformers(theirs, tmp_path / "model.gguf")
    ids = torch.randint(1, 97, (2, 33), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted, found = theirs(ids).logits, again(ids).logits
    assert wanted.std() > 0.1 and (found - wanted).abs().max() < 1e-4
    back, _ = read_gguf(tmp_path / "model.gguf")
    assert all(torch.equal(back.weights()[name], weight) for name, weight in ours.weights().items())


@pytest.mark.parametrize("name", CASES)
def test_every_family_that_comes_in_goes_out_or_says_why(tmp_path, name):
    theirs = make(name)
    theirs.save_pretrained(tmp_path / "hf")
    ours, _ = pretrained.load_pretrained(tmp_path / "hf")
    refused = {
        "gpt2, untied, own width": "gelu", "mistral, window": "window=7", "qwen2, window": "window=7",
        "bert, three types, relu": "activation='relu'",
    }  # fmt: skip
    if name in refused:
        with pytest.raises(ConfigError, match=refused[name]):
            write_gguf(ours, tmp_path / "model.gguf")
        return
    write_gguf(ours, tmp_path / "model.gguf")
    again, _ = read_gguf(tmp_path / "model.gguf")
    ids = torch.randint(1, 97, (2, 33), generator=torch.Generator().manual_seed(1))
    assert torch.equal(again(ids), ours(ids))


# --- tokenizers -------------------------------------------------------------------------------------------------------


TEXT = "To be, or not to be: that's the question 1234 – naïve\n\n  Ay, there's the rub. "


def byte_level(size, split="gpt2"):
    """A tokenizer that fits a model with few rows would lack bytes; this one has as many tokens as asked for, or its 256."""
    return BPETokenizer.train(TEXT * 9, size, ["<|endoftext|>", "<|a b é|>"], split=split) if size >= 280 else None


def metaspace(**settings):
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *"▁tobenr,", "▁t", "▁to", "▁b", "▁be", "or"]
    merges = [("▁", "t"), ("▁t", "o"), ("▁", "b"), ("▁b", "e"), ("o", "r")]
    return MetaspaceBPE(pieces, merges, ["<unk>", "<s>", "</s>"], byte_fallback=True, **{"split": False, "prepend": "first", **settings})


WORDS = WordPieceTokenizer.train("to be or not to be that is the question unaffable " * 5, 60)
TOKENIZERS = {
    "gpt-2": byte_level(300),
    "llama-bpe": byte_level(300, LLAMA3),
    "qwen2": byte_level(300, QWEN2),
    "llama": metaspace(),
    "bert": WORDS,
}
OTHERS = {
    "gpt4's cuts": byte_level(300, "gpt4"), "characters": tokenization.train("char", TEXT), "bytes": tokenization.train("byte", ""),
    "words": tokenization.train("word", TEXT), "unigram": tokenization.train("unigram", TEXT * 5, 60),
}  # fmt: skip


def sized(tokenizer, spare=0):
    return replace(CONFIGS["llama"], vocab_size=tokenizer.vocab_size + spare)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokenizers_that_the_format_has_come_back_from_its_own_values(tmp_path, name):
    tokenizer, path = TOKENIZERS[name], tmp_path / "m.gguf"
    config = sized(tokenizer, spare=5)
    notes = write_gguf(random_model(config), path, tokenizer)
    reader = gguf.GGUFReader(path)
    model = {"llama": "llama", "bert": "bert"}.get(name, "gpt2")
    assert value(reader, "tokenizer.ggml.model") == model and OWN_KEY not in reader.fields and notes == []
    tokens, kinds = value(reader, "tokenizer.ggml.tokens"), value(reader, "tokenizer.ggml.token_type")
    assert len(tokens) == len(kinds) == len(set(tokens)) == config.vocab_size and kinds[-5:] == [gguf.TokenType.UNUSED] * 5
    special = tokenizer.special
    for ours, theirs in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"), ("mask", "mask")):
        field = reader.get_field(f"tokenizer.ggml.{theirs}_token_id")
        assert (None if field is None else field.contents()) == getattr(special, ours)
    for i in tokenizer.special_tokens.values():
        assert kinds[i] in (gguf.TokenType.CONTROL, gguf.TokenType.UNKNOWN)
    _, again = read_gguf(path)
    assert type(again) is type(tokenizer) and again.to_dict() == tokenizer.to_dict()
    assert again.encode(TEXT) == tokenizer.encode(TEXT)
    if model == "gpt2":
        assert value(reader, "tokenizer.ggml.pre") == name and kinds[tokenizer.special.eos] == gguf.TokenType.CONTROL


@pytest.mark.parametrize("name", ["gpt-2", "llama-bpe", "qwen2"])
def test_transformers_reads_the_same_tokenizer(tmp_path, name):
    tokenizer = TOKENIZERS[name]
    write_gguf(random_model(sized(tokenizer)), tmp_path / "m.gguf", tokenizer)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
    for text in (TEXT, "not to be<|endoftext|>or", "  \n\n naïve 12345 x"):
        assert theirs.encode(text, add_special_tokens=False) == tokenizer.encode(text)


def test_bert_s_words_are_spelled_as_the_format_wants(tmp_path):
    values, _ = to_values(WORDS, WORDS.vocab_size)
    for piece, token in zip(WORDS.pieces, values["tokenizer.ggml.tokens"], strict=True):
        assert token == (piece if piece in WORDS.special_tokens else piece.removeprefix("##") if piece.startswith("##") else "▁" + piece)
    assert values["tokenizer.ggml.seperator_token_id"] == WORDS.ids["[SEP]"] and values["tokenizer.ggml.cls_token_id"] == WORDS.ids["[CLS]"]


@pytest.mark.parametrize("name", OTHERS)
def test_other_tokenizers_come_back_from_a_value_of_ours_and_others_see_none(tmp_path, name):
    tokenizer, path = OTHERS[name], tmp_path / "m.gguf"
    notes = write_gguf(random_model(sized(tokenizer)), path, tokenizer)
    reader = gguf.GGUFReader(path)
    assert value(reader, "tokenizer.ggml.model") == "none" and "tokenizer.ggml.tokens" not in reader.fields
    assert json.loads(value(reader, OWN_KEY)) == tokenizer.to_dict() and len(notes) == 1 and OWN_KEY in notes[0]
    assert read_gguf(path)[1].to_dict() == tokenizer.to_dict()
    assert read_gguf(path, tokenizer=False)[1] is None


@pytest.mark.parametrize(
    "tokenizer",
    [
        NormalizedTokenizer(byte_level(300), [{"type": "NFC"}]), metaspace(split=True), metaspace(fuse_unknown=False),
        WordPieceTokenizer(WORDS.pieces, WORDS.special_tokens, cleanup=False),
    ],
    ids=["normalizer", "split", "unknown", "cleanup"],
)  # fmt: skip
def test_settings_that_the_values_lack_go_along(tokenizer):
    values, notes = to_values(tokenizer, tokenizer.vocab_size)
    assert values["tokenizer.ggml.model"] != "none" and OWN_KEY in values and len(notes) == 1
    assert from_values(values).to_dict() == tokenizer.to_dict()


def test_merges_follow_from_scores_where_a_file_has_none():
    """SentencePiece's own files have scores only: neighbours with the best join first."""
    tokenizer = TOKENIZERS["llama"]
    values, _ = to_values(tokenizer, tokenizer.vocab_size)
    del values["tokenizer.ggml.merges"]
    again = from_values(values)
    for text in (TEXT, "to be or not to be", "bottor tobe"):
        assert again.encode(text) == tokenizer.encode(text)
    assert recover_merges(["a", "b", "ab", "ba", "aba"], [0, 0, -2, -1, -3], set()) == [
        ("b", "a"), ("a", "b"), ("a", "ba"), ("ab", "a"),
    ]  # fmt: skip


def test_a_tokenizer_that_is_too_large_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="the tokenizer has 300 tokens: the model has 40"):
        written(tmp_path, tokenizer=TOKENIZERS["gpt-2"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tokenizer.ggml.model": "rwkv"}, "kind 'rwkv': read are gpt2, llama, bert"), ({"tokenizer.ggml.pre": "tekken"}, "as 'tekken'"),
        ({"tokenizer.ggml.token_type": [1]}, "each token needs one type"),
        ({"tokenizer.ggml.tokens": ["日本", "a"], "tokenizer.ggml.token_type": [1, 1]}, "日"),
        ({"tokenizer.ggml.merges": None}, "lacks"), ({OWN_KEY: "{"}, OWN_KEY),
    ],
)  # fmt: skip
def test_tokenizers_that_we_do_not_have_are_refused_in_one_line(change, words):
    values, _ = to_values(TOKENIZERS["gpt-2"], 300)
    values = {key: v for key, v in {**values, **change}.items() if v is not None}
    with pytest.raises(ConfigError) as caught:
        from_values(values)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_the_chat_template_goes_along(tmp_path):
    template = ChatTemplate("{{ messages[0].content }}{{ eos_token }}", eos="<|endoftext|>")
    tokenizer = TOKENIZERS["gpt-2"]
    write_gguf(random_model(sized(tokenizer)), tmp_path / "m.gguf", tokenizer, chat_template=template)
    assert value(gguf.GGUFReader(tmp_path / "m.gguf"), "tokenizer.chat_template") == template.text
    assert open_gguf(tmp_path / "m.gguf").chat_template == template
    assert open_gguf(written(tmp_path)[1]).chat_template is None


# --- files of others, and damaged ones --------------------------------------------------------------------------------


def theirs(path, model, change=None, skip=()):
    """The same model, written by the package."""
    mine = GGUFFile(path)
    writer = gguf.GGUFWriter(path.with_name("theirs.gguf"), mine.values["general.architecture"])
    for key, v in {**mine.values, **(change or {})}.items():
        if key == "general.architecture" or key in skip:
            continue
        add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}.get(
            type(v), writer.add_array
        )
        add(key, v)
    for name in mine.entries:
        if name not in skip:
            writer.add_tensor(name, mine.array(name))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.with_name("theirs.gguf")


@pytest.mark.parametrize("name", CONFIGS)
def test_files_of_the_package_are_read(tmp_path, name):
    model, path, _ = written(tmp_path, name)
    optional = (
        "general.alignment",
        "general.type",
        *(f"{kind}.{key}" for kind in ARCHITECTURES for key in ("vocab_size", "attention.value_length")),
    )
    again, _ = read_gguf(theirs(path, model, {"general.author": "others", "general.tags": ["a", "b"]}, skip=optional))
    assert all(torch.equal(again.weights()[name], weight) for name, weight in model.weights().items())


@pytest.mark.parametrize(
    ("name", "change", "skip", "words"),
    [
        ("llama", {"llama.expert_count": 8}, (), ["llama.expert_count=8", "not known here"]),
        ("llama", {"llama.rope.scaling.type": "yarn"}, (), ["rope.scaling.type='yarn'", "none and linear"]),
        ("llama", {"llama.attention.sliding_window": 7}, (), ["llama.attention.sliding_window=7"]),
        ("llama", {"llama.attention.value_length": 4}, (), ["llama.attention.value_length=4", "must be 8"]),
        ("llama", {}, ("llama.block_count",), ["does not say block_count"]),
        ("bert", {"bert.attention.causal": True}, (), ["bert.attention.causal=True"]),
        ("llama, llama3", {}, ("tiny_transformer.rope_scaling",), ["rope_freqs.weight"]),
        ("llama", {}, ("blk.1.ffn_up.weight", "blk.0.attn_k.weight"), ["2 differences", "missing blk.1.ffn_up.weight (64, 32)",
          "missing blk.0.attn_k.weight (16, 32)"]),
        ("llama", {"llama.block_count": 1}, (), ["9 differences", "unexpected blk.1.attn_q.weight (32, 32)"]),
        ("llama", {"llama.feed_forward_length": 63}, (), ["blk.0.ffn_down.weight has shape (32, 64), must be (32, 63)"]),
        ("llama", {}, ("token_embd.weight",), ["no token_embd.weight"]),
    ],
)  # fmt: skip
def test_what_we_do_not_have_is_refused_by_name(tmp_path, name, change, skip, words):
    model, path, _ = written(tmp_path, name)
    file = theirs(path, model, change, skip)
    with pytest.raises(ConfigError) as caught:
        read_gguf(file)
    assert all(word in str(caught.value) for word in [*words, str(file)]) and "\n" not in str(caught.value)


def test_other_architectures_and_types_are_refused_by_name(tmp_path):
    path = tmp_path / "m.gguf"
    write_file(path, {"general.architecture": "mamba"}, {})
    with pytest.raises(ConfigError, match="general.architecture='mamba': it must be one of gpt2, llama, qwen2, qwen3, bert"):
        read_gguf(path)
    _, path, _ = written(tmp_path)
    data = bytearray(path.read_bytes())
    at = data.index(b"blk.1.ffn_up.weight") + len("blk.1.ffn_up.weight") + 4 + 16
    assert data[at : at + 4] == bytes(4)
    data[at : at + 4] = struct.pack("<I", 12)  # Q4_K
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=r"blk\.1\.ffn_up\.weight has numbers of type number 12: it must be F32, F16, BF16, Q8_0"):
        read_gguf(path)


def test_a_cut_file_is_refused_wherever_it_is_cut(tmp_path):
    _, path, _ = written(tmp_path, tokenizer=None)
    data = path.read_bytes()
    for length in [*range(0, 3000, 19), len(data) // 2, len(data) - 33]:
        path.write_bytes(data[:length])
        with pytest.raises(ConfigError, match=r"model\.gguf is no GGUF file, or it was cut or damaged \(.*; byte [\d,]+\)\. Get it again"):
            open_gguf(path)


def test_a_damaged_header_is_an_error_of_one_line_or_changes_no_shape(tmp_path):
    model, path, _ = written(tmp_path, dtype="q8_0")
    data, random = path.read_bytes(), np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(data)
        damaged[random.integers(0, 2500)] ^= 1 << random.integers(0, 8)
        path.write_bytes(damaged)
        try:
            shapes = {name: array.shape for name, array in weights_of(open_gguf(path))}
        except ConfigError as error:
            assert "\n" not in str(error) and "model.gguf" in str(error)
        else:
            assert shapes == {name: tuple(weight.shape) for name, weight in model.weights().items()}


@pytest.mark.parametrize(
    ("position", "data", "words"),
    [
        (0, b"GGML", "not GGUF; byte 0"), (4, struct.pack("<I", 1), "version 1"), (4, struct.pack(">I", 3), "little-endian"),
        (16, struct.pack("<Q", 2**40), "no GGUF file"), (8, struct.pack("<Q", 2**40), "no GGUF file"),
        (24, struct.pack("<Q", 2**30), "the name of a value should have 1,073,741,824 bytes; byte 32"),
    ],
)  # fmt: skip
def test_what_is_wrong_and_where_is_said(tmp_path, position, data, words):
    _, path, _ = written(tmp_path)
    damaged = bytearray(path.read_bytes())
    damaged[position : position + len(data)] = data
    path.write_bytes(damaged)
    with pytest.raises(ConfigError) as caught:
        open_gguf(path)
    assert words in str(caught.value)


def test_names_that_come_twice_and_overlong_tensors(tmp_path):
    path = tmp_path / "m.gguf"
    ones = np.ones((1, 32), np.float32)
    write_file(path, {"aa": 1, "ab": 2}, {"ta": ("F32", (1, 32), lambda: ones), "tb": ("F32", (1, 32), lambda: ones)})
    data = path.read_bytes()
    for old, new, words in ((b"ab", b"aa", "the value aa is there twice"), (b"tb", b"ta", "the tensor ta is there twice")):
        path.write_bytes(data.replace(old, new, 1))
        with pytest.raises(ConfigError, match=words):
            GGUFFile(path)
    at = data.index(b"tb") + 2 + 4 + 16 + 4
    for place, words in ((1 << 20, "tensor tb ends at byte"), (8, "tensor tb begins at 8, no multiple of 32")):
        path.write_bytes(data[:at] + struct.pack("<Q", place) + data[at + 8 :])
        with pytest.raises(ConfigError, match=words):
            GGUFFile(path)


JSON_LIKE = st.one_of(
    st.booleans(), st.integers(0, 2**64 - 1), st.floats(width=32, allow_nan=False), st.text(max_size=20),
    st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=5), st.lists(st.text(max_size=5), max_size=5),
)  # fmt: skip


def same(found, v):
    """Fractions have float32's digits."""
    return type(found) is type(v) and (np.float32(found) == np.float32(v) if isinstance(v, float) else found == v)


@given(st.dictionaries(st.text("abc._", min_size=1, max_size=8), JSON_LIKE, max_size=6), st.lists(st.integers(1, 3), max_size=4))
@settings(max_examples=25, deadline=None)
def test_any_values_and_shapes_come_back_here_and_in_the_package(tmp_path_factory, values, shape):
    path = tmp_path_factory.mktemp("any") / "m.gguf"
    numbers = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    write_file(path, values, {"t": ("F32", tuple(shape), lambda: numbers)})
    file = GGUFFile(path)
    assert list(file.values) == list(values) and all(same(file.values[key], v) for key, v in values.items())
    assert file.entries["t"].shape == tuple(shape)
    np.testing.assert_array_equal(file.array("t"), numbers)
    reader = gguf.GGUFReader(path)
    for key, v in values.items():
        if v != []:
            assert same(reader.get_field(key).contents(), v)
    np.testing.assert_array_equal(reader.tensors[0].data.reshape(shape), numbers)


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path):
    """A run with a Llama of ours and a tokenizer."""
    tokenizer = TOKENIZERS["gpt-2"]
    model = random_model(sized(tokenizer))
    made = run.Run.create(tmp_path / "run", {"model": model.config.to_dict()})
    lineage = {"chat_template": ChatTemplate("{{ bos_token }}", eos="<|endoftext|>").to_dict()}
    made.save(Checkpoint(model.config, tokenizer.to_dict(), model.weights(), lineage=lineage), "best")
    return tmp_path / "run", model, tokenizer


def test_tiny_export_and_back(tmp_path, checkpoint, capsys):
    folder, model, tokenizer = checkpoint
    assert main(["export", str(folder), str(tmp_path / "out"), "--format", "gguf"]) == 0
    out, file = capsys.readouterr().out, tmp_path / "out" / "model.gguf"
    assert "GGUF's llama" in out and str(file) in out and "model.gguf" in out
    again, words = pretrained.load_pretrained(file)
    assert words.to_dict() == tokenizer.to_dict() and open_gguf(file).chat_template is not None
    assert all(torch.equal(again.weights()[name], weight) for name, weight in model.weights().items())
    assert main(["export", str(folder), str(tmp_path / "small.gguf"), "--format", "gguf", "--dtype", "q8_0", "--no-tokenizer"]) == 0
    assert read_gguf(tmp_path / "small.gguf")[1] is None
    assert (tmp_path / "small.gguf").stat().st_size < 0.6 * file.stat().st_size
    assert main(["export", str(folder), str(tmp_path / "small.gguf"), "--format", "gguf", "--dtype", "q4_0"]) == 2
    assert "float32, float16, bfloat16, q8_0" in capsys.readouterr().err


def test_tiny_import_reads_a_file(tmp_path, checkpoint, capsys):
    folder, model, tokenizer = checkpoint
    assert main(["export", str(folder), str(tmp_path / "m.gguf"), "--format", "gguf"]) == 0
    assert main(["import", str(tmp_path / "m.gguf"), str(tmp_path / "again")]) == 0
    out = capsys.readouterr().out
    assert "GGUF" in out and "300 tokens" in out and "tiny chat" in out
    again, words = run.load(tmp_path / "again")
    assert all(torch.equal(again.weights()[name], weight) for name, weight in model.weights().items())
    assert words.to_dict() == tokenizer.to_dict()
    record = json.loads((tmp_path / "again/config.json").read_text())["imported"]
    assert record["imported_from"] == str((tmp_path / "m.gguf").resolve()) and set(record["sha256"]) == {"m.gguf"}
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    assert main(["import", str(tmp_path / "m.gguf"), str(tmp_path / "third")]) == 2
    assert "m.gguf is no GGUF file" in capsys.readouterr().err and not (tmp_path / "third").exists()


def test_tiny_import_leaves_a_tokenizer_that_we_do_not_have(tmp_path, checkpoint, capsys):
    folder, model, _ = checkpoint
    file, lame = tmp_path / "m.gguf", tmp_path / "lame.gguf"
    assert main(["export", str(folder), str(file), "--format", "gguf"]) == 0
    read = GGUFFile(file)
    tensors = {name: (entry.kind, entry.shape, partial(read.array, name)) for name, entry in read.entries.items()}
    write_file(lame, {**read.values, "tokenizer.ggml.pre": "tekken"}, tensors)
    capsys.readouterr()
    assert main(["import", str(lame), str(tmp_path / "new")]) == 2
    err = capsys.readouterr().err
    assert "'tekken'" in err and "--no-tokenizer" in err and err.count("\n") == 1 and not (tmp_path / "new").exists()
    assert main(["import", str(lame), str(tmp_path / "new"), "--no-tokenizer"]) == 0
    again, tokenizer = run.load(tmp_path / "new")
    assert tokenizer is None
    assert all(torch.equal(again.weights()[name], weight) for name, weight in model.weights().items())


def test_tiny_inspect_shows_a_file(tmp_path, checkpoint, capsys):
    folder, model, _ = checkpoint
    file = tmp_path / "m.gguf"
    assert main(["export", str(folder), str(file), "--format", "gguf", "--dtype", "q8_0"]) == 0
    capsys.readouterr()
    assert main(["inspect", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kind"] == "GGUF's llama" and found["tokenizer"] == "BPETokenizer, 300 tokens"
    assert [one["sha256"] for one in found["files"]] == [hashlib.sha256(file.read_bytes()).hexdigest()]
    assert ModelConfig.from_dict(found["config"]) == open_gguf(file).config
    assert sum(found["parts"].values()) == model.config.n_parameters == sum(math.prod(t["shape"]) for t in found["tensors"])
    theirs = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    kinds = {t["name"]: (t["dtype"], tuple(t["shape"])) for t in found["tensors"]}
    assert kinds == {name: (one.tensor_type.name, tuple(map(int, one.shape[::-1]))) for name, one in theirs.items()}
    assert sorted(t["ours"] for t in found["tensors"]) == sorted(model.weights())
    assert main(["inspect", str(file)]) == 0
    assert "blk.N.ffn_up.weight" in capsys.readouterr().out


def test_tiny_inspect_shows_what_it_can_of_a_file_that_we_can_not_load(tmp_path, capsys):
    write_file(tmp_path / "m.gguf", {"general.architecture": "rwkv7"}, {"a": ("F32", (2, 3), lambda: np.zeros((2, 3), np.float32))})
    assert main(["inspect", str(tmp_path / "m.gguf")]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "it can't be loaded" in out and "rwkv7" in out and "2 × 3" in out
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    assert main(["inspect", str(tmp_path / "m.gguf")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_lists_within_lists_without_end_are_damage(tmp_path):
    depth = 100_000
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"a" + struct.pack("<I", 9)
    (tmp_path / "deep.gguf").write_bytes(head + struct.pack("<IQ", 9, 1) * depth + bytes(64))
    with pytest.raises(ConfigError, match=r"deep\.gguf is no GGUF file.*lists within lists"):
        open_gguf(tmp_path / "deep.gguf")


def test_an_older_file_stays_when_writing_fails(tmp_path):
    model, path, _ = written(tmp_path)
    before = path.read_bytes()
    with torch.no_grad():
        model.norm.weight.fill_(1.0)
        model.unembed.weight[0, 0] = 1e6
    with pytest.raises(ConfigError, match=r"output\.weight holds 1e\+06"):
        write_gguf(model, path, dtype="float16")
    assert path.read_bytes() == before and [p.name for p in Path(tmp_path).iterdir()] == ["model.gguf"]


def test_linear_scaling_and_llama_dict(tmp_path):
    """Older files say a linear stretch in another way."""
    model, path, _ = written(tmp_path, "llama, linear")
    old = theirs(path, model, {"llama.rope.scale_linear": 4.0}, skip=("llama.rope.scaling.type", "llama.rope.scaling.factor"))
    assert read_gguf(old)[0].config.rope_scaling == {"type": "linear", "factor": 4.0}
    assert LLAMA["num_key_value_heads"] == 2
