"""Products of weights in eight bits with an x of sixteen, alone: exact in whole numbers, whatever instructions the processor has."""

import ctypes
import platform
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.compiler import needs_compiler
from tiny_transformer import native
from tiny_transformer.native import FLAGS, FLOAT, FOLDER, INTEGER, POINTER

pytestmark = needs_compiler
SOURCE = Path(__file__).with_name("eight_bits_alone.c")
FUNCTIONS = {
    "quantize_for_test": (FLOAT, [POINTER, INTEGER, POINTER]),
    "tiles_for_test": (None, [POINTER, POINTER, INTEGER, POINTER, INTEGER, INTEGER]),
    "lanes": (INTEGER, []),
}
NEEDS = {"native": "", "x86-64": "", "x86-64-v2": "sse4_1", "sandybridge": "avx", "x86-64-v3": "avx2", "x86-64-v4": "avx512bw"}
"""Kinds of processors, and what this one must be able to do to run what is compiled for them."""
SIZES = (1, 2, 7, 16, 33, 511, 512, 513, 1024, 1537)


def can_run(kind):
    if kind == "native":
        return True
    flags = Path("/proc/cpuinfo").read_text().split() if platform.system() == "Linux" else []
    return platform.machine() in ("x86_64", "AMD64") and (not NEEDS[kind] or NEEDS[kind] in flags)


@pytest.fixture(scope="module", params=NEEDS)
def c(request, tmp_path_factory):
    if not can_run(request.param):
        pytest.skip(f"this processor is no {request.param}")
    file = tmp_path_factory.mktemp("c") / "made.so"
    flags = [flag if flag != "-march=native" else f"-march={request.param}" for flag in FLAGS]
    command = [shutil.which("cc") or "gcc", *flags, f"-I{FOLDER}", str(SOURCE), "-o", str(file), "-lm"]
    subprocess.run(command, check=True, capture_output=True)
    return native.declared(ctypes.CDLL(str(file)), FUNCTIONS)


def rounded(c, x):
    """x (items, in) as whole numbers (items, in rounded up), and their scales."""
    items, size = x.shape
    whole = np.full((items, size + size % 2), 99, dtype=np.int16)
    scales = [c.quantize_for_test(row.ctypes.data, size, to.ctypes.data) for row, to in zip(x, whole, strict=True)]
    return whole, np.array(scales, dtype=np.float32)


@pytest.mark.parametrize("size", SIZES)
def test_rounding_is_off_by_half_a_step_at_most(c, size):
    x = (np.random.default_rng(size).standard_normal((3, size)) * [[1e-3], [1.0], [1e6]]).astype(np.float32)
    whole, scales = rounded(c, x)
    largest = np.abs(x).max(1)
    assert np.allclose(scales * 32767, largest, rtol=1e-6)
    assert (np.abs(whole).max(1) == 32767).all()
    assert (np.abs(whole[:, :size] * scales[:, None].astype(np.float64) - x) <= 0.501 * scales[:, None]).all()
    assert not whole[:, size:].any()


def test_nothing_and_next_to_nothing_are_zero(c):
    for x in (np.zeros((1, 5), np.float32), np.full((1, 5), 1e-40, np.float32), np.full((1, 5), -1e-31, np.float32)):
        whole, scales = rounded(c, x)
        assert not whole.any() and scales == [0]
    whole, scales = rounded(c, np.array([[1e-29, 0, -1e-29]], np.float32))
    assert whole.tolist() == [[32767, 0, -32767, 0]] and scales[0] > 0


@pytest.mark.parametrize("damage", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 16, 36])
def test_damage_spreads(c, damage, place):
    x = np.ones((1, 37), np.float32)
    x[0, place] = damage
    whole, scales = rounded(c, x)
    assert np.isnan(scales[0]) and not whole.any()


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("rows", [1, 2, 3, 4])
def test_products_are_exact(c, rows, wide):
    """Sums of up to 512 products are those of whole numbers, even the largest; longer ones are rounded once for every 512."""
    width, rng = c.lanes() * (4 if wide else 1), np.random.default_rng(rows)
    for size in SIZES:
        even = size + size % 2
        for largest in (True, False):
            weights = rng.integers(-127, 128, (even, width), dtype=np.int8)
            x = rng.integers(-32767, 32768, (rows, even), dtype=np.int16)
            if largest:
                weights[:], x[:] = 127 * np.sign(weights + 0.5), 32767
                weights[:, 0], weights[:, -1] = 127, -127
            x[:, size:] = 0
            packed = np.ascontiguousarray(weights.reshape(even // 2, 2, width).transpose(0, 2, 1))
            y = np.full((rows + 1, width), 7.0, np.float32)
            c.tiles_for_test(x.ctypes.data, packed.ctypes.data, size, y.ctypes.data, rows, width)
            expected = np.zeros((rows, width), np.float32)
            for first in range(0, size, 512):
                part = slice(first, first + 512)
                expected += (x[:, part].astype(np.int64) @ weights[part].astype(np.int64)).astype(np.float32)
            assert (y[:rows] == expected).all() and (y[rows] == 7).all(), (size, largest)
