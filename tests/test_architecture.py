"""docs/ARCHITECTURE.md is true: its list of modules is the order of imports, its weight names are the model's."""

import ast
import itertools
import re
import runpy
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "tiny_transformer"
TABLE = ROOT / "docs/ARCHITECTURE.md"
HEAVY = {"torch", "transformers", "safetensors.torch"}  # importing one of these loads torch
COMMON = {
    "accelerate", "anyio", "attr", "attrs", "click", "datasets", "evaluate", "fastapi", "flask", "fsspec", "gradio", "httpx",
    "huggingface_hub", "hypothesis", "jax", "jinja2", "keras", "matplotlib", "mypy", "networkx", "nltk", "numpy", "onnx", "onnxruntime",
    "packaging", "pandas", "peft", "PIL", "pip", "pydantic", "pygments", "pytest", "regex", "requests", "rich", "ruff", "sacrebleu",
    "safetensors", "scipy", "sentencepiece", "setuptools", "sklearn", "sympy", "tensorflow", "tiktoken", "tokenizers", "torch",
    "torchvision", "tqdm", "transformers", "triton", "trl", "typing_extensions", "tyro", "uvicorn", "wandb", "wheel", "yaml",
}  # fmt: skip


# --- the table ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """One module or folder of the table."""

    row: int
    path: str  # relative to the package; a folder ends with /
    torch: str  # no, lazily, yes, never
    planned: bool


def entries_in(markdown: str) -> list[Entry]:
    """The entries of the table `| # | module | says | torch |`, braces spelled out."""
    entries = []
    for line in markdown.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) != 4 or not cells[0].isdigit():
            continue
        torch = re.match(r"\w+", cells[3]).group()
        for path, planned in re.findall(r"`([^`]+)`( \(planned\))?", cells[1]):
            head, braces, tail = re.fullmatch(r"([^{]*)(?:\{([^}]*)\})?(.*)", path).groups()
            entries += [Entry(int(cells[0]), head + part + tail, torch, bool(planned)) for part in (braces or "").split(",")]
    return entries


ENTRIES = entries_in(TABLE.read_text(encoding="utf-8"))


def entry_of(path: str, entries: list[Entry]) -> Entry | None:
    """The entry that a file belongs to: its own, else that of its folder."""
    exact = [entry for entry in entries if entry.path == path]
    folders = [entry for entry in entries if entry.path.endswith("/") and path.startswith(entry.path)]
    return (exact or sorted(folders, key=lambda entry: -len(entry.path)) or [None])[0]


# --- the imports ----------------------------------------------------------------------------------------------------


