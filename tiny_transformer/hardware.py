"""What is this machine, and how large a model suits it.

`detect` looks; `recommend` reads one fixed table, so the same machine always gets the same answer. Nothing is timed here:
the minutes that the advice names are estimates. PyTorch is loaded only to ask for a GPU. Read before: `step_cost.py`.
"""

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

from tiny_transformer.config import PRESETS, ModelConfig, TrainConfig
from tiny_transformer.step_cost import step_flop

Accelerator = Literal["cpu", "cuda", "mps"]
GIB = 2**30
CPU_TFLOPS_PER_CORE = 0.047
"""Measured while training the `cpu` preset in float32 (AVX-512, 2 cores, 0.8 M parameters); wide models reach twice that."""
MOST_CORES = 16
"""More cores than this do not make a small model faster."""
PROGRAM_GB = 1.0
"""Memory for Python, PyTorch and the text, beside the model's own."""
USABLE = 0.8
"""Share of the memory that a model may fill."""


@dataclass(frozen=True)
class Hardware:
    """What a program may use here: limits set from outside (affinity, containers) are taken off already."""

    cores: int
    memory_gb: float
    gpu: str | None = None
    gpu_memory_gb: float | None = None
    bfloat16: bool = False
    """Whether the accelerator in use (the GPU if there is one, else the CPU) multiplies bfloat16 in hardware."""
    accelerator: Accelerator = "cpu"


class Advice(NamedTuple):
    """A model that suits a machine, how to train it, and why in one line."""

    config: ModelConfig
    training: TrainConfig
    why: str


class Row(NamedTuple):
    """One row of the table: what a machine must have at least, and what it gets."""

    accelerator: Accelerator
    least: float
    """Cores for "cpu", memory in GB for "cuda" (that of the GPU) and "mps" (that of the machine)."""
    tflops: float
    """What training is assumed to reach here, in TFLOP/s; for "cpu" per core."""
    config: ModelConfig
    training: TrainConfig


def _cpu(base: str, n_layers: int, n_heads: int, d_model: int, max_seq_len: int) -> ModelConfig:
    return replace(PRESETS[base], n_layers=n_layers, n_heads=n_heads, d_model=d_model, max_seq_len=max_seq_len)


def _gpu(n_layers: int, n_heads: int, d_model: int, max_seq_len: int) -> ModelConfig:
    return _cpu("baby-gpt", n_layers, n_heads, d_model, max_seq_len)


def _training(batch_size: int, max_steps: int, learning_rate: float = 1e-3) -> TrainConfig:
    return TrainConfig(batch_size=batch_size, max_steps=max_steps, learning_rate=learning_rate)


# Largest first within an accelerator. Cards report a little less than their name says, hence 20 for "24 GB".
TABLE: tuple[Row, ...] = (
    Row("cuda", 70, 60, _gpu(12, 12, 768, 512), _training(64, 5000, 3e-4)),
    Row("cuda", 36, 40, _gpu(8, 8, 512, 512), _training(64, 5000, 6e-4)),
    Row("cuda", 20, 15, PRESETS["baby-gpt"], _training(64, 5000)),
    Row("cuda", 10, 8, _gpu(5, 5, 320, 256), _training(64, 5000)),
    Row("cuda", 6, 5, _gpu(4, 4, 256, 256), _training(64, 5000)),
    Row("cuda", 3, 2, _gpu(4, 4, 256, 128), _training(32, 5000)),
    Row("mps", 14, 2, _cpu("cpu", 6, 8, 256, 256), _training(32, 2000)),
    Row("mps", 0, 1, _cpu("cpu", 4, 6, 192, 128), _training(32, 2000)),
    Row("cpu", 16, CPU_TFLOPS_PER_CORE, _cpu("cpu", 6, 8, 256, 256), _training(32, 2000)),
    Row("cpu", 8, CPU_TFLOPS_PER_CORE, _cpu("cpu", 6, 6, 192, 256), _training(16, 2000)),
    Row("cpu", 4, CPU_TFLOPS_PER_CORE, _cpu("cpu", 4, 6, 192, 128), _training(32, 2000)),
    Row("cpu", 2, CPU_TFLOPS_PER_CORE, PRESETS["cpu"], _training(32, 2000)),
    Row("cpu", 0, CPU_TFLOPS_PER_CORE, PRESETS["tiny"], _training(32, 2000)),
)


# --- advice ---------------------------------------------------------------------------------------------------------


