"""The loss in two manners: against brute force, and its error against the spread of many samples."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.options import small_config
from tiny_transformer.evaluation.validation_loss import loss_in_random_windows, loss_in_windows, mean_of_clusters
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.training.dataset import batch_at


def text(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(17, size=n)


@pytest.fixture
def model() -> TinyTransformerLM:
    return TinyTransformerLM(small_config(dropout=0.5), seed=0).train()


def by_hand(model: TinyTransformerLM, ids: np.ndarray) -> list[float]:
    losses = []
    model.eval()
    for start in range(0, len(ids) - 1, 12):
        window = torch.from_numpy(ids[start : start + 13])
        logits = model(window[None, :-1])[0]
        losses += F.cross_entropy(logits, window[1:], reduction="none").tolist()
    model.train()
    return losses


@pytest.mark.parametrize("n", [13, 14, 100, 121])
def test_every_token_counts_once(model, n):
    ids = text(n)
    measured = loss_in_windows(model, ids)
    losses = by_hand(model, ids)
    assert measured.tokens == len(losses) == n - 1
    assert measured.loss == pytest.approx(np.mean(losses), rel=1e-5)
    assert model.training


def test_the_error_of_equal_windows_is_that_of_their_means(model):
    ids = text(12 * 40 + 1)
    measured, losses = loss_in_windows(model, ids), np.reshape(by_hand(model, ids), (40, 12))
    assert measured.error == pytest.approx(losses.mean(1).std(ddof=1) / math.sqrt(40), rel=1e-4)


def test_the_error_covers_the_truth_as_often_as_it_says():
    generator, inside = np.random.default_rng(0), 0
    for _ in range(400):
        counts = generator.integers(5, 60, size=80)
        level = 2 + generator.standard_normal(80)  # what a window's tokens share
        sums = counts * level + generator.standard_normal(80) * np.sqrt(counts)
        measured = mean_of_clusters(sums, counts)
        inside += abs(measured.loss - 2) < 2 * measured.error
    assert 0.91 < inside / 400 < 0.985


def test_a_single_window_has_no_error_to_show():
    assert mean_of_clusters(np.array([3.0]), np.array([2])) == (1.5, math.inf, 2)


def test_random_windows_are_the_batches_of_their_seed(model):
    ids = text(200)
    measured = loss_in_random_windows(model, ids, batches=6, batch_size=5, seed=9)
    losses = []
    model.eval()
    for number in range(6):
        inputs, targets = (torch.from_numpy(part) for part in batch_at(ids, 5, 12, 9, number))
        losses.append(F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()).item())
    assert measured.loss == pytest.approx(np.mean(losses), rel=1e-5)
    assert measured.error == pytest.approx(np.std(losses, ddof=1) / math.sqrt(6), rel=1e-3)
    assert measured.tokens == 6 * 5 * 12


def test_strides_give_more_context_and_count_no_token_twice(model):
    ids = text(150)
    assert loss_in_windows(model, ids, stride=5).tokens == 149


def test_it_prints_with_its_error():
    assert str(mean_of_clusters(np.array([2.0, 4.0]), np.array([1, 1]))) == "3.0000 ± 1.0000"
