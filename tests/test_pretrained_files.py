"""The files of other people's weights: every tensor accounted for, damage named, nothing read twice, and little memory."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save, save_file
from safetensors.torch import save_file as save_torch

from benchmarks.constant_weights import write_constant
from benchmarks.peak_memory import READABLE, peak_of
from tiny_transformer.config import ConfigError
from tiny_transformer.numpy_engine.model import init_weights, weight_shapes
from tiny_transformer.pretrained import load_pretrained
from tiny_transformer.pretrained.accounting import open_source
from tiny_transformer.pretrained.families import FAMILIES
from tiny_transformer.pretrained.family import to_hugging_face, to_model_config
from tiny_transformer.pretrained.loading import tensors
from tiny_transformer.pretrained.names import Rule, rules_of
from tiny_transformer.pretrained.weight_files import WeightFiles
from tiny_transformer.utils.safetensors_file import SafetensorsFile, row_chunks, widen

ROOT = Path(__file__).resolve().parent.parent
SMALL = {"n_layer": 2, "n_embd": 12, "n_head": 3, "vocab_size": 11, "n_positions": 8}
LLAMA = {
    "vocab_size": 11, "max_position_embeddings": 16, "hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 2,
    "num_attention_heads": 3, "num_key_value_heads": 1,
}  # fmt: skip
BERT = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 16, "vocab_size": 11}


def theirs(kind="gpt2", values=SMALL):
    """(their config.json, their tensors, our weights): random, by our own tables; test_pretrained.py holds the tables to transformers."""
    family = FAMILIES[kind]
    config = to_model_config(family, values)
    ours = init_weights(config, seed=3)
    draw = np.random.default_rng(0)
    ours = {name: draw.standard_normal(array.shape, dtype=np.float32) for name, array in ours.items()}
    return to_hugging_face(family, config), {one.theirs: one.join(ours) for one in rules_of(family.table, config)}, ours


def write(folder, values, weights):
    (folder / "config.json").write_text(json.dumps(values))
    save_file(weights, folder / "model.safetensors")
    return folder


def problem(folder):
    with pytest.raises(ConfigError) as caught:
        load_pretrained(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- accounting -------------------------------------------------------------------------------------------------------


def test_there_and_back_without_a_bit_of_difference(tmp_path):
    for kind, values in (("gpt2", SMALL), ("llama", LLAMA), ("qwen2", LLAMA), ("qwen3", LLAMA), ("bert", BERT)):
        folder = tmp_path / kind
        folder.mkdir()
        config, weights, ours = theirs(kind, values)
        model, _ = load_pretrained(write(folder, config, weights))
        assert set(model.weights()) == set(ours)
        assert all((model.weights()[name].numpy() == array).all() for name, array in ours.items())
        source = open_source(folder)
        assert source.notes == []
        assert {name for name, _ in tensors(source)} == set(ours)


def test_all_differences_are_told_at_once(tmp_path):
    config, weights, _ = theirs()
    del weights["transformer.h.1.ln_2.bias"]
    weights["transformer.h.0.mlp.c_fc.weight"] = np.ascontiguousarray(weights["transformer.h.0.mlp.c_fc.weight"].T)
    weights["transformer.wpe.weight"] = weights["transformer.wpe.weight"][:5]
    weights["score.weight"] = np.ones((2, 12), np.float32)
    weights["transformer.ln_f.weight"] = np.ones(12, np.int64)
    line = problem(write(tmp_path, config, weights))
    for words in (
        "5 differences", "missing transformer.h.1.ln_2.bias (12,)", "unexpected score.weight (2, 12)",
        "transformer.h.0.mlp.c_fc.weight has shape (48, 12), must be (12, 48)", "transformer.wpe.weight has shape (5, 12), must be (8, 12)",
        "transformer.ln_f.weight has numbers of type I64",
    ):  # fmt: skip
        assert words in line, words


def test_a_file_of_eight_bit_numbers_is_refused(tmp_path):
    config, weights, _ = theirs()
    content = {name: torch.from_numpy(array) for name, array in weights.items()}
    content["transformer.wte.weight"] = content["transformer.wte.weight"].to(torch.float8_e4m3fn)
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_torch(content, tmp_path / "model.safetensors")
    assert "transformer.wte.weight has numbers of type F8_E4M3" in problem(tmp_path)


def test_names_without_the_prefix_and_buffers_and_old_spellings(tmp_path):
    config, weights, ours = theirs()
    short = {name.removeprefix("transformer."): array for name, array in weights.items()}
    short |= {"h.0.attn.bias": np.ones((1, 1, 8, 8), np.uint8), "h.1.attn.masked_bias": np.array(-1e4, np.float32)}
    model, _ = load_pretrained(write(tmp_path, config, short))
    assert (model.weights()["norm.weight"].numpy() == ours["norm.weight"]).all()
    assert len(open_source(tmp_path).account.ignored) == 2

    config, weights, ours = theirs("bert", BERT)
    old = {
        n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): array for n, array in weights.items()
    }
    old["bert.embeddings.position_ids"] = np.arange(512)[None]
    old["cls.predictions.decoder.weight"] = weights["bert.embeddings.word_embeddings.weight"]
    old["cls.predictions.decoder.bias"] = old.pop("cls.predictions.bias")  # only the copy is there
    model, _ = load_pretrained(write(tmp_path, config, old))
    assert all((model.weights()[name].numpy() == array).all() for name, array in ours.items())


def test_both_spellings_of_one_weight_are_a_difference(tmp_path):
    config, weights, _ = theirs()
    weights["wte.weight"] = weights["transformer.wte.weight"] + 1
    assert "are the same weight" in problem(write(tmp_path, config, weights))


def test_a_tied_output_that_says_something_else_is_refused(tmp_path):
    config, weights, _ = theirs()
    weights["lm_head.weight"] = weights["transformer.wte.weight"].copy()
    load_pretrained(write(tmp_path, config, weights))
    weights["lm_head.weight"][-1, -1] += 1e-3
    assert "lm_head.weight differs from transformer.wte.weight" in problem(write(tmp_path, config, weights))
    weights["lm_head.weight"] = weights["lm_head.weight"][:5]
    assert "lm_head.weight has shape (5, 12)" in problem(write(tmp_path, config, weights))
    config["tie_word_embeddings"] = False
    weights["lm_head.weight"] = weights["transformer.wte.weight"] + 1
    model, _ = load_pretrained(write(tmp_path, config, weights))
    assert (model.weights()["unembed.weight"].numpy() == weights["lm_head.weight"]).all()
    del weights["lm_head.weight"]
    assert "missing lm_head.weight (11, 12)" in problem(write(tmp_path, config, weights))


def test_a_part_of_berts_head_is_missed_by_name(tmp_path):
    """Without the whole head it begins anew; without a part of it something is wrong."""
    config, weights, _ = theirs("bert", BERT)
    del weights["cls.predictions.transform.dense.bias"]
    assert "missing cls.predictions.transform.dense.bias" in problem(write(tmp_path, config, weights))


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.integers(1, 5), min_size=1, max_size=4), columns=st.integers(0, 4), turned=st.booleans())
def test_a_rule_goes_both_ways(rows, columns, turned):
    shapes = {f"w{i}": (n, columns) if columns else (n,) for i, n in enumerate(rows)}
    draw = np.random.default_rng(0)
    ours = {name: draw.standard_normal(shape) for name, shape in shapes.items()}
    one = Rule("theirs", tuple(shapes), transposed=turned)
    joined = one.join(ours)
    assert joined.shape == one.their_shape(shapes) and joined.flags.c_contiguous
    back = one.split(joined, shapes)
    assert list(back) == list(ours) and all((back[name] == ours[name]).all() for name in ours)


@pytest.mark.parametrize("kind", FAMILIES)
def test_tables_name_each_weight_once(kind):
    config = to_model_config(FAMILIES[kind], {"num_hidden_layers": 2, "n_layer": 2})
    rules = rules_of(FAMILIES[kind].table, config)
    assert sorted(name for one in rules for name in one.ours) == sorted(weight_shapes(config))
    assert len({one.theirs for one in rules}) == len(rules)


# --- safetensors ------------------------------------------------------------------------------------------------------

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


@settings(max_examples=30, deadline=None)
@given(
    shapes=st.lists(st.lists(st.integers(0, 4), max_size=3), min_size=1, max_size=5),
    dtypes=st.lists(st.sampled_from(DTYPES), min_size=5, max_size=5),
    metadata=st.dictionaries(st.text("ab é", min_size=1, max_size=3), st.text(max_size=4), max_size=2),
)
def test_what_their_library_writes_is_read_the_same(tmp_path_factory, shapes, dtypes, metadata):
    path = tmp_path_factory.mktemp("st") / "a.safetensors"
    content = {f"t{i}": torch.randn(shape).to(dtype) for i, (shape, dtype) in enumerate(zip(shapes, dtypes, strict=False))}
    save_torch(content, path, metadata or None)
    file = SafetensorsFile(path)
    assert set(file.entries) == set(content) and file.metadata == metadata
    for name, tensor in content.items():
        entry = file.entries[name]
        assert entry.shape == tuple(tensor.shape) and entry.size == tensor.numel()
        read = widen(file.array(name), entry.dtype)
        file.release(name)
        assert read.dtype == np.float32 and np.array_equal(read, tensor.float().numpy(), equal_nan=True)
        assert np.array_equal(widen(file.array(name), entry.dtype), read), "after its memory was given back it is read again"


def test_every_bfloat16_is_widened_as_torch_does():
    bits = np.arange(2**16, dtype=np.uint16)
    wanted = torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16).float().numpy()
    assert (widen(bits, "BF16").view(np.uint32) == wanted.view(np.uint32)).all()


@pytest.mark.parametrize("shape", [(), (1,), (7,), (5, 3), (2, 3, 4), (3_000_000,), (3, 1_500_000), (0, 4)])
def test_row_chunks_cover_each_row_once(shape):
    array = np.zeros(shape, np.int8)
    chunks = list(row_chunks(array))
    for rows in chunks:
        if shape:
            array[rows] += 1
            assert array[rows].size <= max(1 << 18, array[:1].size)
    assert not shape or (array == 1).all()
    assert shape != (3_000_000,) or len(chunks) == 12


def damaged(content):
    """Files that are almost right."""
    length = struct.unpack("<Q", content[:8])[0]
    header, body = json.loads(content[8 : 8 + length]), content[8 + length :]

    def again(change, rest=body):
        new = json.loads(json.dumps(header))
        change(new)
        text = json.dumps(new).encode()
        return struct.pack("<Q", len(text)) + text + rest

    yield "empty", b""
    yield "five bytes", content[:5]
    yield "cut in the header", content[: 8 + length // 2]
    yield "cut in the body", content[:-3]
    yield "too long", content + b"x"
    yield "huge header", struct.pack("<Q", 2**62) + content[8:]
    yield "no JSON", content[:8] + b"\xff" * length + body
    yield "a list", struct.pack("<Q", 2) + b"[]" + body
    yield "no dtype", again(lambda h: h["a"].pop("dtype"))
    yield "no shape", again(lambda h: h["a"].pop("shape"))
    yield "overlap", again(lambda h: h["b"].update(data_offsets=[0, 16]))
    yield "overlap that ends where the file does", again(lambda h: h["b"].update(data_offsets=[8, 24]), body[:24])
    yield "gap", again(lambda h: h.pop("a"))
    yield "other shape", again(lambda h: h["a"].update(shape=[3, 3]))
    yield "negative", again(lambda h: h["a"].update(shape=[-2, -3]))
    yield "words", again(lambda h: h["a"].update(shape=["two", 3]))
    yield "one place", again(lambda h: h["a"].update(data_offsets=[0]))
    yield "deep", struct.pack("<Q", 200_000) + b"[" * 200_000


def test_damaged_files_are_refused_by_name(tmp_path):
    path = tmp_path / "model.safetensors"
    for what, content in damaged(save({"a": np.ones((2, 3), np.float32), "b": np.ones(4, np.float32)})):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"model\.safetensors") as caught:
            SafetensorsFile(path)
        assert "\n" not in str(caught.value), what


def test_a_tensor_that_does_not_lie_at_a_multiple_of_four_is_read(tmp_path):
    odd = {"a": {"dtype": "I8", "shape": [3], "data_offsets": [0, 3]}, "b": {"dtype": "F32", "shape": [2], "data_offsets": [3, 11]}}
    header = json.dumps(odd)
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header.encode() + bytes(3) + struct.pack("<2f", 1.5, -2))
    assert SafetensorsFile(tmp_path / "x.safetensors").array("b").tolist() == [1.5, -2.0]


# --- several files, pickles -------------------------------------------------------------------------------------------


def shards(folder):
    config, weights, ours = theirs()
    names = list(weights)
    parts = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for file, keys in parts.items():
        save_file({key: weights[key] for key in keys}, folder / file)
    (folder / "config.json").write_text(json.dumps(config))
    wanted = {key: file for file, keys in parts.items() for key in keys}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": wanted}))
    return index, wanted, ours


def test_an_index_that_does_not_fit_tells_all_at_once(tmp_path):
    index, wanted, ours = shards(tmp_path)
    model, _ = load_pretrained(tmp_path)
    assert all((model.weights()[name].numpy() == array).all() for name, array in ours.items())
    first, second = list(wanted)[:2]
    changed = {**wanted, first: "two.safetensors", "more": "one.safetensors", "gone": "three.safetensors"}
    del changed[second]
    index.write_text(json.dumps({"weight_map": changed}))
    line = problem(tmp_path)
    for words in ("three.safetensors is not there", "more is not in one.safetensors", f"{first} is not in two.safetensors",
                  f"{second} in one.safetensors is not in the index"):  # fmt: skip
        assert words in line, words


@pytest.mark.parametrize("name", ["../one.safetensors", "/etc/passwd", "sub/one.safetensors", "..", "one.pkl", 3])
def test_an_index_names_files_beside_it_only(name, tmp_path):
    index, wanted, _ = shards(tmp_path)
    index.write_text(json.dumps({"weight_map": {**wanted, "x": name}}))
    assert "must lie beside their index" in problem(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": 3}'])
def test_a_damaged_index_is_named(content, tmp_path):
    index, _, _ = shards(tmp_path)
    index.write_text(content)
    assert "model.safetensors.index.json is no index" in problem(tmp_path)


class Evil:
    """Runs when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch evil",)


