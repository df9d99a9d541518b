"""hardware.py: what is found on made-up machines, and that the table's advice is fixed, fits, and grows."""

import doctest
import math
import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiny_transformer import hardware
from tiny_transformer.config import PRESETS
from tiny_transformer.hardware import TABLE, Hardware, describe, detect, recommend, training_flop, training_memory_gb


def gpu(memory: float, **more) -> Hardware:
    return Hardware(16, 64.0, **({"gpu": "Some GPU", "gpu_memory_gb": memory, "bfloat16": True, "accelerator": "cuda"} | more))


MACHINES = {
    # name: (machine, layers, heads, d_model, context, batch, steps)
    "one core": (Hardware(1, 4.0), 2, 2, 64, 64, 32, 2000),
    "two cores": (Hardware(2, 23.5), 4, 4, 128, 128, 32, 2000),
    "three cores": (Hardware(3, 8.0), 4, 4, 128, 128, 32, 2000),
    "laptop": (Hardware(4, 16.0), 4, 6, 192, 128, 32, 2000),
    "desktop": (Hardware(8, 32.0), 6, 6, 192, 256, 16, 2000),
    "server without GPU": (Hardware(64, 256.0), 6, 8, 256, 256, 32, 2000),
    "many cores, little memory": (Hardware(64, 1.8), 4, 6, 192, 128, 32, 2000),
    "two cores, very little memory": (Hardware(2, 1.4), 2, 2, 64, 64, 32, 2000),
    "hardly any memory": (Hardware(2, 0.3), 2, 2, 64, 64, 32, 2000),
    "old GPU of 2 GB": (replace(gpu(2.0), cores=4), 4, 6, 192, 128, 32, 2000),
    "GPU of 4 GB": (gpu(3.9), 4, 4, 256, 128, 32, 5000),
    "GPU of 8 GB": (gpu(7.8), 4, 4, 256, 256, 64, 5000),
    "GPU of 12 GB": (gpu(11.6), 5, 5, 320, 256, 64, 5000),
    "GPU of 16 GB": (gpu(15.7), 5, 5, 320, 256, 64, 5000),
    "GPU of 24 GB": (gpu(23.6), 6, 6, 384, 256, 64, 5000),
    "GPU of 24 GB with error correction": (gpu(22.1), 6, 6, 384, 256, 64, 5000),
    "GPU of 32 GB": (gpu(31.4), 6, 6, 384, 256, 64, 5000),
    "GPU of 40 GB": (gpu(39.4), 8, 8, 512, 512, 64, 5000),
    "GPU of 80 GB": (gpu(79.1), 12, 12, 768, 512, 64, 5000),
    "Apple, 8 GB": (Hardware(8, 8.0, "Apple GPU", None, False, "mps"), 4, 6, 192, 128, 32, 2000),
    "Apple, 16 GB": (Hardware(8, 16.0, "Apple GPU", None, True, "mps"), 6, 8, 256, 256, 32, 2000),
}


@pytest.mark.parametrize("name", MACHINES)
def test_each_machine_gets_its_row(name):
    machine, *expected = MACHINES[name]
    config, training, why = recommend(machine)
    got = [config.n_layers, config.n_heads, config.d_model, config.max_seq_len, training.batch_size, training.max_steps]
    assert got == expected
    assert "\n" not in why
    assert recommend(machine) == recommend(replace(machine))


def test_a_24_gb_gpu_gets_exactly_the_labs_model_and_two_cores_the_cpu_preset():
    assert recommend(gpu(24.0)).config == PRESETS["baby-gpt"]
    assert recommend(Hardware(2, 8.0)).config == PRESETS["cpu"]
    assert recommend(Hardware(1, 8.0)).config == PRESETS["tiny"]
    # 5,000 steps of 16,384 predictions: 5.8 PFLOP. By hand: 6 × 10,641,792 weights in matrices × 16,384, and the attention's
    # 12 × 6 layers × 384 × 256 × 16,384
    assert training_flop(*recommend(gpu(24.0))[:2]) == 5000 * 16384 * (6 * 10_641_792 + 12 * 6 * 384 * 256)