def imports_of(source: str) -> set[str]:
    """Dotted names that a source imports, at the top, inside functions, for type checking, or by name as a string.

    `from a.b import c` gives "a.b.c": whether c is a module is decided by who asks.
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{'.' * node.level}{node.module or ''}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"tiny_transformer(\.\w+)+", node.value):
            found.add(node.value)
    return found


def file_of(dotted: str, files: set[str]) -> str | None:
    """The library file that a dotted name leads to: the longest prefix that is a module; None outside the package."""
    parts = dotted.split(".")
    if parts[0] != "tiny_transformer":
        return None
    for length in range(len(parts), 1, -1):
        stem = "/".join(parts[1:length])
        for candidate in (f"{stem}.py", f"{stem}/__init__.py"):
            if candidate in files:
                return candidate
    return "__init__.py"


def row_of(path: str, files: set[str], entries: list[Entry]) -> int | None:
    """The row of a file. A folder's front door counts as the lowest row behind it; the package's own has none."""
    if path == "__init__.py":
        return None
    if path.endswith("/__init__.py"):
        behind = [entry_of(file, entries) for file in files if file.startswith(path.removesuffix("__init__.py"))]
        return max((entry.row for entry in behind if entry is not None), default=None)
    entry = entry_of(path, entries)
    return None if entry is None else entry.row


def problems_in(sources: dict[str, str], entries: list[Entry]) -> list[str]:
    """Everything that is wrong with the imports of `sources` (path in the package → text), in words."""
    files = set(sources)
    problems = [f"{path} has no row" for path in files if not path.endswith("__init__.py") and entry_of(path, entries) is None]
    for path, source in sources.items():
        imports = imports_of(source)
        problems += [f"{path} imports relatively: {name}" for name in imports if name.startswith(".")]
        if path.endswith("__init__.py"):
            folder = path.removesuffix("__init__.py")
            targets = {file_of(name, files) for name in imports} - {None, "__init__.py"}
            problems += [f"{path} reaches outside its folder: {target}" for target in targets if not target.startswith(folder)]
            continue
        own = row_of(path, files, entries)
        for name in imports:
            target = file_of(name, files)
            row = None if target is None else row_of(target, files, entries)
            if own is None or row is None:
                continue
            if row > own:
                problems.append(f"{path} (row {own}) imports down: {name} (row {row})")
            if path.startswith("numpy_engine/") and row > 6 and not target.startswith("numpy_engine/"):
                problems.append(f"{path} may import rows 1 to 6 only: {name} (row {row})")
    return problems + [f"a circle: {' → '.join(circle)}" for circle in circles_in(sources)]


def circles_in(sources: dict[str, str]) -> list[list[str]]:
    """Circles of import statements between library files. Strings do not count: a table of commands names its users."""
    files, state, circles = set(sources), {}, []
    edges = {}
    for path, source in sources.items():
        nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, (ast.Import, ast.ImportFrom))]
        names = imports_of("\n".join(ast.unparse(node) for node in nodes))
        edges[path] = sorted({file_of(name, files) for name in names} - {None, path, "__init__.py"})

    def visit(path: str, trail: list[str]) -> None:
        state[path] = "open"
        for target in edges[path]:
            if state.get(target) == "open":
                circles.append([*trail[trail.index(target) :], target])
            elif target not in state:
                visit(target, [*trail, target])
        state[path] = "done"

    for path in sorted(files):
        if path not in state:
            visit(path, [path])
    return circles


def front_door_problems(source: str) -> list[str]:
    """What an `__init__.py` holds beyond a docstring, names, standard-library imports and a lazy `__getattr__`."""
    problems = []
    for index, node in enumerate(ast.parse(source).body):
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        standard = isinstance(node, (ast.Import, ast.ImportFrom)) and all(
            name.split(".")[0] in sys.stdlib_module_names for name in imports_of(ast.unparse(node))
        )
        names = isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None and _is_plain(node.value)
        lazy = isinstance(node, ast.FunctionDef) and node.name in ("__getattr__", "__dir__")
        typing_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if not (docstring or standard or names or lazy or typing_only):
            problems.append(f"line {node.lineno}: {ast.unparse(node).splitlines()[0]}")
        if index == 0 and not docstring:
            problems.append("no docstring")
    return problems if source.strip() else ["no docstring"]


def _is_plain(value: ast.expr) -> bool:
    return not any(isinstance(node, (ast.Call, ast.Lambda)) for node in ast.walk(value))


# --- the project, held against the table ----------------------------------------------------------------------------

SOURCES = {path.relative_to(PACKAGE).as_posix(): path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))}


def test_the_list_reads_from_one_to_twenty_eight():
    assert list(dict.fromkeys(entry.row for entry in ENTRIES)) == list(range(1, 29))
    assert {entry.torch for entry in ENTRIES} == {"no", "lazily", "yes", "never"}
    assert [entry for entry in ENTRIES if entry.path == "attention.py"] == [Entry(7, "attention.py", "yes", False)]


def test_every_module_is_in_the_list_and_imports_point_up():
    assert not problems_in(SOURCES, ENTRIES)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.path)
def test_what_the_list_names_exists_unless_planned(entry):
    there = any(path.startswith(entry.path) for path in SOURCES)
    assert there != entry.planned, f"{entry.path} is {'there: no longer planned' if there else 'missing'}"


@pytest.mark.parametrize("path", [path for path in SOURCES if path.endswith("__init__.py")])
def test_front_doors_hold_nothing_else(path):
    assert not front_door_problems(SOURCES[path])


def test_every_folder_has_a_front_door():
    folders = {Path(path).parent.as_posix() for path in SOURCES}
    assert not {folder for folder in folders if f"{folder}/__init__.py".removeprefix("./") not in SOURCES}


@pytest.mark.parametrize("path", SOURCES)
def test_no_name_hides_another_module(path):
    names = {Path(path).stem, *Path(path).parts[:-1]} - {"__init__", "__main__"}
    assert not names & (sys.stdlib_module_names | COMMON), "running a file beside it would import it in place of the real one"


@pytest.mark.parametrize("path", [path for path in SOURCES if (entry := entry_of(path, ENTRIES)) and entry.torch in ("no", "never")])
def test_files_without_torch_do_not_name_it(path):
    loads = {name for name in imports_of(SOURCES[path]) for heavy in HEAVY if name == heavy or name.startswith(f"{heavy}.")}
    assert not loads


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_modules_that_need_no_torch_import_without_it():
    """In a Python where importing torch fails: what is said to load it lazily must not need it at import.

    Of the command line, these are the commands; helpers of theirs may need torch, because they are imported when it is time.
    """
    from tiny_transformer.cli.main import COMMANDS

    commands = {module.removeprefix("tiny_transformer.").replace(".", "/") + ".py" for module, _ in COMMANDS.values()}
    light = [path for path in SOURCES if (entry := entry_of(path, ENTRIES)) and entry.torch != "yes"]
    light = [path for path in light if not path.startswith("cli/") or path in commands or path == "cli/main.py"]
    modules = ["tiny_transformer." + path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in light]
    done = python(
        f"""
