"""`tiny import` and `tiny inspect`, and the tokenizers and chat templates that come along."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from tiny_transformer import pretrained, run
from tiny_transformer.cli.inspection import origins
from tiny_transformer.cli.main import main
from tiny_transformer.config import ConfigError, ModelConfig
from tiny_transformer.corpora.transfer import sha256
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.numpy_engine import checkpoint as numpy_checkpoints
from tiny_transformer.numpy_engine.model import init_weights, weight_shapes
from tiny_transformer.pretrained import published
from tiny_transformer.pretrained.families import FAMILIES
from tiny_transformer.pretrained.family import to_hugging_face, to_model_config
from tiny_transformer.pretrained.names import rules_of
from tiny_transformer.pretrained.summary import memory, parameters_by_part, summarize
from tiny_transformer.pretrained.tokenizer_files import read_chat_template, read_tokenizer
from tiny_transformer.tokenization.bpe import BPETokenizer
from tiny_transformer.tokenization.char import CharTokenizer
from tiny_transformer.tokenization.hugging_face import save_tokenizer_json
from tiny_transformer.utils.checkpoint import Checkpoint

TEXT = "to be or not to be, that is the question: whether tis nobler in the mind to suffer " * 4
CHAT = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}<|assistant|>"


def directory(folder, kind="llama", tokenizer=True, **values):
    """A small random model of a family with a tokenizer, as others would publish it."""
    sizes = {
        "llama": {"vocab_size": 300, "max_position_embeddings": 64, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
                  "num_attention_heads": 3, "num_key_value_heads": 1},
        "gpt2": {"vocab_size": 300, "n_positions": 64, "n_embd": 24, "n_layer": 2, "n_head": 3},
        "bert": {"vocab_size": 300, "max_position_embeddings": 64, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
                 "num_attention_heads": 3},
    }  # fmt: skip
    family = FAMILIES[kind]
    config = to_model_config(family, {**sizes[kind], **values})
    weights = init_weights(config, seed=5)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(to_hugging_face(family, config)))
    save_file({one.theirs: one.join(weights) for one in rules_of(family.table, config)}, folder / "model.safetensors")
    if tokenizer:
        save_tokenizer_json(BPETokenizer.train(TEXT, 290, ["<|endoftext|>", "<|user|>", "<|assistant|>"]), folder / "tokenizer.json")
    return folder


def out_of(capsys):
    captured = capsys.readouterr()
    return " ".join(captured.out.split()), captured.err


def test_import_makes_a_run_that_writes(tmp_path, capsys):
    theirs = directory(tmp_path / "theirs")
    (theirs / "tokenizer_config.json").write_text(json.dumps({"chat_template": CHAT, "eos_token": {"content": "<|endoftext|>"}}))
    assert main(["import", str(theirs), str(tmp_path / "mine")]) == 0
    out, err = out_of(capsys)
    assert err == ""
    for words in ("Llama", "every name and shape accounted for", "BPETokenizer, 290 tokens", "10 rows more", "chat", "Next: tiny chat"):
        assert words in out, words
    shutil.rmtree(theirs)  # the run needs nothing beside it
    model, tokenizer = run.load(tmp_path / "mine")
    assert all(torch.equal(weight, torch.from_numpy(init_weights(model.config, 5)[name])) for name, weight in model.weights().items())
    assert tokenizer.decode(tokenizer.encode("to be")) == "to be"
    lineage = run.read(run.resolve(tmp_path / "mine")).lineage
    assert lineage["family"] == "llama" and list(lineage["sha256"]) == ["model.safetensors"]
    assert lineage["chat_template"] == {"text": CHAT, "bos": "", "eos": "<|endoftext|>"}
    assert main(["generate", str(tmp_path / "mine"), "--prompt", "to be", "--max-tokens", "5", "--seed", "1"]) == 0
    assert "to be" in out_of(capsys)[0]
    assert main(["runs", str(tmp_path)]) == 0
    assert "mine" in out_of(capsys)[0]


def test_chat_with_an_imported_model(tmp_path, capsys, monkeypatch):
    theirs = directory(tmp_path / "theirs")
    (theirs / "chat_template.jinja").write_text(CHAT)
    assert main(["import", str(theirs), str(tmp_path / "mine")]) == 0
    lines = iter(["Who is there?", "/quit"])
    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    assert main(["chat", str(tmp_path / "mine"), "--max-tokens", "4", "--seed", "1"]) == 0
    out, _ = out_of(capsys)
    assert "Type a message" in out and "Who is there?<|assistant|>" not in out


def test_a_run_that_is_there_is_kept(tmp_path, capsys):
    theirs = directory(tmp_path / "theirs", "gpt2")
    assert main(["import", str(theirs), str(tmp_path / "mine")]) == 0
    assert main(["import", str(theirs), str(tmp_path / "mine")]) == 0
    assert "the run that was there is now" in out_of(capsys)[0]
    assert len([path for path in tmp_path.iterdir() if path.name.startswith("mine")]) == 2


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "tiny import DIRECTORY RUN"), (["somewhere"], "checkpoints/theirs"), (["nowhere", "mine"], "there is no directory nowhere"),
        (["gpt2", "mine"], "tiny download gpt2"), ([__file__, "mine"], "is a file: it must be a directory"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_and_nothing_is_written(argv, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["import", *argv]) == 2
    err = out_of(capsys)[1]
    assert words in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_what_can_not_be_loaded_leaves_no_run(tmp_path, capsys):
    theirs = directory(tmp_path / "theirs")
    values = json.loads((theirs / "config.json").read_text())
    (theirs / "config.json").write_text(json.dumps({**values, "num_hidden_layers": 3, "attention_soup": 1}))
    assert main(["import", str(theirs), str(tmp_path / "mine")]) == 2
    err = out_of(capsys)[1]
    assert "9 differences" in err and "missing model.layers.2.input_layernorm.weight" in err
    assert not (tmp_path / "mine").exists()
    assert main(["inspect", str(theirs)]) == 0
    out, _ = out_of(capsys)
    assert "it can't be loaded" in out and "model.layers.N.mlp.up_proj.weight" in out


def test_notes_are_shown(tmp_path, capsys):
    theirs = directory(tmp_path / "theirs", "bert", tokenizer=False)
    values = json.loads((theirs / "config.json").read_text())
    (theirs / "config.json").write_text(json.dumps({**values, "attention_soup": 3}))
    assert main(["import", str(theirs), str(tmp_path / "mine")]) == 0
    out, _ = out_of(capsys)
    assert "not known here: attention_soup" in out and "tokenizer none" in out and "Next: tiny inspect" in out


def test_a_model_comes_in_without_a_tokenizer_that_we_do_not_have(tmp_path, capsys):
    theirs = directory(tmp_path / "theirs", tokenizer=False)
    (theirs / "spiece.model").write_bytes(b"\x0a")
    (theirs / "chat_template.jinja").write_text(CHAT)
    assert main(["import", str(theirs), str(tmp_path / "mine")]) == 2
    assert "--no-tokenizer" in out_of(capsys)[1] and not (tmp_path / "mine").exists()
    assert main(["import", str(theirs), str(tmp_path / "mine"), "--no-tokenizer"]) == 0
    out, _ = out_of(capsys)
    assert "tokenizer none" in out and "Next: tiny inspect" in out
    model, tokenizer = run.load(tmp_path / "mine")
    assert tokenizer is None and model.config == pretrained.load_pretrained(directory(tmp_path / "same", tokenizer=False))[0].config


# --- tokenizers -------------------------------------------------------------------------------------------------------


def test_tokenizers_by_kind_of_file(tmp_path):
    trained = BPETokenizer.train(TEXT, 280, ["<|endoftext|>"])
    trained.write_gpt2_files(tmp_path / "vocab.json", tmp_path / "merges.txt")
    found = read_tokenizer(tmp_path, "gpt2", 280)
    assert found.encode(TEXT + "<|endoftext|>") == trained.encode(TEXT + "<|endoftext|>")
    with pytest.raises(ConfigError, match="280 tokens and the model vocab_size=279"):
        read_tokenizer(tmp_path, "gpt2", 279)
    with pytest.raises(ConfigError, match=r"as vocab.json only: for this family it must be tokenizer.json"):
        read_tokenizer(tmp_path, "qwen2", 300)
    save_tokenizer_json(CharTokenizer.train("ab"), tmp_path / "tokenizer.json")
    assert read_tokenizer(tmp_path, "gpt2", 280).vocab_size == 2, "tokenizer.json says most, so it is taken first"


@pytest.mark.parametrize(("settings", "same"), [({}, True), ({"do_lower_case": True}, True), ({"do_lower_case": False}, False)])
def test_berts_vocab_txt_with_or_without_capitals(settings, same, tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nto\nTo\nbe\n")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    found = read_tokenizer(tmp_path, "bert", 8)
    assert (found.encode("To be") == found.encode("to be")) is same
    assert found.special.mask == 4


def test_a_tokenizer_that_needs_another_program_is_named(tmp_path):
    (tmp_path / "spiece.model").write_bytes(b"\x0a")
    with pytest.raises(ConfigError, match=r"spiece\.model only"):
        read_tokenizer(tmp_path, "llama", 300)
    (tmp_path / "tokenizer.model").write_bytes(b"\x0a")
    with pytest.raises(ConfigError, match=r"tokenizer\.model is no tokenizer\.model of SentencePiece"):
        read_tokenizer(tmp_path, "llama", 300)


def test_chat_templates_wherever_they_lie(tmp_path):
    assert read_chat_template(tmp_path) is None
    file = tmp_path / "tokenizer_config.json"
    several = [{"name": "tool", "template": "T"}, {"name": "default", "template": "D"}]
    for said, text in (("A", "A"), (several, "D"), ([], None), (None, None), (3, None)):
        file.write_text(json.dumps({"chat_template": said, "bos_token": "<s>", "eos_token": None}))
        found = read_chat_template(tmp_path)
        assert (found and (found.text, found.bos, found.eos)) == (text and (text, "<s>", ""))
    (tmp_path / "chat_template.jinja").write_text("J é", encoding="utf-8")
    assert read_chat_template(tmp_path).text == "J é"
    file.write_text("{")
    with pytest.raises(ConfigError, match=r"tokenizer_config\.json"):
        read_chat_template(tmp_path)


def test_gpt2s_real_tokenizer_comes_along(tmp_path):
    folder = os.environ.get("TINY_GPT2")
    if not folder:
        pytest.skip("TINY_GPT2 is not set: it must name a folder with GPT-2's vocab.json and merges.txt")
    theirs = directory(tmp_path / "theirs", "gpt2", tokenizer=False, vocab_size=50257, n_embd=6)
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(Path(folder) / name, theirs / name)
    model, tokenizer = pretrained.load_pretrained(theirs)
    assert model.config.vocab_size == tokenizer.vocab_size == 50257
    assert tokenizer.encode("Hello, I'm a language model,<|endoftext|>") == [15496, 11, 314, 1101, 257, 3303, 2746, 11, 50256]


# --- inspect ----------------------------------------------------------------------------------------------------------

SMALL = ModelConfig(vocab_size=17, max_seq_len=8, d_model=16, n_layers=3, n_heads=2)


def test_inspect_a_directory(tmp_path, capsys):
    theirs = directory(tmp_path / "theirs", "gpt2")
    assert main(["inspect", str(theirs), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kind"] == "GPT-2" and found["tokenizer"] == "BPETokenizer, 290 tokens"
    assert found["files"] == [
        {"name": "model.safetensors", "size": (theirs / "model.safetensors").stat().st_size, "sha256": sha256(theirs / "model.safetensors")}
    ]
    config = ModelConfig.from_dict(found["config"])
    assert sum(found["parts"].values()) == config.n_parameters == sum(int(np.prod(t["shape"])) for t in found["tensors"])
    names = {t["name"]: t["ours"] for t in found["tensors"]}
    assert names["transformer.h.1.mlp.c_fc.weight"] == "blocks.1.feedforward.up.weight"
    assert sorted(", ".join(names.values()).split(", ")) == sorted(weight_shapes(config))
    assert main(["inspect", str(theirs)]) == 0
    out, _ = out_of(capsys)
    assert "transformer.h.N.mlp.c_fc.weight F32 24 × 96 2" in " ".join(re.findall(r"[\w.×]+", out))
    assert "feed-forward" in out and f"memory in float32: weights {4 * config.n_parameters / 2**20:.2f} MiB" in out
    assert main(["inspect", str(theirs), "--all"]) == 0
    assert "blocks.1.feedforward.up.weight" in out_of(capsys)[0]


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_inspect_our_own(suffix, tmp_path, capsys):
    weights = init_weights(SMALL, 0)
    letters = CharTokenizer.train("abc")
    made = run.Run.create(tmp_path / "mine", {})
    if suffix == ".pt":
        ours = TinyTransformerLM(SMALL, seed=0).weights()
        made.save(Checkpoint(SMALL, letters.to_dict(), ours, step=7, metrics={"val_loss": 1.5}), "best")
    else:
        made.save(numpy_checkpoints.Checkpoint(SMALL, letters.to_dict(), weights, step=7, metrics={"val_loss": 1.5}), "best")
    for path in (tmp_path / "mine", tmp_path / "mine" / f"best{suffix}"):
        found = summarize(path)
        assert found.kind == "checkpoint" and found.config == SMALL and found.more["step"] == 7
        assert {t.name: t.shape for t in found.tensors} == weight_shapes(SMALL) and {t.dtype for t in found.tensors} == {"F32"}
        assert found.parts == parameters_by_part(SMALL) and found.memory == memory(SMALL)
    assert main(["inspect", str(tmp_path / "mine")]) == 0
    out, _ = out_of(capsys)
    assert "step 7, val_loss 1.5" in out and "CharTokenizer, 3 tokens" in out and f"{SMALL.n_parameters:,}" in out
    file = tmp_path / "mine" / f"best{suffix}"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert main(["inspect", str(file)]) == 2
    assert "damaged" in out_of(capsys)[1]


def test_inspect_says_where_a_model_comes_from(tmp_path, capsys):
    theirs, mine, small = directory(tmp_path / "theirs", "llama"), tmp_path / "mine", tmp_path / "small"
    assert main(["import", str(theirs), str(mine)]) == 0
    assert main(["quantize", str(mine), str(small), "--bits", "4"]) == 0
    capsys.readouterr()
    assert main(["inspect", str(small)]) == 0
    out, _ = out_of(capsys)
    words = " ".join(out.split())
    imported = f"origin imported from {theirs} (llama), model.safetensors SHA-256 {sha256(theirs / 'model.safetensors')[:16]}…"
    rounded = f"origin rounded to 4 bits from {mine}, best.pt SHA-256 {sha256(mine / 'best.pt')[:16]}…"
    assert words.replace(" ", "").find(imported.replace(" ", "")) < words.replace(" ", "").find(rounded.replace(" ", ""))
    assert imported.replace(" ", "") in words.replace(" ", "")


@pytest.mark.parametrize(
    ("lineage", "said"),
    [
        ({}, []), ({"chat_template": {}}, []), ({"corpus": "shakespeare", "recipe": "demo"}, ["trained on shakespeare by the recipe demo"]),
        ({"imported_from": "theirs", "family": "llama", "sha256": {"a": "1", "b": "2"}}, ["imported from theirs (llama), 2 files"]),
        ({"corpus": "mine.txt", "recipe": None}, ["trained on mine.txt"]), ({"parent": "runs/a/best.pt"}, ["made from runs/a/best.pt"]),
    ],
)  # fmt: skip
def test_where_a_checkpoint_comes_from(lineage, said):
    assert origins(lineage) == said


def test_inspect_a_file_of_tensors(tmp_path, capsys):
    file = directory(tmp_path / "theirs") / "model.safetensors"
    assert main(["inspect", str(file)]) == 0
    out, _ = out_of(capsys)
    assert "a file without a config" in out and "model.norm.weight" in out


@pytest.mark.parametrize("config", [SMALL, ModelConfig(n_token_types=2, causal=False, norm_position="post"),
                                    ModelConfig(position="rotary", tie_weights=False, ngram_rows=(9, 8), qk_norm=True)])  # fmt: skip
def test_parts_add_up(config):
    parts = parameters_by_part(config)
    assert sum(parts.values()) == config.n_parameters
    assert ("output layer" in parts) == (not config.tie_weights or config.output_head)


def test_memory_is_counted():
    config = ModelConfig(vocab_size=10, max_seq_len=1024, d_model=64, n_layers=2, n_heads=4, n_kv_heads=2, position="rotary")
    model = TinyTransformerLM(config, seed=0)
    assert memory(config)["weights"] * 2**30 == sum(p.numel() * p.element_size() for p in model.parameters())
    from tiny_transformer.kv_cache import KVCache

    held = sum(tensor.numel() * tensor.element_size() for layer in KVCache(config, 1).layers for tensor in (layer.keys, layer.values))
    assert memory(config)["keys and values"] * 2**30 == held
    assert memory(ModelConfig(window=100, position="rotary", max_seq_len=1000))["keys and values"] == pytest.approx(
        memory(ModelConfig(position="rotary", max_seq_len=1000))["keys and values"] / 10
    )


@pytest.mark.parametrize(("argv", "words"), [([], "tiny inspect checkpoints/demo"), (["nowhere"], "there is no checkpoint at nowhere")])
def test_inspect_mistakes_are_one_line(argv, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", *argv]) == 2
    assert words in out_of(capsys)[1]


def test_a_model_s_name_means_our_run_first_and_then_the_download_in_every_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TINY_CACHE", str(tmp_path / "cache"))
    commands = [["inspect", "gpt2"], ["export", "gpt2", "OUT"], ["quantize", "gpt2", "OUT"]]

    def each(name):
        for argv in commands:
            code = main([str(tmp_path / f"{name}-{argv[0]}") if word == "OUT" else word for word in argv])
            yield code, *out_of(capsys)

    assert all(code == 2 and "tiny download gpt2" in err and err.count("\n") == 1 for code, _, err in each("no"))
    monkeypatch.setattr(published, "find", lambda name: directory(tmp_path / "fetched", "gpt2"))
    assert all(code == 0 for code, *_ in each("fetched"))
    assert main(["inspect", "gpt2"]) == 0 and "GPT-2" in out_of(capsys)[0]
    run.Run.create(tmp_path / "checkpoints/gpt2", {}).save(Checkpoint(SMALL, None, TinyTransformerLM(SMALL, seed=0).weights()), "best")
    monkeypatch.setattr(published, "find", lambda name: None)
    assert all(code == 0 for code, *_ in each("run"))
    assert main(["inspect", "gpt2"]) == 0 and f"{SMALL.n_parameters:,}" in out_of(capsys)[0]
