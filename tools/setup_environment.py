"""Make the virtual environment `.venv` and install this project into it. `make demo`, `make test` and `make lint` call it.

It runs before anything is installed, so it needs nothing but Python. Its one delicate choice is PyTorch: on Linux the
ordinary wheel brings gigabytes of CUDA packages, which a machine without an NVIDIA GPU never receives unasked.

    python3 tools/setup_environment.py core      what `tiny` needs
    python3 tools/setup_environment.py test      … and what the tests need
    python3 tools/setup_environment.py dev       … and ruff and mypy

Exit codes: 0 done, 1 something failed (the log's last lines are shown), 2 a decision is needed from you. Read before: nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
LEAST_PYTHON = (3, 11)
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
INPUTS = ("pyproject.toml", "constraints.txt", "tools/setup_environment.py")
GROUPS = {"core": ("core",), "test": ("core", "test"), "dev": ("core", "test", "dev")}  # each group holds those before it
EXTRAS = {"core": "", "test": "[test]", "dev": "[dev]"}
TAIL = 15  # lines of the log that a failure shows


class SetupError(Exception):
    """Set-up cannot go on; the text says why and what helps. `code` is the exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


# --- which PyTorch: pure decisions, so that tests can ask them about machines that are not here ---------------------


class Wheel(NamedTuple):
    """What pip would install for torch: its version, and the requirement lines of its metadata."""

    version: str
    requires: tuple[str, ...]


class Choice(NamedTuple):
    """How to get torch: `how` is "leave" (the main install brings it), "pip", "cpu-index" or "cuda"."""

    how: str
    why: str


def wheel_in_report(report: str) -> Wheel | None:
    """The torch wheel in the output of `pip install --dry-run --report -`; None when there is none in it."""
    try:
        found = [entry["metadata"] for entry in json.loads(report)["install"]]
    except (ValueError, KeyError, TypeError):
        return None
    torch = [data for data in found if data.get("name", "").lower() == "torch"]
    return Wheel(torch[0]["version"], tuple(torch[0].get("requires_dist", ()))) if torch else None


def cuda_requirements(wheel: Wheel, machine: str) -> list[str]:
    """Names of the GPU packages that `wheel` would bring to a `machine` such as "x86_64"."""
    names = []
    for line in wheel.requires:
        requirement, _, marker = line.partition(";")
        name = re.split(r"[^A-Za-z0-9._-]", requirement.strip())[0].lower()
        other_machine = re.search(r"platform_machine\s*==\s*['\"]([^'\"]+)", marker)
        elsewhere = "extra ==" in marker or (other_machine is not None and other_machine.group(1) != machine)
        if not elsewhere and re.match(r"(nvidia|cuda|triton|pytorch-triton|pytorch_triton)", name):
            names.append(name)
    return names


def is_cpu_wheel(wheel: Wheel, machine: str) -> bool:
    """Whether `wheel` brings no GPU package; the name alone (+cpu or not) decides nothing."""
    return not cuda_requirements(wheel, machine)


def choose_torch(
    system: str, machine: str, has_gpu: bool, ask_pip: Callable[[], Wheel | None], ask_cpu_index: Callable[[], Wheel | None]
) -> Choice:
    """Decide where torch comes from. Only Linux without an NVIDIA GPU needs care; pip is asked only there.

    The order: the wheel that pip finds when it is a CPU one, else PyTorch's own CPU index, else "cuda": ask the person.
    Raises SetupError when pip finds no torch at all.
    """
    if system != "Linux":
        return Choice("leave", f"the ordinary PyTorch: on {system} it brings no CUDA packages")
    if has_gpu:
        return Choice("leave", "an NVIDIA GPU is here: PyTorch with CUDA, about 3 GB to download (several minutes)")
    found = ask_pip()
    if found is not None and is_cpu_wheel(found, machine):
        return Choice("pip", f"torch {found.version}, a CPU wheel that pip finds")
    from_index = ask_cpu_index()
    if from_index is not None and is_cpu_wheel(from_index, machine):
        return Choice("cpu-index", f"torch {from_index.version} from {CPU_INDEX}")
    if found is None:
        raise SetupError("pip finds no torch for this Python. Check the network (pip's index must be reachable), then try again")
    return Choice("cuda", f"torch {found.version} with {len(cuda_requirements(found, machine))} CUDA packages")


COST = (
    "Only PyTorch with NVIDIA's CUDA packages can be had here: about 3 GB to download and 6 GB on disk, of no use without an\n"
    f"NVIDIA GPU. (PyTorch's CPU index, {CPU_INDEX}, cannot be reached or does not have it.)"
)


def allowed_cuda(environment: dict[str, str], terminal: bool, ask: Callable[[str], str]) -> bool:
    """Whether a person accepts the cost: TINY_ALLOW_CUDA=1 beforehand, or a yes on the terminal."""
    if environment.get("TINY_ALLOW_CUDA") == "1":
        return True
    return terminal and ask("Go on with it? [y/N] ").strip().lower() in ("y", "yes")


