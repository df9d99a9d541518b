"""`tiny quantize` and what it writes: both engines open it, damage is found, figures are right, and a large model needs little memory."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.numpy import load_file

from tests.opinionated import opinionated
from tests.test_pretrained_cli import TEXT, directory
from tiny_transformer import corpora, pretrained, run
from tiny_transformer.cli.main import main
from tiny_transformer.evaluation.rounding_errors import RoundingErrors, kind_of
from tiny_transformer.numpy_engine import checkpoint as checkpoints
from tiny_transformer.numpy_engine.model import TinyTransformerLM as NumpyModel
from tiny_transformer.numpy_engine.model import weight_shapes
from tiny_transformer.pretrained.summary import summarize
from tiny_transformer.quantized_layers import (
    Nf4Linear,
    QuantizedLinear,
    linear_weights,
    pack,
    quantize_model,
    rounded_weights,
    weight_bytes,
)
from tiny_transformer.rounded_weights import Rounding, Stored, collect
from tiny_transformer.tokenization.char import CharTokenizer
from tiny_transformer.utils import checkpoint as torch_checkpoints
from tiny_transformer.utils.checkpoint import Checkpoint, CheckpointError

FLAGS = {"4": ["--bits", "4"], "4 double": ["--double", "--block", "10"], "8": ["--bits", "8"], "8 blocks": ["--bits", "8", "--block", "9"]}
ROUNDINGS = {"4": Rounding(bits=4), "4 double": Rounding(bits=4, block=10, double=True), "8": Rounding(), "8 blocks": Rounding(block=9)}
each_form = pytest.mark.parametrize("form", FLAGS)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A folder with a run of a few steps, called `first`."""
    folder = tmp_path_factory.mktemp("runs")
    assert main([
        "train", "--corpus", "pitches", "--size", "40000", "--out", str(folder / "first"), "--d-model", "36", "--n-layers", "2",
        "--n-heads", "2", "--max-seq-len", "24", "--max-steps", "12", "--batch-size", "8", "--seed", "5", "--bias", "all",
        "--activation", "swiglu",
    ]) == 0  # fmt: skip
    return folder


@pytest.fixture(autouse=True)
def here(first, monkeypatch):
    monkeypatch.chdir(first)


def made(form, capsys, tmp_path):
    """What `tiny quantize first … --json` says, and where the run is."""
    capsys.readouterr()
    out = tmp_path / form.replace(" ", "-")
    assert main(["quantize", "first", str(out), *FLAGS[form], "--tokens", "3985", "--json"]) == 0  # 166 whole windows
    return json.loads(capsys.readouterr().out), out


# --- what is written --------------------------------------------------------------------------------------------------


@each_form
def test_the_run_holds_the_rounded_model_and_both_engines_open_it(form, capsys, tmp_path):
    said, out = made(form, capsys, tmp_path)
    trained, tokenizer = run.load("first")
    expected = quantize_model(trained, ROUNDINGS[form])
    model, words = run.load(out)
    assert words.to_dict() == tokenizer.to_dict() and not model.training
    assert not any(isinstance(module, torch.nn.Linear) for module in model.modules())
    assert any(isinstance(module, QuantizedLinear if form[0] == "8" else Nf4Linear) for module in model.modules())
    state = expected.state_dict()
    assert model.state_dict().keys() == state.keys() and all(torch.equal(t, state[name]) for name, t in model.state_dict().items())
    twin = checkpoints.load(out / "best.safetensors")
    for name, matrix in rounded_weights(model):
        assert np.array_equal(twin.weights[name], matrix.dequantize().numpy())
    ids = np.random.default_rng(0).integers(tokenizer.vocab_size, size=(2, 20))
    logits = model(torch.from_numpy(ids))  # recorded for gradients, so without the kernel's bfloat16
    assert np.abs(logits.detach().numpy() - NumpyModel(twin.config, twin.weights).forward(ids)).max() < (0.02 if form == "8" else 1e-4)
    assert said["memory_bytes"] == [4 * model.config.n_parameters, weight_bytes(model)]
    assert said["file_bytes"] == [run.resolve("first").stat().st_size, (out / "best.safetensors").stat().st_size]
    assert said["file_bytes"][1] < said["memory_bytes"][1] + 16_000  # weights and a header with the tokenizer


