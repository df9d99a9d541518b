"""The GPU benchmark without a GPU: its arithmetic against counted operations, its source against its own text, every line of it dry."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import gpu
from benchmarks.gpu import DRY, Clock, Done, FullError, Plan, flop_per_token, peak_for
from benchmarks.gpu_peaks import peak_of
from benchmarks.markov import MarkovSource
from tiny_transformer.config import PRESETS, ModelConfig
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.roofline import Ceilings
from tiny_transformer.training.objectives import cross_entropy
from tiny_transformer.utils.reference import reference_path

# ---------------------------------------------------------------- a peak's share


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989e12), ("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA H100 PCIe", 756e12), ("NVIDIA GH200 480GB", 989e12),
        ("NVIDIA A100-SXM4-40GB", 312e12), ("NVIDIA GeForce RTX 4090", 165e12), ("NVIDIA L4", 121e12), ("NVIDIA L40S", 362e12),
        ("Tesla T4", 65e12), ("Tesla V100-SXM2-16GB", 125e12), ("NVIDIA A10", 125e12), ("NVIDIA A10G", None), ("NVIDIA GB10", None),
        ("CPU", None),
    ],
)  # fmt: skip
def test_peaks_go_by_whole_words(name, peak):
    assert peak_of(name) == peak


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("more", [{"position": "learned"}, {"position": "rotary"}, {"position": "rotary", "ngram_rows": (64,)}])
def test_operations_are_those_that_torch_counts(tied, more):
    config = ModelConfig(
        vocab_size=40, max_seq_len=16, d_model=24, n_layers=2, n_heads=3, activation="relu2", bias="none", tie_weights=tied, **more
    )
    model, ids = TinyTransformerLM(config, seed=0), torch.randint(40, (2, 16))
    with FlopCounterMode(display=False) as counter, reference_path():  # the readable attention: whole squares, as the field counts
        cross_entropy(model(ids), ids).backward()
    assert counter.get_total_flops() == 2 * 16 * flop_per_token(config)


def test_gpt2_costs_what_the_paper_says():
    layers, heads, width, context = 12, 12, 64, 1024
    multiplied = 50_257 * 768 + layers * 12 * 768**2  # the output layer and the blocks' matrices: no positions, norms, biases
    assert flop_per_token(PRESETS["gpt2"]) == 6 * multiplied + 12 * layers * heads * width * context


def test_a_gpu_of_the_list_has_its_makers_peak(monkeypatch):
    monkeypatch.setattr(gpu.torch.cuda, "get_device_name", lambda: "NVIDIA A100-SXM4-40GB")
    monkeypatch.setattr(gpu, "measure_ceilings", lambda *_, **__: pytest.fail("nothing needs measuring"))
    assert peak_for(Plan()) == (312e12, "peak of NVIDIA A100-SXM4-40GB")


@pytest.mark.parametrize(("device", "kind"), [("cuda", torch.bfloat16), ("cpu", torch.float32)])
def test_the_peak_of_another_is_measured_in_its_own_kind_of_numbers(monkeypatch, device, kind):
    asked = []
    monkeypatch.setattr(gpu.torch.cuda, "get_device_name", lambda: "a GPU of next year")
    monkeypatch.setattr(gpu, "measure_ceilings", lambda *what, **_: asked.append(what) or Ceilings(5e12, 7e9))
    assert peak_for(replace(DRY, device=device)) == (5e12, "matrix product") and asked == [(torch.device(device), kind)]


# ---------------------------------------------------------------- the source


def counted_entropy(text, order, symbols):
    """Nats per symbol behind `order` symbols, from counts."""
    keys = sum(text[place : len(text) - order + place].astype(np.int64) * symbols**place for place in range(order))
    joint = np.zeros((keys.max() + 1, symbols))
    np.add.at(joint, (keys, text[order:]), 1)
    p, of_keys = joint / joint.sum(), joint.sum(1) / joint.sum()
    return -(p[p > 0] * np.log(p[p > 0])).sum() + (of_keys[of_keys > 0] * np.log(of_keys[of_keys > 0])).sum()


@pytest.mark.parametrize("symbols", [4, 7])
def test_the_entropies_are_those_of_the_text(symbols):
    source = MarkovSource(symbols, successors=3, seed=3)
    text = source.text(400_000, seed=1, chains=64)
    assert text.shape == (400_000,) and text.max() < symbols
    assert abs(counted_entropy(text, 2, symbols) - source.entropy) < 5e-3
    assert abs(counted_entropy(text, 1, symbols) - source.entropy_of_pairs) < 5e-3
    assert source.entropy < source.entropy_of_pairs < math.log(symbols)


def test_all_successors_at_once_is_one_known_entropy():
    p = 1 / np.arange(1, 6)
    p /= p.sum()
    assert abs(MarkovSource(5, successors=5).entropy + (p * np.log(p)).sum()) < 1e-9


def test_texts_of_a_source_are_of_that_source_and_repeatable():
    source = MarkovSource(6, seed=2)
    one, again, other = source.text(6_000, seed=1, chains=3), source.text(6_000, seed=1, chains=3), source.text(6_000, seed=2, chains=3)
    assert (one == again).all() and (one != other).any()
    for chain in one.reshape(3, -1):
        assert (source.table[chain[:-2], chain[1:-1], chain[2:]] > 0).all()


# ---------------------------------------------------------------- the clock


def test_rates_leave_out_the_beginning(monkeypatch):
    now = iter([100.0 * place for place in range(4)] + [1000.0 + 2 * place for place in range(16)])
    monkeypatch.setattr(gpu.time, "perf_counter", lambda: next(now))
    clock = Clock()
    for step in range(20):
        clock.on_step(step, 0, 0, 0, 0)
    assert clock.rates(tokens=8) == [4.0] * 3  # 8 tokens in 2 s; from the fifth step on, in threes of five


def test_a_clock_stops_at_the_target_or_when_patience_is_over(monkeypatch):
    now = itertools.count(0.0)
    monkeypatch.setattr(gpu.time, "perf_counter", lambda: next(now))
    clock = Clock(target=1.0, patience=50.0)
    clock.on_eval(0, 9, 0.5, True)  # before the first steps nothing counts
    for step in range(1, 8):
        clock.on_step(step, 0, 0, 0, 0)
    clock.on_eval(20, 9, 1.5, True)
    with pytest.raises(Done):
        clock.on_eval(40, 9, 1.0, True)
    assert clock.reached and clock.steps == 40 and clock.seconds == 4.0
    slow = Clock(target=1.0, patience=1.0)
    for step in range(1, 8):
        slow.on_step(step, 0, 0, 0, 0)
    with pytest.raises(Done):
        slow.on_eval(20, 9, 1.5, True)
    assert not slow.reached and slow.loss == 1.5


def test_a_compiler_that_fails_for_memory_means_full(capsys):
    with pytest.raises(FullError):
        Clock().on_warning("compile did not work here, training goes on without it: CUDA out of memory. Tried …")
    clock = Clock()
    clock.on_warning("compile did not work here, training goes on without it: no compiler")
    clock.on_warning("the loss is too good")
    assert capsys.readouterr().out.count("\n") == 1 and len(clock.warnings) == 1


# ---------------------------------------------------------------- the batch


@pytest.fixture
def trainings(monkeypatch):
    """What was trained, without training: 100 tokens/s a row up to 8 rows, the same beyond, nothing above 32."""
    done, now = [], [0.0]

    def train(config, settings, ids, val, clock):
        rows = settings.batch_size
        done.append(rows)
        now[0] += 10.0
        if rows > 32:
            raise FullError
        clock.ticks = [place * rows * config.max_seq_len / (100 * min(rows, 8)) for place in range(20)]

    monkeypatch.setattr(gpu, "train", train)
    monkeypatch.setattr(gpu.time, "perf_counter", lambda: now[0])
    return done


def gpt2(batches, deadline=1e9):
    plan = replace(DRY, batches=batches)
    return gpu.gpt2_speed(plan, np.zeros(4, dtype=np.uint16), peak=1e9, peak_name="peak", deadline=deadline)


def test_batches_grow_until_the_memory_is_full_and_the_fastest_counts(trainings):
    result = gpt2((1, 4, 8, 16, 64, 128))
    assert trainings == [1, 4, 8, 16, 64] and result.extra["batch"] == 8 and "tried: 1, 4, 8, 16" in result.notes
    assert math.isclose(result.extra["tokens_per_second"], 800) and math.isclose(result.ratio, 800 * flop_per_token(DRY.gpt2) / 1e9)
    assert math.isclose(result.ours, result.ratio * result.peer) and result.low <= result.ratio <= result.high and result.aim == 0.5


def test_batches_stop_growing_when_the_time_is_up(trainings):
    gpt2((1, 2, 4, 8, 16), deadline=35.0)  # ten seconds each: the fourth would not be done in time
    assert trainings == [1, 2, 3 + 1][: len(trainings)] and len(trainings) == 3


def test_not_even_the_smallest_fits(trainings):
    with pytest.raises(FullError, match="64 rows"):
        gpt2((64,))


# ---------------------------------------------------------------- all of it


def test_the_real_plan_is_what_is_asked_for():
    plan = Plan()
    assert (plan.lab.n_layers, plan.lab.d_model, plan.lab.max_seq_len, plan.lab_batch) == (6, 384, 256, 64)
    assert plan.gpt2.max_seq_len == 1024 and 124e6 < plan.gpt2.n_parameters < 125e6 and plan.symbols <= plan.lab.vocab_size
    assert plan.compile and plan.limit < 480 and list(plan.batches) == sorted(plan.batches)
    settings = gpu.settings_of(replace(plan, device="cpu"), 64, 100)
    assert settings.compile and settings.fused_optimizer and settings.precision == "auto" and settings.optimizer == "adamw"


def test_every_line_of_it_works_without_a_gpu(capsys, tmp_path):
    assert gpu.main(["--dry-run", "--history", str(tmp_path / "h")]) == 0
    said = capsys.readouterr().out
    assert not (tmp_path / "h").exists()  # toys are not kept
    for line in ("GPU, 6 × 384, training", "GPU, 6 × 384, time to loss", "GPU, GPT-2 124M, share of peak", "matrix product"):
        assert line in said
    assert "tried: 1, 2" in said


def test_the_loss_is_reached_when_it_can_be(monkeypatch):
    monkeypatch.setattr(gpu, "NEAR", 0.4)  # some two hundred steps for so small a model
    plan = replace(DRY, lab=replace(DRY.lab, d_model=32), lab_batch=16, patience=1e6)
    source = MarkovSource(6, successors=2, seed=1)
    ids = source.text(20_000, seed=1)
    result = gpu.lab_time_to_loss(plan, source, ids, source.text(4_000, seed=2))
    assert result.extra["reached"] == 1.0 and "not there" not in result.notes
    assert 100 <= result.extra["steps"] <= 1000 and result.ours > 0 and math.isclose(result.ratio, result.peer / result.ours)


def test_the_target_leaves_the_first_place_of_a_window_out():
    source = MarkovSource(4, successors=2)
    distance = source.entropy_of_pairs - source.entropy
    assert math.isclose(gpu.target_of(source, 10) - gpu.target_of(source, 1000), distance * (1 / 10 - 1 / 1000))
    assert math.isclose(gpu.target_of(source, 10**9), source.entropy + 0.1 * distance, rel_tol=1e-6)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so_in_a_line(capsys):
    assert gpu.main([]) == 2
    assert capsys.readouterr().out.count("\n") == 1
