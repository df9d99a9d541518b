"""Two texts that every Python brings along: its standard library's source code, and the English inside it.

`python` is whole source files. Passed over, and why:
- `test`, `tests` and `idle_test` folders: mostly data and repetition; `site-packages` and `dist-packages`: not the library.
- `encodings`, `pydoc_data`, `lib2to3`, `config-…`, `_sysconfigdata…`, `stringprep`, `html/entities`: tables written by programs.
- `idlelib`, `turtledemo`, `ensurepip`, `__phello__`: programs beside the library.
- Files with a character outside printable ASCII (a few): each stray letter would cost the vocabulary a symbol.
- Files above 100,000 characters: one module should not fill a tenth of the text.

`pydoc` is prose: the paragraphs of the docstrings, and of the language reference that `help()` shows, that read as English
sentences. Code, signatures, tables, lists and repeats are left out. Nothing is imported or run: files are parsed.

The order of files is a fixed shuffle (by the SHA-256 of their names), so that a short text is a fair sample of the library,
and the last tenth, which training holds back, resembles the rest. The same interpreter always gives the same text; another
version of Python gives another one, so the source line names it. Read before: nothing.
"""

import ast
import hashlib
import inspect
import os
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from tiny_transformer.config import check

SKIPPED_FOLDERS = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
SKIPPED_FOLDERS |= {"encodings", "pydoc_data", "lib2to3", "idlelib", "turtledemo", "ensurepip", "__phello__"}
SKIPPED_FILES = {"stringprep.py", "entities.py"}
SKIPPED_STARTS = ("config-", "_sysconfigdata")
LONGEST_FILE = 100_000
PLAIN = re.compile(r"[\t\n -~]*")
"""Tab, newline and printable ASCII."""

CODE_OR_MARKUP = re.compile(r"[^ -~]|[_=<>{}\[\]|\\*#@^~/]|\.\.\.|--|``|:: |(Changed|New|Added|Deprecated)[a-z ]* in version")


def python_sources(root: Path | None = None) -> Iterator[str]:
    """The library's files, one after the other, each ending with two blank lines."""
    for path in _files(root):
        text = _read(path)
        if text.strip() and len(text) <= LONGEST_FILE and PLAIN.fullmatch(text):
            yield text.rstrip() + "\n\n\n"


def documentation(root: Path | None = None) -> Iterator[str]:
    """The library's prose, paragraph by paragraph, each once, on one line and followed by a blank one."""
    seen: set[str] = set()
    for text in _documents(root):
        for paragraph in re.split(r"\n\s*\n", text):
            prose = " ".join(paragraph.split())
            if prose not in seen and is_prose(paragraph):
                seen.add(prose)
                yield prose + "\n\n"


def _documents(root: Path | None) -> Iterator[str]:
    for path in _files(root):
        yield from docstrings(_read(path))
    yield from _topics(_library(root) / "pydoc_data" / "topics.py")


def docstrings(source: str) -> Iterator[str]:
    """Every docstring of a module, its classes and functions, dedented. None of a file that does not parse."""
    try:
        todo: list[ast.AST] = [ast.parse(source)]
    except (SyntaxError, ValueError):
        return
    while todo:
        node = todo.pop(0)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found = ast.get_docstring(node)
            if found:
                yield found
        todo[:0] = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt | ast.ExceptHandler)]


def is_prose(paragraph: str) -> bool:
    """True for a paragraph of English sentences, as far as its shape tells.

    >>> is_prose("Return the larger of the two numbers, and wait until\\nthe caller has read it.")
    True
    >>> is_prose("x = max(a, b)  # the larger of the two numbers, after the caller has read it.")
    False
    """
    text = " ".join(paragraph.split())
    return (
        text.count(" ") >= 6
        and len(text) <= 1200
        and text.endswith((".", "!", "?"))
        and CODE_OR_MARKUP.search(text) is None
        and re.search(r"\n[ \t]", paragraph.strip()) is None  # tables, examples and hanging lists are indented
        and re.match(r'"?[A-Z][a-z]*\b', text) is not None
        and re.search(r"\b(the|a|an|is|are|of|to|in|for)\b", text) is not None
        and len(re.findall("[A-Za-z ]", text)) >= 0.9 * len(text)
    )


def _topics(path: Path) -> Iterator[str]:
    """The texts of `help("topics")`: a dictionary of strings, read without running it."""
    if path.is_file():
        for node in ast.walk(ast.parse(_read(path))):
            if isinstance(node, ast.Dict):
                for value in node.values:
                    if isinstance(value, ast.Constant) and isinstance(value.value, str):
                        yield inspect.cleandoc(value.value)


def _library(root: Path | None) -> Path:
    return Path(sysconfig.get_path("stdlib")) if root is None else root


def _files(root: Path | None) -> Iterator[Path]:
    """The files that are not passed over, in the fixed shuffle."""
    library = _library(root)
    names: list[Path] = []
    for folder, folders, files in os.walk(library):
        folders[:] = [name for name in folders if name not in SKIPPED_FOLDERS and not name.startswith(SKIPPED_STARTS)]
        names += [Path(folder, name).relative_to(library) for name in files if _is_wanted(name)]
    check(bool(names), f"no Python source files in {library}", "this interpreter comes without its library's sources", "Use pitches")
    for name in sorted(names, key=lambda name: hashlib.sha256(name.as_posix().encode()).digest()):
        yield library / name


def _is_wanted(name: str) -> bool:
    return name.endswith(".py") and name not in SKIPPED_FILES and not name.startswith(SKIPPED_STARTS)


def _read(path: Path) -> str:
    """The file's text, or none of it when it is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8").replace("\r\n", "\n")
    except (UnicodeDecodeError, OSError):
        return ""


if __name__ == "__main__":
    import itertools

    print(next(python_sources())[:400])
    print("".join(itertools.islice(documentation(), 4)))