def has_nvidia_gpu(listing: str, root: Path = Path("/")) -> bool:
    """Whether an NVIDIA GPU is here: by `listing`, the output of `nvidia-smi -L`, or by the driver's own list."""
    driver = root / "proc/driver/nvidia/gpus"
    return "GPU 0:" in listing or (driver.is_dir() and any(driver.iterdir()))


def torch_pin(constraints: str) -> str:
    """The line of constraints.txt that pins torch: "torch==2.13.0"."""
    pins = [line.strip() for line in constraints.splitlines() if re.match(r"torch==", line)]
    if len(pins) != 1:
        raise SetupError(f"constraints.txt pins torch {len(pins)} times: it must do so once. Try: git checkout constraints.txt")
    return pins[0]


def needs_newer_pip(version: str) -> bool:
    """Whether this pip downloads a wheel only to say which it would take; 23.3 is the first that reads its metadata alone."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < (23, 3)


# --- what is there already ------------------------------------------------------------------------------------------


def stamp(venv: Path, group: str) -> Path:
    """The file whose presence says that `group` is installed; it holds the folder of the checkout."""
    return venv / f".installed-{group}"


def is_fresh(root: Path, group: str) -> bool:
    """Whether `group` is installed here and nothing that decides about it has changed since."""
    mark = stamp(root / ".venv", group)
    if not mark.is_file() or mark.read_text().strip() != str(root) or not python_in(root / ".venv").exists():
        return False
    return all((root / name).stat().st_mtime <= mark.stat().st_mtime for name in INPUTS)


def python_in(venv: Path) -> Path:
    """The environment's own Python."""
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def is_healthy(venv: Path) -> bool:
    """Whether the environment can be used as it is: made at this path, its Python runs, is new enough, and has pip."""
    if not (venv / "pyvenv.cfg").is_file() or not python_in(venv).exists():
        return False
    made = re.search(r"^command = .* -m venv (?:.* )?(/.*)$", (venv / "pyvenv.cfg").read_text(), re.MULTILINE)
    if made is not None and Path(made.group(1)).resolve() != venv.resolve():
        return False  # copied or moved: its scripts point to the old place
    probe = f"import sys, pip; sys.exit(sys.version_info < {LEAST_PYTHON})"
    return subprocess.run([python_in(venv), "-c", probe], capture_output=True, check=False).returncode == 0


# --- doing it -------------------------------------------------------------------------------------------------------


