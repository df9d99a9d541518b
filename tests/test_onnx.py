"""ONNX: onnxruntime computes our logits for any batch and length; longer texts are refused; every option of a model is covered."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.onnx_cases import TOGETHER, WORST, check_file, random_model, session, worst_difference
from tests.options import OPTIONS, small_config
from tiny_transformer import run, tokenization
from tiny_transformer.cli.main import main
from tiny_transformer.config import ConfigError, ModelConfig
from tiny_transformer.pretrained import onnx_file
from tiny_transformer.pretrained.onnx_file import inputs_of, metadata_of, write_onnx
from tiny_transformer.quantized import quantize_model
from tiny_transformer.utils.checkpoint import Checkpoint

onnx = pytest.importorskip("onnx", reason="the `export` extra has onnx")
pytest.importorskip("onnxscript", reason="the `export` extra has onnxscript, which torch.onnx needs")
onnxruntime = pytest.importorskip("onnxruntime", reason="the `export` extra has onnxruntime, which runs these files")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Each of the few models that hold every option together, and its file: made once."""
    folder, made = tmp_path_factory.mktemp("onnx"), {}

    def get(name):
        if name not in made:
            model = random_model(TOGETHER[name]).bfloat16().train()
            before = {name: weight.clone() for name, weight in model.weights().items()}
            (path,) = write_onnx(model, folder / f"{len(made)}.onnx")
            model.same_weights = all(torch.equal(model.weights()[name], weight) for name, weight in before.items())
            model.was, model.was_training = str(model.embeddings.token.weight.dtype), model.training
            made[name] = model.float().eval(), path
        return made[name]

    return get


def test_the_few_models_hold_every_option():
    """What the campaign tries one by one, the suite tries together: each value of each option is in one of the few."""
    for option, settings in OPTIONS.items():
        for key, value in settings.items():
            held = [getattr(config, key) for config in TOGETHER.values()]
            if key == "rope_scaling":
                assert any(one and one["type"] == value["type"] for one in held), option
            elif key in ("window", "ngram_rows", "n_kv_heads", "logit_softcap", "d_head", "n_token_types"):
                assert any(one is not None and bool(one) == bool(value) for one in held), option
            else:
                assert value in held, option


@pytest.mark.parametrize("name", TOGETHER)
def test_logits_are_ours_for_any_batch_and_length(files, name):
    model, path = files(name)
    check_file(path)
    worst, spread = worst_difference(model, path)
    assert worst < WORST and spread > 0.1, "logits that are all alike would prove nothing"


@pytest.mark.parametrize("name", TOGETHER)
def test_names_types_and_free_sizes(files, name):
    model, path = files(name)
    opened = session(path)
    inputs = {one.name: (one.type, one.shape) for one in opened.get_inputs()}
    assert tuple(inputs) == inputs_of(model.config) and set(inputs) <= {"ids", "attention_mask", "token_types"}
    assert ("attention_mask" in inputs) == (not model.config.causal) and ("token_types" in inputs) == (model.config.n_token_types > 0)
    assert all(one == ("tensor(int64)", ["batch", "seq"]) for one in inputs.values())
    (logits,) = opened.get_outputs()
    assert (logits.name, logits.type, logits.shape) == ("logits", "tensor(float)", ["batch", "seq", model.config.vocab_size])
    said = opened.get_modelmeta().custom_metadata_map
    assert ModelConfig.from_dict(json.loads(said["config"])) == model.config and "tokenizer" not in said


@pytest.mark.parametrize("name", TOGETHER)
def test_a_text_longer_than_the_context_is_an_error_not_wrong_numbers(files, name):
    model, path = files(name)
    opened = session(path)
    ids = np.zeros((2, model.config.max_seq_len + 1), np.int64)
    with pytest.raises(Exception, match="nvalid|out of (data )?bounds"):
        opened.run(None, {name: np.ones_like(ids) if name == "attention_mask" else ids for name in inputs_of(model.config)})


def test_the_model_itself_is_left_alone(files):
    """Its file was made while it was being trained, in bfloat16."""
    model, _ = files("gpt2's parts")
    assert model.was_training and model.was == "torch.bfloat16" and model.same_weights


def test_a_context_of_one_token(tmp_path):
    model = random_model(small_config("rotary", max_seq_len=1, n_layers=1))
    (path,) = write_onnx(model, tmp_path / "m.onnx")
    assert session(path).get_inputs()[0].shape == ["batch", 1]
    worst, _ = worst_difference(model, path)
    assert worst < WORST


def test_weights_in_a_file_of_their_own(tmp_path, monkeypatch):
    """As with more than 2 GiB, which one ONNX file can't hold."""
    monkeypatch.setattr(onnx_file, "LARGEST_FILE", 1000)
    model = random_model(small_config("gpt2", n_layers=1))
    files = write_onnx(model, tmp_path / "m.onnx")
    assert [file.name for file in files] == ["m.onnx", "m.onnx.data"] and {p.name for p in tmp_path.iterdir()} == {"m.onnx", "m.onnx.data"}
    assert files[1].stat().st_size >= 0.9 * 4 * model.config.n_parameters
    check_file(files[0])
    worst, _ = worst_difference(model, files[0])
    assert worst < WORST


def test_tokenizers_go_along_while_they_are_small(monkeypatch):
    tokenizer, config = tokenization.train("char", "to be – ▁"), small_config()
    assert json.loads(metadata_of(config, tokenizer)["tokenizer"]) == tokenizer.to_dict()
    monkeypatch.setattr(onnx_file, "LARGEST_TOKENIZER", 10)
    assert "tokenizer" not in metadata_of(config, tokenizer)


def test_what_can_not_be_exported_is_refused(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="eight bits.*Export the model that it was made from"):
        write_onnx(quantize_model(random_model(small_config("gpt2"))), tmp_path / "m.onnx")
    monkeypatch.setattr(onnx_file.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="onnx and onnxscript.*pip install onnx onnxscript"):
        write_onnx(random_model(small_config("gpt2")), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_tiny_export(tmp_path, capsys, monkeypatch):
    config = replace(TOGETHER["gpt2's parts"], vocab_size=65)
    tokenizer = tokenization.train("char", "".join(map(chr, range(40, 105))))
    model = random_model(config)
    made = run.Run.create(tmp_path / "run", {"model": config.to_dict()})
    made.save(Checkpoint(config, tokenizer.to_dict(), model.weights()), "best")
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "out"), "--format", "onnx"]) == 0
    path = tmp_path / "out" / "model.onnx"
    assert str(path) in capsys.readouterr().out
    worst, _ = worst_difference(model, path)
    assert worst < WORST
    said = session(path).get_modelmeta().custom_metadata_map
    assert tokenization.from_dict(json.loads(said["tokenizer"])).to_dict() == tokenizer.to_dict()
    real = onnx_file.importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *more: None if name == "onnxscript" else real(name, *more))
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "other.onnx"), "--format", "onnx"]) == 2
    line = capsys.readouterr().err
    assert "pip install onnxscript" in line and line.count("\n") == 1 and not (tmp_path / "other.onnx").exists()
