"""`tiny profile`: its table, pictures and JSON on small models, and what it refuses in one line."""

import json
import re
import xml.etree.ElementTree as ElementTree

import pytest

from tiny_transformer.cli.main import main
from tiny_transformer.cli.profile_settings import decide
from tiny_transformer.config import PRESETS
from tiny_transformer.recipes import RECIPES
from tiny_transformer.step_cost import step_cost, step_flop, total

SMALL = ["--d-model", "32", "--n-layers", "1", "--n-heads", "2", "--max-seq-len", "32", "--threads", "1"]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    """An empty folder, and ceilings that take no second and a half."""
    from tiny_transformer.cli import profile_measures
    from tiny_transformer.roofline import Ceilings

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(profile_measures, "measure_ceilings", lambda device, precision: Ceilings(1e11, 2e10))


def profile(*argv, code=0):
    assert main(["profile", *argv]) == code


def test_a_step_of_given_sizes(capsys, tmp_path):
    profile(*SMALL, "--batch-size", "3", "--steps", "2", "--json", "found/step.json", "--output", "found/step.svg")
    out = capsys.readouterr().out
    for part in ("embeddings", "attention (fused)", "feed-forward up", "optimizer", "all parts"):
        assert re.search(rf"│ {re.escape(part)} +│ +\d", out), part
    assert "1 layers, 2 heads, 32 wide, context 32" in out
    assert "3 x 32 tokens, adamw" in out
    found = json.loads((tmp_path / "found/step.json").read_text())
    config = type(PRESETS["tiny"])(**found["model"])
    assert found["what"] == "step"
    assert (config.d_model, config.n_layers, config.max_seq_len) == (32, 1, 32)
    costs = step_cost(config, 3)
    assert found["all_parts"]["flop"] == total(costs).flop == sum(part["flop"] for part in found["parts"])
    assert found["all_parts"]["bytes"] == total(costs).bytes
    assert found["usual_flop"] == step_flop(config, 3)
    assert found["sum_of_parts"] == pytest.approx(sum(sum(part["seconds"].values()) for part in found["parts"]))
    assert sum(part["share"] for part in found["parts"]) == pytest.approx(1)
    assert found["quartiles"][0] <= found["undisturbed"] <= found["quartiles"][1]
    assert found["tokens_per_second"] == pytest.approx(96 / found["undisturbed"])
    assert found["ceilings"] == {"flop_per_second": 1e11, "bytes_per_second": 2e10}
    ElementTree.parse(tmp_path / "found/step.svg")


def test_json_on_standard_output_is_nothing_but_json(capsys):
    profile(*SMALL, "--batch-size", "2", "--steps", "1", "--json", "-", "--reference", "--optimizer", "muon")
    out, err = capsys.readouterr()
    parts = {part["part"]: part for part in json.loads(out)["parts"]}
    assert {"attention scores", "softmax", "attention values"} <= set(parts)
    assert "attention (fused)" not in parts
    assert parts["optimizer"]["works"]["update"]["products"] > 0
    assert "profile: a training step" in err


def test_a_token(capsys, tmp_path):
    profile(*SMALL, "--generate", "--steps", "8", "--json", "token.json", "--output", "token.html", "--sampler", "creative")
    out = capsys.readouterr().out
    assert re.search(r"│ sampling +│ +\d", out)
    assert "backward" not in out
    found = json.loads((tmp_path / "token.json").read_text())
    assert (found["what"], found["training"]["batch_size"], found["count"]) == ("token", 1, 8)
    assert "sampling" in {part["part"] for part in found["parts"]}
    page = (tmp_path / "token.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "<svg" in page
    assert "sampling" in page
    assert not re.search(r'(src|href)="http|<script', page), "nothing from elsewhere"


def test_a_run(capsys, tmp_path):
    (tmp_path / "text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 40)
    short = ["--max-steps", "2", "--eval-every", "2", "--eval-tokens", "64", "--batch-size", "5", "--warmup-steps", "0"]
    assert main(["train", "--data", "text.txt", "--out", "run", *SMALL, *short]) == 0
    capsys.readouterr()
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    profile("run", "--steps", "1", "--output", "run.png")
    out = capsys.readouterr().out
    assert "5 x 32 tokens" in out, "the run's own batch"
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")
    profile("run", "--generate", "--steps", "2", "--batch-size", "3")
    assert "3 texts, each new token looks at" in capsys.readouterr().out
    after = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert before == after, "a profile changes no run"


def test_what_is_profiled():
    _, subject = decide(["--recipe", "demo", "--batch-size", "7"])
    assert (subject.config, subject.training.batch_size) == (RECIPES["demo"].model, 7)
    assert subject.training.max_steps == RECIPES["demo"].training.max_steps
    _, subject = decide(["--preset", "gpt2"])
    assert subject.config == PRESETS["gpt2"]
    _, subject = decide(["--preset", "tiny", "--vocab-size", "300", "--n-layers", "3"])
    assert (subject.config.vocab_size, subject.config.n_layers, subject.config.d_model) == (300, 3, 64)
    _, subject = decide(["--preset", "tiny", "--generate"])
    assert subject.training.batch_size == 1
    _, subject = decide([])
    assert subject.notes[0].startswith("no size given: ")


REFUSED = [
    (["--recipe", "nonsense"], "recipe='nonsense': it must be one of"),
    (["--preset", "nonsense"], "preset='nonsense': it must be one of"),
    (["--recipe", "demo", "--preset", "tiny"], "--recipe and --preset: a profile is that of one model"),
    (["nowhere"], "there is no checkpoint at nowhere"),
    (["nowhere", "--d-model", "64"], "--d-model with a run: its model is as it is"),
    (["--preset", "tiny", "--steps", "0"], "steps=0: it must be 1 to 1000"),
    (["--preset", "tiny", "--batch-size", "0"], "batch_size=0"),
    (["--preset", "tiny", "--output", "step.gif"], "--output step.gif: it must end in .svg, .png, .html"),
    (["--preset", "tiny", "--output", "."], "--output .: it must end in"),
    (["--preset", "tiny", "--json", "."], ". is a folder"),
    (["--preset", "tiny", "--json", ""], "--json without a name"),
    (["--preset", "tiny", "--json"], "--json stands without a value"),
    (["--preset", "tiny", "--compile", "--reference"], "--reference with --compile"),
    (["--preset", "tiny", "--generate", "--steps", "31"], "31 tokens, watched and not, with a context of 64"),
    (["--preset", "bert-base", "--generate", "--n-layers", "1", "--vocab-size", "9"], "a model with causal=False"),
    (["--preset", "tiny", "--sampler", "wild"], "sampler='wild'"),
    (["--preset", "tiny", "--device", "nonsense"], "device='nonsense'"),
    (["--preset", "tiny", "--sizes", "9"], "there is no flag --sizes"),
    (["--preset", "tiny", "--engine", "numpy"], "there is no flag --engine"),
]


@pytest.mark.parametrize(("argv", "line"), REFUSED, ids=[" ".join(argv) for argv, _ in REFUSED])
def test_what_can_be_mended_is_one_line(argv, line, capsys, tmp_path):
    profile(*argv, code=2)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"tiny profile: {line}")
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir()), "nothing is written"
