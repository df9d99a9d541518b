"""The product of one or a few rows with a large matrix, in C, where this machine has a compiler: as fast as memory can be read.

With one row there is nothing to compute but a sum per row of the matrix, and reading it is all the work. PyTorch's libraries are
made for many rows and take half as long again, or more. The C below is compiled once, in a third of a second, into the cache folder
(`corpora/download.py` says where), under a name made of source, compiler and processor. Without a compiler, or with
`TINY_NATIVE=0`, `row_product()` is None and `packed.py` goes on with PyTorch's products: the same numbers up to rounding.
Left out: many rows, where PyTorch is best. Read before: nothing.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from threadpoolctl import threadpool_info
from torch import Tensor

from tiny_transformer.corpora.download import cache_dir

MOST_ROWS = 4
"""More rows than this are work for PyTorch's products."""

# Four rows of w at a time, so that four sums grow side by side and each number of x is loaded once for all four. The compiler may
# add in any order (associative): that is what lets it use the processor's widest registers. Threads are OpenMP's, PyTorch's own.
SOURCE = """
static float row(const float *w, const float *x, long in) {
    float sum = 0;
    for (long j = 0; j < in; j++) sum += w[j] * x[j];
    return sum;
}

/* y (rows, out) = x (rows, in) times w (out, in) transposed, + bias (out), + stream (rows, out); the last two may be missing. */
void product(const float *w, const float *bias, const float *stream, const float *x, float *y, long rows, long out, long in) {
    #pragma omp parallel for schedule(static) if (out * in > 16384)
    for (long i = 0; i < out; i += 4) {
        const float *p = w + i * in;
        for (long r = 0; r < rows; r++) {
            const float *v = x + r * in;
            float sum[4] = {0, 0, 0, 0};
            if (i + 4 <= out) {
                float a = 0, b = 0, c = 0, d = 0;
                for (long j = 0; j < in; j++) {
                    a += p[j] * v[j];
                    b += p[j + in] * v[j];
                    c += p[j + 2 * in] * v[j];
                    d += p[j + 3 * in] * v[j];
                }
                sum[0] = a, sum[1] = b, sum[2] = c, sum[3] = d;
            } else {
                for (long k = 0; i + k < out; k++) sum[k] = row(p + k * in, v, in);
            }
            for (long k = 0; k < 4 && i + k < out; k++) {
                long at = r * out + i + k;
                y[at] = sum[k] + (bias ? bias[i + k] : 0) + (stream ? stream[at] : 0);
            }
        }
    }
}
"""
FLAGS = ("-O3", "-march=native", "-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math", "-fopenmp", "-shared", "-fPIC")

Product = Callable[[Tensor, Tensor | None], Tensor]


def row_product(weight: Tensor, bias: Tensor | None, rows: int) -> Product | None:
    """(x, stream or None) to x Wᵀ + b (+ stream), for x (rows, in) in float32; None where it can't be had.

    The result lies in memory that the next call uses again.
    """
    function = _function() if rows <= MOST_ROWS else None
    if function is None or weight.dtype != torch.float32 or weight.device.type != "cpu":
        return None
    weight = weight.contiguous()
    out, columns = weight.shape
    result = torch.empty(rows, out)
    first, last = (weight.data_ptr(), None if bias is None else bias.data_ptr()), (result.data_ptr(), rows, out, columns)

    def multiply(x: Tensor, stream: Tensor | None = None, _keep: tuple[Tensor, Tensor | None] = (weight, bias)) -> Tensor:
        x = x.contiguous()
        stream = None if stream is None else stream.contiguous()
        function(*first, None if stream is None else stream.data_ptr(), x.data_ptr(), *last)
        return result

    return multiply


@cache
def _function() -> Callable[..., None] | None:
    """The C function, compiled if need be; None without a compiler, or where its threads would not be PyTorch's."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or os.environ.get("TINY_NATIVE") == "0":
        return None
    try:
        file = _compiled(compiler)
        before = _thread_pools()
        function = ctypes.CDLL(str(file)).product
    except (OSError, subprocess.SubprocessError, AttributeError):
        return None
    if _thread_pools() != before:  # two pools of threads would wait for each other's processors
        return None
    pointer, number = ctypes.c_void_p, ctypes.c_long
    function.argtypes, function.restype = [*[pointer] * 5, *[number] * 3], None
    return function


def _compiled(compiler: str) -> Path:
    """The library's file, made if it is not there. Written beside its name and then renamed: nobody loads half a file."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True, timeout=20).stdout
    name = hashlib.sha256("\n".join((SOURCE, *FLAGS, version, _processor())).encode()).hexdigest()[:16]
    folder = cache_dir()
    file = folder / f"row-product-{name}.so"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            source, made = Path(scratch) / "product.c", Path(scratch) / "product.so"
            source.write_text(SOURCE, encoding="utf-8")
            subprocess.run([compiler, *FLAGS, str(source), "-o", str(made)], capture_output=True, check=True, timeout=60)
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
    weight, x = torch.randn(1536, 384), torch.randn(1, 384)
    multiply = row_product(weight, None, 1)
    if multiply is None:
        print("no C compiler here: PyTorch's products are used")
    else:
        error = (multiply(x, None) - x @ weight.T).abs().max()
        print("x", tuple(x.shape), "W", tuple(weight.shape), f"differs from PyTorch by {error:.1e}")
