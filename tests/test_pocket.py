"""The model inside the package: it is there, small, written in eight bits that mean what they say, and found by its name."""

import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tiny_transformer import corpora, run
from tiny_transformer.cli.main import main
from tiny_transformer.config import ModelConfig
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.numpy_engine import checkpoint as checkpoints
from tiny_transformer.numpy_engine.model import TinyTransformerLM as NumpyModel
from tiny_transformer.quantized import quantize
from tiny_transformer.tokenization.char import CharTokenizer
from tiny_transformer.utils.checkpoint import Checkpoint, CheckpointError

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ModelConfig(vocab_size=12, max_seq_len=16, d_model=16, n_layers=1, n_heads=2, ngram_rows=(144,))


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("make_pocket", ROOT / "tools" / "make_pocket.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def small(tool, tmp_path):
    """A model and its file in eight bits."""
    model = TinyTransformerLM(CONFIG, seed=0)
    letters = CharTokenizer("abcdefghijkl")
    made = tool.rounded(Checkpoint(CONFIG, letters.to_dict(), model.weights(), 7, {"val_loss": 2.0}), {"recipe": "test"})
    path = tmp_path / "small" / "best.safetensors"
    path.parent.mkdir()
    checkpoints.save(path, made)
    return model, path


def test_every_matrix_is_what_its_whole_numbers_stand_for(small):
    model, path = small
    found = run.read(path)
    assert found.step == 7 and found.lineage == {"recipe": "test"} and found.metrics == {"val_loss": 2.0}
    assert set(found.weights) == set(model.weights())
    for name, weight in model.weights().items():
        expected = quantize(weight).dequantize() if weight.dim() == 2 else weight
        assert torch.equal(found.weights[name], expected), name
        assert found.weights[name].dtype == torch.float32


def test_no_number_is_off_by_more_than_half_a_scale(small):
    model, path = small
    found = run.read(path).weights
    for name, weight in model.weights().items():
        if weight.dim() == 2:
            assert ((found[name] - weight).abs() <= weight.abs().amax(1, keepdim=True) / 127 * 0.51).all()
    assert not torch.equal(found["embeddings.token.weight"], model.weights()["embeddings.token.weight"])


def test_it_takes_a_quarter(small):
    model, path = small
    assert path.stat().st_size < 0.5 * sum(4 * weight.numel() for weight in model.weights().values())  # small matrices, long header


def test_both_engines_read_the_same(small):
    _, path = small
    model, tokenizer = run.load(path)
    assert tokenizer.decode([0, 11]) == "al"
    loaded = checkpoints.load(path)
    twin = NumpyModel(loaded.config, loaded.weights)
    ids = np.random.default_rng(0).integers(12, size=(2, 9))
    with torch.inference_mode():
        assert np.abs(model(torch.from_numpy(ids)).numpy() - twin.forward(ids)).max() < 1e-5


def test_a_damaged_file_is_no_model(small):
    _, path = small
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="digest"):
        run.read(path)


def test_a_run_of_that_name_comes_first(small, tmp_path, monkeypatch):
    _, path = small
    monkeypatch.chdir(tmp_path)
    assert run.resolve("pocket").parent == run.POCKET
    path.parent.rename(tmp_path / "pocket")
    assert run.resolve("pocket") == Path("pocket/best.safetensors")


def test_the_model_in_the_package():
    file = run.resolve("pocket")
    assert file.stat().st_size <= 3_000_000
    model, tokenizer = run.load("pocket")
    card = (file.parent / "CARD.md").read_text(encoding="utf-8")
    for name, value in model.config.to_dict().items():
        assert f"| {name} | {list(value) if isinstance(value, tuple) else value} |" in card, name
    assert f"seed {json.loads(card.split('| seed | ')[1].split(' ')[0])}" in card
    assert tokenizer.vocab_size == 65
    text = "ROMEO:\nWhat is the matter with the king of England, my lord?\n"
    ids = torch.tensor([tokenizer.encode(text)])
    with torch.inference_mode():
        loss = torch.nn.functional.cross_entropy(model(ids)[0, :-1], ids[0, 1:])
    assert loss < 2 < math.log(65)  # it has learned English letters


@pytest.mark.parametrize("engine", ["torch", "numpy"])
def test_it_writes_without_training_and_without_a_network(engine, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TINY_CORPORA", raising=False)
    assert main(["generate", "pocket", "--prompt", "ROMEO:", "--max-tokens", "40", "--seed", "1", "--engine", engine]) == 0
    out = capsys.readouterr().out
    assert out.startswith("ROMEO:") and len(out) > 40


def test_the_tool_makes_it_with_its_card(tool, tmp_path, monkeypatch):
    """From a real run of a second: the file, the card's losses and its commands."""
    monkeypatch.chdir(tmp_path)
    assert main([
        "train", "--corpus", "pitches", "--size", "30000", "--out", "first", "--d-model", "16", "--n-layers", "1", "--n-heads", "2",
        "--max-seq-len", "16", "--max-steps", "3", "--batch-size", "4", "--seed", "5",
    ]) == 0  # fmt: skip
    measured = []

    def watched(model, ids):
        measured.append((model, len(ids)))
        return tool.loss_in_windows(model, ids)

    monkeypatch.setattr(tool, "loss_in_random_windows", watched)
    tool.main("first", "made")
    characters = len(corpora.load("pitches", size=30000).text)
    assert [length for _, length in measured] == [characters - int(characters * 0.9)] * 2  # the validation text
    for (model, _), path in zip(measured, ("first", "made"), strict=True):  # as trained, then in eight bits
        assert torch.equal(model.embeddings.token.weight, run.load(path)[0].embeddings.token.weight)
    card = Path("made/CARD.md").read_text(encoding="utf-8")
    assert "make_pocket.py checkpoints/pocket\n" in card
    assert " --out checkpoints/pocket\n" in card
    assert "first" not in card
    assert "| n_layers | 1 |" in card and "; seed 5." in card
    as_trained, rounded = (float(line.split("|")[2].split("±")[0]) for line in card.splitlines() if line.startswith(("| as", "| here")))
    assert abs(as_trained - rounded) < 0.02 and as_trained > 0.4
    assert run.load("made")[0].config.d_model == 16


def test_what_is_too_large_is_refused_and_not_left_there(tool, small, tmp_path, monkeypatch):
    _, path = small
    monkeypatch.setattr(tool, "MOST_BYTES", 100)
    made = run.Run.create(tmp_path / "run", {"data": {}})
    made.save(checkpoints.load(path), "best")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "best.safetensors").write_bytes(b"the one before")
    with pytest.raises(ValueError, match="at most 100"):
        tool.main(str(tmp_path / "run"), str(tmp_path / "out"))
    assert [(file.name, file.read_bytes()) for file in (tmp_path / "out").iterdir()] == [("best.safetensors", b"the one before")]
