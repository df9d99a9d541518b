"""docs/backpropagation.md is true: its code runs, its figures are computed ones, its drawings are the script's."""

import ast
import contextlib
import importlib.util
import io
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.mathtext import MathTextParser

from tests.options import OPTIONS, small_config
from tiny_transformer.config import PRESETS
from tiny_transformer.numpy_engine.model import TinyTransformerLM, init_weights
from tiny_transformer.numpy_engine.transformer_block import transformer_block

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs/backpropagation.md").read_text(encoding="utf-8")
PROSE = re.sub(r"^```.*?^```", "", PAGE, flags=re.MULTILINE | re.DOTALL)
BLOCKS = list(re.finditer(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL))


@pytest.fixture(scope="module")
def names():
    """Everything the page's code has defined, after running all of it in order as one program."""
    found: dict = {"__name__": "backpropagation"}
    for block in BLOCKS:
        above = "\n" * PAGE[: block.start(1)].count("\n")  # so that an error names the page's line
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(above + block[1], "docs/backpropagation.md", "exec"), found)
    return found


@pytest.fixture(scope="module")
def script():
    """tools/draw_backpropagation.py as a module."""
    spec = importlib.util.spec_from_file_location("draw_backpropagation", ROOT / "tools/draw_backpropagation.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(name: str, among: str) -> list[str]:
    """The cells after the first of the table row whose first cell begins with `name`, in the section headed `among`."""
    section = PAGE.split(f"### {among}\n")[1].split("\n##")[0]
    lines = [line for line in section.splitlines() if line.startswith(f"| {name}")]
    assert len(lines) == 1, (name, lines)
    return [cell.strip(" *") for cell in lines[0].strip("|").split("|")[1:]]


def test_every_block_runs_and_proves_something(names):
    assert len(BLOCKS) >= 15
    proofs = [block[1] for block in BLOCKS if re.search(r"\bassert\b|\bcheck(_function)?\(", block[1])]
    assert len(proofs) >= len(BLOCKS) - 1
    assert names["measured"].keys() == {"cpu", "baby-gpt"}


def test_the_proof_by_nudging_can_fail(names):
    x = np.array([1.0, 2.0])
    names["check"](lambda: float((x**3).sum()), x, 3 * x**2)
    with pytest.raises(AssertionError):
        names["check"](lambda: float((x**3).sum()), x, 3 * x**2 * (1 + 1e-6))
    with pytest.raises(AssertionError):
        names["check_function"](lambda: x * 2, np.ones(2), (x, np.ones(2)))


def test_every_backward_function_is_on_the_page():
    pairs = {
        node.name
        for file in (ROOT / "tiny_transformer/numpy_engine").glob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.endswith("_backward") and not node.name.startswith("_")
    }
    assert len(pairs) >= 23
    for name in pairs:
        for word in (name, name.removesuffix("_backward")):
            assert re.search(rf"(?<!\w){word}(?!\w)", PAGE), f"{word} is not mentioned in docs/backpropagation.md"


# --- memory and cost ------------------------------------------------------------------------------------------------


def test_the_memory_table(names):
    for column, preset in ((-2, "cpu"), (-1, "baby-gpt")):
        config = PRESETS[preset]
        block, end = names["floats_per_token"](config)
        labels = {"norm1": "`norm1`", "multi_head_attention": "`multi_head_attention`", "QK-norm": "QK-norm", "attend": "`attend`",
                  "out_proj": "`out_proj`", "norm2": "`norm2`", "feed_forward": "`feed_forward`"}  # fmt: skip
        expected = {label: block[part] for part, label in labels.items()} | {
            "**one block": sum(block.values()),
            "**all blocks": config.n_layers * sum(block.values()),
            "last norm": end,
            "**the model": config.n_layers * sum(block.values()) + end,
        }
        assert labels.keys() == block.keys()
        assert {label: row(label, "What is kept")[column] for label in expected} == {key: f"{n:,}" for key, n in expected.items()}


@pytest.mark.parametrize("option", OPTIONS)
def test_the_memory_formula_holds_for_every_option(option, names):
    config = small_config(option, n_layers=1, dropout=0.5)
    weights = {name: weight.astype(np.float64) for name, weight in init_weights(config, 0).items()}
    model = TinyTransformerLM(config, weights)
    generator = np.random.default_rng(0)
    x, keep = generator.standard_normal((3, 7, 24)), tuple(generator.random((2, 3, 7, 24)) < 0.5)
    bias, rotation = model._score_bias(7, 7), model._rotation(np.arange(7))
    _, cache = transformer_block(x, weights, "blocks.0", config, bias=bias, rotation=rotation, keep=keep)
    not_counted = {id(array) for array in (*weights.values(), *(rotation or ()), bias)}  # the model's, or shared by all blocks
    kept = [array for key, array in names["owners"](cache, {}).items() if key not in not_counted]
    block, _ = names["floats_per_token"](config)
    assert sum(array.size for array in kept if array.dtype == np.float64) == 3 * 7 * sum(block.values())
    # the mask, and the two dropout masks, which are views of one array here
    assert sum(array.size for array in kept if array.dtype == bool) == 7 * 7 + 2 * x.size
    assert {array.dtype for array in kept} == {np.dtype(np.float64), np.dtype(bool)}


def test_the_table_of_operations(names):
    labels = {"projections": "the four projections", "attention": "attention", "feed-forward": "feed-forward", "output": "output"}
    for column, preset in ((2, "cpu"), (4, "baby-gpt")):
        table = names["operations_per_token"](PRESETS[preset])
        whole = sum(map(sum, table.values()))
        expected = {labels[part]: [f"{100 * n / whole:.1f} %" for n in pair] for part, pair in table.items()}
        expected["**all"] = [f"{100 * sum(pair[side] for pair in table.values()) / whole:.1f} %" for side in (0, 1)]
        assert {label: row(label, "How much work")[column : column + 2] for label in expected} == expected


def test_the_figures_in_the_sentences(names):
    text = " ".join(PAGE.split())
    kept, weights, operations, again = {}, {}, {}, {}
    for preset, tokens in (("cpu", 32 * 128), ("baby-gpt", 64 * 256)):
        config = PRESETS[preset]
        block, end = names["floats_per_token"](config)
        kept[preset] = tokens * (config.n_layers * sum(block.values()) + end)
        table = names["operations_per_token"](config)
        operations[preset] = sum(map(sum, table.values()))
        weights[preset] = config.n_heads * config.max_seq_len, config.n_heads * config.max_seq_len / sum(block.values())
        again[preset] = 2 * config.max_seq_len * config.n_heads * config.head_width * config.n_layers / operations[preset]
    cpu, baby = PRESETS["cpu"].n_parameters, PRESETS["baby-gpt"].n_parameters
    shape = [f"{c.n_layers} × {c.d_model} with a context of {c.max_seq_len}" for c in (PRESETS["cpu"],)]
    products = names["operations_per_token"](PRESETS["cpu"])
    matrices = 100 * sum(sum(products[part]) for part in ("projections", "feed-forward")) / operations["cpu"]
    for words in (
        *shape,
        f"baby-gpt has {baby / 1e6:.1f} million",
        f"keeps {kept['cpu'] / 1e6:.1f} million floats ({4 * kept['cpu'] / 1e6:,.0f} MB in float32)",
        f"keep {kept['baby-gpt'] / 1e6:.1f} million ({4 * kept['baby-gpt'] / 1e6:,.0f} MB)",
        f"four numbers per weight: {4 * cpu / 1e6:.1f} and {4 * baby / 1e6:.1f} million",
        f"block: {weights['cpu'][0]} ({100 * weights['cpu'][1]:.0f} % more) and "
        f"{weights['baby-gpt'][0]:,} ({100 * weights['baby-gpt'][1]:.0f} % more)",
        f"{operations['cpu'] / cpu:.1f} per weight for cpu, {operations['baby-gpt'] / baby:.1f} for baby-gpt",
        f"{100 * again['cpu']:.1f} % and {100 * again['baby-gpt']:.1f} % of all",
        f"are {matrices:.0f} % of cpu's operations",
        f"Attention is the reverse, {100 * sum(products['attention']) / operations['cpu']:.0f} %",
    ):
        assert words in text, words


def test_the_table_of_times(names):
    """The times are one machine's; here: every part is still found in the engine, and the printed shares are shares of one step."""
    parts = set(names["PARTS"].values())
    for column, preset in ((0, "cpu"), (2, "baby-gpt")):
        _, shares = names["measured"][preset]
        absent = {"cpu": {"dropout"}, "baby-gpt": {"rotation"}}[preset]
        for part in parts:
            cells = row(part, "Where the time goes")[column : column + 2]
            assert (cells == ["–", "–"]) == (part in absent)
            assert sum(shares[part]) < 2 if part in absent else min(shares[part]) > 0, f"{part}: {shares[part]} % of {preset}"
        assert 0 < shares["all else"] < 50
        numbers = [row(part, "Where the time goes")[column : column + 2] for part in (*parts, "all else")]
        assert sum(float(cell.removesuffix("%")) for pair in numbers for cell in pair if cell not in ("", "–")) == pytest.approx(
            100, abs=0.5
        )


# --- the drawings, the mathematics ----------------------------------------------------------------------------------


def test_the_graph_is_the_scripts(script):
    drawn = (ROOT / "docs/images/backpropagation.svg").read_text(encoding="utf-8")
    assert drawn == script.graph(), "run: python tools/draw_backpropagation.py"
    assert len(drawn.encode()) < 100_000


def test_the_curves_are_the_scripts(script):
    """All but the last digits: rounding errors differ a little between machines."""
    number = r"-?\d+(?:\.\d+)?"
    drawn, now = (ROOT / "docs/images/gradient_check.svg").read_text(encoding="utf-8"), script.step_sizes()
    assert re.sub(number, "#", drawn) == re.sub(number, "#", now), "run: python tools/draw_backpropagation.py"
    np.testing.assert_allclose(*([float(n) for n in re.findall(number, text)] for text in (drawn, now)), rtol=0, atol=6)  # in pixels


def test_the_script_and_the_page_measure_the_same(script, names):
    for h, kind, sides in ((1e-5, np.float64, 2), (1e-8, np.float64, 1), (1e-2, np.float32, 2)):
        assert script.slope_error(h, kind, sides) == names["slope_error"](h, kind, sides)


def test_the_script_writes_both_files(script, tmp_path, capsys):
    script.main(tmp_path / "new")
    assert capsys.readouterr().out.split() == [str(tmp_path / "new" / name) for name in script.FIGURES]
    for name in script.FIGURES:
        text = (tmp_path / "new" / name).read_text(encoding="utf-8")
        assert text.startswith("<svg") and "prefers-color-scheme: dark" in text
        assert f"images/{name}" in PAGE


def test_the_mathematics_can_be_typeset():
    """Each formula parses; and none holds a backslash before punctuation, which GitHub's Markdown eats."""
    displayed = re.findall(r"\$\$(.*?)\$\$", PROSE, flags=re.DOTALL)
    inline = re.findall(r"\$([^$]+)\$", re.sub(r"\$\$.*?\$\$", "", PROSE, flags=re.DOTALL))
    assert len(displayed) >= 15 and len(inline) >= 100
    assert re.sub(r"\$\$.*?\$\$|\$[^$]+\$", "", PROSE, flags=re.DOTALL).count("$") == 0
    parser = MathTextParser("path")
    for formula in displayed + inline:
        assert not re.search(r"\\[^a-zA-Z]", formula), formula
        assert formula == formula.strip() or formula in displayed, formula
        parser.parse(f"${' '.join(formula.split())}$")