def recommend(hardware: Hardware) -> Advice:
    """The first row of `TABLE` that this machine satisfies and whose training fits its memory.

    A GPU too small for every row of its kind is left alone: the rows for the CPU follow. The last row is the answer
    when nothing fits, and its line says so.
    """
    for row in TABLE:
        if _satisfies(hardware, row) and _fits(hardware, row):
            return Advice(row.config, _on(hardware, row), _why(hardware, row))
    return Advice(TABLE[-1].config, _on(hardware, TABLE[-1]), f"{_why(hardware, TABLE[-1])}; memory is short, close other programs")


def _on(hardware: Hardware, row: Row) -> TrainConfig:
    return row.training if row.accelerator == hardware.accelerator else replace(row.training, device=row.accelerator)


def training_memory_gb(config: ModelConfig, batch_size: int) -> float:
    """About how many GB a training step fills: weights, gradients, AdamW's two moments, and what backward needs, in float32.

    Activations per layer: tokens × d_model × (34 + 5 heads × seq / d_model) values of 2 bytes (Korthikanti et al. 2022,
    equation 1), twice that in float32. The second term is the attention weights, which a fused kernel never stores:
    the estimate errs on the safe side.
    """
    tokens = batch_size * config.max_seq_len
    weights = 16 * config.n_parameters
    per_value = 34 + 5 * config.n_heads * config.max_seq_len / config.d_model
    activations = 2 * config.n_layers * tokens * config.d_model * per_value
    logits = 3 * 4 * tokens * config.vocab_size
    return (weights + activations + logits) / GIB


def training_flop(config: ModelConfig, training: TrainConfig) -> float:
    """What a whole training costs: the products of all its steps, forward and backward (`step_cost.py`)."""
    return float(step_flop(config, training.batch_size) * training.max_steps)


def _satisfies(hardware: Hardware, row: Row) -> bool:
    if row.accelerator == "cpu":
        return hardware.cores >= row.least
    memory = hardware.gpu_memory_gb or 0.0 if row.accelerator == "cuda" else hardware.memory_gb
    return hardware.accelerator == row.accelerator and memory >= row.least


def _fits(hardware: Hardware, row: Row) -> bool:
    here = hardware.gpu_memory_gb or 0.0 if row.accelerator == "cuda" else hardware.memory_gb
    return training_memory_gb(row.config, row.training.batch_size) + PROGRAM_GB <= USABLE * here


def _why(hardware: Hardware, row: Row) -> str:
    what = {
        "cpu": f"{_plural(hardware.cores, 'core')} and {hardware.memory_gb:.0f} GB of memory",
        "cuda": f"{hardware.gpu} with {hardware.gpu_memory_gb or 0:.0f} GB",
        "mps": f"{hardware.gpu} and {hardware.memory_gb:.0f} GB of memory",
    }[row.accelerator]
    rate = row.tflops * min(hardware.cores, MOST_CORES) if row.accelerator == "cpu" else row.tflops
    flop = training_flop(row.config, row.training)
    return (
        f"{what}: {row.config.n_parameters / 1e6:.1f} M parameters, {row.training.max_steps:,} steps cost {_flop(flop)}, "
        f"about {_plural(max(1, round(flop / rate / 6e13)), 'minute')} at an estimated {rate:.2g} TFLOP/s"
    )


def _flop(count: float) -> str:
    return f"{count / 1e15:.1f} PFLOP" if count >= 1e15 else f"{count / 1e12:.0f} TFLOP"


def _plural(count: int, thing: str) -> str:
    return f"{count} {thing}" + ("" if count == 1 else "s")


def describe(hardware: Hardware) -> str:
    """The machine in one line, as `config.json` keeps it: "2 cores, 23 GB memory, no GPU, bfloat16 in hardware"."""
    gpu = "no GPU"
    if hardware.gpu is not None:
        gpu = hardware.gpu + (f" with {hardware.gpu_memory_gb:.0f} GB" if hardware.gpu_memory_gb is not None else "")
    bfloat16 = "bfloat16 in hardware" if hardware.bfloat16 else "no bfloat16 in hardware"
    return f"{_plural(hardware.cores, 'core')}, {hardware.memory_gb:.0f} GB memory, {gpu}, {bfloat16}"


# --- detection ------------------------------------------------------------------------------------------------------


def detect(root: Path = Path("/"), *, look_for_gpu: bool = True) -> Hardware:
    """This machine as it is now. `root` is where /proc and /sys are looked for (tests put their own there).

    Looking for a GPU loads PyTorch; without it the answer is about the CPU alone.
    """
    cores, memory = usable_cores(root), usable_memory_gb(root)
    cpu = Hardware(cores, memory, bfloat16=cpu_has_bfloat16(root))
    return _with_gpu(cpu) if look_for_gpu and find_spec("torch") is not None else cpu