def test_the_line_names_the_machine_and_the_cost():
    small = recommend(Hardware(1, 23.5)).why
    assert small.startswith("1 core and 24 GB of memory: 0.1 M parameters, 2,000 steps cost 3 TFLOP, about 1 minute at")
    assert "5.8 PFLOP" in recommend(gpu(24.0)).why
    assert recommend(gpu(24.0)).why.startswith("Some GPU with 24 GB: 10.7 M parameters")
    assert "estimated" in recommend(gpu(24.0)).why
    assert recommend(Hardware(2, 0.3)).why.endswith("memory is short, close other programs")
    assert "memory is short" not in recommend(Hardware(2, 4.0)).why


def test_minutes_follow_from_cost_and_speed():
    # cpu preset: (6 × 794,752 + 12 × 4 × 128 × 128) × 32 × 128 × 2,000 = 45.5 TFLOP; at 2 × 0.047 TFLOP/s that is 484 s
    assert "46 TFLOP, about 8 minutes at an estimated 0.094 TFLOP/s" in recommend(Hardware(2, 8.0)).why
    assert "at an estimated 0.75 TFLOP/s" in recommend(Hardware(200, 99.0)).why, "beyond 16 cores nothing is gained"


def test_a_gpu_too_small_leaves_the_work_to_the_cpu():
    assert recommend(gpu(1.0)).training.device == "cpu"
    assert recommend(gpu(24.0)).training.device == "auto"
    assert recommend(Hardware(4, 8.0)).training.device == "auto"


machines = st.builds(
    Hardware,
    cores=st.integers(1, 256),
    memory_gb=st.floats(0.2, 2000),
    gpu=st.just("GPU"),
    gpu_memory_gb=st.floats(0.5, 200),
    bfloat16=st.booleans(),
    accelerator=st.sampled_from(["cpu", "cuda", "mps"]),
)


@given(machines)
def test_the_advice_fits_the_memory(machine):
    config, training, why = recommend(machine)
    on_gpu = machine.accelerator == "cuda" and training.device != "cpu"
    room = machine.gpu_memory_gb if on_gpu else machine.memory_gb
    assert training_memory_gb(config, training.batch_size) < room or "memory is short" in why


@given(machines, st.floats(1, 10), st.integers(1, 10))
def test_a_better_machine_never_gets_a_smaller_model(machine, factor, cores):
    better = replace(
        machine, cores=machine.cores + cores, memory_gb=machine.memory_gb * factor, gpu_memory_gb=machine.gpu_memory_gb * factor
    )
    if machine.accelerator != "cpu" and recommend(machine).training.device == "cpu":
        return  # the step from the CPU to a small GPU changes the kind of model, not only its size
    assert recommend(better).config.n_parameters >= recommend(machine).config.n_parameters


def test_rows_stand_largest_first_and_end_with_one_for_everybody():
    for kind in ("cuda", "mps", "cpu"):
        rows = [row for row in TABLE if row.accelerator == kind]
        assert [row.least for row in rows] == sorted((row.least for row in rows), reverse=True)
        assert [row.config.n_parameters for row in rows] == sorted((row.config.n_parameters for row in rows), reverse=True)
    assert TABLE[-1].accelerator == "cpu"
    assert TABLE[-1].least == 0


def test_memory_grows_with_everything_that_takes_memory():
    config = PRESETS["cpu"]
    base = training_memory_gb(config, 8)
    assert base > 16 * config.n_parameters / 2**30
    for change in ({"n_layers": 8}, {"d_model": 256}, {"max_seq_len": 256}, {"vocab_size": 9999}):
        assert training_memory_gb(replace(config, **change), 8) > base
    assert training_memory_gb(config, 16) > base


def test_the_memory_estimate_is_not_below_what_a_step_really_keeps():
    """Counts the bytes that autograd saves for backward in a real step through the readable attention."""
    import torch
    import torch.nn.functional as F

    from tiny_transformer.model import TinyTransformerLM
    from tiny_transformer.utils.reference import reference_path

    config = replace(PRESETS["cpu"], activation="gelu", norm="layer", qk_norm=False, position="learned")
    ids = torch.randint(config.vocab_size, (2, config.max_seq_len), generator=torch.Generator().manual_seed(0))
    model, storages = TinyTransformerLM(config, seed=0), {}

    def note(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), reference_path():
        F.cross_entropy(model(ids).flatten(0, 1), ids.flatten())
    real = (sum(storages.values()) + 3 * 4 * config.n_parameters) / 2**30  # weights are among what is saved
    estimate = training_memory_gb(config, 2)
    assert real / 1.2 < estimate < 3 * real


