"""The table of second ways: that the two ways which are timed are two, and give the same. No test here times anything."""

from dataclasses import replace

import pytest
import torch

from benchmarks import products
from benchmarks.harness import Result
from benchmarks.products import CASES, compare_products, compare_steps, limit_at, row, step_of
from tests.compiler import needs_compiler
from tiny_transformer import attention, attention_products, block_by_hand, linear

KEPT = {
    "block": (block_by_hand, "_library", block_by_hand._library),
    "linear": (linear, "FEWEST", 2**17), "attention": (attention_products, "FEWEST", 128), "compiled": (attention, "MOST_COMPILED", 512)
}  # fmt: skip


def small(kind):
    """A case of its kind, at a size that takes no time."""
    case = CASES[kind][-1]
    return replace(case, config=replace(case.config, n_layers=1, d_model=16, n_heads=2, max_seq_len=16), batch=2, compiled=False)


def counted(monkeypatch, owner, name):
    calls, own = [], getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *given, **more: calls.append(name) or own(*given, **more))
    return calls


WAYS = [
    pytest.param("block", block_by_hand, "run", marks=needs_compiler), ("linear", linear, "product"),
    ("attention", attention_products, "attend_causal"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "owner", "name"), WAYS)
def test_one_way_is_taken_and_the_other_is_not(monkeypatch, kind, owner, name):
    case, calls, in_c = small(kind), counted(monkeypatch, owner, name), counted(monkeypatch, block_by_hand, "_places")
    step_of(case, case.never)()
    assert not calls
    step_of(case, case.taken)()
    assert calls and bool(in_c) is (kind == "block")


@pytest.mark.parametrize("kind", ["block", "linear", "attention"])
def test_both_ways_give_the_same_loss(kind):
    case = small(kind)
    with torch.random.fork_rng():
        assert step_of(case, case.taken)() == pytest.approx(step_of(case, case.never)(), abs=1e-5)


def test_a_step_in_bfloat16_computes_in_it(monkeypatch):
    seen = []
    monkeypatch.setattr(products, "ours", lambda *_: lambda ids, targets: seen.append(torch.is_autocast_enabled("cpu")) or torch.zeros(()))
    for case in CASES["compiled"]:
        step_of(case, case.taken)()
    assert seen == [False, True]


def test_compiled_attention_is_chosen_by_its_limit(monkeypatch):
    case = CASES["compiled"][0]
    calls = counted(monkeypatch, attention, "scaled_dot_product_attention")
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    query = torch.randn(1, 2, case.config.max_seq_len, 8)
    for limit, used in ((case.taken, 2), (case.never, 0)):  # once for each half
        calls.clear()
        with limit_at(case.module, case.limit, limit):
            attention.attend(query, query, query, causal=True)
        assert len(calls) == used


@pytest.mark.parametrize("kind", KEPT)
def test_limits_are_put_back(kind):
    module, name, value = KEPT[kind]
    assert getattr(module, name) == value
    with pytest.raises(RuntimeError), limit_at(module, name, 7):
        assert getattr(module, name) == 7
        raise RuntimeError
    assert getattr(module, name) == value and all(case.module is module and case.limit == name for case in CASES[kind])


def test_ways_that_differ_are_not_compared(monkeypatch):
    losses = iter([1.0, 1.1])
    monkeypatch.setattr(products, "step_of", lambda case, limit: lambda: next(losses))
    with pytest.raises(ValueError, match=r"1\.0e-01 apart"):
        compare_steps(small("linear"))


def test_products_are_compared_without_gradients(monkeypatch):
    grad, own = [], linear.product
    monkeypatch.setattr(linear, "product", lambda *given: grad.append(torch.is_grad_enabled()) or own(*given))
    result = compare_products(3, 4, 5, rounds=2, times=3)
    assert grad == [False] * (3 * (2 + 2)) and result.name == "product, (3, 4) to 5"


def test_a_row_has_milliseconds_and_the_ratio():
    result = Result("a step", "steps/s", 50.0, 40.0, "own", 1.25, 1.2, 1.3, others=0.5)
    assert row(result).split()[2:] == ["25.000", "ms", "20.000", "ms", "1.25", "(1.20", "to", "1.30)", "others", "were", "busy"]
    assert "busy" not in row(replace(result, others=0.01))


def test_all_kinds_are_run_in_order(monkeypatch, capsys):
    done = []
    monkeypatch.setattr(products, "warn_if_busy", lambda: None)
    fake = Result("x", "u", 1.0, 1.0, "own", 1.0, 1.0, 1.0)
    monkeypatch.setattr(products, "compare_steps", lambda case: done.append(case.name) or fake)
    monkeypatch.setattr(products, "compare_products", lambda *sizes: done.append(sizes) or fake)
    assert products.main([]) == 0
    assert done == [*products.MATRICES, *(case.name for kind in CASES.values() for case in kind)]
    done.clear()
    assert products.main(["compiled"]) == 0 and done == [case.name for case in CASES["compiled"]]
    with pytest.raises(SystemExit) as stop:
        products.main(["nonsense"])
    assert stop.value.code == 2 and "attention" in capsys.readouterr().err