def test_any_program_reads_the_file_and_the_scales_stand_beside_their_weight(capsys, tmp_path):
    _, out = made("4 double", capsys, tmp_path)
    name, tensors = "blocks.0.attention.W_query.weight", load_file(out / "best.safetensors")
    kinds = {key.removeprefix(name): (part.dtype.name, part.shape) for key, part in tensors.items() if name in key}
    assert kinds == {
        "": ("uint8", (36, 18)), ".scales": ("int8", (36, 4)), ".scales.scales": ("float32", (1,)), ".scales.mean": ("float32", (1,)),
    }  # fmt: skip
    with safe_open(out / "best.safetensors", framework="numpy") as file:
        assert set(file.metadata()) == {"tiny_transformer", "sha256", *checkpoints.RECORD}
    header = (out / "best.safetensors").read_bytes()
    assert int.from_bytes(header[:8], "little") % 8 == 0


def test_where_it_comes_from_is_kept(capsys, tmp_path):
    _, out = made("4", capsys, tmp_path)
    found, before = run.read(out / "best.safetensors"), run.read(run.resolve("first"))
    assert (found.step, found.metrics) == (before.step, before.metrics)
    about = found.lineage["quantized"]
    assert about["bits"] == 4 and about["from"] == "first" and list(about["sha256"]) == ["best.pt"]
    assert {**found.lineage, "quantized": None} == {**before.lineage, "quantized": None}
    record = run.Run.open(out).record
    assert record["data"] == run.Run.open("first").record["data"] and record["quantized"] == about


@pytest.mark.parametrize("engine", ["torch", "numpy"])
@each_form
def test_it_writes_in_both_engines(form, engine, capsys, tmp_path):
    _, out = made(form, capsys, tmp_path)
    argv = ["generate", str(out), "--prompt", "We ", "--seed", "1", "--max-tokens", "12", "--engine", engine]
    assert main(argv) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("We ") and len(captured.out) > 12
    assert f"weights in {form[0]} bits" in captured.err and "before rounding" in captured.err


def test_chat_inspect_and_runs_know_it(capsys, tmp_path, monkeypatch):
    _, out = made("4 double", capsys, tmp_path)
    lines = iter(["We ", "/quit"])
    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    assert main(["chat", str(out), "--max-tokens", "4", "--seed", "1"]) == 0
    assert "weights in 4 bits" in capsys.readouterr().out
    found = summarize(out)
    model = run.load(out)[0]
    kinds = {tensor.name: tensor.dtype for tensor in found.tensors}
    assert {name for name, kind in kinds.items() if kind == "nf4, double"} == set(dict(rounded_weights(model)))
    assert {tensor.name: tensor.shape for tensor in found.tensors} == weight_shapes(found.config)
    assert main(["inspect", str(out)]) == 0
    assert f"are in 4 bits: with scales, all weights take {weight_bytes(model) / 1e6:,.2f} MB" in capsys.readouterr().out
    assert main(["runs", str(tmp_path)]) == 0
    assert "4-double" in capsys.readouterr().out


def test_more_tokens_for_a_rounded_model_leave_it_rounded(capsys, tmp_path):
    _, out = made("4", capsys, tmp_path)
    target = tmp_path / "more" / "best.safetensors"
    assert main(["tokenizer", "extend", str(out), "--special", "<|x|>", "--out", str(target)]) == 0
    grown, old = run.load(target)[0], run.load(out)[0]
    assert grown.config.vocab_size == old.config.vocab_size + 1
    assert all(torch.equal(t, old.state_dict()[n]) for n, t in grown.state_dict().items() if n.endswith((".values", ".scales")))


# --- what is said -----------------------------------------------------------------------------------------------------


