"""Memory between what stays and what went: the system gets it back."""

import ctypes
from pathlib import Path

import pytest
import torch

from tiny_transformer import quantized_layers
from tiny_transformer.quantized_layers import round_each
from tiny_transformer.rounded_weights import Rounding
from tiny_transformer.utils import given_back
from tiny_transformer.utils.given_back import give_back

STATUS = Path("/proc/self/status")


def held() -> int:
    """Bytes of this process that lie in no file."""
    return next(int(line.split()[1]) * 1024 for line in STATUS.read_text().splitlines() if line.startswith("RssAnon:"))


@pytest.mark.skipif(given_back._trim() is None or not STATUS.exists(), reason="only glibc has malloc_trim")
def test_holes_between_tensors_go_back():
    tensors = [torch.ones(1 << 14) for _ in range(2048)]  # 64 KiB each, 128 MiB together: too small for a mapping of its own
    full = held()
    del tensors[::2]
    give_back()
    assert held() < full - 48 * 2**20
    assert all(bool((tensor == 1).all()) for tensor in tensors)


def test_another_c_library_is_left_alone(monkeypatch):
    def nothing(name):
        raise OSError("no such library")

    monkeypatch.setattr(ctypes, "CDLL", nothing)
    given_back._trim.cache_clear()
    try:
        give_back()
        assert given_back._trim() is None
    finally:
        given_back._trim.cache_clear()


def test_it_is_done_after_each_rounded_weight(monkeypatch):
    calls = []
    monkeypatch.setattr(quantized_layers, "give_back", lambda: calls.append(1))
    round_each([(name, torch.ones(4, 8)) for name in "abc"], ["a", "c"], Rounding())
    assert len(calls) == 2