def _with_gpu(cpu: Hardware) -> Hardware:
    import torch

    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        return replace(
            cpu, gpu=card.name, gpu_memory_gb=round(card.total_memory / GIB, 1), bfloat16=card.major >= 8, accelerator="cuda"
        )  # bfloat16 came with Ampere, compute capability 8.0
    if torch.backends.mps.is_available():
        return replace(cpu, gpu="Apple GPU", accelerator="mps")
    return cpu


def usable_cores(root: Path = Path("/")) -> int:
    """Cores this process may use: the machine's, less what affinity and the container's quota keep back; at least 1."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    quotas = [quota for quota in _cpu_quotas(root) if quota > 0]
    return max(1, min([cores, *(int(quota) for quota in quotas)]))


def _cpu_quotas(root: Path) -> Iterator[float]:
    for text in _control_files(root, "cpu.max", ""):  # version 2: "quota period", or "max period"
        quota, _, period = text.partition(" ")
        if quota.isdigit() and period.isdigit():
            yield int(quota) / int(period)
    quotas, periods = (list(_control_files(root, f"cpu.cfs_{name}_us", "cpu")) for name in ("quota", "period"))
    for quota, period in zip(quotas, periods, strict=False):  # version 1: a quota of -1 means none
        if quota.isdigit() and period.isdigit():
            yield int(quota) / int(period)


def usable_memory_gb(root: Path = Path("/")) -> float:
    """Memory this process may fill, in GB of 2³⁰ bytes: the machine's, or the container's limit if that is less."""
    limits = [int(text) for name, kind in (("memory.max", ""), ("memory.limit_in_bytes", "memory"))
              for text in _control_files(root, name, kind) if text.isdigit()]  # fmt: skip
    return round(min([_memory_bytes(root), *limits]) / GIB, 1)


def _control_files(root: Path, name: str, kind: str) -> Iterator[str]:
    """The texts of a control group's file, from this process's own group up to the top.

    `kind` is the controller of version 1 ("cpu", "memory"), empty for version 2. In a container the path that
    /proc/self/cgroup names often does not exist inside; the top always does.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if kind not in controllers.split(","):
            continue
        for top in (root / "sys/fs/cgroup" / controllers, root / "sys/fs/cgroup" / kind):
            group = top / path.strip("/")
            for folder in (group, *group.parents):
                if (folder / name).is_file():
                    yield (folder / name).read_text().strip()
                if folder == top:
                    break


def _memory_bytes(root: Path) -> int:
    info = root / "proc/meminfo"
    if info.is_file():
        return 1024 * int(next(line for line in info.read_text().splitlines() if line.startswith("MemTotal:")).split()[1])
    if sys.platform == "win32":
        return _windows_memory_bytes()
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _windows_memory_bytes() -> int:
    # MEMORYSTATUSEX: its own length and the load in per cent, then seven 64-bit counts, total physical memory first
    status = (ctypes.c_uint64 * 8)()
    ctypes.cast(status, ctypes.POINTER(ctypes.c_uint32))[0] = ctypes.sizeof(status)
    vars(ctypes)["windll"].kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
    return int(status[1])


def cpu_has_bfloat16(root: Path = Path("/")) -> bool:
    """Whether the CPU multiplies bfloat16 in hardware: AVX512-BF16 or AMX on x86, the BF16 extension on ARM."""
    info = root / "proc/cpuinfo"
    if info.is_file():
        words = set(info.read_text().split())
        return not words.isdisjoint({"avx512_bf16", "amx_bf16", "bf16"})
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "hw.optional.arm.FEAT_BF16"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() == "1"
    return False


if __name__ == "__main__":
    here = detect()
    print("here:", describe(here))
    advice = recommend(here)
    print(f"suits it: {advice.config.n_layers} layers, {advice.config.n_heads} heads, d_model {advice.config.d_model}, context "
          f"{advice.config.max_seq_len}, batch {advice.training.batch_size}, {advice.training.max_steps:,} steps")  # fmt: skip
    print("because:", advice.why)
    for row in TABLE:
        print(f"{row.accelerator:5} from {row.least:3g}: {row.config.n_layers:2} × {row.config.d_model:3}, {row.config.n_parameters:11,} "
              f"parameters, {training_memory_gb(row.config, row.training.batch_size):5.1f} GB to train")  # fmt: skip
