"""Planted bugs: each is a small, plausible mistake, and some test must fail for it. Run with `make planted-bugs`.

A test suite is as good as the bugs it finds. Each entry in `tests/planted/` names a file, a piece of it, what a tired person
might have written instead, and the tests that must notice. The change is made in a copy of the tree, never in the tree itself.
"""

import argparse
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.planted.bug import Bug  # noqa: E402

AREAS = sorted(path.stem for path in (ROOT / "tests" / "planted").glob("*.py") if path.stem not in ("__init__", "bug"))


def every_bug() -> list[Bug]:
    """All areas, in order."""
    return [bug for area in AREAS for bug in importlib.import_module(f"tests.planted.{area}").BUGS]


def copy_tree(target: Path) -> None:
    """What the tests need, without results and caches."""
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("tiny_transformer", "tests", "tools", "examples", "benchmarks", "docs", "data"):
        shutil.copytree(ROOT / name, target / name, ignore=ignore)
    for path in [*ROOT.glob("*.*"), ROOT / "Makefile"]:
        if path.is_file():
            shutil.copy(path, target)


def is_caught(bug: Bug, tree: Path) -> bool:
    """Plant the bug in `tree`, run its tests, take it out again. Raises ValueError when the piece is not there exactly once."""
    path = tree / bug.file
    original = path.read_text(encoding="utf-8")
    if original.count(bug.good) != 1:
        raise ValueError(f"{bug.file} holds {bug.good!r} {original.count(bug.good)} times, must be once")
    path.write_text(original.replace(bug.good, bug.bad), encoding="utf-8")
    try:
        tests = [f"tests/test_{name}.py" for name in bug.tests.split()]
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", *tests]
        result = subprocess.run(command, cwd=tree, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tree)})
        return result.returncode in (1, 2) or result.returncode < 0  # a failed test, or a run or a process that the bug brought down
    finally:
        path.write_text(original, encoding="utf-8")


def verdict(bug: Bug, trees: "Queue[Path]") -> str:
    """caught, MISSED or STALE, in one of the free copies."""
    tree = trees.get()
    try:
        return "caught" if is_caught(bug, tree) else "MISSED"
    except ValueError as error:
        return f"STALE ({error})"
    finally:
        trees.put(tree)


def main() -> int:
    """Plant every bug (or those whose name or file holds the given word); exit code 1 when one was not noticed."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("only", nargs="?", default="", help="a word of the bug's name or file")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time")
    arguments = parser.parse_args()
    bugs = [bug for bug in every_bug() if arguments.only in bug.name or arguments.only in bug.file]
    trees: Queue[Path] = Queue()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(arguments.jobs) as pool:
        for job in range(arguments.jobs):
            copy_tree(Path(folder) / str(job))
            trees.put(Path(folder) / str(job))
        missed = 0
        for bug, found in zip(bugs, pool.map(lambda bug: verdict(bug, trees), bugs), strict=True):
            missed += found != "caught"
            print(f"{found}  {bug.file.removeprefix('tiny_transformer/'):28} {bug.name}", flush=True)
    print(f"{len(bugs) - missed} of {len(bugs)} planted bugs caught")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