@each_form
def test_errors_and_losses_are_right(form, capsys, tmp_path):
    """Against the whole matrices, and losses worked out window by window here."""
    said, _ = made(form, capsys, tmp_path)
    model = run.load("first")[0]
    small = dict(rounded_weights(quantize_model(model, ROUNDINGS[form])))
    for layer in said["layers"]:
        names = [name for name in small if layer["kind"] in ("all", kind_of(name))]
        was = torch.cat([model.weights()[name].flatten() for name in names]).double()
        now = torch.cat([small[name].dequantize().flatten() for name in names]).double()
        assert layer["matrices"] == len(names) and layer["weights"] == len(was)
        assert layer["relative"] == pytest.approx(float((was - now).norm() / was.norm()))
        assert layer["largest"] == pytest.approx(float((was - now).abs().max()))
        assert layer["bits"] == pytest.approx(8 * sum(small[name].nbytes for name in names) / len(was))
    assert [layer["kind"] for layer in said["layers"]][-1] == "all" and len(said["layers"]) == 8
    text = corpora.load("pitches", size=40000).text
    ids = torch.tensor(run.load("first")[1].encode(text[int(len(text) * 0.9) :][:3985]))
    losses = [window_losses(each, ids) for each in (model, quantize_model(model, ROUNDINGS[form]))]
    for name, values in (("before", losses[0]), ("after", losses[1]), ("difference", losses[1] - losses[0])):
        assert said["loss"][name]["loss"] == pytest.approx(float(values.mean()), abs=2e-6)
        assert said["loss"][name]["error"] == pytest.approx(float(values.std() / len(values) ** 0.5), rel=1e-3, abs=1e-7)
    assert said["loss"]["difference"]["error"] < said["loss"]["before"]["error"] / 3


@torch.no_grad()
def window_losses(model, ids, seq=24):
    rows = (len(ids) - 1) // seq
    inputs, goals = ids[: rows * seq].view(rows, seq), ids[1 : rows * seq + 1].view(rows, seq)
    return F.cross_entropy(model(inputs).flatten(0, 1), goals.flatten(), reduction="none").view(rows, seq).double().mean(1)