def test_a_pickle_that_could_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config, weights, _ = theirs()
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.save({"a": Evil()}, tmp_path / "pytorch_model.bin")
    assert "could run code" in problem(tmp_path)
    assert not (tmp_path / "evil").exists()
    torch.save({"state": {name: torch.from_numpy(array) for name, array in weights.items()}}, tmp_path / "pytorch_model.bin")
    assert "holds something else" in problem(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK nothing")
    assert "no file of PyTorch tensors" in problem(tmp_path)


def test_sharded_pickles_are_read(tmp_path):
    config, weights, ours = theirs("llama", LLAMA)
    (tmp_path / "config.json").write_text(json.dumps(config))
    names = list(weights)
    wanted = {}
    for file, keys in (("a.bin", names[:4]), ("b.bin", names[4:])):
        torch.save({key: torch.from_numpy(weights[key]).bfloat16() for key in keys}, tmp_path / file)
        wanted |= dict.fromkeys(keys, file)
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": wanted}))
    model, _ = load_pretrained(tmp_path)
    for name, array in ours.items():
        assert torch.equal(model.weights()[name], torch.from_numpy(array).bfloat16().float())


def test_without_weights_it_says_what_is_needed(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    assert "holds no weights: they must be in model.safetensors" in problem(tmp_path)
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    assert "there is model.gguf" in problem(tmp_path)


def test_safetensors_are_preferred_and_need_no_torch(tmp_path):
    config, weights, _ = theirs()
    write(tmp_path, config, weights)
    (tmp_path / "pytorch_model.bin").write_bytes(b"not looked at")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from tiny_transformer.pretrained.accounting import open_source\n"
        f"print(len(open_source({str(tmp_path)!r}).account.rules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout.strip(), done.stderr) == (str(len(weights)), "")
    assert WeightFiles(tmp_path).main.name == "model.safetensors"


# --- memory -----------------------------------------------------------------------------------------------------------

LOAD = """
model, _ = pretrained.load_pretrained(sys.argv[1])
print(sum(p.numel() * p.element_size() for p in model.parameters()))
"""


@pytest.mark.skipif(not READABLE, reason="the peak is read from Linux's /proc")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_peak_is_below_one_and_three_tenths_of_the_model(dtype, tmp_path):
    """With a quarter of it in one table, as small Qwens have it; a tied output that is stored once more; several files."""
    values = {
        "vocab_size": 24_000, "max_position_embeddings": 64, "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 8,
        "num_attention_heads": 12, "num_key_value_heads": 4, "tie_word_embeddings": True,
    }  # fmt: skip
    config = write_constant(tmp_path, "llama", values, dtype, again={"lm_head.weight": "model.embed_tokens.weight"})
    memory, said = peak_of("from tiny_transformer import pretrained", LOAD, tmp_path)
    assert int(said) == 4 * config.n_parameters > 200e6
    assert 0.9 < memory / int(said) < 1.3
