"""`tiny export`: what it writes, says and refuses; our own formats read back to the identity."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.hugging_face import stored, transformers
from tiny_transformer import run
from tiny_transformer.cli.main import main
from tiny_transformer.config import ModelConfig
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.numpy_engine import checkpoint as numpy_checkpoints
from tiny_transformer.numpy_engine.model import TinyTransformerLM as NumpyModel
from tiny_transformer.pretrained import formats, load_pretrained
from tiny_transformer.pretrained.chat_template import ChatTemplate
from tiny_transformer.run import Run
from tiny_transformer.tokenization import train
from tiny_transformer.utils.checkpoint import Checkpoint, CheckpointError
from tiny_transformer.utils.short_floats import from_bfloat16, to_bfloat16, to_float16

TEXT = "to be or not to be, that is the question"


def make_run(folder, *, chat=False, **more):
    tokenizer = train("char", TEXT, special_tokens=["</s>"]) if not chat else train("byte", "", special_tokens=["<s>", "</s>"])
    config = ModelConfig(vocab_size=tokenizer.vocab_size, max_seq_len=32, d_model=16, n_layers=2, n_heads=2, **more)
    made = Run.create(folder, {"model": config.to_dict()})
    template = ChatTemplate("{% for m in messages %}{{ m.content }}{% endfor %}", "<s>", "</s>")
    lineage = {"parent": "nobody", **({"chat_template": template.to_dict()} if chat else {})}
    weights = TinyTransformerLM(config, seed=3).weights()
    saved = Checkpoint(config, tokenizer.to_dict(), weights, step=70, metrics={"val_loss": 1.5}, lineage=lineage)
    made.save(saved, "best")
    return saved


def tiny(capsys, *argv):
    code = main([*map(str, argv)])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_run_goes_to_transformers(tmp_path, capsys, monkeypatch):
    saved = make_run(tmp_path / "a", bias="none")
    code, said, _ = tiny(capsys, "export", tmp_path / "a", tmp_path / "out")
    assert code == 0
    for words in ("GPT-2", f"{saved.config.n_parameters:,} parameters", "model.safetensors", "tokenizer.json", "written as 0"):
        assert words in said
    size = (tmp_path / "out" / "model.safetensors").stat().st_size
    assert f"{size:,} bytes" in said
    line = said.strip().splitlines()[-1].removeprefix("Open it:").strip()
    theirs = eval(line, {"transformers": transformers})  # what it says works as it stands
    ours, _ = run.load(tmp_path / "a")
    ids = torch.arange(10)[None]
    with torch.no_grad():
        assert (theirs.eval()(ids).logits - ours(ids)).abs().max() < 1e-4
    back, tokenizer = load_pretrained(tmp_path / "out")
    assert back.config == saved.config and tokenizer.to_dict() == saved.tokenizer
    monkeypatch.chdir(tmp_path)
    code, said, _ = tiny(capsys, "export", "out", "again", "--dtype", "bfloat16", "--shard-size", "2KB")
    assert code == 0 and "model-00001-of-" in said and (tmp_path / "again" / "model.safetensors.index.json").is_file()


def test_the_chat_template_goes_along(tmp_path, capsys):
    make_run(tmp_path / "a", chat=True)
    assert tiny(capsys, "export", tmp_path / "a" / "best.pt", tmp_path / "out")[0] == 0
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False) == "Hi"
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<s>", "</s>")
    assert tiny(capsys, "export", tmp_path / "out", tmp_path / "b", "--format", "safetensors")[0] == 0
    kept = run.read(tmp_path / "b" / "model.safetensors")
    assert kept.lineage["chat_template"]["eos"] == "</s>"


@pytest.mark.parametrize("name", ["bert", "llama, grouped"])
def test_a_directory_of_others_goes_out_too(name, tmp_path, capsys):
    _, folder = stored(name)
    code, said, _ = tiny(capsys, "export", folder, tmp_path / "out")
    assert code == 0 and "tokenizer  none" in said
    assert ("AutoModelForMaskedLM" in said) is (name == "bert")


@pytest.mark.parametrize("form", ["safetensors", "npz"])
def test_our_own_files_are_the_identity(form, tmp_path, capsys):
    """Any model, what no family has too; config, tokenizer, step, metrics and lineage in the file."""
    saved = make_run(tmp_path / "a", ngram_rows=(400,), logit_softcap=5.0, activation="relu2")
    code, said, _ = tiny(capsys, "export", tmp_path / "a", tmp_path / "out", "--format", form)
    file = tmp_path / "out" / f"model.{form}"
    assert code == 0 and file.name in said and str(file) in said
    for found in (run.read(file), numpy_checkpoints.load(file)):
        assert (found.config, found.tokenizer, found.step) == (saved.config, saved.tokenizer, saved.step)
        assert (found.metrics, found.lineage, found.training) == (saved.metrics, saved.lineage, None)
        assert set(found.weights) == set(saved.weights)
        assert all(np.array_equal(np.asarray(found.weights[name]), weight.numpy()) for name, weight in saved.weights.items())
    code, _, _ = tiny(capsys, "export", file, tmp_path / f"named.{form}", "--format", form, "--no-tokenizer")
    assert code == 0 and run.read(tmp_path / f"named.{form}").tokenizer is None
    for engine in ("torch", "numpy"):
        assert tiny(capsys, "generate", file, "--prompt", "to be", "--max-tokens", "3", "--engine", engine)[0] == 0
    assert tiny(capsys, "inspect", file)[0] == 0
    assert tiny(capsys, "tokenizer", "encode", file, "--text", "to be")[0] == 0


def test_an_npz_opens_in_numpy_without_pickles(tmp_path, capsys):
    saved = make_run(tmp_path / "a")
    assert tiny(capsys, "export", tmp_path / "a", tmp_path / "a.npz", "--format", "npz")[0] == 0
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        config = ModelConfig.from_dict(json.loads(file["config"].item()))
        tokenizer = json.loads(file["tokenizer"].item())
        weights = {name: file[name] for name in file.files if "." in name}
    assert config == saved.config and tokenizer == saved.tokenizer
    ours, _ = run.load(tmp_path / "a")
    ids = np.arange(9)[None]
    assert np.abs(NumpyModel(config, weights).forward(ids) - ours(torch.from_numpy(ids)).detach().numpy()).max() < 1e-4


@pytest.mark.parametrize(("form", "dtype"), [("safetensors", "bfloat16"), ("safetensors", "float16"), ("npz", "float16")])
def test_our_own_files_in_16_bits(form, dtype, tmp_path, capsys):
    saved = make_run(tmp_path / "a")
    file = tmp_path / f"a.{form}"
    code, said, _ = tiny(capsys, "export", tmp_path / "a", file, "--format", form, "--dtype", dtype)
    assert code == 0 and f"rounded to {dtype}" in said
    found = run.read(file)
    assert found.config == saved.config and found.tokenizer == saved.tokenizer
    for name, weight in saved.weights.items():
        assert found.weights[name].dtype == torch.float32
        assert torch.equal(found.weights[name], weight.to(getattr(torch, dtype)).float())
    whole = tmp_path / f"whole.{form}"
    assert tiny(capsys, "export", tmp_path / "a", whole, "--format", form)[0] == 0
    saved_bytes = whole.stat().st_size - file.stat().st_size
    assert abs(saved_bytes - 2 * saved.config.n_parameters) < 64, "half of the numbers' bytes"
    if form == "safetensors":
        from safetensors import safe_open

        with safe_open(file, "pt") as content:
            assert content.get_tensor("norm.weight").dtype == getattr(torch, dtype), "any program reads it"


@pytest.mark.parametrize(("form", "dtype"), [("npz", None), ("npz", "float16"), ("safetensors", "bfloat16")])
def test_a_changed_bit_is_never_read_in_silence(form, dtype, tmp_path):
    config = ModelConfig(vocab_size=5, d_model=4, n_layers=1, n_heads=1)
    weights = {name: tensor.numpy() for name, tensor in TinyTransformerLM(config, seed=1).weights().items()}
    file = tmp_path / f"a.{form}"
    numpy_checkpoints.save(file, numpy_checkpoints.Checkpoint(config, None, weights, step=9), dtype)
    content, wanted = file.read_bytes(), numpy_checkpoints.load(file)
    silent = 0
    for place in range(0, len(content), 37):
        file.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        try:
            found = numpy_checkpoints.load(file)
        except CheckpointError as error:
            assert "\n" not in str(error) and str(file) in str(error)
            continue
        silent += 1  # a byte that says nothing: a time stamp, a reserved field
        assert found.config == wanted.config and found.step == wanted.step
        assert all(np.array_equal(found.weights[name], weight) for name, weight in wanted.weights.items())
    assert silent < len(content) / 37 / 2
    file.write_bytes(content[:-30])
    with pytest.raises(CheckpointError):
        numpy_checkpoints.load(file)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(bits=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=20))
def test_16_bits_are_pytorch_s(bits):
    """Every float32 there is: ties, numbers below normal, infinities; a NaN stays a NaN."""
    numbers = np.array([*bits, *(bit & 0xFFFF0000 | 0x8000 for bit in bits)], np.uint32).view(np.float32)
    wanted = torch.from_numpy(numbers.copy()).to(torch.bfloat16)
    found = from_bfloat16(to_bfloat16(numbers))
    assert np.array_equal(found, wanted.float().numpy(), equal_nan=True)
    assert np.array_equal(from_bfloat16(to_bfloat16(found)), found, equal_nan=True)
    held = numbers[~(np.abs(numbers) > 65504)]
    assert np.array_equal(to_float16(held, "x"), torch.from_numpy(held.copy()).half().numpy(), equal_nan=True)


BAD = [
    ((), ["no model named", "tiny export RUN DIR"]),
    (("RUN",), ["no place named"]),
    (("nowhere", "out"), ["there is no checkpoint at nowhere"]),
    (("RUN", "out", "--format", "docx"), ["format='docx'", "hf, safetensors, npz"]),
    (("RUN", "out", "--dtype", "int3"), ["dtype='int3'", "float32, float16, bfloat16"]),
    (("RUN", "out", "--format", "npz", "--dtype", "bfloat16"), ["dtype='bfloat16'", "npz"]),
    (("RUN", "out", "--format", "npz", "--shard-size", "5GB"), ["shard_size", "it is one file"]),
    (("RUN", "out", "--shard-size", "many"), ["shard_size='many'", "5GB"]),
    (("RUN", "out", "--shard-size", "0"), ["shard_size='0'"]),
    (("pocket", "out"), ["ngram_rows=(4225,)", "logit_softcap=15.0", "no family has that", "safetensors, npz"]),
    (("RUN", "full"), ["full is not empty", "--overwrite"]),
    (("RUN", "full", "--format", "npz"), ["model.npz is there already", "--overwrite"]),
    (("RUN", "full/model.npz"), ["is a file"]),
    (("RUN", "full/model.npz/deeper", "--format", "npz"), ["is a file"]),
    (("damaged.npz", "out"), ["damaged.npz", "damaged"]),
    (("empty", "out"), ["holds no checkpoint"]),
    (("others", "out"), ["model_type='mixtral'"]),
    (("gpt2", "out"), ["tiny download gpt2"]),
    (("RUN", "out", "more"), ["one word too many"]),
    (("RUN", "out", "--formt", "hf"), ["--format"]),
    (("RUN", "out", "--format", "fancy"), ["pip install fancy-lib"]),
]


@pytest.mark.parametrize(("argv", "words"), BAD)
def test_what_a_person_can_mend_is_one_line_and_exit_code_2(argv, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TINY_CACHE", str(tmp_path / "cache"))
    if "fancy" in argv:
        row = formats.Format("fancy", formats.FORMATS["npz"].write, ".fancy", "x", needs={"no_such_module_at_all": "fancy-lib"})
        monkeypatch.setitem(formats.FORMATS, "fancy", row)
    make_run(tmp_path / "RUN")
    for name in ("full", "empty", "others"):
        (tmp_path / name).mkdir()
    (tmp_path / "full" / "model.npz").write_bytes(b"mine")
    (tmp_path / "damaged.npz").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "others" / "config.json").write_text('{"model_type": "mixtral"}')
    before = sorted(path for path in tmp_path.rglob("*"))
    code, said, complaint = tiny(capsys, "export", *argv)
    assert code == 2 and said == ""
    assert len(complaint.strip().splitlines()) == 1
    assert all(word in complaint for word in words), complaint
    assert sorted(path for path in tmp_path.rglob("*")) == before
    assert (tmp_path / "full" / "model.npz").read_bytes() == b"mine"


def test_overwriting_on_request_replaces_one_file_only(tmp_path, capsys):
    make_run(tmp_path / "a")
    (tmp_path / "out").mkdir()
    for name in ("model.npz", "notes.txt"):
        (tmp_path / "out" / name).write_text("mine")
    assert tiny(capsys, "export", tmp_path / "a", tmp_path / "out", "--format", "npz", "--overwrite")[0] == 0
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine" and run.read(tmp_path / "out" / "model.npz").step == 70
    code, said, _ = tiny(capsys, "export", tmp_path / "a", tmp_path / "out", "--overwrite")
    assert code == 0 and "out-1" in said and (tmp_path / "out-1" / "notes.txt").read_text() == "mine"


def test_the_commands_of_the_page_work(tmp_path, capsys, monkeypatch):
    page = (Path(__file__).resolve().parent.parent / "docs" / "pretrained.md").read_text(encoding="utf-8")
    lines = page.partition("## Out")[2].partition("```bash\n")[2].partition("```")[0].splitlines()
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "RUN")
    assert len(lines) > 3
    for number, line in enumerate(lines):
        words = [f"DIR{number}" if word == "DIR" else word for word in shlex.split(line, comments=True)]
        assert words[:2] == ["tiny", "export"] and tiny(capsys, *words[1:])[0] == 0
    code = page.partition("## Out")[2].partition("```python\n")[2].partition("```")[0]
    model, tokenizer = run.load("RUN")
    said = {"model": model, "tokenizer": tokenizer}
    exec(code.replace("path/to/new", "new"), said)
    assert said["again"].config == model.config


def test_help_and_the_list(capsys):
    code, said, _ = tiny(capsys, "export", "--help")
    assert code == 0 and all(word in said for word in ("--format", "--dtype", "--shard-size", "--overwrite", "pocket"))
    code, said, _ = tiny(capsys, "export", "--list")
    assert code == 0 and [line.split()[0] for line in said.splitlines()] == list(formats.FORMATS)
