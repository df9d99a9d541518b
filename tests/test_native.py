"""The product in C against float64; and going on without it."""

import shutil

import pytest
import torch
import torch.nn.functional as F

from tiny_transformer.sampling import native
from tiny_transformer.sampling.native import MOST_ROWS, row_product
from tiny_transformer.sampling.packed import prepare, prepare_onto

compiled = pytest.mark.skipif(shutil.which("cc") is None and shutil.which("gcc") is None, reason="needs a C compiler")


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path_factory):
    """A cache folder of this test session's own, and no memory of what was found before."""
    monkeypatch.setenv("TINY_CACHE", str(tmp_path_factory.getbasetemp() / "native"))
    monkeypatch.delenv("TINY_NATIVE", raising=False)
    native._function.cache_clear()
    yield
    native._function.cache_clear()


@compiled
@pytest.mark.parametrize("rows", [1, 2, MOST_ROWS])
@pytest.mark.parametrize(("out", "columns"), [(1, 1), (3, 7), (4, 16), (5, 33), (65, 384), (1536, 48)])
def test_the_product_against_float64(rows, out, columns):
    draw = torch.Generator().manual_seed(out * columns)
    weight, bias = torch.randn(out, columns, generator=draw), torch.randn(out, generator=draw)
    x, stream = torch.randn(rows, columns, generator=draw), torch.randn(rows, out, generator=draw)
    for b in (bias, None):
        product = row_product(weight, b, rows)
        assert product is not None, "the compiler is there, but its product could not be used"
        for s in (stream, None):
            expected = F.linear(x.double(), weight.double(), None if b is None else b.double()) + (0 if s is None else s.double())
            torch.testing.assert_close(product(x, s).double(), expected, atol=1e-4, rtol=1e-5)


@compiled
def test_numbers_that_lie_apart_and_numbers_that_are_none():
    weight = torch.randn(24, 6).t()  # (6, 24), columns side by side
    x = torch.randn(2, 48)[:, ::2]
    product = row_product(weight, None, 2)
    torch.testing.assert_close(product(x, torch.ones(6, 2).t()), x @ weight.t() + 1, atol=1e-5, rtol=1e-5)
    x = torch.ones(2, 24)
    x[1, 3] = float("nan")
    result = product(x, None)
    assert torch.isfinite(result[0]).all() and torch.isnan(result[1]).all()


@compiled
def test_it_is_compiled_once(monkeypatch):
    assert row_product(torch.ones(1, 1), None, 1) is not None
    native._function.cache_clear()
    run = native.subprocess.run

    def only_the_version(command, **more):
        assert command[1:] == ["--version"]
        return run(command, **more)

    monkeypatch.setattr(native.subprocess, "run", only_the_version)
    assert row_product(torch.ones(1, 1), None, 1) is not None


def test_small_numbers_are_still_there_after_loading():
    row_product(torch.ones(1, 1), None, 1)
    assert (torch.tensor(1e-39) * 0.5).item() > 0  # some compilers' libraries switch them off for the whole program


@pytest.mark.parametrize("why", ["switched off", "no compiler", "a compiler that fails", "another pool of threads"])
def test_without_it_pytorch_does_the_work(why, monkeypatch, tmp_path):
    if why == "switched off":
        monkeypatch.setenv("TINY_NATIVE", "0")
    elif why == "no compiler":
        monkeypatch.setattr(native.shutil, "which", lambda name: None)
    elif why == "a compiler that fails":
        monkeypatch.setattr(native.shutil, "which", lambda name: "false")
        monkeypatch.setenv("TINY_CACHE", str(tmp_path))
    else:
        monkeypatch.setattr(native, "_thread_pools", iter(range(9)).__next__)
    layer, x = torch.nn.Linear(12, 5), torch.randn(1, 12)
    with torch.inference_mode():
        assert row_product(layer.weight, layer.bias, 1) is None
        torch.testing.assert_close(prepare([layer], 1)(x), layer(x), atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(prepare_onto(layer, 1)(x, torch.ones(1, 5)), layer(x) + 1, atol=1e-6, rtol=1e-5)


def test_many_rows_and_other_types_are_left_to_pytorch():
    assert row_product(torch.ones(2, 2), None, MOST_ROWS + 1) is None
    assert row_product(torch.ones(2, 2).double(), None, 1) is None