def test_the_page_for_people(capsys, tmp_path):
    capsys.readouterr()
    assert main(["quantize", "first", str(tmp_path / "four"), "--keep", "*.down.weight", "--keep", "blocks.0.*"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for words in (
        "linear layer", "attention.W_query", "relative error", "4 bits (NF4), a scale for every 64 columns", "memory", "nats a token",
        "its validation text", "the difference, window by window", f"Next: tiny generate {tmp_path / 'four'}",
    ):  # fmt: skip
        assert words in out, words
    assert "feedforward.down" not in out
    model = run.load(tmp_path / "four")[0]
    assert isinstance(model.blocks[1].feedforward.down, torch.nn.Linear) and isinstance(model.blocks[0].attention.W_key, torch.nn.Linear)
    assert isinstance(model.blocks[1].attention.W_key, Nf4Linear)


def test_a_text_of_ones_own_and_only_so_much_of_it(capsys, tmp_path):
    text = corpora.load("pitches", size=9000).text[5000:]
    (tmp_path / "mine.txt").write_text(text)
    capsys.readouterr()
    assert main(["quantize", "first", str(tmp_path / "a"), "--text", str(tmp_path / "mine.txt"), "--tokens", "1201", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    model, tokenizer = run.load("first")
    expected = window_losses(model, torch.tensor(tokenizer.encode(text[:1201])))
    assert said["loss"]["text"].endswith("mine.txt") and said["loss"]["before"]["tokens"] == 1200
    assert said["loss"]["before"]["loss"] == pytest.approx(float(expected.mean()), abs=2e-6)


def test_without_a_text_the_loss_is_left_out_and_it_says_why(capsys, tmp_path):
    model = opinionated(vocab_size=26)
    letters = CharTokenizer("abcdefghijklmnopqrstuvwxyz")
    torch_checkpoints.save(tmp_path / "alone.pt", Checkpoint(model.config, letters.to_dict(), model.weights()))
    assert main(["quantize", str(tmp_path / "alone.pt"), str(tmp_path / "out")]) == 0
    assert "its validation text can't be had here. Name one with --text FILE" in capsys.readouterr().out
    torch_checkpoints.save(tmp_path / "mute.pt", Checkpoint(model.config, None, model.weights()))
    assert main(["quantize", str(tmp_path / "mute.pt"), str(tmp_path / "mute")]) == 0
    assert "it has no tokenizer" in capsys.readouterr().out


def test_matrices_of_zeros_are_no_trouble():
    errors = RoundingErrors()
    errors.add("blocks.0.a.weight", torch.zeros(2, 3), pack(torch.zeros(2, 3), Rounding(bits=4)))
    assert errors.all().relative == 0 and errors.all().largest == 0


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "no model named"), (["first"], "no place named"), (["nowhere", "OUT"], "there is no checkpoint at nowhere"),
        (["first", "OUT", "--bits", "5"], "bits=5: it must be 8 or 4"), (["first", "OUT", "--bits", "four"], "it must be a whole number"),
        (["first", "OUT", "--block", "0"], "block=0"), (["first", "OUT", "--bits", "8", "--double"], "only the scales of 4 bits"),
        (["first", "first"], "first is there already"), (["first", "OUT", "--keep", "norm*"], "it must match a linear layer's weight"),
        (["first", "OUT", "--keep", "*"], "something must be left to round"), (["first", "OUT", "--tokens", "0"], "tokens=0"),
        (["first", "OUT", "--tokens", "20"], "its validation text gives"), (["first", "OUT", "--text", "no.txt"], "no.txt"),
        (["first", "OUT", "--text", "short.txt"], "gives 5 tokens: two windows of this model need 26"),
        (["first", "OUT", "--text", "foreign.txt"], "foreign.txt"), (["gpt2", "OUT"], "tiny download gpt2"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_and_nothing_is_written(argv, words, capsys, tmp_path, first):
    (first / "short.txt").write_text("We ar")
    (first / "foreign.txt").write_text("語" * 100)
    out = tmp_path / "out"
    if words == "its validation text gives":
        words = "the loss was not measured: its validation text has only 20 tokens"
        assert main(["quantize", *argv[:1], str(out), *argv[2:]]) == 0
        assert words in capsys.readouterr().out
        return
    assert main(["quantize", *(str(out) if word == "OUT" else word for word in argv)]) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1, err
    assert not out.exists()


def test_what_is_rounded_is_not_rounded_again(capsys, tmp_path):
    _, out = made("8", capsys, tmp_path)
    assert main(["quantize", str(out), str(tmp_path / "again")]) == 2
    assert "is in 8 bits already: rounding twice only loses more. Take what it was made from: first" in capsys.readouterr().err
    assert main(["generate", str(out), "--int8", "--prompt", "We"]) == 2
    assert "its weights are in 8 bits already" in capsys.readouterr().err
    assert main(["quantize", str(out), str(out)]) == 2
    assert run.load(out)  # and it is still there


@each_form
def test_a_damaged_file_is_no_model(form, capsys, tmp_path):
    _, out = made(form, capsys, tmp_path)
    file = out / "best.safetensors"
    content = file.read_bytes()
    draw, start = np.random.default_rng(0), 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    inside = [start + header[name]["data_offsets"][0] for name in header if name.startswith("blocks.0.")]  # one in each part
    for place in [*draw.integers(8, len(content), 20), *inside]:
        flipped = bytearray(content)
        flipped[place] ^= 1 << draw.integers(8)
        file.write_bytes(flipped)
        with pytest.raises(CheckpointError):
            run.load(out)


def test_parts_that_do_not_belong_together_are_refused():
    good = pack(torch.randn(6, 9), Rounding(bits=4, block=3, double=True)).stored()
    good.check("w")
    for change in ({"mean": None}, {"second": None}, {"values": good.values[:, :4]}, {"scales": good.scales[:5]},
                   {"scales": good.scales.astype(np.float32)}, {"shape": (6, 11)}, {"second": good.second[:0]},
                   {"values": good.values.astype(np.int16)}, {"mean": np.zeros(2, np.float32)}):  # fmt: skip
        with pytest.raises(ValueError, match="do not belong together"):
            replace(good, **change).check("w")
    parts = good.tensors("w")
    assert set(collect(dict(parts), {"w": (6, 9)})) == {"w"}
    with pytest.raises(ValueError, match="w and its scales do not belong together"):
        collect(dict(parts), {"w": (6, 11)})
    with pytest.raises(ValueError, match=r"v\.scales belongs to no weight"):
        collect({"v.scales": parts["w.scales"]}, {"w": (6, 9)})


def test_weights_in_few_bits_are_no_part_of_a_pt_file(tmp_path):
    model = quantize_model(opinionated(), Rounding(bits=4))
    with pytest.raises(ValueError, match="only .safetensors files hold such"):
        torch_checkpoints.save(tmp_path / "a.pt", Checkpoint(model.config, None, model.weights(), rounded=dict(rounded_weights(model))))
    assert not (tmp_path / "a.pt").exists()


def test_a_checkpoint_says_what_its_few_bits_stand_for():
    stored = Stored((1, 2), np.array([[127, -127]], np.int8), np.array([[0.5]], np.float32))
    found = checkpoints.Checkpoint(None, None, {"a": np.ones(1)}, rounded={"b": stored})
    assert found.expanded()["b"].tolist() == [[63.5, -63.5]] and set(found.expanded()) == {"a", "b"}


# --- other people's weights -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 4, Rounding(bits=4, double=True, keep=("*.W_key.weight",))])
def test_a_directory_is_rounded_while_it_is_read(bits, tmp_path):
    theirs = directory(tmp_path / "theirs", "gpt2")  # its matrices are stored the other way round
    model, _ = pretrained.load_pretrained(theirs, bits=bits)
    expected = quantize_model(pretrained.load_pretrained(theirs)[0], bits)
    state = expected.state_dict()
    assert model.state_dict().keys() == state.keys() and all(torch.equal(t, state[name]) for name, t in model.state_dict().items())
    half, _ = pretrained.load_pretrained(theirs, torch.bfloat16, bits=bits)
    assert half.embeddings.token.weight.dtype == torch.bfloat16
    assert torch.equal(half.blocks[0].feedforward.up.values, model.blocks[0].feedforward.up.values)  # rounded once, not twice
    with torch.no_grad():
        assert half(torch.arange(9)[None]).dtype == torch.bfloat16


def test_quantize_a_directory(tmp_path, capsys):
    theirs = directory(tmp_path / "theirs")
    (theirs / "chat_template.jinja").write_text("{{ messages }}")
    (tmp_path / "words.txt").write_text(TEXT * 8)
    assert main(["quantize", str(theirs), str(tmp_path / "four"), "--text", str(tmp_path / "words.txt"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["loss"]["before"]["loss"] > 4 and said["file_bytes"][0] == (theirs / "model.safetensors").stat().st_size
    lineage = run.read(run.resolve(tmp_path / "four")).lineage
    assert lineage["family"] == "llama" and lineage["quantized"]["bits"] == 4 and lineage["chat_template"]["text"] == "{{ messages }}"
    whole = pretrained.load_pretrained(theirs)[0]
    state = quantize_model(whole, 4).state_dict()
    assert all(torch.equal(t, state[name]) for name, t in run.load(tmp_path / "four")[0].state_dict().items())
    assert said["layers"][-1]["matrices"] == len(linear_weights(whole))
    assert main(["quantize", str(theirs), str(tmp_path / "eight"), "--bits", "8"]) == 0
    assert "its validation text can't be had here" in capsys.readouterr().out
    bert = directory(tmp_path / "bert", "bert")
    assert main(["quantize", str(bert), str(tmp_path / "b")]) == 0
    assert "it predicts no next token" in capsys.readouterr().out
    assert main(["quantize", str(bert), str(tmp_path / "c"), "--text", str(tmp_path / "words.txt")]) == 2
    assert "it fills gaps" in capsys.readouterr().err


def test_exported_it_is_full_numbers_again(capsys, tmp_path):
    _, out = made("4", capsys, tmp_path)
    assert main(["export", str(out), str(tmp_path / "full.npz"), "--format", "npz"]) == 0
    found, small = run.read(tmp_path / "full.npz"), run.load(out)[0]
    assert not found.rounded and "quantized" not in found.lineage
    for name, matrix in rounded_weights(small):
        assert torch.equal(found.weights[name], matrix.dequantize())
    assert run.expanded(found) is found


def test_a_gguf_file_can_be_rounded_too(tmp_path, capsys):
    theirs = directory(tmp_path / "theirs")
    model, tokenizer = pretrained.load_pretrained(theirs)
    pretrained.write_gguf(model, tmp_path / "one.gguf", tokenizer, dtype="float32")
    small, _ = pretrained.load_pretrained(tmp_path / "one.gguf", bits=4)
    state = quantize_model(model, 4).state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in small.state_dict().items())
    capsys.readouterr()
    assert main(["quantize", str(tmp_path / "one.gguf"), str(tmp_path / "out")]) == 2
    assert "Try: tiny import" in capsys.readouterr().err