import importlib, sys
sys.modules["torch"] = None  # importing it raises ModuleNotFoundError
for name in {modules!r}:
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(name, "needs", error)
"""
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "tiny_transformer.config" in modules
    assert "tiny_transformer.cli.main" in modules


@pytest.mark.parametrize(
    "code", ["import tiny_transformer", "from tiny_transformer.cli.main import main; assert main(['--help']) == 0"], ids=["import", "help"]
)
def test_importing_the_package_and_asking_for_help_load_nothing_heavy(code):
    done = python(f"import sys; {code}; print(sorted({{'torch', 'numpy', 'rich', 'tyro', 'matplotlib'}} & set(sys.modules)))")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


ARGUMENTS = {"corpora/download.py": ["--help"]}  # a program that needs to be told what to do
DEMOS = [path for path, source in SOURCES.items() if re.search(r'^if __name__ == "__main__":', source, re.MULTILINE)]


@pytest.mark.parametrize("path", DEMOS)
def test_a_file_run_as_a_program_shows_something(path, monkeypatch, capsys, tmp_path):
    """As `python tiny_transformer/<path>`: its own folder first on the import path."""
    monkeypatch.setattr(sys, "argv", [str(PACKAGE / path), *ARGUMENTS.get(path, [])])
    monkeypatch.setattr(sys, "path", [str((PACKAGE / path).parent), *sys.path])
    monkeypatch.chdir(tmp_path)
    try:
        runpy.run_path(str(PACKAGE / path), run_name="__main__")
    except SystemExit as stop:
        assert not stop.code, f"exit code {stop.code}"
    assert capsys.readouterr().out.strip()


def test_attention_runs_as_a_program_of_its_own():
    done = subprocess.run([sys.executable, "tiny_transformer/attention.py"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "weights" in done.stdout


@pytest.mark.parametrize("path", [path for path in SOURCES if (entry := entry_of(path, ENTRIES)) and entry.row in (2, *range(7, 14), 15)])
def test_files_of_the_network_end_with_a_demo(path):
    assert path in DEMOS or path.endswith("__init__.py")


# --- weight names ---------------------------------------------------------------------------------------------------


def weight_table(markdown: str) -> dict[str, str]:
    """Name → shape, from the table of weight names."""
    return dict(re.findall(r"^\| `([\w.]+\.(?:weight|bias))` \| (\([^|]*\)) \|", markdown, re.MULTILINE))


def configs():
    from tiny_transformer.config import ModelConfig

    small = ModelConfig(vocab_size=11, max_seq_len=7, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, d_ff=20)
    options = ("gelu", "swiglu"), ("layer", "rms"), ("learned", "rotary"), ("all", "qkv", "none")
    for activation, norm, position, bias in itertools.product(*options):
        for qk_norm, tie, types, d_head, rows in ((False, True, 0, None, ()), (True, False, 2, 6, (13,))):
            yield replace(
                small, activation=activation, norm=norm, position=position, bias=bias, qk_norm=qk_norm, tie_weights=tie,
                n_token_types=types, causal=not types, d_head=d_head, ngram_rows=rows, norm_position="post" if types else "pre",
            )  # fmt: skip


def test_the_weight_names_are_the_models():
    import torch

    from tiny_transformer.model import TinyTransformerLM

    table, used = weight_table(TABLE.read_text(encoding="utf-8")), set()
    for config in configs():
        with torch.device("meta"):
            model = TinyTransformerLM(config)
        sizes = vars(config) | {"d_head": config.head_width, "d_ff": config.ff_width, "n_kv_heads": config.kv_heads}
        for name, tensor in model.weights().items():
            listed = re.sub(r"^blocks\.\d+\.", "blocks.N.", name)
            assert listed in table, f"{name} is not in the table"
            assert tuple(tensor.shape) == eval(table[listed], {}, sizes), name
            used.add(listed)
    assert used == set(table), "in the table, but in no model"


# --- the checks themselves must be able to fail ---------------------------------------------------------------------

TOY = entries_in("""
| # | module | says | torch |
|--:|---|---|---|
| 1 | `a.py` | x | no |
| 2 | `b/{c,d}.py`, `e.py` (planned) | x | yes |
| 3 | `numpy_engine/` | x | never: ever |
| 7 | `f/` | x | yes |
""")


@pytest.mark.parametrize(
    ("sources", "complaint"),
    [
        ({"a.py": "from tiny_transformer.b import c", "b/c.py": ""}, "a.py (row 1) imports down"),
        ({"a.py": "def f():\n    import tiny_transformer.b.c", "b/c.py": ""}, "imports down"),
        ({"a.py": "if TYPE_CHECKING:\n    from tiny_transformer.b.c import x", "b/c.py": ""}, "imports down"),
        ({"a.py": "table = {'x': 'tiny_transformer.b.c'}", "b/c.py": ""}, "imports down"),
        ({"a.py": "from tiny_transformer.b import thing", "b/__init__.py": "", "b/c.py": ""}, "imports down"),
        ({"z.py": ""}, "z.py has no row"),
        ({"b/z.py": ""}, "b/z.py has no row"),
        ({"b/c.py": "from . import d", "b/d.py": ""}, "imports relatively"),
        ({"b/c.py": "from tiny_transformer.b import d", "b/d.py": "import tiny_transformer.b.c"}, "a circle"),
        ({"numpy_engine/x.py": "import tiny_transformer.f.g", "f/g.py": ""}, "imports down"),
        ({"b/__init__.py": "def __getattr__(name):\n    import tiny_transformer.a", "a.py": ""}, "reaches outside"),
    ],
)
def test_a_wrong_import_is_found(sources, complaint):
    assert any(complaint in problem for problem in problems_in(sources, TOY))


def test_right_imports_pass():
    sources = {"a.py": "import torch", "b/c.py": "import tiny_transformer.a", "b/d.py": "from tiny_transformer.b import c"}
    sources["f/g.py"] = "from tiny_transformer import a"
    assert not problems_in(sources, TOY)
    assert [entry.planned for entry in TOY] == [False, False, False, True, False, False]


def test_the_twin_may_not_use_the_torch_side():
    entries = [Entry(8, "x.py", "yes", False), Entry(15, "numpy_engine/", "never", False)]
    assert problems_in({"x.py": "", "numpy_engine/y.py": "import tiny_transformer.x"}, entries) == [
        "numpy_engine/y.py may import rows 1 to 6 only: tiny_transformer.x (row 8)"
    ]


@pytest.mark.parametrize(
    "more", ["import numpy", "def helper(): ...", "x = open('f')", "print(1)", "class A: ...", "from tiny_transformer import a"]
)
def test_a_front_door_with_more_is_found(more):
    good = '"""Doc."""\nfrom typing import Any\n__all__ = ["x"]\ndef __getattr__(name: str) -> Any: ...\n'
    assert not front_door_problems(good)
    assert front_door_problems(good + more)
    assert front_door_problems("")
    assert front_door_problems("import os")