class Installer:
    """Runs the steps in one environment, with pip's words in a log and one line per step on the screen."""

    def __init__(self, root: Path) -> None:
        self.root, self.venv = root, root / ".venv"
        self.log = self.venv / "setup.log"
        elsewhere = ("PYTHONPATH", "PYTHONHOME", "PIP_USER", "PIP_TARGET", "PIP_PREFIX")  # would install to, or look in, another place
        self.environment = {name: value for name, value in os.environ.items() if name not in elsewhere}
        self.environment.update(PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_INPUT="1", PIP_REQUIRE_VIRTUALENV="0")

    def make_venv(self) -> None:
        """A new environment in place of a missing, broken or half-made one."""
        if is_healthy(self.venv):
            return
        if self.venv.is_symlink() or self.venv.is_file():
            raise SetupError(f"{self.venv} is not a folder: it must be one. Move it away")
        shutil.rmtree(self.venv, ignore_errors=True)
        self.venv.mkdir(parents=True, exist_ok=True)
        hint = "On Debian and Ubuntu: sudo apt install python3-venv"
        self.step("a virtual environment in .venv (some seconds)", [sys.executable, "-m", "venv", str(self.venv)], hint)

    def pip(self, *arguments: str) -> list[str]:
        """A pip command line in the environment."""
        return [str(python_in(self.venv)), "-m", "pip", *arguments]

    def ask(self, pin: str, *source: str) -> Wheel | None:
        """What pip would install for `pin`, without installing it; None when it finds nothing."""
        command = self.pip("install", "--dry-run", "--no-deps", "--ignore-installed", "--quiet", "--report", "-", *source, pin)
        with self.log.open("a") as log:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=log, text=True, env=self.environment, check=False)
        return wheel_in_report(done.stdout)

    def torch(self, pin: str) -> None:
        """Get the pinned torch where the ordinary way would bring CUDA packages to a machine without an NVIDIA GPU."""
        if self.installed_torch().split("+")[0] == pin.split("==")[1]:
            return
        only_here = ("--index-url", CPU_INDEX, "--timeout", "8", "--retries", "0")
        linux_without_gpu = platform.system() == "Linux" and not has_nvidia_gpu(nvidia_listing())
        if linux_without_gpu:
            self.newer_pip()
            print("set-up: looking for a PyTorch without CUDA packages (some seconds)", flush=True)
        choice = choose_torch(
            platform.system(), platform.machine(), not linux_without_gpu, lambda: self.ask(pin), lambda: self.ask(pin, *only_here)
        )
        print(f"set-up: {choice.why}", flush=True)
        if choice.how == "cuda":
            print(COST, flush=True)
            if not allowed_cuda(dict(os.environ), sys.stdin.isatty(), input):
                raise SetupError(
                    "stopped before the download. Give pip a place that has the CPU wheel (PIP_FIND_LINKS, PIP_EXTRA_INDEX_URL), "
                    "or accept the cost with TINY_ALLOW_CUDA=1",
                    code=2,
                )
        if choice.how in ("pip", "cpu-index"):
            source = ("--index-url", CPU_INDEX) if choice.how == "cpu-index" else ()
            # alone and without its requirements: they come from the ordinary index with the rest, as pinned
            self.step("PyTorch (about 200 MB, a minute or so)", self.pip("install", "--quiet", "--no-deps", *source, pin))

    def newer_pip(self) -> None:
        """A pip that can answer `ask` without a download, if there is one; the old one works too, only slower."""
        version = self.output("import pip; print(pip.__version__)")
        if needs_newer_pip(version):
            with self.log.open("a") as log:
                command = self.pip("install", "--quiet", "--upgrade", "--constraint", str(self.root / "constraints.txt"), "pip")
                subprocess.run(command, stdout=log, stderr=log, env=self.environment, check=False)

    def installed_torch(self) -> str:
        """The version of torch in the environment, empty when there is none."""
        return self.output("import importlib.metadata as m; print(m.version('torch'))")

    def output(self, code: str) -> str:
        """What a line of Python prints in the environment; empty when it fails."""
        command = [str(python_in(self.venv)), "-c", code]
        return subprocess.run(command, capture_output=True, text=True, env=self.environment, check=False).stdout.strip()

    def project(self, group: str) -> None:
        """The project itself, editable, with everything `group` needs, at the pinned versions."""
        constraints = str(self.root / "constraints.txt")
        target = f"{self.root}{EXTRAS[group]}"
        what = {"core": "what tiny needs", "test": "what the tests need", "dev": "what developers need"}[group]
        command = self.pip("install", "--quiet", "--constraint", constraints, "--editable", target)
        self.step(f"the project and {what} (a minute or two)", command)

    def step(self, what: str, command: Sequence[str], hint: str = "Check network and disk, then run the same command again") -> None:
        """Run one command quietly; on a terminal a clock shows that it is alive. Raises SetupError with the log's last lines."""
        print(f"set-up: {what}", end="\n" if not sys.stdout.isatty() else "", flush=True)
        started, before = time.monotonic(), self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("a") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self.environment)
            try:
                while process.poll() is None:
                    time.sleep(0.2)
                    if sys.stdout.isatty():
                        print(f"\rset-up: {what} {time.monotonic() - started:.0f} s", end="", flush=True)
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait()
        if sys.stdout.isatty():
            print()
        if process.returncode != 0:
            tail = self.log.read_bytes()[before:].decode(errors="replace").splitlines()[-TAIL:]
            raise SetupError("\n".join([*(f"  | {line}" for line in tail), f"this step failed; the whole log is {self.log}. {hint}"]))


def nvidia_listing() -> str:
    """What `nvidia-smi -L` prints; empty when there is no such program or it finds no GPU."""
    program = shutil.which("nvidia-smi") or "/usr/lib/wsl/lib/nvidia-smi"
    try:
        done = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


@contextlib.contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Wait while another set-up of the same checkout is at work (`path` is any file of it)."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def install(root: Path, group: str) -> None:
    """Set `group` up in `root`/.venv, if it is not already. A half-finished set-up is taken up where it stands."""
    if is_fresh(root, group):
        return
    started = time.monotonic()
    installer = Installer(root)
    installer.make_venv()
    installer.torch(torch_pin((root / "constraints.txt").read_text()))
    installer.project(group)
    for name in GROUPS[group]:
        stamp(installer.venv, name).write_text(f"{root}\n")
    print(f"set-up: done in {time.monotonic() - started:.0f} s; this was the only time\n", flush=True)


def main(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code."""
    if sys.version_info < LEAST_PYTHON:
        least, got = (".".join(map(str, version[:2])) for version in (LEAST_PYTHON, sys.version_info))
        print(f"this is Python {got}: it must be {least} or newer. Install one, or name it: make PYTHON=/path/to/python", file=sys.stderr)
        return 2
    group = arguments[0] if arguments else "core"
    if len(arguments) > 1 or group not in GROUPS:
        print(f"unknown group {' '.join(arguments)!r}: it must be one of {', '.join(GROUPS)}. See the top of {__file__}", file=sys.stderr)
        return 2
    try:
        with only_one(Path(__file__)):
            install(ROOT, group)
    except SetupError as error:
        print(f"set-up: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print("\nset-up: stopped; the next call takes it up again", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
