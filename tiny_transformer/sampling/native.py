"""C that is compiled where it is used: `whole_step.c` as a library, where this machine has a compiler.

It is compiled once, in one or two seconds, into the cache folder (`corpora/download.py` says where), under a name made of source,
compiler and processor. Without a compiler, or with `TINY_NATIVE=0`, `library()` is None and everything is done in PyTorch.
Left out: what the C does (`whole_step.c`), and for which models (`native_step.py`). Read before: nothing.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_info

from tiny_transformer.corpora.download import cache_dir

SOURCE = Path(__file__).with_name("whole_step.c")
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-shared", "-fPIC")
"""Threads are OpenMP's, PyTorch's own. Nothing here lets the compiler add in another order than the source says."""


@cache
def library() -> ctypes.CDLL | None:
    """The C as a library, compiled if need be; None without a compiler, or where its threads would not be PyTorch's."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or os.environ.get("TINY_NATIVE") == "0":
        return None
    try:
        file = _compiled(compiler)
        before = _thread_pools()
        found = ctypes.CDLL(str(file))
    except (OSError, subprocess.SubprocessError):
        return None
    return found if _thread_pools() == before else None  # two pools of threads would wait for each other's processors


def declared(c: Any) -> Any:
    """The library, told what its functions take and give."""
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    for name, result, arguments in (
        ("run", ctypes.c_int, [pointer, integer, integer, *[pointer] * 6]),
        ("write_on", integer, [pointer, integer, integer, pointer, pointer, integer, pointer, pointer, integer, *[pointer] * 3]),
        ("draw", integer, [pointer, pointer, ctypes.c_double, pointer]),
        ("scratch", integer, [pointer, integer]),
        ("width_for", integer, [integer, integer]),
        ("fingerprint", ctypes.c_uint64, [pointer, pointer, integer, integer]),
        ("in_large_pages", None, [pointer, integer]),
        ("pack_floats", None, [pointer, pointer, *[integer] * 5]),
        ("pack_bytes", None, [pointer, pointer, *[integer] * 5]),
    ):
        getattr(c, name).restype, getattr(c, name).argtypes = result, arguments
    return c


def _compiled(compiler: str) -> Path:
    """The library's file, made if it is not there. Written beside its name and then renamed: nobody loads half a file."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True, timeout=120).stdout
    source = SOURCE.read_text(encoding="utf-8")
    name = hashlib.sha256("\n".join((source, *FLAGS, version, _processor())).encode()).hexdigest()[:16]
    folder = cache_dir()
    file = folder / f"{SOURCE.stem}-{name}.so"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch) / "made.so"
            subprocess.run([compiler, *FLAGS, str(SOURCE), "-o", str(made), "-lm"], capture_output=True, check=True, timeout=900)
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

    found = library()
    print(f"PyTorch's threads: {torch.get_num_threads()}, pools of OpenMP threads: {_thread_pools()}")
    print("no C compiler here: PyTorch's products are used" if found is None else f"compiled: {Path(found._name).name}")
