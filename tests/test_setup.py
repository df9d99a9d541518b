"""Set-up: which PyTorch for which machine, asked with made-up answers of pip; pins, stamps, repair, the Makefile."""

import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def load_setup():
    spec = importlib.util.spec_from_file_location("setup_environment", ROOT / "tools/setup_environment.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # NamedTuple and dataclass look their module up
    spec.loader.exec_module(module)
    return module


setup = load_setup()
Wheel = setup.Wheel

NEEDS = ("filelock", "sympy>=1.13.3", "jinja2", 'optree>=0.13.0; extra == "optree"', "typing-extensions>=4.10.0")
CUDA = (
    *NEEDS,
    'nvidia-cuda-nvrtc-cu12==12.8.93; platform_system == "Linux" and platform_machine == "x86_64"',
    'nvidia-cudnn-cu12==9.10.2.21; platform_system == "Linux" and platform_machine == "x86_64"',
    'triton==3.4.0; platform_system == "Linux" and platform_machine == "x86_64"',
)
CPU_WHEEL = Wheel("2.13.0+cpu", NEEDS)
PLAIN_CPU_WHEEL = Wheel("2.13.0", NEEDS)
CUDA_WHEEL = Wheel("2.13.0", CUDA)


def report(wheel):
    metadata = {"name": "torch", "version": wheel.version, "requires_dist": list(wheel.requires)}
    return json.dumps({"version": "1", "install": [{"download_info": {"url": "https://x"}, "metadata": metadata}]})


def never():
    raise AssertionError("pip was asked without need")


# --- which PyTorch --------------------------------------------------------------------------------------------------


def test_pips_report_is_read():
    assert setup.wheel_in_report(report(CUDA_WHEEL)) == CUDA_WHEEL
    assert setup.wheel_in_report(report(CPU_WHEEL)) == CPU_WHEEL
    another = '{"install": [{"metadata": {"name": "numpy", "version": "2"}}]}'
    for nothing in ("", "ERROR: No matching distribution found", "{}", "[]", '{"install": []}', another):
        assert setup.wheel_in_report(nothing) is None


@pytest.mark.parametrize(
    ("wheel", "machine", "is_cpu"),
    [
        (CPU_WHEEL, "x86_64", True),
        (PLAIN_CPU_WHEEL, "x86_64", True),
        (CUDA_WHEEL, "x86_64", False),
        (CUDA_WHEEL, "aarch64", True),
        (Wheel("2.13.0", (*NEEDS, "nvidia-cublas==13.0; platform_system == 'Linux'")), "aarch64", False),
        (Wheel("2.13.0", (*NEEDS, "cuda-bindings>=13; platform_system == 'Linux'")), "x86_64", False),
        (Wheel("2.13.0+cpu", CUDA), "x86_64", False),
        (Wheel("2.13.0+cu130", (*NEEDS, "nvidia-nccl-cu13")), "x86_64", False),
        (Wheel("2.13.0", (*NEEDS, "pytorch-triton==3.2")), "x86_64", False),
        (Wheel("2.13.0", (*NEEDS, 'nvidia-something; extra == "gpu"')), "x86_64", True),
    ],
)
def test_a_cpu_wheel_is_told_from_one_with_cuda(wheel, machine, is_cpu):
    assert setup.is_cpu_wheel(wheel, machine) is is_cpu


def test_cuda_requirements_are_named_without_versions_and_markers():
    assert setup.cuda_requirements(CUDA_WHEEL, "x86_64") == ["nvidia-cuda-nvrtc-cu12", "nvidia-cudnn-cu12", "triton"]


@pytest.mark.parametrize("system", ["Darwin", "Windows"])
def test_macos_and_windows_take_the_ordinary_wheel_unasked(system):
    assert setup.choose_torch(system, "arm64", False, never, never).how == "leave"


def test_linux_with_a_gpu_takes_the_ordinary_wheel_unasked():
    assert setup.choose_torch("Linux", "x86_64", True, never, never).how == "leave"


@pytest.mark.parametrize("found", [CPU_WHEEL, PLAIN_CPU_WHEEL])
def test_linux_without_a_gpu_takes_the_cpu_wheel_that_pip_finds(found):
    assert setup.choose_torch("Linux", "x86_64", False, lambda: found, never).how == "pip"


@pytest.mark.parametrize("found", [CUDA_WHEEL, None])
def test_else_the_cpu_index(found):
    choice = setup.choose_torch("Linux", "x86_64", False, lambda: found, lambda: CPU_WHEEL)
    assert choice.how == "cpu-index"
    assert "https://download.pytorch.org/whl/cpu" in choice.why


@pytest.mark.parametrize("from_index", [None, CUDA_WHEEL])
def test_else_a_person_decides(from_index):
    choice = setup.choose_torch("Linux", "x86_64", False, lambda: CUDA_WHEEL, lambda: from_index)
    assert choice.how == "cuda"
    assert "3 CUDA packages" in choice.why


def test_no_torch_at_all_is_an_error_with_a_remedy():
    with pytest.raises(setup.SetupError, match="Check the network") as caught:
        setup.choose_torch("Linux", "x86_64", False, lambda: None, lambda: None)
    assert caught.value.code == 1


@pytest.mark.parametrize(
    ("environment", "terminal", "answer", "allowed"),
    [
        ({"TINY_ALLOW_CUDA": "1"}, False, None, True),
        ({"TINY_ALLOW_CUDA": "0"}, False, None, False),
        ({}, False, None, False),
        ({}, True, "y", True),
        ({}, True, " YES ", True),
        ({}, True, "", False),
        ({}, True, "n", False),
    ],
)
def test_cuda_comes_only_when_asked_for(environment, terminal, answer, allowed):
    def ask(question):
        assert answer is not None, "asked where nobody can answer"
        return answer

    assert setup.allowed_cuda(environment, terminal, ask) is allowed


def test_the_cost_is_named():
    assert re.search(r"\d+ GB to download and \d+ GB on disk", setup.COST)


def test_a_gpu_is_seen_in_the_drivers_list_or_in_that_of_nvidia_smi(tmp_path):
    assert not setup.has_nvidia_gpu("", tmp_path)
    assert not setup.has_nvidia_gpu("No devices found.", tmp_path)
    assert setup.has_nvidia_gpu("GPU 0: NVIDIA GeForce RTX 4090 (UUID: GPU-1)", tmp_path)
    (tmp_path / "proc/driver/nvidia/gpus").mkdir(parents=True)
    assert not setup.has_nvidia_gpu("", tmp_path), "a driver without a card"
    (tmp_path / "proc/driver/nvidia/gpus/0000:01:00.0").mkdir()
    assert setup.has_nvidia_gpu("", tmp_path)


@pytest.mark.parametrize(
    ("version", "old"), [("22.3.1", True), ("23.2.1", True), ("23.3", False), ("24.0", False), ("26.3", False), ("9.0.1", True)]
)
def test_old_pips_are_known(version, old):
    assert setup.needs_newer_pip(version) is old


# --- the steps, with commands recorded instead of run ---------------------------------------------------------------


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """An Installer on a Linux machine without a GPU, whose steps are recorded and whose pip answers from a table."""

    class Recorded(setup.Installer):
        def __init__(self):
            super().__init__(tmp_path)
            self.steps, self.answers, self.present = [], {}, ""

        def step(self, what, command, hint=""):
            self.steps.append(command)

        def ask(self, pin, *source):
            assert pin == "torch==2.13.0"
            return self.answers.get("index" if "--index-url" in source else "pip")

        def newer_pip(self):
            pass

        def installed_torch(self):
            return self.present

    monkeypatch.setattr(setup.platform, "system", lambda: "Linux")
    monkeypatch.setattr(setup.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(setup, "nvidia_listing", lambda: "")
    monkeypatch.setattr(setup, "has_nvidia_gpu", lambda listing: "GPU 0:" in listing)
    monkeypatch.setattr(setup.sys.stdin, "isatty", lambda: False, raising=False)
    monkeypatch.delenv("TINY_ALLOW_CUDA", raising=False)
    return Recorded()


def test_the_cpu_wheel_is_installed_alone_and_pinned(recorded):
    recorded.answers = {"pip": CPU_WHEEL}
    recorded.torch("torch==2.13.0")
    assert recorded.steps == [recorded.pip("install", "--quiet", "--no-deps", "torch==2.13.0")]


def test_the_cpu_index_is_used_for_torch_only(recorded):
    recorded.answers = {"pip": CUDA_WHEEL, "index": CPU_WHEEL}
    recorded.torch("torch==2.13.0")
    recorded.project("core")
    torch, project = recorded.steps
    assert torch[-3:] == ["--index-url", "https://download.pytorch.org/whl/cpu", "torch==2.13.0"]
    assert "--no-deps" in torch
    assert "--index-url" not in project


def test_without_a_terminal_the_download_of_cuda_stops_with_code_2(recorded, capsys):
    recorded.answers = {"pip": CUDA_WHEEL}
    with pytest.raises(setup.SetupError, match="TINY_ALLOW_CUDA=1") as caught:
        recorded.torch("torch==2.13.0")
    assert caught.value.code == 2
    assert not recorded.steps
    assert setup.COST in capsys.readouterr().out


def test_with_permission_the_main_install_brings_it(recorded, monkeypatch):
    monkeypatch.setenv("TINY_ALLOW_CUDA", "1")
    recorded.answers = {"pip": CUDA_WHEEL}
    recorded.torch("torch==2.13.0")
    assert not recorded.steps


@pytest.mark.parametrize("present", ["2.13.0", "2.13.0+cpu"])
def test_a_torch_that_is_there_is_left_alone(recorded, present):
    recorded.present = present
    recorded.answers = None  # asking would fail
    recorded.torch("torch==2.13.0")
    assert not recorded.steps


def test_another_torch_is_replaced(recorded):
    recorded.present, recorded.answers = "2.12.0", {"pip": CPU_WHEEL}
    recorded.torch("torch==2.13.0")
    assert len(recorded.steps) == 1


@pytest.mark.parametrize(("group", "target"), [("core", ""), ("test", "[test]"), ("dev", "[dev]")])
def test_the_project_is_installed_editable_and_constrained(recorded, group, target):
    recorded.project(group)
    command = recorded.steps[0]
    assert command[-2:] == ["--editable", f"{recorded.root}{target}"]
    assert command[command.index("--constraint") + 1] == str(recorded.root / "constraints.txt")


def test_pip_is_not_led_elsewhere_by_the_persons_settings(monkeypatch, tmp_path):
    for name in ("PYTHONPATH", "PIP_USER", "PIP_TARGET"):
        monkeypatch.setenv(name, "/elsewhere")
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example")
    environment = setup.Installer(tmp_path).environment
    assert not {"PYTHONPATH", "PIP_USER", "PIP_TARGET"} & set(environment)
    assert environment["PIP_INDEX_URL"] == "https://mirror.example"


def test_a_failing_step_shows_the_end_of_its_log(tmp_path):
    (tmp_path / ".venv").mkdir()
    installer = setup.Installer(tmp_path)
    installer.step("something", [sys.executable, "-c", "print('earlier words')"])
    with pytest.raises(setup.SetupError) as caught:
        installer.step("something", [sys.executable, "-c", "import sys; sys.exit('short')"])
    assert "short" in str(caught.value)
    assert "earlier words" not in str(caught.value), "only this step's part of the log"
    code = "import sys; [print(f'line {i}') for i in range(40)]; sys.exit('no matching distribution')"
    with pytest.raises(setup.SetupError) as caught:
        installer.step("something", [sys.executable, "-c", code], "Try this")
    text = str(caught.value)
    assert "no matching distribution" in text
    assert str(installer.log) in text
    assert "Try this" in text
    assert "line 39" in text
    assert "line 3\n" not in text


# --- what is there already ------------------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path):
    """A checkout with an environment that looks installed."""
    for name in setup.INPUTS:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    python = setup.python_in(tmp_path / ".venv")
    python.parent.mkdir(parents=True)
    python.write_text("")
    for group in ("core", "test"):
        setup.stamp(tmp_path / ".venv", group).write_text(f"{tmp_path}\n")
    return tmp_path


def test_a_finished_set_up_is_not_repeated(checkout, monkeypatch):
    monkeypatch.setattr(setup, "Installer", never)
    setup.install(checkout, "core")
    setup.install(checkout, "test")


def test_what_makes_a_set_up_stale(checkout):
    assert setup.is_fresh(checkout, "core")
    assert not setup.is_fresh(checkout, "dev"), "another group"
    mark = setup.stamp(checkout / ".venv", "core")
    os.utime(mark, (1, 1))
    assert not setup.is_fresh(checkout, "core"), "the inputs are newer"
    mark.write_text("/another/place\n")
    assert not setup.is_fresh(checkout, "core"), "a copied or moved checkout"
    mark.write_text(f"{checkout}\n")
    assert setup.is_fresh(checkout, "core")
    setup.python_in(checkout / ".venv").unlink()
    assert not setup.is_fresh(checkout, "core"), "its Python is gone"


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt", "tools/setup_environment.py"])
def test_each_input_counts(checkout, name):
    later = setup.stamp(checkout / ".venv", "core").stat().st_mtime + 10
    os.utime(checkout / name, (later, later))
    assert not setup.is_fresh(checkout, "core")


def test_stamps_are_written_after_success_only_and_for_what_is_included(checkout, monkeypatch, capsys):
    for mark in (checkout / ".venv").glob(".installed-*"):
        mark.unlink()
    (checkout / "constraints.txt").write_text("numpy==1\ntorch==2.13.0\n")

    class Fake:
        fails = True

        def __init__(self, root):
            self.venv = root / ".venv"

        def make_venv(self):
            pass

        def torch(self, pin):
            assert pin == "torch==2.13.0"

        def project(self, group):
            if self.fails:
                raise setup.SetupError("no network")

    monkeypatch.setattr(setup, "Installer", Fake)
    with pytest.raises(setup.SetupError):
        setup.install(checkout, "dev")
    assert not list((checkout / ".venv").glob(".installed-*"))
    monkeypatch.setattr(Fake, "fails", False)
    setup.install(checkout, "test")
    assert {mark.name for mark in (checkout / ".venv").glob(".installed-*")} == {".installed-core", ".installed-test"}
    setup.install(checkout, "dev")
    assert all(setup.is_fresh(checkout, group) for group in ("core", "test", "dev"))


def test_a_real_environment_is_healthy_and_a_broken_or_copied_one_is_not(tmp_path):
    venv = tmp_path / ".venv"
    assert not setup.is_healthy(venv)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    assert not setup.is_healthy(venv), "half-made: no pip yet"
    site = next(venv.glob("lib*/python*/site-packages"), venv / "Lib/site-packages")
    (site / "pip.py").write_text("")
    assert setup.is_healthy(venv)
    shutil.copytree(venv, tmp_path / "copy/.venv", symlinks=True)
    assert not setup.is_healthy(tmp_path / "copy/.venv")
    python = setup.python_in(venv)
    python.unlink()
    python.symlink_to("/no/such/python")
    assert not setup.is_healthy(venv)


def test_a_broken_environment_is_made_anew(tmp_path, monkeypatch):
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/pyvenv.cfg").write_text("half")
    installer = setup.Installer(tmp_path)
    made = []
    monkeypatch.setattr(installer, "step", lambda what, command, hint: made.append(command))
    installer.make_venv()
    assert made == [[sys.executable, "-m", "venv", str(tmp_path / ".venv")]]
    assert not (tmp_path / ".venv/pyvenv.cfg").exists()


def test_what_stands_in_the_environments_place_is_not_deleted(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / ".venv").symlink_to(tmp_path / "precious")
    with pytest.raises(setup.SetupError, match="Move it away"):
        setup.Installer(tmp_path).make_venv()
    assert (tmp_path / "precious").is_dir()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no flock; make is not used there")
def test_two_set_ups_of_one_checkout_wait_for_each_other(tmp_path):
    file = tmp_path / "lock"
    file.write_text("")
    entered = threading.Event()

    def second():
        with setup.only_one(file):
            entered.set()

    with setup.only_one(file):
        thread = threading.Thread(target=second, daemon=True)
        thread.start()
        assert not entered.wait(0.2)
    assert entered.wait(30)
    thread.join()


# --- the command line -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["everything"], ["core", "test"]])
def test_an_unknown_group_is_refused(arguments, capsys, monkeypatch):
    monkeypatch.setattr(setup, "install", never)
    assert setup.main(arguments) == 2
    assert "core, test, dev" in capsys.readouterr().err


def test_an_old_python_is_refused(capsys, monkeypatch):
    monkeypatch.setattr(setup, "install", never)
    monkeypatch.setattr(setup, "LEAST_PYTHON", (99, 0))
    assert setup.main(["core"]) == 2
    line = capsys.readouterr().err
    assert "must be 99.0 or newer" in line
    assert line.count("\n") == 1


def test_errors_and_interruptions_have_exit_codes(capsys, monkeypatch):
    def fail(error):
        def install(root, group):
            raise error

        monkeypatch.setattr(setup, "install", install)
        return setup.main(["core"])

    assert fail(setup.SetupError("no", code=2)) == 2
    assert fail(setup.SetupError("no")) == 1
    assert fail(KeyboardInterrupt()) == 130
    assert "takes it up again" in capsys.readouterr().err


# --- pins -----------------------------------------------------------------------------------------------------------

CONSTRAINTS = (ROOT / "constraints.txt").read_text()
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def pins():
    return dict(line.split("==") for line in CONSTRAINTS.splitlines() if line and not line.startswith("#"))


def test_every_constraint_is_an_exact_pin_without_a_local_part():
    for line in CONSTRAINTS.splitlines()[1:]:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line), line
    assert setup.torch_pin(CONSTRAINTS) == "torch==2.13.0"


def test_a_missing_or_double_pin_is_an_error():
    for text in ("numpy==2\n", "torch==1\ntorch==2\n"):
        with pytest.raises(setup.SetupError, match="must do so once"):
            setup.torch_pin(text)


def test_every_requirement_is_pinned_within_its_range():
    from tiny_transformer.verify import satisfies

    extras = PYPROJECT["project"]["optional-dependencies"]
    for line in [*PYPROJECT["project"]["dependencies"], *extras["export"], *extras["test"], *extras["dev"]]:
        if line.startswith("tiny-transformer"):
            continue
        name, wanted = re.fullmatch(r"([\w-]+)(.*)", line).groups()
        assert name in pins(), f"{name} is not in constraints.txt"
        assert satisfies(pins()[name], wanted), line


@pytest.mark.skipif(platform.system() != "Linux", reason="only Linux wheels of PyTorch bring CUDA packages")
def test_this_machine_has_no_cuda_packages_unless_it_has_the_gpu():
    from tiny_transformer.verify import cuda_packages

    if setup.has_nvidia_gpu(setup.nvidia_listing()) or os.environ.get("TINY_ALLOW_CUDA") == "1":
        pytest.skip("an NVIDIA GPU is here, or its packages were asked for")
    assert cuda_packages() == []


# --- the Makefile ---------------------------------------------------------------------------------------------------


OURS = ("MAKEFLAGS", "MAKELEVEL", "PYTHON", "ARGS", "OMP_NUM_THREADS")


def make(folder, *arguments, **environment):
    clean = {name: value for name, value in os.environ.items() if name not in OURS}
    return subprocess.run(["make", *arguments], cwd=folder, env=clean | environment, capture_output=True, text=True, timeout=60)


FAKE_SETUP = f"""
import pathlib, sys
folder = pathlib.Path(".venv/bin")
folder.mkdir(parents=True, exist_ok=True)
with open("calls", "a") as calls:
    calls.write(sys.argv[1] + "\\n")
for name in ("python", "tiny"):
    (folder / name).write_text('#!/bin/sh\\necho $0 "$@" threads=$OMP_NUM_THREADS texts=$TINY_CORPORA\\n')
    (folder / name).chmod(0o755)
for group in {setup.GROUPS!r}[sys.argv[1]]:
    (folder.parent / (".installed-" + group)).write_text(str(pathlib.Path.cwd()) + "\\n")
"""


@pytest.fixture
def tree(tmp_path):
    """The Makefile with a set-up script that only writes down what it was asked for, and the stamps."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "tools").mkdir()
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text("")
    (tmp_path / "tools/setup_environment.py").write_text(FAKE_SETUP)
    return tmp_path


def calls(tree):
    return (tree / "calls").read_text().split()


def test_make_alone_lists_the_targets(tree):
    done = make(tree)
    assert done.returncode == 0
    assert not (tree / "calls").exists(), "help needs no set-up"
    for target in ("demo", "test", "verify", "lint", "bench", "dist", "clean"):
        assert re.search(rf"^  {target} +\w", done.stdout, re.MULTILINE)
    assert make(tree, "help").stdout == done.stdout


def test_make_demo_sets_up_once(tree):
    first = make(tree, "demo", "ARGS=--quick")
    assert first.returncode == 0, first.stderr
    assert ".venv/bin/tiny demo --quick" in first.stdout
    make(tree, "demo")
    assert calls(tree) == ["core"]


def test_make_test_runs_pytest_with_one_thread_each(tree):
    done = make(tree, "test", TINY_CORPORA="/texts")
    assert "-m pytest -n 2" in done.stdout
    assert "threads=1 texts=/texts" in done.stdout
    assert calls(tree) == ["test"]
    make(tree, "demo")
    assert calls(tree) == ["test"], "the tests' set-up holds that of the demo"


def test_a_changed_pin_or_a_moved_checkout_sets_up_again(tree, tmp_path_factory):
    make(tree, "demo")
    stamp = (tree / ".venv/.installed-core").stat().st_mtime
    os.utime(tree / "constraints.txt", (stamp + 5, stamp + 5))
    os.utime(tree / ".venv/.installed-core", (stamp, stamp))
    make(tree, "demo")
    assert calls(tree) == ["core", "core"]
    os.utime(tree / "constraints.txt", (1, 1))
    moved = tmp_path_factory.mktemp("moved") / "tree"
    shutil.copytree(tree, moved)
    make(moved, "demo")
    assert calls(moved) == ["core", "core", "core"]
    make(moved, "demo")
    assert calls(moved) == ["core", "core", "core"]
    (moved / ".venv/bin/python").unlink()
    make(moved, "demo")
    assert len(calls(moved)) == 4, "its Python was lost"


def test_an_old_or_missing_python_is_one_clear_line(tree):
    for python in ("false", "/no/such/python"):
        done = make(tree, "demo", f"PYTHON={python}")
        assert done.returncode == 2
        assert f"{python} is not Python 3.11 or newer" in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tree / "calls").exists()


def test_python_can_be_chosen(tree):
    assert make(tree, "demo", f"PYTHON={sys.executable}").returncode == 0


def test_clean_keeps_what_people_made(tree):
    keep = ["checkpoints/a/best.pt", "data/text.txt", "samples/x.txt", "experiments/y", ".venv/lib/__pycache__/z.pyc", "runs/__init__.py"]
    drop = ["build/a", "dist/a.whl", ".pytest_cache/a", "runs/__pycache__/a.pyc", ".mypy_cache/a"]
    for name in keep + drop:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("")
    assert make(tree, "clean").returncode == 0
    assert all((tree / name).exists() for name in keep)
    assert not any((tree / name).exists() for name in drop)


def test_ci_runs_lint_and_tests():
    script = (ROOT / ".ci/run").read_text()
    assert "set -euo pipefail" in script
    assert script.index("make lint") < script.index("make test")
    assert os.access(ROOT / ".ci/run", os.X_OK)
