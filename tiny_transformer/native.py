"""C that is compiled where it is used, where this machine has a compiler: a source of the package as a library.

It is compiled once, in one or two seconds, into the cache folder (`corpora/download.py` says where), under a name made of source,
compiler and processor. Without a compiler, or with `TINY_NATIVE=0`, `library(…)` is None and everything is done in PyTorch.
Left out: what the C does (`block_by_hand.c`, `sampling/whole_step.c`), and for which models. Read before: nothing.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_info

from tiny_transformer.corpora.download import cache_dir

FOLDER = Path(__file__).parent
"""Where the headers are that sources share."""
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-shared", "-fPIC")
"""Threads are OpenMP's, PyTorch's own. Nothing here lets the compiler add in another order than the source says."""


POINTER, INTEGER, FLOAT, DOUBLE = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_double
Functions = Mapping[str, tuple[Any, Sequence[Any]]]
"""Name → what it gives, what it takes."""


@cache
def library(source: Path) -> ctypes.CDLL | None:
    """The source as a library, compiled if need be; None without a compiler, or where its threads would not be PyTorch's."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or os.environ.get("TINY_NATIVE") == "0":
        return None
    try:
        file = _compiled(source, compiler)
        before = _thread_pools()
        found = ctypes.CDLL(str(file))
    except (OSError, subprocess.SubprocessError):
        return None
    return found if _thread_pools() == before else None  # two pools of threads would wait for each other's processors


def declared(c: Any, functions: Functions) -> Any:
    """The library, told what its functions take and give."""
    for name, (result, arguments) in functions.items():
        getattr(c, name).restype, getattr(c, name).argtypes = result, arguments
    return c


def _compiled(source: Path, compiler: str) -> Path:
    """The library's file, made if it is not there. Written beside its name and then renamed: nobody loads half a file."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True, timeout=120).stdout
    texts = [path.read_text(encoding="utf-8") for path in (source, *sorted(FOLDER.glob("**/*.h")))]
    name = hashlib.sha256("\n".join((*texts, *FLAGS, version, _processor())).encode()).hexdigest()[:16]
    folder = cache_dir()
    file = folder / f"{source.stem}-{name}.so"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch) / "made.so"
            command = [compiler, *FLAGS, f"-I{FOLDER}", str(source), "-o", str(made), "-lm"]
            subprocess.run(command, capture_output=True, check=True, timeout=900)
            made.replace(file)
    return file


def _processor() -> str:
    """What `-march=native` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() + platform.machine()
    return "".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


def _thread_pools() -> int:
    return sum(pool["user_api"] == "openmp" for pool in threadpool_info())


if __name__ == "__main__":
    import torch

    print(f"PyTorch's threads: {torch.get_num_threads()}, pools of OpenMP threads: {_thread_pools()}")
    for source in sorted(FOLDER.glob("**/*.c")):
        found = library(source)
        print(source.name, "not compiled: PyTorch does its work" if found is None else f"compiled: {Path(found._name).name}")