# --- looking at the machine -----------------------------------------------------------------------------------------


def fake(root, files):
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


MEMINFO = {"proc/meminfo": "MemTotal:       16777216 kB\nMemFree: 1 kB\n"}


@pytest.fixture
def eight_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 8),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "300000 100000\n"}, 3),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "200000 100000", "sys/fs/cgroup/a/b/cpu.max": "max 100000"}, 2),
        ({"proc/self/cgroup": "0::/not/here\n", "sys/fs/cgroup/cpu.max": "400000 100000"}, 4),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "9900000 100000\n"}, 8),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/docker/x\n2:memory:/\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "250000",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            8,
        ),
    ],
)
def test_cores_respect_what_the_container_allows(tmp_path, eight_cores, files, cores):
    assert hardware.usable_cores(fake(tmp_path, files)) == cores


def test_cores_respect_affinity(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3}, raising=False)
    assert hardware.usable_cores(tmp_path) == 1
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert hardware.usable_cores(tmp_path) == 1


@pytest.mark.parametrize(
    ("files", "memory"),
    [
        ({}, 16.0),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, 16.0),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": f"{4 * 2**30}\n"}, 4.0),
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": f"{2**30}", "sys/fs/cgroup/memory.max": f"{2**31}"}, 1.0),
        ({"proc/self/cgroup": "3:memory:/x\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{3 * 2**30}"}, 3.0),
        ({"proc/self/cgroup": "3:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"}, 16.0),
    ],
)
def test_memory_respects_what_the_container_allows(tmp_path, files, memory):
    assert hardware.usable_memory_gb(fake(tmp_path, MEMINFO | files)) == memory


def test_memory_without_proc_comes_from_the_system(tmp_path):
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    assert hardware.usable_memory_gb(tmp_path) == pytest.approx(pages, abs=0.06)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("fpu avx512f", False), ("fpu avx512_bf16 x", True), ("amx_tile amx_bf16", True), ("asimd bf16 i8mm", True), ("avx512_bf16x", False)],
)
def test_bfloat16_is_read_from_the_flags(tmp_path, flags, expected):
    assert hardware.cpu_has_bfloat16(fake(tmp_path, {"proc/cpuinfo": f"processor : 0\nflags : {flags}\n"})) is expected


def test_this_machine():
    here = detect()
    assert here == detect()
    assert 1 <= here.cores <= os.cpu_count()
    assert 0.1 < here.memory_gb < 100_000
    assert (here.gpu is None) == (here.accelerator == "cpu")
    assert math.isfinite(training_memory_gb(recommend(here).config, 1))


def test_a_gpu_is_reported_as_torch_reports_it(monkeypatch):
    import torch

    class Card:
        name, total_memory, major = "NVIDIA Test 24", 24 * 2**30 - 400 * 2**20, 8

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: Card)
    here = detect()
    assert (here.gpu, here.gpu_memory_gb, here.bfloat16, here.accelerator) == ("NVIDIA Test 24", 23.6, True, "cuda")
    assert recommend(here).config == PRESETS["baby-gpt"]
    monkeypatch.setattr(Card, "major", 7)
    assert not detect().bfloat16


def test_an_apple_gpu_is_reported(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert detect().accelerator == "mps"
    assert detect().gpu == "Apple GPU"


def test_without_torch_the_cpu_is_described(monkeypatch):
    monkeypatch.setattr(hardware, "find_spec", lambda name: None)
    assert detect().accelerator == "cpu"


@pytest.mark.parametrize(
    ("machine", "line"),
    [
        (Hardware(2, 23.5), "2 cores, 24 GB memory, no GPU, no bfloat16 in hardware"),
        (Hardware(1, 3.6, bfloat16=True), "1 core, 4 GB memory, no GPU, bfloat16 in hardware"),
        (gpu(23.6), "16 cores, 64 GB memory, Some GPU with 24 GB, bfloat16 in hardware"),
        (Hardware(8, 16.0, "Apple GPU", None, False, "mps"), "8 cores, 16 GB memory, Apple GPU, no bfloat16 in hardware"),
    ],
)
def test_one_line_describes_a_machine(machine, line):
    assert describe(machine) == line


def test_doctests():
    assert doctest.testmod(hardware).failed == 0
